"""What travels between the control process and its planner, in pieces that take no loop's time worth the name.

The facility travels a few hundred loads at a time, sets of loads as masks over them, a plan interval by interval, and
the groups of a plan not at all: both sides derive them from the same facility.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mullet.domain.facility import Facility
from mullet.domain.load import Load
from mullet.domain.plan import Plan, PlanInterval, PlanRequest
from mullet.planning.index import index_of
from mullet.ports import PlanningError

LOADS_AT_A_TIME = 100
MASKED_AT_A_TIME = 5_000
_MASKED = ("available", "running")
_PLAIN = tuple(f.name for f in dataclasses.fields(PlanRequest) if f.name not in ("facility", *_MASKED))


def facility_pieces(facility: Facility) -> Iterator[Any]:
    """Yield the facility without its loads, then its loads a few at a time."""
    yield dataclasses.replace(facility, loads=())
    for first in range(0, len(facility.loads), LOADS_AT_A_TIME):
        yield facility.loads[first : first + LOADS_AT_A_TIME]


def join_facility(bare: Facility, loads: Sequence[Load]) -> Facility:
    """Return the facility that `facility_pieces` took apart."""
    return dataclasses.replace(bare, loads=tuple(loads))


def request_pieces(request: PlanRequest) -> Iterator[dict[str, Any]]:
    """Yield all of a request but its facility; sets of loads as one byte per load, in the facility's order.

    Each piece holds what there is so far: the last one is whole.
    """
    fields = {name: getattr(request, name) for name in _PLAIN}
    loads = request.facility.loads
    for name in _MASKED:
        members, mask = getattr(request, name), bytearray()
        for first in range(0, len(loads), MASKED_AT_A_TIME):
            mask += bytes([load.id in members for load in loads[first : first + MASKED_AT_A_TIME]])
            yield fields
        fields[name] = bytes(mask)
    yield fields


def join_request(facility: Facility, fields: Mapping[str, Any]) -> PlanRequest:
    """Return the request that `request_pieces` took apart, from the last of its pieces."""
    sets = {
        name: frozenset(load.id for load, here in zip(facility.loads, fields[name], strict=True) if here)
        for name in _MASKED
    }
    return PlanRequest(facility=facility, **{**fields, **sets})


def plan_pieces(plan: Plan) -> Iterator[Any]:
    """Yield the plan's intervals one by one, then the rest of it with the keys of its groups."""
    yield from plan.intervals
    yield dataclasses.replace(plan, intervals=(), groups=()), tuple(group.key for group in plan.groups)


def join_plan(facility: Facility, intervals: Sequence[PlanInterval], last: tuple[Plan, tuple[str, ...]]) -> Plan:
    """Return the plan that `plan_pieces` took apart.

    Raises:
        PlanningError: its groups are not those of the facility.
    """
    plan, keys = last
    groups = tuple(item.group for item in index_of(facility).groups)
    if keys != tuple(group.key for group in groups):
        raise PlanningError("the planner answers for other groups than the facility has")
    return dataclasses.replace(plan, intervals=tuple(intervals), groups=groups)
