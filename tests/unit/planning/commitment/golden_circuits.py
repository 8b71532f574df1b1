"""The circuit tree: limits, priced limits, auxiliaries, cooling, and what loads may draw against what they draw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from golden_kit import (
    Case,
    Dual,
    at_least,
    bumped,
    circuit,
    drawn,
    imported,
    limit_of,
    miners,
    problem,
    row,
    steps,
)

from mullet.planning.commitment.problem import Cooling, Problem


def grid_connection_binds() -> Case:
    """Two loads worth 100 and two worth 80 $/MWh, 3 MW for two hours at $50: 2 x (2 x 50 + 1 x 30) = 260.

    One more MW takes the second poorer load: 30 an hour, 60.
    """
    grid = steps(2)
    groups = [miners(2, grid=grid, key="a"), miners(2, grid=grid, key="b", th_per_s=[0.8])]
    return Case(
        problem(grid, groups, limit=3.0),
        260.0,
        values=((at_least(0, 0, 0), 2.0), (at_least(1, 0, 0), 1.0), (drawn(0, 0), 3.0)),
        duals=(Dual(60.0, variable=drawn(0, 0), nudge=limit_of(0, 0)),),
    )


def feeder_binds_below_a_binding_connection() -> Case:
    """The better loads have a feeder of 1 MW, the connection 2 MW: 1 x 50 + 1 x 30 = 80.

    A MW more at the connection goes to the poorer loads, 30; at the feeder it takes a poorer load's place, 20.
    """
    grid = steps(1)
    tree = [circuit(grid=grid, limit=2.0), circuit("feeder", grid=grid, parent=0, limit=1.0)]
    groups = [miners(2, grid=grid, key="a", circuit=1), miners(2, grid=grid, key="b", th_per_s=[0.8])]
    return Case(
        problem(grid, groups, circuits=tree),
        80.0,
        values=((at_least(0, 0, 0), 1.0), (at_least(1, 0, 0), 1.0)),
        duals=(
            Dual(30.0, variable=drawn(0, 0), nudge=limit_of(0, 0)),
            Dual(20.0, variable=drawn(1, 0), nudge=limit_of(1, 0)),
        ),
    )


def three_levels_share_what_binds() -> Case:
    """Three groups of two loads (100, 90, 80) on PDUs of 2.5 MW each; the first two on a feeder of 3, all on 4 MW.

    Feeder: 2 x 50 + 1 x 40; connection: 1 MW left for 30: 170. Connection 30, feeder 40 - 30 = 10, PDU of the
    first: it would take a second's place, 10, but it has no third load to run: 0.
    """
    grid = steps(1)
    tree = [
        circuit(grid=grid, limit=4.0),
        circuit("feeder", grid=grid, parent=0, limit=3.0),
        circuit("pdu-a", grid=grid, parent=1, limit=2.5),
        circuit("pdu-b", grid=grid, parent=1, limit=2.5),
        circuit("pdu-c", grid=grid, parent=0, limit=2.5),
    ]
    groups = [
        miners(2, grid=grid, key=key, circuit=at, th_per_s=[worth])
        for key, at, worth in (("a", 2, 1.0), ("b", 3, 0.9), ("c", 4, 0.8))
    ]
    return Case(
        problem(grid, groups, circuits=tree),
        170.0,
        values=((at_least(0, 0, 0), 2.0), (at_least(1, 0, 0), 1.0), (at_least(2, 0, 0), 1.0)),
        duals=(
            Dual(30.0, variable=drawn(0, 0), nudge=limit_of(0, 0)),
            Dual(10.0, variable=drawn(1, 0), nudge=limit_of(1, 0)),
            Dual(0.0, variable=drawn(2, 0), nudge=limit_of(2, 0)),
        ),
    )


def ceiling_of_one_hour() -> Case:
    """Three loads, 1 MW allowed in the second hour only: 150 + 50 + 150 = 350; that hour's limit is worth 50."""
    grid = steps(1, 1, 1)
    return Case(
        problem(grid, [miners(3, grid=grid)], limit=[9, 1, 9]),
        350.0,
        values=((at_least(0, 0, 1), 1.0),),
        duals=tuple(
            Dual(worth, variable=drawn(0, step), nudge=limit_of(0, step)) for step, worth in enumerate((0.0, 50.0, 0.0))
        ),
    )


