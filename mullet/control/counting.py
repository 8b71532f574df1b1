"""The most each load may draw, and which loads may be moved, as the cap sum and the allocator count them. Pure."""

from __future__ import annotations

from mullet.domain.facility import Facility
from mullet.domain.snapshot import Snapshot
from mullet.planning.accounting import Standing, silent_after_s
from mullet.planning.index import index_of
from mullet.planning.positions import sort_members


def most_by_load(facility: Facility, snapshot: Snapshot, advise: bool = False) -> dict[str, float]:
    """Return the most each load may draw, in watts."""
    standing = Standing(facility, snapshot, silent_after_s(facility), advise)
    return {load.id: standing.most_watts(load) for load in facility.loads}


def movable_loads(facility: Facility, snapshot: Snapshot) -> frozenset[str]:
    """Return the loads that may be commanded now; all others stand where they stand."""
    standing = Standing(facility, snapshot, silent_after_s(facility))
    members = sort_members(index_of(facility), snapshot, standing)
    return frozenset(load.id for here in members for load in here.movable)
