"""HiGHS through MathOpt's messages, filled with whole arrays: the second opinion on every program.

`ModelBuilder`, which also reaches HiGHS, is of no use here: OR-Tools 9.15 returns row activities where it says dual
values, returns no reduced costs, and lets HiGHS print its banner. MathOpt's own objects take seconds for programs of
this size; its messages take 0.05 s, and its solver, told to be silent, is. Presolve is off because on this family it
costs more than it removes (1.1 s against 1.5 s for 73,000 variables by 69,000 rows, one core).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mullet.planning.commitment.linear import Floats, LinearProgram, Solution
from mullet.planning.commitment.verdict import find_fault, find_obstacle, reduced_costs, sort_within_rows


def solve_with_highs(program: LinearProgram, limit_s: float) -> Solution:
    """Solve the relaxation cold; only an optimum that proves itself (`find_fault`) is returned as optimal."""
    obstacle = find_obstacle(program)
    if obstacle:
        return _nothing(obstacle)
    result = ask_highs(program, limit_s, whole=False, presolve=False)
    if isinstance(result, str):
        return _nothing(result)
    solution = _read(program, result)
    fault = find_fault(program, solution)
    return _nothing(fault) if fault else solution


def ask_highs(
    program: LinearProgram,
    limit_s: float,
    whole: bool,
    presolve: bool,
    hint: Floats | None = None,
    relative_gap: float | None = None,
) -> Any:
    """Return MathOpt's result message, or in words why there is none.

    `whole` keeps whole variables whole, `hint` is a point to start from (every variable; HiGHS takes no less), and
    `relative_gap` ends the search when the bound is as near as that.
    """
    from ortools.math_opt import callback_pb2, model_parameters_pb2, parameters_pb2
    from ortools.math_opt.core.python import solver
    from pybind11_abseil.status import StatusNotOk

    parameters = parameters_pb2.SolveParametersProto()
    parameters.time_limit.FromMilliseconds(max(1, int(limit_s * 1_000.0)))
    if not presolve:
        parameters.presolve = parameters_pb2.EMPHASIS_OFF
    if relative_gap is not None:
        parameters.relative_gap_tolerance = relative_gap
    start = model_parameters_pb2.ModelSolveParametersProto()
    if hint is not None:
        point = start.solution_hints.add().variable_values
        point.ids.extend(range(len(hint)))
        point.values.extend(hint.tolist())
    try:
        return solver.solve(
            _message(program, whole),
            parameters_pb2.SOLVER_TYPE_HIGHS,
            parameters_pb2.SolverInitializerProto(),
            parameters,
            start,
            None,
            callback_pb2.CallbackRegistrationProto(),
            None,
            None,
        )
    except StatusNotOk as error:
        return f"HiGHS refuses: {error}"


def reason_of(result: Any) -> str:
    """Return in words why the search ended."""
    from ortools.math_opt import result_pb2

    words = str(result_pb2.TerminationReasonProto.Name(result.termination.reason))
    return words.removeprefix("TERMINATION_REASON_").replace("_", " ").lower()


def _message(program: LinearProgram, whole: bool) -> Any:
    from ortools.math_opt import model_pb2

    message = model_pb2.ModelProto()
    variables, rows, matrix = message.variables, message.linear_constraints, message.linear_constraint_matrix
    variables.ids.extend(range(len(program.gain)))
    variables.lower_bounds.extend(program.low.tolist())
    variables.upper_bounds.extend(program.high.tolist())
    variables.integers.extend((program.whole & whole).tolist())
    message.objective.maximize = True
    message.objective.offset = program.constant
    earning = np.flatnonzero(program.gain)
    message.objective.linear_coefficients.ids.extend(earning.tolist())
    message.objective.linear_coefficients.values.extend(program.gain[earning].tolist())
    rows.ids.extend(range(len(program.row_low)))
    rows.lower_bounds.extend(program.row_low.tolist())
    rows.upper_bounds.extend(program.row_high.tolist())
    row_of_each, columns, coefficients = sort_within_rows(program)
    matrix.row_ids.extend(row_of_each.tolist())
    matrix.column_ids.extend(columns.tolist())
    matrix.coefficients.extend(coefficients.tolist())
    return message


def _read(program: LinearProgram, result: Any) -> Solution:
    from ortools.math_opt import result_pb2

    words = reason_of(result)
    if result.termination.reason != result_pb2.TERMINATION_REASON_OPTIMAL or not result.solutions:
        return _nothing(words)
    best = result.solutions[0]
    values = np.fromiter(best.primal_solution.variable_values.values, np.float64)
    duals = np.fromiter(best.dual_solution.dual_values.values, np.float64)
    if len(duals) != len(program.row_low):
        if len(program.columns):
            return _nothing(f"{words}, but without duals")
        # Without a coefficient HiGHS returns no duals, and no row can be worth anything.
        duals = np.zeros(len(program.row_low))
    bound = float(best.primal_solution.objective_value)
    return Solution(True, values, duals, reduced_costs(program, duals), words, bound)


def _nothing(status: str) -> Solution:
    none: Floats = np.zeros(0)
    return Solution(False, none, none, none, status)
