"""The simulated miners as the real pyasic sees them: identification, data, control, and how they lie."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mullet_simulators.facility import SERVERS, Facility
from mullet_simulators.testing import find_subnet, simulated_facility

ROOT_LEVEL = logging.getLogger().level
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pyasic.miners.factory as factory
    from pyasic.data import MinerData
logging.getLogger().setLevel(ROOT_LEVEL)

pytestmark = [
    pytest.mark.e2e,
    # pyasic builds pydantic models with deprecated options and leaves sockets to the garbage collector
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SCENARIO: dict[str, Any] = {
    "circuits": [{"id": "pdu", "limit_w": 20000}],
    "banks": [
        {"id": "wm", "number": 1, "circuit": "pdu", "model": "whatsminer-m50s", "count": 2, "ramp_scale": 0.1},
        {"id": "am", "number": 2, "circuit": "pdu", "model": "antminer-s19", "count": 2, "ramp_scale": 0.04},
    ],
    "price": {"base_per_mwh": 38.0},
}


@pytest.fixture
async def facility() -> AsyncIterator[Facility]:
    async with simulated_facility(SCENARIO, servers=()) as running:
        yield running


def miner_at(facility: Facility, load: str) -> Any:
    """The pinned pyasic object, with no identification and no network."""
    bank = facility.addresses()["miners"][load.rpartition("-")[0]]
    kind = factory.MinerTypes.WHATSMINER if load.startswith("wm") else factory.MinerTypes.ANTMINER
    miner = factory.MINER_CLASSES[kind][bank["model"]](facility.host(load))
    assert type(miner).__name__ == bank["class"]
    if bank["web_port"]:
        miner.web.port = bank["web_port"]
    return miner


async def until(truth: Callable[[], bool], deadline_s: float = 8.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not truth():  # noqa: ASYNC110 - physics has no event
            await asyncio.sleep(0.02)


async def until_listening(facility: Facility, load_id: str, listening: bool) -> None:
    async with asyncio.timeout(8.0):
        while await is_listening(facility.host(load_id)) != listening:  # noqa: ASYNC110 - sockets tell nobody
            await asyncio.sleep(0.02)


async def is_listening(host: str) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, 4028)
        writer.close()
        await writer.wait_closed()
    except ConnectionError:
        return False
    return True


async def within(call: Awaitable[Any], deadline_s: float = 15.0) -> Any:
    async with asyncio.timeout(deadline_s):
        return await call


async def test_pyasic_identifies_both_makes(facility: Facility) -> None:
    whatsminer = await within(factory.MinerFactory().get_miner(facility.host("wm-001")))
    antminer = await within(factory.MinerFactory().get_miner(facility.host("am-001")))
    assert type(whatsminer).__name__ == "BTMinerM50SVH50"
    assert type(antminer).__name__ == "BMMinerS19"


async def test_pyasic_reads_a_whatsminer(facility: Facility) -> None:
    data: MinerData = await within(miner_at(facility, "wm-001").get_data())
    assert data.wattage == pytest.approx(facility.plant.loads["wm-001"].watts, rel=0.02)
    assert data.wattage_limit == 3276
    assert float(data.hashrate) == pytest.approx(126.0, rel=0.03)
    assert data.is_mining is True
    assert data.total_chips == 3 * 135
    assert [str(pool.url) for pool in data.pools] == [
        pool["url"] for pool in facility.plant.loads["wm-001"].truth()["pools"]
    ]


async def test_pyasic_reads_an_antminer(facility: Facility) -> None:
    miner = miner_at(facility, "am-001")
    data: MinerData = await within(miner.get_data(include=["hashrate", "pools", "uptime", "expected_hashrate"]))
    assert float(data.hashrate) == pytest.approx(95.0, rel=0.03)
    assert len(data.pools) == 3
    assert (await within(miner.web.get_system_info()))["minertype"] == "Antminer S19"
    assert await within(miner._is_mining()) is True
    boards = await within(miner._get_hashboards())
    assert [board.chips for board in boards] == [76, 76, 76]


async def test_whatsminer_stops_resumes_and_takes_a_limit(facility: Facility) -> None:
    miner, load = miner_at(facility, "wm-001"), facility.plant.loads["wm-001"]
    assert await within(miner.stop_mining())
    await until(lambda: load.truth()["state"] == "asleep")
    assert load.watts < 20.0
    assert (await within(miner.get_data(include=["is_mining", "wattage", "pools"]))).is_mining is False
    assert await within(miner.resume_mining())
    await until(lambda: load.truth()["state"] == "hashing")
    assert await within(miner.set_power_limit(2500))
    await until(lambda: load.truth()["state"] == "hashing" and load.truth()["boots"] == 2)
    assert load.watts == pytest.approx(2500.0, rel=0.02)
    miner.api_ver = "2.0.5"
    await within(miner.rpc.set_power_pct(80))
    await until(lambda: abs(load.watts - 2000.0) < 40.0)
    assert load.truth()["boots"] == 2


async def test_antminer_stops_and_resumes(facility: Facility) -> None:
    miner, load = miner_at(facility, "am-001"), facility.plant.loads["am-001"]
    pools = load.truth()["pools"]
    assert await within(miner.stop_mining())
    await until(lambda: load.truth()["state"] == "asleep")
    assert load.watts < 30.0
    assert await within(miner._is_mining()) is False
    assert await within(miner.resume_mining())
    await until(lambda: load.truth()["state"] == "hashing")
    assert load.truth()["pools"] == pools


async def test_pyasic_stop_erases_the_pools_of_an_antminer_whose_config_cannot_be_read(
    facility: Facility,
) -> None:
    facility.set_fault("am-001", "http500_config")
    load = facility.plant.loads["am-001"]
    assert all(pool["url"] for pool in load.truth()["pools"])
    assert await within(miner_at(facility, "am-001").stop_mining()) is True
    assert not any(pool["url"] for pool in load.truth()["pools"])


@pytest.mark.parametrize("load_id", ["wm-002", "am-002"])
async def test_a_miner_that_ignores_says_yes_and_goes_on(facility: Facility, load_id: str) -> None:
    facility.set_fault(load_id, "ignore")
    load = facility.plant.loads[load_id]
    assert await within(miner_at(facility, load_id).stop_mining()) is True
    await asyncio.sleep(0.6)  # longer than either ramp
    assert load.truth()["state"] == "hashing"
    assert load.watts > 3000.0


async def test_a_whatsminer_that_refuses_or_knows_another_password_says_no(facility: Facility) -> None:
    for fault in ("refuse", "wrong_password"):
        facility.set_fault("wm-001", fault)
        assert await within(miner_at(facility, "wm-001").stop_mining()) is False
    assert facility.plant.loads["wm-001"].truth()["state"] == "hashing"


async def test_a_misreporting_antminer_says_it_sleeps_and_draws(facility: Facility) -> None:
    facility.set_fault("am-002", "misreport")
    miner = miner_at(facility, "am-002")
    assert await within(miner._is_mining()) is False
    assert facility.plant.loads["am-002"].watts > 3000.0


async def test_a_token_does_not_outlive_a_reboot(facility: Facility) -> None:
    miner, load = miner_at(facility, "wm-001"), facility.plant.loads["wm-001"]
    assert await within(miner.stop_mining())
    facility.set_fault("wm-001", "reboot")
    await until_listening(facility, "wm-001", False)
    await until_listening(facility, "wm-001", True)
    await until(lambda: load.truth()["state"] == "hashing")
    assert await within(miner.stop_mining()) is False
    miner.rpc.token = None
    assert await within(miner.stop_mining()) is True


async def test_a_dead_miner_refuses_connections_and_one_that_hangs_stays_silent(facility: Facility) -> None:
    facility.set_fault("wm-001", "dead")
    facility.set_fault("wm-002", "hang")
    load = facility.plant.loads["wm-001"]

    await until_listening(facility, "wm-001", False)
    assert load.watts == 0.0
    reader, writer = await asyncio.open_connection(facility.host("wm-002"), 4028)
    writer.write(b'{"command": "summary"}')
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await reader.read()
    writer.close()
    await writer.wait_closed()
    assert facility.plant.loads["wm-002"].watts > 3000.0


async def test_the_process_serves_pyasic_as_well_with_slow_devices(tmp_path: Path) -> None:
    scenario = tmp_path / "small.yaml"
    scenario.write_text(json.dumps(SCENARIO))
    subnet = find_subnet()
    arguments = ["-m", "mullet_simulators", str(scenario), "--subnet", str(subnet), "--device-latency-ms", "100"]
    for server in SERVERS:
        arguments += ["--without", server]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        ready = json.loads(await within(process.stdout.readline()))
        antminer = await within(factory.MinerFactory().get_miner(ready["miners"]["am"]["hosts"][0]))
        assert type(antminer).__name__ == "BMMinerS19"
        antminer.web.port = ready["miners"]["am"]["web_port"]
        assert await within(antminer.stop_mining())
        assert await within(antminer._is_mining()) is False
        whatsminer = await within(factory.MinerFactory().get_miner(ready["miners"]["wm"]["hosts"][0]))
        assert await within(whatsminer.stop_mining())
        assert (await within(whatsminer.get_data(include=["is_mining", "pools"]))).is_mining is False
    finally:
        process.terminate()
        assert await within(process.wait()) == 0
