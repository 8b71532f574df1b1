"""Readers in the background: periods kept, silence survived, a feed's failure said once and cleared."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from control_kit import FakeDriver

from mullet.control.parts import FeedKind, FeedPart
from mullet.control.pollers import read_feed, read_meter, watch_loads
from mullet.domain.telemetry import MeterReading, Telemetry
from mullet.ports import FeedError, MeterError, Quarantined
from mullet.testing.builders import facility, meter_reading
from mullet.testing.virtual_time import VirtualClock, in_virtual_time


class Source:
    """A feed or meter that takes its time and fails when told."""

    def __init__(self, clock: VirtualClock, takes_s: float = 0.0) -> None:
        self.clock, self.takes_s = clock, takes_s
        self.error: Exception | None = None
        self.asked: list[float] = []

    async def _answer(self) -> None:
        self.asked.append(self.clock.monotonic())
        await self.clock.sleep(self.takes_s)
        if self.error is not None:
            raise self.error

    async def fetch(self, deadline_s: float) -> Any:
        await self._answer()
        return 51.0

    async def read(self, meter_id: str, deadline_s: float) -> MeterReading:
        await self._answer()
        return meter_reading(meter_id, 1.0, self.clock.now())

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""


async def during(seconds: float, work: Awaitable[None], then: Callable[[], None] = lambda: None) -> None:
    task = asyncio.ensure_future(work)
    await asyncio.sleep(seconds)
    then()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@in_virtual_time
async def test_every_load_of_the_bank_is_passed_on() -> None:
    clock, seen = VirtualClock(), list[Telemetry]()
    loads = facility(miners=3, gpus=0).loads
    await during(2.5, watch_loads(FakeDriver(clock), loads, 1.0, seen.append))
    assert [reading.load_id for reading in seen] == [load.id for load in loads] * 3


@in_virtual_time
async def test_a_meter_is_read_at_its_period_however_long_it_takes() -> None:
    clock, seen = VirtualClock(), list[MeterReading]()
    meter = Source(clock, takes_s=0.4)
    await during(4.9, read_meter(meter, "grid", 1.0, clock, seen.append))
    assert [round(at) for at in meter.asked] == [0, 1, 2, 3, 4]
    assert len(seen) == 5


@in_virtual_time
async def test_a_silent_meter_is_asked_on_and_nothing_is_made_up() -> None:
    clock, seen = VirtualClock(), list[MeterReading]()
    meter = Source(clock)
    meter.error = MeterError("no answer")
    await during(3.5, read_meter(meter, "grid", 1.0, clock, seen.append))
    assert (len(meter.asked), seen) == (4, [])


class Hearing:
    def __init__(self) -> None:
        self.took: list[object] = []
        self.alarms: list[str | None] = []
        self.refuses: str | None = None

    async def take(self, value: object, at: float) -> None:
        if self.refuses is not None:
            raise Quarantined(self.refuses)
        self.took.append(value)

    def alarm(self, key: str, text: str | None) -> None:
        assert key == "feed/hashprice"
        self.alarms.append(text)


def part(source: Source) -> FeedPart:
    return FeedPart("hashprice", FeedKind.HASHPRICE, source, 10.0, 25.0)


@in_virtual_time
async def test_a_feed_that_fails_is_said_gets_stale_and_is_cleared_when_it_is_back() -> None:
    clock, hearing = VirtualClock(), Hearing()
    source = Source(clock)
    source.error = FeedError("503")

    def recovered() -> None:
        assert hearing.took == []

    task = asyncio.create_task(read_feed(part(source), clock, hearing.take, hearing.alarm))
    await clock.sleep(35.0)
    recovered()
    assert hearing.alarms == ["hashprice: 503"] * 3 + ["hashprice: 503; stale for 30 s, its safe action is in force"]
    source.error = None
    await clock.sleep(10.0)
    assert (hearing.took, hearing.alarms[-1]) == ([51.0], None)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@in_virtual_time
async def test_a_quarantined_value_counts_as_no_good_one() -> None:
    clock, hearing = VirtualClock(), Hearing()
    hearing.refuses = "quarantined: hashprice 0"
    await during(35.0, read_feed(part(Source(clock)), clock, hearing.take, hearing.alarm))
    assert hearing.alarms[0] == "hashprice: quarantined: hashprice 0"
    assert "stale for 30 s" in (hearing.alarms[-1] or "")
