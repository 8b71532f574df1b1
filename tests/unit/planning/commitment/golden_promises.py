"""What was promised: reserve awards, curtailment budgets, uptime floors, and promises that contradict each other."""

from __future__ import annotations

import numpy as np
from golden_kit import (
    Case,
    Dual,
    at_least,
    award_of,
    budget_of,
    circuit,
    drawn,
    limit_of,
    miners,
    pool,
    problem,
    row,
    segment,
    service,
    steps,
)

from mullet.planning.commitment.problem import Account, Award, Budget


def reserve_award_keeps_loads_on() -> Case:
    """2 MW must stay droppable: at $130 two loads run at a loss of 30 each, at $50 all three earn 50: 90.

    An awarded MW more costs 30 in the first hour and nothing in the second.
    """
    grid = steps(1, 1)
    return Case(
        problem(grid, [miners(3, grid=grid)], price=[130, 50], awards=(Award(0, np.full(2, 2.0)),)),
        90.0,
        values=((at_least(0, 0, 0), 2.0), (at_least(0, 0, 1), 3.0)),
        duals=(
            Dual(-30.0, row=row("award", 0, 0), nudge=award_of(0, 0)),
            Dual(0.0, row=row("award", 0, 1), nudge=award_of(0, 1)),
        ),
    )


def reserve_award_is_missed_at_its_price() -> Case:
    """As above, a missing MWh costs 20, less than the loss of 30: missed, -40 + 150 = 110; an awarded MW: -20."""
    grid = steps(1, 1)
    award = Award(0, np.full(2, 2.0), slack_per_mwh=20.0)
    return Case(
        problem(grid, [miners(3, grid=grid)], price=[130, 50], awards=(award,)),
        110.0,
        values=((at_least(0, 0, 0), 0.0),),
        duals=(Dual(-20.0, row=row("award", 0, 0), nudge=award_of(0, 0)),),
    )


def reserve_award_counts_what_is_beneath_its_circuit() -> Case:
    """The award is the feeder's: its loads, worth 100, run at $130 though the connection's, worth 120, lose less.

    Two of three run: -60; the award counts their expected draw, half of the most: they may draw 4 MW.
    """
    grid = steps(1)
    tree = [circuit(grid=grid), circuit("feeder", grid=grid, parent=0, limit=9.0)]
    groups = [
        miners(3, grid=grid, key="a", circuit=1, most_mw=[2.0], mean_mw=[1.0]),
        miners(2, grid=grid, key="b", th_per_s=[1.2]),
    ]
    return Case(
        problem(grid, groups, price=130.0, circuits=tree, awards=(Award(1, np.array([2.0])),)),
        -60.0,
        values=((at_least(0, 0, 0), 2.0), (at_least(1, 0, 0), 0.0), (drawn(1, 0), 4.0)),
        duals=(Dual(-30.0, row=row("award", 0, 0), nudge=award_of(0, 0)),),
    )


def reserve_award_counts_mining_alone() -> Case:
    """GPUs on the same circuit, 10 Mtokens/h for 1 MW at $20 each, earn 200 - 130 = 70 and are not droppable.

    Two of three loads run for the award, -60: 10.
    """
    grid = steps(1)
    served = service(pool(10, segments=[(0.1, 10)]), grid=grid, demand=10, value=20.0)
    award = Award(0, np.array([2.0]))
    return Case(
        problem(grid, [miners(3, grid=grid)], price=130.0, inference=[served], awards=(award,)),
        10.0,
        values=((at_least(0, 0, 0), 2.0), (segment(0, 0, 0), 1.0), (drawn(0, 0), 3.0)),
        duals=(Dual(-30.0, row=row("award", 0, 0), nudge=award_of(0, 0)),),
    )


def curtailment_budget_goes_to_the_dearest_hours() -> Case:
    """An owner's two loads may be held back 2 MWh over 1, 0.5 and 1 h at $130, $150, $50; a third load has no owner.

    1 MWh at $150 (both loads, half an hour), 1 MWh at $130: the other load runs there at -30; then 2 x 50: 70.
    The third load stops twice and earns 50: 120. One more MWh saves 30.
    """
    grid = steps(1, 0.5, 1)
    groups = [miners(2, grid=grid, account=0), miners(1, grid=grid, key="own")]
    accounts = (Account("owner", curtailment=(Budget(0, 3, 2.0),)),)
    return Case(
        problem(grid, groups, price=[130, 150, 50], accounts=accounts),
        120.0,
        values=((at_least(0, 0, 0), 1.0), (at_least(0, 0, 1), 0.0), (at_least(1, 0, 0), 0.0)),
        duals=(Dual(30.0, row=row("curtailment", 0, 0), nudge=budget_of(0, "curtailment")),),
    )


def curtailment_budget_is_exceeded_at_its_price() -> Case:
    """Two loads, a budget of 1 MWh, 40 for each above it, $130, $150, $50.

    Both stop at $150, where a MWh saves 50: one is paid, -40; at $130 a MWh saves 30: both run, -60; then 100: 0.
    """
    grid = steps(1, 1, 1)
    accounts = (Account("owner", curtailment=(Budget(0, 3, 1.0, slack_price=40.0),)),)
    return Case(
        problem(grid, [miners(2, grid=grid, account=0)], price=[130, 150, 50], accounts=accounts),
        0.0,
        values=((at_least(0, 0, 0), 2.0), (at_least(0, 0, 1), 0.0)),
        duals=(Dual(40.0, row=row("curtailment", 0, 0), nudge=budget_of(0, "curtailment")),),
    )


