"""Chips and fans of the simulated miners follow what they draw."""

from __future__ import annotations

from typing import Any

import pytest

from mullet_simulators.miners.antminer import Antminer
from mullet_simulators.miners.cooling import FULL_RPM, REST_RPM, STEP_RPM, fan_rpm
from mullet_simulators.miners.models import MODELS
from mullet_simulators.plant import Plant
from mullet_simulators.scenario import load_scenario
from mullet_simulators.truth import TruthLog

SCENARIO: dict[str, Any] = {"circuits": [{"id": "pdu", "limit_w": 20000}], "price": {"base_per_mwh": 38.0}}


class Bench:
    """One simulated Antminer and a hand on its clock."""

    def __init__(self) -> None:
        self.at_s = 1_700_000_000.0
        plant = Plant(load_scenario(SCENARIO), lambda: self.at_s, TruthLog(lambda: self.at_s, None))
        self.miner = Antminer(plant, MODELS["antminer-s19"], "a-1", "a", "pdu", "root", 8080)
        self.miner.begin_hashing()

    def settle(self, seconds: float = 300.0) -> tuple[int, float]:
        """Return fan speed and hottest sensor after so long, as its RPC tells them."""
        for _ in range(int(seconds)):
            self.at_s += 1.0
            self.miner.step(1.0, self.at_s)
        stats = self.miner._stats()["STATS"][1]
        return stats["fan1"], float(stats["temp_chip1"].split("-")[0])


def test_they_are_hottest_and_fastest_at_full_power() -> None:
    bench = Bench()
    full_rpm, full_c = bench.settle()
    assert full_rpm == pytest.approx(FULL_RPM, abs=2 * STEP_RPM)
    bench.miner.command_share(0.5)
    half_rpm, half_c = bench.settle()
    assert half_c < full_c - 15.0
    assert REST_RPM < half_rpm < full_rpm - 1000
    bench.miner.command_stop()
    off_rpm, off_c = bench.settle()
    assert off_rpm == 0
    assert off_c < half_c - 15.0


def test_a_misreporting_one_tells_of_fans_that_stand() -> None:
    bench = Bench()
    bench.miner.set_fault("misreport", bench.at_s)
    assert bench.settle(5.0)[0] == 0
    assert bench.miner.watts > 3000.0


def test_a_speed_is_a_number_of_pulses() -> None:
    said = Bench().miner.readings()
    assert fan_rpm(said) % STEP_RPM == 0
