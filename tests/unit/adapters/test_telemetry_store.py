import asyncio
import sqlite3
from pathlib import Path

import pytest

from mullet.adapters.historian import FanOut, TelemetryReader, TelemetryStore
from mullet.ports import Historian, HistorianError

BEGIN = 1_780_000_000.0


def store_at(path: Path, **options: float) -> TelemetryStore:
    return TelemetryStore(path, **{"load_period_s": 0.0, "chart_period_s": 0.0} | options)


async def until_written(store: TelemetryStore, instants: int) -> None:
    for _ in range(5_000):
        if store.written == instants:
            return
        await asyncio.sleep(0.001)
    raise AssertionError(store.problem)


async def test_loads_and_charts_read_back_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.db"
    for run in range(2):
        store: Historian = store_at(path)
        for second in range(3):
            at = BEGIN + 10 * run + second
            series = {"load/a": {"watts": 3_000.0 + second}, "facility": {"watts": 1e6 + second}}
            if run:
                series |= {"load/b": {"watts": 5.0, "celsius": 60.5}}
            await store.record(at, series)
        await store.close()
    reader = TelemetryReader(path)
    watts = reader.series("load/a", "watts", BEGIN, BEGIN + 100)
    assert watts == [(BEGIN + at, 3_000.0 + at % 10) for at in (0, 1, 2, 10, 11, 12)]
    assert reader.series("load/a", "watts", BEGIN + 1, BEGIN + 10) == watts[1:3], "half-open"
    assert reader.series("load/a", "celsius", BEGIN, BEGIN + 100) == [], "unknown stays unknown"
    assert reader.series("load/b", "celsius", BEGIN, BEGIN + 100) == [(BEGIN + at, 60.5) for at in (10, 11, 12)]
    assert reader.series("load/none", "watts", BEGIN, BEGIN + 100) == []
    assert reader.series("facility", "none", BEGIN, BEGIN + 100) == []
    assert reader.series("facility", "watts", BEGIN, BEGIN + 2.5) == [(BEGIN + at, 1e6 + at) for at in range(3)]
    means = reader.series("facility", "watts", BEGIN, BEGIN + 100, step_s=10.0)
    assert means == [(BEGIN, 1e6 + 1), (BEGIN + 10, 1e6 + 1)]
    assert reader.keys() == {"facility": ("watts",)}


async def test_instants_are_thinned_and_the_clock_may_step_back(tmp_path: Path) -> None:
    store = store_at(tmp_path / "telemetry.db", load_period_s=10.0, chart_period_s=5.0)
    instants = [BEGIN + second + 0.01 * (second % 3) for second in range(30)]
    for number, at in enumerate([*instants, BEGIN - 1_000.0], start=1):
        await store.record(at, {"load/a": {"watts": 1.0}, "circuit/f": {"watts": 2.0}})
        await until_written(store, number)
    await store.close()
    loads = [round(at - BEGIN) for at, _ in store.series("load/a", "watts", 0.0, 2 * BEGIN)]
    charts = [round(at - BEGIN) for at, _ in store.series("circuit/f", "watts", 0.0, 2 * BEGIN)]
    assert loads == [-1_000, 0, 10, 20]
    assert charts == [-1_000, 0, 5, 10, 15, 20, 25]
    assert store.dropped == 0


async def test_what_is_old_is_given_up(tmp_path: Path) -> None:
    store = store_at(tmp_path / "telemetry.db", load_keep_s=1_000.0, chart_keep_s=2_000.0)
    for number, at in enumerate(range(0, 3_700, 100), start=1):
        await store.record(BEGIN + at, {"load/a": {"watts": 1.0}, "facility": {"watts": 2.0}})
        await until_written(store, number)
    await store.close()
    assert store.dropped == 0
    loads = [at - BEGIN for at, _ in store.series("load/a", "watts", 0.0, 2 * BEGIN)]
    charts = [at - BEGIN for at, _ in store.series("facility", "watts", 0.0, 2 * BEGIN)]
    assert loads == [float(at) for at in range(2_600, 3_700, 100)]
    assert charts == [float(at) for at in range(1_600, 3_700, 100)]


async def test_ten_thousand_loads_cost_few_bytes(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.db"
    store = store_at(path)
    for tick in range(10):
        await store.record(
            BEGIN + tick, {f"load/{n}": {"watts": 3_000.0 + (n * 7919 + tick) % 50} for n in range(10_000)}
        )
    await store.close()
    assert len(store.series("load/9999", "watts", BEGIN, BEGIN + 10)) == 10
    assert path.stat().st_size < 10 * 10_000 * 6


async def test_a_disk_that_fails_costs_measurements_only(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.db"
    path.mkdir()
    store = store_at(path)
    await FanOut([store]).record(BEGIN, {"facility": {"watts": 1.0}})
    await store.close()
    assert store.dropped == 1
    assert store.problem is not None
    assert "unable to open" in store.problem
    with pytest.raises(HistorianError):
        store.series("facility", "watts", 0.0, 1.0)
    with pytest.raises(HistorianError):
        TelemetryReader(tmp_path / "absent.db").keys()


async def test_values_that_are_no_numbers_do_not_end_the_writer(tmp_path: Path) -> None:
    store = store_at(tmp_path / "telemetry.db")
    await store.record(BEGIN, {"load/a": {"watts": object()}})  # type: ignore[dict-item]
    await store.record(BEGIN + 1, {"load/a": {"watts": 1.0}, "facility": {"watts": float("nan")}})
    await store.close()
    assert store.dropped == 1
    assert store.problem is None
    assert store.series("load/a", "watts", 0.0, 2 * BEGIN) == [(BEGIN + 1, 1.0)]
    assert store.series("facility", "watts", 0.0, 2 * BEGIN) == []


async def test_a_slow_disk_drops_the_oldest(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.db"
    first = store_at(path)
    await first.record(BEGIN, {"facility": {"watts": 1.0}})
    await first.close()
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        store = store_at(path)
        for second in range(1, 101):
            await store.record(BEGIN + second, {"facility": {"watts": float(second)}})
        other.execute("ROLLBACK")
    finally:
        other.close()
    await store.close()
    kept = [at - BEGIN for at, _ in store.series("facility", "watts", BEGIN + 1, BEGIN + 200)]
    assert 29 <= len(kept) <= 31
    assert kept[-29:] == [float(second) for second in range(72, 101)]
    assert store.dropped == 100 - len(kept)


async def test_one_historian_does_not_take_another_with_it(tmp_path: Path) -> None:
    class Broken:
        async def record(self, at: float, series: object) -> None:
            raise HistorianError("broken")

        async def close(self) -> None:
            raise HistorianError("broken")

    store = store_at(tmp_path / "telemetry.db")
    both = FanOut([Broken(), store])
    await both.record(BEGIN, {"facility": {"watts": 1.0}})
    await both.close()
    assert store.series("facility", "watts", 0.0, 2 * BEGIN) == [(BEGIN, 1.0)]
