"""Who overrides whom: the table of design section 4, row by row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mullet.control.counting import most_by_load
from mullet.control.reconcile import Dispatch, reconcile
from mullet.domain.command import Command, CommandLedger, LedgerEntry, Verb
from mullet.domain.facility import Facility, Pacing
from mullet.domain.feeds import Cause
from mullet.domain.plan import Desired, Setpoint
from mullet.domain.snapshot import Hold, HoldKind, Snapshot
from mullet.planning.accounting import account
from mullet.testing.builders import circuit, facility, miner, snapshot

PACING = Pacing(min_on_s=600.0, min_off_s=600.0, command_gap_s=60.0, max_cycles_per_day=2, economic_ramp_per_s=0.001)
ALL = list(Cause)
OVERRIDES_DWELL = {
    Cause.PROTECTION,
    Cause.FAILSAFE,
    Cause.EMERGENCY,
    Cause.AI_PREEMPTION,
    Cause.DEMAND_RESPONSE,
    Cause.RESERVE,
}
OVERRIDES_RATE = {Cause.PROTECTION, Cause.FAILSAFE, Cause.EMERGENCY, Cause.AI_PREEMPTION}
OVERRIDES_CYCLES = OVERRIDES_DWELL
OVERRIDES_HOLD_ON = {Cause.PROTECTION, Cause.FAILSAFE, Cause.EMERGENCY}


def plant() -> Facility:
    return facility(
        circuits=(circuit("grid", None, 100_000.0, meter="grid"),),
        miners=[miner(f"miners-{k:03d}", "grid") for k in range(1, 5)],
        gpus=0,
        pacing=PACING,
    )


def past(load_id: str, at: float, verb: Verb, cause: Cause = Cause.ECONOMIC) -> Command:
    site = plant()
    load = site.load_by_id[load_id]
    low, high = load.most_at(load.lowest), load.most_at(load.highest)
    wake = verb is Verb.WAKE
    return Command(
        "1-1",
        1,
        1,
        load_id,
        verb,
        load.highest.name if wake else load.lowest.name,
        load.highest.watts if wake else load.lowest.watts,
        low if wake else high,
        high if wake else low,
        cause,
        "",
        "",
        at,
        at + 5.0,
        60.0,
    )


def dispatch(seen: Snapshot, cause: Cause, point: str = "off") -> Dispatch:
    site = plant()
    load = site.load_by_id["miners-001"]
    setpoint = Setpoint(load.id, point, load.point(point).watts, cause, "test")
    desired = Desired(seen.at, "plan", {load.id: setpoint})
    return reconcile(site, seen, account(site, seen), most_by_load(site, seen), desired)


def with_entry(entry: LedgerEntry, **fields: object) -> Snapshot:
    return replace(snapshot(plant()), ledger=CommandLedger({"miners-001": entry}, next_seq=2), **fields)


@pytest.mark.parametrize("cause", ALL)
def test_minimum_dwell(cause: Cause) -> None:
    at = snapshot(plant()).at
    entry = LedgerEntry("miners-001", past("miners-001", at - 120.0, Verb.WAKE), last_change_at=at - 120.0)
    sent = dispatch(with_entry(entry), cause).decreases
    assert bool(sent) == (cause in OVERRIDES_DWELL)


@pytest.mark.parametrize("cause", ALL)
def test_command_rate(cause: Cause) -> None:
    seen = snapshot(plant())
    entry = LedgerEntry("miners-001", past("miners-001", seen.at - 20.0, Verb.WAKE), last_change_at=seen.at - 20.0)
    sent = dispatch(with_entry(entry), cause).decreases
    assert bool(sent) == (cause in OVERRIDES_RATE)


@pytest.mark.parametrize("cause", ALL)
def test_cycle_budget(cause: Cause) -> None:
    at = snapshot(plant()).at
    entry = LedgerEntry("miners-001", last_change_at=at - 5_000.0, cycles=(at - 20_000.0, at - 10_000.0))
    sent = dispatch(with_entry(entry), cause).decreases
    assert bool(sent) == (cause in OVERRIDES_CYCLES)


@pytest.mark.parametrize("cause", ALL)
def test_hold_on(cause: Cause) -> None:
    seen = snapshot(plant())
    held = replace(seen, holds=(Hold("hold-1", "miners-001", HoldKind.ON, "anna", "customer test", seen.at),))
    sent = dispatch(held, cause).decreases
    assert bool(sent) == (cause in OVERRIDES_HOLD_ON)


@pytest.mark.parametrize("cause", ALL)
def test_hold_off_is_never_energised(cause: Cause) -> None:
    seen = snapshot(plant(), points={"miners-001": "off"})
    held = replace(seen, holds=(Hold("hold-1", "miners-001", HoldKind.OFF, "anna", "fan replaced", seen.at),))
    result = dispatch(held, cause, "normal")
    assert result.commands == ()
    assert "held off by anna" in result.withheld["miners-001"]


@pytest.mark.parametrize("cause", [Cause.ECONOMIC, Cause.PROTECTION, Cause.DEMAND_RESPONSE])
def test_economic_ramp_holds_back_only_what_is_done_for_money(cause: Cause) -> None:
    seen = snapshot(plant())
    moved = past("miners-002", seen.at - 2.0, Verb.SLEEP)
    ledger = CommandLedger({"miners-002": LedgerEntry("miners-002", moved, last_change_at=seen.at - 2.0)}, next_seq=2)
    result = dispatch(replace(seen, ledger=ledger), cause)
    assert bool(result.decreases) == (cause is not Cause.ECONOMIC)
    if cause is Cause.ECONOMIC:
        assert "ramp of grid" in result.withheld["miners-001"]


def test_nothing_is_sent_twice_while_it_is_under_way() -> None:
    seen = snapshot(plant())
    entry = LedgerEntry("miners-001", past("miners-001", seen.at - 1.0, Verb.SLEEP, Cause.PROTECTION), pending=True)
    assert dispatch(with_entry(entry), Cause.PROTECTION).commands == ()


def test_what_stands_as_desired_is_left_alone() -> None:
    seen = snapshot(plant(), points={"miners-001": "off"})
    assert dispatch(seen, Cause.PROTECTION).commands == ()
    assert dispatch(snapshot(plant()), Cause.ECONOMIC, "normal").commands == ()


def test_a_failed_load_backs_off() -> None:
    seen = snapshot(plant())
    entry = LedgerEntry("miners-001", failures=2, blocked_until=seen.at + 3.0)
    result = dispatch(with_entry(entry), Cause.PROTECTION)
    assert result.commands == ()
    assert "backs off" in result.withheld["miners-001"]
