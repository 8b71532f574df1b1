"""Mining groups in the program: loads counted per step of their curve, starts, and how long they stay on or off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mullet.planning.commitment.assembly import Assembly, Places, nowhere
from mullet.planning.commitment.problem import Grid, Mining, Problem

# Steps are whole seconds; anything finer is arithmetic.
_SAME_S = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Where the groups stand in the program."""

    at_least: tuple[Places, ...]
    """Per group (M, T)."""
    starts: tuple[Places, ...]
    """Per group (T,), -1 for a group without steps."""
    rows: dict[str, Places]


def add_clusters(assembly: Assembly, problem: Problem) -> Clusters:
    """Add counts, starts and their rows for every group.

    Counts are incremental (loads at or above a step), clustered after Palmintier & Webster 2012; minimum on and off
    times are those of Rajan & Takriti 2005, their windows measured in seconds, so that any grid will do.
    """
    grid = problem.grid
    steps = grid.count
    at_least: list[Places] = []
    starts: list[Places] = []
    order = nowhere(len(problem.mining), max((max(0, len(g.most_mw) - 1) for g in problem.mining), default=0), steps)
    start_limit = nowhere(len(problem.mining), max((len(g.start_limits) for g in problem.mining), default=0))
    start, min_on, min_off = (nowhere(len(problem.mining), steps) for _ in range(3))
    windows = _Windows(grid)
    hour_value = grid.hours * problem.site.earned_per_th_hour
    for number, group in enumerate(problem.mining):
        levels = len(group.most_mw)
        counts = _counts(assembly, group, hour_value)
        at_least.append(counts)
        if not levels:
            starts.append(nowhere(steps))
            continue
        begun = assembly.variables((steps,), 0.0, group.count, -group.start_cost, whole=True)
        starts.append(begun)
        if levels > 1:
            rows = assembly.rows((levels - 1, steps), 0.0)
            assembly.put(rows, counts[:-1], 1.0)
            assembly.put(rows, counts[1:], -1.0)
            order[number, : levels - 1] = rows
        running = counts[0]
        start[number] = _start_rows(assembly, running, begun, int(group.running[0]))
        min_on[number] = _min_on_rows(assembly, windows, group.min_on_s, running, begun)
        min_off[number] = _min_off_rows(assembly, windows, group, running, begun)
        start_limit[number, : len(group.start_limits)] = _start_limit_rows(assembly, group, begun)
    rows_of = {
        "order": order,
        "start": start,
        "min_on": min_on,
        "min_off": min_off,
        "start_limit": start_limit,
    }
    return Clusters(tuple(at_least), tuple(starts), rows_of)


def _counts(assembly: Assembly, group: Mining, hour_value: NDArray[np.float64]) -> Places:
    levels, steps = len(group.most_mw), len(hour_value)
    low = np.zeros((levels, steps))
    high = np.full((levels, steps), float(group.count))
    if levels and group.least_on is not None:
        low[0] = group.least_on
    if levels and group.most_on is not None:
        high[0] = group.most_on
    return assembly.variables((levels, steps), low, high, np.outer(group.th_per_s, hour_value), whole=True)


def _start_rows(assembly: Assembly, running: Places, begun: Places, running_now: int) -> Places:
    low = np.zeros(len(begun))
    low[0] = -running_now
    rows = assembly.rows((len(begun),), low)
    assembly.put(rows, begun, 1.0)
    assembly.put(rows, running, -1.0)
    assembly.put(rows[1:], running[:-1], 1.0)
    return rows


def _min_on_rows(assembly: Assembly, windows: _Windows, min_on_s: float, running: Places, begun: Places) -> Places:
    places = nowhere(len(begun))
    first = windows.first(min_on_s)
    kept = np.flatnonzero(first < np.arange(len(first)))
    rows = assembly.rows((len(kept),), 0.0, at=kept)
    if len(kept):
        places[kept] = rows
        assembly.put(rows, running[kept], 1.0)
        of_row, of_step = windows.members(min_on_s, kept)
        assembly.put(places[of_row], begun[of_step], -1.0)
    return places


def _min_off_rows(assembly: Assembly, windows: _Windows, group: Mining, running: Places, begun: Places) -> Places:
    places = nowhere(len(begun))
    first = windows.first(group.min_off_s)
    # Of rows whose windows begin at the same step the last says all.
    last_of_its_first = np.append(first[1:] > first[:-1], True)
    kept = np.flatnonzero((first < np.arange(len(first))) & last_of_its_first)
    from_now = first[kept] == 0
    high = np.where(from_now, float(group.count - int(group.running[0])), float(group.count))
    rows = assembly.rows((len(kept),), -np.inf, high, at=kept)
    if len(kept):
        places[kept] = rows
        of_row, of_step = windows.members(group.min_off_s, kept)
        assembly.put(places[of_row], begun[of_step], 1.0)
        assembly.put(rows[~from_now], running[first[kept[~from_now]] - 1], 1.0)
    return places


def _start_limit_rows(assembly: Assembly, group: Mining, begun: Places) -> Places:
    rows = assembly.rows((len(group.start_limits),), -np.inf, [limit.most for limit in group.start_limits])
    for row, limit in zip(rows, group.start_limits, strict=True):
        # Steps outside keep a coefficient of 0: a day's end moves along the grid, the pattern does not.
        assembly.put(row, begun, inside(len(begun), limit.first, limit.last))
    return rows


def inside(steps: int, first: int, last: int) -> NDArray[np.float64]:
    """Return (T,) 1 for the steps [first, last), 0 elsewhere."""
    at = np.arange(steps)
    return ((at >= first) & (at < last)).astype(np.float64)


class _Windows:
    """For each step, the steps that began less than some seconds before it, itself included."""

    def __init__(self, grid: Grid) -> None:
        self._starts_s = grid.starts_s
        self._first: dict[float, Places] = {}
        self._members: dict[tuple[float, bytes], tuple[Places, Places]] = {}

    def first(self, window_s: float) -> Places:
        """Return (T,) the first step of each step's window."""
        if window_s not in self._first:
            after = np.searchsorted(self._starts_s, self._starts_s - window_s + _SAME_S, side="left")
            self._first[window_s] = np.minimum(after, np.arange(len(after))).astype(np.int64)
        return self._first[window_s]

    def members(self, window_s: float, kept: Places) -> tuple[Places, Places]:
        """Return pairs (step, member of its window) for the steps kept."""
        key = (window_s, kept.tobytes())
        if key not in self._members:
            first = self.first(window_s)
            lengths = kept - first[kept] + 1
            of_row = np.repeat(kept, lengths)
            offset = np.arange(len(of_row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            self._members[key] = (of_row, np.repeat(first[kept], lengths) + offset)
        return self._members[key]
