"""Small commitment problems drawn at random."""

from __future__ import annotations

import numpy as np
from golden_kit import circuit, miners, pool, problem, service, steps
from hypothesis import strategies as st

from mullet.planning.commitment.problem import (
    Account,
    Award,
    Budget,
    Cooling,
    DemandCharge,
    Floats,
    Grid,
    Mining,
    Problem,
    Ramp,
)

FEEDERS = 2
"""Circuits besides the grid connection."""

amounts = st.integers(0, 40).map(lambda quarters: quarters / 4.0)
prices = st.integers(-5, 40).map(lambda fives: fives * 5.0)


def arrays(values: st.SearchStrategy[float], count: int) -> st.SearchStrategy[Floats]:
    return st.lists(values, min_size=count, max_size=count).map(lambda drawn: np.array(drawn, dtype=np.float64))


@st.composite
def groups(draw: st.DrawFn, grid: Grid, number: int) -> Mining:
    count = draw(st.integers(1, 6))
    levels = draw(st.integers(1, 2))
    most = np.array(draw(st.lists(st.sampled_from([0.25, 0.5, 1.0]), min_size=levels, max_size=levels)))
    running = sorted(draw(st.lists(st.integers(0, count), min_size=levels, max_size=levels)), reverse=True)
    return miners(
        count,
        grid=grid,
        key=f"g{number}",
        circuit=draw(st.integers(0, FEEDERS)),
        most_mw=most,
        mean_mw=most * draw(st.sampled_from([0.8, 1.0])),
        th_per_s=draw(st.lists(st.sampled_from([0.2, 0.5, 0.9, 1.2]), min_size=levels, max_size=levels)),
        running=running,
        start_cost=draw(st.sampled_from([0.0, 5.0, 20.0])),
        min_on_s=draw(st.sampled_from([0.0, 3600.0, 5400.0])),
        min_off_s=draw(st.sampled_from([0.0, 3600.0, 5400.0])),
        account=0,
    )


@st.composite
def problems(draw: st.DrawFn, ramps: bool = True) -> Problem:
    """Draw a small problem that always has a solution: promises have prices, services need not be served."""
    grid = steps(*draw(st.lists(st.sampled_from([0.25, 0.5, 1.0]), min_size=2, max_size=4)))
    count = grid.count
    curve = (Cooling(draw(arrays(st.sampled_from([0.0, 0.1, 0.3]), count)), np.zeros(count)),)
    tree = [
        circuit(grid=grid, limit=draw(arrays(amounts, count)), follow=draw(st.sampled_from([0.0, 0.05]))),
        circuit(
            "a", grid=grid, parent=0, limit=draw(arrays(amounts, count)), cooling=draw(st.sampled_from([(), curve]))
        ),
        circuit("b", grid=grid, parent=0, limit=draw(arrays(amounts, count)), slack_per_mwh=200.0),
    ]
    served = service(
        pool(4, circuit=draw(st.integers(0, FEEDERS)), segments=[(0.2, 30), (0.2, 10)]),
        grid=grid,
        demand=draw(arrays(amounts, count)),
        value=draw(st.sampled_from([1.0, 8.0])),
        tiers=((0.3, 1.0), (0.7, 20.0)),
    )
    budget = Budget(0, count, draw(amounts), slack_price=draw(st.sampled_from([10.0, 60.0])))
    rate = np.full(count, draw(amounts))
    return problem(
        grid,
        [draw(groups(grid, number)) for number in range(draw(st.integers(1, 3)))],
        price=draw(arrays(prices, count)),
        circuits=tree,
        inference=draw(st.sampled_from([(), (served,)])),
        site={
            "fixed_mw": draw(st.sampled_from([0.0, 0.5])),
            "demand_charges": draw(st.sampled_from([(), (DemandCharge(0, count, 30.0, 1.0),)])),
        },
        accounts=(Account("owner", draw(st.sampled_from([(), (budget,)])), draw(st.sampled_from([(), (budget,)]))),),
        awards=draw(st.sampled_from([(), (Award(0, draw(arrays(amounts, count)), slack_per_mwh=70.0),)])),
        ramps=(Ramp(0, rate, rate, 1.0, 1.0, slack_per_mwh=25.0),) if ramps and draw(st.booleans()) else (),
    )
