"""The plan over the horizon: clustered dispatch as a linear program, then whole loads.

Per mining group and interval, z_k is the number of loads at hull position k or above (incremental formulation,
Palmintier & Webster 2012 for the clustering) and v the number of starts. Energy, lost start-up hashing and the
deadband are paid; circuits bind with the most that loads may draw. Inference comes first in the strict sense: it
is granted before the program is built, so no price of hashing can outweigh it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mullet.domain.plan import Plan, PlanInterval, PlanRequest, Rung
from mullet.planning.capacity import Capacity
from mullet.planning.frame import (
    Frame,
    GroupFrame,
    Slot,
    base_capacity,
    earned,
    frame,
    grant_inference,
    interval_of,
    plan_of,
    reserve_watts,
    start_cost,
)
from mullet.planning.linear import LinearProgram, Solution, solve_with_clp
from mullet.ports import PlanningError

# Currency per MWh: what is paid for a ramp or a reserve that cannot be kept; a circuit's limit is never for sale.
_RAMP_PER_MWH = 2e4
_RESERVE_PER_MWH = 3e3
_FEASIBLE = 1e-6
_WHOLE = 1e-6

Solve = Callable[[LinearProgram, float], Solution]


@dataclass(slots=True)
class _Model:
    program: LinearProgram = field(default_factory=LinearProgram)
    steps: dict[tuple[int, int, int], int] = field(default_factory=dict)
    """(slot, group, hull position) -> variable."""
    circuits: dict[tuple[int, str], int] = field(default_factory=dict)
    """(slot, circuit) -> row."""
    granted: list[dict[int, float]] = field(default_factory=list)
    """Per slot: watts that each GPU group gets above its lowest point."""
    free: list[Capacity] = field(default_factory=list)
    """Per slot: what is left for mining above its lowest points."""


def plan_horizon(request: PlanRequest, limit_s: float, solve: Solve = solve_with_clp) -> Plan:
    """Return the best plan, rounded to whole loads.

    `objective` is what the rounded plan earns, `bound` what its relaxation earns.

    Raises:
        PlanningError: the solver has no optimum within `limit_s`, or its point is not feasible.
    """
    made = frame(request)
    model = _build(made)
    solution = solve(model.program, limit_s)
    if not solution.optimal:
        raise PlanningError(f"the solver ended {solution.status}")
    violation = model.program.violation(solution.values)
    if violation > _FEASIBLE:
        raise PlanningError(f"the solver's point breaks its own rows by {violation:.2e}")
    intervals: list[PlanInterval] = []
    whole: list[dict[int, list[int]]] = []
    relaxed: list[dict[int, list[float]]] = []
    for number, slot in enumerate(made.slots):
        wanted = _relaxed(made, model, solution, number)
        counts = _round(made, wanted, model.free[number])
        relaxed.append(wanted)
        whole.append(counts)
        shadow = _shadow_prices(model, solution, number, slot)
        intervals.append(interval_of(made, slot, counts, model.granted[number], shadow))
    objective = earned(made, whole)
    bound = max(objective, earned(made, relaxed))
    detail = f"{made.gaps} intervals without a price" if made.gaps else ""
    return plan_of(made, Rung.OPTIMAL, intervals, objective, bound, detail)


def _miners(made: Frame) -> list[GroupFrame]:
    return [group for group in made.groups if group.is_miner and group.available and len(group.item.hull) > 1]


def _build(made: Frame) -> _Model:
    model = _Model()
    for number, slot in enumerate(made.slots):
        capacity = base_capacity(made, slot)
        granted = grant_inference(made, capacity)
        for node, watts in reserve_watts(made, granted).items():
            capacity.keep(node, watts)
        model.granted.append(granted)
        model.free.append(capacity)
        mining = _add_groups(made, model, number, slot)
        _add_reserves(made, model, number, slot, mining)
        _add_ramp(made, model, number, slot)
    return model


def _add_groups(made: Frame, model: _Model, number: int, slot: Slot) -> dict[str, list[tuple[int, float]]]:
    """Add the slot's variables and circuit rows; return the mining power beneath each circuit, without auxiliaries."""
    program = model.program
    loaded: dict[str, list[tuple[int, float]]] = {node: [] for node in slot.free_watts}
    mining: dict[str, list[tuple[int, float]]] = {node: [] for node in slot.free_watts}
    for group in _miners(made):
        item, hull, points = group.item, group.item.hull, group.item.group.points
        previous: int | None = None
        for k in range(1, len(hull)):
            low, high = points[hull[k - 1]], points[hull[k]]
            worth = slot.market.earned_per_th_hour * (high.th_per_s - low.th_per_s)
            cost = slot.market.cost_per_mwh * (high.watts - low.watts) * item.factors[-1] / 1e6
            variable = program.variable(float(group.available), (worth - cost) * slot.hours)
            model.steps[number, item.number, k] = variable
            watts = item.most_watts[hull[k]] - item.most_watts[hull[k - 1]]
            for node, factor in zip(item.path, item.factors, strict=True):
                loaded[node].append((variable, watts * factor / 1e3))
                mining[node].append((variable, watts))
            if previous is not None:
                program.row([(previous, 1.0), (variable, -1.0)], 0.0, math.inf)
            previous = variable
        started = program.variable(float(group.available), -start_cost(group, slot.market))
        terms = [(started, 1.0), (model.steps[number, item.number, 1], -1.0)]
        if number:
            program.row([*terms, (model.steps[number - 1, item.number, 1], 1.0)], 0.0, math.inf)
        else:
            program.row(terms, -float(group.running), math.inf)
    for node, terms in loaded.items():
        if terms:
            # In kW, so that rows of circuits and rows of counts are of one size.
            free = max(0.0, model.free[number].left[node]) / 1e3
            model.circuits[number, node] = program.row(terms, -math.inf, free)
    return mining


