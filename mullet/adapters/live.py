"""One reader of the daemon's events for all who watch: encoded once per tick; a slow watcher skips to the newest."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator, Mapping
from typing import Any

from mullet.adapters.trail import Trail
from mullet.ports import Clock, Operations

HEARTBEAT_S = 10.0
RESTART_S = 1.0

logger = logging.getLogger(__name__)


class Live:
    """Follows `operations.events()` in a task of its own, feeds the charts, and serves event streams."""

    def __init__(self, operations: Operations, clock: Clock, trail: Trail, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._operations = operations
        self._clock = clock
        self._trail = trail
        self._heartbeat_s = heartbeat_s
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._latest: Mapping[str, Any] | None = None
        self._version = 0
        self._frame: tuple[int, bytes] = (0, b"")
        self._closed = False
        self.watchers = 0

    @property
    def version(self) -> int | None:
        """A number that grows with every tick seen; None while nothing follows the events."""
        return self._version if self._task is not None and not self._closed else None

    def start(self) -> None:
        """Begin to follow the events."""
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name="api events")

    async def close(self) -> None:
        """End the task and every stream."""
        self._closed = True
        self._changed.set()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield server-sent events: the newest status after each tick, and comments while nothing happens."""
        seen = 0
        self.watchers += 1
        try:
            yield b"retry: 2000\n\n"
            while not self._closed:
                if self._version == seen:
                    try:
                        await asyncio.wait_for(self._changed.wait(), self._heartbeat_s)
                    except TimeoutError:
                        yield b": still here\n\n"
                    continue
                seen = self._version
                yield self._encoded()
            yield b"event: end\ndata: {}\n\n"
        finally:
            self.watchers -= 1

    async def _follow(self) -> None:
        while True:
            events = self._operations.events()
            try:
                async for status in events:
                    self._publish(status)
                logger.warning("the daemon's events ended; following them again")
            except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
                logger.warning("following the daemon's events failed: %s: %s", type(error).__name__, error)
            finally:
                close = getattr(events, "aclose", None)
                if close is not None:
                    await close()
            await self._clock.sleep(RESTART_S)

    def _publish(self, status: Mapping[str, Any]) -> None:
        self._latest = status
        self._version += 1
        self._trail.take(status)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _encoded(self) -> bytes:
        version, frame = self._frame
        if version != self._version and self._latest is not None:
            body = to_json(with_recent(self._operations, self._latest))
            frame = b"id: %d\nevent: status\ndata: %s\n\n" % (self._version, body)
            self._frame = (self._version, frame)
        return frame


def with_recent(operations: Operations, status: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the status with what happened of late, where the daemon keeps it: newest first."""
    recent = getattr(operations, "recent", None)
    return {**status, "recent": [] if recent is None else list(recent())}


def to_json(value: Any) -> bytes:
    """Return compact JSON; a number that JSON cannot write becomes null."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
