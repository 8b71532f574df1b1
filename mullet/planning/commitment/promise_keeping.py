"""Whole loads added where rounding left less mining than was promised: awards, ramps down, budgets of accounts."""

from __future__ import annotations

import numpy as np

from mullet.planning.commitment.certificate import mining_mw, promised
from mullet.planning.commitment.fitting import add_runs
from mullet.planning.commitment.fleet_state import SAME_MW, Bools, FleetState, Floats, Ints

_KEPT = 1e-9
_DOUBLINGS = 24
_MOST_RUNS = 40


def keep_promises(state: FleetState) -> None:
    """Raise levels, then run more loads, where an award or a budget is missed by more than the relaxation missed it.

    What is added loses least per MW, and rows above keep their limits.
    """
    problem = state.problem
    relaxed = mining_mw(problem, state.relaxed)
    billed = len(problem.circuits)
    peaks = state.limit_mw[billed].copy()
    # Billed peaks may give.
    state.limit_mw[billed] = np.inf
    state.measure()
    _keep(state, relaxed)
    state.limit_mw[billed] = np.maximum(peaks, np.where(np.isfinite(peaks), state.used_mw[billed], np.inf))


def _keep(state: FleetState, relaxed: Floats) -> None:
    problem = state.problem
    for award in problem.awards:
        priced = award.slack_per_mwh is not None
        need = np.minimum(award.mw, relaxed[award.circuit]) if priced else award.mw
        _lift_power(state, award.circuit, need)
    for ramp in problem.ramps:
        need = np.zeros(problem.grid.count)
        need[0] = ramp.now_least_mw - ramp.down_mw[0]
        priced = ramp.slack_per_mwh is not None
        _lift_power(state, ramp.circuit, np.minimum(need, relaxed[ramp.circuit]) if priced else need)
    hours = problem.grid.hours
    for place, account in enumerate(problem.accounts):
        owned = np.array([group.account == place for group in problem.mining], dtype=np.bool_)
        if not np.any(owned):
            continue
        held, run = promised(problem, state.relaxed, place)
        for budget in account.curtailment:
            window = _inside(len(hours), budget.first, budget.last)
            goal = budget.amount if budget.slack_price is None else max(budget.amount, float(held[window].sum()))
            while _lift_energy(state, owned, window, _held(state, place, window) - goal):
                pass
            for _ in range(_MOST_RUNS):
                if _held(state, place, window) - goal <= _KEPT or not _run_more(state, owned, window, hours):
                    break
        for budget in account.uptime:
            window = _inside(len(hours), budget.first, budget.last)
            goal = budget.amount if budget.slack_price is None else min(budget.amount, float(run[window].sum()))
            for _ in range(_MOST_RUNS):
                short = goal - float(promised(problem, state.schedule(), place)[1][window].sum())
                if short <= _KEPT or not _run_more(state, owned, window, hours):
                    break


def _held(state: FleetState, account: int, window: Bools) -> float:
    return float(promised(state.problem, state.schedule(), account)[0][window].sum())


def _lift_power(state: FleetState, circuit: int, need_mw: Floats) -> None:
    groups = np.any((state.rows_of == circuit) & ~state.by_mean, axis=1)
    for _ in range(_MOST_RUNS):
        missed = need_mw - mining_mw(state.problem, state.schedule())[circuit]
        steps = np.flatnonzero(missed > _KEPT)
        if not len(steps):
            return
        raised = [_raise(state, groups, np.array([step]), np.ones(1), float(missed[step])) for step in steps]
        state.measure()
        missed = need_mw - mining_mw(state.problem, state.schedule())[circuit]
        short = missed > _KEPT
        if np.any(short) and not _run_more(state, groups, short, state.problem.grid.hours) and not any(raised):
            return


def _lift_energy(state: FleetState, groups: Bools, window: Bools, missed_mwh: float) -> bool:
    if missed_mwh <= _KEPT:
        return False
    steps = np.flatnonzero(window)
    raised = _raise(state, groups, steps, state.problem.grid.hours[steps], missed_mwh)
    state.measure()
    return raised


def _raise(state: FleetState, groups: Bools, steps: Ints, hours: Floats, missed: float) -> bool:
    """Raise running loads by a level where that loses least per MWh, until nothing is missed or nothing is left."""
    there = (state.counts[:, :-1] - state.counts[:, 1:])[:, :, steps] * groups[:, None, None]
    there = there * (np.arange(1, state.counts.shape[1])[None, :, None] < state.levels[:, None, None])
    energy = state.mean_mw[:, 1:, None] * hours
    group, level, step = np.nonzero((there > 0) & (energy > 0.0))
    worth = state.worth[:, 1:, steps][group, level, step] / energy[group, level, step]
    done = False
    for item in np.argsort(-worth, kind="stable"):
        if missed <= _KEPT:
            break
        g, m, t = int(group[item]), int(level[item]) + 1, int(steps[step[item]])
        rows = state.rows_of[g]
        rows = rows[rows < len(state.used_mw)]
        size = state.draw_mw(np.array([g]), state.most_mw[[g], m], state.mean_mw[[g], m])[0, :, t]
        size = size[state.rows_of[g] < len(state.used_mw)]
        room = state.limit_mw[rows, t] - state.used_mw[rows, t] + SAME_MW
        fits = np.min(np.where(size > 0.0, room / np.where(size > 0.0, size, 1.0), np.inf), initial=np.inf)
        each = float(energy[g, m - 1, step[item]])
        loads = int(min(there[g, m - 1, step[item]], np.ceil(missed / each - 1e-9), np.floor(max(fits, 0.0))))
        if loads > 0:
            state.counts[g, m, t] += loads
            state.used_mw[rows, t] += size * loads
            missed -= loads * each
            done = True
    return done


def _run_more(state: FleetState, groups: Bools, window: Bools, hours: Floats) -> bool:
    """Run one load of the groups more for some of the window: the price of doing so is found by doubling."""
    price = 1e-3 * (1.0 + float(np.max(np.abs(state.worth), initial=0.0)))
    for _ in range(_DOUBLINGS):
        if add_runs(state, np.outer(groups, window * hours) * price, most=1):
            return True
        price *= 2.0
    return False


def _inside(steps: int, first: int, last: int) -> Bools:
    at = np.arange(steps)
    return np.asarray((at >= first) & (at < last))
