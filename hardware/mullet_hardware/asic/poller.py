"""Polls every watched load at its period from one schedule; what does not answer moves to a small lane of its own.

Polls start in bursts, every `TICK_S`: a machine that wakes for one request at a time spends more on waking than on
the request. The same tick ends what is past its deadline, so that a poll needs no timer of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import math
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from mullet.ports import CredentialsRejected, DeviceError, DeviceGarbled, DeviceUnreachable, IdentityMismatch
from mullet_hardware.asic.lane import Lane
from mullet_hardware.asic.protocol import Health, Target, fault_row
from mullet_hardware.asic.transport import PROBE_S, probe

if TYPE_CHECKING:
    from mullet_hardware.asic.device import Device
    from mullet_hardware.asic.registry import Registry

POLL_SLOTS = 256
SLOW_SLOTS = 128
"""What waits in the slow lane costs a socket and no work: there may be many, or the half-open starve the rest."""
ORDER_SLOTS = 256
CALL_SLOTS = 256
SLOTS_BESIDE_ORDERS = 32
"""Polls at once while orders are under way: an order must not wait for the processor."""
HOLD_S = 0.5
"""A slot bounds work under way, not waiting: whoever waits longer than this for a device gives its slot away."""
TICK_S = 0.05
FIRST_ROUND_S, FIRST_APART_S = 1.0, 0.003
"""The first readings of a watch are over after so long, not after a period, for control begins once every load was
read. Those of all watches begin so far apart (to identify a miner takes 0.7 ms of processor, docs/benchmarks.md: a
quarter of a core), and none later than if they were spread over the period."""
POLL_DEADLINE_S = 3.0
SLOW_DEADLINE_S = 5.0
BACKOFF_MOST_S = 10.0
PREPARE_EVERY_S, PREPARE_APART_S = 240.0, 0.01
HEALTH_EVERY_S, HEALTH_APART_S = 300.0, 0.36
"""How often each load of a watch is asked, and how long after the one before it for the first time, so that all are
within the period: asked at once, thousands would take the processor from the polls, each time anew."""
REJECTED_MOST_S = 86_400.0
"""A password that is rejected is tried half as often each time, down to this: or the miner locks everybody out."""
NAME_FIRST_S, NAME_APART_S = 5.0, 0.06
"""After so long the first is asked for its model, each further one of all watches so much later: nothing waits."""
NAME_AGAIN_S, NAME_EVERY_S = 300.0, 3600.0
"""Until it has told one, and from then on: a machine that takes another's place is of another model maybe."""
NAME_REJECTED_S = 86_400.0
"""Where its password was rejected: who tries one over and over is locked out, and everybody with him."""
ASIDE_SLOTS = 8
"""Preparations and looks at the health at once: they cost more than a poll, and none of them is urgent."""

Emit = Callable[[list[Any]], None]
Name = Callable[[Target, "Device"], Awaitable[bool]]
"""Finds out what model a device is; tells whether it said so."""


@dataclass(slots=True, eq=False)
class Followed:
    """One load of one watch."""

    target: Target
    period_s: float
    emit: Emit
    regular_at: float = -math.inf
    """When its place in the period comes for the first time, after the first round."""
    silent: int = 0
    """Failures to answer in a row; above 0 it is asked in the slow lane."""
    prepare_at: float = 0.0
    rejected: int = 0
    """Preparations in a row for which its password was rejected."""
    health_at: float = 0.0
    name_at: float = math.inf
    ended: bool = False


@dataclass(slots=True, eq=False)
class Poll:
    """One poll under way."""

    followed: Followed
    began: float
    limit_s: float
    task: asyncio.Task[None] | None = None
    holds_slot: bool = True
    expired: bool = False
    cancel_at: float = 0.0


@dataclass(slots=True)
class Schedule:
    """Loads in the order in which they are due."""

    heap: list[tuple[float, int, Followed]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=itertools.count)

    def add(self, due: float, followed: Followed) -> None:
        """Let a load be due at `due`."""
        heapq.heappush(self.heap, (due, next(self._order), followed))

    def take(self, now: float) -> tuple[float, Followed] | None:
        """Return the load that is due longest and when it was due, None where none is."""
        while self.heap and (self.heap[0][0] <= now or self.heap[0][2].ended):
            due, _, followed = heapq.heappop(self.heap)
            if not followed.ended:
                return due, followed
        return None

    def next_due(self) -> float:
        """Return when the next load is due, infinity where there is none."""
        return self.heap[0][0] if self.heap else math.inf


