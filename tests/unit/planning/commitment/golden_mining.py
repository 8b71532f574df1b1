"""Mining alone: operating points, starts, times on and off, start limits, ramps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from golden_kit import (
    Case,
    Dual,
    at_least,
    circuit,
    drawn,
    limit_of,
    miners,
    over,
    problem,
    ramp_of,
    row,
    started,
    steps,
)

from mullet.planning.commitment.problem import Grid, Problem, Ramp, StartLimit


def runs_below_its_worth() -> Case:
    """Four loads worth $100/MWh at $60 and $140: they run in the first hour only, 4 x (100 - 60) = 160."""
    grid = steps(1, 1)
    return Case(
        problem(grid, [miners(4, grid=grid)], price=[60, 140]),
        160.0,
        values=((at_least(0, 0, 0), 4.0), (at_least(0, 0, 1), 0.0)),
    )


def takes_power_steps_by_worth() -> Case:
    """Steps of 0.5, 0.3, 0.2 MW earn 60, 30, 16 $/h: 120, 100, 80 $/MWh.

    At $70 all three: 106 - 70 = 36. At $90 two: 90 - 72 = 18. At $110 one: 60 - 55 = 5. At $130 none.
    Two loads: 2 x 59 = 118.
    """
    grid = steps(1, 1, 1, 1)
    group = miners(2, grid=grid, most_mw=[0.5, 0.3, 0.2], th_per_s=[0.6, 0.3, 0.16])
    places = [(at_least(0, level, step), 2.0 * (level + step < 3)) for level in range(3) for step in range(4)]
    return Case(problem(grid, [group], price=[70, 90, 110, 130]), 118.0, values=tuple(places))


def relaxation_makes_a_curve_convex() -> Case:
    """The second step is worth more than the first: 0.6 MW earn 50, 0.4 MW earn 60; 0.6 MW are allowed at $50.

    Whole: off 0, or the first step 50 - 30 = 20; the top draws 1.0 MW. Relaxed: a load's top, 1 MW, earns 60,
    so 0.6 of a load: 36. Duals: 20 + order - 0.6 limit = 0 and 40 - order - 0.4 limit = 0, so limit 60, order 16.
    The row says that the first less the second is at least 0, and more of it costs 16.
    """
    grid = steps(1)
    group = miners(1, grid=grid, most_mw=[0.6, 0.4], th_per_s=[0.5, 0.6])
    return Case(
        problem(grid, [group], limit=0.6),
        36.0,
        20.0,
        values=((at_least(0, 0, 0), 0.6), (at_least(0, 1, 0), 0.6)),
        duals=(Dual(60.0, variable=drawn(0, 0), nudge=limit_of(0, 0)), Dual(-16.0, row=row("order", 0, 0, 0))),
    )


def many_loads_need_no_convex_curve() -> Case:
    """The same curve, five loads, 3 MW: three at the top, 3 x 60 = 180, whole as it is."""
    grid = steps(1)
    return Case(problem(grid, [miners(5, grid=grid, most_mw=[0.6, 0.4], th_per_s=[0.5, 0.6])], limit=3.0), 180.0)


def start_cost_rides_through_a_spike() -> Case:
    """Stopping at $120 saves 20, starting again costs 30: run through, 50 - 20 + 50 = 80."""
    grid = steps(1, 1, 1)
    return Case(
        problem(grid, [miners(1, grid=grid, start_cost=30.0)], price=[50, 120, 50]),
        80.0,
        values=((at_least(0, 0, 1), 1.0), (started(0, 2), 0.0)),
    )


def long_spike_is_worth_a_start() -> Case:
    """Stopping for two hours at $120 saves 40, more than the start at 30: 50 + 0 + 0 + 50 - 30 = 70."""
    grid = steps(1, 1, 1, 1)
    return Case(
        problem(grid, [miners(1, grid=grid, start_cost=30.0)], price=[50, 120, 120, 50]),
        70.0,
        values=((at_least(0, 0, 1), 0.0), (started(0, 3), 1.0)),
    )


def start_cost_prevents_a_short_run() -> Case:
    """A load that is off would earn 20 in one hour and lose 30 by its start: it stays off."""
    grid = steps(1, 1, 1)
    return Case(
        problem(grid, [miners(1, grid=grid, running=0, start_cost=30.0)], price=[140, 80, 140]),
        0.0,
        values=((at_least(0, 0, 1), 0.0),),
    )


def start_is_paid_where_it_pays() -> Case:
    """Two of three loads, all off, may run: each earns 50 and pays 30: 40. One running already saves 30; the row
    stands at minus what runs.
    """
    grid = steps(1)
    return Case(
        problem(grid, [miners(3, grid=grid, running=0, start_cost=30.0)], limit=2.0),
        40.0,
        values=((started(0, 0), 2.0),),
        duals=(Dual(-30.0, row=row("start", 0, 0)), Dual(20.0, variable=drawn(0, 0), nudge=limit_of(0, 0))),
    )


def minimum_on_makes_a_run_worth_it_or_not() -> Case:
    """Three loads, one running, on for at least 2 h; 1 MW is allowed in the first and third hour; $80, $30, $130.

    Hour 0: one runs, 20. Hour 1: a start earns 70 and must run on at a loss of 30: 40 each, but hour 2 carries one.
    20 + 2 x 70 - 30 = 130. A MW more in hour 2 lets one more start: 40. One more start without it: 70.
    """
    grid = steps(1, 1, 1)
    group = miners(3, grid=grid, running=1, min_on_s=7200.0)
    return Case(
        problem(grid, [group], price=[80, 30, 130], limit=[1, 9, 1]),
        130.0,
        values=((at_least(0, 0, 0), 1.0), (at_least(0, 0, 1), 2.0), (at_least(0, 0, 2), 1.0), (started(0, 1), 1.0)),
        duals=(Dual(40.0, variable=drawn(0, 2), nudge=limit_of(0, 2)), Dual(-70.0, row=row("min_on", 0, 2))),
    )


def minimum_on_over_uneven_steps() -> Case:
    """Off, on for at least 1.5 h, steps of 0.5, 0.5, 1, 1 h at $150, $20, $130, $150.

    A start at 0:30 runs until 2:00: 0.5 x 80 - 1 x 30 = 10. A start at 0:00 runs until 1:30, so through the third
    step: -25 + 40 - 30 < 0.
    """
    grid = steps(0.5, 0.5, 1, 1)
    group = miners(1, grid=grid, running=0, min_on_s=5400.0)
    return Case(
        problem(grid, [group], price=[150, 20, 130, 150]),
        10.0,
        values=((started(0, 1), 1.0), (at_least(0, 0, 2), 1.0), (at_least(0, 0, 3), 0.0)),
    )


def minimum_on_that_reaches_one_step_further() -> Case:
    """As above with 1.6 h: a start at 0:30 would run into the last step, 10 - 50 < 0: nothing runs."""
    grid = steps(0.5, 0.5, 1, 1)
    group = miners(1, grid=grid, running=0, min_on_s=5760.0)
    return Case(problem(grid, [group], price=[150, 20, 130, 150]), 0.0)


def minimum_off_holds_back_starts() -> Case:
    """Three loads, two running, off for at least 2 h; 2 MW are allowed in the first hour; $50, $150, $60.

    Running on through $150 nets 50 - 50 + 40 = 40 a load, stopping after hour 0 nets 50, starting in hour 2 nets 40.
    Two run in hour 0, and the third, off since before, starts in hour 2: 140. The limit in hour 0 is worth
    50 - 40 = 10, room to start in hour 2 is worth 40.
    """
    grid = steps(1, 1, 1)
    group = miners(3, grid=grid, running=2, min_off_s=7200.0)
    return Case(
        problem(grid, [group], price=[50, 150, 60], limit=[2, 9, 9]),
        140.0,
        values=((at_least(0, 0, 0), 2.0), (at_least(0, 0, 1), 0.0), (at_least(0, 0, 2), 1.0)),
        duals=(Dual(10.0, variable=drawn(0, 0), nudge=limit_of(0, 0)), Dual(40.0, row=row("min_off", 0, 2))),
    )


def minimum_off_over_uneven_steps() -> Case:
    """On, off for at least 1.5 h, steps of 0.5, 0.5, 1, 1 h at $50, $220, $50, $50.

    Running on: 25 - 60 + 50 + 50 = 65. Stopping at 0:30 keeps it off until 2:00: 25 + 0 + 0 + 50 = 75.
    """
    grid = steps(0.5, 0.5, 1, 1)
    group = miners(1, grid=grid, min_off_s=5400.0)
    return Case(
        problem(grid, [group], price=[50, 220, 50, 50]),
        75.0,
        values=((at_least(0, 0, 1), 0.0), (at_least(0, 0, 2), 0.0), (at_least(0, 0, 3), 1.0)),
    )


def minimum_off_that_reaches_one_step_further() -> Case:
    """As above with 1.6 h: a stop at 0:30 would last through the last step, 25 in all: it runs on, 65."""
    grid = steps(0.5, 0.5, 1, 1)
    group = miners(1, grid=grid, min_off_s=5760.0)
    return Case(problem(grid, [group], price=[50, 220, 50, 50]), 65.0, values=((at_least(0, 0, 1), 1.0),))


def lately_started_loads_run_on() -> Case:
    """Three loads run; two must for an hour and one for another, at $150; then all run at $50, two started at $5.

    -100 - 50 + 150 - 10 = -10. One more that must run costs 50 in hour 0; in hour 1 it saves the start, 45.
    """
    grid = steps(1, 1, 1)
    group = miners(3, grid=grid, start_cost=5.0, least_on=[2, 1, 0])
    return Case(
        problem(grid, [group], price=[150, 150, 50]),
        -10.0,
        values=((at_least(0, 0, 1), 1.0), (started(0, 2), 2.0)),
        duals=(Dual(-50.0, variable=at_least(0, 0, 0)), Dual(-45.0, variable=at_least(0, 0, 1))),
    )


def lately_stopped_loads_stay_off() -> Case:
    """Of three loads one, two and three may run: 50 + 100 + 150 = 300; one more is worth 50 in either hour."""
    grid = steps(1, 1, 1)
    group = miners(3, grid=grid, running=1, most_on=[1, 2, 3])
    return Case(
        problem(grid, [group]),
        300.0,
        duals=(Dual(50.0, variable=at_least(0, 0, 0)), Dual(50.0, variable=at_least(0, 0, 1))),
    )


def start_limit_of_a_day() -> Case:
    """Four loads off, two starts allowed, $150 then $50 twice: two start in hour 1: 2 x 100. A start is worth 100."""
    grid = steps(1, 1, 1)
    group = miners(4, grid=grid, running=0, start_limits=(StartLimit(0, 3, 2.0),))

    def more_starts(of: Problem, amount: float) -> Problem:
        return replace(of, mining=(replace(of.mining[0], start_limits=(StartLimit(0, 3, 2.0 + amount),)),))

    return Case(
        problem(grid, [group], price=[150, 50, 50]),
        200.0,
        values=((started(0, 1), 2.0),),
        duals=(Dual(100.0, row=row("start_limit", 0, 0), nudge=more_starts),),
    )


def start_limit_ends_with_its_day() -> Case:
    """Four loads off, one start in the first two hours, then as many as one likes: 150 + 3 x 50. A start more: 100."""
    grid = steps(1, 1, 1)
    group = miners(4, grid=grid, running=0, start_limits=(StartLimit(0, 2, 1.0),))
    return Case(
        problem(grid, [group]),
        300.0,
        values=((at_least(0, 0, 1), 1.0), (at_least(0, 0, 2), 4.0)),
        duals=(Dual(100.0, row=row("start_limit", 0, 0)),),
    )


def _ramp(grid: Grid, up: float, down: float, now: float, slack: float | None = None) -> Ramp:
    return Ramp(0, over(grid.count, up), over(grid.count, down), now, now, slack)


def ramp_up_delays_a_start() -> Case:
    """From 1 MW, 1 MW more each hour: 2 + 3 + 4 MWh at a margin of 50: 450. A MW earlier lasts: 150, 100, 50."""
    grid = steps(1, 1, 1)
    return Case(
        problem(grid, [miners(5, grid=grid, running=1)], ramps=(_ramp(grid, 1.0, 9.0, 1.0),)),
        450.0,
        values=tuple((at_least(0, 0, step), step + 2.0) for step in range(3)),
        duals=tuple(
            Dual(150.0 - 50.0 * step, row=row("ramp_up", 0, step), nudge=ramp_of(0, "up_mw", step)) for step in range(3)
        ),
    )


def ramp_down_delays_a_stop() -> Case:
    """From 4 MW, 1 MW less each hour at $150: 3 + 2 + 1 MWh at a loss of 50: -300. A MW faster saves 150, 100, 50."""
    grid = steps(1, 1, 1)
    return Case(
        problem(grid, [miners(4, grid=grid)], price=150.0, ramps=(_ramp(grid, 9.0, 1.0, 4.0),)),
        -300.0,
        values=tuple((at_least(0, 0, step), 3.0 - step) for step in range(3)),
        duals=tuple(
            Dual(
                50.0 * step - 150.0,
                row=row("ramp_down", 0, step),
                nudge=ramp_of(0, "down_mw", step),
                by_data=150.0 - 50.0 * step,
            )
            for step in range(3)
        ),
    )


def ramp_is_broken_at_its_price() -> Case:
    """Three loads off, 1 MW an hour, exceeded at $20/MWh; steps of 0.5 and 1 h.

    Two MW too many in the first half hour cost 2 x 20 x 0.5 = 20 and bring 3 x 50 x 1.5 = 225 at once: 205.
    """
    grid = steps(0.5, 1)
    return Case(
        problem(grid, [miners(3, grid=grid, running=0)], ramps=(_ramp(grid, 1.0, 9.0, 0.0, slack=20.0),)),
        205.0,
        values=((at_least(0, 0, 0), 3.0),),
        duals=(Dual(10.0, row=row("ramp_up", 0, 0), nudge=ramp_of(0, "up_mw", 0)),),
    )


def ramp_counts_expected_draws_beneath_its_circuit_only() -> Case:
    """One MW an hour beneath the first feeder, loads of 2 MW at most and 1 MW as expected; the second is free.

    First feeder: 1 + 2 MWh, second: 2 + 2 MWh, all at a margin of 50 per MWh as expected: 7 x 50 = 350.
    """
    grid = steps(1, 1)
    feeders = [circuit(grid=grid), circuit("a", grid=grid, parent=0), circuit("b", grid=grid, parent=0)]
    held = miners(2, grid=grid, key="a", circuit=1, running=0, most_mw=[2.0], mean_mw=[1.0])
    free = miners(2, grid=grid, key="b", circuit=2, running=0, most_mw=[2.0], mean_mw=[1.0])
    ramp = Ramp(1, np.ones(2), np.full(2, 9.0), 0.0, 0.0)
    return Case(problem(grid, [held, free], circuits=feeders, ramps=(ramp,)), 350.0)


MINING = (
    runs_below_its_worth,
    takes_power_steps_by_worth,
    relaxation_makes_a_curve_convex,
    many_loads_need_no_convex_curve,
    start_cost_rides_through_a_spike,
    long_spike_is_worth_a_start,
    start_cost_prevents_a_short_run,
    start_is_paid_where_it_pays,
    minimum_on_makes_a_run_worth_it_or_not,
    minimum_on_over_uneven_steps,
    minimum_on_that_reaches_one_step_further,
    minimum_off_holds_back_starts,
    minimum_off_over_uneven_steps,
    minimum_off_that_reaches_one_step_further,
    lately_started_loads_run_on,
    lately_stopped_loads_stay_off,
    start_limit_of_a_day,
    start_limit_ends_with_its_day,
    ramp_up_delays_a_start,
    ramp_down_delays_a_stop,
    ramp_is_broken_at_its_price,
    ramp_counts_expected_draws_beneath_its_circuit_only,
)
