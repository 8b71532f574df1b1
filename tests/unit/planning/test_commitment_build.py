"""Programs of commitment: a pattern that stays, rows that say what they should, money that another sum agrees with."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullet.planning.commitment.build import build
from mullet.planning.commitment.certificate import Schedule, evaluate, violations
from mullet.planning.commitment.highs import solve_with_highs
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

HOURS = (5 / 60, 5 / 60, 0.25, 0.25, 1.0, 1.0)
STEPS = len(HOURS)


def grid(hours: tuple[float, ...] = HOURS) -> Grid:
    lengths = np.array(hours)
    return Grid(np.concatenate([[0.0], np.cumsum(lengths)[:-1]]) * 3600.0, lengths)


def miners(key: str, circuit: int, count: int = 10, most_per_mean: float = 1.05, **changes: Any) -> Mining:
    mean = np.array([1.0, 0.4])
    steps = changes.pop("steps", STEPS)
    given_: dict[str, Any] = {
        "most_mw": mean * most_per_mean,
        "mean_mw": mean,
        "th_per_s": np.array([2.0, 0.6]),
        "start_cost": np.full(steps, 3.0),
        "running": np.array([count // 2, count // 2]),
        **changes,
    }
    return Mining(key=key, circuit=circuit, count=count, **given_)


def site(steps: int = STEPS, price: float = 40.0, **changes: Any) -> Site:
    level = np.ones(steps)
    given_: dict[str, Any] = {
        "price_per_mwh": price * level,
        "adder_per_mwh": 2.0 * level,
        "coincident_per_mwh": 0.0 * level,
        "earned_per_th_hour": 30.0 * level,
        "fixed_mw": 1.5 * level,
        "ppa_mw": 0.0 * level,
        **changes,
    }
    return Site(**given_)


def facility(seed: int = 0, **shape: Any) -> Problem:
    """Return a problem in which every family of rows occurs, with numbers by the seed."""
    draw = np.random.default_rng(seed)

    def about(low: float, high: float) -> np.ndarray:
        return draw.uniform(low, high, STEPS)

    cooling = (Cooling(about(0.02, 0.05), about(0.0, 0.1)), Cooling(about(0.1, 0.2), -about(1.0, 3.0)))
    circuits = (
        CircuitLimit("grid", -1, about(40, 60), cooling=cooling),
        CircuitLimit("feeder", 0, about(15, 35), follow=0.03, slack_per_mwh=900.0),
        CircuitLimit("hall", 1, about(8, 20), follow=0.02),
        CircuitLimit("rack", 0, about(8, 20)),
    )
    mining = (
        miners(
            "a", 2, 12, start_cost=about(0, 9), min_on_s=1800.0, min_off_s=1800.0, account=0,
            least_on=np.array([2, 1, 0, 0, 0, 0]), most_on=np.array([9, 12, 12, 12, 12, 12]),
        ),
        miners("b", 1, 9, shape.get("share", 1.2), start_cost=about(0, 9), min_off_s=4000.0, account=1),
        miners("c", 3, 5, start_cost=about(0, 9), start_limits=(StartLimit(0, 4, 1.0), StartLimit(4, 6, 2.0))),
    )  # fmt: skip
    pools = (
        Pool("warm", 3, 20, 4, 0.05, 900.0, np.array([0.1, 0.05]), np.array([9e3, 4e3])),
        Pool("fixed", 0, 10, 10, 0.0, 500.0, np.array([0.1]), np.array([5e3])),
    )
    tiers = (Tier(0.2, 0.5), Tier(0.8, 30.0))
    services = (Inference("chat", pools, about(1e4, 5e4), 4.0, tiers),)
    market = site(
        price_per_mwh=about(5, 140),
        coincident_per_mwh=about(0, 10),
        ppa_mw=about(0, 12),
        sell_per_mwh=about(0, 5),
        demand_charges=(DemandCharge(0, 3, 40.0, 10.0), DemandCharge(2, 6, 70.0, 14.0)),
    )
    accounts = (
        Account("own", curtailment=(Budget(0, 3, 2.0, 60.0), Budget(3, 6, 4.0, 60.0))),
        Account("guest", curtailment=(Budget(0, 6, 9.0, 60.0),), uptime=(Budget(1, 5, 6.0, 8.0),)),
    )
    awards = (Award(0, about(1, 9), 500.0), Award(1, about(1, 4), 500.0))
    ramps = (Ramp(0, about(2, 9), about(2, 9), 5.0, 15.0, 800.0), Ramp(3, about(2, 9), about(2, 9), 1.0, 4.0, 800.0))
    return Problem(grid(), circuits, mining, services, market, accounts, awards, ramps)


def solved(problem: Problem) -> tuple[Model, Solution, float]:
    model = build(problem)
    solution = solve_with_highs(model.program, 20.0)
    assert solution.optimal, solution.status
    assert model.program.violation(solution.values) < 1e-6
    return model, solution, model.program.objective(solution.values)


def schedule_of(model: Model, solution: Solution) -> Schedule:
    x = solution.values
    return Schedule(
        at_least=tuple(x[places] for places in model.at_least),
        starts=tuple(x[places] for places in model.starts),
        pool_mw=tuple(x[places].sum(axis=0) for places in model.segments),
        active=tuple(x[places] for places in model.active),
    )


def alone(group: Mining, market: Site, limit: float = 1e3, **more: Any) -> Problem:
    """Return a problem of one group on one circuit; the group's steps are those of the market."""
    steps = len(market.price_per_mwh)
    hours = more.pop("hours", (1.0,) * steps)
    return Problem(grid(hours), (CircuitLimit("grid", -1, np.full(steps, limit)),), (group,), (), market, **more)


