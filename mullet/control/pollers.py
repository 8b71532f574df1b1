"""Background readers of loads, meters and feeds: each a task of its own, so that none delays another."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable, Sequence

from mullet.control.parts import FeedPart
from mullet.domain.load import Load
from mullet.domain.telemetry import MeterReading, Telemetry
from mullet.ports import Clock, Driver, FeedError, Link, Meter, MeterError

METER_DEADLINE_S = 0.9
ALIVE_EVERY_S = 0.5
"""How often an agent is looked for."""


async def watch_loads(driver: Driver, loads: Sequence[Load], period_s: float, saw: Callable[[Telemetry], None]) -> None:
    """Pass every reading of `loads` to `saw`, for ever."""
    async for reading in driver.watch(loads, period_s):
        saw(reading)


async def watch_agent(link: Link, agent: str, saw: Callable[[Telemetry], None]) -> None:
    """Pass every reading that an agent sends to `saw`, for ever."""
    async for reading in link.telemetry(agent):
        saw(reading)


async def renew_leases(link: Link, agents: Sequence[str], lease_s: float, renew_s: float, clock: Clock) -> None:
    """Renew the leases that agents hold, for ever: every `renew_s`, and as soon as an agent is seen alive again.

    An agent whose leases lapsed takes no command before it has heard from its controller.
    """
    due = dict.fromkeys(agents, clock.monotonic())
    was_alive = dict.fromkeys(agents, True)
    while True:
        for agent in agents:
            alive = link.alive(agent)
            if clock.monotonic() >= due[agent] or (alive and not was_alive[agent]):
                due[agent] = clock.monotonic() + renew_s
                await link.renew(agent, lease_s)
            was_alive[agent] = alive
        wait_s = min(due.values(), default=math.inf) - clock.monotonic()
        await clock.sleep(min(ALIVE_EVERY_S, max(0.05, wait_s)))


async def read_meter(
    meter: Meter, meter_id: str, period_s: float, clock: Clock, saw: Callable[[MeterReading], None]
) -> None:
    """Read one meter every `period_s`, for ever. Of a silent one the last reading stays, and ages."""
    while True:
        began = clock.monotonic()
        with contextlib.suppress(MeterError):
            saw(await meter.read(meter_id, METER_DEADLINE_S))
        await clock.sleep(max(0.05, period_s - (clock.monotonic() - began)))


async def read_feed(
    part: FeedPart,
    clock: Clock,
    took: Callable[[object, float], Awaitable[None]],
    alarm: Callable[[str, str | None], None],
) -> None:
    """Fetch a feed at its period, for ever. A failure raises an alarm once and clears it on recovery."""
    good_at = clock.monotonic()
    while True:
        began = clock.monotonic()
        try:
            value = await part.feed.fetch(part.deadline_s)
            await took(value, clock.now())
            good_at = clock.monotonic()
            alarm(f"feed/{part.name}", None)
        except FeedError as error:
            age_s = clock.monotonic() - good_at
            stale = f"; stale for {age_s:.0f} s, its safe action is in force" if age_s > part.max_age_s else ""
            alarm(f"feed/{part.name}", f"{part.name}: {error}{stale}")
        await clock.sleep(max(0.05, part.period_s - (clock.monotonic() - began)))
