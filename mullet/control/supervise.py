"""Every task has an owner that restarts it from its factory, and cancels and awaits it at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from mullet.ports import Clock
from mullet.tasks import end_tasks

RESTART_FIRST_S = 0.5
RESTART_MOST_S = 30.0
HEALTHY_S = 60.0
"""A task that ran this long before it failed starts again at the first delay."""


class Supervisor:
    """Owns named tasks. A task that fails or ends is built anew from its factory, with a growing delay."""

    def __init__(self, clock: Clock, alarm: Callable[[str, str | None], None]) -> None:
        """`alarm(key, text)` raises an alarm, or clears it when `text` is None."""
        self._clock = clock
        self._alarm = alarm
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, factory: Callable[[], Awaitable[None]]) -> None:
        """Run `factory()` for ever, building it anew whenever it ends."""
        if name in self._tasks and not self._tasks[name].done():
            raise RuntimeError(f"task {name} is already running")
        self._tasks[name] = asyncio.create_task(self._keep(name, factory), name=name)

    async def stop(self, name: str) -> None:
        """Cancel one task and wait for its end."""
        task = self._tasks.pop(name, None)
        if task is not None:
            await end_tasks([task])

    async def close(self) -> None:
        """Cancel all tasks and wait for their end."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        await end_tasks(tasks)

    async def _keep(self, name: str, factory: Callable[[], Awaitable[None]]) -> None:
        delay_s = RESTART_FIRST_S
        while True:
            began = self._clock.monotonic()
            try:
                await factory()
                reason = "ended"
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever broke it, the task must live again
                reason = f"{type(error).__name__}: {error}"
            if self._clock.monotonic() - began > HEALTHY_S:
                delay_s = RESTART_FIRST_S
            self._alarm(f"task/{name}", f"{name} {reason}; starts again in {delay_s:.1f} s")
            try:
                await self._clock.sleep(delay_s)
            finally:
                self._alarm(f"task/{name}", None)
            delay_s = min(RESTART_MOST_S, delay_s * 2.0)
