"""Ending tasks for good, whatever a library beneath them does with a cancellation.

Up to Python 3.11 asyncio.wait_for, which libraries call, swallows a cancellation that comes in the same turn of the
event loop as its result (python/cpython issue 86296).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

CANCEL_AGAIN_S = 3.0
"""Longer than an orderly end takes: a second cancellation would cut it short."""


async def end_tasks(tasks: Iterable[asyncio.Task[Any]], again_s: float = CANCEL_AGAIN_S) -> None:
    """Cancel tasks and return once each has ended, however it ended; one that goes on is cancelled every `again_s`."""
    mine = list(tasks)
    while pending := [task for task in mine if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=again_s)
    await asyncio.gather(*mine, return_exceptions=True)


def honour_cancellation() -> None:
    """Raise the cancellation of the running task that a library has swallowed, if it has.

    Raises:
        asyncio.CancelledError: the task was cancelled; whoever did it waits for its end.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
