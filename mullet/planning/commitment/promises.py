"""What was promised: power that stays droppable, power that moves slowly, loads that run, loads not held back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mullet.planning.commitment.assembly import Assembly, Places, nowhere
from mullet.planning.commitment.clusters import inside
from mullet.planning.commitment.flows import Flow, Flows
from mullet.planning.commitment.problem import Floats, Problem, Ramp


@dataclass(frozen=True, slots=True, eq=False)
class Promises:
    """Where the rows of promises stand, and the variables by which they are missed."""

    rows: dict[str, Places]
    slacks: dict[str, Places]


def add_promises(assembly: Assembly, problem: Problem, flows: Flows, at_least: tuple[Places, ...]) -> Promises:
    """Add awards, ramps and the accounts' budgets, each with a slack where missing it has a price."""
    awards, award_slack = _add_awards(assembly, problem, flows)
    ramp_up, ramp_down, ramp_slack = _add_ramps(assembly, problem, flows)
    accounts = _add_accounts(assembly, problem, at_least)
    return Promises(
        {"award": awards, "ramp_up": ramp_up, "ramp_down": ramp_down, **accounts.rows},
        {"award": award_slack, "ramp": ramp_slack, **accounts.slacks},
    )


def _add_awards(assembly: Assembly, problem: Problem, flows: Flows) -> tuple[Places, Places]:
    steps = problem.grid.count
    rows, slacks = nowhere(len(problem.awards), steps), nowhere(len(problem.awards), steps)
    for number, award in enumerate(problem.awards):
        rows[number] = assembly.rows((steps,), award.mw)
        _put(assembly, rows[number], flows.mining(award.circuit), 1.0)
        slacks[number] = _slack(assembly, rows[number], 1.0, award.slack_per_mwh, problem.grid.hours)
    return rows, slacks


def _add_ramps(assembly: Assembly, problem: Problem, flows: Flows) -> tuple[Places, Places, Places]:
    steps, hours = problem.grid.count, problem.grid.hours
    up, down, slacks = (nowhere(len(problem.ramps), steps) for _ in range(3))
    for number, ramp in enumerate(problem.ramps):
        high, low = _ramp_sides(ramp)
        up[number] = assembly.rows((steps,), -np.inf, high)
        down[number] = assembly.rows((steps,), low)
        mining = flows.mining(ramp.circuit)
        for rows in (up[number], down[number]):
            _put(assembly, rows, mining, 1.0)
            if mining is not None:
                _put(assembly, rows[1:], Flow(mining.places[:-1], mining.share), -1.0)
        # A step misses one way only, so one slack gives way in both.
        slacks[number] = _slack(assembly, up[number], -1.0, ramp.slack_per_mwh, hours)
        if ramp.slack_per_mwh is not None:
            assembly.put(down[number], slacks[number], 1.0)
    return up, down, slacks


def _ramp_sides(ramp: Ramp) -> tuple[Floats, Floats]:
    high, low = np.array(ramp.up_mw, dtype=np.float64), -np.array(ramp.down_mw, dtype=np.float64)
    high[:1] += ramp.now_most_mw
    low[:1] += ramp.now_least_mw
    return high, low


def _add_accounts(assembly: Assembly, problem: Problem, at_least: tuple[Places, ...]) -> Promises:
    steps, hours, accounts = problem.grid.count, problem.grid.hours, problem.accounts
    powers, runs = nowhere(len(accounts), steps), nowhere(len(accounts), steps)
    curtailment = nowhere(len(accounts), max((len(account.curtailment) for account in accounts), default=0))
    uptime = nowhere(len(accounts), max((len(account.uptime) for account in accounts), default=0))
    held_slack, run_slack = nowhere(*curtailment.shape), nowhere(*uptime.shape)
    for number, account in enumerate(accounts):
        owned = [place for place, group in enumerate(problem.mining) if group.account == number]
        if account.curtailment:
            mean = [problem.mining[place].mean_mw for place in owned]
            highest = sum(problem.mining[place].count * float(np.sum(problem.mining[place].mean_mw)) for place in owned)
            power, powers[number] = _sum(assembly, steps, [at_least[place] for place in owned], mean)
            for place, budget in enumerate(account.curtailment):
                counted = hours * inside(steps, budget.first, budget.last)
                row = assembly.rows((1,), -np.inf, budget.amount - float(np.sum(counted)) * highest)
                assembly.put(row, power, -counted)
                curtailment[number, place] = row[0]
                held_slack[number, place] = _slack(assembly, row, -1.0, budget.slack_price, np.ones(1))[0]
        if account.uptime:
            running = [at_least[place][:1] for place in owned]
            run, runs[number] = _sum(assembly, steps, running, [np.ones(len(first)) for first in running])
            for place, budget in enumerate(account.uptime):
                row = assembly.rows((1,), budget.amount)
                assembly.put(row, run, hours * inside(steps, budget.first, budget.last))
                uptime[number, place] = row[0]
                run_slack[number, place] = _slack(assembly, row, 1.0, budget.slack_price, np.ones(1))[0]
    rows = {"account_mw": powers, "account_running": runs, "curtailment": curtailment, "uptime": uptime}
    return Promises(rows, {"curtailment": held_slack, "uptime": run_slack})


def _sum(
    assembly: Assembly, steps: int, variables: Iterable[Places], weights: Iterable[Floats]
) -> tuple[Places, Places]:
    """Add a variable per step that is the weighted sum of others: budgets then need few coefficients each.

    A budget writes all steps, 0 outside its own: a day's end moves along the grid, the pattern does not.
    """
    total = assembly.variables((steps,))
    rows = assembly.rows((steps,), 0.0, 0.0)
    assembly.put(rows, total, 1.0)
    for places, weight in zip(variables, weights, strict=True):
        assembly.put(rows, places, -weight[:, np.newaxis])
    return total, rows


def _put(assembly: Assembly, rows: Places, flow: Flow | None, times: float) -> None:
    if flow is not None:
        assembly.put(rows, flow.places, times * flow.share)


def _slack(assembly: Assembly, rows: Places, sign: float, price: float | None, amount: Floats) -> Places:
    if price is None:
        return nowhere(len(rows))
    slack = assembly.variables((len(rows),), gain=-price * amount)
    assembly.put(rows, slack, sign)
    return slack
