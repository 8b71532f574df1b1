"""The cap sum counts what may be drawn, whatever a device says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planning_kit import (
    AT,
    BLIND,
    circuit,
    command,
    confirmed,
    facility,
    gpu,
    hashing,
    ledger,
    limited,
    miner,
    residuals,
    small,
    snapshot,
)

from mullet.domain.command import LedgerEntry
from mullet.domain.facility import Auxiliary, Mode
from mullet.domain.feeds import Cause, Curtailment
from mullet.domain.snapshot import Hold, HoldKind
from mullet.domain.telemetry import LoadState, MeterReading, Quality, Telemetry
from mullet.planning.accounting import account, most_may_draw

LOWEST = 15.0 * 1.05
HIGHEST = 3_250.0 * 1.05
WORST = 3_250.0 * 1.1


def most(load, reading, entry=None, **changes):
    plant = facility([circuit("grid", None, 1e5)], [load])
    telemetry = {} if reading is None else {load.id: reading}
    book = ledger(*([entry] if entry else []))
    made = replace(snapshot(plant, ledger=book), telemetry=telemetry, **changes)
    return most_may_draw(plant, made, load, 15.0)


def reading(watts, state, at=AT):
    return Telemetry("m", at, watts=watts, state=state)


M = miner("m", "grid")
B = miner("m", "grid", capability=BLIND)
OFF = confirmed(M, "off")


@pytest.mark.parametrize(
    ("load", "seen", "entry", "expected"),
    [
        (M, None, None, WORST),
        (M, Telemetry("m", AT, fault="timeout"), OFF, WORST),
        (M, reading(15.0, LoadState.ASLEEP, AT - 16.0), OFF, WORST),
        (M, reading(15.0, LoadState.ASLEEP), None, LOWEST),
        (M, reading(900.0, LoadState.ASLEEP), None, HIGHEST),
        (M, reading(3_200.0, LoadState.ACTIVE), None, HIGHEST),
        (M, reading(3_500.0, LoadState.ACTIVE), None, 3_500.0),
        (M, reading(None, LoadState.ASLEEP), None, WORST),
        (M, reading(None, None), None, WORST),
        (M, reading(15.0, LoadState.ASLEEP), OFF, LOWEST),
        (M, reading(15.0, LoadState.STARTING), OFF, WORST),
        (M, reading(3_200.0, LoadState.ACTIVE), OFF, WORST),
        (M, reading(3_200.0, LoadState.ASLEEP), OFF, HIGHEST),
        (B, reading(3_250.0, LoadState.ASLEEP), None, WORST),
        (B, reading(None, LoadState.ASLEEP), OFF, LOWEST),
        (B, reading(None, LoadState.ACTIVE), OFF, WORST),
    ],
)
def test_a_miner_counts_at_the_most_it_may_draw(load, seen, entry, expected):
    assert most(load, seen, entry) == pytest.approx(expected)


def test_a_pending_raise_counts_before_it_shows():
    entry = replace(OFF, command=command(M, "on", LOWEST, HIGHEST), pending=True)
    assert most(M, reading(15.0, LoadState.ASLEEP), entry) == pytest.approx(HIGHEST)


def test_a_pending_sleep_counts_only_once_verified():
    entry = replace(confirmed(M, "on"), command=command(M, "off", HIGHEST, LOWEST), pending=True)
    assert most(M, reading(15.0, LoadState.ASLEEP), entry) == pytest.approx(HIGHEST)


def test_a_failed_raise_of_a_load_without_truthful_watts_still_counts():
    entry = replace(confirmed(B, "off"), command=command(B, "on", LOWEST, HIGHEST), pending=False, failures=1)
    assert most(B, reading(None, LoadState.ASLEEP), entry) == pytest.approx(HIGHEST)
    assert most(M, reading(15.0, LoadState.ASLEEP), entry) == pytest.approx(LOWEST)


def test_holds_and_modes_make_a_load_count_at_its_worst():
    hold = Hold("h", "grid", HoldKind.OFF, "ann", "work on it", AT)
    assert most(M, reading(15.0, LoadState.ASLEEP), OFF, holds=(hold,)) == pytest.approx(WORST)
    assert most(M, reading(15.0, LoadState.ASLEEP), OFF, operator_mode=Mode.ADVISE) == pytest.approx(WORST)
    assert most(M, reading(15.0, LoadState.ASLEEP), OFF, barred=frozenset({M.id})) == pytest.approx(WORST)


def test_a_gpu_counts_at_the_limit_it_enforces():
    card = gpu("g", "grid")
    assert most(card, limited(card, 300.0)) == 300.0
    assert most(card, Telemetry("g", AT, watts=100.0)) == 700.0
    up = LedgerEntry("g", command=command(card, "", 300.0, 500.0), pending=True)
    assert most(card, limited(card, 300.0), up) == 500.0
    down = LedgerEntry("g", command=command(card, "", 300.0, 250.0), pending=True)
    assert most(card, limited(card, 300.0), down) == 300.0


def test_sums_roll_up_with_auxiliaries_and_meter_error():
    plant = small(auxiliaries=(Auxiliary("fans", "pdu-ai", fixed_watts=100.0, follows=0.1),))
    made = snapshot(plant, running=["a0"])
    accounts = account(plant, made)
    ai = accounts["pdu-ai"]
    loads = 4 * 200.0 + HIGHEST + 3 * LOWEST
    assert ai.loads_watts == pytest.approx(loads)
    assert ai.auxiliary_watts == pytest.approx(100.0 + 0.1 * loads)
    assert ai.measured_watts is not None
    assert ai.error_watts == pytest.approx(0.01 * ai.measured_watts)
    assert ai.sum_watts == pytest.approx(ai.loads_watts + ai.auxiliary_watts + ai.error_watts)
    assert accounts["grid"].auxiliary_watts == pytest.approx(ai.auxiliary_watts)
    assert accounts["grid"].loads_watts == pytest.approx(loads + 10 * LOWEST)
    assert all(entry.increases_allowed for entry in accounts.values())


def with_residual(plant, made, extra, samples=100, mean=0.0, at=AT):
    seen = made.meters["ma"].watts or 0.0
    known = replace(residuals(plant)["pdu-ai"], latest_watts=extra, samples=samples, mean_watts=mean)
    return replace(
        made,
        meters={**made.meters, "ma": MeterReading("ma", at, seen + extra, Quality.GOOD)},
        residuals={**made.residuals, "pdu-ai": known},
    )


def test_what_the_meter_shows_and_nobody_explains_is_unmanaged():
    plant = small()
    made = with_residual(plant, snapshot(plant), 2_000.0)
    found = account(plant, made)["pdu-ai"]
    assert found.measured_watts is not None
    assert found.sum_watts - found.error_watts >= found.measured_watts
    assert found.planned_unmanaged_watts == 0.0, "seen once, below the limit: not yet planned with"
    steady = account(plant, with_residual(plant, snapshot(plant), 2_000.0, mean=2_000.0))["pdu-ai"]
    assert steady.planned_unmanaged_watts == 2_000.0
    above = account(plant, with_residual(plant, snapshot(plant), 22_000.0))["pdu-ai"]
    assert above.planned_unmanaged_watts == 22_000.0, "above the limit it counts at once"


def test_load_that_moves_is_not_planned_as_unmanaged():
    plant = small(ai_watts=4_000.0)
    load = plant.load_by_id["a0"]
    asleep_now = replace(confirmed(load, "off", at=AT - 1.0), command=command(load, "off", HIGHEST, LOWEST))
    made = snapshot(plant, ledger=ledger(asleep_now))
    late = with_residual(plant, made, 3_250.0, at=AT - 1.0)
    found = account(plant, late)["pdu-ai"]
    assert found.planned_unmanaged_watts == 0.0
    assert found.sum_watts >= (late.meters["ma"].watts or 0.0)
    later = replace(late, at=AT + 3.0)
    assert account(plant, later)["pdu-ai"].planned_unmanaged_watts == 3_250.0


def test_without_a_meter_unmanaged_is_its_most_and_is_counted_once_above():
    circuits = (
        circuit("grid", None, 50_000.0, unmanaged_max_watts=500.0),
        circuit("pdu", "grid", 20_000.0, unmanaged_max_watts=1_000.0),
    )
    plant = facility(circuits, [miner("m", "pdu")])
    accounts = account(plant, snapshot(plant))
    assert accounts["pdu"].unmanaged_watts == 1_000.0
    assert accounts["grid"].unmanaged_watts == 1_500.0


@pytest.mark.parametrize(
    ("age_s", "allowed", "room_is_none", "limit_watts"),
    [
        (2.0, True, False, 50_000.0),
        (4.0, False, False, 50_000.0),
        (12.0, False, True, 50_000.0),
        (31.0, False, True, 9e3),
    ],
)
def test_a_silent_meter_closes_its_circuit_step_by_step(age_s, allowed, room_is_none, limit_watts):
    plant = small()
    grid = replace(plant.circuits[0], failsafe_watts=9e3)
    plant = replace(plant, circuits=(grid, *plant.circuits[1:]))
    made = snapshot(plant)
    made = replace(made, meters={**made.meters, "mg": replace(made.meters["mg"], at=AT - age_s)})
    accounts = account(plant, made)
    assert accounts["grid"].limit_watts == limit_watts
    assert (accounts["grid"].room_watts <= 0.0) is room_is_none
    for node in ("grid", "pdu-ai", "pdu-m"):
        assert accounts[node].increases_allowed is allowed
    if age_s > 30.0:
        assert accounts["grid"].cause is Cause.FAILSAFE


def test_a_bad_meter_and_a_meter_never_read_count_as_at_the_limit():
    plant = small()
    made = snapshot(plant)
    bad = replace(made, meters={**made.meters, "ma": MeterReading("ma", AT, None, Quality.BAD, detail="frozen")})
    accounts = account(plant, bad)
    assert accounts["pdu-ai"].room_watts == 0.0
    assert "frozen" in accounts["pdu-ai"].why_not
    assert accounts["pdu-m"].increases_allowed
    never = account(plant, replace(made, meters={"ma": made.meters["ma"]}))
    assert never["grid"].room_watts == 0.0
    assert not never["pdu-m"].increases_allowed
    assert never["grid"].limit_watts == 50_000.0


def test_no_record_no_increase():
    plant = small()
    accounts = account(plant, snapshot(plant, records_ok=False))
    assert not any(entry.increases_allowed for entry in accounts.values())


def cut(name, limit, start, end=AT + 1_000.0, **changes):
    values = {"cause": Cause.DEMAND_RESPONSE, "announced_at": AT - 10.0, **changes}
    return Curtailment(name, "pdu-m", limit, start, end, **values)


def test_a_ceiling_binds_the_plan_before_it_starts_and_the_account_once_it_has():
    plant = small()
    soon = account(plant, snapshot(plant, curtailments=(cut("c", 5e3, AT + 6.0),)))["pdu-m"]
    assert (soon.limit_watts, soon.target_limit_watts, soon.cause) == (40_000.0, 5e3, Cause.DEMAND_RESPONSE)
    far = account(plant, snapshot(plant, curtailments=(cut("c", 5e3, AT + 600.0),)))["pdu-m"]
    assert (far.target_limit_watts, far.cause) == (40_000.0, None)
    past = account(plant, snapshot(plant, curtailments=(cut("c", 5e3, AT - 600.0, AT),)))["pdu-m"]
    assert past.target_limit_watts == 40_000.0


def test_between_programs_the_lower_number_wins_but_never_over_an_emergency():
    plant = small()
    both = (cut("a", 5e3, AT, priority=5), cut("b", 9e3, AT, priority=1))
    assert account(plant, snapshot(plant, curtailments=both))["pdu-m"].limit_watts == 9e3
    alarm = (*both, cut("e", 2e3, AT, priority=50, cause=Cause.EMERGENCY))
    found = account(plant, snapshot(plant, curtailments=alarm))["pdu-m"]
    assert (found.limit_watts, found.cause) == (2e3, Cause.EMERGENCY)


def test_an_account_over_its_limit_lets_nothing_beneath_increase():
    plant = small(ai_watts=3_000.0)
    accounts = account(plant, snapshot(plant, running=["a0"]))
    assert accounts["pdu-ai"].over
    assert not accounts["pdu-ai"].increases_allowed
    assert accounts["grid"].increases_allowed


def test_the_sum_is_never_below_the_meter():
    plant = small()
    made = snapshot(plant, telemetry={"a1": hashing(plant.load_by_id["a1"])})
    made = replace(made, meters={**made.meters, "ma": MeterReading("ma", AT, 19_000.0, Quality.GOOD)}, residuals={})
    assert account(plant, made)["pdu-ai"].sum_watts >= 19_000.0
