"""Whether a plan may be followed at all, judged from the plan and the request alone, whoever made it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mullet.domain.plan import Plan, PlanInterval, PlanRequest, Rung
from mullet.domain.units import format_watts
from mullet.planning.bending import bent_watts
from mullet.planning.frame import Frame, Slot, base_capacity, frame, free_watts, grant_inference
from mullet.planning.index import GroupIndex, index_of
from mullet.planning.sums import add_up, well_formed

_TOLERANCE_WATTS = 1.0
_TOLERANCE = 1e-6
_MOST_WORDS = 20


def guard(plan: Plan, request: PlanRequest) -> tuple[str, ...]:
    """Return what is wrong with `plan`, in words; nothing if it may be followed at `request.at`."""
    found = [*_check_frame(plan, request)]
    if found:
        return tuple(found)
    index = {item.group.key: item for item in index_of(request.facility).groups}
    sizes = [len(item.most_watts) for item in index.values()]
    made = frame(request)
    available = {group.item.group.key: group.available for group in made.groups}
    words: dict[int, list[str]] = {}
    for number, interval in enumerate(plan.intervals):
        problems = _check_budgets(interval, request)
        if not well_formed(interval, index, sizes):
            problems += _check_counts(interval, index)
        if problems:
            words[number] = problems
    sound = [number for number in range(len(plan.intervals)) if number not in words]
    words |= _check_sums(plan, sound, made, index, available)
    found = [
        f"interval at +{interval.start - request.at:.0f} s: {problem}"
        for number, interval in enumerate(plan.intervals)
        for problem in words.get(number, ())
    ]
    return tuple(found[:_MOST_WORDS])


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


def _check_budgets(interval: PlanInterval, request: PlanRequest) -> list[str]:
    found = []
    if not math.isfinite(interval.price_per_mwh):
        found.append("price is not a number")
    circuits = request.facility.circuit_by_id
    for node, watts in interval.budget_watts.items():
        if not (math.isfinite(watts) and watts >= -_TOLERANCE_WATTS):
            found.append(f"budget of {node} is {watts}" if node in circuits else f"budget for unknown circuit {node}")
    if interval.budget_watts.keys() != circuits.keys():
        found += [f"budget for unknown circuit {node}" for node in interval.budget_watts if node not in circuits]
        found += [f"no budget for {node}" for node in circuits if node not in interval.budget_watts]
    return found


def _check_counts(interval: PlanInterval, index: Mapping[str, GroupIndex]) -> list[str]:
    found = [f"unknown group {key}" for key in interval.counts if key not in index]
    for key, item in index.items():
        counts = interval.counts.get(key)
        if counts is None or len(counts) != len(item.group.points):
            found.append(f"{key} has no count for each of its points")
        elif any(type(count) is not int or count < 0 for count in counts):
            found.append(f"{key} has a count that is no number of loads: {counts}")
    return found


def _check_sums(
    plan: Plan, sound: Sequence[int], made: Frame, index: Mapping[str, GroupIndex], available: Mapping[str, int]
) -> dict[int, list[str]]:
    """Return by interval what is wrong with what its counts add up to; `sound` are those with whole counts."""
    request = made.request
    circuits = list(request.facility.circuit_by_id)
    intervals = [plan.intervals[number] for number in sound]
    if not intervals:
        return {}
    sums = add_up(intervals, index, circuits)
    at_hand = np.array([available[key] for key in index])[:, None]
    known = np.array([len(item.group.load_ids) for item in index.values()])[:, None]
    # A plan of before may know loads that have gone since, or not yet know some that came back.
    misplaced = sums.loads > known if plan.rung is Rung.SHIFTED else sums.loads != at_hand
    frees = [free_watts(request, interval.start, interval.end) for interval in intervals]
    free = np.array([[each[node] for node in circuits] for each in frees]).T
    budget = np.array([[interval.budget_watts[node] for node in circuits] for interval in intervals]).T
    # The budget also holds the GPU power between two points; auxiliaries follow at least what the counts say.
    most = np.maximum(sums.placed_watts, sums.placed_watts - sums.loads_watts + budget)
    over = most > np.maximum(free, sums.lowest_watts) + _TOLERANCE_WATTS
    under = budget < sums.loads_watts - _TOLERANCE_WATTS
    keys = list(index)
    by_start = {slot.start: slot for slot in made.slots}
    least = replace(made, needs_watts=_least_needs(made))
    found: dict[int, list[str]] = {}
    for column, (number, interval) in enumerate(zip(sound, intervals, strict=True)):
        misfits = [
            f"{keys[row]} places {sums.loads[row, column]:.0f} loads, {available[keys[row]]} are at hand"
            for row in np.flatnonzero(misplaced[:, column])
        ]
        words = [*misfits]
        for row in np.flatnonzero(over[:, column]):
            given, there = format_watts(float(most[row, column])), format_watts(float(free[row, column]))
            words.append(f"{circuits[row]} is given {given} where {there} are free")
        words += [
            f"budget of {circuits[row]} is below what its counts draw" for row in np.flatnonzero(under[:, column])
        ]
        if sums.mining_on[column] > 0.0 and not misfits:
            slot = by_start.get(interval.start) or made.slots[0]
            bare = Slot(interval.start, interval.end, slot.nominal_s, slot.market, frees[column])
            words += _check_needs(interval, least, bare, float(sums.mining_watts[column]))
        if words:
            found[number] = words
    return found


def _check_needs(interval: PlanInterval, least: Frame, slot: Slot, mining_watts: float) -> list[str]:
    """Return what is wrong with inference's share; `least` has what each service must get at least."""
    could = sum(grant_inference(least, base_capacity(least, slot)).values())
    could += sum(group.available * group.item.group.points[0].watts for group in least.gpus)
    given = interval.budget_watts[least.request.facility.root.id] - mining_watts
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
