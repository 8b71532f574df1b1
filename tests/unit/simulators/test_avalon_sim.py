"""The simulated Avalon: what is ordered for later, its clock, its levels."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mullet_simulators.faults import Fault
from mullet_simulators.miners.avalon import CLOCK_BEHIND_S, Avalon
from mullet_simulators.miners.models import MODELS
from mullet_simulators.plant import Plant
from mullet_simulators.scenario import load_scenario
from mullet_simulators.truth import TruthLog

SCENARIO = {"circuits": [{"id": "pdu", "limit_w": 20000}], "price": {"base_per_mwh": 38.0}}
STEP_S = 0.1


class Bench:
    """One hashing miner, stepped by hand; its time is in whole seconds at the start."""

    def __init__(self) -> None:
        self.at = 1_750_000_000.0
        plant = Plant(load_scenario(SCENARIO), lambda: self.at, TruthLog(lambda: self.at, None))
        self.plant = plant
        self.miner = Avalon(plant, MODELS["avalon-q"].scaled(0.1), "q-001", "q", "pdu", "none")
        plant.add_load(self.miner)
        self.miner.begin_hashing()

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.at += STEP_S
            self.plant.step(STEP_S)

    def ask(self, command: str, parameter: str = "") -> dict[str, Any]:
        reply = self.miner.answer_rpc({"command": command, "parameter": parameter})
        assert reply is not None
        return dict(json.loads(reply.body.rstrip(b"\0")))

    def set(self, text: str) -> str:
        return str(self.ask("ascset", f"0,{text}")["STATUS"][0]["Msg"])


def test_an_order_comes_due_when_it_says() -> None:
    bench = Bench()
    assert "success softoff" in bench.set(f"softoff,1:{int(bench.at) + 5}")
    bench.run(4.8)
    assert bench.miner.state == "hashing"
    bench.run(0.4)
    assert bench.miner.state == "stopping"
    bench.run(2.0)
    assert bench.miner.state == "asleep"
    assert "SoftOFF[4]" in bench.ask("litestats")["STATS"][0]["MM ID0:Summary"]
    assert "success softon" in bench.set(f"softon,1:{int(bench.at) + 5}")
    bench.run(5.2)
    assert bench.miner.state == "starting"


@pytest.mark.parametrize("value", ["1", "0:99999999999", "1:1749999990", "1:soon", ""])
def test_an_order_without_a_time_to_come_is_refused(value: str) -> None:
    bench = Bench()
    assert "invalid" in bench.set(f"softoff,{value}")
    bench.run(10.0)
    assert bench.miner.state == "hashing"


def test_with_a_wrong_clock_only_its_own_time_counts() -> None:
    bench = Bench()
    bench.miner.set_fault(Fault.CLOCK_WRONG, bench.at)
    bench.set(f"softoff,1:{int(bench.at) + 5}")
    bench.run(20.0)
    assert bench.miner.state == "hashing"
    when = bench.ask("litestats")["STATUS"][0]["When"]
    assert when == pytest.approx(bench.at - CLOCK_BEHIND_S, abs=1.0)
    bench.set(f"softoff,1:{when + 5}")
    bench.run(8.0)
    assert bench.miner.state == "asleep"


def test_a_reboot_forgets_what_was_to_come() -> None:
    bench = Bench()
    bench.set(f"softoff,1:{int(bench.at) + 5}")
    bench.miner.set_fault(Fault.REBOOT, bench.at)
    bench.run(20.0)
    assert bench.miner.state == "hashing"


def test_a_level_is_drawn_without_a_boot() -> None:
    bench = Bench()
    for level, watts in ((0, 800.0), (1, 1300.0), (2, 1674.0)):
        assert bench.set(f"workmode,set,{level}") == "ASC 0 set OK"
        bench.run(5.0)
        assert bench.miner.watts == pytest.approx(watts, rel=0.02)
        assert f"WORKMODE[{level}]" in bench.ask("litestats")["STATS"][0]["MM ID0:Summary"]
    assert bench.miner.boots == 0
    assert "invalid" in bench.set("workmode,set,3")
    assert "Unknown option" in bench.set("worksize,set,3")