def limit_is_exceeded_at_its_price() -> Case:
    """Three loads, 1 MW for 2 h; a MWh above it costs 20, less than the margin of 50: 300 - 4 x 20 = 220; limit 40."""
    grid = steps(2)
    return Case(
        problem(grid, [miners(3, grid=grid)], circuits=[circuit(grid=grid, limit=1.0, slack_per_mwh=20.0)]),
        220.0,
        values=((at_least(0, 0, 0), 3.0),),
        duals=(Dual(40.0, row=row("slack", 0, 0), nudge=limit_of(0, 0)),),
    )


def limit_is_kept_where_its_price_is_too_high() -> Case:
    """As above for an hour at $60: it is kept, 50, and worth the margin, 50."""
    grid = steps(1)
    return Case(
        problem(grid, [miners(3, grid=grid)], circuits=[circuit(grid=grid, limit=1.0, slack_per_mwh=60.0)]),
        50.0,
        values=((at_least(0, 0, 0), 1.0),),
        duals=(Dual(50.0, row=row("slack", 0, 0), nudge=limit_of(0, 0)),),
    )


def auxiliaries_follow() -> Case:
    """Auxiliaries draw 0.1 MW per MW beneath: 2.2 MW carry two loads: 2 x 100 - 2.2 x 50 = 90.

    One MW more carries 1 / 1.1 loads at a margin of 100 - 1.1 x 50 = 45: 45 / 1.1.
    """
    grid = steps(1)
    return Case(
        problem(grid, [miners(3, grid=grid)], circuits=[circuit(grid=grid, limit=2.2, follow=0.1)]),
        90.0,
        values=((at_least(0, 0, 0), 2.0), (imported(0), 2.2)),
        duals=(Dual(45.0 / 1.1, variable=drawn(0, 0), nudge=limit_of(0, 0)),),
    )


def auxiliaries_of_a_feeder_count_above_it() -> Case:
    """The feeder's auxiliaries draw 0.25 per MW: the connection's 2.5 MW carry two of its loads: 200 - 125 = 75.

    The limit is worth (100 - 62.5) / 1.25 = 30.
    """
    grid = steps(1)
    tree = [circuit(grid=grid, limit=2.5), circuit("feeder", grid=grid, parent=0, follow=0.25)]
    return Case(
        problem(grid, [miners(4, grid=grid, circuit=1)], circuits=tree),
        75.0,
        values=((at_least(0, 0, 0), 2.0), (drawn(1, 0), 2.5)),
        duals=(Dual(30.0, variable=drawn(0, 0), nudge=limit_of(0, 0)),),
    )


def cooling_grows_with_load() -> Case:
    """Cooling draws at least 0.1 x and 0.3 x - 0.6 of the load x: 4.6 MW carry x = 4 with 0.6 of cooling.

    4 x 100 - 4.6 x 50 = 170. A MW more carries 1 / 1.3 loads at 100 - 1.3 x 50 = 35: 35 / 1.3. A MW more of fixed
    cooling takes 1 / 1.3 loads' place, all else drawn stays: -100 / 1.3.
    """
    grid = steps(1)
    curve = (Cooling(np.array([0.1]), np.array([0.0])), Cooling(np.array([0.3]), np.array([-0.6])))

    def warmer(of: Problem, amount: float) -> Problem:
        first, second = of.circuits[0].cooling
        moved = replace(second, fixed_mw=bumped(second.fixed_mw, 0, amount))
        return replace(of, circuits=(replace(of.circuits[0], cooling=(first, moved)),))

    return Case(
        problem(grid, [miners(5, grid=grid)], circuits=[circuit(grid=grid, limit=4.6, cooling=curve)]),
        170.0,
        values=((at_least(0, 0, 0), 4.0), (imported(0), 4.6)),
        duals=(
            Dual(35.0 / 1.3, variable=drawn(0, 0), nudge=limit_of(0, 0)),
            Dual(-100.0 / 1.3, row=row("cooling", 1, 0), nudge=warmer),
        ),
    )


def cooling_by_the_hour() -> Case:
    """Cooling of 0.2 and of 0.5 per MW: at $80 a load costs 96 and earns 4 in the cool hour, and would cost 120."""
    grid = steps(1, 1)
    curve = (Cooling(np.array([0.2, 0.5]), np.zeros(2)),)
    return Case(
        problem(grid, [miners(2, grid=grid)], price=80.0, circuits=[circuit(grid=grid, cooling=curve)]),
        8.0,
        values=((at_least(0, 0, 0), 2.0), (at_least(0, 0, 1), 0.0)),
    )