def _add_reserves(
    made: Frame, model: _Model, number: int, slot: Slot, mining: Mapping[str, list[tuple[int, float]]]
) -> None:
    for node, watts in made.request.obligations.reserve_watts.items():
        if watts <= 0.0 or node not in mining:
            continue
        short = model.program.variable(watts / 1e3, -_RESERVE_PER_MWH * slot.hours / 1e3)
        terms = [(variable, power / 1e3) for variable, power in mining[node]]
        model.program.row([*terms, (short, 1.0)], watts / 1e3, math.inf)


def _add_ramp(made: Frame, model: _Model, number: int, slot: Slot) -> None:
    """Bound how far mining as a whole moves between intervals; below what is running now nothing is known of modes."""
    facility = made.request.facility
    step = facility.pacing.economic_ramp_per_s * facility.root.usable_watts * slot.nominal_s / 1e3
    here: list[tuple[int, float]] = []
    before: list[tuple[int, float]] = []
    least = most = 0.0
    for group in _miners(made):
        item, hull = group.item, group.item.hull
        for k in range(1, len(hull)):
            watts = (item.most_watts[hull[k]] - item.most_watts[hull[k - 1]]) / 1e3
            here.append((model.steps[number, item.number, k], watts))
            if number:
                before.append((model.steps[number - 1, item.number, k], -watts))
            else:
                most += group.running * watts
                least += group.running * watts if k == 1 else 0.0
    everything = sum(watts * model.program.high[variable] for variable, watts in here)
    if not here or step >= everything:
        return
    price = _RAMP_PER_MWH * slot.hours / 1e3
    up, down = model.program.variable(everything, -price), model.program.variable(everything, -price)
    model.program.row([*here, *before, (up, -1.0)], -math.inf, step + most)
    model.program.row([*here, *before, (down, 1.0)], least - step, math.inf)


def _relaxed(made: Frame, model: _Model, solution: Solution, number: int) -> dict[int, list[float]]:
    wanted: dict[int, list[float]] = {}
    for group in made.groups:
        if not group.is_miner:
            continue
        levels = [float(group.available)]
        for k in range(1, len(group.item.hull)):
            variable = model.steps.get((number, group.item.number, k))
            value = solution.values[variable] if variable is not None else 0.0
            levels.append(min(max(0.0, value), levels[-1]))
        wanted[group.item.number] = levels
    return wanted


def _round(made: Frame, wanted: Mapping[int, Sequence[float]], free: Capacity) -> dict[int, list[int]]:
    """Return whole loads: first what is whole already, then the largest remainders that still fit."""
    capacity = Capacity(free.left)
    counts: dict[int, list[int]] = {}
    remainders: list[tuple[float, str, int, int]] = []
    items = {group.item.number: group.item for group in made.groups if group.is_miner}
    for pass_level in range(1, max((len(item.hull) for item in items.values()), default=1)):
        for number, item in items.items():
            levels = counts.setdefault(number, [int(wanted[number][0])] + [0] * (len(item.hull) - 1))
            if pass_level >= len(item.hull):
                continue
            whole = min(math.floor(wanted[number][pass_level] + _WHOLE), levels[pass_level - 1])
            watts = item.most_watts[item.hull[pass_level]] - item.most_watts[item.hull[pass_level - 1]]
            levels[pass_level], _ = capacity.give(item, watts, whole)
            rest = wanted[number][pass_level] - levels[pass_level]
            if rest > _WHOLE:
                remainders.append((-rest, item.first_id, number, pass_level))
    for _, _, number, k in sorted(remainders):
        item, levels = items[number], counts[number]
        if levels[k] < levels[k - 1]:
            watts = item.most_watts[item.hull[k]] - item.most_watts[item.hull[k - 1]]
            given, _ = capacity.give(item, watts, 1)
            levels[k] += given
    for number, item in items.items():
        counts.setdefault(number, [int(wanted[number][0])] + [0] * (len(item.hull) - 1))
    return counts


def _shadow_prices(model: _Model, solution: Solution, number: int, slot: Slot) -> dict[str, float]:
    """Return, for the circuits that bind, what a MWh more would earn."""
    found = {}
    for node in slot.free_watts:
        row = model.circuits.get((number, node))
        if row is not None and abs(solution.duals[row]) > 1e-9:
            found[node] = abs(solution.duals[row]) * 1e3 / slot.hours
    return found


def warm_up() -> None:
    """Load the solver and solve one small program, so that the first plan does not wait for it."""
    program = LinearProgram()
    program.row([(program.variable(1.0, 1.0), 1.0)], -math.inf, 0.5)
    solution = solve_with_clp(program, 1.0)
    if not solution.optimal:
        raise PlanningError(f"the solver cannot solve max x, x <= 0.5: {solution.status}")
