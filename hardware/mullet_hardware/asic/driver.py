"""The driver of ASIC miners as the control process sees it; pyasic itself runs in worker processes only."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from mullet.domain.command import Command, Receipt, Verb
from mullet.domain.load import Capability, Load
from mullet.domain.telemetry import Telemetry
from mullet.ports import BankNotes, DeviceRefused, DeviceUnreachable, DriverContext, Identity, UnsafeWrite
from mullet_hardware.asic.cache import IdentityCache
from mullet_hardware.asic.makes import Makes
from mullet_hardware.asic.options import OPTIONS, BankOptions, parse_options
from mullet_hardware.asic.process import Watch, WorkerProcess
from mullet_hardware.asic.protocol import Frame, Health, Target, ailment_of, telemetry_of

log = logging.getLogger(__name__)

OLDEST_ANSWER_S = 60.0
SAVE_AFTER_S = 0.2
SAVE_AGAIN_S = 5.0
"""Least time between two writes: thousands of miners that are named one by one make a large file each time."""
LOADS_PER_WORKER = 5_000
"""What one process polls every 10 s with a third of a core, so that orders find it idle."""


class Inbox:
    """Readings on their way to whoever watches: one per load at most, the newest wins."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, Telemetry] = OrderedDict()
        self._filled = asyncio.Event()
        self._closed = False

    def put(self, telemetry: Telemetry) -> None:
        """Queue a reading."""
        self._waiting[telemetry.load_id] = telemetry
        self._filled.set()

    def close(self) -> None:
        """Let `get` return None from now on."""
        self._closed = True
        self._filled.set()

    async def get(self) -> Telemetry | None:
        """Return the reading that waits longest, None once closed."""
        while not self._waiting and not self._closed:
            self._filled.clear()
            await self._filled.wait()
        return None if self._closed else self._waiting.popitem(last=False)[1]