def budgets_end_with_their_windows() -> Case:
    """One owner may be held back 1 MWh, another owes an hour, both of the first hour only, two loads each, $130 twice.

    One load of each runs there, -60, none in the second hour. Neither budget has anything to say there.
    """
    grid = steps(1, 1)
    groups = [miners(2, grid=grid, key="a", account=0), miners(2, grid=grid, key="b", account=1)]
    accounts = (Account("a", curtailment=(Budget(0, 1, 1.0),)), Account("b", uptime=(Budget(0, 1, 1.0),)))
    return Case(
        problem(grid, groups, price=130.0, accounts=accounts),
        -60.0,
        values=tuple((at_least(group, 0, step), 1.0 - step) for group in range(2) for step in range(2)),
    )


def curtailment_counts_against_the_highest_point() -> Case:
    """A load of 0.6 + 0.4 MW with 1 MWh to hold back in two hours at $150.

    Steps earn 0.6 x 120 and 0.4 x 100: at $150 they lose 18 and 20 an hour, 30 and 50 per MWh. Held back: the second
    step in both hours, 0.8 MWh, and 0.2 MWh of the first, a third of a load: relaxed -2 x 18 + 0.2 x 30 = -30.
    Whole: the second step twice, -36, or all of it once (1 MWh): -38. So -36.
    """
    grid = steps(1, 1)
    group = miners(1, grid=grid, most_mw=[0.6, 0.4], th_per_s=[0.72, 0.4], account=0)
    accounts = (Account("owner", curtailment=(Budget(0, 2, 1.0),)),)
    return Case(
        problem(grid, [group], price=150.0, accounts=accounts),
        -30.0,
        -36.0,
        duals=(Dual(30.0, row=row("curtailment", 0, 0), nudge=budget_of(0, "curtailment")),),
    )


def uptime_floor_takes_the_cheapest_hours() -> Case:
    """Two loads owe 3 load-hours at $130, $150, $50: two at $50 earn 100, one at $130 loses 30: 70."""
    grid = steps(1, 1, 1)
    accounts = (Account("owner", uptime=(Budget(0, 3, 3.0),)),)
    return Case(
        problem(grid, [miners(2, grid=grid, account=0)], price=[130, 150, 50], accounts=accounts),
        70.0,
        values=((at_least(0, 0, 0), 1.0), (at_least(0, 0, 1), 0.0), (at_least(0, 0, 2), 2.0)),
        duals=(Dual(-30.0, row=row("uptime", 0, 0), nudge=budget_of(0, "uptime")),),
    )


def uptime_floor_is_missed_at_its_price() -> Case:
    """As above at 20 for a load-hour missing, less than the loss of 30: 100 - 20 = 80."""
    grid = steps(1, 1, 1)
    accounts = (Account("owner", uptime=(Budget(0, 3, 3.0, slack_price=20.0),)),)
    return Case(
        problem(grid, [miners(2, grid=grid, account=0)], price=[130, 150, 50], accounts=accounts),
        80.0,
        values=((at_least(0, 0, 0), 0.0),),
        duals=(Dual(-20.0, row=row("uptime", 0, 0), nudge=budget_of(0, "uptime")),),
    )


def award_above_a_ceiling_is_missed_not_the_ceiling() -> Case:
    """3 MW must stay droppable (500 a MWh missing) beneath a ceiling of 2 MW at $130: 2 x -30 - 500 = -560.

    A MW of ceiling is worth 500 - 30 = 470, a MW of award costs 500.
    """
    grid = steps(1)
    award = Award(0, np.array([3.0]), slack_per_mwh=500.0)
    return Case(
        problem(grid, [miners(4, grid=grid)], price=130.0, limit=2.0, awards=(award,)),
        -560.0,
        values=((at_least(0, 0, 0), 2.0),),
        duals=(
            Dual(470.0, variable=drawn(0, 0), nudge=limit_of(0, 0)),
            Dual(-500.0, row=row("award", 0, 0), nudge=award_of(0, 0)),
        ),
    )


def promises_contradict_and_the_cheapest_gives() -> Case:
    """At most 1 MWh held back (900 each above), 2 MW droppable (500 each missing), a ceiling of 1 MW, $50.

    One of three loads runs: 50 - 1 x 900 - 1 x 500 = -1350. A MW of ceiling: 50 + 900 + 500 = 1450.
    """
    grid = steps(1)
    accounts = (Account("owner", curtailment=(Budget(0, 1, 1.0, slack_price=900.0),)),)
    award = Award(0, np.array([2.0]), slack_per_mwh=500.0)
    return Case(
        problem(grid, [miners(3, grid=grid, account=0)], limit=1.0, awards=(award,), accounts=accounts),
        -1350.0,
        duals=(Dual(1450.0, variable=drawn(0, 0), nudge=limit_of(0, 0)),),
    )


PROMISES = (
    reserve_award_keeps_loads_on,
    reserve_award_is_missed_at_its_price,
    reserve_award_counts_what_is_beneath_its_circuit,
    reserve_award_counts_mining_alone,
    curtailment_budget_goes_to_the_dearest_hours,
    curtailment_budget_is_exceeded_at_its_price,
    budgets_end_with_their_windows,
    curtailment_counts_against_the_highest_point,
    uptime_floor_takes_the_cheapest_hours,
    uptime_floor_is_missed_at_its_price,
    award_above_a_ceiling_is_missed_not_the_ceiling,
    promises_contradict_and_the_cheapest_gives,
)
