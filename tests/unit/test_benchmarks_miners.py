"""The arithmetic of the miners' benchmark: layouts, faults, percentiles by power, and what becomes a figure."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks import miners
from benchmarks.farms import MOST_PER_BANK, Bank, Farms, lay_out, models_of, read_banks, scenario, shares, spread_faults
from benchmarks.figures import Figure
from benchmarks.miners import when
from benchmarks.options import Options
from benchmarks.sites import MOST_PDUS, make_site
from benchmarks.workers import miner_poll
from benchmarks.workers.processes import children, cpu_s, descriptors, resident_mib
from mullet.domain.telemetry import Telemetry
from mullet_simulators.miners.models import MODELS
from mullet_simulators.scenario import load_scenario

WHATSMINER, ANTMINER = "whatsminer-m50s", "antminer-s19"


def figure(found: list[Figure], part: str) -> Figure:
    (only,) = [item for item in found if part in item.figure]
    return only


@pytest.mark.parametrize(("total", "parts"), [(10, 3), (3, 5), (10_000, 4), (0, 2)])
def test_shares_are_equal_and_add_up(total: int, parts: int) -> None:
    found = shares(total, parts)

    assert sum(found) == total
    assert max(found) - min(found) <= 1


def test_a_layout_has_every_miner_once_and_no_bank_too_large() -> None:
    layout = lay_out([WHATSMINER, ANTMINER], 3_001, 2, 8080)
    banks = [bank for farm in layout for bank in farm]

    assert sum(bank.count for bank in banks) == 3_001
    assert max(bank.count for bank in banks) <= MOST_PER_BANK
    assert len({load for bank in banks for load in bank.loads}) == 3_001
    for farm in layout:
        by_model = {name: sum(bank.count for bank in farm if bank.model == name) for name in (WHATSMINER, ANTMINER)}
        assert abs(by_model[WHATSMINER] - by_model[ANTMINER]) <= 1
        assert sum(bank.count for bank in load_scenario(scenario(farm)).banks) == sum(bank.count for bank in farm)


def test_a_bank_says_how_it_is_reached() -> None:
    moved = Bank("b", 9, 2, ANTMINER, 2, 8080)

    assert moved.hosts == ["127.9.2.1", "127.9.2.2"]
    assert moved.loads == ["b-001", "b-002"]
    assert moved.options == {"class": "antminer_modern", "accept_default_password": True, "web_port": 8080}
    assert Bank("b", 9, 2, ANTMINER, 2, 80).ports == {}
    assert Bank("b", 9, 2, WHATSMINER, 2, 8080).ports == {}, "it has no web interface"


def test_one_model_stands_for_each_firmware() -> None:
    assert models_of(["whatsminer_v2", "antminer_modern", "no_such"]) == {
        "whatsminer_v2": WHATSMINER,
        "antminer_modern": ANTMINER,
    }


def test_a_fleet_is_cut_by_firmware_and_survives_a_file(tmp_path: Path) -> None:
    banks = tuple(Bank(f"b{k}", 1, k, model, 10, 80) for k, model in enumerate((WHATSMINER, WHATSMINER, ANTMINER), 1))
    fleet = Farms(banks, ())

    assert fleet.of("antminer_modern").size == 10
    assert [bank.count for bank in fleet.first(15).banks] == [10, 5, 10]
    assert fleet.firmwares == ["whatsminer_v2", "antminer_modern"]
    assert read_banks(fleet.write(tmp_path / "fleet.json")) == list(banks)


def test_faults_are_spread_and_never_two_on_one() -> None:
    loads = [f"m-{k:04d}" for k in range(1_000)]
    found = spread_faults(loads, {"dead": 0.02, "ignore": 0.02, "hang": 0.01})

    assert len(found) == 50
    assert sum(fault == "dead" for fault in found.values()) == 20
    assert sum(fault == "hang" for fault in found.values()) == 10
    for start in range(0, 1_000, 200):
        here = [load for load in loads[start : start + 200] if found.get(load) == "dead"]
        assert len(here) == 4, "no part of the fleet has them all"
    assert spread_faults(loads, {"dead": 0.0}) == {}


def test_times_are_those_of_power_and_not_of_miners() -> None:
    items = [(1.0, 100.0), (2.0, 100.0), (9.0, 1_800.0)]

    assert when(items, 200.0) == 2.0
    assert when(items, 201.0) == 9.0
    assert when(list(reversed(items)), 100.0) == 1.0
    assert when(items, 2_000.0) == 9.0
    with pytest.raises(ValueError, match="2000 of 2001 W"):
        when(items, 2_001.0)


def test_a_site_is_one_for_simulator_and_policy() -> None:
    site = make_site([WHATSMINER, ANTMINER], 200, 8080, 5.0)
    simulated = load_scenario(dict(site.scenario))
    policy: Any = site.policy

    assert sum(bank.count for bank in simulated.banks) == 200
    assert [bank.id for bank in simulated.banks] == [bank["id"] for bank in policy["banks"]]
    assert [circuit.id for circuit in simulated.circuits] == [circuit["id"] for circuit in policy["circuits"]]
    units = {f"m-{circuit.id}": circuit.meter_unit for circuit in simulated.circuits}
    assert units == {meter["id"]: meter["options"]["unit"] for meter in policy["meters"]}
    for bank in policy["banks"]:
        assert bank["points"][0]["power"] == f"{MODELS[site.banks[0].model].standby_w:g} W" or bank["id"] != "b1"


def test_a_site_has_no_more_pdus_than_meters() -> None:
    with pytest.raises(ValueError, match="PDUs"):
        make_site([WHATSMINER], 48 * MOST_PDUS + 1, 8080, 5.0)


PHASE = {
    "seconds": 10.0,
    "polls": 1_000,
    "faults": 0,
    "per_s": 100.0,
    "workers_cpu_s": 0.2,
    "driver_cpu_s": 0.05,
    "age_p50_s": 4.0,
    "age_p99_s": 9.0,
    "age_max_s": 9.5,
    "gap_mean_s": 9.0,
    "gap_p99_s": 9.1,
    "rss_mib": 300.0,
}


def test_a_sick_fleet_is_held_against_itself() -> None:
    got = {"healthy": PHASE, "faulty": {**PHASE, "gap_mean_s": 9.45}, "faulted": 500}
    slower = figure(miners._faulty(miners._FULL, got), "slower by")

    assert slower.figure.startswith("5.0 %")
    assert slower.value == pytest.approx(5.0)
    assert slower.met


class Feeding:
    """In a driver's place: whenever the soak asks for its processes, some readings have come since it last did."""

    READINGS = 100

    def __init__(self, fleet: miner_poll.Fleet) -> None:
        self.asked = 0
        self._fleet = fleet

    @property
    def worker_pids(self) -> tuple[int, ...]:
        for _ in range(self.READINGS):
            self._fleet.saw(Telemetry("m", float(self.asked)))
        self.asked += 1
        return ()


