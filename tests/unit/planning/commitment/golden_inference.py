"""Inference services: concave throughput, GPUs put aside, tiers, what must be served, and who gets the power.

A row of demand is worth what one more token is; more demand also lets its share of every tier go unserved.
"""

from __future__ import annotations

from golden_kit import (
    MTOKEN,
    Case,
    Dual,
    active,
    at_least,
    demand_of,
    drawn,
    limit_of,
    miners,
    pool,
    problem,
    row,
    segment,
    service,
    steps,
    unserved,
)

# One Mtoken/h in the unit of unserved demand, thousands of tokens a second.
KILO = MTOKEN / 1e3


def throughput_is_concave_in_power() -> Case:
    """Ten GPUs make 1 Mtoken/h each at their lowest, 1 more for 0.01 MW, 0.5 more for the next; $2 a Mtoken.

    The segments are worth 200 and 100 $/MWh. At $50: 25 x 2 - 0.2 x 50 = 40. At $150: 20 x 2 - 0.1 x 150 = 25.
    At $250: 20. In all 85.
    """
    grid = steps(1, 1, 1)
    served = service(pool(10, base=1.0, segments=[(0.01, 100), (0.01, 50)]), grid=grid, demand=100, value=2.0)
    return Case(
        problem(grid, price=[50, 150, 250], inference=[served]),
        85.0,
        values=(
            (segment(0, 1, 0), 0.1),
            (segment(0, 0, 1), 0.1),
            (segment(0, 1, 1), 0.0),
            (segment(0, 0, 2), 0.0),
        ),
    )


def gpus_are_put_aside() -> Case:
    """Ten GPUs, two always active; one active makes 2 Mtokens/h for 0.02 MW, and 0.5 more for 0.01; $2 a Mtoken.

    Active GPUs are worth 200 $/MWh, their segment 100. At $250: 2 x (4 - 5) = -2. At $150: 10 x (4 - 3) = 10.
    At $50: 10 x (4 - 1) + 10 x (1 - 0.5) = 35. In all 43.
    """
    grid = steps(1, 1, 1)
    gpus = pool(10, least_active=2, active_mw=0.02, base=2.0, segments=[(0.01, 50)])
    return Case(
        problem(grid, price=[250, 150, 50], inference=[service(gpus, grid=grid, demand=100, value=2.0)]),
        43.0,
        values=((active(0, 0), 2.0), (active(0, 1), 10.0), (segment(0, 0, 1), 0.0), (segment(0, 0, 2), 0.1)),
    )


def few_gpus_run_high() -> Case:
    """A GPU makes 1 Mtoken/h for 0.02 MW and 1 more for 0.01: 4 Mtokens/h of demand take two at their highest.

    4 x 2 - 0.06 x 50 = 5. By demand d and width w: 2 - 1 - d + 0.01 w = 0 and 200 - 50 - 100 d - w = 0, so d = 1.25,
    w = 25.
    """
    grid = steps(1)
    gpus = pool(5, least_active=0, active_mw=0.02, base=1.0, segments=[(0.01, 100)])
    return Case(
        problem(grid, inference=[service(gpus, grid=grid, demand=4, value=2.0)]),
        5.0,
        values=((active(0, 0), 2.0), (segment(0, 0, 0), 0.02)),
        duals=(
            Dual(25.0, row=row("segment", 0, 0, 0)),
            Dual(1.25 / KILO, row=row("demand", 0, 0), nudge=demand_of(0, 0), by_data=1.25),
        ),
    )


def efficient_pool_serves_first() -> Case:
    """Two pools of 1 MW make 20 and 10 Mtokens/h per MW; 25 demanded at $3, energy at $25.

    20 by the first, 5 by the second with 0.5 MW: 75 - 1.5 x 25 = 37.5. More demand: 3 - 2.5 = 0.5.
    """
    grid = steps(1)
    pools = (pool(10, key="new", segments=[(0.1, 20)]), pool(10, key="old", segments=[(0.1, 10)]))
    return Case(
        problem(grid, price=25.0, inference=[service(*pools, grid=grid, demand=25, value=3.0)]),
        37.5,
        values=((segment(0, 0, 0), 1.0), (segment(1, 0, 0), 0.5)),
        duals=(Dual(0.5 / KILO, row=row("demand", 0, 0), nudge=demand_of(0, 0), by_data=0.5),),
    )


