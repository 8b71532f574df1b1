"""From a schedule in numbers back to a plan: counts per group, budgets, prices of what binds, and the certificate."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mullet.domain.plan import Plan, PlanInterval, Rung
from mullet.planning.commitment.certificate import Schedule
from mullet.planning.commitment.linear import Solution
from mullet.planning.commitment.model import Model, Places
from mullet.planning.commitment.problem import Floats
from mullet.planning.frame import Frame, interval_with, plan_of
from mullet.planning.pose import Posed
from mullet.planning.pose_service import MW

_FREE_PER_MWH = 1e-6


def planned(
    made: Frame,
    posed: Posed,
    model: Model,
    schedule: Schedule,
    solution: Solution,
    rung: Rung,
    objective: float,
    bound: float,
    detail: str,
) -> Plan:
    """Return the plan that `schedule` says, priced by the duals of its relaxation, `solution`."""
    circuits = _circuit_prices(model, solution)
    programs = _program_prices(posed, model, solution)
    coincident = posed.problem.site.coincident_per_mwh
    intervals: list[PlanInterval] = []
    for t, slot in enumerate(made.slots):
        counts = _counts(made, posed, schedule, t)
        granted = {g.item.number: float(schedule.pool_mw[n][t]) * MW for n, g in enumerate(posed.pools)}
        interval = interval_with(made, slot, counts, granted)
        intervals.append(
            replace(
                interval,
                shadow_price_per_mwh=_binding({node: row[t] for node, row in circuits.items()}),
                program_price_per_mwh=_binding({key: row[t] for key, row in programs.items()}),
                armed_watts=posed.armed_watts[t],
                adder_per_mwh=slot.market.adder_per_mwh + float(coincident[t]),
            )
        )
    return plan_of(made, rung, intervals, objective, bound, detail)


def _counts(made: Frame, posed: Posed, schedule: Schedule, t: int) -> dict[int, list[int]]:
    counts = {
        group.item.number: [group.available] + [0] * (len(group.item.group.points) - 1)
        for group in made.groups
        if group.is_miner
    }
    for n, group in enumerate(posed.mining):
        levels = [group.available, *(int(count) for count in schedule.at_least[n][:, t]), 0]
        counts[group.item.number] = [upper - lower for upper, lower in itertools.pairwise(levels)]
    return counts


def _binding(prices: Mapping[str, float]) -> dict[str, float]:
    return {name: float(price) for name, price in prices.items() if price > _FREE_PER_MWH}


def _circuit_prices(model: Model, solution: Solution) -> dict[str, Floats]:
    hours = model.problem.grid.hours
    hard = np.maximum(0.0, solution.reduced[model.circuit_mw])
    rows = model.rows["slack"]
    for_sale = np.where(rows >= 0, np.abs(solution.duals[np.maximum(rows, 0)]), 0.0)
    prices = np.where(rows >= 0, for_sale, hard) / hours
    return {circuit.id: prices[number] for number, circuit in enumerate(model.problem.circuits)}


def _program_prices(posed: Posed, model: Model, solution: Solution) -> dict[str, Floats]:
    """Return per rule and step what easing it by a MWh is worth; a dual's sign says which side binds."""
    problem = model.problem
    hours = problem.grid.hours
    found: dict[str, Floats] = {}

    def priced(places: Places) -> Floats:
        here = places >= 0
        return (
            np.where(here, np.abs(solution.duals[np.where(here, places, 0)]), 0.0)
            if here.any()
            else np.zeros(places.shape)
        )

    for number, ramp in enumerate(problem.ramps):
        both = priced(model.rows["ramp_up"][number]) + priced(model.rows["ramp_down"][number])
        found[f"ramp:{problem.circuits[ramp.circuit].id}"] = both / hours
    for number, award in enumerate(problem.awards):
        found[f"award:{problem.circuits[award.circuit].id}"] = priced(model.rows["award"][number]) / hours
    for number in range(len(problem.site.demand_charges)):
        found[f"peak:{number}"] = priced(model.rows["peak"][number]) / hours
    for number, account in enumerate(problem.accounts):
        for family, budgets in (("curtailment", account.curtailment), ("uptime", account.uptime)):
            price = np.zeros(problem.grid.count)
            for position, budget in enumerate(budgets):
                price[budget.first : budget.last] += priced(model.rows[family][number, position : position + 1])
            if budgets:
                found[f"{family}:{account.id}"] = price
    return found
