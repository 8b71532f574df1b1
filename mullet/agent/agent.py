"""The edge agent: passes its controller's commands on to devices beside it, and goes to fail-safe when that is silent.

Neither starting nor stopping changes a device: only a fresh command does, or a lease that lapsed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mullet.agent.failsafe import at_failsafe, failsafe_command
from mullet.agent.inbox import ANSWERED, Inbox, Rejection
from mullet.agent.lease import LeaseKeeper, LeaseState
from mullet.agent.transport import AgentTransport, CommandGate, LeaseMemory
from mullet.domain.command import Command, Receipt
from mullet.domain.load import Load, Steering
from mullet.domain.message import CommandMessage, HeartbeatMessage
from mullet.domain.telemetry import Telemetry
from mullet.ports import Clock, DeviceError, DeviceUnreachable, Driver, LinkError, WriteRefused

logger = logging.getLogger(__name__)

BATCH_S = 0.05
"""Readbacks that come within this time are sent together."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Who an agent is, what it tends, and its times."""

    agent_id: str
    facility_id: str
    loads: tuple[Load, ...]
    lease_s: float = 60.0
    """The longest lease granted, and how long loads keep their state after a start."""
    telemetry_period_s: float = 1.0
    command_deadline_s: float = 5.0
    lease_check_s: float = 0.5
    max_command_age_s: float = 5.0
    policy_hash: str | None = None
    signing_key: bytes | None = None
    most_at_once: int = 64
    """Commands carried out at the same time."""


@dataclass(frozen=True, slots=True)
class AgentState:
    """What an agent tells about itself."""

    leases: Mapping[str, LeaseState]
    settled: frozenset[str]
    """Lapsed loads that were seen at their fail-safe point."""
    accepted: int
    rejected: Mapping[str, int]
    """Messages not taken, by reason."""
    other_policy: int
    unsent: int
    """Answers and batches of telemetry that could not be sent."""


