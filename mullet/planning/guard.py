"""Whether a plan may be followed at all, judged from the plan and the request alone, whoever made it."""

from __future__ import annotations

import math
from dataclasses import replace

from mullet.domain.load import LoadKind
from mullet.domain.plan import Group, Plan, PlanInterval, PlanRequest, Rung
from mullet.domain.units import format_watts
from mullet.planning.bending import bent_watts
from mullet.planning.frame import Frame, Slot, base_capacity, frame, free_watts, grant_inference
from mullet.planning.index import GroupIndex, index_of

_TOLERANCE_WATTS = 1.0
_TOLERANCE = 1e-6
_MOST_WORDS = 20


def guard(plan: Plan, request: PlanRequest) -> tuple[str, ...]:
    """Return what is wrong with `plan`, in words; nothing if it may be followed at `request.at`."""
    found = [*_check_frame(plan, request)]
    if found:
        return tuple(found)
    index = {item.group.key: item for item in index_of(request.facility).groups}
    made = frame(request)
    by_start = {slot.start: slot for slot in made.slots}
    available = {group.item.group.key: group.available for group in made.groups}
    for interval in plan.intervals:
        label = f"interval at +{interval.start - request.at:.0f} s"
        problems = _check_counts(plan, interval, request, index, available)
        if not problems:
            free = free_watts(request, interval.start, interval.end)
            problems = _check_limits(interval, free, index, request)
            slot = by_start.get(interval.start)
            problems += _check_needs(interval, made, slot or made.slots[0], free, index)
        found += [f"{label}: {problem}" for problem in problems]
        if len(found) >= _MOST_WORDS:
            break
    return tuple(found)


def _check_frame(plan: Plan, request: PlanRequest) -> list[str]:
    found = []
    at = request.at
    if not math.isfinite(plan.objective) or (plan.bound is not None and not math.isfinite(plan.bound)):
        found.append("objective or bound is not a number")
    if not plan.made_at <= at + _TOLERANCE:
        found.append(f"made {plan.made_at - at:.1f} s in the future")
    if not plan.valid_until > at:
        found.append(f"expired {at - plan.valid_until:.1f} s ago")
    if not plan.intervals:
        return [*found, "no intervals"]
    if plan.interval_at(at) is None:
        found.append("no interval holds the present")
    previous = None
    for interval in plan.intervals:
        if not (math.isfinite(interval.start) and math.isfinite(interval.end) and interval.start < interval.end):
            found.append("an interval has no length")
            break
        if previous is not None and abs(interval.start - previous) > _TOLERANCE:
            found.append(f"gap or overlap at +{interval.start - at:.0f} s")
            break
        previous = interval.end
    expected = {item.group.key: item.group for item in index_of(request.facility).groups}
    for group in plan.groups:
        if group.key not in expected:
            found.append(f"unknown group {group.key}")
        elif group.load_ids != expected[group.key].load_ids or group.points != expected[group.key].points:
            found.append(f"group {group.key} is not the facility's")
    found += [f"group {key} is missing" for key in expected if key not in {group.key for group in plan.groups}]
    return found


def _check_counts(
    plan: Plan,
    interval: PlanInterval,
    request: PlanRequest,
    index: dict[str, GroupIndex],
    available: dict[str, int],
) -> list[str]:
    found = []
    if not math.isfinite(interval.price_per_mwh):
        found.append("price is not a number")
    for key in interval.counts:
        if key not in index:
            found.append(f"unknown group {key}")
    for key, item in index.items():
        counts = interval.counts.get(key)
        group: Group = item.group
        if counts is None or len(counts) != len(group.points):
            found.append(f"{key} has no count for each of its points")
            continue
        if any(type(count) is not int or count < 0 for count in counts):
            found.append(f"{key} has a count that is no number of loads: {counts}")
            continue
        # A plan of before may know loads that have gone since, or not yet know some that came back.
        here = available[key]
        allowed = range(len(group.load_ids) + 1) if plan.rung is Rung.SHIFTED else range(here, here + 1)
        if sum(counts) not in allowed:
            found.append(f"{key} places {sum(counts)} loads, {here} are at hand")
    for node, watts in interval.budget_watts.items():
        if node not in request.facility.circuit_by_id:
            found.append(f"budget for unknown circuit {node}")
        elif not math.isfinite(watts) or watts < -_TOLERANCE_WATTS:
            found.append(f"budget of {node} is {watts}")
    missing = [circuit.id for circuit in request.facility.circuits if circuit.id not in interval.budget_watts]
    return found + [f"no budget for {node}" for node in missing]


def _check_limits(
    interval: PlanInterval, free: dict[str, float], index: dict[str, GroupIndex], request: PlanRequest
) -> list[str]:
    placed = dict.fromkeys(free, 0.0)
    lowest = dict.fromkeys(free, 0.0)
    loads = dict.fromkeys(free, 0.0)
    for key, counts in interval.counts.items():
        item = index[key]
        watts = sum(count * most for count, most in zip(counts, item.most_watts, strict=True))
        for node, factor in zip(item.path, item.factors, strict=True):
            placed[node] += watts * factor
            loads[node] += watts
            lowest[node] += sum(counts) * item.most_watts[0] * factor
    found = []
    for node, limit in free.items():
        budget = interval.budget_watts[node]
        # The budget also holds the GPU power between two points; auxiliaries follow at least what the counts say.
        most = max(placed[node], placed[node] - loads[node] + budget)
        if most > max(limit, lowest[node]) + _TOLERANCE_WATTS:
            found.append(f"{node} is given {format_watts(most)} where {format_watts(limit)} are free")
        if budget < loads[node] - _TOLERANCE_WATTS:
            found.append(f"budget of {node} is below what its counts draw")
    return found


def _check_needs(
    interval: PlanInterval, made: Frame, slot: Slot, free: dict[str, float], index: dict[str, GroupIndex]
) -> list[str]:
    mining = running = 0.0
    for key, counts in interval.counts.items():
        item = index[key]
        if item.group.kind is LoadKind.MINER:
            mining += sum(count * most for count, most in zip(counts, item.most_watts, strict=True))
            running += sum(counts[1:])
    if not running:
        return []
    bare = Slot(interval.start, interval.end, slot.nominal_s, slot.market, free)
    least = replace(made, needs_watts=_least_needs(made))
    could = sum(grant_inference(least, base_capacity(least, bare)).values())
    could += sum(g.available * g.item.group.points[0].watts for g in made.groups if not g.is_miner)
    given = interval.budget_watts[made.request.facility.root.id] - mining
    if given < could - _TOLERANCE_WATTS - 1e-3 * could:
        return [f"inference gets {format_watts(given)} of {format_watts(could)} while mining runs"]
    return []


def _least_needs(made: Frame) -> dict[str | None, float]:
    """Return what each service must get at least: its need less what its flex allows."""
    services = made.request.facility.service_by_id
    found = {}
    for name, need in made.needs_watts.items():
        curves = [
            (g.available, g.item.group.points) for g in made.groups if g.item.group.service == name and not g.is_miner
        ]
        flex = services[name].flex if name in services else 0.0
        found[name] = bent_watts(curves, need, flex)
    return found
