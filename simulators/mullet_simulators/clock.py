"""The one reader of the wall clock in this package: Unix seconds that never step back."""

from __future__ import annotations

import time


class SteadyClock:
    """Unix time read once at the start and carried forward by the monotonic clock."""

    __slots__ = ("_offset_s",)

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def __call__(self) -> float:
        """Unix seconds."""
        return self._offset_s + time.monotonic()


def cpu_seconds() -> float:
    """CPU seconds that this process has used, in user and system mode."""
    return time.process_time()
