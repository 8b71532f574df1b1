"""Polls the loads of one watch at their period; what does not answer moves to a small lane with a back-off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mullet.ports import DeviceError, DeviceUnreachable, IdentityMismatch
from mullet_hardware.asic.device import within
from mullet_hardware.asic.protocol import Reading, Target, fault_row
from mullet_hardware.asic.transport import PROBE_S, probe

if TYPE_CHECKING:
    from mullet_hardware.asic.registry import Registry

POLL_SLOTS = 100
SLOW_SLOTS = 20
CALL_SLOTS = 50
HOLD_S = 0.5
"""A slot bounds work under way, not waiting: whoever waits longer than this for a device gives its slot away."""
POLL_DEADLINE_S = 3.0
SLOW_DEADLINE_S = 5.0
BACKOFF_MOST_S = 10.0

Emit = Callable[[list[Any]], None]


class Lane:
    """At most so many at work at once."""

    def __init__(self, slots: int, hold_s: float | None) -> None:
        self._semaphore = asyncio.Semaphore(slots)
        self._hold_s = hold_s

    async def slot(self) -> Slot:
        """Return a slot, once one is free; it is to be used as a context manager."""
        await self._semaphore.acquire()
        return Slot(self._semaphore, self._hold_s)


class Slot:
    """One place in a lane, given back at the end of the `with` block or after the lane's hold time."""

    __slots__ = ("_semaphore", "_timer")

    def __init__(self, semaphore: asyncio.Semaphore, hold_s: float | None) -> None:
        self._semaphore: asyncio.Semaphore | None = semaphore
        loop = asyncio.get_running_loop()
        self._timer = None if hold_s is None else loop.call_later(hold_s, self._give_back)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._give_back()

    def _give_back(self) -> None:
        semaphore, self._semaphore = self._semaphore, None
        if semaphore is not None:
            semaphore.release()


class Poller:
    """One watch: a task per load, spread over the period, each load's reading or fault emitted as it comes."""

    def __init__(
        self, registry: Registry, fast: Lane, slow: Lane, targets: list[Target], period_s: float, emit: Emit
    ) -> None:
        self._registry = registry
        self._fast = fast
        self._slow = slow
        self._targets = targets
        self._period_s = period_s
        self._deadline_s = min(period_s, POLL_DEADLINE_S)
        self._emit = emit

    async def run(self) -> None:
        """Poll until cancelled."""
        async with asyncio.TaskGroup() as group:
            for index, target in enumerate(self._targets):
                offset_s = self._period_s * index / len(self._targets)
                group.create_task(self._follow(target, offset_s), name=f"poll {target.load_id}")

    async def _follow(self, target: Target, offset_s: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + offset_s
        silent = 0
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            try:
                reading = await (self._poll_slow(target) if silent else self._poll_fast(target))
            except DeviceError as error:
                silent = silent + 1 if isinstance(error, DeviceUnreachable) else 0
                self._emit(fault_row(target.load_id, loop.time(), f"{type(error).__name__}: {error}"))
            else:
                silent = 0
                self._emit(reading.pack(target.load_id, loop.time()))
            due = max(due + self._period_s, loop.time())
            if silent:
                due = loop.time() + min(self._period_s * 2.0 ** (silent - 1), max(self._period_s, BACKOFF_MOST_S))

    async def _poll_fast(self, target: Target) -> Reading:
        with await self._fast.slot():
            return await within(self._deadline_s, target.address, self._poll(target))

    async def _poll_slow(self, target: Target) -> Reading:
        with await self._slow.slot():
            await within(2.0 * PROBE_S, target.address, probe(target.address, self._registry.access(target).rpc_port))
            return await within(SLOW_DEADLINE_S, target.address, self._poll(target))

    async def _poll(self, target: Target) -> Reading:
        device = await self._registry.device(target)
        try:
            return await device.poll()
        except IdentityMismatch:
            self._registry.doubt(target)
            raise