async def test_a_soak_measures_no_readings_that_the_benchmark_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(miner_poll, "SAMPLE_S", 0.0)
    fleet = miner_poll.Fleet()
    driver: Any = Feeding(fleet)

    while driver.asked < 3:
        found = await miner_poll._soak(driver, fleet, 0.05)

    assert len(fleet.gaps) <= Feeding.READINGS
    assert found["early_mib"] > 0.0


def test_the_floor_is_the_lesser_of_both_and_the_parts_add_up() -> None:
    floor = {"streams_s": 80e-6, "protocol_s": 100e-6, "uvloop_protocol_s": 20e-6}
    parts = {"whole_s": 60e-6, "wire_s": 30e-6, "parse_s": 10e-6, "requests": 1.0}
    found = miners._cost(miners._FULL, "luxos", floor, parts, PHASE)

    assert figure(found, "over the asyncio floor").value == pytest.approx(250.0 / 80.0)
    assert figure(found, "over the asyncio floor").met is False
    of_it = [item.value for item in found if "of it" in item.figure]
    assert sum(value for value in of_it if value is not None) == pytest.approx(0.25)


def test_pyasic_counts_each_firmware_once_and_tells_what_it_lacks() -> None:
    peer = {
        "firmwares": {
            "a": {"cpu_s": 0.002, "failed": 0},
            "b": {"cpu_s": 0.004, "failed": 1},
            "c": {"missing": "no class"},
        }
    }
    found = miners._against_pyasic(miners._FULL, {"healthy": PHASE}, peer)

    assert figure(found, "times more CPU").value == pytest.approx(12.0)
    assert figure(found, "times more CPU").met
    assert figure(found, "get_data(), c").peer == "no class"


