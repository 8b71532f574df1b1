"""The thread of a GPU: a call that hangs holds up nobody, and what came too late is not done."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from mullet.ports import DeviceRefused, DeviceUnreachable
from mullet.testing.virtual_time import ManualClock
from mullet_hardware.gpu.lane import ABANDONED_MOST, REBUILD_FIRST_S, REBUILD_MOST_S, Alive, Lane


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def lane(clock: ManualClock) -> AsyncIterator[Lane]:
    lane = Lane("test", clock)
    yield lane
    lane.close()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opened at the end, so that no thread hangs for ever."""
    gate = threading.Event()
    yield gate
    gate.set()


async def test_results_and_errors_come_back(lane: Lane) -> None:
    def refuse(alive: Alive) -> int:
        raise DeviceRefused("no")

    assert await lane.call(lambda alive: 7, 1.0) == 7
    with pytest.raises(DeviceRefused):
        await lane.call(refuse, 1.0)


async def test_calls_run_one_after_the_other_in_one_thread(lane: Lane) -> None:
    threads = await asyncio.gather(*(lane.call(lambda alive: threading.get_ident(), 2.0) for _ in range(20)))
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()


async def test_a_call_that_hangs_fails_the_next_ones_at_once(lane: Lane, gate: threading.Event) -> None:
    with pytest.raises(DeviceUnreachable, match="hangs"):
        await lane.call(lambda alive: gate.wait(30.0), 0.05)
    async with asyncio.timeout(0.5):
        for _ in range(3):
            with pytest.raises(DeviceUnreachable, match="still hangs"):
                await lane.call(lambda alive: 7, 10.0)


async def test_a_call_that_was_only_slow_gives_the_lane_back(lane: Lane, gate: threading.Event) -> None:
    with pytest.raises(DeviceUnreachable):
        await lane.call(lambda alive: gate.wait(30.0), 0.05)
    gate.set()
    async with asyncio.timeout(5.0):
        while True:
            try:
                assert await lane.call(lambda alive: 7, 1.0) == 7
            except DeviceUnreachable:
                await asyncio.sleep(0.01)
            else:
                break


async def test_a_fresh_thread_takes_over_after_a_while_and_not_without_end(
    lane: Lane, clock: ManualClock, gate: threading.Event
) -> None:
    waited_s = REBUILD_FIRST_S
    for _ in range(ABANDONED_MOST):
        with pytest.raises(DeviceUnreachable, match="the call hangs"):
            await lane.call(lambda alive: gate.wait(30.0), 0.05)
        clock.advance(waited_s - 0.1)
        with pytest.raises(DeviceUnreachable, match="still hangs"):
            await lane.call(lambda alive: 7, 1.0)
        clock.advance(0.2)
        waited_s = min(REBUILD_MOST_S, 2.0 * waited_s)
    with pytest.raises(DeviceUnreachable, match="the call hangs"):
        await lane.call(lambda alive: gate.wait(30.0), 0.05)
    clock.advance(10.0 * REBUILD_MOST_S)
    with pytest.raises(DeviceUnreachable, match="still hangs"):
        await lane.call(lambda alive: 7, 1.0)


async def test_what_waited_too_long_in_the_queue_is_never_run(lane: Lane, gate: threading.Event) -> None:
    done: list[str] = []
    first = asyncio.create_task(lane.call(lambda alive: gate.wait(30.0), 5.0))
    await asyncio.sleep(0)
    with pytest.raises(DeviceUnreachable):
        await lane.call(lambda alive: done.append("written"), 0.05)
    gate.set()
    assert await first is True
    assert await lane.call(lambda alive: 7, 1.0) == 7
    assert done == []


async def test_a_call_can_ask_whether_anybody_still_waits(lane: Lane, gate: threading.Event) -> None:
    asked: list[bool] = []

    def write_late(alive: Alive) -> None:
        asked.append(alive())
        gate.wait(30.0)
        asked.append(alive())

    with pytest.raises(DeviceUnreachable):
        await lane.call(write_late, 0.05)
    gate.set()
    async with asyncio.timeout(5.0):
        while len(asked) < 2:  # noqa: ASYNC110 - a thread appends
            await asyncio.sleep(0.01)
    assert asked == [True, False]


async def test_closing_ends_the_thread(clock: ManualClock) -> None:
    lane = Lane("short-lived lane", clock)
    await lane.call(lambda alive: 7, 1.0)
    lane.close()
    assert all(thread.name != "short-lived lane" for thread in threading.enumerate())
