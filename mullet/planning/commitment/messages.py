"""Programs as MathOpt's messages, filled with whole arrays, and the solvers behind them.

MathOpt's own objects take seconds for programs of 80,000 variables; its messages take 0.05 s. `ModelBuilder`, which
also takes arrays and reaches HiGHS and SCIP, is of no use for duals: OR-Tools 9.15 returns HiGHS's row activities where
it says dual values, returns no reduced costs, and lets HiGHS print its banner. MathOpt's solvers, not told otherwise,
are silent.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from mullet.planning.commitment.linear import Floats, LinearProgram, Solution
from mullet.planning.commitment.verdict import sort_within_rows

Backend = Literal["HIGHS", "GSCIP"]


def ask(
    program: LinearProgram,
    backend: Backend,
    limit_s: float,
    whole: bool = False,
    presolve: bool = True,
    hint: Floats | None = None,
    relative_gap: float | None = None,
) -> Any:
    """Return MathOpt's result message, or in words why there is none.

    `whole` keeps whole variables whole, `hint` is a point to start from (a value for every variable), and the search
    ends when the bound is as near as `relative_gap`.
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
            parameters_pb2.SolverTypeProto.Value(f"SOLVER_TYPE_{backend}"),
            parameters_pb2.SolverInitializerProto(),
            parameters,
            start,
            None,
            callback_pb2.CallbackRegistrationProto(),
            None,
            None,
        )
    except StatusNotOk as error:
        return f"{backend} refuses: {error}"


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


def array(numbers: Any) -> Floats:
    """Return a message's repeated numbers as an array; this is the fastest way out of a message."""
    return np.fromiter(numbers, np.float64)


def nothing(status: str) -> Solution:
    """Return the answer without a point."""
    none: Floats = np.zeros(0)
    return Solution(False, none, none, none, status)
