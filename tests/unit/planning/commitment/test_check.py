"""The door: what cannot be read is refused by name, what can is mended and noted, and what comes through is solved."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import CASES
from drawn_problems import problems
from golden_kit import MTOKEN, circuit, miners, pool, problem, service, steps
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mullet.planning.commitment.build import build
from mullet.planning.commitment.check import check
from mullet.planning.commitment.contradictions import LAST_RESORT_PER_MWH, soften
from mullet.planning.commitment.highs import solve_with_highs
from mullet.planning.commitment.linear import Solution
from mullet.planning.commitment.problem import (
    Account,
    Award,
    Budget,
    Cooling,
    DemandCharge,
    Grid,
    Problem,
    Ramp,
    StartLimit,
)
from mullet.ports import PlanningError

GRID = steps(1, 1, 1)
NAN = math.nan


def facility(**group: Any) -> Problem:
    """Return a problem of every kind of part, three steps long."""
    served = service(pool(2, circuit=1, segments=[(0.5, 10), (0.5, 5)]), grid=GRID, demand=12, value=2.0)
    return problem(
        GRID,
        [miners(4, grid=GRID, account=0, **group)],
        circuits=[circuit(grid=GRID, limit=9.0), circuit("feeder", grid=GRID, parent=0, limit=5.0)],
        inference=[served],
        accounts=(Account("owner", (Budget(0, 3, 20.0),), (Budget(0, 3, 1.0),)),),
        awards=(Award(0, np.ones(3)),),
        ramps=(Ramp(0, np.full(3, 4.0), np.full(3, 4.0), 4.0, 4.0),),
        site={"sell_per_mwh": 40.0, "ppa_mw": 1.0, "demand_charges": (DemandCharge(0, 3, 10.0, 1.0),)},
    )


def with_site(**changes: Any) -> Problem:
    made = facility()
    return replace(made, site=replace(made.site, **changes))


def with_group(**changes: Any) -> Problem:
    made = facility()
    return replace(made, mining=(replace(made.mining[0], **changes),))


def with_circuit(node: int, **changes: Any) -> Problem:
    made = facility()
    circuits = list(made.circuits)
    circuits[node] = replace(circuits[node], **changes)
    return replace(made, circuits=tuple(circuits))


def with_service(**changes: Any) -> Problem:
    made = facility()
    return replace(made, inference=(replace(made.inference[0], **changes),))


def with_pool(**changes: Any) -> Problem:
    made = facility()
    return with_service(pools=(replace(made.inference[0].pools[0], **changes),))


def with_part(name: str, **changes: Any) -> Problem:
    made = facility()
    return replace(made, **{name: (replace(getattr(made, name)[0], **changes),)})


def solved(checked: Problem) -> tuple[Problem, Solution]:
    """Solve as a planner does: what contradicts itself in ways that the data alone do not show is softened."""
    solution = solve_with_highs(build(checked).program, 20.0)
    if not solution.optimal:
        checked, notes = soften(checked)
        assert notes
        solution = solve_with_highs(build(checked).program, 20.0)
    assert solution.optimal, solution.status
    return checked, solution


@pytest.mark.parametrize("name", CASES)
def test_sound_problems_pass_and_earn_the_same(name: str) -> None:
    case = CASES[name]()
    checked, _ = check(case.problem)
    program = build(checked).program
    assert program.objective(solve_with_highs(program, 20.0).values) == pytest.approx(case.relaxed, rel=1e-6, abs=1e-6)


def test_sound_problem_is_not_touched() -> None:
    made = facility()
    checked, notes = check(made)
    assert notes == ()
    assert np.array_equal(checked.circuits[1].limit_mw, made.circuits[1].limit_mw)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: replace(facility(), grid=Grid(np.zeros(0), np.zeros(0))), "the horizon has no steps"),
        (lambda: replace(facility(), grid=steps(1, 0, 1)), "step 1 of the horizon lasts 0 h"),
        (lambda: replace(facility(), grid=steps(1, NAN, 1)), "step 1 of the horizon lasts nan h"),
        (
            lambda: replace(facility(), grid=Grid(np.array([0.0, 3600.0, 9000.0]), np.ones(3))),
            "step 2 of the horizon starts at 9000 s, the one before ends at 7200",
        ),
        (lambda: replace(facility(), grid=steps(1, 1)), "circuit poi: limit .* values where 2 are needed"),
        (lambda: with_site(price_per_mwh=np.full(3, NAN)), "price .*no step has a value, step 0 has nan"),
        (lambda: with_site(price_per_mwh=np.ones(2)), "price .*values where 3 are needed"),
        (lambda: with_site(ppa_mw=np.array([1.0, NAN, 1.0])), "power bought ahead .*step 1 has nan"),
        (lambda: with_site(fixed_mw=np.array([0.0, 0.0, 1e300])), "fixed draw .*step 2 has 1e\\+300"),
        (lambda: with_circuit(1, limit_mw=np.array([5.0, NAN, 5.0])), "circuit feeder: limit .*step 1 has nan"),
        (lambda: with_circuit(0, parent=1), "circuit poi: parent 1 does not come before it"),
        (lambda: with_circuit(1, parent=-2), "circuit feeder: parent -2"),
        (lambda: with_circuit(1, follow=-0.1), "circuit feeder: follow is -0.1"),
        (lambda: with_circuit(1, slack_per_mwh=-1.0), "circuit feeder: limit: the price of missing it is -1"),
        (lambda: with_group(circuit=7), "group m: circuit 7 does not exist, there are 2"),
        (lambda: with_group(account=1), "group m: account 1 does not exist, there are 1"),
        (lambda: with_group(count=-1), "group m: -1 loads"),
        (lambda: with_group(th_per_s=np.array([NAN])), "group m: TH/s .*power step 0 has nan"),
        (lambda: with_group(mean_mw=np.ones(2)), "group m: expected power .*values where 1 are needed"),
        (
            lambda: facility(most_mw=[3.0, -1.0], th_per_s=[1.0, 0.5]),
            "group m: operating points out of order: point 2 draws -1 MW",
        ),
        (lambda: with_group(min_on_s=NAN), "group m: min_on_s is nan"),
        (lambda: with_group(start_cost=np.array([0.0, 0.0, NAN])), "group m: cost of a start: step 2 has nan"),
        (lambda: with_group(start_limits=(StartLimit(0, 3, -1.0),)), "group m: start limit is -1"),
        (lambda: with_service(demand_tokens_per_s=np.array([1.0, 1.0, NAN])), "service p: demand .*step 2 has nan"),
        (lambda: with_service(value_per_mtoken=NAN), "service p: value of a Mtoken is nan"),
        (lambda: with_pool(circuit=2), "pool p: circuit 2 does not exist"),
        (lambda: with_pool(segment_mw=np.array([0.5, -0.5])), "pool p: segment 1 of -0.5 MW"),
        (lambda: with_pool(count=-2), "pool p: -2 GPUs"),
        (lambda: with_part("awards", circuit=9), "award: circuit 9 does not exist"),
        (lambda: with_part("awards", mw=np.array([NAN, 1.0, 1.0])), "award beneath poi .*step 0 has nan"),
        (lambda: with_part("ramps", circuit=-1), "ramp: circuit -1 does not exist"),
        (lambda: with_part("ramps", up_mw=np.array([NAN, 1.0, 1.0])), "ramp beneath poi: up .*step 0 has nan"),
        (
            lambda: with_part("accounts", curtailment=(Budget(0, 3, NAN),)),
            "account owner: curtailment 0 is nan",
        ),
        (lambda: with_site(demand_charges=(DemandCharge(0, 3, NAN, 0.0),)), "demand charge 0: price of a MW is nan"),
        (lambda: with_group(most_mw=np.array(["a"])), "the problem cannot be read"),
        (lambda: with_group(min_on_s="soon"), "the problem cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named(made: Callable[[], Problem], words: str) -> None:
    with pytest.raises(PlanningError, match=words):
        check(made())


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: with_site(price_per_mwh=np.array([30.0, NAN, NAN])), "price .*step 1 has nan; 30.*and 1 more"),
        (lambda: with_site(price_per_mwh=np.array([NAN, 30.0, 40.0])), "price .*step 0 has nan; 30"),
        (lambda: with_site(sell_per_mwh=np.array([40.0, 70.0, 40.0])), "resale .*70 at step 1 is above 50"),
        (lambda: with_site(fixed_mw=np.array([0.0, -2.0, 0.0])), "fixed draw .*step 1 has -2, below 0"),
        (
            lambda: with_circuit(1, limit_mw=np.array([5.0, -1.0, 5.0])),
            "circuit feeder: limit .*step 1 has -1, below 0",
        ),
        (lambda: with_group(count=0, running=np.zeros(1)), "group m has no loads"),
        (lambda: with_group(running=np.array([9])), "group m: running: power step 0 has 9, of 4 loads: 4 count"),
        (
            lambda: facility(most_mw=[0.5, 0.5], th_per_s=[0.5, 0.5], running=[1, 3]),
            "group m: 3 loads at power step 1, more than at a lower one",
        ),
        (
            lambda: facility(most_mw=[1.0, 0.2], th_per_s=[1.0, -0.1]),
            "group m: operating point 2 is dominated: \\+0.2 MW for -0.1 TH/s",
        ),
        (
            lambda: facility(most_mw=[1.0], mean_mw=[1.2]),
            "group m: power step 0 is expected to draw 1.2 MW and may draw 1",
        ),
        (
            lambda: facility(least_on=[4, 3, 0], most_on=[4, 1, 4]),
            "group m: 3 loads must run at step 1 and 1 may: 1 run",
        ),
        (lambda: with_group(start_limits=(StartLimit(-2, 9, 1.0),)), "group m: start limit: steps \\[-2, 9\\) of 3"),
        (lambda: with_service(demand_tokens_per_s=np.array([1.0, -5.0, 1.0])), "service p: demand .*step 1 has -5"),
        (lambda: with_service(tiers=service(grid=GRID, demand=0, value=0, tiers=((0.7, 1), (0.7, 2))).tiers), "tier 1"),
        (
            lambda: with_service(tiers=service(grid=GRID, demand=0, value=0, tiers=((0.5, 9), (0.5, 2))).tiers),
            "penalties of its tiers do not ascend",
        ),
        (lambda: with_pool(least_active=5), "pool p: 5 GPUs cannot be put aside, of 2: 2 count"),
        (lambda: with_pool(tokens_per_s_per_mw=np.array([1.0, 3.0])), "segment 0 makes 1 .*2 counts for both"),
        (lambda: with_part("ramps", now_least_mw=4.0, now_most_mw=3.0), "at least 4 MW and at most 3 now"),
        (lambda: with_part("awards", mw=np.array([1.0, 5.0, 1.0])), "award beneath poi: 5 MW at step 1 is above 4 MW"),
        (
            lambda: with_part("ramps", down_mw=np.zeros(3), now_least_mw=6.0, now_most_mw=6.0),
            "ramp beneath poi: mining draws 6 MW at step 0 at the least, 4 MW may be drawn",
        ),
        (
            lambda: replace(facility(least_on=[4, 4, 4]), ramps=(Ramp(0, np.ones(3), np.ones(3), 0.0, 0.0),)),
            "ramp beneath poi: mining draws 1 MW at step 0 at the most, 4 MW must be drawn",
        ),
        (lambda: with_part("accounts", uptime=(Budget(0, 3, 20.0),)), "uptime: 12 load-hours may run in .* 20 must"),
        (
            lambda: replace(
                facility(most_on=[4, 0, 4]), accounts=(Account("owner", curtailment=(Budget(0, 3, 3.0),)),)
            ),
            "account owner: curtailment: 4 MWh must be held back in .* 3 may be",
        ),
        (
            lambda: replace(
                facility(least_on=[4, 4, 0]), circuits=(circuit(grid=GRID, limit=[9, 2, 9]),), inference=()
            ),
            "circuit poi: loads that must run draw 4 MW at step 1, its limit leaves 2 MW: they may stop",
        ),
        (
            lambda: with_circuit(1, limit_mw=np.zeros(3), cooling=(Cooling(np.zeros(3), np.full(3, 0.5)),)),
            "circuit feeder: its limit of 0 MW at step 0 cannot be kept: cooling",
        ),
        (
            lambda: with_service(tiers=(), demand_tokens_per_s=np.full(3, 99.0) * MTOKEN),
            "service p: 27500 tokens/s must be served at step 0, its GPUs make 4166.67 at most: the rest",
        ),
        (
            lambda: replace(
                with_service(tiers=()), circuits=(circuit(grid=GRID), circuit("feeder", grid=GRID, parent=0, limit=0.5))
            ),
            "its GPUs make 1388.89 at most within the limits of feeder",
        ),
    ],
)
def test_what_can_be_mended_is_noted_and_solved(made: Callable[[], Problem], words: str) -> None:
    checked, notes = check(made())
    assert any(re.search(words, note) for note in notes), notes
    solved(checked)


def test_award_that_cannot_be_kept_is_short_at_the_stated_price() -> None:
    """5 MW awarded, 2 MW may be drawn, at $50: two loads earn 50 each, 3 MW are short."""
    grid = steps(1)
    made = problem(grid, [miners(4, grid=grid)], limit=2.0, awards=(Award(0, np.array([5.0])),))
    checked, notes = check(made)
    assert notes == (
        "award beneath poi: 5 MW at step 0 is above 2 MW that mining may draw: it may be missed at 10000/MWh",
    )
    checked, solution = solved(checked)
    assert build(checked).program.objective(solution.values) == pytest.approx(100.0 - 3.0 * LAST_RESORT_PER_MWH)


def test_loads_that_must_run_give_way_to_the_limit() -> None:
    """Three loads must run at $150, the limit carries none in the second hour: three run in the first only: -150."""
    grid = steps(1, 1)
    checked, notes = check(problem(grid, [miners(3, grid=grid, least_on=[3, 3])], price=150.0, limit=[9, 0]))
    assert len(notes) == 1
    checked, solution = solved(checked)
    assert build(checked).program.objective(solution.values) == pytest.approx(-150.0)


def test_demand_that_no_tier_covers_is_served_before_anything_is_mined() -> None:
    """A service worth nothing must be served 10 Mtokens/h with 1 MW and gets it, before mining at $900/MWh."""
    grid = steps(1)
    served = service(pool(10, segments=[(0.1, 10)]), grid=grid, demand=10, value=0.0, tiers=())
    made = problem(grid, [miners(1, grid=grid, th_per_s=[9.0])], limit=1.0, inference=[served])
    checked, notes = check(made)
    assert notes == ()
    model = build(checked)
    _, solution = solved(checked)
    assert solution.values[model.segments[0][0, 0]] == pytest.approx(1.0)


def test_contradictions_that_the_data_do_not_show_are_softened() -> None:
    """A start limit of 0 keeps all loads off, an award of 1 MW wants one on: no solution, then 1 MWh short."""
    grid = steps(1)
    group = miners(3, grid=grid, running=0, start_limits=(StartLimit(0, 1, 0.0),))
    checked, notes = check(problem(grid, [group], awards=(Award(0, np.ones(1)),)))
    assert notes == ()
    assert not solve_with_highs(build(checked).program, 20.0).optimal
    assert "promises contradict each other: 1 without a price" in soften(checked)[1][-1]
    softer, solution = solved(checked)
    assert build(softer).program.objective(solution.values) == pytest.approx(-LAST_RESORT_PER_MWH)


def test_gaps_of_the_price_are_filled_from_before() -> None:
    checked, _ = check(with_site(price_per_mwh=np.array([NAN, 30.0, math.inf])))
    assert checked.site.price_per_mwh.tolist() == [30.0, 30.0, 30.0]


_SOUND = st.floats(-10.0, 100.0)
_GARBAGE = st.one_of(
    _SOUND, st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.0, -1.0, 1e-300, 1e9, -math.inf])
)
_TARGETS: tuple[tuple[str, Callable[[Any], Problem]], ...] = (
    *(
        (name, lambda v, n=name: with_site(**{n: v}))
        for name in facility().site.__dataclass_fields__
        if "charges" not in name
    ),
    ("limit", lambda v: with_circuit(0, limit_mw=v)),
    ("feeder limit", lambda v: with_circuit(1, limit_mw=v)),
    ("cooling", lambda v: with_circuit(1, cooling=(Cooling(np.full(3, 0.2), v),))),
    ("cooling slope", lambda v: with_circuit(1, cooling=(Cooling(v, np.zeros(3)),))),
    ("start cost", lambda v: with_group(start_cost=v)),
    ("least on", lambda v: with_group(least_on=v)),
    ("most on", lambda v: with_group(most_on=v)),
    ("most and least on", lambda v: with_group(most_on=v, least_on=v[::-1])),
    ("demand", lambda v: with_service(demand_tokens_per_s=v)),
    ("must serve", lambda v: with_service(demand_tokens_per_s=v, tiers=())),
    ("award", lambda v: with_part("awards", mw=v)),
    ("ramp up", lambda v: with_part("ramps", up_mw=v)),
    ("ramp down", lambda v: with_part("ramps", down_mw=v)),
    ("points", lambda v: facility(most_mw=v, th_per_s=np.ones(3))),
    ("mean", lambda v: facility(most_mw=np.ones(3), mean_mw=v, th_per_s=np.ones(3))),
    ("hashrate", lambda v: facility(most_mw=np.full(3, 0.3), th_per_s=v)),
    ("segments", lambda v: with_pool(segment_mw=v[:2])),
    ("slopes", lambda v: with_pool(tokens_per_s_per_mw=v[:2])),
    ("times", lambda v: with_group(min_on_s=v[0], min_off_s=v[1])),
    ("budgets", lambda v: with_part("accounts", curtailment=(Budget(0, 3, v[0]),), uptime=(Budget(0, 3, v[1]),))),
    ("charge", lambda v: with_site(demand_charges=(DemandCharge(0, 3, v[0], v[1]),))),
)


@settings(max_examples=150, deadline=None)
@example(target=next(one for one in _TARGETS if one[0] == "points"), values=[2.2250738585072014e-308, 0.0, 1.0])
@given(
    target=st.sampled_from(_TARGETS),
    values=st.one_of(st.lists(_GARBAGE, min_size=3, max_size=3), st.lists(_SOUND, min_size=3, max_size=3)),
)
def test_garbage_is_refused_or_solved(target: tuple[str, Callable[[Any], Problem]], values: list[float]) -> None:
    try:
        checked, _ = check(target[1](np.array(values)))
    except PlanningError:
        return
    solved(checked)


@settings(max_examples=60, deadline=None)
@given(problems(), st.data())
def test_whatever_contradicts_itself_has_a_solution_when_softened(made: Problem, data: st.DataObject) -> None:
    """Nothing has a price, what must run may be more than what may, and a start may be forbidden."""
    whole = st.lists(st.integers(0, 6), min_size=made.grid.count, max_size=made.grid.count).map(np.array)
    hard = replace(
        made,
        circuits=tuple(replace(each, slack_per_mwh=None) for each in made.circuits),
        mining=tuple(
            replace(
                group,
                least_on=data.draw(whole),
                most_on=data.draw(whole),
                start_limits=(StartLimit(0, made.grid.count, data.draw(st.sampled_from([0.0, 2.0]))),),
            )
            for group in made.mining
        ),
        inference=tuple(replace(of, tiers=of.tiers[:1]) for of in made.inference),
        accounts=tuple(
            Account(
                each.id,
                tuple(replace(budget, slack_price=None) for budget in each.curtailment),
                tuple(replace(budget, slack_price=None) for budget in each.uptime),
            )
            for each in made.accounts
        ),
        awards=tuple(replace(award, slack_per_mwh=None) for award in made.awards),
        ramps=tuple(replace(ramp, slack_per_mwh=None) for ramp in made.ramps),
    )
    solved(check(hard)[0])