class Poller:
    """All watches of a worker. `orders` is the lane of commands, which go first."""

    def __init__(
        self,
        registry: Registry,
        orders: Lane | None = None,
        slots: int = POLL_SLOTS,
        emit_health: Emit = lambda row: None,
        name: Name | None = None,
    ) -> None:
        """`emit_health` gets the health of a load as a row, every few minutes; `name` is called now and then."""
        self._registry = registry
        self._emit_health = emit_health
        self._name = name
        self._next_name = -math.inf
        self._next_first = -math.inf
        self._orders = orders
        self._slots = slots
        self._fast = Schedule()
        self._slow = Schedule()
        self._watches: dict[int, list[Followed]] = {}
        self._polls: set[Poll] = set()
        self._in_fast = 0
        """Fast polls that hold a slot."""
        self._in_slow = 0
        self._aside: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._failure: BaseException | None = None
        self._closing = False

    @property
    def in_flight(self) -> int:
        """Polls under way in both lanes."""
        return len(self._polls)

    def watch(self, number: int, targets: list[Target], period_s: float, emit: Emit) -> None:
        """Follow `targets`, all once soon, then spread over the period; `emit` gets each reading or fault as a row."""
        now = asyncio.get_running_loop().time()
        self.unwatch(number)
        self._watches[number] = followed = [Followed(target, period_s, emit) for target in targets]
        first_s = min(period_s, FIRST_ROUND_S)
        for index, item in enumerate(followed):
            share = index / len(targets)
            item.regular_at = now + first_s + period_s * share
            first = min(max(now + first_s * share, self._next_first + FIRST_APART_S), now + period_s * share)
            self._next_first = max(self._next_first, first)
            self._fast.add(first, item)
            item.prepare_at = now + index * min(PREPARE_APART_S, PREPARE_EVERY_S / len(targets))
            item.health_at = now + index * min(HEALTH_APART_S, HEALTH_EVERY_S / len(targets))
            if self._name is not None:
                item.name_at = self._next_name = max(self._next_name + NAME_APART_S, now + NAME_FIRST_S)
        self._changed.set()

    def unwatch(self, number: int) -> None:
        """Follow the loads of a watch no longer."""
        for item in self._watches.pop(number, ()):
            item.ended = True

    async def run(self) -> None:
        """Poll until cancelled; what is under way then is cancelled and awaited.

        Raises:
            Exception: a poll failed in a way that is no device's fault.
        """
        loop = asyncio.get_running_loop()
        try:
            while True:
                now = loop.time()
                self._end_overdue(now)
                self._start_due(now)
                if self._failure is not None:
                    raise self._failure
                self._changed.clear()
                wait_s = TICK_S if self._polls else self._next_due() - loop.time()
                if wait_s > TICK_S:
                    try:
                        async with asyncio.timeout(None if math.isinf(wait_s) else wait_s):
                            await self._changed.wait()
                    except TimeoutError:
                        continue
                else:
                    await asyncio.sleep(TICK_S)
        finally:
            self._closing = True
            tasks = [*self._aside, *(poll.task for poll in self._polls if poll.task is not None)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _next_due(self) -> float:
        return min(self._fast.next_due(), self._slow.next_due())

    def _end_overdue(self, now: float) -> None:
        for poll in list(self._polls):
            if poll.holds_slot and now - poll.began > HOLD_S:
                self._give_back(poll)
            if now > poll.cancel_at and poll.task is not None:
                # A library may swallow a cancellation; it is then told again.
                poll.expired, poll.cancel_at = True, now + 1.0
                poll.task.cancel()

    def _start_due(self, now: float) -> None:
        slots = self._slots
        if self._orders is not None and self._orders.busy:
            slots = min(slots, SLOTS_BESIDE_ORDERS)
        while self._in_fast < slots and (found := self._fast.take(now)) is not None:
            self._start(now, *found)
        while self._in_slow < SLOW_SLOTS and (found := self._slow.take(now)) is not None:
            self._start(now, *found)

    def _start(self, now: float, due: float, followed: Followed) -> None:
        slow = followed.silent > 0
        limit_s = PROBE_S + SLOW_DEADLINE_S if slow else min(followed.period_s, POLL_DEADLINE_S)
        poll = Poll(followed, now, limit_s, holds_slot=not slow, cancel_at=now + limit_s)
        if slow:
            self._in_slow += 1
        else:
            self._in_fast += 1
        self._polls.add(poll)
        poll.task = asyncio.get_running_loop().create_task(self._carry_out(poll, due, slow))
        poll.task.add_done_callback(self._look_at)

    def _look_at(self, task: asyncio.Task[None]) -> None:
        """Let `run` fail with what failed here: no device can be blamed for it."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error
            self._changed.set()

    def _give_back(self, poll: Poll) -> None:
        if poll.holds_slot:
            poll.holds_slot = False
            self._in_fast -= 1

    async def _carry_out(self, poll: Poll, due: float, slow: bool) -> None:
        followed, loop = poll.followed, asyncio.get_running_loop()
        target = followed.target
        try:
            if slow:
                access = self._registry.access(target)
                await probe(target.address, access.rpc_port or access.web_port)
            device = await self._registry.device(target)
            row = (await device.poll()).pack(target.load_id, loop.time())
            took_s = loop.time() - poll.began
            # Who answers, but later than a poll may take, stays where it holds up nobody.
            silent = followed.silent if slow and took_s > min(followed.period_s, POLL_DEADLINE_S) else 0
        except BaseException as error:
            fault = self._fault_of(error, poll, target.address)
            if fault is None:
                self._leave(poll, slow)
                raise
            if isinstance(fault, IdentityMismatch):
                self._registry.doubt(target)
            device = None
            silent = followed.silent + 1 if isinstance(fault, DeviceUnreachable) else 0
            row = fault_row(target.load_id, loop.time(), f"{type(fault).__name__}: {fault}")
        self._leave(poll, slow)
        if followed.ended:
            return
        followed.emit(row)
        self._plan_next(followed, due, silent)
        aside_at = min(followed.prepare_at, followed.health_at, followed.name_at)
        if device is not None and not slow and loop.time() >= aside_at:
            self._look_aside(followed, device)

    def _fault_of(self, error: BaseException, poll: Poll, who: str) -> DeviceError | None:
        """Return what a failure says of the device, None where it says nothing of it."""
        if poll.expired and isinstance(error, (Exception, asyncio.CancelledError)):
            return DeviceUnreachable(f"{who} did not answer within {poll.limit_s:.1f} s")
        if isinstance(error, DeviceError):
            return error
        if isinstance(error, OSError):
            return DeviceUnreachable(f"{who}: {type(error).__name__}")
        # The edge to a library that raises anything: the type is told, never the text, which may hold secrets.
        if isinstance(error, Exception):
            return DeviceGarbled(f"{who} answered something unexpected ({type(error).__name__})")
        if isinstance(error, asyncio.CancelledError) and not self._closing:
            return DeviceUnreachable(f"{who}: a request was given up")
        return None

    def _leave(self, poll: Poll, slow: bool) -> None:
        self._polls.discard(poll)
        if slow:
            self._in_slow -= 1
        else:
            self._give_back(poll)

    def _plan_next(self, followed: Followed, due: float, silent: int) -> None:
        now, period_s = asyncio.get_running_loop().time(), followed.period_s
        regular, followed.regular_at = followed.regular_at, -math.inf
        followed.silent = silent
        if silent:
            wait_s = min(period_s * 2.0 ** min(silent - 1, 10), max(period_s, BACKOFF_MOST_S))
            self._slow.add(now + wait_s, followed)
        elif math.isinf(regular):
            self._fast.add(max(due + period_s, now), followed)
        else:
            missed = max(0, math.ceil((now - regular) / period_s))
            self._fast.add(regular + missed * period_s, followed)

    def _look_aside(self, followed: Followed, device: Device) -> None:
        """Begin what a device has besides polls, if its time has come and nothing more urgent is under way.

        `prepare` fetches ahead what its first order would have to fetch: tokens that a device gives to many are worth
        it; a session that it gives to one at a time (LuxOS) is not held ready, for that would lock everybody else out.
        `health` is the slow tier; its model a device is asked for now and then.
        """
        if len(self._aside) >= ASIDE_SLOTS or (self._orders is not None and self._orders.busy):
            return
        loop = asyncio.get_running_loop()
        now, call = loop.time(), None
        if now >= followed.prepare_at:
            followed.prepare_at = now + PREPARE_EVERY_S
            prepare = getattr(device, "prepare", None)
            call = None if prepare is None else partial(self._prepare, followed, prepare)
        elif now >= followed.name_at and self._name is not None:
            followed.name_at = now + NAME_AGAIN_S
            call = partial(self._ask_name, followed, self._name, device)
        elif now >= followed.health_at:
            followed.health_at = now + HEALTH_EVERY_S
            health = getattr(device, "health", None)
            call = None if health is None else partial(self._ask_health, followed.target.load_id, health)
        if call is None:
            return
        task = loop.create_task(_unhurried(call), name=f"aside {followed.target.load_id}")
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def _ask_name(self, followed: Followed, name: Name, device: Device) -> None:
        now = asyncio.get_running_loop().time()
        try:
            told = await name(followed.target, device)
        except CredentialsRejected:
            followed.name_at = now + NAME_REJECTED_S
            raise
        followed.name_at = now + (NAME_EVERY_S if told else NAME_AGAIN_S)

    async def _prepare(self, followed: Followed, prepare: Callable[[], Awaitable[None]]) -> None:
        try:
            await prepare()
        except CredentialsRejected:
            followed.rejected += 1
            wait_s = min(REJECTED_MOST_S, PREPARE_EVERY_S * 2.0 ** min(followed.rejected, 20))
            followed.prepare_at = asyncio.get_running_loop().time() + wait_s
            raise
        followed.rejected = 0

    async def _ask_health(self, load_id: str, health: Callable[[], Awaitable[Health]]) -> None:
        self._emit_health((await health()).pack(load_id))


async def _unhurried(call: Callable[[], Awaitable[None]]) -> None:
    """Carry out a call within a poll's time; its failure is no news: polls and orders tell what is wrong."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(POLL_DEADLINE_S):
            await call()
