"""A linear program with whole variables as arrays, and what a solver says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Which variables and rows belong to which step of a horizon: where a warm start may look for its past.

    Row k of a table holds the places of one thing through all steps; programs of the same facility have the same rows.
    """

    starts_s: Floats
    """(T,) Instant at which each step begins; the same instants in every program of a sequence."""
    columns: Ints
    """(kinds of variable, T) Places, -1 where a step has none."""
    rows: Ints
    """(kinds of row, T)"""
    loose_columns: Ints
    """Variables that belong to no step."""
    loose_rows: Ints


@dataclass(frozen=True, slots=True, eq=False)
class LinearProgram:
    """max gain x + constant, row_low <= A x <= row_high, low <= x <= high; n variables, m rows, A by rows (CSR)."""

    gain: Floats
    """(n,)"""
    low: Floats
    high: Floats
    whole: Bools
    """(n,) Whether the variable counts loads; relaxed unless a solver is asked for whole numbers."""
    row_low: Floats
    """(m,)"""
    row_high: Floats
    starts: Ints
    """(m + 1,) Where each row's coefficients begin."""
    columns: Ints
    coefficients: Floats
    constant: float = 0.0
    timeline: Timeline | None = None
    """Says nothing about the optimum, only where to look for it first."""

    def same_pattern(self, other: LinearProgram) -> bool:
        """Return whether both have the same variables, rows and places of coefficients."""
        return (
            len(self.gain) == len(other.gain)
            and np.array_equal(self.starts, other.starts)
            and np.array_equal(self.columns, other.columns)
            and np.array_equal(self.whole, other.whole)
        )

    def products(self, values: Floats) -> Floats:
        """Return A x, (m,)."""
        terms = self.coefficients * values[self.columns]
        sums = np.add.reduceat(np.append(terms, 0.0), self.starts[:-1]) if len(self.row_low) else np.zeros(0)
        return np.where(np.diff(self.starts) > 0, sums, 0.0)

    def objective(self, values: Floats) -> float:
        """Return gain x + constant."""
        # Not `@`: on arrays of this size the linear-algebra library would wake all cores for it.
        return float(np.sum(self.gain * values)) + self.constant

    def violation(self, values: Floats) -> float:
        """Return the largest amount by which `values` break a bound or a row, relative to the row's size."""
        if not np.all(np.isfinite(values)):
            return float("inf")
        worst = 0.0
        for value, low, high, scale in (
            (values, self.low, self.high, np.ones_like(values)),
            (self.products(values), self.row_low, self.row_high, self._row_scale(values)),
        ):
            if len(value):
                over = np.maximum(value - high, low - value)
                sides = np.maximum(_size(low), _size(high))
                worst = max(worst, float(np.max(over / np.maximum(scale, sides))))
        return worst

    def _row_scale(self, values: Floats) -> Floats:
        terms = np.abs(self.coefficients * values[self.columns])
        sums = np.maximum.reduceat(np.append(terms, 0.0), self.starts[:-1]) if len(self.row_low) else np.zeros(0)
        return np.maximum(1.0, sums)


def _size(side: Floats) -> Floats:
    return np.where(np.isfinite(side), np.abs(side), 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """What a solver said; nobody trusts it: `LinearProgram.violation` and `.objective` judge the values."""

    optimal: bool
    values: Floats
    """(n,), empty unless optimal (a program with whole variables: unless a point was found)."""
    duals: Floats
    """(m,) What one more unit of the bound that binds a row is worth; empty for whole programs."""
    reduced: Floats
    """(n,) What one more unit of the bound that binds a variable is worth; empty for whole programs."""
    status: str
    bound: float | None = None
    """No solution earns more than this; for a relaxed program it is the objective itself."""


Solve = Callable[[LinearProgram, float], Solution]
"""Solves the relaxation within about the seconds given."""