# The pattern


def test_every_row_has_one_family_and_every_family_its_shape() -> None:
    problem = facility()
    model = build(problem)
    places = np.concatenate([family[family >= 0] for family in model.rows.values()])
    assert sorted(places) == list(range(len(model.program.row_low)))
    circuits, groups, steps = 4, 3, STEPS
    shapes = {family: places.shape for family, places in model.rows.items()}
    assert shapes == {
        "order": (groups, 1, steps),
        "start": (groups, steps),
        "min_on": (groups, steps),
        "min_off": (groups, steps),
        "start_limit": (groups, 2),
        "demand": (1, steps),
        "serve": (1, steps),
        "segment": (2, 2, steps),
        **dict.fromkeys(("circuit", "slack", "mean", "managed", "managed_mean", "mining"), (circuits, steps)),
        "cooling": (2, steps),
        "cooling_mean": (2, steps),
        "cooling_cap": (circuits, steps),
        "cooling_cap_mean": (circuits, steps),
        "energy": (steps,),
        "bought": (steps,),
        "left_cap": (steps,),
        "peak": (2, steps),
        "award": (2, steps),
        "ramp_up": (2, steps),
        "ramp_down": (2, steps),
        "account_mw": (2, steps),
        "account_running": (2, steps),
        "curtailment": (2, 2),
        "uptime": (2, 1),
    }
    assert {family: places.shape for family, places in model.slacks.items()} == {
        "slack": (circuits, steps),
        "award": (2, steps),
        "ramp": (2, steps),
        "curtailment": (2, 2),
        "uptime": (2, 1),
    }


def test_no_place_of_the_matrix_is_written_twice() -> None:
    program = build(facility()).program
    of_row = np.repeat(np.arange(len(program.row_low)), np.diff(program.starts))
    places = of_row * len(program.gain) + program.columns
    assert len(np.unique(places)) == len(places)


def test_counts_alone_are_whole() -> None:
    model = build(facility())
    counted = np.concatenate([p.ravel() for p in (*model.at_least, *model.starts)])
    assert sorted(np.flatnonzero(model.program.whole)) == sorted(counted)


def test_the_pattern_stays_when_numbers_change() -> None:
    here = facility(0)
    zeros = np.zeros(STEPS)
    dead = replace(
        here.site,
        price_per_mwh=zeros,
        adder_per_mwh=zeros,
        coincident_per_mwh=zeros,
        earned_per_th_hour=zeros,
        fixed_mw=zeros,
        ppa_mw=zeros,
        demand_charges=(DemandCharge(0, 6, 0.0, 0.0), DemandCharge(5, 5, 0.0, 0.0)),
    )
    others = (
        facility(1),
        replace(here, site=dead),
        replace(here, circuits=tuple(replace(c, limit_mw=zeros) for c in here.circuits)),
        replace(here, inference=tuple(replace(s, demand_tokens_per_s=zeros) for s in here.inference)),
        replace(
            here,
            mining=tuple(
                replace(g, least_on=None, most_on=None, start_cost=zeros, running=np.zeros(2, dtype=np.int64))
                for g in here.mining
            ),
        ),
        replace(
            here,
            mining=(
                *here.mining[:2],
                replace(here.mining[2], start_limits=(StartLimit(1, 2, 0.0), StartLimit(0, 6, 9.0))),
            ),
        ),
        replace(here, awards=tuple(replace(a, mw=zeros) for a in here.awards)),
        replace(
            here,
            accounts=(
                replace(here.accounts[0], curtailment=(Budget(0, 1, 0.0, 0.0), Budget(1, 6, 1.0, 9.0))),
                here.accounts[1],
            ),
        ),
    )
    program = build(here).program
    for other in others:
        assert program.same_pattern(build(other).program)


