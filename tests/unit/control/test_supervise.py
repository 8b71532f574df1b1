"""Tasks with an owner: built anew when they end, slower each time, and awaited at the end."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from mullet.control.supervise import HEALTHY_S, RESTART_MOST_S, Supervisor
from mullet.testing.virtual_time import VirtualClock, in_virtual_time


class Alarms:
    def __init__(self) -> None:
        self.standing: dict[str, str] = {}
        self.raised: list[str] = []

    def __call__(self, key: str, text: str | None) -> None:
        if text is None:
            self.standing.pop(key, None)
        else:
            self.standing[key] = text
            self.raised.append(text)


@in_virtual_time
async def test_a_task_that_fails_is_built_anew_with_a_growing_delay_up_to_a_bound() -> None:
    clock, alarms = VirtualClock(), Alarms()
    owner, starts = Supervisor(clock, alarms), []

    async def fail() -> None:
        starts.append(clock.monotonic())
        raise OSError("no route")

    owner.start("meter/grid", fail)
    await clock.sleep(200.0)
    await owner.close()
    gaps = [round(after - before, 6) for before, after in itertools.pairwise(starts)]
    assert gaps[:7] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, RESTART_MOST_S]
    assert set(gaps[7:]) == {RESTART_MOST_S}
    assert alarms.raised[0] == "meter/grid OSError: no route; starts again in 0.5 s"


@in_virtual_time
async def test_one_that_ends_by_itself_is_built_anew_too_and_the_alarm_ends_when_it_lives_again() -> None:
    clock, alarms = VirtualClock(), Alarms()
    owner, starts = Supervisor(clock, alarms), []

    async def end_once() -> None:
        starts.append(clock.monotonic())
        if len(starts) > 1:
            await asyncio.Event().wait()

    owner.start("watch/a", end_once)
    await clock.sleep(0.1)
    assert alarms.standing == {"task/watch/a": "watch/a ended; starts again in 0.5 s"}
    await clock.sleep(1.0)
    assert len(starts) == 2
    assert alarms.standing == {}
    await owner.close()


@in_virtual_time
async def test_after_a_healthy_run_the_delay_starts_over() -> None:
    clock, alarms = VirtualClock(), Alarms()
    owner, ran = Supervisor(clock, alarms), []

    async def live_longer_each_time() -> None:
        ran.append(clock.monotonic())
        await clock.sleep(HEALTHY_S + 1.0 if len(ran) == 4 else 0.0)
        raise OSError

    owner.start("feed/price", live_longer_each_time)
    await clock.sleep(100.0)
    await owner.close()
    delays = [text.rsplit(" in ", 1)[1] for text in alarms.raised[:6]]
    assert delays == ["0.5 s", "1.0 s", "2.0 s", "0.5 s", "1.0 s", "2.0 s"]


@in_virtual_time
async def test_closing_cancels_and_awaits_all() -> None:
    clock = VirtualClock()
    owner, ended = Supervisor(clock, Alarms()), []

    async def slow_to_end(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await clock.sleep(1.0)
            ended.append(name)

    owner.start("a", lambda: slow_to_end("a"))
    owner.start("b", lambda: slow_to_end("b"))
    await clock.sleep(0.1)
    await owner.stop("a")
    assert ended == ["a"]
    await owner.close()
    assert ended == ["a", "b"]
    await owner.stop("unknown")


@in_virtual_time
async def test_an_alarm_does_not_outlive_the_task_it_is_about() -> None:
    clock, alarms = VirtualClock(), Alarms()
    owner = Supervisor(clock, alarms)

    async def fail() -> None:
        raise OSError

    owner.start("a", fail)
    await clock.sleep(0.1)
    assert "task/a" in alarms.standing
    await owner.close()
    assert alarms.standing == {}


@in_virtual_time
async def test_one_name_is_one_task() -> None:
    clock = VirtualClock()
    owner = Supervisor(clock, Alarms())
    owner.start("a", asyncio.Event().wait)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="already running"):
        owner.start("a", asyncio.Event().wait)  # type: ignore[arg-type]
    await owner.close()
    owner.start("a", asyncio.Event().wait)  # type: ignore[arg-type]
    await owner.close()


@in_virtual_time
async def test_a_task_that_swallows_its_cancellation_is_ended_all_the_same() -> None:
    clock, alarms = VirtualClock(), Alarms()
    owner, swallowed = Supervisor(clock, alarms), []

    async def read_for_ever() -> None:
        while True:
            try:
                await clock.sleep(1.0)
            except asyncio.CancelledError:
                # As asyncio.wait_for does up to Python 3.11 where its result came in the same turn of the loop.
                if swallowed:
                    raise
                swallowed.append(clock.monotonic())

    owner.start("meter/grid", read_for_ever)
    await clock.sleep(10.5)
    async with asyncio.timeout(5.0):
        await owner.close()
    assert len(swallowed) == 1
    assert clock.monotonic() - swallowed[0] <= 3.5