def flexible_share_yields_to_mining() -> Case:
    """Ten GPUs make 10 Mtokens/h with 1 MW; 2 MW in all; mining is worth 100 $/MWh; $3 a Mtoken.

    Unserved, the flexible 40 % cost 3 + 2 a Mtoken, 50 $/MWh: they yield; the rest cost 3 + 20, 230 $/MWh: served.
    0.6 MW for 6 Mtokens/h, 1.4 MW for mining: 18 - 8 + 140 - 2 x 50 = 50. The limit: 50. Of the flexible share one
    Mtoken/h more would free 0.1 MW: 10 - 5 = 5.
    """
    grid = steps(1)
    served = service(pool(10, segments=[(0.1, 10)]), grid=grid, demand=10, value=3.0, tiers=((0.4, 2.0), (0.6, 20.0)))
    return Case(
        problem(grid, [miners(30, grid=grid, most_mw=[0.1], th_per_s=[0.1])], limit=2.0, inference=[served]),
        50.0,
        values=(
            (at_least(0, 0, 0), 14.0),
            (segment(0, 0, 0), 0.6),
            (unserved(0, 0, 0), 4.0 * KILO),
            (unserved(0, 1, 0), 0.0),
        ),
        duals=(
            Dual(50.0, variable=drawn(0, 0), nudge=limit_of(0, 0)),
            Dual(5.0 / KILO, variable=unserved(0, 0, 0)),
        ),
    )


def what_tiers_do_not_cover_is_served() -> Case:
    """A service worth nothing may leave a quarter of 8 Mtokens/h at $1 each; 1 MW, mining is worth 100 $/MWh.

    6 must be served with 0.6 MW, 0.4 MW mine: -2 x 1 + 40 - 50 = -12. One Mtoken/h more demanded leaves a quarter
    unserved and takes 0.075 MW from mining: -0.25 - 7.5 = -7.75.
    """
    grid = steps(1)
    served = service(pool(10, segments=[(0.1, 10)]), grid=grid, demand=8, value=0.0, tiers=((0.25, 1.0),))
    return Case(
        problem(grid, [miners(30, grid=grid, most_mw=[0.1], th_per_s=[0.1])], limit=1.0, inference=[served]),
        -12.0,
        values=((at_least(0, 0, 0), 4.0), (segment(0, 0, 0), 0.6)),
        duals=(
            Dual(-10.0 / KILO, row=row("demand", 0, 0), nudge=demand_of(0, 0), by_data=-7.75),
            Dual(50.0, variable=drawn(0, 0), nudge=limit_of(0, 0)),
        ),
    )


def services_compete_for_power() -> Case:
    """1 MW at $20: 5 Mtokens/h at 10 per MW worth 4 + 4 a Mtoken (80 $/MWh), 12 at 20 per MW worth 3 (60 $/MWh).

    The first takes 0.5 MW: 20. The second gets 0.5 MW and makes 10: 30. Energy 20: 30. The limit: 60 - 20 = 40.
    """
    grid = steps(1)
    first = service(pool(10, key="a", segments=[(0.1, 10)]), grid=grid, demand=5, value=4.0, tiers=((1.0, 4.0),))
    second = service(pool(10, key="b", segments=[(0.1, 20)]), grid=grid, demand=12, value=3.0)
    return Case(
        problem(grid, price=20.0, limit=1.0, inference=[first, second]),
        30.0,
        values=((segment(0, 0, 0), 0.5), (segment(1, 0, 0), 0.5)),
        duals=(Dual(40.0, variable=drawn(0, 0), nudge=limit_of(0, 0)),),
    )


def demand_beyond_capacity_fills_tiers_in_order() -> Case:
    """20 Mtokens/h demanded, 10 can be made with 1 MW; unserved 30 % cost 1 each, the rest 5; $2 a Mtoken.

    Unserved 6 at 1 and 4 at 5: 20 - 6 - 20 - 50 = -56. More demand: 0.3 at 1 and 0.7 at 5: -3.8.
    """
    grid = steps(1)
    served = service(pool(10, segments=[(0.1, 10)]), grid=grid, demand=20, value=2.0, tiers=((0.3, 1.0), (0.7, 5.0)))
    return Case(
        problem(grid, inference=[served]),
        -56.0,
        values=((unserved(0, 0, 0), 6.0 * KILO), (unserved(0, 1, 0), 4.0 * KILO)),
        duals=(Dual(-5.0 / KILO, row=row("demand", 0, 0), nudge=demand_of(0, 0), by_data=-3.8),),
    )


INFERENCE = (
    throughput_is_concave_in_power,
    gpus_are_put_aside,
    few_gpus_run_high,
    efficient_pool_serves_first,
    flexible_share_yields_to_mining,
    what_tiers_do_not_cover_is_served,
    services_compete_for_power,
    demand_beyond_capacity_fills_tiers_in_order,
)
