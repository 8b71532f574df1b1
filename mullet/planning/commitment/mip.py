"""Whole solutions of small facilities, where counts cannot be relaxed and rounded without a loss that shows.

Branch and bound on the whole program does not do it: on 50 loads in 50 groups over 88 steps (22,000 variables) SCIP and
HiGHS stand 1 % or more from the bound after 5 s, and CBC has no point at all. So the program is cut into pieces that
take a second: first around the relaxed optimum, where nearly every count is whole already, then block by block (a
window of time, a few groups), the one that loses most against the bound first, with all else held at the best point
yet. HiGHS finds good points of most pieces soonest, SCIP those of others; what time is left goes to SCIP and the whole
program, for its bound.

HiGHS 1.12 is asked without its presolve, and for points only: with it, it called a point optimal that earns 577.9 where
596.7 can be earned (30 groups, 40 loads).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mullet.planning.commitment.clp import WarmClp
from mullet.planning.commitment.linear import Bools, Floats, LinearProgram, Solution
from mullet.planning.commitment.messages import Backend, array, ask, nothing, reason_of
from mullet.planning.commitment.model import Model
from mullet.planning.commitment.verdict import TOLERANCE, reduced_costs, rows_of

Places = NDArray[np.int64]

NEAR_ENOUGH = 1e-4
"""Relative gap at which the search ends."""
_BLOCKS_SHARE = 0.75
"""Share of the time that may go before the whole program is asked; it gets the rest."""
_PIECE_S = 1.0
"""Most that one piece may take."""
_PIECE_BACKENDS: tuple[Backend, ...] = ("HIGHS", "GSCIP")
"""Who is asked for a piece, one after the other: where one finds nothing better, the other often does."""
_PIECE_VARIABLES = 1_000
"""Whole variables of a block, about."""
_LEAST_STEPS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Whole variables worth searching together, and the rows by which their loss against the bound is told."""

    variables: Places
    rows: Places