def test_what_was_shed_is_told_by_class_and_by_firmware() -> None:
    got = {
        "fast": ["quick"],
        "verified": {"quick": [[2.0, 95.0], [9.0, 4.0], [31.0, 1.0]], "lazy": [[80.0, 50.0]], "unused": []},
        "healthy_w": {"quick": 100.0, "lazy": 50.0, "unused": 0.0},
        "counted_w": 100.0,
        "ceiling_w": 90.0,
        "ramp_down_s": {"quick": 4.0, "lazy": 12.0, "unused": 10.0},
        "met_s": None,
        "asked_w": 200.0,
        "live_w": 300.0,
        "shed_w": 210.0,
        "faults": 1,
        "wrong_claims": 0,
        "false_acks_caught": 2,
        "daemon_cpu_s": 1.0,
        "workers_cpu_s": 1.0,
        "rss_mib": 200.0,
    }
    found = [*miners._proven(miners._FULL, got), *miners._by_firmware(got)]

    assert figure(found, "95 %").value == 2.0
    assert figure(found, "99 %").value == 9.0
    assert figure(found, "slow firmwares, all").met is False
    assert figure(found, "whole order").value is None, "more may be drawn than was ordered"
    assert str(figure(found, "whole order").peer).startswith("never")
    assert figure(miners._proven(miners._FULL, {**got, "met_s": 40.0}), "whole order").met
    assert figure(found, "truly gone").value == pytest.approx(105.0)
    assert figure(found, "proven gone").value == pytest.approx(95.0)
    assert figure(found, "shed: unused").value is None
    assert "p50 2.0" in str(figure(found, "shed: quick").peer)

    unproven = miners._proven(miners._FULL, {**got, "healthy_w": {**got["healthy_w"], "quick": 110.0}})
    assert figure(unproven, "99 %").value is None, "a healthy one that was never proven counts"
    assert figure(unproven, "95 %").value is None


def test_what_fails_is_told_and_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> list[Figure]:
        raise OSError("no network")

    monkeypatch.setattr(miners, "_driven", lambda: ["whatsminer_v2"])
    for name in ("_polling", "_per_poll", "_identification"):
        monkeypatch.setattr(miners, name, fail)
    monkeypatch.setattr(miners, "_shedding", lambda *_: [Figure("shed", 1.0, "s")])
    found = miners.measure(Options(quick=True))

    assert [item.failed for item in found] == [True, True, False, True]
    assert "no network" in str(found[0].peer)


def test_a_process_is_measured_by_its_id() -> None:
    mine = [os.getpid()]
    before = cpu_s(mine)
    sum(range(2_000_000))

    assert cpu_s(mine) > before
    assert cpu_s(["self"]) >= before
    assert 1.0 < resident_mib(mine) < 10_000.0
    with open(os.devnull, encoding="utf-8"):
        more = descriptors(mine)
    assert more == descriptors(mine) + 1
    assert isinstance(children(os.getpid()), list)


def test_the_site_policy_is_json_that_can_be_written() -> None:
    assert json.loads(json.dumps(make_site([WHATSMINER], 4, 80, 5.0).policy))["facility"]["mode"] == "auto"