def cooling_of_loads_that_draw_less_than_they_may() -> Case:
    """Cooling of 0.2 per MW; two loads may draw 1.25 MW and are expected to draw 1, three draw 1 MW and earn 90.

    By MW of limit the first earn (100 - 60) / 1.5 = 26.7, the others (90 - 60) / 1.2 = 25: 5.4 MW carry 2 and 2.
    2 x 40 + 2 x 30 = 140; the limit is worth 25.
    """
    grid = steps(1)
    curve = (Cooling(np.array([0.2]), np.zeros(1)),)
    groups = [
        miners(2, grid=grid, key="a", most_mw=[1.25], mean_mw=[1.0]),
        miners(3, grid=grid, key="b", th_per_s=[0.9]),
    ]
    return Case(
        problem(grid, groups, circuits=[circuit(grid=grid, limit=5.4, cooling=curve)]),
        140.0,
        values=((at_least(0, 0, 0), 2.0), (at_least(1, 0, 0), 2.0), (drawn(0, 0), 5.4), (imported(0), 4.8)),
        duals=(Dual(25.0, variable=drawn(0, 0), nudge=limit_of(0, 0)),),
    )


def cooling_does_not_grow_to_be_paid() -> Case:
    """At -$20 five loads earn 10 and are paid 20 each; cooling, 0.3 x 5 - 0.6 = 0.9 MW, is paid 18 and no more: 168."""
    grid = steps(1)
    curve = (Cooling(np.array([0.1]), np.array([0.0])), Cooling(np.array([0.3]), np.array([-0.6])))
    return Case(
        problem(
            grid,
            [miners(5, grid=grid, th_per_s=[0.1])],
            price=-20.0,
            circuits=[circuit(grid=grid, cooling=curve)],
        ),
        168.0,
        values=((imported(0), 5.9),),
    )


def expected_cooling_does_not_grow_to_be_paid() -> Case:
    """As above, and each load may draw 1.25 MW: what is expected to be drawn is paid, 168 again."""
    grid = steps(1)
    curve = (Cooling(np.array([0.1]), np.array([0.0])), Cooling(np.array([0.3]), np.array([-0.6])))
    group = miners(5, grid=grid, th_per_s=[0.1], most_mw=[1.25], mean_mw=[1.0])
    return Case(
        problem(grid, [group], price=-20.0, circuits=[circuit(grid=grid, cooling=curve)]),
        168.0,
        values=((imported(0), 5.9),),
    )


def circuits_bind_with_the_most_that_loads_draw() -> Case:
    """A load may draw 1.25 MW and is expected to draw 1: 2.5 MW carry two, energy is paid for 2: 100.

    One more MW carries 0.8 loads at 50: 40.
    """
    grid = steps(1)
    return Case(
        problem(grid, [miners(3, grid=grid, most_mw=[1.25], mean_mw=[1.0])], limit=2.5),
        100.0,
        values=((at_least(0, 0, 0), 2.0), (drawn(0, 0), 2.5), (imported(0), 2.0)),
        duals=(Dual(40.0, variable=drawn(0, 0), nudge=limit_of(0, 0)),),
    )


def nothing_is_allowed() -> Case:
    """A limit of 0 stops all loads; 1 MW is drawn whatever is planned: -50."""
    grid = steps(1)
    return Case(
        problem(grid, [miners(3, grid=grid)], limit=0.0, site={"fixed_mw": 1.0}),
        -50.0,
        values=((at_least(0, 0, 0), 0.0), (drawn(0, 0), 0.0), (imported(0), 1.0)),
    )


CIRCUITS = (
    grid_connection_binds,
    feeder_binds_below_a_binding_connection,
    three_levels_share_what_binds,
    ceiling_of_one_hour,
    limit_is_exceeded_at_its_price,
    limit_is_kept_where_its_price_is_too_high,
    auxiliaries_follow,
    auxiliaries_of_a_feeder_count_above_it,
    cooling_grows_with_load,
    cooling_by_the_hour,
    cooling_of_loads_that_draw_less_than_they_may,
    cooling_does_not_grow_to_be_paid,
    expected_cooling_does_not_grow_to_be_paid,
    circuits_bind_with_the_most_that_loads_draw,
    nothing_is_allowed,
)
