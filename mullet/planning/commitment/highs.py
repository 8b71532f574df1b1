"""HiGHS through MathOpt: the second opinion on every program.

Presolve is off because on this family it costs more than it removes: 1.1 s against 1.5 s for 73,000 variables by
69,000 rows, one core.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mullet.planning.commitment.linear import LinearProgram, Solution
from mullet.planning.commitment.messages import array, ask, nothing, reason_of
from mullet.planning.commitment.verdict import find_fault, find_obstacle, reduced_costs


def solve_with_highs(program: LinearProgram, limit_s: float) -> Solution:
    """Solve the relaxation cold; only an optimum that proves itself (`find_fault`) is returned as optimal."""
    obstacle = find_obstacle(program)
    if obstacle:
        return nothing(obstacle)
    result = ask(program, "HIGHS", limit_s, presolve=False)
    if isinstance(result, str):
        return nothing(result)
    solution = _read(program, result)
    fault = find_fault(program, solution)
    return nothing(fault) if fault else solution


def _read(program: LinearProgram, result: Any) -> Solution:
    from ortools.math_opt import result_pb2

    words = reason_of(result)
    if result.termination.reason != result_pb2.TERMINATION_REASON_OPTIMAL or not result.solutions:
        return nothing(words)
    best = result.solutions[0]
    values = array(best.primal_solution.variable_values.values)
    duals = array(best.dual_solution.dual_values.values)
    if len(duals) != len(program.row_low):
        if len(program.columns):
            return nothing(f"{words}, but without duals")
        # Without a coefficient HiGHS returns no duals, and no row can be worth anything.
        duals = np.zeros(len(program.row_low))
    bound = float(best.primal_solution.objective_value)
    return Solution(True, values, duals, reduced_costs(program, duals), words, bound)
