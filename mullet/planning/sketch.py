"""Quantiles of a stream in bounded memory: counts in bins of equal ratio, older values fading. Pure and repeatable."""

from __future__ import annotations

import math
from collections.abc import Mapping

RATIO = 1.01
"""Width of a bin: a quantile is true to 1 %."""
LEAST = 0.01
"""Smaller values, and what is not above 0, count as this."""
MOST_COUNTED = 20_000
"""Above it all counts are halved: what was seen long ago weighs less and less."""

_LOG_RATIO = math.log(RATIO)


class Sketch:
    """What a stream of numbers looked like."""

    def __init__(self, bins: Mapping[int, int] | None = None) -> None:
        """Go on from `bins` as `bins()` returned them."""
        self._bins: dict[int, int] = {} if bins is None else dict(bins)
        self._total = sum(self._bins.values())

    def __len__(self) -> int:
        """How many values are counted, older ones in part."""
        return self._total

    def bins(self) -> dict[int, int]:
        """Return the counts by bin."""
        return dict(self._bins)

    def add(self, value: float) -> None:
        """Count one value; what is no number is left out."""
        if not math.isfinite(value):
            return
        self._count(math.ceil(math.log(max(value, LEAST)) / _LOG_RATIO), 1)

    def take_in(self, other: Sketch) -> None:
        """Count what `other` has counted, too."""
        for index, count in other.bins().items():
            self._count(index, count)

    def _count(self, index: int, count: int) -> None:
        self._bins[index] = self._bins.get(index, 0) + count
        self._total += count
        if self._total > MOST_COUNTED:
            self._bins = {index: count // 2 for index, count in self._bins.items() if count >= 2}
            self._total = sum(self._bins.values())

    def at_most(self, share: float) -> float | None:
        """Return a value that at least `share` of the stream does not exceed, up to 1 % high; None of nothing."""
        index = self._index(share)
        return None if index is None else RATIO**index

    def about(self, share: float) -> float | None:
        """Return the quantile itself, true to half a percent; None of nothing."""
        index = self._index(share)
        return None if index is None else RATIO ** (index - 0.5)

    def _index(self, share: float) -> int | None:
        left = share * self._total
        last = None
        for index in sorted(self._bins):
            last = index
            left -= self._bins[index]
            if left <= 1e-9:
                break
        return last
