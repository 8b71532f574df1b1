"""The plant: sums over the circuit tree, contactors, physics within the nameplate, and the truth log."""

from __future__ import annotations

import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullet_simulators.miners.antminer import Antminer
from mullet_simulators.miners.models import MODELS
from mullet_simulators.miners.physics import SimMiner
from mullet_simulators.miners.whatsminer_v2 import Whatsminer
from mullet_simulators.plant import Plant
from mullet_simulators.scenario import load_scenario
from mullet_simulators.truth import TruthLog
from mullet_simulators.world import LimitNotice, PriceInterval, World

SCENARIO: dict[str, Any] = {
    "circuits": [
        {"id": "poi", "limit_w": 90000, "unmanaged_w": 500},
        {"id": "pdu-a", "parent": "poi", "limit_w": 40000, "unmanaged_w": 100},
        {"id": "pdu-b", "parent": "poi", "limit_w": 40000},
    ],
    "price": {
        "base_per_mwh": 38.0,
        "interval_s": 10,
        "published_ahead": 5,
        "spikes": [{"start_s": 25, "end_s": 47, "price_per_mwh": 95.0}],
    },
}
STEP_S = 0.02


class Hand:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.t = 1000.0

    def __call__(self) -> float:
        return self.t


class Bench:
    """A plant with a few miners, stepped by hand."""

    def __init__(self, truth_path: Path | None = None, seed: int = 1) -> None:
        self.now = Hand()
        self.truth = TruthLog(self.now, truth_path)
        self.plant = Plant(load_scenario(SCENARIO, seed=seed), self.now, self.truth)

    def add(self, load_id: str, model: str = "whatsminer-m50s", circuit: str = "pdu-a") -> SimMiner:
        kind = Whatsminer if model.startswith("whatsminer") else Antminer
        miner = kind(self.plant, MODELS[model], load_id, load_id.rpartition("-")[0], circuit, "secret")
        self.plant.add_load(miner)
        return miner

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.now.t += STEP_S
            self.plant.step(STEP_S)

    def seconds_until(self, miner: SimMiner, state: str, most_s: float = 90.0) -> float:
        start = self.now.t
        while miner.state != state:
            assert self.now.t - start < most_s, f"{miner.state} instead of {state}"
            self.run(STEP_S)
        return self.now.t - start


def test_a_circuit_draws_what_lies_beneath_it() -> None:
    bench = Bench()
    on_a, on_b = bench.add("wm-001"), bench.add("am-001", "antminer-s19", "pdu-b")
    on_a.begin_hashing()
    on_b.begin_hashing()
    bench.run(1.0)
    unmanaged = bench.plant.unmanaged_w
    assert bench.plant.circuit_watts("pdu-a") == pytest.approx(on_a.watts + unmanaged["pdu-a"])
    assert bench.plant.circuit_watts("pdu-b") == pytest.approx(on_b.watts)
    total_w = on_a.watts + on_b.watts + sum(unmanaged.values())
    assert bench.plant.circuit_watts("poi") == pytest.approx(total_w)
    assert bench.plant.circuit_energy_kwh("poi") == pytest.approx(total_w / 3.6e6, rel=0.2)
    with pytest.raises(KeyError):
        bench.plant.circuit_watts("nowhere")


def test_an_open_contactor_takes_the_power_and_a_closed_one_boots() -> None:
    bench = Bench()
    miner = bench.add("wm-001")
    miner.begin_hashing()
    bench.run(1.0)
    bench.plant.set_switch("pdu-a", closed=False)
    bench.run(0.2)
    assert bench.plant.circuit_watts("pdu-a") == 0.0
    assert not miner.is_reachable(bench.now.t)
    assert miner.state == "dead"
    bench.plant.set_switch("pdu-a", closed=True)
    assert miner.state == "starting"
    bench.seconds_until(miner, "hashing")
    assert miner.is_reachable(bench.now.t)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_ramps_take_about_their_time(model: str) -> None:
    stops, wakes = [], []
    spec = MODELS[model]
    bench = Bench()
    for k in range(1, 41):
        miner = bench.add(f"m-{k:03d}", model)
        miner.begin_hashing()
        miner.command_stop()
        stops.append(bench.seconds_until(miner, "asleep"))
        assert miner.watts < 1.02 * spec.standby_w
        assert miner.readings().th_per_s_5s == 0.0
        miner.command_wake()
        wakes.append(bench.seconds_until(miner, "hashing"))
        miner.set_fault("dead", bench.now.t)
    assert statistics.median(stops) == pytest.approx(spec.stop_ramp_s, rel=0.15)
    assert max(stops) < 1.6 * spec.stop_ramp_s
    assert statistics.median(wakes) == pytest.approx(spec.boot_s + spec.wake_ramp_s, rel=0.15)


