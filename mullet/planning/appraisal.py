"""What a plan earns, whoever made it: the same sum of money for every rung of the ladder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mullet.planning.commitment.certificate import Counts, Schedule, evaluate
from mullet.planning.frame import Frame
from mullet.planning.pose import pose
from mullet.planning.pose_service import MW


def earned(
    made: Frame, at_least: Sequence[Mapping[int, Sequence[int]]], granted: Sequence[Mapping[int, float]]
) -> float:
    """Return what the schedule earns over the horizon, in the sense of `commitment.certificate.evaluate`.

    Per slot, `at_least` holds hull counts per mining group and `granted` watts above the lowest per GPU group.
    """
    posed = pose(made)
    counts: list[Counts] = []
    starts: list[Counts] = []
    for group in posed.mining:
        hull = group.item.hull
        # A load at a point of the hull stands above every point that the hull leaves out below it.
        position = [next((n for n, k in enumerate(hull) if k >= step), None) for step in range(1, max(hull) + 1)]
        rows = np.zeros((len(group.item.group.points) - 1, len(made.slots)), dtype=np.int64)
        for t, slot in enumerate(at_least):
            levels = slot[group.item.number]
            for step, place in enumerate(position):
                rows[step, t] = levels[place] if place is not None else 0
        counts.append(rows)
        starts.append(np.maximum(0, np.diff(rows[0], prepend=group.running)))
    pools = [np.array([slot.get(group.item.number, 0.0) for slot in granted]) / MW for group in posed.pools]
    active = [np.full(len(made.slots), group.available, dtype=np.int64) for group in posed.pools]
    return evaluate(posed.problem, Schedule(tuple(counts), tuple(starts), tuple(pools), tuple(active))).earned
