"""The one reader of the wall clock: Unix seconds that never run backwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class SystemClock:
    """The wall clock read once and carried forward by the monotonic clock (`ports.Clock`).

    A step of the wall clock (a late first synchronisation, an operator's hand) never moves `now`;
    `offset_s` tells how large the step was, so that an alarm can.
    """

    __slots__ = ("_anchor_s", "_monotonic", "_wall")

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._anchor_s = wall() - monotonic()

    def now(self) -> float:
        """Return Unix seconds that never run backwards."""
        return self._anchor_s + self._monotonic()

    def monotonic(self) -> float:
        """Return seconds that only elapse."""
        return self._monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)

    def offset_s(self) -> float:
        """Return how far the wall clock has moved away from `now` since the start, in seconds (ahead is positive)."""
        return self._wall() - self.now()
