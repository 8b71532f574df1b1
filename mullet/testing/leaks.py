"""What a test left behind: tasks, file descriptors (sockets above all), child processes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

LOOKS = 50
LOOK_EVERY_S = 0.02
"""Closing takes effect a little later; only what is still there at the last look is a leak."""

_HARMLESS = ("/dev/", "/proc/", "/sys/", "/usr/", "/lib", "anon_inode:[timerfd]")
_HARMLESS_ENDINGS = (".py", ".pyc", ".so", ".whl", " (deleted)")
_LASTING_CHILDREN = ("resource_tracker", "forkserver")


class Leak(AssertionError):
    """Something was left behind; the message names it."""


def open_descriptors() -> Counter[str]:
    """Return what the process's descriptors point at: sockets, pipes, polls and files that matter."""
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if not target.startswith(_HARMLESS) and not target.endswith(_HARMLESS_ENDINGS):
                found[target] += 1
    return found


def child_processes() -> set[int]:
    """Return the process ids of living children, without those that Python keeps for itself."""
    found = set()
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError, ValueError):
            for word in (thread / "children").read_text().split():
                if not _lasts(int(word)):
                    found.add(int(word))
    return found


def _lasts(pid: int) -> bool:
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
        return any(name in command for name in _LASTING_CHILDREN)
    return True


@contextmanager
def no_leaked_descriptors() -> Iterator[None]:
    """Raise Leak if the block ends with descriptors open that were not open before it, within a second."""
    before = open_descriptors()
    yield
    leaked = open_descriptors() - before
    if leaked:
        gc.collect()
    for _ in range(LOOKS):
        leaked = open_descriptors() - before
        if not leaked:
            return
        time.sleep(LOOK_EVERY_S)
    raise Leak(f"left open: {', '.join(sorted(leaked))}")


@contextmanager
def no_leaked_children() -> Iterator[None]:
    """Raise Leak if the block ends with a child process alive that was not there before, within a second."""
    before = child_processes()
    yield
    leaked: set[int] = set()
    for _ in range(LOOKS):
        leaked = child_processes() - before
        if not leaked:
            return
        time.sleep(LOOK_EVERY_S)
    raise Leak(f"left running: processes {', '.join(map(str, sorted(leaked)))}")


@asynccontextmanager
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Raise Leak if the block ends with tasks of this loop running that were not there before.

    They get a few turns of the loop to end; a task that waits for anything else was not awaited by its owner.
    """
    before = asyncio.all_tasks()
    yield
    current = asyncio.current_task()
    for _ in range(20):
        leaked = {task for task in asyncio.all_tasks() - before if task is not current and not task.done()}
        if not leaked:
            return
        await asyncio.sleep(0)
    raise Leak(f"left running: {', '.join(sorted(_told(task) for task in leaked))}")


@asynccontextmanager
async def no_leaks() -> AsyncIterator[None]:
    """Raise Leak if the block leaves tasks or descriptors; turns of the loop are given for closing."""
    before = open_descriptors()
    async with no_leaked_tasks():
        yield
    leaked = open_descriptors() - before
    for _ in range(LOOKS):
        if not leaked:
            return
        await asyncio.sleep(LOOK_EVERY_S)
        leaked = open_descriptors() - before
    raise Leak(f"left open: {', '.join(sorted(leaked))}")


def _told(task: asyncio.Task[object]) -> str:
    coroutine = task.get_coro()
    return f"task {task.get_name()} ({getattr(coroutine, '__qualname__', coroutine)})"
