"""The historian against a real server that takes InfluxDB v2 writes: Debian's victoria-metrics."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from mullet.adapters.clock import SystemClock
from mullet.adapters.historian import FanOut, InfluxHistorian, TelemetryStore
from mullet.ports import Historian

BINARY = shutil.which("victoria-metrics")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(BINARY is None, reason="needs the Debian package victoria-metrics"),
]


class Server:
    """A victoria-metrics that can be stopped and started on the same port and data."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.url = f"http://{self.address}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        assert BINARY is not None
        self._process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
            [
                BINARY,
                f"-httpListenAddr={self.address}",
                f"-storageDataPath={self._folder / 'data'}",
                "-search.latencyOffset=0s",
                "-memory.allowedBytes=64MB",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        async with asyncio.timeout(20.0):
            while not await self._answers():
                assert self._process.poll() is None, "victoria-metrics ended"
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            await asyncio.to_thread(process.wait, 20.0)

    async def _answers(self) -> bool:
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                return (await client.get(f"{self.url}/health")).status_code == 200
        except httpx.TransportError:
            return False

    async def values(self, selector: str) -> dict[frozenset[tuple[str, str]], list[tuple[int, float]]]:
        """All samples of a selector: (milliseconds, value) by labels, from what has been flushed."""
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.get(f"{self.url}/internal/force_flush")
            answer = await client.get(f"{self.url}/api/v1/export", params={"match[]": selector})
        found = {}
        for line in answer.text.splitlines():
            data: dict[str, Any] = httpx.Response(200, text=line).json()
            found[frozenset(data["metric"].items())] = list(zip(data["timestamps"], data["values"], strict=True))
        return found


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    running = Server(tmp_path)
    await running.start()
    yield running
    await running.stop()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("never happened")


async def test_measurements_arrive_and_read_back(server: Server, tmp_path: Path) -> None:
    clock = SystemClock()
    influx = InfluxHistorian(server.url, "token", "org", "mullet", clock, facility="demo site")
    store = TelemetryStore(tmp_path / "telemetry.db", load_period_s=0.0, chart_period_s=0.0)
    both: Historian = FanOut([store, influx])
    begin = float(round(clock.now())) - 60.0
    for second in range(5):
        series = {
            f"load/asic-{number:03d}": {"watts": 3_000.0 + number + second, "th_per_s": 100.0, "celsius": float("nan")}
            for number in range(1, 101)
        }
        series |= {"circuit/feeder-a": {"watts": 1e6 + second}, "facility": {"watts": 2.5e6, "price_per_mwh": -12.5}}
        await both.record(begin + second, series)
    await until(lambda: influx.written == 5)
    await both.close()
    assert influx.problem is None
    assert influx.dropped == store.dropped == 0

    one = await server.values('load_watts{id="asic-007"}')
    (labels, samples), *rest = one.items()
    assert not rest
    assert {("id", "asic-007"), ("facility", "demo site")} <= labels
    assert samples == [(round((begin + second) * 1000), 3_007.0 + second) for second in range(5)]
    assert len(await server.values("load_th_per_s")) == 100
    assert await server.values("load_celsius") == {}
    (prices,) = (await server.values("facility_price_per_mwh")).values()
    assert [price for _, price in prices] == [-12.5] * 5
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(
            f"{server.url}/api/v1/query", params={"query": "sum(load_watts)", "time": str(begin + 4.0)}
        )
    assert float(answer.json()["data"]["result"][0]["value"][1]) == sum(3_004.0 + number for number in range(1, 101))
    kept = store.series("load/asic-007", "watts", begin, begin + 5.0)
    assert [(round(at * 1000), watts) for at, watts in kept] == samples, "both hold the same"


async def test_what_was_recorded_while_the_server_was_away_arrives_later(server: Server) -> None:
    clock = SystemClock()
    historian = InfluxHistorian(server.url, "token", "org", "mullet", clock, timeout_s=2.0)
    begin = float(round(clock.now())) - 60.0
    await historian.record(begin, {"facility": {"watts": 1.0}})
    await until(lambda: historian.written == 1)
    await server.stop()
    for second in range(1, 4):
        await historian.record(begin + second, {"facility": {"watts": 1.0 + second}})
    await until(lambda: historian.problem is not None)
    await server.start()
    await until(lambda: historian.written == 4)
    await historian.close()
    assert historian.problem is None
    (samples,) = (await server.values("facility_watts")).values()
    assert [value for _, value in samples] == [1.0, 2.0, 3.0, 4.0]
