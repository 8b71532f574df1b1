"""A loop that stalls has its stack told, once; one that gets on has not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mullet.app.stalls import StallWatch


def soon(look: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 5.0
    while not look():
        assert time.monotonic() < ends_at
        time.sleep(0.01)


def test_the_stack_of_a_stall_is_told_once_for_each() -> None:
    told: list[str] = []
    watch = StallWatch(0.05, told.append)
    try:
        for stall in (1, 2):
            watch.beat()
            soon(lambda: len(told) == stall)  # noqa: B023
            time.sleep(0.2)
            assert len(told) == stall
        assert all("test_the_stack_of_a_stall" in text for text in told)
        assert told[0].startswith("no tick for 0.05 s")
    finally:
        watch.close()


def test_one_that_beats_in_time_is_never_told_and_the_thread_ends() -> None:
    told: list[str] = []
    watch = StallWatch(1.0, told.append)
    for _ in range(20):
        watch.beat()
        time.sleep(0.01)
    watch.close()
    assert told == []
    assert not [thread for thread in threading.enumerate() if thread.name == "stall watch"]


def test_a_watch_that_never_began_ends_too() -> None:
    StallWatch(1.0).close()
