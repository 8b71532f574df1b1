"""Where each load stands by what was asked and read, and which loads may be moved now."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from mullet.domain.command import LedgerEntry
from mullet.domain.facility import Facility
from mullet.domain.load import Load, LoadKind, Steering
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import LoadState, Telemetry
from mullet.domain.units import SECONDS_PER_DAY
from mullet.planning.accounting import CircuitAccount, Standing, silent_after_s
from mullet.planning.capacity import Capacity
from mullet.planning.index import FacilityIndex, GroupIndex, index_of
from mullet.planning.stance import came_back
from mullet.planning.thermal import waits

_READING_FACTOR = 1.02
"""A reading this far below a point still counts as at it."""


@dataclass(slots=True)
class Members:
    """A group's loads as they stand."""

    item: GroupIndex
    movable: list[Load] = field(default_factory=list)
    fixed_watts: float = 0.0
    """Sum of the most that the loads which cannot be moved may draw."""
    serving_watts: float = 0.0
    """Power that GPUs which cannot be moved are known to have."""


def sort_members(
    index: FacilityIndex, snapshot: Snapshot, standing: Standing, doubted: Collection[str] = ()
) -> list[Members]:
    """Return each group's loads, those that may be moved apart from those that may not, the `doubted` among these."""
    members = []
    entries, facility = snapshot.ledger.entries, standing.facility
    for item in index.groups:
        here = Members(item)
        capability = item.loads[0].capability
        gpu = item.group.kind is LoadKind.GPU
        steerable = capability.steering is not Steering.MONITOR and (gpu or capability.interruptible)
        steerable = steerable and standing.auto(item.loads[0])
        for load in item.loads:
            reading = standing.reading(load)
            entry = entries.get(load.id)
            blocked = entry is not None and entry.blocked_until > snapshot.at
            blocked = blocked or load.id in doubted or standing.barred(load)
            ready = reading is not None and not (facility.gates and waits(facility, snapshot, load))
            if steerable and not blocked and ready and not standing.held(load):
                here.movable.append(load)
                continue
            here.fixed_watts += standing.most_watts(load)
            if gpu and reading is not None and reading.limit_watts is not None:
                here.serving_watts += reading.limit_watts
        members.append(here)
    return members


def free_capacity(
    facility: Facility, accounts: Mapping[str, CircuitAccount], members: list[Members]
) -> tuple[Capacity, Capacity]:
    """Return what the circuits can carry above the fixed loads, with every movable load at its lowest point.

    The second one is before the lowest points are taken: negative where the fixed part alone is above the limit.
    """
    left = {}
    for circuit in facility.circuits:
        account = accounts[circuit.id]
        fixed = sum(auxiliary.fixed_watts for auxiliary in facility.auxiliaries_beneath[circuit.id])
        budget = account.target_limit_watts - account.planned_unmanaged_watts - account.planned_error_watts
        left[circuit.id] = budget - fixed
    fixed_only = Capacity(left)
    for here in members:
        if here.fixed_watts:
            fixed_only.take(here.item, here.fixed_watts)
    capacity = Capacity(fixed_only.left)
    for here in members:
        if here.movable:
            capacity.take(here.item, lowest_watts(here.item) * len(here.movable))
    return capacity, fixed_only


def fixed_watts(
    facility: Facility,
    snapshot: Snapshot,
    accounts: Mapping[str, CircuitAccount],
    available: Collection[str],
    advise: bool = False,
) -> dict[str, float]:
    """Return per circuit what a plan request counts besides the `available` loads.

    That is all other loads at the most they may draw with the auxiliaries that follow them, fixed auxiliaries,
    unmanaged load and meter error as planned with. What follows the available loads is the planner's to count.
    """
    standing = Standing(facility, snapshot, silent_after_s(facility), advise)
    fixed = {}
    for circuit in facility.circuits:
        account = accounts[circuit.id]
        auxiliaries = sum(auxiliary.fixed_watts for auxiliary in facility.auxiliaries_beneath[circuit.id])
        fixed[circuit.id] = auxiliaries + account.planned_unmanaged_watts + account.planned_error_watts
    for item in index_of(facility).groups:
        watts = sum(standing.most_watts(load) for load in item.loads if load.id not in available)
        if watts:
            for node, factor in zip(item.path, item.factors, strict=True):
                fixed[node] += watts * factor
    return fixed


def lowest_watts(item: GroupIndex) -> float:
    """Return what one movable load of the group counts at its lowest point."""
    return item.most_watts[0]


def hull_level(item: GroupIndex, entry: LedgerEntry | None, reading: Telemetry | None) -> int:
    """Return the position on the hull at which a miner stands, or goes to by the latest command.

    One that woke by itself counts where it was put: otherwise another would be stopped in its place.
    """
    hull_of = item.hull_of
    if entry is not None and entry.pending and entry.command is not None:
        return hull_of.get(entry.command.point, hull_of[""])
    state = reading.state if reading is not None else None
    if state is LoadState.ASLEEP or state is LoadState.STOPPING:
        return 0
    confirmed = entry.confirmed_point if entry is not None else None
    points = item.group.points
    if reading is None or not (state is LoadState.ACTIVE or state is LoadState.STARTING):
        return hull_of.get(confirmed or "", hull_of[""])
    if confirmed is not None and confirmed != points[0].name:
        return hull_of.get(confirmed, hull_of[""])
    if confirmed is not None and came_back(points[0].name, entry, reading):
        return 0
    if reading.watts is None:
        return hull_of[points[-1].name]
    drawn = 0.0 if math.isnan(reading.watts) else reading.watts * _READING_FACTOR
    at = max(0, bisect_right(item.point_watts, drawn + 1e-6) - 1)
    # It runs, whatever it draws: it stands above the lowest point.
    return 1 if at == 0 and len(item.hull) > 1 else hull_of[points[at].name]


def cycles_within_day(entry: LedgerEntry | None, at: float) -> int:
    """Return how many economic stops the load has had within a day."""
    if entry is None or not entry.cycles:
        return 0
    return sum(1 for instant in entry.cycles if instant > at - SECONDS_PER_DAY)
