from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from commitment_kit import random_problem, relax
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mullet.planning.commitment.certificate import TOLERANCE, Schedule, evaluate, violations
from mullet.planning.commitment.problem import Mining, Problem
from mullet.planning.commitment.schedule import hint_of, relaxed_schedule, round_schedule, schedule_of

Ints = NDArray[np.int64]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1_000_000))
def test_a_rounded_schedule_breaks_nothing_and_earns_no_more_than_the_bound(seed: int) -> None:
    problem = random_problem(seed)
    model, solution = relax(problem)
    assume(solution is not None)
    assert solution is not None
    schedule = round_schedule(model, solution.values)
    bound = model.program.objective(solution.values)
    assert violations(problem, schedule) == ()
    assert evaluate(problem, schedule).earned <= bound + 1e-6 * max(1.0, abs(bound))


@settings(max_examples=12, deadline=None)
@example(100_000)  # one load, whose circuit could be broken to mend three promises
@given(st.integers(0, 1_000_000))
def test_what_has_no_price_holds_where_only_promises_may_be_missed(seed: int) -> None:
    """Whole loads cannot always keep an award or a budget exactly; circuits and minimum times are kept regardless."""
    problem = random_problem(seed, priced=False)
    model, solution = relax(problem)
    assume(solution is not None)
    assert solution is not None
    broken = violations(problem, round_schedule(model, solution.values))
    promises = ("droppable", "budget", "promised", "too far")
    assert [words for words in broken if not any(promise in words for promise in promises)] == []


@settings(max_examples=12, deadline=None)
@example(490)  # energy earns, and whole GPUs would make more tokens than may be wasted
@example(1104)  # a circuit is over its limit by half a watt, which is within the tolerance of the certificate
@given(st.integers(0, 1_000_000))
def test_a_schedule_survives_the_way_through_the_program(seed: int) -> None:
    problem = random_problem(seed)
    model, solution = relax(problem)
    assume(solution is not None)
    assert solution is not None
    schedule = round_schedule(model, solution.values)
    values = hint_of(model, schedule)
    assert model.program.violation(values) <= 2.0 * TOLERANCE, "the certificate's own and the solver's"
    back = schedule_of(model, values)
    for name in ("at_least", "starts", "active"):
        for here, there in zip(getattr(schedule, name), getattr(back, name), strict=True):
            assert np.array_equal(here, there)
    for here, there in zip(schedule.pool_mw, back.pool_mw, strict=True):
        assert here == pytest.approx(there, abs=1e-9)
    # The program may earn more only by wasting energy that is given away.
    objective, earned = model.program.objective(values), evaluate(problem, schedule).earned
    assert objective >= earned - 1e-6 * max(1.0, abs(earned))
    if np.all(problem.site.price_per_mwh + problem.site.adder_per_mwh >= 0.0):
        assert objective == pytest.approx(earned, rel=1e-6, abs=1e-6)


def test_the_same_values_give_the_same_schedule() -> None:
    model, solution = relax(random_problem(5))
    assert solution is not None
    first, second = (round_schedule(model, solution.values) for _ in range(2))
    for name in ("at_least", "starts", "pool_mw", "active"):
        for here, there in zip(getattr(first, name), getattr(second, name), strict=True):
            assert np.array_equal(here, there)


def test_rounding_loses_little_against_the_best_of_all_schedules() -> None:
    losses = []
    for seed in range(200):
        problem = _tiny(seed)
        if _choices(problem) > 800:
            continue
        model, solution = relax(problem)
        if solution is None:
            continue
        bound = model.program.objective(solution.values)
        schedule = round_schedule(model, solution.values)
        earned = evaluate(problem, schedule).earned
        best = max(evaluate(problem, other).earned for other in _all(problem) if violations(problem, other) == ())
        size = max(1.0, abs(best))
        assert violations(problem, schedule) == ()
        assert earned - 1e-9 <= best <= bound + 1e-6 * size
        losses.append((best - earned) / size)
        if len(losses) == 25:
            break
    assert len(losses) == 25
    # Nearly all facilities of this size are rounded to the best there is.
    assert np.median(losses) <= 1e-9
    assert np.mean(losses) <= 0.002