def blocks_of(model: Model) -> tuple[Block, ...]:
    """Return overlapping windows of steps over everything, and sets of groups over all steps."""
    steps = model.problem.grid.count
    of_each = [np.vstack([counts, starts]) for counts, starts in zip(model.at_least, model.starts, strict=True)]
    per_step = max(1, sum(len(np.atleast_2d(places)) for places in (*of_each, *model.active)))
    width = min(max(_PIECE_VARIABLES // per_step, _LEAST_STEPS), steps)
    families = [rows for rows in model.rows.values() if rows.ndim and rows.shape[-1] == steps]
    windows = [
        Block(
            _joined(places[..., first : first + width] for places in (*of_each, *model.active)),
            _joined(rows[..., first : first + width] for rows in families),
        )
        for first in range(0, steps, max(1, 2 * width // 3))
    ]
    together = max(1, _PIECE_VARIABLES * max(1, len(of_each)) // (per_step * max(1, steps)))
    groups = [
        Block(_joined(of_each[first : first + together]), np.zeros(0, dtype=np.int64))
        for first in range(0, len(of_each), together)
    ]
    return (*windows, *groups)


def solve_whole(
    program: LinearProgram, limit_s: float, hint: Floats | None = None, blocks: Sequence[Block] = ()
) -> Solution:
    """Return the best point found within about `limit_s` that keeps whole variables whole, and a bound.

    `hint` is a point to start from, ignored if it breaks a bound; no answer is worse than it. `blocks` are what is
    searched together (`blocks_of`). `Solution.optimal` says that there is a point, not that
    it is best: `bound` says how far it may be from that. The bound is the relaxation's, proven, or SCIP's where that is
    lower and not contradicted by a point. Where the limit strikes, the answer depends on the machine's speed.
    """
    search = _Search(program, limit_s)
    relaxed = search.clp(program, limit_s)
    if not relaxed.optimal or relaxed.bound is None:
        # A hint cannot save a program whose relaxation has no proven optimum: there is no bound to judge it by.
        return nothing(relaxed.status)
    search.bound = relaxed.bound
    if hint is not None:
        search.offer(hint)
    search.offer(relaxed.values)
    whole, values = program.whole, relaxed.values
    for reach in (0.0, 1.0):
        if search.is_done or (reach and search.best is not None):
            break
        low, high = program.low.copy(), program.high.copy()
        low[whole] = np.maximum(low[whole], np.floor(values[whole] + TOLERANCE) - reach)
        high[whole] = np.minimum(high[whole], np.ceil(values[whole] - TOLERANCE) + reach)
        search.try_piece(low, high)
    search.go_through(blocks, relaxed.duals)
    if not search.is_done:
        search.try_whole()
    if search.best is None:
        return nothing(f"no whole point within {limit_s:.3g} s")
    none: Floats = np.zeros(0)
    return Solution(True, search.best, none, none, search.status, search.bound)


class _Search:
    """The best point yet, the bound, and the time."""

    def __init__(self, program: LinearProgram, limit_s: float) -> None:
        from ortools.linear_solver import pywraplp

        # Planning reads no clock of its own, but a solver's clock runs from the moment that it is made.
        self._stopwatch: Any = pywraplp.Solver.CreateSolver("CLP")
        self._program = program
        self._limit_s = limit_s
        self._earned = -np.inf
        self.clp = WarmClp()
        self.best: Floats | None = None
        self.bound = np.inf
        self.status = "limit"

    @property
    def left_s(self) -> float:
        return self._limit_s - float(self._stopwatch.wall_time()) / 1_000.0

    @property
    def is_done(self) -> bool:
        if self.best is not None and self.bound - self._earned <= NEAR_ENOUGH * max(1.0, abs(self.bound)):
            self.status = "optimal"
            return True
        return self.left_s <= 0.05

    def offer(self, values: Floats) -> None:
        """Take the point if it is whole, breaks nothing and earns more than the best one."""
        program = self._program
        if len(values) != len(program.gain) or not np.all(np.isfinite(values)):
            return
        whole = program.whole
        rounded = np.where(whole, np.rint(values), values)
        if np.any(np.abs(rounded - values) > 1e-5) or program.objective(values) <= self._earned:
            return
        # Rounding the last digits away moves what hangs on them: the rest is solved again around exact counts.
        low, high = program.low.copy(), program.high.copy()
        low[whole] = high[whole] = np.clip(rounded[whole], low[whole], high[whole])
        rest, kept = _without_fixed(replace(program, low=low, high=high))
        solved = WarmClp()(rest, max(self.left_s, 0.5))
        polished = rounded.copy()
        if solved.optimal:
            polished[kept] = solved.values
        for point in (polished, rounded):
            if program.violation(point) > TOLERANCE:
                continue
            # What a point earns by breaking bounds within the tolerance is not worth having.
            least = self._earned if point is polished else self._earned + TOLERANCE * max(1.0, abs(self._earned))
            if program.objective(point) > least:
                self.best, self._earned = point, program.objective(point)

    def try_piece(self, low: Floats, high: Floats, backend: Backend = "HIGHS") -> bool:
        """Search between narrower bounds and return whether that gave a better point."""
        before = self._earned
        piece, kept = _without_fixed(replace(self._program, low=low, high=high))
        hint = None if self.best is None else self.best[kept]
        limit_s = min(_PIECE_S, max(self.left_s, 0.01))
        result = ask(piece, backend, limit_s, whole=True, presolve=False, hint=hint, relative_gap=NEAR_ENOUGH)
        point = _point_of(result)
        if len(point):
            values = low.copy()
            values[kept] = point
            self.offer(values)
        return self._earned > before + TOLERANCE * max(1.0, abs(before))

    def go_through(self, blocks: Sequence[Block], duals: Floats) -> None:
        """Search block after block, the one that loses most first, until none gains or the share of time is used."""
        program, end_s = self._program, self._limit_s * (1.0 - _BLOCKS_SHARE)
        tries = [0] * len(blocks)
        while self.best is not None and min(tries, default=len(_PIECE_BACKENDS)) < len(_PIECE_BACKENDS):
            if self.is_done or self.left_s <= end_s:
                return
            losses = _losses(program, self.best, duals, blocks)
            open_places = [place for place in range(len(blocks)) if tries[place] < len(_PIECE_BACKENDS)]
            place = max(open_places, key=lambda place: losses[place])
            held = program.whole.copy()
            held[blocks[place].variables] = False
            low, high = program.low.copy(), program.high.copy()
            low[held] = high[held] = self.best[held]
            backend = _PIECE_BACKENDS[tries[place]]
            tries[place] += 1
            if self.try_piece(low, high, backend):
                # What was searched around the point before may gain around this one.
                tries = [0] * len(blocks)

    def try_whole(self) -> None:
        """Search the program itself, for a better point and a lower bound."""
        left_s = self.left_s
        result = ask(self._program, "GSCIP", left_s, whole=True, hint=self.best, relative_gap=NEAR_ENOUGH)
        self.offer(_point_of(result))
        if isinstance(result, str):
            return
        bound = float(result.termination.objective_bounds.dual_bound)
        if np.isfinite(bound) and bound >= self._earned - TOLERANCE * max(1.0, abs(self._earned)):
            self.bound = min(self.bound, max(bound, self._earned))
        if self.best is None:
            self.status = reason_of(result)
        elif self.bound - self._earned <= NEAR_ENOUGH * max(1.0, abs(self.bound)):
            self.status = "optimal"


def _point_of(result: Any) -> Floats:
    if isinstance(result, str) or not result.solutions:
        return np.zeros(0)
    return array(result.solutions[0].primal_solution.variable_values.values)


def _without_fixed(program: LinearProgram) -> tuple[LinearProgram, Bools]:
    """Return the program without variables that cannot move and rows that cannot bind, and which variables stayed.

    HiGHS runs without presolve, and would carry all of them through every step of its search.
    """
    kept = program.low < program.high
    rows, columns, factors = rows_of(program), program.columns, program.coefficients
    count = len(program.row_low)
    ends = np.where(
        factors > 0.0, (program.low[columns], program.high[columns]), (program.high[columns], program.low[columns])
    )
    with np.errstate(invalid="ignore"):
        least, most = (
            np.bincount(rows, weights=np.where(factors != 0.0, factors * end, 0.0), minlength=count) for end in ends
        )
    slack = 1e-9 * np.maximum(1.0, np.abs(program.products(np.where(kept, 0.0, program.low))))
    may_bind = ~((least >= program.row_low - slack) & (most <= program.row_high + slack))
    may_bind &= np.bincount(rows[kept[columns]], minlength=count) > 0
    stays = kept[columns] & may_bind[rows]
    fixed = program.products(np.where(kept, 0.0, program.low))[may_bind]
    places = np.cumsum(kept) - 1
    lengths = np.bincount(rows[stays], minlength=count)[may_bind]
    piece = LinearProgram(
        gain=program.gain[kept],
        low=program.low[kept],
        high=program.high[kept],
        whole=program.whole[kept],
        row_low=program.row_low[may_bind] - fixed,
        row_high=program.row_high[may_bind] - fixed,
        starts=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]),
        columns=places[columns[stays]],
        coefficients=factors[stays],
        constant=program.constant + float(np.sum(program.gain[~kept] * program.low[~kept])),
    )
    return piece, kept


def _losses(program: LinearProgram, values: Floats, duals: Floats, blocks: Sequence[Block]) -> list[float]:
    """Return what each block loses against the duals' bound: worth of bounds that the point does not use."""
    reduced = reduced_costs(program, duals)
    of_rows = _unused(program.products(values), program.row_low, program.row_high, duals)
    of_columns = _unused(values, program.low, program.high, reduced)
    found = []
    rows = rows_of(program)
    for block in blocks:
        inside = np.zeros(len(program.row_low), dtype=bool)
        inside[block.rows] = True
        touched = np.zeros(len(program.gain), dtype=bool)
        touched[block.variables] = True
        touched[program.columns[inside[rows]]] = True
        found.append(float(np.sum(of_rows[inside]) + np.sum(of_columns[touched])))
    return found


def _unused(values: Floats, low: Floats, high: Floats, worth: Floats) -> Floats:
    side = np.where(worth > 0.0, high, low)
    return np.asarray(np.abs(worth) * np.where(np.isfinite(side), np.abs(side - values), 0.0))


def _joined(parts: Iterable[Places]) -> Places:
    places = np.concatenate([np.zeros(0, dtype=np.int64), *(np.ravel(part) for part in parts)])
    return np.unique(places[places >= 0])
