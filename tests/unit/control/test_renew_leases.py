"""Heartbeats to edge agents: in time, and at once to one that is seen alive again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from mullet.control.pollers import ALIVE_EVERY_S, renew_leases
from mullet.domain.command import Command, Receipt
from mullet.domain.telemetry import Telemetry
from mullet.testing.virtual_time import VirtualClock, in_virtual_time

RENEW_S = 20.0


@dataclass
class Agents:
    """A link that only tells who lives, and notes when each was renewed."""

    clock: VirtualClock
    living: set[str] = field(default_factory=set)
    beats: list[tuple[str, float]] = field(default_factory=list)
    renew_takes_s: float = 0.0

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, agent: str, command: Command, deadline_s: float) -> Receipt:
        raise AssertionError("nothing is sent")

    async def renew(self, agent: str, lease_s: float) -> None:
        self.beats.append((agent, self.clock.monotonic()))
        await self.clock.sleep(self.renew_takes_s)

    def telemetry(self, agent: str) -> AsyncIterator[Telemetry]:
        raise AssertionError("nothing is read")

    def alive(self, agent: str) -> bool:
        return agent in self.living

    def of(self, agent: str) -> list[float]:
        return [at for name, at in self.beats if name == agent]


async def renewed(link: Agents, *agents: str) -> asyncio.Task[None]:
    task = asyncio.create_task(renew_leases(link, agents, 60.0, RENEW_S, link.clock))
    await asyncio.sleep(0)
    return task


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@in_virtual_time
async def test_an_agent_that_stays_is_renewed_once_a_period() -> None:
    link = Agents(VirtualClock(), {"a"})
    began = link.clock.monotonic()
    task = await renewed(link, "a")
    await asyncio.sleep(4.0 * RENEW_S + 1.0)
    await end(task)
    beats = [at - began for at in link.of("a")]
    assert len(beats) == 5
    assert all(abs(at - RENEW_S * n) <= 0.1 * (n + 1) for n, at in enumerate(beats))


@in_virtual_time
async def test_one_that_comes_back_is_renewed_at_once_and_the_others_as_before() -> None:
    link = Agents(VirtualClock(), {"a", "b"})
    began = link.clock.monotonic()
    task = await renewed(link, "a", "b")
    await asyncio.sleep(2.0)
    link.living.discard("a")
    await asyncio.sleep(5.0)
    assert len(link.of("a")) == 1
    back_at = link.clock.monotonic()
    link.living.add("a")
    await asyncio.sleep(RENEW_S - 8.0)
    await end(task)
    assert len(link.of("a")) == 2
    assert 0.0 <= link.of("a")[1] - back_at <= ALIVE_EVERY_S + 1e-6
    assert [at - began for at in link.of("b")] == [0.0]


@in_virtual_time
async def test_one_that_was_never_there_is_renewed_in_time_all_the_same() -> None:
    link = Agents(VirtualClock())
    task = await renewed(link, "a")
    await asyncio.sleep(2.0 * RENEW_S + 1.0)
    await end(task)
    assert len(link.of("a")) == 3


@in_virtual_time
async def test_a_broker_that_takes_its_time_does_not_make_it_spin() -> None:
    link = Agents(VirtualClock(), {"a"}, renew_takes_s=RENEW_S * 1.5)
    task = await renewed(link, "a")
    await asyncio.sleep(RENEW_S * 6.0)
    await end(task)
    assert len(link.of("a")) == 4
