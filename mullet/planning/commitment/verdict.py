"""Whether a program can be handed to a solver, and whether what the solver said is true.

A solver's status is an opinion. The proof of a relaxed optimum is in the numbers: the point keeps every bound, and no
worth is claimed for a bound that does not bind (complementary slackness), so that the duals' bound equals what the
point earns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mullet.planning.commitment.linear import Floats, LinearProgram, Solution

TOLERANCE = 1e-6
"""Most relative violation of a bound, and most relative distance of the objective from the duals' bound."""


def find_obstacle(program: LinearProgram, same_pattern: bool = False) -> str | None:
    """Return in words why no solver could take the program; None: nothing is wrong with its form.

    `same_pattern` says that places of coefficients were looked at before, which takes longest (0.02 s for 300,000).
    Bounds that cross are found here too: some backends raise on them, others call them infeasible.
    """
    for name, values in (("gain", program.gain), ("coefficients", program.coefficients)):
        if not np.all(np.isfinite(values)):
            return f"{name}: {int(np.count_nonzero(~np.isfinite(values)))} not finite"
    for name, low, high in (
        ("variables", program.low, program.high),
        ("rows", program.row_low, program.row_high),
    ):
        if np.any(np.isnan(low)) or np.any(np.isnan(high)):
            return f"{name}: a bound is not a number"
        crossed = np.flatnonzero((low > high) | (low == np.inf) | (high == -np.inf))
        if len(crossed):
            place = int(crossed[0])
            return f"infeasible: {name} {place} must be at least {low[place]:.6g} and at most {high[place]:.6g}"
    if same_pattern:
        return None
    if len(program.columns) and not 0 <= int(program.columns.min()) <= int(program.columns.max()) < len(program.gain):
        return "a row names a variable that does not exist"
    if not _is_sorted(program):
        order = np.lexsort((program.columns, rows_of(program)))
        rows, columns = rows_of(program)[order], program.columns[order]
        if np.any((rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1])):
            return "a row names a variable twice"
    return None


def find_fault(program: LinearProgram, solution: Solution) -> str | None:
    """Return in words why an answer to the relaxed program is not to be believed; None: it proves itself optimal."""
    if not solution.optimal:
        return solution.status
    if len(solution.values) != len(program.gain) or len(solution.duals) != len(program.row_low):
        return f"{solution.status}, but without all values and duals"
    matrix = matrix_of(program)
    activity = np.asarray(matrix @ solution.values)
    violation = _quick_violation(program, solution.values, activity)
    if not violation <= TOLERANCE:
        # Large terms that cancel leave more behind than the sides tell: this one looks at the terms, and takes longer.
        violation = program.violation(solution.values)
    if not violation <= TOLERANCE:
        return f"{solution.status}, but the point breaks a bound by {violation:.3g}"
    objective = program.objective(solution.values)
    size = max(1.0, float(np.sum(np.abs(program.gain * solution.values))))
    if solution.bound is None or not abs(solution.bound - objective) <= TOLERANCE * size:
        return f"{solution.status} with objective {solution.bound}, but the point earns {objective:.9g}"
    gap = dual_gap(program, solution.values, solution.duals, activity)
    if not gap <= TOLERANCE * size:
        return f"{solution.status}, but the duals leave {gap:.6g} above the {objective:.9g} that the point earns"
    return None


def dual_gap(program: LinearProgram, values: Floats, duals: Floats, activity: Floats | None = None) -> float:
    """Return how far the duals' bound lies above what the point earns: 0 where the point is optimal, never below.

    `activity` is A x where the caller has it already.

    A worth on an infinite bound would make the bound infinite; up to the solvers' dual tolerance it is rounding, and
    counts as if the bound were as far away as the value is large.
    """
    reduced = reduced_costs(program, duals)
    tolerance = 1e-6 * max(1.0, float(np.max(np.abs(program.gain), initial=0.0)))
    sums = program.products(values) if activity is None else activity
    return _unproven(sums, program.row_low, program.row_high, duals, tolerance) + _unproven(
        values, program.low, program.high, reduced, tolerance
    )


def reduced_costs(program: LinearProgram, duals: Floats) -> Floats:
    """Return gain - duals A, (n,): what one more unit of a variable's bound is worth if the duals are right."""
    return np.asarray(program.gain - matrix_of(program).T @ duals)


def matrix_of(program: LinearProgram) -> Any:
    """Return A for scipy, which multiplies it ten times faster than sums over numpy's arrays do."""
    from scipy.sparse import csr_matrix

    shape = (len(program.row_low), len(program.gain))
    return csr_matrix((program.coefficients, program.columns, program.starts), shape=shape)


def rows_of(program: LinearProgram) -> NDArray[np.int64]:
    """Return the row of every coefficient."""
    return np.repeat(np.arange(len(program.row_low), dtype=np.int64), np.diff(program.starts))


def sort_within_rows(program: LinearProgram) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return rows, columns and coefficients with ascending columns in every row."""
    rows = rows_of(program)
    if _is_sorted(program):
        return rows, program.columns, program.coefficients
    order = np.lexsort((program.columns, rows))
    return rows[order], program.columns[order], program.coefficients[order]


def _is_sorted(program: LinearProgram) -> bool:
    rising = np.diff(program.columns) > 0
    begins = program.starts[1:-1]
    rising[begins[(begins > 0) & (begins < len(program.columns))] - 1] = True
    return bool(np.all(rising))


def _quick_violation(program: LinearProgram, values: Floats, activity: Floats) -> float:
    worst = 0.0
    for value, low, high in ((values, program.low, program.high), (activity, program.row_low, program.row_high)):
        over = np.maximum(value - high, low - value)
        if not np.all(np.isfinite(value)):
            return float("inf")
        # Only where a bound is broken at all does its size matter.
        for place in np.flatnonzero(over > TOLERANCE):
            sides = [abs(side) for side in (low[place], high[place]) if np.isfinite(side)]
            worst = max(worst, float(over[place]) / max(1.0, *sides))
    return worst


def _unproven(values: Floats, low: Floats, high: Floats, worth: Floats, tolerance: float) -> float:
    side = np.where(worth > 0.0, high, low)
    away = np.where(np.isfinite(side), np.abs(side - values), np.maximum(1.0, np.abs(values)))
    if np.any(~np.isfinite(side) & (np.abs(worth) > tolerance)):
        return float("inf")
    return float(np.sum(np.abs(worth) * away))
