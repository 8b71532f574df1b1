"""Moving a running miner between points: what is asked, what proves it, and what counts until then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from control_kit import entry_of, ledger_of

from mullet.control.counting import most_by_load
from mullet.control.reconcile import Dispatch, reconcile
from mullet.control.verify import verify
from mullet.domain.command import Command, Evidence, LedgerEntry, OutcomeKind, Verb
from mullet.domain.facility import Facility, Pacing
from mullet.domain.feeds import Cause
from mullet.domain.load import OFF, Load, OperatingPoint, Steering
from mullet.domain.plan import Desired, Setpoint
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import Background, LoadState, Quality, Residual, Telemetry
from mullet.planning.accounting import account, most_may_draw
from mullet.testing.builders import circuit, command, facility, meter_reading, miner, snapshot, telemetry
from mullet.testing.virtual_time import START

POINTS = (OperatingPoint(OFF, 20.0), OperatingPoint("eco", 2_000.0, 80.0), OperatingPoint("full", 3_300.0, 110.0))
CAPABLE = replace(miner().capability, steering=Steering.STEPPED, ramp_down_s=6.0, ramp_up_s=12.0)
BLIND = replace(CAPABLE, measures_watts=False)
FREE = Pacing(economic_ramp_per_s=1.0, block_fraction=1.0, min_off_s=60.0)


def plant(blind: bool = False, usable: float = 20_000.0, **changes: Any) -> Facility:
    capability = replace(BLIND if blind else CAPABLE, **changes)
    loads = [miner(f"miners-{k:03d}", "grid", points=POINTS, capability=capability) for k in range(1, 4)]
    return facility(circuits=(circuit("grid", None, usable, meter="grid"),), miners=loads, gpus=0, pacing=FREE)


ONE = plant().loads[0]


def stood(load: Load, point: str, at: float = START - 100.0, **fields: Any) -> LedgerEntry:
    """Return the entry of a load that was verified at a point."""
    where = load.point(point)
    verb = Verb.SLEEP if where is load.lowest else Verb.POWER
    order = command(load, verb, point=point, at=at - 20.0, most_after_watts=load.most_at(where))
    values: dict[str, Any] = {
        "pending": False,
        "confirmed_point": point,
        "confirmed_watts": load.most_at(where),
        "confirmed_at": at,
        **fields,
    }
    return entry_of(order, **values)


def moved(load: Load, start: str, end: str, at: float = START) -> Command:
    before, after = load.most_at(load.point(start)), load.most_at(load.point(end))
    return command(load, Verb.POWER, point=end, at=at, most_before_watts=before, most_after_watts=after)


def run(site: Facility, seen: Snapshot, wanted: Mapping[str, str], cause: Cause = Cause.ECONOMIC) -> Dispatch:
    setpoints = {
        load_id: Setpoint(load_id, point, site.load_by_id[load_id].point(point).watts, cause, "test")
        for load_id, point in wanted.items()
    }
    desired = Desired(seen.at, "p", setpoints, {})
    return reconcile(site, seen, account(site, seen), most_by_load(site, seen), desired)


def asked(sent: Dispatch) -> list[tuple[str, str]]:
    return [(item.verb.value, item.point) for item in sent.commands]


def seen(site: Facility, *entries: LedgerEntry, **fields: Any) -> Snapshot:
    background = Background(0.0, 5.0, 10)
    residual = {"grid": Residual("grid", 0.0, 5.0, 10, 0.0, START, background)}
    return snapshot(site, residuals=residual, ledger=ledger_of(*entries), **fields)


def test_one_at_full_is_lowered_and_one_at_eco_is_left() -> None:
    site = plant()
    state = seen(site, stood(site.loads[1], "eco"), points={"miners-002": "eco"})
    assert asked(run(site, state, {"miners-001": "eco", "miners-002": "eco"})) == [("power", "eco")]


@pytest.mark.parametrize("cause", [Cause.ECONOMIC, Cause.PROTECTION])
def test_lowering_waits_for_its_cause_s_pacing_only(cause: Cause) -> None:
    site = plant()
    lately = stood(site.loads[0], "full", at=START - 10.0, last_change_at=START - 30.0, cycles=(START - 1.0,) * 99)
    sent = run(site, seen(site, lately), {"miners-001": "eco"}, cause)
    assert (asked(sent) == [("power", "eco")]) == (cause is Cause.PROTECTION)
    assert cause is Cause.PROTECTION or sent.withheld["miners-001"] == "one command each 60 s: 30 s left"
    # A point between is no stop: neither the minimum time on nor the stops of the day count.
    later = replace(lately, last_change_at=START - 61.0)
    assert asked(run(site, seen(site, later), {"miners-001": "eco"}, cause)) == [("power", "eco")]


def test_a_device_that_needs_time_at_a_point_has_it() -> None:
    site = plant(min_dwell_s=300.0)
    entry = stood(site.loads[0], "full", last_change_at=START - 100.0)
    sent = run(site, seen(site, entry), {"miners-001": "eco"})
    assert sent.withheld["miners-001"] == "minimum time at a point: 200 s left"


def test_raising_needs_proven_room() -> None:
    for usable, count in ((20_000.0, 1), (7_500.0, 0)):
        site = plant(usable=usable)
        entries = [stood(load, "eco") for load in site.loads]
        state = seen(site, *entries, points={load.id: "eco" for load in site.loads})
        sent = run(site, state, {"miners-001": "full"})
        assert len(sent.increases) == count
        assert sent.decreases == ()


def test_what_watts_or_limit_tell_stands_in_for_what_was_never_asked() -> None:
    site = plant()
    state = seen(site, points={"miners-001": "eco"})
    (raised,) = run(site, state, {"miners-001": "full"}).increases
    assert (raised.verb, raised.point, raised.raises) == (Verb.POWER, "full", True)
    # It counted at full already: no one knew better.
    assert raised.most_before_watts == pytest.approx(site.loads[0].most_at(POINTS[1]))
    blind = plant(blind=True)
    state = seen(blind)
    told = {**state.telemetry, "miners-001": replace(state.telemetry["miners-001"], limit_watts=2_000.0)}
    assert asked(run(blind, replace(state, telemetry=told), {"miners-001": "full"})) == [("power", "full")]
    assert asked(run(blind, state, {"miners-001": "full"})) == []


def test_one_that_sleeps_wakes_as_it_likes_and_is_moved_then() -> None:
    site = plant()
    state = seen(site, stood(site.loads[0], OFF), points={"miners-001": OFF})
    (woken,) = run(site, state, {"miners-001": "eco"}).increases
    assert (woken.verb, woken.point, woken.most_after_watts) == (Verb.WAKE, "full", ONE.most_at(ONE.highest))
    waking = entry_of(woken)
    awake = seen(site, waking)
    assert run(site, awake, {"miners-001": "eco"}).withheld["miners-001"] == "under way, not yet verified"
    # Where a limit fell there is no time to wait for that.
    assert asked(run(site, awake, {"miners-001": "eco"}, Cause.PROTECTION)) == [("power", "eco")]


# What proves it


def judged(site: Facility, entry: LedgerEntry, reading: Telemetry, at: float) -> Any:
    state = seen(site, entry, at=at)
    readings = {**state.telemetry, entry.load_id: reading}
    found = [o for o in verify(site, replace(state, telemetry=readings)) if o.load_id == entry.load_id]
    return found[0] if found else None


@pytest.mark.parametrize(
    ("watts", "at", "kind"),
    [
        (2_010.0, 7.0, OutcomeKind.APPLIED),
        (2_010.0, 5.0, OutcomeKind.CONVERGING),
        (2_600.0, 7.0, OutcomeKind.CONVERGING),
        (3_300.0, 7.0, None),
        (3_300.0, 13.0, OutcomeKind.REFUSED),
    ],
)
def test_truthful_watts_prove_a_lower_point_once_the_ramp_is_over(
    watts: float, at: float, kind: OutcomeKind | None
) -> None:
    site = plant()
    entry = entry_of(moved(ONE, "full", "eco"), confirmed_point="full", confirmed_watts=ONE.most_at(ONE.highest))
    found = judged(site, entry, telemetry(ONE, START + at, "eco", watts=watts), START + at)
    assert (found.kind if found is not None else None) is kind
    if kind is OutcomeKind.APPLIED:
        assert found.most_watts == pytest.approx(ONE.most_at(POINTS[1]))


def test_a_device_that_reboots_for_a_new_point_passes_it_on_its_way_up() -> None:
    site = plant(reboots_on_change=True)
    entry = entry_of(moved(ONE, "full", "eco"))
    load = site.loads[0]
    assert judged(site, entry, telemetry(load, START + 11.0, "eco"), START + 11.0).kind is OutcomeKind.CONVERGING
    assert judged(site, entry, telemetry(load, START + 12.0, "eco"), START + 12.0).kind is OutcomeKind.APPLIED


def test_a_raise_counts_as_done_when_more_than_half_of_it_is_there() -> None:
    site = plant()
    entry = entry_of(moved(ONE, "eco", "full"))
    late = START + 13.0
    assert judged(site, entry, telemetry(ONE, late, watts=2_700.0), late).kind is OutcomeKind.APPLIED
    assert judged(site, entry, telemetry(ONE, late, watts=2_050.0), late) is None


@pytest.mark.parametrize(
    ("shown", "rate", "credited"), [(8_600.0, 80.0, True), (9_900.0, 80.0, False), (8_600.0, 110.0, False)]
)
def test_without_truthful_watts_a_lower_point_is_proven_by_the_circuit_s_meter(
    shown: float, rate: float, credited: bool
) -> None:
    site = plant(blind=True)
    load, at = site.loads[0], START + 8.0
    state = seen(site, entry_of(moved(load, "full", "eco")), at=at)
    readings = {**state.telemetry, load.id: telemetry(load, at, "eco", th_per_s=rate)}
    meters = {"grid": meter_reading("grid", shown, at, Quality.GOOD)}
    found = [o for o in verify(site, replace(state, telemetry=readings, meters=meters)) if o.command_id]
    assert bool(found) == credited
    if credited:
        assert (found[0].evidence, found[0].point) == (Evidence.BOTH, "eco")
        assert found[0].most_watts == pytest.approx(load.most_at(POINTS[1]))


# What counts until then


def counted(site: Facility, entry: LedgerEntry, reading: Telemetry) -> float:
    state = replace(seen(site, entry), telemetry={entry.load_id: reading})
    return most_may_draw(site, state, site.load_by_id[entry.load_id], 15.0)


ECO, FULL = ONE.most_at(POINTS[1]), ONE.most_at(POINTS[2])


@pytest.mark.parametrize(
    ("entry", "reading", "expected"),
    [
        (stood(ONE, "eco"), telemetry(ONE, START, "eco"), ECO),
        (stood(ONE, "eco"), telemetry(ONE, START, "full"), FULL),
        (entry_of(moved(ONE, "full", "eco")), telemetry(ONE, START, "eco"), FULL),
        (entry_of(moved(ONE, "eco", "full")), telemetry(ONE, START, "eco"), FULL),
        # A lower point that was refused after a raise which nobody verified.
        (
            replace(stood(ONE, "eco"), command=moved(ONE, "full", "eco", START - 1.0)),
            telemetry(ONE, START, "eco"),
            FULL,
        ),
    ],
    ids=["verified", "above it", "falling", "rising", "in doubt"],
)
def test_what_may_be_drawn_is_the_most_of_confirmed_and_commanded(
    entry: LedgerEntry, reading: Telemetry, expected: float
) -> None:
    assert counted(plant(), entry, reading) == pytest.approx(expected)


def test_a_hashrate_above_its_point_counts_where_no_watts_are_told() -> None:
    site = plant(blind=True)
    entry = stood(site.loads[0], "eco")
    slow = Telemetry("miners-001", START, state=LoadState.ACTIVE, th_per_s=81.0)
    assert counted(site, entry, slow) == pytest.approx(ECO)
    assert counted(site, entry, replace(slow, th_per_s=100.0)) == pytest.approx(FULL)
