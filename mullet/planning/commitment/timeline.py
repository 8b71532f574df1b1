"""Which variables and rows of a program say the same of which step, and what a basis becomes when time moves on.

Five minutes later the near steps are those that were one place further on. A basis kept by place would put every step
into its neighbour's shoes; kept by instant it fits but for what is new. Where each step starts from changes how long
the solver takes, never what it finds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mullet.planning.commitment.linear import Floats, Ints, LinearProgram, Timeline

Bytes = NDArray[np.uint8]
BASIC, UPPER, LOWER = 1, 2, 3
"""CLP's words for where a variable stands; of a row it is said of what the row comes to."""
_SAME_S = 1e-6
_APART = 0.25
"""Sides that differ by so much, summed over a step and relative to their size, are another situation."""


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """Where the variables and then the rows of a program stand at its optimum."""

    program: LinearProgram
    status: Bytes
    """(n + m,)"""


def carry(basis: Basis, program: LinearProgram) -> Bytes | None:
    """Return a start for `program` from the basis of another, or None where they have too little in common.

    Each step begins as the step stood that held its first instant, or, where the sides there are far from its own and
    those of the step after are near, as that one: a limit that comes nearer is met as it was met before. As many places
    are basic as there are rows, which is what makes it a basis; CLP mends the rest.
    """
    then, now = basis.program.timeline, program.timeline
    if then is None or now is None:
        return None
    if then.columns.shape[0] != now.columns.shape[0] or then.rows.shape[0] != now.rows.shape[0]:
        return None
    variables, before = len(program.gain), len(basis.program.gain)
    if program.same_pattern(basis.program):
        status = basis.status.copy()
    else:
        status = np.full(variables + len(program.row_low), LOWER, dtype=np.uint8)
        status[variables:] = BASIC
        for old, new in (
            (then.loose_columns, now.loose_columns),
            (then.loose_rows + before, now.loose_rows + variables),
        ):
            if len(old) == len(new):
                status[new] = basis.status[old]
    before_moving = status.copy()
    source = _sources(basis.program, then, program, now)
    for old_table, new_table, offset, old_offset in (
        (then.columns, now.columns, 0, 0),
        (then.rows, now.rows, variables, before),
    ):
        old = old_table[:, source]
        both = (old >= 0) & (new_table >= 0)
        status[new_table[both] + offset] = basis.status[old[both] + old_offset]
    _balance(status, before_moving, variables)
    return status


def _sources(old_program: LinearProgram, then: Timeline, program: LinearProgram, now: Timeline) -> Ints:
    """Return (T,) the step of `then` from which each step of `now` starts."""
    last = len(then.starts_s) - 1
    here = np.clip(np.searchsorted(then.starts_s, now.starts_s + _SAME_S, side="right") - 1, 0, last)
    after = np.minimum(here + 1, last)
    own, next_one = (_distance(old_program, then, program, now, source) for source in (here, after))
    exact = np.abs(then.starts_s[here] - now.starts_s) <= _SAME_S
    nearer = ~exact & (own > _APART) & (next_one < own / 2.0)
    return np.asarray(np.where(nearer, after, here))


def _distance(
    old_program: LinearProgram, then: Timeline, program: LinearProgram, now: Timeline, source: Ints
) -> Floats:
    """Return (T,) how far the upper sides of each step are from those of its source, each by at most 1."""
    total = np.zeros(len(source))
    for old_table, new_table, old_side, side in (
        (then.columns, now.columns, old_program.high, program.high),
        (then.rows, now.rows, old_program.row_high, program.row_high),
    ):
        old = old_table[:, source]
        both = (old >= 0) & (new_table >= 0)
        was, shall = old_side[old], side[new_table]
        both &= np.isfinite(was) & np.isfinite(shall)
        apart = np.abs(np.where(both, shall, 0.0) - np.where(both, was, 0.0))
        total += np.minimum(apart / (1.0 + np.abs(np.where(both, shall, 0.0))), 1.0).sum(axis=0)
    return total


def _balance(status: Bytes, before: Bytes, variables: int) -> None:
    """Make as many places basic as there are rows, by rows alone, those first that were otherwise `before`."""
    rows, was = status[variables:], before[variables:]
    over = int(np.count_nonzero(status == BASIC)) - len(rows)
    chosen = np.flatnonzero((rows == BASIC) if over > 0 else (rows != BASIC))
    fresh = (was != BASIC) if over > 0 else (was == BASIC)
    order = np.argsort(~fresh[chosen], kind="stable")
    rows[chosen[order[: abs(over)]]] = LOWER if over > 0 else BASIC