def test_the_pattern_tells_structures_apart() -> None:
    here = facility()
    fewer = replace(here, mining=here.mining[:2])
    hard = replace(here, awards=tuple(replace(award, slack_per_mwh=None) for award in here.awards))
    for other in (fewer, hard):
        assert not build(here).program.same_pattern(build(other).program)


def test_a_common_share_of_expected_power_costs_no_variables() -> None:
    circuits = (
        CircuitLimit("grid", -1, np.full(STEPS, 50.0)),
        CircuitLimit("hall", 0, np.full(STEPS, 50.0), follow=0.1),
        CircuitLimit("rack", 0, np.full(STEPS, 50.0)),
    )
    groups = (miners("a", 1), miners("b", 1), miners("c", 2))
    common = build(Problem(grid(), circuits, groups, (), site()))
    for family in ("mean", "managed", "managed_mean", "mining"):
        assert np.all(common.rows[family] == -1)
    mixed = build(Problem(grid(), circuits, (miners("a", 1, most_per_mean=1.2), *groups[1:]), (), site()))
    assert len(mixed.program.gain) - len(common.program.gain) == 2 * STEPS
    assert np.all(mixed.rows["mean"][:2] >= 0)
    assert np.all(mixed.rows["mean"][2] == -1)


# Money and power, against an independent sum


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([1.05, 1.2]))
def test_the_objective_is_the_money_that_the_schedule_earns(seed: int, share: float) -> None:
    problem = facility(seed, share=share)
    model, solution, objective = solved(problem)
    schedule = schedule_of(model, solution)
    judged = evaluate(problem, schedule)
    assert judged.earned == pytest.approx(objective, rel=1e-6, abs=1e-5)
    assert violations(problem, schedule, whole=False) == ()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_power_is_what_the_tree_adds_up_to(seed: int) -> None:
    problem = facility(seed)
    model, solution, _ = solved(problem)
    x = solution.values
    judged = evaluate(problem, schedule_of(model, solution))
    # Cooling above its curve is allowed up to the chord, and never pays at a positive price but where a limit has one.
    assert np.all(x[model.circuit_mw] >= judged.circuit_mw - 1e-6)
    assert x[model.import_mw] == pytest.approx(judged.import_mw, abs=1e-5)


# How long loads stay on and off


@settings(max_examples=300, deadline=None)
@given(
    running=st.integers(0, 1),
    path=st.lists(st.integers(0, 1), min_size=STEPS, max_size=STEPS),
    min_on_s=st.sampled_from([0.0, 300.0, 600.0, 900.0, 1500.0, 3600.0, 1e6]),
    min_off_s=st.sampled_from([0.0, 300.0, 600.0, 900.0, 1500.0, 3600.0, 1e6]),
)
def test_one_load_may_do_what_its_dwell_allows(
    running: int, path: list[int], min_on_s: float, min_off_s: float
) -> None:
    group = miners("a", 0, 1, running=np.array([running, 0]), min_on_s=min_on_s, min_off_s=min_off_s)
    model = build(alone(group, site(), hours=HOURS))
    state = [running, *path]
    changes = [(t, state[t + 1]) for t in range(STEPS) if state[t + 1] != state[t]]
    starts_s = grid().starts_s
    allowed = all(
        starts_s[later] - starts_s[earlier] >= (min_on_s if became else min_off_s) - 1e-6
        for (earlier, became), (later, _) in itertools.pairwise(changes)
    )
    x = np.zeros(len(model.program.gain))
    x[model.at_least[0][0]] = path
    x[model.starts[0]] = [float(state[t + 1] > state[t]) for t in range(STEPS)]
    kept = np.concatenate([model.rows[f][model.rows[f] >= 0] for f in ("order", "start", "min_on", "min_off")])
    products = model.program.products(x)[kept]
    holds = np.all(products >= model.program.row_low[kept]) and np.all(products <= model.program.row_high[kept])
    assert bool(holds) == allowed


def test_a_window_of_one_step_needs_no_row() -> None:
    group = miners("a", 0, min_on_s=900.0, min_off_s=900.0)
    model = build(alone(group, site(), hours=HOURS))
    # Steps begin at 0, 5, 10, 25, 40 and 100 minutes.
    assert [int(t) for t in np.flatnonzero(model.rows["min_on"][0] >= 0)] == [1, 2]
    assert [int(t) for t in np.flatnonzero(model.rows["min_off"][0] >= 0)] == [2]


