"""Random small facilities that have every kind of limit, and their relaxed solutions."""

from __future__ import annotations

import numpy as np

from mullet.planning.commitment.build import build
from mullet.planning.commitment.linear import Solution
from mullet.planning.commitment.model import Model
from mullet.planning.commitment.problem import (
    Account,
    Award,
    Budget,
    CircuitLimit,
    Cooling,
    DemandCharge,
    Grid,
    Inference,
    Mining,
    Pool,
    Problem,
    Ramp,
    Site,
    StartLimit,
    Tier,
)
from mullet.planning.commitment.solvers import Solvers


def random_problem(seed: int, priced: bool = True, groups: int = 4, loads: int = 12, steps: int = 8) -> Problem:
    """Return a facility of up to `groups` groups of up to `loads` loads on three circuits over up to `steps` steps.

    `priced` puts prices on awards, ramps and budgets, which whole loads cannot always keep to the last watt.
    """
    draw = np.random.default_rng(seed)
    count = int(draw.integers(2, steps + 1))
    hours = draw.choice([1 / 12, 0.25, 1.0], count)
    grid = Grid(np.concatenate([[0.0], np.cumsum(hours)[:-1]]) * 3600.0, hours)
    mining = tuple(_group(draw, grid, f"g{k}", loads) for k in range(int(draw.integers(1, groups + 1))))
    beneath = np.zeros(3)
    for group in mining:
        beneath[group.circuit] += group.count * float(group.most_mw.sum())
    services = (_service(draw, count),) if draw.random() < 0.5 else ()
    total = float(beneath.sum())
    highest = total + sum(
        pool.count * (pool.active_mw + float(pool.segment_mw.sum())) for service in services for pool in service.pools
    )
    cooling = (Cooling(draw.uniform(0.0, 0.1, count), np.zeros(count)),) if draw.random() < 0.4 else ()
    if cooling and draw.random() < 0.5:
        cooling += (Cooling(cooling[0].slope + 0.05, np.full(count, -0.02 * total)),)
    circuits = (
        CircuitLimit(
            "poi",
            -1,
            highest * draw.uniform(0.5, 1.1, count),
            cooling=cooling,
            slack_per_mwh=2e3 if draw.random() < 0.3 else None,
        ),
        CircuitLimit(
            "a", 0, (beneath[1] + highest - total) * draw.uniform(0.5, 1.2, count), float(draw.choice([0.0, 0.02]))
        ),
        CircuitLimit("b", 0, beneath[2] * draw.uniform(0.3, 1.2, count)),
    )
    price = draw.uniform(-20.0 if not cooling else 5.0, 160.0, count)
    site = Site(
        price,
        np.full(count, 3.0),
        np.where(draw.random(count) < 0.2, 50.0, 0.0),
        np.full(count, 2.1e-3),
        np.full(count, 0.05 * total),
        np.full(count, total * float(draw.choice([0.0, 0.3]))),
        price - 5.0 if draw.random() < 0.5 else None,
        (DemandCharge(0, count, 30.0, 0.2 * total),) if draw.random() < 0.4 else (),
    )
    now = sum(float(group.mean_mw @ group.running) for group in mining)
    slack = 500.0 if priced else None
    hosted_mwh = sum(group.count * float(group.mean_mw.sum()) for group in mining if group.account == 0) * hours.sum()
    hosted_hours = sum(group.count for group in mining if group.account == 0) * hours.sum()
    return Problem(
        grid,
        circuits,
        mining,
        services,
        site,
        (
            Account(
                "hosted",
                (Budget(0, count, float(draw.uniform(0.3, 0.9)) * hosted_mwh, 40.0 if priced else None),),
                (Budget(0, count, float(draw.uniform(0.1, 0.6)) * hosted_hours, 0.1 if priced else None),),
            ),
        ),
        (Award(0, total * draw.uniform(0.0, 0.3, count), slack),) if draw.random() < 0.4 else (),
        (Ramp(0, np.full(count, 0.4 * total), np.full(count, 0.4 * total), now, now, slack),)
        if draw.random() < 0.4
        else (),
    )


def relax(problem: Problem) -> tuple[Model, Solution | None]:
    """Return the problem's program and the relaxed optimum; None where the limits contradict one another."""
    from mullet.ports import PlanningError

    model = build(problem)
    try:
        return model, Solvers().solve(model.program, 20.0)[0]
    except PlanningError:
        return model, None


def _group(draw: np.random.Generator, grid: Grid, key: str, loads: int) -> Mining:
    levels, count = int(draw.integers(1, 4)), int(draw.integers(1, loads + 1))
    mean = draw.uniform(0.5e-3, 2e-3, levels)
    running = np.sort(draw.integers(0, count + 1, levels))[::-1].copy()
    least = np.minimum(int(running[0]), np.where(grid.starts_s < 600.0, int(draw.integers(0, 2)), 0))
    return Mining(
        key, int(draw.integers(1, 3)), count, mean * 1.05, mean, mean * 1e6 / draw.uniform(18.0, 40.0, levels),
        np.full(grid.count, float(draw.choice([0.0, 0.05, 0.3]))), running,
        float(draw.choice([0.0, 1800.0, 5400.0])), float(draw.choice([0.0, 900.0, 3600.0])),
        least if draw.random() < 0.4 else None, None,
        (StartLimit(0, grid.count, float(draw.integers(1, count + 1))),) if draw.random() < 0.3 else (),
        int(draw.choice([-1, 0])),
    )  # fmt: skip


def _service(draw: np.random.Generator, steps: int) -> Inference:
    count = int(draw.integers(1, 9))
    pool = Pool(
        "p", 1, count, int(draw.integers(0, count + 1)), 0.3e-3, 900.0, np.array([2e-4, 2e-4]), np.array([4e6, 2e6])
    )
    most = count * (900.0 + 1200.0)
    tiers = (Tier(0.2, 0.3), Tier(0.8, 2.0))
    return Inference("chat", (pool,), draw.uniform(0.1, 0.9, steps) * most, 0.4, tiers)
