"""A lane: so many calls at work at once, however many wait for their devices."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Lane:
    """At most so many calls at work at once."""

    def __init__(self, slots: int, hold_s: float | None) -> None:
        self._semaphore = asyncio.Semaphore(slots)
        self._hold_s = hold_s
        self.busy = 0
        """Calls that hold a slot or wait for one."""

    async def slot(self) -> Slot:
        """Return a slot, once one is free; it is to be used as a context manager."""
        self.busy += 1
        try:
            await self._semaphore.acquire()
        except BaseException:
            self.busy -= 1
            raise
        return Slot(self, self._semaphore, self._hold_s)


class Slot:
    """One place in a lane, given back at the end of the `with` block or after the lane's hold time."""

    __slots__ = ("_lane", "_semaphore", "_timer")

    def __init__(self, lane: Lane, semaphore: asyncio.Semaphore, hold_s: float | None) -> None:
        self._lane = lane
        self._semaphore: asyncio.Semaphore | None = semaphore
        loop = asyncio.get_running_loop()
        self._timer = None if hold_s is None else loop.call_later(hold_s, self._give_back)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._lane.busy -= 1
        self._give_back()

    def _give_back(self) -> None:
        semaphore, self._semaphore = self._semaphore, None
        if semaphore is not None:
            semaphore.release()
