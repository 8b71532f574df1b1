"""Carries commands to the gate, bounded and with deadlines, and reads back what became of them; spans ticks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mullet.control.gate import WriteGate
from mullet.control.verify import verify_deadline
from mullet.domain.command import Command, Receipt
from mullet.domain.facility import Facility
from mullet.domain.load import Load
from mullet.domain.telemetry import Telemetry
from mullet.ports import (
    Clock,
    CredentialsRejected,
    DeviceError,
    DeviceRefused,
    DeviceUnreachable,
    Driver,
    IdentityMismatch,
    LinkError,
    UnsafeWrite,
    WriteRefused,
)
from mullet.tasks import end_tasks

MOST_AT_ONCE = 500
READBACK_FIRST_S = 0.5
READBACK_EVERY_S = 1.0
READBACK_DEADLINE_S = 2.0


class Dispatcher:
    """Sends each command in a task of its own and then reads the load back until its command is settled."""

    def __init__(
        self,
        gate: WriteGate,
        clock: Clock,
        drivers: Callable[[Load], Driver | None],
        received: Callable[[Receipt], None],
        saw: Callable[[Telemetry], None],
        is_pending: Callable[[str, str], bool],
    ) -> None:
        """`drivers(load)` is None where an agent reads the load; `is_pending(load, command)` ends the readback."""
        self._gate = gate
        self._clock = clock
        self._drivers = drivers
        self._received = received
        self._saw = saw
        self._is_pending = is_pending
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def in_flight(self) -> int:
        """Commands sent or being read back."""
        return len(self._tasks)

    def send(self, facility: Facility, commands: tuple[Command, ...]) -> None:
        """Start sending, in order; a newer command to a load ends the readback of the older one."""
        for command in commands:
            load = facility.load_by_id[command.load_id]
            older = self._tasks.pop(load.id, None)
            if older is not None:
                older.cancel()
            self._tasks[load.id] = asyncio.create_task(
                self._carry(facility, load, command, older), name=f"command/{command.id}"
            )

    def follow(self, facility: Facility, load_id: str, command: Command) -> None:
        """Read back a command that an earlier run sent and did not see settled."""
        load = facility.load_by_id[load_id]
        self._tasks[load_id] = asyncio.create_task(
            self._read_back(facility, load, command), name=f"readback/{command.id}"
        )
        self._tasks[load_id].add_done_callback(lambda task: self._forget(load_id, task))

    async def _carry(self, facility: Facility, load: Load, command: Command, older: asyncio.Task[None] | None) -> None:
        try:
            if older is not None:
                await asyncio.gather(older, return_exceptions=True)
            async with self._slots:
                self._received(await self._receipt(load, command))
            await self._read_back(facility, load, command)
        finally:
            if self._tasks.get(load.id) is asyncio.current_task():
                del self._tasks[load.id]

    async def _receipt(self, load: Load, command: Command) -> Receipt:
        left_s = command.not_after - self._clock.now()
        try:
            if left_s <= 0.0:
                raise WriteRefused("its turn came after it had expired")
            return await self._gate.send(load, command, left_s)
        except (WriteRefused, DeviceRefused, UnsafeWrite, CredentialsRejected, IdentityMismatch) as error:
            # Each of these is known to have changed nothing, so that others can take the load's place at once.
            return self._answer(command, False, f"{type(error).__name__}: {error}")
        except (DeviceUnreachable, LinkError) as error:
            return self._answer(command, None, f"{type(error).__name__}: {error}", unreachable=True)
        except DeviceError as error:
            return self._answer(command, None, f"{type(error).__name__}: {error}")

    def _answer(self, command: Command, acked: bool | None, detail: str, unreachable: bool = False) -> Receipt:
        return Receipt(command.id, command.load_id, self._clock.now(), acked, detail, unreachable)

    async def _read_back(self, facility: Facility, load: Load, command: Command) -> None:
        await self._clock.sleep(READBACK_FIRST_S)
        last = verify_deadline(facility, load, command) + READBACK_EVERY_S
        while self._is_pending(load.id, command.id) and self._clock.now() < last:
            # Asked anew each time: a reload may have put another driver in its place.
            driver = self._drivers(load)
            if driver is None:
                return
            began = self._clock.monotonic()
            try:
                self._saw(await driver.read(load, READBACK_DEADLINE_S))
            except DeviceError as error:
                self._saw(Telemetry(load.id, self._clock.now(), fault=f"{type(error).__name__}: {error}"))
            await self._clock.sleep(max(0.05, READBACK_EVERY_S - (self._clock.monotonic() - began)))

    def _forget(self, load_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(load_id) is task:
            del self._tasks[load_id]

    async def close(self, grace_s: float) -> None:
        """Let commands under way be answered for `grace_s`, then cancel and await them."""
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
        await end_tasks(tasks)
        self._tasks.clear()
