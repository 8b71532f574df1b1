"""What never changes between two policies, derived once per facility: groups with their paths, hulls and lead times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from mullet.domain.facility import Facility
from mullet.domain.load import Load, LoadKind
from mullet.domain.plan import Group, group_loads

_ATTRIBUTE = "_planning_index"
_VERIFY_TICKS = 3.0


@dataclass(frozen=True, slots=True)
class GroupIndex:
    """A group with all that allocation needs of it."""

    number: int
    group: Group
    loads: tuple[Load, ...]
    path: tuple[str, ...]
    """Circuits from the group's own up to the grid connection."""
    factors: tuple[float, ...]
    """Per circuit of the path: watts that one watt of the group causes there, auxiliaries included."""
    hull: tuple[int, ...]
    """Points worth standing at, ascending: each step earns less per watt than the one before (miners)."""
    most_watts: tuple[float, ...]
    """The most one load may draw at each point."""
    point_watts: tuple[float, ...]
    """Nominal watts of each point, ascending."""
    hull_of: dict[str, int]
    """Per point's name: the hull position at which it counts; under "" that of any other name."""
    first_id: str
    """Least id among the loads: breaks ties whatever the policy's order."""


@dataclass(frozen=True, slots=True)
class FacilityIndex:
    """Everything derived from a facility alone."""

    groups: tuple[GroupIndex, ...]
    group_of: dict[str, int]
    bottom_up: tuple[str, ...]
    """Circuits, every child before its parent."""
    unmanaged_max_watts: dict[str, float]
    """The most that unmanaged load may draw at or beneath each circuit."""
    lead_s: dict[str, float]
    """Time that the slowest load at or beneath each circuit needs to shed and be verified."""


def index_of(facility: Facility) -> FacilityIndex:
    """Return the facility's index, built at the first call and kept with the facility from then on."""
    # Kept in the instance like a cached property: a facility holds mappings, so no cache could be keyed by it.
    found = facility.__dict__.get(_ATTRIBUTE)
    if found is None:
        found = _build(facility)
        facility.__dict__[_ATTRIBUTE] = found
    return cast(FacilityIndex, found)


def _build(facility: Facility) -> FacilityIndex:
    bottom_up = tuple(sorted(facility.circuit_by_id, key=lambda node: (-len(facility.path(node)), node)))
    unmanaged = {circuit.id: circuit.unmanaged_max_watts for circuit in facility.circuits}
    lead = dict.fromkeys(bottom_up, 0.0)
    for load in facility.loads:
        lead[load.circuit] = max(lead[load.circuit], load.capability.ramp_down_s)
    for node in bottom_up:
        parent = facility.circuit_by_id[node].parent
        if parent is not None:
            unmanaged[parent] += unmanaged[node]
            lead[parent] = max(lead[parent], lead[node])
    pacing = facility.pacing
    for node in bottom_up:
        lead[node] = lead[node] * pacing.verify_margin + _VERIFY_TICKS * pacing.tick_s
    groups = []
    group_of: dict[str, int] = {}
    for number, group in enumerate(group_loads(facility)):
        loads = tuple(facility.load_by_id[load_id] for load_id in group.load_ids)
        path = facility.path(group.circuit)
        most = tuple(max(load.most_at(load.points[k]) for load in loads) for k in range(len(group.points)))
        values = [point.th_per_s for point in group.points]
        hull = upper_hull([point.watts for point in group.points], values)
        if group.kind is LoadKind.GPU:
            hull = tuple(range(len(group.points)))
        groups.append(
            GroupIndex(
                number,
                group,
                loads,
                path,
                follow_factors(facility, path),
                hull,
                most,
                tuple(point.watts for point in group.points),
                _hull_of(group, hull),
                min(group.load_ids),
            )
        )
        for load in loads:
            group_of[load.id] = number
    return FacilityIndex(tuple(groups), group_of, bottom_up, unmanaged, lead)


def _hull_of(group: Group, hull: tuple[int, ...]) -> dict[str, int]:
    """Return the hull position of each point: its own, or the highest that draws no more."""
    found = {}
    for name, watts in [("", 0.0), *((point.name, point.watts) for point in reversed(group.points))]:
        below = [position for position, k in enumerate(hull) if group.points[k].watts <= watts]
        own = [position for position, k in enumerate(hull) if group.points[k].name == name]
        found[name] = own[0] if own else max(below, default=0)
    return found


def follow_factors(facility: Facility, path: Sequence[str]) -> tuple[float, ...]:
    """Return, per circuit of `path`, the watts caused there by a watt at its start, auxiliaries included."""
    factors = []
    factor = 1.0
    for node in path:
        factor += sum(auxiliary.follows for auxiliary in facility.auxiliaries if auxiliary.circuit == node)
        factors.append(factor)
    return tuple(factors)


def upper_hull(watts: Sequence[float], values: Sequence[float]) -> tuple[int, ...]:
    """Return the indices of the points on the upper concave hull that still gain value, the first always among them."""
    hull = [0]
    for k in range(1, len(watts)):
        if values[k] <= values[hull[-1]] or watts[k] <= watts[hull[-1]]:
            continue
        while len(hull) >= 2:
            a, b = hull[-2], hull[-1]
            if (values[b] - values[a]) * (watts[k] - watts[b]) > (values[k] - values[b]) * (watts[b] - watts[a]):
                break
            hull.pop()
        hull.append(k)
    return tuple(hull)
