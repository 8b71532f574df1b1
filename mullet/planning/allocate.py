"""From a plan per group to a setpoint per load: inference first, then mining by merit, under every limit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from mullet.domain.facility import Facility
from mullet.domain.plan import Desired, Plan, PlanInterval, Setpoint
from mullet.domain.snapshot import Snapshot
from mullet.planning.accounting import CircuitAccount, Standing, silent_after_s
from mullet.planning.arming import armed_watts
from mullet.planning.index import index_of
from mullet.planning.inference import serve
from mullet.planning.merit import market_now
from mullet.planning.mining import mine
from mullet.planning.positions import free_capacity, sort_members
from mullet.planning.stance import doubtful


def allocate(
    facility: Facility,
    snapshot: Snapshot,
    accounts: Mapping[str, CircuitAccount],
    plan: Plan | None,
    advise: bool = False,
) -> Desired:
    """Return where each load that may be commanded shall stand.

    Loads that may not (mode, hold, back-off, silence) count at the most they may draw, and so do miners that were told
    to stop and are not proven to have. Wherever these, auxiliaries,
    unmanaged load and meter error leave room for every other load's lowest point, the setpoints keep to the limits.
    Without a plan that holds now, mining follows the merit order. `advise` says what would be done in mode advise
    (`accounts` must then come from `account(..., advise=True)`).
    """
    standing = Standing(facility, snapshot, silent_after_s(facility), advise)
    first = _allocate(facility, snapshot, accounts, plan, standing, frozenset())
    doubted = frozenset(_unproven(facility, snapshot, first.setpoints))
    if not doubted:
        return first
    # What was ordered of these is not proven and may never be: they count at their most, and others go in their stead.
    second = _allocate(facility, snapshot, accounts, plan, standing, doubted)
    kept = {load_id: first.setpoints[load_id] for load_id in sorted(doubted)}
    return replace(second, setpoints={**second.setpoints, **kept})


def _unproven(facility: Facility, snapshot: Snapshot, setpoints: Mapping[str, Setpoint]) -> Iterator[str]:
    """Yield the miners that shall stand at their lowest points, were told so, and are not proven to."""
    margin = facility.pacing.verify_margin
    for load_id, entry in snapshot.ledger.entries.items():
        setpoint = setpoints.get(load_id)
        if setpoint is None:
            continue
        load = facility.load_by_id[load_id]
        lowest = setpoint.point == load.lowest.name
        if lowest and doubtful(entry, snapshot.at, load.capability.ramp_down_s, margin):
            yield load_id


def _allocate(
    facility: Facility,
    snapshot: Snapshot,
    accounts: Mapping[str, CircuitAccount],
    plan: Plan | None,
    standing: Standing,
    doubted: frozenset[str],
) -> Desired:
    members = sort_members(index_of(facility), snapshot, standing, doubted)
    capacity, _ = free_capacity(facility, accounts, members)
    interval = usable_interval(plan, snapshot.at)
    market = market_now(facility, snapshot, interval.price_per_mwh if interval is not None else None)
    armed = armed_watts(facility, market)
    served = serve(facility, snapshot, accounts, members, capacity, armed, interval)
    mining = mine(facility, snapshot, accounts, members, capacity, served, market, interval)
    setpoints: dict[str, Setpoint] = {}
    for load in facility.loads:
        found = served.setpoints.get(load.id) or mining.get(load.id)
        if found is not None:
            setpoints[load.id] = found
    return Desired(snapshot.at, plan.id if plan is not None and interval is not None else "", setpoints, armed)


def usable_interval(plan: Plan | None, at: float) -> PlanInterval | None:
    """Return the plan's interval at `at`, or None where there is no plan, it has expired or does not reach here."""
    if plan is None or not plan.made_at <= at < plan.valid_until:
        return None
    return plan.interval_at(at)
