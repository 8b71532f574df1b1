"""The controller's side of every link to edge agents, and the link to agents in the same process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from mullet.domain.command import Command, Receipt
from mullet.domain.message import (
    CommandMessage,
    Heartbeat,
    HeartbeatMessage,
    command_payload,
    heartbeat_payload,
)
from mullet.domain.telemetry import Telemetry
from mullet.ports import Clock, LinkError

T = TypeVar("T")

MOST_QUEUED = 1_000
MOST_LOADS = 50_000


class NewestQueue(Generic[T]):
    """A bounded queue that gives up its oldest item rather than the newest, and counts what it gave up."""

    def __init__(self, most: int = MOST_QUEUED) -> None:
        self._items: deque[T] = deque(maxlen=most)
        self._filled = asyncio.Event()
        self._closed = False
        self.dropped = 0

    def put(self, item: T) -> None:
        """Add `item`; never waits."""
        if len(self._items) == self._items.maxlen:
            self.dropped += 1
        self._items.append(item)
        self._filled.set()

    def close(self) -> None:
        """End the iteration once it is empty."""
        self._closed = True
        self._filled.set()

    def clear(self) -> None:
        """Drop everything."""
        self._items.clear()

    async def items(self) -> AsyncIterator[T]:
        """Yield items, oldest first, until closed. For one reader."""
        while True:
            while self._items:
                yield self._items.popleft()
            if self._closed:
                return
            self._filled.clear()
            await self._filled.wait()


class LatestReadings:
    """The newest reading per load, handed to one reader; what it has not yet taken is replaced, never piled up."""

    def __init__(self, most_loads: int = MOST_LOADS) -> None:
        self._latest: dict[str, Telemetry] = {}
        self._most = most_loads
        self._filled = asyncio.Event()

    def put(self, readings: Iterable[Telemetry]) -> None:
        """Replace what is kept for the loads of `readings`."""
        for reading in readings:
            if reading.load_id in self._latest or len(self._latest) < self._most:
                self._latest[reading.load_id] = reading
        self._filled.set()

    async def items(self) -> AsyncIterator[Telemetry]:
        """Yield readings as they come, for ever."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            taken, self._latest = self._latest, {}
            for reading in taken.values():
                yield reading


class Correspondence:
    """Commands on their way to agents and the answers that come back; telemetry by agent."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[Receipt]] = {}
        self._readings: dict[str, LatestReadings] = {}
        self.unexpected = 0
        """Answers to commands that nobody waits for any more."""

    def expect(self, command_id: str) -> asyncio.Future[Receipt]:
        """Return what the answer to `command_id` will resolve.

        Raises:
            LinkError: the command is on its way already.
        """
        if command_id in self._waiting:
            raise LinkError(f"command {command_id} is on its way already")
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._waiting[command_id] = future
        return future

    def forget(self, command_id: str) -> None:
        """Stop waiting."""
        self._waiting.pop(command_id, None)

    def answered(self, receipt: Receipt) -> None:
        """Take an answer."""
        future = self._waiting.get(receipt.command_id)
        if future is None or future.done():
            self.unexpected += 1
            return
        future.set_result(receipt)

    def observed(self, agent: str, readings: Sequence[Telemetry]) -> None:
        """Take telemetry; dropped where nobody reads that agent's."""
        if agent in self._readings:
            self._readings[agent].put(readings)

    def telemetry(self, agent: str) -> AsyncIterator[Telemetry]:
        """Yield what `agent` observes from now on."""
        return self._readings.setdefault(agent, LatestReadings()).items()


def mortal(command: Command, now: float, deadline_s: float) -> Command:
    """Return `command` as it may travel: whoever waits `deadline_s` for its answer must know it dead afterwards.

    Raises:
        LinkError: it is dead already.
    """
    not_after = min(command.not_after, now + deadline_s)
    if not_after <= now:
        raise LinkError(f"command {command.id} was good until {now - command.not_after:.1f} s ago")
    return replace(command, not_after=not_after)


class InProcessLink:
    """A `Link` to agents in this process: the same messages, the same judgement of them, no broker between.

    Args:
        epoch: tells the controller's present epoch (for heartbeats).
        key: shared secret that signs orders, as for a broker.
    """

    def __init__(self, facility: str, clock: Clock, epoch: Callable[[], int], key: bytes | None = None) -> None:
        self._facility = facility
        self._clock = clock
        self._epoch = epoch
        self._key = key
        self._correspondence = Correspondence()
        self._transports: dict[str, InProcessTransport] = {}

    def transport(self, agent: str) -> InProcessTransport:
        """Return the transport to hand to the agent of that name."""
        if agent not in self._transports:
            self._transports[agent] = InProcessTransport(agent, self._correspondence)
        return self._transports[agent]

    async def open(self) -> None:
        """Nothing to connect."""

    async def close(self) -> None:
        """Nothing to disconnect."""

    async def send(self, agent: str, command: Command, deadline_s: float) -> Receipt:
        """Send one command and return the agent's answer to it.

        Raises:
            LinkError: the agent does not run, or did not answer in time.
        """
        transport = self._transports.get(agent)
        if transport is None or not transport.running:
            raise LinkError(f"agent {agent} does not run")
        order = mortal(command, self._clock.now(), deadline_s)
        answer = self._correspondence.expect(command.id)
        try:
            transport.deliver(
                CommandMessage(self._facility, command.load_id, command_payload(self._facility, order, self._key))
            )
            async with asyncio.timeout(deadline_s):
                return await answer
        except TimeoutError:
            raise LinkError(f"agent {agent} did not answer {command.id} within {deadline_s:g} s") from None
        finally:
            self._correspondence.forget(command.id)

    async def renew(self, agent: str, lease_s: float) -> None:
        """Send a heartbeat; lost, like one on a wire, where the agent does not run."""
        transport = self._transports.get(agent)
        if transport is None or not transport.running:
            return
        beat = Heartbeat(self._facility, agent, self._epoch(), self._clock.now(), lease_s)
        transport.deliver(HeartbeatMessage(self._facility, heartbeat_payload(beat, self._key)))

    def telemetry(self, agent: str) -> AsyncIterator[Telemetry]:
        """Yield what the agent observes."""
        return self._correspondence.telemetry(agent)

    def alive(self, agent: str) -> bool:
        """Return whether the agent runs."""
        transport = self._transports.get(agent)
        return transport is not None and transport.running


class InProcessTransport:
    """The agent's side of an `InProcessLink`. May be opened again after `close`, by an agent that starts anew."""

    def __init__(self, agent: str, correspondence: Correspondence) -> None:
        self._agent = agent
        self._correspondence = correspondence
        self._queue: NewestQueue[CommandMessage | HeartbeatMessage] = NewestQueue()
        self.running = False

    async def open(self) -> None:
        """Begin to take messages."""
        self._queue = NewestQueue()
        self.running = True

    async def close(self) -> None:
        """Take no more messages."""
        self.running = False
        self._queue.close()

    def deliver(self, message: CommandMessage | HeartbeatMessage) -> None:
        """Put a message where the agent reads."""
        self._queue.put(message)

    def incoming(self) -> AsyncIterator[CommandMessage | HeartbeatMessage]:
        """Yield messages until closed."""
        return self._queue.items()

    async def answer(self, message: CommandMessage, receipt: Receipt) -> None:
        """Hand the answer to whoever waits for it."""
        self._correspondence.answered(receipt)

    async def publish_telemetry(self, bank: str, readings: Sequence[Telemetry]) -> None:
        """Hand the readings to the controller."""
        self._correspondence.observed(self._agent, readings)
