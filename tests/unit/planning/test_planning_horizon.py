"""Plans: optimal or greedy or shifted or safe, each one passes the same guard."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planning_kit import AT, S19, S21, circuit, facility, gpu, miner, small

from mullet.domain.facility import Pacing, Service
from mullet.domain.feeds import Cause, Curtailment, PriceCurve, PriceInterval
from mullet.domain.load import LoadKind
from mullet.domain.plan import Forecast, Obligations, PlanRequest, Rung
from mullet.planning.commitment.clp import WarmClp
from mullet.planning.commitment.linear import Solution
from mullet.planning.commitment.solvers import Solvers
from mullet.planning.frame import edges, frame
from mullet.planning.greedy import plan_merit_order
from mullet.planning.guard import guard
from mullet.planning.horizon import HorizonPlanner, plan_horizon
from mullet.planning.ladder import safe_plan, shift_plan
from mullet.ports import PlanningError

HORIZON_S = 30 * 3_600.0


def prices(*values, step_s=3_600.0):
    start = math.floor(AT / 3_600.0) * 3_600.0
    count = int(HORIZON_S / step_s)
    return PriceCurve(
        tuple(
            PriceInterval(start + n * step_s, start + (n + 1) * step_s, values[n % len(values)]) for n in range(count)
        )
    )


def request(plant, curve=None, needs=None, running=None, available=None, fixed=None, **obligations):
    ids = frozenset(load.id for load in plant.loads) if available is None else frozenset(available)
    return PlanRequest(
        facility=plant,
        at=AT,
        forecast=Forecast(curve or prices(40.0), 50.0, needs if needs is not None else {"chat": 1_000.0}),
        obligations=Obligations(**obligations),
        available=ids,
        fixed_watts=fixed or {},
        running=frozenset(running if running is not None else []),
    )


FREE = replace(Pacing(), economic_ramp_per_s=10.0, max_cycles_per_day=100)


def on(plan, interval=0):
    total = 0
    for group in plan.groups:
        if group.kind is LoadKind.MINER:
            total += sum(plan.intervals[interval].counts[group.key][1:])
    return total


def test_the_grid_is_aligned_and_has_no_gaps():
    found = edges(AT + 7.0, ((300.0, 12), (900.0, 12), (3_600.0, 20)))
    assert found[0][0] == AT + 7.0
    assert all(a[1] == b[0] for a, b in itertools.pairwise(found))
    assert all(start % step == 0.0 for start, _, step in found[1:])
    assert found[-1][1] - AT > 23 * 3_600.0
    assert edges(AT, ((60.0, 2),))[-1][1] <= AT + 120.0


@pytest.mark.parametrize("make", [lambda r: plan_horizon(r, 5.0), plan_merit_order, safe_plan])
def test_every_planner_passes_the_guard(make):
    plant = small(pacing=FREE)
    asked = request(plant, prices(30.0, 100.0, 300.0, -20.0), running=["m0", "m1"])
    assert guard(make(asked), asked) == ()


def test_the_optimal_plan_runs_when_it_pays_and_rests_when_it_does_not():
    plant = small(pacing=FREE)
    plan = plan_horizon(request(plant, prices(30.0, 300.0)), 5.0)
    assert plan.rung is Rung.OPTIMAL
    for number, interval in enumerate(plan.intervals):
        if interval.price_per_mwh == 300.0:
            assert on(plan, number) == 0
        elif interval.price_per_mwh == 30.0:
            assert on(plan, number) == 14, "all of them, two at their lower point so that the connection carries it"
    assert plan.objective > 0.0
    assert plan.bound is not None
    assert plan.objective <= plan.bound
    assert plan.objective >= 0.97 * plan.bound
    assert max(interval.shadow_price_per_mwh.get("grid", 0.0) for interval in plan.intervals) == pytest.approx(
        70.8 - 30.0, abs=4.0
    )
    assert all("pdu-m" not in interval.shadow_price_per_mwh for interval in plan.intervals)


def test_the_optimal_plan_is_not_worse_than_the_merit_order():
    plant = small(pacing=FREE)
    asked = request(plant, prices(69.0, 74.0, 60.0, 130.0, 90.0, 20.0))
    optimal, greedy = plan_horizon(asked, 5.0), plan_merit_order(asked)
    assert optimal.objective >= greedy.objective - 1e-9
    assert optimal.bound is not None
    assert optimal.bound >= greedy.objective - 1e-9


def test_a_start_that_does_not_earn_itself_back_is_not_made():
    plant = small(pacing=FREE, economics=replace(small().economics, deadband_per_mwh=40.0))
    spike = PriceCurve((PriceInterval(AT, AT + 300.0, 65.0), PriceInterval(AT + 300.0, AT + HORIZON_S, 500.0)))
    asked = request(plant, spike)
    assert on(plan_horizon(asked, 5.0)) < on(plan_horizon(request(plant, prices(65.0)), 5.0)) + 1
    loads = [load.id for load in plant.loads if load.circuit == "pdu-ai" and load.kind is LoadKind.MINER]
    kept = plan_horizon(request(plant, spike, running=loads), 5.0)
    group = next(g.key for g in kept.groups if set(g.load_ids) == set(loads))
    assert kept.intervals[0].counts[group][-1] == 4
    assert plan_horizon(asked, 5.0).intervals[0].counts[group][-1] == 0


def test_ceilings_bind_the_intervals_they_touch():
    plant = small(pacing=FREE)
    ceiling = Curtailment("c", "pdu-m", 8_000.0, AT + 4_000.0, AT + 7_000.0, Cause.DEMAND_RESPONSE, AT)
    asked = request(plant, prices(10.0), curtailments=(ceiling,))
    plan = plan_horizon(asked, 5.0)
    for interval in plan.intervals:
        touched = interval.start < AT + 7_000.0 and interval.end > AT + 4_000.0
        assert (interval.budget_watts["pdu-m"] <= 8_000.0) is touched
    assert guard(plan, asked) == ()
    without = replace(asked, obligations=Obligations())
    assert any("pdu-m" in words for words in guard(plan_horizon(without, 5.0), asked))


def test_inference_is_served_before_mining_in_every_plan():
    plant = small(pacing=FREE, ai_watts=3_000.0, services=(Service("chat", 2.0, reserve_watts=300.0),))
    asked = request(plant, prices(1.0), needs={"chat": 2_600.0})
    for plan in (plan_horizon(asked, 5.0), plan_merit_order(asked)):
        group = next(g.key for g in plan.groups if g.kind is LoadKind.MINER and g.circuit == "pdu-ai")
        assert plan.intervals[0].counts[group] == (4, 0)
        assert plan.intervals[0].budget_watts["pdu-ai"] == pytest.approx(2_600.0 + 4 * 15.75)
        assert guard(plan, asked) == ()


def test_the_ramp_is_kept():
    plant = small(pacing=replace(Pacing(), economic_ramp_per_s=0.1 / 300.0))
    plan = plan_horizon(request(plant, prices(10.0)), 5.0)
    steps = [interval.budget_watts["grid"] for interval in plan.intervals[:8]]
    assert steps[0] < 12_000.0
    assert all(b - a <= 0.1 * 50_000.0 + 3_700.0 for a, b in itertools.pairwise(steps))


def test_reserves_keep_mining_armed_though_it_loses_money():
    plant = small(pacing=FREE)
    plan = plan_horizon(request(plant, prices(300.0), reserve_watts={"pdu-m": 10_000.0}), 5.0)
    assert plan.intervals[0].budget_watts["pdu-m"] >= 10_000.0 - 3_700.0


class Mute(WarmClp):
    """A solver that never has an answer."""

    def __call__(self, program, limit_s):
        nothing = np.zeros(0)
        return Solution(False, nothing, nothing, nothing, "infeasible")


def test_a_solver_that_fails_or_lies_is_not_believed():
    asked = request(small())
    right = plan_horizon(asked, 5.0)
    second = HorizonPlanner(Solvers(Mute()))(asked, 5.0)
    assert second.rung is Rung.SECOND
    assert second.objective == pytest.approx(right.objective, rel=1e-6)
    assert second.bound == pytest.approx(right.bound, rel=1e-6)
    with pytest.raises(PlanningError, match="infeasible"):
        HorizonPlanner(Solvers(Mute(), Mute()))(asked, 1.0)

    def liar(program, limit):
        nothing = np.zeros(0)
        return Solution(True, program.high * 2.0 + 1.0, nothing, nothing, "optimal", 1e9)

    with pytest.raises(PlanningError, match="no optimum"):
        HorizonPlanner(Solvers(Mute(), liar))(asked, 1.0)


def test_a_missing_price_is_the_fallback_and_never_nothing():
    plant = small(pacing=FREE)
    asked = request(plant, PriceCurve(()))
    made = frame(asked)
    assert made.gaps == len(made.slots)
    assert {slot.market.price_per_mwh for slot in made.slots} == {100.0}


def test_the_last_plan_moves_on_until_it_ends():
    plant = small(pacing=FREE)
    plan = plan_horizon(request(plant, prices(30.0)), 5.0)
    moved = shift_plan(plan, AT + 1_000.0)
    assert moved is not None
    assert (moved.rung, moved.intervals[0].start) == (Rung.SHIFTED, AT + 1_000.0)
    later = replace(request(plant, prices(30.0)), at=AT + 1_000.0)
    assert guard(moved, later) == ()
    lost = replace(later, available=later.available - {"m0", "m1"})
    assert guard(moved, lost) == ()
    assert guard(plan, replace(later, at=plan.valid_until + 1.0))
    assert shift_plan(plan, plan.intervals[-1].end + 1.0) is None


def spoil(plan, **changes):
    return replace(plan, intervals=(replace(plan.intervals[0], **changes), *plan.intervals[1:]))


def test_the_guard_finds_what_is_wrong():
    plant = small(pacing=FREE)
    asked = request(plant, prices(30.0))
    plan = plan_horizon(asked, 5.0)
    first = plan.intervals[0]
    mining = next(g.key for g in plan.groups if g.circuit == "pdu-m")
    cases = {
        "places": spoil(plan, counts={**first.counts, mining: (0, 0, 9)}),
        "no number of loads": spoil(plan, counts={**first.counts, mining: (11, 0, -1)}),
        "count for each": spoil(plan, counts={**first.counts, mining: (10,)}),
        "unknown group": spoil(plan, counts={**first.counts, "ghost": (1,)}),
        "is given": spoil(plan, budget_watts={**first.budget_watts, "grid": 60_000.0}),
        "budget of": spoil(plan, budget_watts={**first.budget_watts, "pdu-m": math.nan}),
        "below what its counts": spoil(plan, budget_watts={**first.budget_watts, "pdu-m": 10.0}),
        "inference gets": spoil(plan, budget_watts={**first.budget_watts, "grid": first.budget_watts["grid"] - 500.0}),
        "price is not": spoil(plan, price_per_mwh=math.nan),
        "expired": replace(plan, valid_until=AT - 1.0),
        "future": replace(plan, made_at=AT + 5.0),
        "not a number": replace(plan, objective=math.inf),
        "no intervals": replace(plan, intervals=()),
        "gap or overlap": replace(plan, intervals=(plan.intervals[0], *plan.intervals[2:])),
        "holds the present": replace(plan, intervals=plan.intervals[1:]),
        "is missing": replace(plan, groups=plan.groups[1:]),
        "is not the facility's": replace(plan, groups=(replace(plan.groups[0], load_ids=("x",)), *plan.groups[1:])),
    }
    for words, spoiled in cases.items():
        assert any(words in problem for problem in guard(spoiled, asked)), (words, guard(spoiled, asked))


@st.composite
def requests(draw):
    circuits = [
        circuit("g", None, draw(st.floats(1_000.0, 60_000.0))),
        circuit("p", "g", draw(st.floats(1_000.0, 40_000.0))),
        circuit("q", "g", draw(st.floats(1_000.0, 40_000.0))),
    ]
    loads = []
    for n in range(draw(st.integers(1, 12))):
        where = draw(st.sampled_from(["p", "q"]))
        if draw(st.integers(0, 3)) == 0:
            loads.append(gpu(f"l{n}", where))
        else:
            loads.append(miner(f"l{n}", where, draw(st.sampled_from([S19, S21]))))
    plant = facility(
        circuits,
        loads,
        (Service("chat", 1.0, reserve_watts=draw(st.sampled_from([0.0, 400.0]))),),
        pacing=replace(Pacing(), economic_ramp_per_s=draw(st.sampled_from([10.0, 1e-4]))),
        grid_steps=((300.0, 3), (900.0, 2)),
    )
    ids = [load.id for load in loads]
    available = draw(st.sets(st.sampled_from(ids)))
    running = draw(st.sets(st.sampled_from(sorted(available)))) if available else set()
    series = prices(*draw(st.lists(st.floats(-100.0, 500.0), min_size=1, max_size=4)), step_s=300.0)
    fixed = {"g": draw(st.sampled_from([0.0, 900.0, 5_000.0]))}
    return request(plant, series, {"chat": draw(st.floats(0.0, 5_000.0))}, running, available, fixed)


@given(requests())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_asked_every_rung_passes_the_guard(asked):
    for plan in (plan_horizon(asked, 5.0), plan_merit_order(asked), safe_plan(asked)):
        assert guard(plan, asked) == ()


def test_the_same_request_gives_the_same_plan():
    asked = request(small(pacing=FREE), prices(30.0, 70.0, 90.0))
    assert plan_horizon(asked, 5.0) == plan_horizon(asked, 5.0)