class AsicDriver:
    """One object for all banks of miners; see `mullet.ports.Driver` for the contract.

    Raises ValueError from the constructor where a bank's options are wrong.
    """

    options_schema: ClassVar[Mapping[str, tuple[type, object, str]]] = OPTIONS

    def __init__(self, context: DriverContext) -> None:
        self._clock = context.clock
        self._secret = context.secret
        self._options = {bank: parse_options(bank, given) for bank, given in context.options.items()}
        paths = {options.identity_cache for options in self._options.values() if options.identity_cache}
        if len(paths) > 1:
            raise ValueError(f"one identity cache for all banks, not {', '.join(sorted(paths))}")
        self._cache = IdentityCache(next(iter(paths), None))
        self._makes = Makes(lambda: self._cache.entries, self._class_of)
        self._barred: dict[str, str] = {}
        self._workers: list[WorkerProcess] = []
        self._inboxes: set[Inbox] = set()
        self._health: dict[str, Health] = {}
        self._compared: dict[str, Health] = {}
        """By load what its next look is compared with."""
        self._most_boards: dict[str, int] = {}
        self._ailments: dict[str, str] = {}
        self._saving: asyncio.Task[None] | None = None
        self._unsaved = False
        self._save_from = -math.inf
        self._closed = asyncio.Event()

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Process ids of the workers that run at present."""
        return tuple(worker.pid for worker in self._workers if worker.pid is not None)

    async def open(self, loads: Sequence[Load]) -> None:
        """Start the worker processes, all at once, and return when they are ready; touches no device.

        Raises:
            DeviceUnreachable: a worker did not become ready.
        """
        if self._workers:
            return
        self._closed.clear()
        await asyncio.to_thread(self._cache.load)
        found = {
            bank: options.access(self._secret)["barred"] or options.notes().barred
            for bank, options in self._options.items()
        }
        self._barred = {bank: reason for bank, reason in found.items() if reason is not None}
        count = worker_count(len(loads), [options.workers for options in self._options.values()])
        self._workers = [WorkerProcess(index, self._opening, self._found, self._healthy) for index in range(count)]
        try:
            await asyncio.gather(*(worker.start() for worker in self._workers))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End watches and workers; changes no device."""
        for inbox in self._inboxes:
            inbox.close()
        workers, self._workers = self._workers, []
        await asyncio.gather(*(worker.close() for worker in workers))
        self._closed.set()
        if self._saving is not None:
            await self._saving

    @classmethod
    def capability_for(cls, options: Mapping[str, Any]) -> Capability:
        """Return what can be done with the loads of a bank that has these options.

        Raises:
            ValueError: an option is not usable.
        """
        bank = parse_options("", options)
        return bank.capability

    @classmethod
    def notes_for(cls, options: Mapping[str, Any]) -> BankNotes:
        """Return what is to be said of a bank's password before anything runs.

        Raises:
            ValueError: an option is not usable.
        """
        return parse_options("", options).notes()

    def barred(self, load: Load) -> str | None:
        """Return why nothing is written to the load for want of a password, None where there is one or none is needed.

        Known once the driver is open: it is then that credentials are looked up.
        """
        return self._barred.get(load.bank)

    def capability(self, load: Load) -> Capability:
        """Return what can really be done with the load: of a miner not identified yet, that it can be watched."""
        options = self._bank(load)
        return options.capability_as(self.firmware_class(load))

    def firmware_class(self, load: Load) -> str | None:
        """Return the class of the load: as its bank says, else as it was identified; None where it was not."""
        return self._class_of(load.bank, self._cache.entries.get(load.address, {}))

    def health(self, load: Load) -> Health | None:
        """Return what the load last said of boards, fans and errors; None while it was not asked, or says nothing."""
        return self._health.get(load.id)

    def ailments(self) -> Mapping[str, str]:
        """Return what loads told of boards, fans and errors that is not in order, in words."""
        return self._ailments

    async def identify(self, load: Load, deadline_s: float) -> Identity:
        """Return who answers, after our own probe that it is what the bank's class says.

        Raises:
            IdentityMismatch: another kind of device, or another one than the load is pinned to.
            DeviceError: see `mullet.ports`.
        """
        target = Target.of(load)
        found = await self._worker(load).call("identify", target, deadline_s)
        firmware_class, identities, make, model, firmware = found
        identity = identities[0] if identities else None
        entry = {"class": firmware_class, "identity": identity, "make": make, "model": model, "firmware": firmware}
        self._found(load.address, entry)
        return Identity(identity, make, model, firmware)

    async def read(self, load: Load, deadline_s: float) -> Telemetry:
        """Return a fresh reading.

        Raises:
            DeviceError: see `mullet.ports`.
        """
        asked_at = self._clock.now()
        row = await self._worker(load).call("read", Target.of(load), deadline_s)
        make = self._makes.of(load.bank, load.address)
        reading = _stamped(row, self._clock.now(), asyncio.get_running_loop().time(), make)
        # The worker's clock ticks in milliseconds; no answer is older than its question.
        return reading if reading.at >= asked_at else replace(reading, at=asked_at)

    async def watch(self, loads: Sequence[Load], period_s: float) -> AsyncIterator[Telemetry]:
        """Yield readings of all loads, each about every `period_s`; ends when the driver is closed."""
        inbox = Inbox()
        shards: dict[WorkerProcess, list[Target]] = {}
        places = {load.id: (load.bank, load.address) for load in loads}
        for load in loads:
            shards.setdefault(self._worker(load), []).append(Target.of(load))

        def sink(rows: list[list[Any]]) -> None:
            now, ticks = self._clock.now(), asyncio.get_running_loop().time()
            for row in rows:
                inbox.put(_stamped(row, now, ticks, self._makes.of(*places[row[0]])))

        def lost_of(targets: list[Target]) -> Any:
            def lost(reason: str) -> None:
                for target in targets:
                    inbox.put(Telemetry(target.load_id, self._clock.now(), fault=reason))

            return lost

        self._inboxes.add(inbox)
        numbers = [
            (worker, worker.watch(Watch(targets, period_s, sink, lost_of(targets))))
            for worker, targets in shards.items()
        ]
        try:
            while (telemetry := await inbox.get()) is not None:
                yield telemetry
        finally:
            self._inboxes.discard(inbox)
            for worker, number in numbers:
                worker.unwatch(number)

    async def apply(self, load: Load, command: Command, deadline_s: float) -> Receipt:
        """Send one command; the receipt says what the device answered and proves nothing.

        Raises:
            UnsafeWrite: the guard refused, nothing was written.
            DeviceError: see `mullet.ports`.
        """
        if command.load_id != load.id:
            raise UnsafeWrite(f"a command for {command.load_id} must not go to {load.id}")
        if command.verb not in tuple(Verb):
            raise UnsafeWrite(f"{load.id}: {command.verb} is not among the verbs that may be sent")
        if command.verb is Verb.POWER and not 0.0 < command.watts <= load.worst_watts:
            raise UnsafeWrite(f"{load.id}: {command.watts} W is outside of its range")
        order = [str(command.verb), command.watts if command.verb is Verb.POWER else 0.0, command.point]
        acked, detail = await self._worker(load).call("apply", Target.of(load), deadline_s, order)
        return Receipt(command.id, load.id, self._clock.now(), acked, detail)

    async def restore_defaults(self, load: Load, deadline_s: float) -> Receipt:
        """Raise DeviceRefused: nothing of a miner is changed for good, so there is nothing to put back."""
        raise DeviceRefused(f"{load.id}: a miner has no remembered defaults")

    def _bank(self, load: Load) -> BankOptions:
        return self._options.get(load.bank, BankOptions())

    def _class_of(self, bank: str, entry: Mapping[str, Any]) -> str | None:
        found: str | None = entry.get("class")
        return self._options.get(bank, BankOptions()).firmware_class or found

    def _worker(self, load: Load) -> WorkerProcess:
        if not self._workers:
            raise DeviceUnreachable(f"{load.id}: the driver is not open")
        return self._workers[zlib.crc32(load.address.encode()) % len(self._workers)]

    def _opening(self) -> Frame:
        banks = {bank: options.access(self._secret) for bank, options in self._options.items()}
        return {"t": "open", "id": 0, "banks": banks, "known": self._cache.entries}

    def _healthy(self, row: list[Any]) -> None:
        load_id, health = Health.unpack(row)
        before = self._compared.get(load_id)
        worse = health.worse_than(before)
        self._health[load_id], self._compared[load_id] = health, health.after(before)
        most = self._most_boards[load_id] = max(health.boards or 0, self._most_boards.get(load_id, 0))
        ailment = ailment_of(self._compared[load_id], most)
        if ailment is None:
            self._ailments.pop(load_id, None)
        else:
            self._ailments[load_id] = ailment
        if worse:
            log.warning("%s %s", load_id, "; ".join(worse))

    def _found(self, address: str, entry: dict[str, Any]) -> None:
        known = self._cache.entries.get(address, {})
        if not entry.get("model") and known.get("class") == entry["class"]:
            # A Whatsminer that sleeps names no model; it has not become another for that.
            entry = {name: value for name, value in entry.items() if name != "model"}
        self._unsaved = self._cache.put(address, entry) or self._unsaved
        if self._unsaved and (self._saving is None or self._saving.done()):
            self._saving = asyncio.create_task(self._save(), name="asic identity cache")

    async def _save(self) -> None:
        """Write the file a moment later, so that a whole bank's findings make one write."""
        while self._unsaved:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(SAVE_AFTER_S, self._save_from - self._clock.monotonic())):
                    await self._closed.wait()
            self._unsaved = False
            await asyncio.to_thread(self._cache.save)
            self._save_from = self._clock.monotonic() + SAVE_AGAIN_S


def worker_count(loads: int, asked: Sequence[int | None]) -> int:
    """Return how many workers to start: what the banks ask for, else as many as the fleet needs and cores allow."""
    most = max((count for count in asked if count is not None), default=None)
    if most is not None:
        return most
    return max(1, min(os.cpu_count() or 1, math.ceil(loads / LOADS_PER_WORKER)))


def _stamped(row: list[Any], now: float, ticks: float, make: str | None) -> Telemetry:
    """Stamp a row with when the miner answered: worker and driver share the monotonic clock of the machine."""
    return telemetry_of(row, now - min(OLDEST_ANSWER_S, max(0.0, ticks - row[1])), make)