ORDERS = st.lists(
    st.one_of(
        st.just(("stop", 0.0)),
        st.just(("wake", 0.0)),
        st.just(("reboot", 0.0)),
        st.tuples(st.just("share"), st.floats(0.0, 1.0)),
        st.tuples(st.just("limit"), st.floats(1638.0, 3276.0)),
        st.tuples(st.just("fault"), st.sampled_from(["ok", "ignore", "dead", "misreport", "frozen", "hang"])),
        st.tuples(st.just("power"), st.sampled_from([0.0, 1.0])),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(orders=ORDERS, waits=st.lists(st.floats(0.0, 9.0), min_size=12, max_size=12), seed=st.integers(0, 99))
def test_no_sequence_of_orders_draws_more_than_the_nameplate(
    orders: list[tuple[str, Any]], waits: list[float], seed: int
) -> None:
    bench = Bench(seed=seed)
    miner = bench.add("wm-001")
    miner.begin_hashing()
    for (order, value), wait_s in zip(orders, waits, strict=False):
        if order == "stop":
            miner.command_stop()
        elif order == "wake":
            miner.command_wake()
        elif order == "reboot":
            miner.command_reboot()
        elif order == "share":
            miner.command_share(value)
        elif order == "limit":
            miner.command_limit(value)
        elif order == "fault":
            miner.set_fault(value, bench.now.t)
        else:
            bench.plant.set_switch("pdu-a", closed=bool(value))
        bench.run(wait_s)
        assert 0.0 <= miner.watts <= 1.02 * miner.model.watts
        if miner.state == "asleep":
            assert miner.watts < 1.02 * miner.model.standby_w
        if miner.state == "dead":
            assert miner.watts == 0.0


def test_an_unknown_fault_is_refused() -> None:
    bench = Bench()
    bench.add("wm-001")
    for fault in ("sulk", "http500_config"):
        with pytest.raises(ValueError, match="no such fault"):
            bench.plant.set_fault("wm-001", fault)
    with pytest.raises(KeyError):
        bench.plant.set_fault("wm-009", "hang")


def test_the_truth_log_says_what_happened(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    bench = Bench(path)
    miner = bench.add("wm-001")
    miner.begin_hashing()
    bench.plant.begin()
    bench.run(1.0)
    miner.command_stop()
    bench.seconds_until(miner, "asleep")
    bench.run(0.2)
    bench.plant.set_limit("poi", 80000.0, 990.0)
    bench.plant.set_fault("wm-001", "hang")
    bench.truth.footer()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert records[0]["type"] == "header"
    told = records[0]["loads"]["wm-001"]
    assert told.pop("pools")["count"] == 3
    assert told == {"kind": "miner", "circuit": "pdu-a", "service": None, "bank": "wm"}
    assert records[0]["circuits"]["pdu-a"] == {"parent": "poi", "limit_w": 40000.0}
    states = [record["state"] for record in records if record["type"] == "state"]
    assert states == ["hashing", "stopping", "asleep"]
    powers = [record for record in records if record["type"] == "power"]
    assert powers[0]["w"][0] > 3200.0
    assert powers[-1]["w"][0] < 16.0
    gaps = [b["t"] - a["t"] for a, b in itertools.pairwise(powers)]
    assert max(gaps) < 0.15
    assert [record["type"] for record in records[-3:]] == ["limit", "event", "footer"]


def test_price_intervals_are_gapless_and_change_where_the_price_does() -> None:
    world = World(load_scenario(SCENARIO), 1000.0)
    intervals = world.price_intervals(1003.0)
    assert intervals[0].start == 1000.0
    assert all(a.end == b.start for a, b in itertools.pairwise(intervals))
    prices = [(interval.start - 1000.0, interval.price_per_mwh) for interval in intervals]
    assert (25.0, 95.0) in prices
    assert (47.0, 38.0) in prices
    world.add_price(PriceInterval(1004.0, 1006.0, 200.0))
    assert [i.price_per_mwh for i in world.price_intervals(1004.5)][:2] == [200.0, 38.0]


def test_a_limit_is_listed_from_its_announcement_until_its_end() -> None:
    world = World(load_scenario(SCENARIO), 1000.0)
    world.announce(LimitNotice("c", "poi", 5.0, 1010.0, 1020.0, 1030.0, "demand_response"))
    assert [len(world.limit_notices(t)) for t in (1009.0, 1010.0, 1029.9, 1030.0)] == [0, 1, 1, 0]