def test_however_many_loads_rounding_loses_less_than_one_of_them_per_circuit() -> None:
    judged = 0
    for seed in range(40):
        problem = _scaled(random_problem(seed), 200)
        model, solution = relax(problem)
        if solution is None or np.any(problem.site.price_per_mwh + problem.site.adder_per_mwh < 0.0):
            continue
        schedule = round_schedule(model, solution.values)
        bound = model.program.objective(solution.values)
        one = max(
            float(group.th_per_s.sum() * problem.site.earned_per_th_hour @ problem.grid.hours) + group.start_cost.max()
            for group in problem.mining
        )
        assert violations(problem, schedule) == ()
        assert bound - evaluate(problem, schedule).earned <= len(problem.circuits) * one
        judged += 1
    assert judged >= 15


def test_a_fraction_that_flickers_starts_no_more_loads_than_the_relaxation_pays_for() -> None:
    problem = _tiny(0)
    group = replace(
        problem.mining[0], count=9, running=np.full_like(problem.mining[0].running, 4), least_on=None,
        min_on_s=0.0, min_off_s=0.0, start_limits=(), most_on=None,
    )  # fmt: skip
    problem = replace(problem, mining=(group,))
    model, solution = relax(problem)
    assert solution is not None
    values = solution.values.copy()
    for places in model.at_least[0]:
        values[places] = np.where(np.arange(len(places)) % 2 == 0, 3.95, 4.05)
    relaxed = relaxed_schedule(model, values)
    rounded = round_schedule(model, values)
    assert rounded.starts[0].sum() <= np.ceil(relaxed.starts[0].sum())


def _tiny(seed: int) -> Problem:
    return replace(random_problem(seed, groups=2, loads=2, steps=3), inference=())


def _paths(group: Mining, steps: int) -> list[Ints]:
    levels = len(group.most_mw)
    standing = [
        counts
        for counts in itertools.product(range(group.count + 1), repeat=levels)
        if all(a >= b for a, b in itertools.pairwise(counts))
    ]
    return [np.array(path).T for path in itertools.product(standing, repeat=steps)]


def _choices(problem: Problem) -> int:
    total = 1
    for group in problem.mining:
        total *= len(_paths(group, 1)) ** problem.grid.count
    return total


def _all(problem: Problem) -> Iterator[Schedule]:
    every = [_paths(group, problem.grid.count) for group in problem.mining]
    for counts in itertools.product(*every):
        starts = [
            np.maximum(np.diff(path[0], prepend=group.running[0]), 0)
            for path, group in zip(counts, problem.mining, strict=True)
        ]
        yield Schedule(tuple(counts), tuple(starts), (), ())


def _scaled(problem: Problem, times: int) -> Problem:
    """Return a facility of `times` as many loads and limits; what one load does stays."""
    groups = tuple(
        replace(
            group, count=group.count * times, running=group.running * times, account=-1,
            least_on=None if group.least_on is None else group.least_on * times,
            start_limits=tuple(replace(limit, most=limit.most * times) for limit in group.start_limits),
        )
        for group in problem.mining
    )  # fmt: skip
    circuits = tuple(replace(circuit, limit_mw=circuit.limit_mw * times) for circuit in problem.circuits)
    circuits = tuple(
        replace(c, cooling=tuple(replace(s, fixed_mw=s.fixed_mw * times) for s in c.cooling)) for c in circuits
    )
    site = replace(problem.site, fixed_mw=problem.site.fixed_mw * times, ppa_mw=problem.site.ppa_mw * times)
    return replace(
        problem, mining=groups, circuits=circuits, site=site, inference=(), accounts=(), awards=(), ramps=(),
    )  # fmt: skip
