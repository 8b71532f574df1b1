"""A bounded queue between the event loop and one thread: it never waits, and the oldest item gives way."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Spool(Generic[T]):
    """Items in order of arrival, at most `most` of them."""

    def __init__(self, most: int) -> None:
        self._items: deque[T] = deque()
        self._most = most
        self._dropped = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def dropped(self) -> int:
        """Items that gave way to newer ones."""
        return self._dropped

    @property
    def closed(self) -> bool:
        """Whether nothing will be put any more."""
        return self._closed

    def put(self, item: T) -> None:
        """Add an item; what is put after `close` is dropped."""
        with self._changed:
            if self._closed or len(self._items) >= self._most:
                self._dropped += 1
            if self._closed:
                return
            if len(self._items) >= self._most:
                self._items.popleft()
            self._items.append(item)
            self._changed.notify()

    def take(self, wait_s: float) -> T | None:
        """Return the oldest item, or None if none came within `wait_s` or the spool was closed and is empty."""
        with self._changed:
            if not self._items and not self._closed and wait_s > 0.0:
                self._changed.wait(wait_s)
            return self._items.popleft() if self._items else None

    def pause(self, wait_s: float) -> None:
        """Return after `wait_s`, or as soon as something was put or the spool was closed."""
        with self._changed:
            if not self._closed:
                self._changed.wait(wait_s)

    def close(self) -> None:
        """Let the thread finish what is there."""
        with self._changed:
            self._closed = True
            self._changed.notify()
