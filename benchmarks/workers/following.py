"""Following a plan step by step: what of it is done in the first five minutes, and what that earned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.instances import Ints, State
from mullet.planning.commitment.linear import Floats
from mullet.planning.commitment.model import Model
from mullet.planning.commitment.problem import Mining


def whole_counts(group: Mining, wanted: Floats) -> Ints:
    """Return (M,) whole loads nearest to what a relaxed plan wants, in order and within what may run."""
    counts = np.rint(wanted).astype(np.int64)
    if group.least_on is not None:
        counts[0] = max(int(counts[0]), int(group.least_on[0]))
    if group.most_on is not None:
        counts[0] = min(int(counts[0]), int(group.most_on[0]))
    return np.asarray(np.minimum.accumulate(counts))


def first_counts(model: Model, values: Floats) -> tuple[Ints, ...]:
    """Return per group the whole loads at or above each step of its curve in the plan's first step."""
    return tuple(
        whole_counts(group, values[places[:, 0]])
        for group, places in zip(model.problem.mining, model.at_least, strict=True)
    )


def moves(before: State, now: Sequence[Ints]) -> int:
    """Return how many loads change between two states, at any step of their curves."""
    return int(sum(np.abs(a - b).sum() for a, b in zip(before.at_least, now, strict=True)))
