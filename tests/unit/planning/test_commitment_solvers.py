"""Both backends on programs drawn at random: they agree, prove themselves, start warm, and give way to one another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mullet.planning.commitment import clp as clp_module
from mullet.planning.commitment.clp import WarmClp
from mullet.planning.commitment.highs import solve_with_highs
from mullet.planning.commitment.linear import Floats, LinearProgram, Solution
from mullet.planning.commitment.mip import Block, solve_whole
from mullet.planning.commitment.solvers import COLD, SECOND, WARM, Solvers
from mullet.planning.commitment.verdict import dual_gap, find_fault, find_obstacle
from mullet.ports import PlanningError

INF = float("inf")
SEEDS = st.integers(0, 2**32 - 1)


def program_of(
    gain: list[float],
    rows: list[tuple[dict[int, float], float, float]],
    high: list[float] | None = None,
    low: list[float] | None = None,
    whole: bool = False,
    constant: float = 0.0,
) -> LinearProgram:
    count = len(gain)
    return LinearProgram(
        gain=np.array(gain, dtype=float),
        low=np.array(low if low is not None else [0.0] * count),
        high=np.array(high if high is not None else [INF] * count),
        whole=np.full(count, whole),
        row_low=np.array([row[1] for row in rows], dtype=float),
        row_high=np.array([row[2] for row in rows], dtype=float),
        starts=np.cumsum([0, *(len(row[0]) for row in rows)]),
        columns=np.array([place for row in rows for place in row[0]], dtype=np.int64),
        coefficients=np.array([factor for row in rows for factor in row[0].values()], dtype=float),
        constant=constant,
    )


def drawn_program(seed: int, whole: bool = False) -> LinearProgram:
    """A feasible program with rows of every kind (equal, free, one-sided, two-sided, empty) around a known point."""
    draw = np.random.default_rng(seed)
    count, rows = int(draw.integers(1, 13)), int(draw.integers(0, 15))
    high = np.where(draw.random(count) < 0.9, draw.integers(1, 9, count), 12).astype(float)
    low = np.where(draw.random(count) < 0.2, -draw.integers(0, 4, count), 0).astype(float)
    point = np.floor(draw.uniform(low, high + 1.0)) if whole else draw.uniform(low, high)
    matrix = np.where(draw.random((rows, count)) < 0.4, draw.integers(-4, 7, (rows, count)), 0).astype(float)
    value, kind = matrix @ point, draw.integers(0, 5, rows)
    room = draw.uniform(0.0, 4.0, rows)
    row_low = np.select([kind == 0, kind == 1, kind == 2], [value, value - room, value - room], -INF)
    row_high = np.select([kind == 0, kind == 2, kind == 3], [value, value + room, value + room], INF)
    return LinearProgram(
        gain=np.round(draw.normal(0.0, 5.0, count), 2),
        low=low,
        high=high,
        whole=np.full(count, whole),
        row_low=row_low,
        row_high=row_high,
        starts=np.concatenate([[0], np.cumsum(np.count_nonzero(matrix, axis=1))]),
        columns=np.nonzero(matrix)[1].astype(np.int64),
        coefficients=matrix[matrix != 0.0],
        constant=float(draw.normal()),
    )


def changed(program: LinearProgram, seed: int) -> LinearProgram:
    """The same pattern with some gains, bounds, sides and coefficients moved; it may have become infeasible."""
    draw = np.random.default_rng(seed)

    def some(size: int) -> Floats:
        return np.where(draw.random(size) < 0.4, draw.normal(0.0, 1.0, size), 0.0)

    high = program.high + np.abs(some(len(program.high)))
    shift = some(len(program.row_low))
    return replace(
        program,
        gain=program.gain + some(len(program.gain)),
        high=high,
        low=np.minimum(program.low + some(len(program.low)), high),
        row_low=program.row_low + shift,
        row_high=program.row_high + shift,
        coefficients=(program.coefficients + some(len(program.coefficients)))
        * (draw.random(len(program.columns)) > 0.1),
        constant=float(draw.normal()),
    )


def agree(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-6 * max(1.0, abs(one))


# --- Each backend -----------------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(SEEDS)
def test_backends_agree_and_prove_themselves(seed: int) -> None:
    program = drawn_program(seed)
    answers = (WarmClp()(program, 5.0), solve_with_highs(program, 5.0))
    for answer in answers:
        assert answer.optimal, answer.status
        assert find_fault(program, answer) is None
        assert answer.bound is not None
        assert agree(answer.bound, program.objective(answer.values))
    assert agree(program.objective(answers[0].values), program.objective(answers[1].values))


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_backends_agree_on_what_has_no_optimum(seed: int) -> None:
    program = changed(drawn_program(seed), seed + 1)
    one, other = WarmClp()(program, 5.0), solve_with_highs(program, 5.0)
    assert one.optimal == other.optimal, (one.status, other.status)
    if one.optimal:
        assert agree(program.objective(one.values), program.objective(other.values))


@pytest.mark.parametrize("solve", [WarmClp(), solve_with_highs], ids=["clp", "highs"])
def test_signs_of_duals_and_reduced_costs(solve: WarmClp) -> None:
    """max 3a + 2b - c: a + b <= 4, a - c <= 1, b <= 1 by its bound, c >= 2 by a row, d = 5 costs 1 each."""
    program = program_of(
        [3.0, 2.0, -1.0, -1.0],
        [({0: 1.0, 1: 1.0}, -INF, 3.5), ({2: 1.0}, 2.0, INF), ({3: 1.0}, 5.0, 5.0), ({0: 1.0, 2: 5.0}, -INF, INF)],
        high=[INF, 1.0, INF, INF],
        low=[0.0, 0.25, 0.0, 0.0],
    )
    answer = solve(program, 5.0)
    # a takes what b leaves: a = 3.25 with b at its lower bound, which is worth 2 - 3.
    assert answer.values == pytest.approx([3.25, 0.25, 2.0, 5.0])
    assert answer.duals == pytest.approx([3.0, -1.0, -1.0, 0.0])
    assert answer.reduced == pytest.approx([0.0, -1.0, 0.0, 0.0])
    richer = solve(replace(program, gain=np.array([3.0, 4.0, -1.0, -1.0])), 5.0)
    assert richer.values == pytest.approx([2.5, 1.0, 2.0, 5.0])
    assert richer.reduced == pytest.approx([0.0, 1.0, 0.0, 0.0])


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.booleans())
def test_duals_are_what_one_more_unit_is_worth(seed: int, second: bool) -> None:
    """Finite differences on both sides of every bound enclose its dual (the objective is concave in the bounds)."""
    program = drawn_program(seed)
    solve = solve_with_highs if second else WarmClp()
    answer = solve(program, 5.0)
    step = 1e-3
    for duals, low_name, high_name in ((answer.duals, "row_low", "row_high"), (answer.reduced, "low", "high")):
        for place in np.flatnonzero(np.abs(duals) > 1e-6).tolist():
            slopes = []
            for sign in (1.0, -1.0):
                low, high = getattr(program, low_name).copy(), getattr(program, high_name).copy()
                if low[place] == high[place]:
                    low[place] += sign * step
                    high[place] += sign * step
                elif duals[place] > 0.0:
                    high[place] += sign * step
                else:
                    low[place] += sign * step
                moved = replace(program, **{low_name: low, high_name: high})
                other = solve(moved, 5.0)
                if other.optimal:
                    gained = program.objective(other.values) - program.objective(answer.values)
                    slopes.append((sign, gained / (sign * step)))
            for sign, slope in slopes:
                assert sign * (slope - duals[place]) <= 1e-4 * max(1.0, abs(duals[place])), (place, sign)


@pytest.mark.parametrize("solve", [WarmClp(), solve_with_highs], ids=["clp", "highs"])
@pytest.mark.parametrize(
    ("program", "words"),
    [
        (program_of([1.0], [({0: 1.0}, 2.0, INF)], high=[1.0]), "infeasible"),
        (program_of([1.0, 0.0], [({1: 1.0}, -INF, 1.0)]), "unbounded"),
        (program_of([1.0], [({0: 1.0}, 2.0, 1.0)]), "rows 0"),
        (program_of([1.0], [], low=[2.0], high=[1.0]), "variables 0"),
        (program_of([float("nan")], [({0: 1.0}, -INF, 1.0)]), "gain"),
        (program_of([1.0], [({0: INF}, -INF, 1.0)]), "coefficients"),
        (program_of([1.0], [({0: 1.0}, -INF, float("nan"))]), "not a number"),
        (program_of([1.0], [({3: 1.0}, -INF, 1.0)]), "does not exist"),
    ],
    ids=["infeasible", "unbounded", "crossed-row", "crossed", "nan-gain", "infinite", "nan-side", "no-such-variable"],
)
def test_what_has_no_optimum_is_said_in_words(solve: WarmClp, program: LinearProgram, words: str) -> None:
    answer = solve(program, 5.0)
    assert not answer.optimal
    assert len(answer.values) == 0
    assert words in answer.status


def test_a_variable_twice_in_a_row_is_refused() -> None:
    program = program_of([1.0], [({0: 1.0}, -INF, 1.0)])
    twice = replace(program, starts=np.array([0, 2]), columns=np.array([0, 0]), coefficients=np.array([1.0, 1.0]))
    assert find_obstacle(twice) == "a row names a variable twice"


@pytest.mark.parametrize("solve", [WarmClp(), solve_with_highs], ids=["clp", "highs"])
def test_programs_without_rows_or_variables(solve: WarmClp) -> None:
    no_rows = solve(program_of([1.0, -1.0], [], high=[2.0, 2.0], constant=3.0), 5.0)
    assert no_rows.values == pytest.approx([2.0, 0.0])
    assert no_rows.bound == pytest.approx(5.0)
    assert no_rows.reduced == pytest.approx([1.0, -1.0])
    empty_row = solve(program_of([1.0], [({}, -1.0, INF), ({0: 1.0}, -INF, 1.0)]), 5.0)
    assert empty_row.values == pytest.approx([1.0])
    assert empty_row.duals == pytest.approx([0.0, 1.0])
    only_empty_rows = solve(program_of([1.0], [({}, -1.0, 0.0)], high=[1.0]), 5.0)
    assert only_empty_rows.values == pytest.approx([1.0])
    assert not solve(program_of([1.0], [({}, 1.0, INF)], high=[1.0]), 5.0).optimal
    assert solve(program_of([], []), 5.0).optimal


@pytest.mark.parametrize("solve", [WarmClp(), solve_with_highs], ids=["clp", "highs"])
def test_columns_may_come_in_any_order(solve: WarmClp) -> None:
    ordered = program_of([1.0, 2.0], [({0: 1.0, 1: 3.0}, -INF, 3.0), ({0: 2.0, 1: 1.0}, -INF, 3.0)])
    mixed = program_of([1.0, 2.0], [({1: 3.0, 0: 1.0}, -INF, 3.0), ({1: 1.0, 0: 2.0}, -INF, 3.0)])
    assert solve(mixed, 5.0).values == pytest.approx(solve(ordered, 5.0).values)


def test_solvers_write_nothing_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    program = drawn_program(7)
    WarmClp()(program, 5.0)
    solve_with_highs(program, 5.0)
    solve_whole(drawn_program(7, whole=True), 5.0)
    assert capfd.readouterr() == ("", "")


# --- Warm starts ------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_warm_equals_cold_after_any_change(seed: int) -> None:
    program, kept = drawn_program(seed), WarmClp()
    for turn in range(4):
        cold = WarmClp()(program, 5.0)
        warm = kept(program, 5.0)
        assert warm.optimal == cold.optimal, (warm.status, cold.status)
        if warm.optimal:
            assert agree(program.objective(warm.values), program.objective(cold.values))
            assert warm.bound is not None
            assert agree(warm.bound, program.objective(warm.values))
            assert kept.fits(program) or not len(program.columns)
        program = changed(program, seed + turn)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_the_same_sequence_gives_the_same_answers(seed: int) -> None:
    first = drawn_program(seed)
    sequence = [first, changed(first, seed), changed(first, seed + 1), drawn_program(seed + 2), first]
    runs = []
    for _ in range(2):
        kept = WarmClp()
        runs.append([kept(program, 5.0) for program in sequence])
    for one, other in zip(*runs, strict=True):
        assert one.status == other.status
        assert np.array_equal(one.values, other.values)
        assert np.array_equal(one.duals, other.duals)


def test_the_kept_model_is_used_where_the_pattern_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[LinearProgram] = []
    build = clp_module._build

    def counting(program: LinearProgram) -> clp_module._Kept:
        built.append(program)
        return build(program)

    monkeypatch.setattr(clp_module, "_build", counting)
    first, kept = drawn_program(3), WarmClp()
    assert not kept.fits(first)
    kept.prepare(first)
    kept.prepare(first)
    assert len(built) == 1
    kept(first, 5.0)
    kept(replace(first, gain=first.gain + 1.0), 5.0)
    assert len(built) == 1
    kept(drawn_program(4), 5.0)
    assert len(built) == 2
    kept.forget()
    kept(drawn_program(4), 5.0)
    assert len(built) == 3


def test_a_bad_warm_answer_is_solved_anew_cold(monkeypatch: pytest.MonkeyPatch) -> None:
    program, kept = drawn_program(11), WarmClp()
    right = kept(program, 5.0)
    read, lies = clp_module._read, iter([True])

    def lying(model: clp_module._Kept, status: int) -> Solution:
        answer = read(model, status)
        return replace(answer, values=answer.values + 100.0) if next(lies, False) else answer

    monkeypatch.setattr(clp_module, "_read", lying)
    again = kept(program, 5.0)
    assert again.optimal
    assert again.values == pytest.approx(right.values)


# --- Nobody is believed -----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_points_that_are_not_best_are_found_out(seed: int) -> None:
    program = drawn_program(seed)
    right = WarmClp()(program, 5.0)
    worst = WarmClp()(replace(program, gain=-program.gain), 5.0)
    earned, lost = program.objective(right.values), program.objective(worst.values)
    assume(earned - lost > 1e-2 * max(1.0, float(np.abs(program.gain) @ np.abs(worst.values))))
    poor = replace(right, values=worst.values, bound=lost)
    assert find_fault(program, poor) is not None
    assert dual_gap(program, worst.values, right.duals) >= earned - lost - 1e-6 * max(1.0, abs(earned))
    assert "objective" in str(find_fault(program, replace(right, bound=earned + 1.0 + abs(earned))))


# --- The ladder -------------------------------------------------------------------------------------------------


class Broken(WarmClp):
    """Answers every program with what it is given."""

    def __init__(self, answer: Solution) -> None:
        super().__init__()
        self.answer = answer
        self.forgotten = 0

    def forget(self) -> None:
        self.forgotten += 1
        super().forget()

    def __call__(self, program: LinearProgram, limit_s: float) -> Solution:
        return self.answer


def failed(words: str) -> Solution:
    return Solution(False, np.zeros(0), np.zeros(0), np.zeros(0), words)


def test_solvers_say_who_answered() -> None:
    solvers, program = Solvers(), drawn_program(5)
    assert solvers.solve(program, 5.0)[1] == COLD
    assert solvers.solve(replace(program, gain=program.gain * 2.0), 5.0)[1] == WARM
    solvers.forget()
    assert solvers.solve(program, 5.0)[1] == COLD
    assert solvers.solve(drawn_program(6), 5.0)[1] == COLD


def test_prepare_leaves_bad_programs_to_the_question() -> None:
    solvers = Solvers()
    solvers.prepare(program_of([float("nan")], []))
    solvers.prepare(drawn_program(5))
    assert solvers.solve(drawn_program(5), 5.0)[1] == COLD


def test_highs_answers_where_clp_fails_or_lies() -> None:
    program = drawn_program(5)
    right = solve_with_highs(program, 5.0)
    for answer in (failed("abnormal"), replace(right, values=right.values + 50.0), replace(right, bound=1e9)):
        broken = Broken(answer)
        found, by = Solvers(broken).solve(program, 5.0)
        assert by == SECOND
        assert broken.forgotten == 1
        assert found.values == pytest.approx(right.values)


def test_planning_fails_with_everybodys_reasons() -> None:
    program = drawn_program(5)
    lie = replace(solve_with_highs(program, 5.0), bound=1e9)
    with pytest.raises(PlanningError, match=r"CLP: abnormal; HiGHS: optimal with objective 1000000000"):
        Solvers(Broken(failed("abnormal")), lambda program, limit_s: lie).solve(program, 5.0)
    with pytest.raises(PlanningError, match=r"CLP: infeasible; HiGHS: infeasible"):
        Solvers().solve(program_of([1.0], [({0: 1.0}, 2.0, INF)], high=[1.0]), 5.0)


def test_no_time_left_is_a_reason() -> None:
    slow = Broken(failed("feasible"))
    slow._elapsed_s = 6.0
    with pytest.raises(PlanningError, match="no time left"):
        Solvers(slow).solve(drawn_program(5), 5.0)


# --- Whole solutions --------------------------------------------------------------------------------------------


def best_by_trying(program: LinearProgram) -> float:
    axes = [np.arange(low, high + 1.0) for low, high in zip(program.low, program.high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    return max(program.objective(point) for point in points if program.violation(point) <= 1e-9)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_whole_optimum_is_what_trying_everything_finds(seed: int) -> None:
    program = drawn_program(seed, whole=True)
    assume(float(np.prod(program.high - program.low + 1.0)) <= 4_000)
    answer = solve_whole(program, 5.0)
    best = best_by_trying(program)
    assert answer.optimal
    assert program.violation(answer.values) <= 1e-6
    assert np.array_equal(answer.values, np.rint(answer.values))
    assert answer.bound is not None
    assert answer.bound >= best - 1e-6 * max(1.0, abs(best))
    assert program.objective(answer.values) >= answer.bound - 2e-4 * max(1.0, abs(answer.bound))


def knapsacks(count: int, seed: int) -> LinearProgram:
    """Loads that share limits so that the relaxation is not whole."""
    draw = np.random.default_rng(seed)
    rows = [
        ({place: float(draw.integers(3, 40)) for place in range(count)}, -INF, float(draw.integers(200, 400)) + 0.5)
        for _ in range(6)
    ]
    return program_of(list(draw.uniform(5.0, 40.0, count)), rows, high=[3.0] * count, whole=True)


def test_no_answer_is_worse_than_its_hint_even_without_time() -> None:
    program = knapsacks(40, 1)
    known = solve_whole(program, 2.0)
    assert known.optimal
    again = solve_whole(program, 0.001, known.values)
    assert again.optimal
    assert program.objective(again.values) >= program.objective(known.values) - 1e-9
    assert again.bound is not None
    assert again.bound >= program.objective(again.values) - 1e-6


def test_a_hint_that_breaks_a_limit_is_ignored() -> None:
    program = knapsacks(12, 2)
    answer = solve_whole(program, 2.0, np.full(12, 3.0))
    assert answer.optimal
    assert program.violation(answer.values) <= 1e-6
    assert solve_whole(program, 2.0, np.full(3, 1.0)).optimal


def test_blocks_are_searched_with_all_else_held() -> None:
    program = knapsacks(30, 3)
    blocks = [Block(np.arange(0, 20), np.arange(2)), Block(np.arange(10, 30), np.zeros(0, dtype=np.int64))]
    answer = solve_whole(program, 3.0, np.zeros(30), blocks)
    assert answer.bound is not None
    assert program.objective(answer.values) >= 0.99 * answer.bound


def test_whole_programs_without_a_point_say_so() -> None:
    infeasible = program_of([1.0], [({0: 1.0}, 0.25, 0.75)], high=[1.0], whole=True)
    assert not solve_whole(infeasible, 2.0).optimal
    assert "infeasible" in solve_whole(program_of([1.0], [({0: 1.0}, 2.0, INF)], high=[1.0], whole=True), 2.0).status
