"""The wake list: the best earning first, of equals the least worn, and nobody who may not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planning_kit import AT, BLIND, S21, Telemetry, command, confirmed, ledger, miner, small, snapshot

from mullet.domain.command import LedgerEntry
from mullet.domain.facility import Auxiliary, Mode
from mullet.domain.load import Steering
from mullet.domain.snapshot import Hold, HoldKind
from mullet.planning.wake import wake_list

MORE_S21 = (3_500.0 - 15.0) * 1.05
MORE_S19 = (3_250.0 - 15.0) * 1.05


def test_the_best_earning_go_first_and_no_more_than_fit():
    plant = small()
    wakes = wake_list(plant, snapshot(plant))
    assert wakes.query("grid", 0.0) == ()
    assert wakes.query("grid", MORE_S21 - 1.0) == ()
    assert wakes.query("grid", MORE_S21) == ("m0",)
    assert wakes.query("grid", 2.0 * MORE_S21 + 5.0) == ("m0", "m1")
    assert wakes.used_watts("grid", 2) == pytest.approx(2.0 * MORE_S21)
    assert wakes.query("pdu-ai", 1e9) == ("a0", "a1", "a2", "a3")
    assert wakes.query("grid", 1e9) == (*(f"m{n}" for n in range(10)), *(f"a{n}" for n in range(4)))
    assert wakes.total_watts("grid") == pytest.approx(10 * MORE_S21 + 4 * MORE_S19)


def test_what_runs_is_held_silent_or_in_back_off_is_not_in_it():
    plant = small()
    holds = (Hold("h", "m0", HoldKind.OFF, "ann", "r", AT), Hold("i", "m1", HoldKind.ON, "ann", "r", AT))
    waking = LedgerEntry("m5", command=command(plant.load_by_id["m5"], "normal", 15.75, 3_675.0), pending=True)
    made = snapshot(
        plant,
        running=["m2"],
        holds=holds,
        telemetry={"m3": Telemetry("m3", AT, fault="gone")},
        ledger=ledger(LedgerEntry("m4", failures=1, blocked_until=AT + 5.0), waking),
    )
    assert wake_list(plant, made).query("pdu-m", 1e9) == ("m6", "m7", "m8", "m9")
    assert wake_list(plant, replace(made, records_ok=False)).query("grid", 1e9) == ()
    assert wake_list(plant, replace(made, operator_mode=Mode.ADVISE)).query("grid", 1e9) == ()


def test_least_time_off_and_the_days_stops_are_respected():
    plant = small()
    least = plant.pacing.min_off_s
    lately = confirmed(plant.load_by_id["m0"], "off", at=AT - least + 1.0)
    rested = confirmed(plant.load_by_id["m1"], "off", at=AT - least)
    spent = replace(confirmed(plant.load_by_id["m2"], "off", at=AT - 9e4), cycles=(AT - 100.0,) * 6)
    slept = replace(confirmed(plant.load_by_id["m3"], "off", at=AT - 9e4), cycles=(AT - 90_000.0,) * 6)
    found = wake_list(plant, snapshot(plant, ledger=ledger(lately, rested, spent, slept))).query("pdu-m", 1e9)
    assert "m0" not in found
    assert "m2" not in found
    assert {"m1", "m3"} <= set(found)


def test_of_equals_the_least_worn_go_first():
    plant = small()
    worn = replace(confirmed(plant.load_by_id["m0"], "off", at=AT - 9_000.0), cycles=(AT - 10.0,))
    later = confirmed(plant.load_by_id["m1"], "off", at=AT - 5_000.0)
    others = [confirmed(plant.load_by_id[f"m{n}"], "off", at=AT - 7_000.0) for n in range(2, 10)]
    found = wake_list(plant, snapshot(plant, ledger=ledger(worn, later, *others))).query("pdu-m", 1e9)
    assert found == (*(f"m{n}" for n in range(2, 10)), "m1", "m0")


def test_followers_count_and_monitors_stay():
    plant = small(auxiliaries=(Auxiliary("fans", "grid", follows=0.1),))
    assert wake_list(plant, snapshot(plant)).used_watts("grid", 1) == pytest.approx(MORE_S21 * 1.1)
    assert wake_list(plant, snapshot(plant)).used_watts("pdu-m", 1) == pytest.approx(MORE_S21)
    dumb = replace(BLIND, steering=Steering.MONITOR)
    loads = [miner(f"m{n}", "pdu-m", S21, capability=dumb) for n in range(3)]
    watched = replace(plant, loads=tuple(loads))
    assert wake_list(watched, snapshot(watched)).query("grid", 1e9) == ()