# Corners


def test_cooling_does_not_grow_to_burn_energy_that_pays() -> None:
    cooling = (Cooling(np.array([0.1]), np.array([0.5])), Cooling(np.array([0.3]), np.array([-1.0])))
    group = miners("a", 0, 10, steps=1, th_per_s=np.array([0.0, 0.0]), least_on=np.array([10]))
    problem = alone(group, site(1, price=-50.0, adder_per_mwh=np.zeros(1)))
    problem = replace(problem, circuits=(replace(problem.circuits[0], cooling=cooling),))
    model, solution, _ = solved(problem)
    # All at their highest: 14 MW of load, 3.2 MW of cooling, 1.5 MW fixed.
    assert solution.values[model.import_mw] == pytest.approx([14.0 + 3.2 + 1.5])


def test_power_bought_ahead_is_not_left_to_buy_at_a_negative_price() -> None:
    group = miners("a", 0, 10, steps=1, most_per_mean=1.0, start_cost=np.zeros(1))
    market = site(1, price=-50.0, adder_per_mwh=np.zeros(1), ppa_mw=np.array([4.0]), fixed_mw=np.array([5.0]))
    _, _, objective = solved(alone(group, market))
    assert objective == pytest.approx(30.0 * 26.0 + 50.0 * (14.0 + 5.0 - 4.0))


def test_gpus_make_no_more_than_is_asked_however_cheap_energy_is() -> None:
    pool = Pool("p", 0, 10, 0, 0.1, 0.0, np.array([1.0]), np.array([1e3]))
    service = Inference("s", (pool,), np.array([2e3]), 1.0, (Tier(1.0, 0.0),))
    idle = miners("a", 0, 0, steps=1)
    problem = replace(alone(idle, site(1, price=-50.0)), inference=(service,))
    model, solution, _ = solved(problem)
    assert solution.values[model.segments[0]] == pytest.approx(np.array([[2.0]]))


def test_demand_charges_count_power_bought_ahead() -> None:
    group = miners("a", 0, 4, steps=1, least_on=np.array([4]), th_per_s=np.zeros(2))
    market = site(1, ppa_mw=np.array([3.0]), fixed_mw=np.zeros(1), demand_charges=(DemandCharge(0, 1, 10.0, 2.5),))
    model, solution, objective = solved(alone(group, market))
    assert solution.values[model.peaks_mw] == pytest.approx([1.5])
    # Two loads start; 1 MWh is bought.
    assert objective == pytest.approx(-2 * 3.0 - 42.0 - 15.0)


def test_a_group_without_loads_or_steps_is_planned_for_nothing() -> None:
    nothing = np.zeros(0)
    curve: dict[str, Any] = {
        "most_mw": nothing,
        "mean_mw": nothing,
        "th_per_s": nothing,
        "running": np.zeros(0, dtype=np.int64),
    }
    stepless = miners("b", 0, 3, min_on_s=600.0, **curve)
    problem = alone(miners("a", 0, 0, min_on_s=600.0, min_off_s=600.0), site(), hours=HOURS)
    problem = replace(problem, mining=(*problem.mining, stepless))
    model, _, objective = solved(problem)
    assert np.all(model.starts[1] == -1)
    assert model.at_least[1].shape == (0, STEPS)
    assert objective == pytest.approx(-42.0 * 1.5 * sum(HOURS))


def test_a_facility_without_mining_has_nothing_droppable() -> None:
    problem = alone(miners("a", 0), site(), hours=HOURS)
    problem = replace(
        problem,
        mining=(),
        awards=(Award(0, np.full(STEPS, 2.0), 100.0),),
        ramps=(Ramp(0, np.ones(STEPS), np.ones(STEPS), 0.0, 0.0, 100.0),),
        accounts=(Account("own", (Budget(0, 6, 1.0, 5.0),), (Budget(0, 6, 7.0, 5.0),)),),
    )
    model, solution, objective = solved(problem)
    assert solution.values[model.slacks["award"]] == pytest.approx(np.full((1, STEPS), 2.0))
    assert objective == pytest.approx(-42.0 * 1.5 * sum(HOURS) - 200.0 * sum(HOURS) - 35.0)


def test_a_promise_without_a_price_cannot_be_missed() -> None:
    problem = replace(alone(miners("a", 0, 2), site(), hours=HOURS), awards=(Award(0, np.full(STEPS, 9.0)),))
    model = build(problem)
    assert np.all(model.slacks["award"] == -1)
    assert not solve_with_highs(model.program, 20.0).optimal
