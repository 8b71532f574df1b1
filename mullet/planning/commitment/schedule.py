"""From a relaxed solution to whole loads, and between schedules and the program's variables.

A relaxed solution of clustered commitment lies within a fraction of a load of whole numbers in almost every group and
step, so that rounding loses little once there are some hundred loads; `certificate` says how much.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mullet.planning.commitment.certificate import TOLERANCE, Schedule, evaluate, pools, violations
from mullet.planning.commitment.fitting import add_runs, drop_runs, lower_levels, raise_levels
from mullet.planning.commitment.fleet_state import FleetState
from mullet.planning.commitment.highs import solve_with_highs
from mullet.planning.commitment.improving import improve
from mullet.planning.commitment.linear import Solve
from mullet.planning.commitment.model import Model, Places
from mullet.planning.commitment.pool_rounding import cut_pools, round_pools
from mullet.planning.commitment.problem import Problem
from mullet.planning.commitment.promise_keeping import keep_promises
from mullet.planning.commitment.running import round_running

Floats = NDArray[np.float64]

_TURNS = (0.5, 0.25, 0.75, 0.05, 0.95)
_WHOLE = 1e-6
_SOME_LOADS = 300
"""Up to here one load is worth a second look: every turn of `_TURNS` is tried."""
_FEW_LOADS = 100
"""Up to here loads are also moved one at a time."""
_TRIES = 600


def round_schedule(model: Model, values: Floats) -> Schedule:
    """Return whole counts near a relaxed solution's `values` (n,).

    Counts, minimum times, bounds and start limits hold always; circuits, ramps, awards and budgets without a price hold
    wherever whole loads can keep them (`violations` says where they cannot). The same values give the same schedule.
    """
    problem = model.problem
    relaxed = relaxed_schedule(model, values)
    loads = sum(group.count for group in problem.mining)
    if loads > _SOME_LOADS:
        return _rounded(FleetState(problem, relaxed), _TURNS[0])
    found: list[tuple[bool, float, Schedule]] = []
    for turn in _TURNS:
        schedule = _rounded(FleetState(problem, relaxed), turn)
        found.append((not violations(problem, schedule), evaluate(problem, schedule).earned, schedule))
    best = max(found, key=lambda one: one[:2])[2]
    return improve(problem, best, _TRIES) if loads <= _FEW_LOADS else best


def _rounded(state: FleetState, turn: float) -> Schedule:
    round_pools(state)
    round_running(state, turn)
    _make_room(state)
    for _ in range(2):
        raise_levels(state)
        if not add_runs(state):
            break
    raise_levels(state)
    return state.schedule()


def _make_room(state: FleetState) -> None:
    state.settle_ramps()
    lower_levels(state)
    drop_runs(state)
    cut_pools(state)
    keep_promises(state)


def relaxed_schedule(model: Model, values: Floats) -> Schedule:
    """Return a solution's schedule with its fractions, each pool's segments summed.

    Starts are what the running counts ask for, which is what the program pays for wherever starts cost.
    """
    problem = model.problem
    at_least = tuple(np.maximum(_taken(values, places), 0.0) for places in model.at_least)
    starts = []
    for group, counts in zip(problem.mining, at_least, strict=True):
        running = counts[0] if len(counts) else np.zeros(problem.grid.count)
        before = float(group.running[0]) if len(counts) else 0.0
        starts.append(np.maximum(np.diff(running, prepend=before), 0.0))
    power, active = [], []
    for pool, segments, places in zip(pools(problem), model.segments, model.active, strict=True):
        power.append(np.maximum(_taken(values, segments), 0.0).sum(axis=0))
        active.append(np.where(places >= 0, values[places], float(pool.count)))
    return Schedule(at_least, tuple(starts), tuple(power), tuple(active))


def schedule_of(model: Model, values: Floats) -> Schedule:
    """Return the schedule of a point whose loads are whole but for a solver's tolerance.

    The program does not ask for whole GPUs; where they are not, they are rounded, and mining bends first if that takes
    more power than a limit leaves.
    """
    relaxed = relaxed_schedule(model, values)
    problem = model.problem
    at_least = tuple(np.rint(counts).astype(np.int64) for counts in relaxed.at_least)
    active = tuple(np.rint(count).astype(np.int64) for count in relaxed.active)
    if any(np.any(np.abs(a - b) > _WHOLE) for a, b in zip(active, relaxed.active, strict=True)):
        state = FleetState(problem, relaxed)
        for place, counts in enumerate(at_least):
            state.counts[place, : len(counts)] = counts
        round_pools(state)
        _make_room(state)
        raise_levels(state)
        return state.schedule()
    starts = []
    for group, counts in zip(problem.mining, at_least, strict=True):
        running = counts[0] if len(counts) else np.zeros(problem.grid.count, dtype=np.int64)
        before = int(group.running[0]) if len(counts) else 0
        starts.append(np.maximum(np.diff(running, prepend=before), 0))
    power = tuple(
        np.minimum(mw, np.sum(pool.segment_mw) * count)
        for pool, mw, count in zip(pools(problem), relaxed.pool_mw, active, strict=True)
    )
    return Schedule(at_least, tuple(starts), power, active)


def hint_of(model: Model, schedule: Schedule, solve: Solve = solve_with_highs, limit_s: float = 2.0) -> Floats:
    """Return the best point of the program at which the schedule's counts and pool powers stand, (n,).

    Everything else (flows, cooling, import, slacks) follows by solving the program with these fixed. Circuits are kept
    within the certificate's `TOLERANCE`, as the schedule was judged: a solver allows less.

    Raises:
        ValueError: the program has no such point: the schedule breaks something that has no price.
    """
    program = model.program
    low, high = program.low.copy(), program.high.copy()
    for places, counts in zip((*model.at_least, *model.starts), (*schedule.at_least, *schedule.starts), strict=True):
        _fix(low, high, places, counts)
    for places, segments, active, powers in zip(
        model.active, model.segments, schedule.active, segment_powers(model.problem, schedule), strict=True
    ):
        _fix(low, high, places, active)
        _fix(low, high, segments, powers)
    high[model.circuit_mw] += TOLERANCE * np.maximum(1.0, np.abs(high[model.circuit_mw]))
    solution = solve(replace(program, low=low, high=high), limit_s)
    if not solution.optimal:
        raise ValueError(f"the program has no point at which this schedule stands: {solution.status}")
    return solution.values


def segment_powers(problem: Problem, schedule: Schedule) -> list[Floats]:
    """Return each pool's power by segment, (S, T), such that no service makes more than the program lets it waste.

    Segments fill in order. Only where power is drawn because energy earns would that make too many tokens: there
    enough of it moves to the last segments.
    """
    found: list[Floats] = []
    place = 0
    for service in problem.inference:
        orders: list[tuple[Floats, Floats]] = []
        tokens = [np.zeros(problem.grid.count), np.zeros(problem.grid.count)]
        for pool in service.pools:
            active, power = np.asarray(schedule.active[place], dtype=np.float64), schedule.pool_mw[place]
            width = np.multiply.outer(pool.segment_mw, active)
            filled = _fill(width, power), _fill(width[::-1], power)[::-1]
            for number, segments in enumerate(filled):
                tokens[number] += pool.base_tokens_per_s * active + pool.tokens_per_s_per_mw @ segments
            orders.append(filled)
            place += 1
        waste = sum(pool.base_tokens_per_s * pool.count for pool in service.pools)
        beyond = np.maximum(tokens[0] - service.demand_tokens_per_s - waste, 0.0)
        lower = tokens[0] - tokens[1]
        share = np.clip(np.where(lower > 0.0, beyond / np.where(lower > 0.0, lower, 1.0), 0.0), 0.0, 1.0)
        found += [(1.0 - share) * first + share * last for first, last in orders]
    return found


def _fill(width: Floats, power: Floats) -> Floats:
    before = np.cumsum(width, axis=0) - width
    return np.clip(power - before, 0.0, width)


def _taken(values: Floats, places: Places) -> Floats:
    return np.where(places >= 0, values[places], 0.0)


def _fix(low: Floats, high: Floats, places: Places, counts: NDArray[np.int64] | Floats) -> None:
    there = places >= 0
    low[places[there]] = high[places[there]] = np.asarray(counts, dtype=np.float64)[there]
