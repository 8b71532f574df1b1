"""What peers need to know of the circuit tree and of windows of time, worked out from the problem alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mullet.planning.commitment.problem import CircuitLimit, Grid, Problem


class Tree:
    """Children, subtrees and the circuits at which expected power must be known."""

    def __init__(self, circuits: Sequence[CircuitLimit]) -> None:
        count = len(circuits)
        parents = [circuit.parent for circuit in circuits]
        self.roots = [c for c in range(count) if parents[c] < 0]
        self.children: list[list[int]] = [[] for _ in range(count)]
        for c in range(count):
            if parents[c] >= 0:
                self.children[parents[c]].append(c)
        self.subtree: list[list[int]] = [[c] for c in range(count)]
        for c in range(count - 1, -1, -1):
            if parents[c] >= 0:
                self.subtree[parents[c]] += self.subtree[c]
        self.marked = [c for c in range(count) if parents[c] < 0 or circuits[c].follow or circuits[c].cooling]
        """Roots and every circuit that feeds auxiliaries or cooling."""
        self.nearest: dict[int, list[int]] = {c: [] for c in self.marked}
        """Per marked circuit: those whose nearest marked circuit it is, itself included."""
        self.marked_children: dict[int, list[int]] = {c: [] for c in self.marked}
        for c in range(count):
            here = c
            while here not in self.nearest:
                here = parents[here]
            self.nearest[here].append(c)
            if c == here and parents[c] >= 0:
                above = parents[c]
                while above not in self.nearest:
                    above = parents[above]
                self.marked_children[above].append(c)


def windows(grid: Grid, length_s: float, last_only: bool) -> list[tuple[int, int]]:
    """Return (step, first step that began less than `length_s` before it) for windows of two steps or more.

    With `last_only` only the longest of the windows that begin at the same step: the others follow from it.
    """
    first = np.minimum(np.searchsorted(grid.starts_s, grid.starts_s - length_s + 1e-6), np.arange(grid.count))
    found = []
    for step in range(grid.count):
        longest = step + 1 == grid.count or first[step + 1] > first[step]
        if first[step] < step and (longest or not last_only):
            found.append((step, int(first[step])))
    return found


def chord(problem: Problem, tree: Tree, circuit: int, most: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return cooling at no load and its rise per MW on the chord to full load, (T,) each.

    Cooling may not lie above the chord: else it would grow without end where energy earns.
    """
    beneath = set(tree.subtree[circuit])
    full = 0.0
    for group in problem.mining:
        if group.circuit in beneath:
            full += group.count * float((group.most_mw if most else group.mean_mw).sum())
    for service in problem.inference:
        for pool in service.pools:
            if pool.circuit in beneath:
                full += pool.count * (pool.active_mw + float(pool.segment_mw.sum()))
    segments = problem.circuits[circuit].cooling
    idle, loaded = np.zeros(problem.grid.count), np.zeros(problem.grid.count)
    for segment in segments:
        idle = np.maximum(idle, segment.fixed_mw)
        loaded = np.maximum(loaded, segment.fixed_mw + segment.slope * full)
    return idle, (loaded - idle) / full if full > 0.0 else np.zeros_like(idle)
