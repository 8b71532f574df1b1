"""Tests in virtual time: an event loop whose clock jumps to the next thing due, and a Clock that reads it.

Needs the package async-solipsism (a development dependency); threads and real sockets do not work in such a loop.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

START = 1_767_225_600.0
"""2026-01-01T00:00:00Z, when virtual time begins unless told otherwise."""


class VirtualClock:
    """The Clock port over the running loop's own time; in a virtual loop an hour takes no time."""

    def __init__(self, start: float = START) -> None:
        self._start = start

    def now(self) -> float:
        """Unix seconds: the start and what has elapsed in the loop."""
        return self._start + self.monotonic()

    def monotonic(self) -> float:
        """Seconds of the loop."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Return once the loop's time has passed by `seconds`."""
        await asyncio.sleep(max(0.0, seconds))


class ManualClock:
    """The Clock port where time moves only when told to; `sleep` moves it."""

    def __init__(self, start: float = START) -> None:
        self._start = start
        self._elapsed_s = 0.0

    def now(self) -> float:
        """Unix seconds."""
        return self._start + self._elapsed_s

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        """Move time on and let other tasks run."""
        self.advance(max(0.0, seconds))
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        """Move time on."""
        self._elapsed_s += seconds


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Return what `main` returns, run in a virtual loop of its own.

    Raises:
        Leak: tasks were still running when it returned.
    """
    import async_solipsism  # type: ignore[import-untyped]

    from mullet.testing.leaks import no_leaked_tasks

    async def watched() -> T:
        async with no_leaked_tasks():
            return await main

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        return runner.run(watched())


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Turn an async test into one that runs in a virtual loop; its fixtures must not be async."""

    @functools.wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> T:
        return run_virtual(test(*arguments, **named))

    return run