class Agent:
    """Runs beside its devices until cancelled.

    Args:
        drivers: by driver name, built as for a controller; the agent opens and closes them.
        gate: the only way commands take to a device.
        memory: keeps over restarts how long the leases still run; without one, each start grants a full lease.
    """

    def __init__(
        self,
        settings: AgentSettings,
        drivers: Mapping[str, Driver],
        gate: CommandGate,
        clock: Clock,
        transport: AgentTransport,
        *,
        memory: LeaseMemory | None = None,
    ) -> None:
        self._settings = settings
        self._drivers = drivers
        self._gate = gate
        self._clock = clock
        self._transport = transport
        self._loads = {load.id: load for load in settings.loads}
        self._memory = memory
        now = clock.monotonic()
        grace_s = memory.recall(now) if memory is not None else None
        self._keeper = LeaseKeeper(self._loads, settings.lease_s, now, grace_s=grace_s)
        self._inbox = Inbox(
            settings.facility_id,
            settings.agent_id,
            self._loads,
            started_at=clock.now(),
            key=settings.signing_key,
            policy_hash=settings.policy_hash,
            max_age_s=settings.max_command_age_s,
        )
        self._locks = {load_id: asyncio.Lock() for load_id in self._loads}
        self._slots = asyncio.Semaphore(settings.most_at_once)
        self._failsafe_slots = asyncio.Semaphore(settings.most_at_once)
        self._unsent_readings: dict[str, Telemetry] = {}
        self._news = asyncio.Event()
        self._seeking: set[str] = set()
        self._told: set[str] = set()
        self._failsafes = 0
        self._unsent = 0

    async def run(self) -> None:
        """Tend the loads until cancelled. Leaves every device as it stands."""
        opened: list[Driver] = []
        try:
            self._remember()
            for name, driver in self._drivers.items():
                await driver.open([load for load in self._loads.values() if load.driver == name])
                opened.append(driver)
            await self._transport.open()
            async with asyncio.TaskGroup() as tasks:
                for name, driver in self._drivers.items():
                    loads = [load for load in self._loads.values() if load.driver == name]
                    if loads:
                        tasks.create_task(self._watch(driver, loads), name=f"watch {name}")
                tasks.create_task(self._report(), name="report telemetry")
                tasks.create_task(self._receive(tasks), name="receive commands")
                tasks.create_task(self._keep_leases(tasks), name="keep leases")
        finally:
            await self._transport.close()
            for driver in reversed(opened):
                await driver.close()

    def state(self) -> AgentState:
        """Return how leases and messages stand now."""
        now = self._clock.monotonic()
        leases = {load_id: self._keeper.state(load_id, now) for load_id in self._loads}
        return AgentState(
            leases=leases,
            settled=frozenset(load_id for load_id in leases if self._keeper.settled(load_id)),
            accepted=self._inbox.accepted,
            rejected={reason.value: count for reason, count in self._inbox.rejected.items()},
            other_policy=self._inbox.other_policy,
            unsent=self._unsent,
        )

    async def _watch(self, driver: Driver, loads: Sequence[Load]) -> None:
        while True:
            try:
                async for reading in driver.watch(loads, self._settings.telemetry_period_s):
                    self._saw(reading)
                logger.warning("a driver stopped watching %d loads; starting again", len(loads))
            except Exception:
                logger.exception("a driver failed while watching %d loads; starting again", len(loads))
            await self._clock.sleep(self._settings.telemetry_period_s)

    def _saw(self, reading: Telemetry) -> None:
        load = self._learn(reading.load_id)
        self._unsent_readings[load.id] = reading
        # Only a reading taken after the lapse may settle a load; this one may be older, so it can only unsettle.
        if self._lapsed(load) and at_failsafe(load, reading) is False:
            self._keeper.unsettle(load.id)

    def _learn(self, load_id: str) -> Load:
        """Return the load with what its driver says, now, that it can really do: some learn it from the device."""
        load = self._loads[load_id]
        capability = self._drivers[load.driver].capability(load)
        if capability != load.capability:
            load = self._loads[load_id] = replace(load, capability=capability)
        return load

    async def _report(self) -> None:
        while True:
            # Pushing everything out at once is for readbacks of commands; the rest waits for its batch.
            try:
                async with asyncio.timeout(self._settings.telemetry_period_s):
                    await self._news.wait()
            except TimeoutError:
                pass
            else:
                await self._clock.sleep(BATCH_S)
            self._news.clear()
            await self._flush()

    async def _flush(self) -> None:
        banks: dict[str, list[Telemetry]] = {}
        for load_id, reading in self._unsent_readings.items():
            banks.setdefault(self._loads[load_id].bank, []).append(reading)
        self._unsent_readings = {}
        for bank, readings in banks.items():
            try:
                await self._transport.publish_telemetry(bank, readings)
            except LinkError as error:
                self._unsent += 1
                logger.debug("telemetry of %s was not sent: %s", bank, error)

    async def _receive(self, tasks: asyncio.TaskGroup) -> None:
        async for message in self._transport.incoming():
            if isinstance(message, HeartbeatMessage):
                beat = self._inbox.judge_heartbeat(message, self._clock.now())
                if isinstance(beat, Rejection):
                    logger.warning("heartbeat rejected (%s): %s", beat.reason.value, beat.detail)
                else:
                    self._keeper.renew(self._clock.monotonic(), beat.lease_s)
                    self._remember()
                continue
            verdict = self._inbox.judge(message, self._clock.now())
            if isinstance(verdict, Rejection):
                logger.warning("command rejected (%s): %s", verdict.reason.value, verdict.detail)
                if verdict.reason in ANSWERED and verdict.command_id is not None:
                    why = f"{verdict.reason.value}: {verdict.detail}"
                    tasks.create_task(self._refuse(message, verdict.command_id, why))
            elif not self._keeper.accept(verdict, self._clock.monotonic()):
                why = "in fail-safe: no heartbeat since the lease lapsed"
                tasks.create_task(self._refuse(message, verdict.id, why))
            else:
                self._remember()
                tasks.create_task(self._carry_out(message, verdict), name=f"command {verdict.id}")

    def _remember(self) -> None:
        deadline = self._keeper.last_deadline()
        if self._memory is not None and deadline is not None:
            self._memory.remember(deadline)

    async def _carry_out(self, message: CommandMessage, command: Command) -> None:
        load = self._learn(command.load_id)
        async with self._slots, self._locks[load.id]:
            why_not = self._outdated(command)
            if why_not is not None:
                await self._refuse(message, command.id, why_not)
                return
            self._told.discard(load.id)
            receipt = await self._send(load, command)
        await self._answer(message, receipt)
        await self._read_back(load)

    def _outdated(self, command: Command) -> str | None:
        """Return why a command that had to wait for an earlier one to the same load is no longer carried out."""
        if self._keeper.setpoint(command.load_id) is not command:
            return "superseded by a newer command"
        if self._clock.now() > command.not_after:
            return "past its not_after before its turn came"
        if self._keeper.state(command.load_id, self._clock.monotonic()) is LeaseState.LAPSED:
            return "in fail-safe: the lease lapsed before its turn came"
        return None

    async def _send(self, load: Load, command: Command) -> Receipt:
        deadline_s = self._settings.command_deadline_s
        try:
            # Drivers keep their deadlines; this one only stands behind them.
            async with asyncio.timeout(2.0 * deadline_s):
                return await self._gate.send(load, command, deadline_s)
        except DeviceUnreachable as error:
            return Receipt(command.id, load.id, self._clock.now(), None, str(error), unreachable=True)
        except TimeoutError:
            return Receipt(command.id, load.id, self._clock.now(), None, "the driver hangs", unreachable=True)
        except (DeviceError, WriteRefused) as error:
            return self._refusal(command.id, load.id, f"{type(error).__name__}: {error}")
        except Exception as error:
            # A fault in one driver must not end the leases of all loads.
            logger.exception("driver %s broke its contract", load.driver)
            return Receipt(command.id, load.id, self._clock.now(), None, f"driver fault: {error!r}", unreachable=True)

    async def _read_back(self, load: Load) -> Telemetry | None:
        """Read the load at once, so that the controller need not wait for the next round."""
        try:
            async with asyncio.timeout(2.0 * self._settings.command_deadline_s):
                reading = await self._drivers[load.driver].read(load, self._settings.command_deadline_s)
        except (DeviceError, TimeoutError) as error:
            logger.debug("no readback of %s: %s", load.id, error)
            return None
        except Exception:
            logger.exception("driver %s broke its contract", load.driver)
            return None
        self._saw(reading)
        self._news.set()
        return reading

    async def _answer(self, message: CommandMessage, receipt: Receipt) -> None:
        try:
            await self._transport.answer(message, receipt)
        except LinkError as error:
            self._unsent += 1
            logger.warning("the answer to %s was not sent: %s", receipt.command_id, error)

    async def _refuse(self, message: CommandMessage, command_id: str, why: str) -> None:
        await self._answer(message, self._refusal(command_id, message.load_id, why))

    def _refusal(self, command_id: str, load_id: str, detail: str) -> Receipt:
        return Receipt(command_id, load_id, self._clock.now(), False, detail)

    async def _keep_leases(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            for load_id in self._keeper.expired(self._clock.monotonic()):
                load = self._learn(load_id)
                if load_id in self._seeking or load.capability.steering is Steering.MONITOR:
                    continue
                self._seeking.add(load_id)
                tasks.create_task(self._seek_failsafe(load), name=f"fail-safe {load_id}")
            await self._clock.sleep(self._settings.lease_check_s)

    async def _seek_failsafe(self, load: Load) -> None:
        """Take a lapsed load to its fail-safe point; reads first, and writes only where it is not there."""
        try:
            async with self._failsafe_slots, self._locks[load.id]:
                if self._lapsed(load) and await self._reached(load):
                    return
                # The reading took time, in which a heartbeat and a setpoint may have come.
                if not self._lapsed(load):
                    return
                if load.id not in self._told:
                    self._told.add(load.id)
                    logger.warning("the lease of %s lapsed: going to its fail-safe point %s", load.id, load.fail_safe)
                receipt = await self._send(load, self._failsafe(load))
                if await self._reached(load):
                    return
                least_s = load.capability.ramp_down_s if receipt.acked else 0.0
                self._keeper.postpone(load.id, self._clock.monotonic(), least_s)
        finally:
            self._seeking.discard(load.id)

    def _lapsed(self, load: Load) -> bool:
        return self._keeper.state(load.id, self._clock.monotonic()) is LeaseState.LAPSED

    def _failsafe(self, load: Load) -> Command:
        self._failsafes += 1
        return failsafe_command(
            load,
            number=self._failsafes,
            agent=self._settings.agent_id,
            epoch=self._inbox.epoch,
            now=self._clock.now(),
            deadline_s=self._settings.command_deadline_s,
        )

    async def _reached(self, load: Load) -> bool:
        reading = await self._read_back(load)
        if reading is None or not at_failsafe(load, reading):
            return False
        self._settled(load.id)
        return True

    def _settled(self, load_id: str) -> None:
        if load_id in self._told and not self._keeper.settled(load_id):
            logger.warning("%s is at its fail-safe point", load_id)
        self._keeper.settle(load_id)
