"""How far a service's power may bend: to the power at which its GPUs still make all but the flexible share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mullet.domain.load import OperatingPoint

Curve = tuple[int, Sequence[OperatingPoint]]
"""A number of GPUs and their operating points, ascending."""
_BISECTIONS = 40


def bent_watts(curves: Sequence[Curve], need_watts: float, flex: float) -> float:
    """Return the least power for `need_watts`: at an even share of the way from lowest to highest points, throughput
    falls by no more than `flex` against what it is there. Without flex, or without a rising curve, that is the need.
    """
    low = sum(count * points[0].watts for count, points in curves)
    span = sum(count * (points[-1].watts - points[0].watts) for count, points in curves)
    if flex <= 0.0 or span <= 0.0 or need_watts <= low:
        return need_watts
    full = min(1.0, (need_watts - low) / span)
    wanted = (1.0 - flex) * _tokens_per_s(curves, full)
    if wanted >= _tokens_per_s(curves, full):
        return need_watts
    below, above = 0.0, full
    for _ in range(_BISECTIONS):
        middle = (below + above) / 2.0
        if _tokens_per_s(curves, middle) < wanted:
            below = middle
        else:
            above = middle
    return low + above * span


def _tokens_per_s(curves: Sequence[Curve], share: float) -> float:
    made = 0.0
    for count, points in curves:
        watts = points[0].watts + share * (points[-1].watts - points[0].watts)
        made += count * float(np.interp(watts, [p.watts for p in points], [p.tokens_per_s for p in points]))
    return made
