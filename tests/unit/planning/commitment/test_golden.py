"""Problems solved by hand: every backend finds the optimum, and every bound is worth what it is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from cases import CASES
from golden_kit import Case, Dual

from mullet.planning.commitment.build import build
from mullet.planning.commitment.clp import WarmClp
from mullet.planning.commitment.highs import solve_with_highs
from mullet.planning.commitment.linear import LinearProgram, Solution, Solve
from mullet.planning.commitment.mip import solve_whole
from mullet.planning.commitment.model import Model

BACKENDS: Mapping[str, Callable[[], Solve]] = {"clp": WarmClp, "highs": lambda: solve_with_highs}
LIMIT_S = 20.0
NUDGE = 1e-4

each_case = pytest.mark.parametrize("name", CASES)
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def solved(program: LinearProgram, backend: str) -> Solution:
    solution = BACKENDS[backend]()(program, LIMIT_S)
    assert solution.optimal, solution.status
    assert program.violation(solution.values) <= 1e-7
    return solution


def optimum(program: LinearProgram, backend: str = "highs") -> float:
    return program.objective(solved(program, backend).values)


def near(expected: float, relative: float = 1e-6) -> object:
    return pytest.approx(expected, rel=relative, abs=1e-6)


@each_backend
@each_case
def test_relaxed_optimum(name: str, backend: str) -> None:
    case = CASES[name]()
    model = build(case.problem)
    solution = solved(model.program, backend)
    assert model.program.objective(solution.values) == near(case.relaxed)
    assert solution.bound == near(case.relaxed)
    for number, (place, value) in enumerate(case.values):
        assert solution.values[place(model)] == near(value), f"value {number}"


@each_case
def test_whole_optimum(name: str) -> None:
    case = CASES[name]()
    program = build(case.problem).program
    solution = solve_whole(program, LIMIT_S)
    assert len(solution.values), solution.status
    assert program.violation(solution.values) <= 1e-6
    counts = solution.values[program.whole]
    assert np.abs(counts - np.round(counts)).max(initial=0.0) <= 1e-6
    expected = case.relaxed if case.whole is None else case.whole
    assert program.objective(solution.values) == near(expected)
    assert solution.bound is not None
    assert solution.bound >= expected - 1e-6 * max(1.0, abs(expected))


@each_backend
@each_case
def test_duals(name: str, backend: str) -> None:
    case = CASES[name]()
    model = build(case.problem)
    solution = solved(model.program, backend)
    for number, dual in enumerate(case.duals):
        if dual.row is not None:
            assert solution.duals[_row(model, dual)] == near(dual.value), f"dual {number}"
        if dual.variable is not None:
            assert solution.reduced[dual.variable(model)] == near(dual.value), f"dual {number}"


@pytest.mark.parametrize("name", [name for name, made in CASES.items() if made().duals])
def test_duals_are_what_the_optimum_changes_by(name: str) -> None:
    case = CASES[name]()
    model = build(case.problem)
    solution = solved(model.program, "highs")
    for number, dual in enumerate(case.duals):
        if dual.row is not None or dual.variable is not None:
            by_bound = [optimum(_with_bound(model, solution, dual, amount)) for amount in (NUDGE, -NUDGE)]
            assert (by_bound[0] - by_bound[1]) / (2 * NUDGE) == near(dual.value, 1e-5), f"bound of dual {number}"
        if dual.nudge is not None:
            by_data = [optimum(build(dual.nudge(case.problem, amount)).program) for amount in (NUDGE, -NUDGE)]
            expected = dual.value if dual.by_data is None else dual.by_data
            assert (by_data[0] - by_data[1]) / (2 * NUDGE) == near(expected, 1e-5), f"data of dual {number}"


def test_every_family_binds_somewhere() -> None:
    known: set[str] = set()
    binding: set[str] = set()
    for made in CASES.values():
        model = build(made().problem)
        solution = solved(model.program, "highs")
        for family, places in model.rows.items():
            known.add(family)
            if np.any(np.abs(solution.duals[places[places >= 0]]) > 1e-6):
                binding.add(family)
    assert known - binding == set()


def _row(model: Model, dual: Dual) -> int:
    assert dual.row is not None
    place = dual.row(model)
    assert place >= 0, "there is no such row"
    return place


def _with_bound(model: Model, solution: Solution, dual: Dual, amount: float) -> LinearProgram:
    """Return the program with the bound that `dual` speaks of moved; of a variable, the bound at which it stands."""
    program = model.program
    if dual.row is not None:
        place = _row(model, dual)
        low, high = program.row_low.copy(), program.row_high.copy()
        low[place] += amount
        high[place] += amount
        return replace(program, row_low=low, row_high=high)
    assert dual.variable is not None
    place = dual.variable(model)
    low, high = program.low.copy(), program.high.copy()
    if solution.values[place] >= high[place] - 1e-6:
        high[place] += amount
    else:
        low[place] += amount
    return replace(program, low=low, high=high)


def test_cases_are_many_and_small() -> None:
    cases: list[Case] = [made() for made in CASES.values()]
    assert len(cases) >= 30
    assert all(case.problem.grid.count <= 6 and len(case.problem.mining) <= 4 for case in cases)
