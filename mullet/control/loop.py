"""The control tick: observe, decide, journal, send, record; one finished tick is one beat of the watchdog."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mullet.control import record
from mullet.control.alarms import standing_alarms
from mullet.control.announce import Announcer
from mullet.control.counting import movable_loads
from mullet.control.decide import Decision, decide
from mullet.control.demand import NeedKeeper
from mullet.control.dispatch import Dispatcher
from mullet.control.gate import Permit, WriteGate
from mullet.control.intake import Intake
from mullet.control.learn import Learning
from mullet.control.logbook import Logbook
from mullet.control.observe import Observatory
from mullet.control.parts import DriversNow, Parts, Plant
from mullet.control.planning_cycle import PlanningCycle, build_request
from mullet.control.protect import protective_commands
from mullet.control.readers import start_readers
from mullet.control.status import facility_status
from mullet.control.supervise import Supervisor
from mullet.control.telemetry_series import series_of
from mullet.domain.command import Command, CommandLedger, LedgerEntry, Receipt
from mullet.domain.facility import Facility, Mode, most_restrictive
from mullet.domain.load import Load
from mullet.domain.snapshot import OperatorState
from mullet.ports import Driver, Historian, HistorianError, MulletError
from mullet.programs.prices import FEED

FIRST_READING_S = 4.0
"""Control begins once every load was read, or after this long at the latest: within 10 s with the start (R10)."""
JITTERS_KEPT = 3_600
HISTORIAN_GRACE_S = 2.0
ALARMS_OF_PARTS = ("circuit/", "meter/", "feed/", "limit/")


class Controller:
    """Owns the loop and everything that runs beside it."""

    def __init__(self, parts: Parts, ledger: CommandLedger) -> None:
        self._parts = parts
        self._clock = parts.clock
        self._plant = parts.plant
        self._ledger = ledger
        self._operator = parts.operator
        self._observatory = Observatory(parts.plant.facility)
        self._needs = NeedKeeper()
        self._cycle = PlanningCycle(parts.planner, parts.plant.facility.pacing.solver_limit_s)
        self._supervisor = Supervisor(parts.clock, self.alarm)
        self._gate = WriteGate(DriversNow(lambda: self._plant), parts.link, self._permit, parts.clock.now)
        self._dispatcher = Dispatcher(
            self._gate, parts.clock, self._reader, self._receipts_in, self._observatory.saw, self._is_pending
        )
        self._intake = Intake(self._observatory, parts.plant.facility, self.alarm)
        self._receipts: deque[Receipt] = deque()
        self._logbook = Logbook(parts.journal, parts.clock)
        self.announcer = Announcer()
        self.learning = Learning(parts.learner, parts.keep_learned, self.alarm)
        self._ready = False
        self._began = parts.clock.now()
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        """Held by a tick and by a swap, so that neither sees the other half done."""
        self._remembering: asyncio.Task[None] | None = None
        self._advised: frozenset[str] = frozenset()
        self.jitter_s: deque[float] = deque(maxlen=JITTERS_KEPT)
        self.decision: Decision | None = None
        self.ticks = 0

    # What the rest of the house may ask

    @property
    def facility(self) -> Facility:
        """The facility as the running policy has it."""
        return self._plant.facility

    @property
    def barred(self) -> Mapping[str, str]:
        """Loads to which their driver would write nothing, and why."""
        return self._plant.barred

    @property
    def ailments(self) -> Mapping[str, str]:
        """Loads with which something is amiss although they can be read, and what it is."""
        return self._plant.ailments()

    @property
    def operator(self) -> OperatorState:
        """What operators decided."""
        return self._operator

    @property
    def alarms(self) -> Mapping[str, tuple[str, float]]:
        """Alarms that stand, with the moment each was raised."""
        return self._logbook.alarms

    @property
    def gate(self) -> WriteGate:
        """The write gate."""
        return self._gate

    @property
    def ready(self) -> bool:
        """Whether control has begun: every load was read, or failed to be read, once."""
        return self._ready

    @property
    def mode(self) -> Mode:
        """The effective mode of the facility's root."""
        return most_restrictive(self._parts.ceiling, self._operator.mode, self.facility.mode_of(self.facility.root.id))

    def status(self) -> dict[str, Any]:
        """Return the state after the latest tick."""
        if self.decision is None:
            return {"facility": self.facility.id, "at": self._clock.now(), "mode": self.mode.value, "ready": False}
        prices = self.decision.snapshot.prices
        price = prices.value.at(self.decision.snapshot.at) if prices is not None else None
        status = facility_status(self.facility, self.decision, self.alarms, self.mode.value, price)
        return {
            **status,
            "ready": self._ready,
            "ticks": self.ticks,
            "in_flight": self._dispatcher.in_flight,
            "counts": self.announcer.counts,
        }

    def alarm(self, key: str, text: str | None) -> None:
        """Raise an alarm, or clear it when `text` is None; each change is recorded once."""
        self._logbook.alarm(key, text)

    async def note(self, kind: str, body: Mapping[str, Any]) -> None:
        """Record something at once.

        Raises:
            JournalError: it is not on disk.
        """
        await self._logbook.append([(kind, body)])

    def nudge(self) -> None:
        """Run the next tick now."""
        self._wake.set()

    def set_operator(self, state: OperatorState) -> None:
        """Persist and adopt what an operator decided; the next tick honours it.

        Raises:
            MulletError: it could not be kept, so it was not adopted.
        """
        self._parts.save_operator(state)
        self._operator = state
        self.nudge()

    # Life

    async def run(self, stop: asyncio.Event) -> None:
        """Control until `stop` is set, then stop gracefully: no device's state is changed by stopping."""
        # Where the disk is full these wait: a facility that is over its limit must be shed all the same.
        await self._logbook.write(
            [
                (record.START, {"epoch": self._ledger.epoch, "policy_hash": self.facility.policy_hash}),
                (record.FACILITY, record.facility_body(self.facility)),
            ]
        )
        self._began = self._clock.now()
        self._start_pollers()
        for load_id, entry in self._ledger.entries.items():
            if entry.pending and entry.command is not None:
                self._dispatcher.follow(self.facility, load_id, entry.command)
        try:
            await self._tick_until(stop)
        finally:
            await self._dispatcher.close(grace_s=2.0)
            await self._supervisor.close()
            await self._cycle.close()
            await self.learning.close()
            if self._remembering is not None:
                await asyncio.wait({self._remembering}, timeout=HISTORIAN_GRACE_S)
                self._remembering.cancel()
                await asyncio.gather(self._remembering, return_exceptions=True)
            self._ledger = self._ledger.after_receipts(tuple(self._receipts))
            try:
                await self._logbook.write([(record.STOP, {"reason": "asked to stop"})])
            finally:
                if self._plant.close is not None:
                    await self._plant.close()

    def _start_pollers(self) -> None:
        start_readers(self._plant, self._parts.link, self._clock, self._supervisor, self._observatory, self._intake)

    async def swap(self, plant: Plant, changes: Mapping[str, Any]) -> None:
        """Adopt a reloaded plant between two ticks: journalled first, then all at once.

        Raises:
            JournalError: it is not on record, so nothing was swapped.
        """
        async with self._turn:
            await self._logbook.append(
                [(record.RELOAD, dict(changes)), (record.FACILITY, record.facility_body(plant.facility))]
            )
            old, self._plant = self._plant, plant
            self._observatory.adopt(plant.facility)
            self._intake = Intake(self._observatory, plant.facility, self.alarm)
            known = {key: entry for key, entry in self._ledger.entries.items() if key in plant.facility.load_by_id}
            self._ledger = replace(self._ledger, entries=known)
            self._cycle.current = None
            self.learning.adopt(plant.nameplate)
            await self._supervisor.close()
            # What is still wrong is raised anew; what was wrong with a part that is gone would stand for ever.
            for key in [key for key in self.alarms if key.startswith(ALARMS_OF_PARTS)]:
                self.alarm(key, None)
            self._start_pollers()
        if old.close is not None:
            await old.close()

    # The tick

    async def _tick_until(self, stop: asyncio.Event) -> None:
        period_s = self.facility.pacing.tick_s
        due = self._clock.monotonic()
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            while not stop.is_set():
                self.jitter_s.append(abs(self._clock.monotonic() - due))
                async with self._turn:
                    await self._tick()
                due = max(due + period_s, self._clock.monotonic())
                await self._pause(due, stopping)
                if self._wake.is_set():
                    self._wake.clear()
                    due = self._clock.monotonic()
        finally:
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)

    async def _pause(self, due: float, stopping: asyncio.Task[bool]) -> None:
        left_s = due - self._clock.monotonic()
        nap = asyncio.create_task(self._clock.sleep(max(0.0, left_s)), name="nap")
        woken = asyncio.create_task(self._wake.wait(), name="wake")
        try:
            await asyncio.wait({nap, woken, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (nap, woken):
                task.cancel()
            await asyncio.gather(nap, woken, return_exceptions=True)

    async def _tick(self) -> None:
        facility = self.facility
        now = self._clock.now()
        rows = self._take_receipts()
        self._needs.update(facility, self._observatory, self._ledger, now)
        self._ready = self._ready or self._observatory.complete() or now - self._began > FIRST_READING_S
        snapshot = self._observatory.snapshot(
            now,
            self._ledger,
            self._operator.holds,
            most_restrictive(self._parts.ceiling, self._operator.mode),
            self._operator.orders,
            self._logbook.records_ok,
            self._ready,
            frozenset(self._plant.barred),
        )
        try:
            decision = decide(facility, snapshot, self._cycle.current)
        except Exception as error:  # noqa: BLE001 - whatever broke deciding, protection must still act
            self.alarm("decide", f"deciding failed ({type(error).__name__}: {error}); only protection acts")
            await self._protect(rows)
            return
        self.alarm("decide", None)
        rows.extend(self._look_ahead(facility, decision))
        if decision.acts:
            rows.append((record.DECISION, record.decision_body(decision)))
        await self._logbook.write(rows)
        recorded = self._logbook.records_ok
        sent = decision.dispatch.commands if recorded else decision.dispatch.decreases
        self._ledger = decision.judged.after_commands(sent)
        self._send(sent)
        self.decision = decision
        self.announcer.note_decision(decision)
        self.learning.tick(facility, decision)
        self.ticks += 1
        self._announce()
        self._remember(decision)
        self._parts.beat(f"{self.mode.value}, {len(facility.loads)} loads, {len(self.alarms)} alarms")

    def _look_ahead(self, facility: Facility, decision: Decision) -> list[tuple[str, Mapping[str, Any]]]:
        """Alarms, plan and advice; what fails here is told, and what was decided is still sent."""
        rows: list[tuple[str, Mapping[str, Any]]] = []
        try:
            if self._ready:
                for key, text in standing_alarms(facility, decision, self.barred, self.ailments).items():
                    self.alarm(key, text)
            rows.extend(self._plan(facility, decision))
            rows.extend(self._advice(facility, decision))
            self.alarm("look-ahead", None)
        except Exception as error:  # noqa: BLE001 - planning is never in the safety path
            self.alarm("look-ahead", f"planning ahead failed ({type(error).__name__}: {error}); the old plan stands")
        return rows

    def _plan(self, facility: Facility, decision: Decision) -> list[tuple[str, Mapping[str, Any]]]:
        if not self._ready:
            # A plan made before the loads were read would count them all as not to be had.
            return []
        known = replace(decision.snapshot, ledger=decision.ledger)
        request = build_request(facility, known, decision.accounts, movable_loads(facility, known))
        adopted = self._cycle.step(request)
        if adopted is None:
            return []
        self.announcer.note_plan(adopted)
        rung = adopted.request.forecast.price_rung
        self.alarm("price", None if rung == FEED else f"no fresh price: the plan goes by {rung.replace('_', ' ')}")
        self.alarm(
            "plan", None if not adopted.passed_over else f"plan by {adopted.plan.rung}: {adopted.passed_over[0]}"
        )
        return [(record.PLAN, record.plan_body(adopted))]

    def _advice(self, facility: Facility, decision: Decision) -> list[tuple[str, Mapping[str, Any]]]:
        """In mode advise, decide as if in auto and record what would have been sent; nothing is sent."""
        if self.mode is not Mode.ADVISE or not self._ready:
            return []
        shadow = decide(facility, decision.snapshot, decision.plan, advise=True)
        wanted = frozenset(f"{c.load_id}:{c.verb}:{c.watts:.0f}" for c in shadow.dispatch.commands)
        if wanted == self._advised:
            return []
        self._advised = wanted
        body = record.decision_body(shadow)
        return [(record.ADVICE, {key: body[key] for key in ("plan_id", "decreases", "increases", "rules")})]

    async def _protect(self, rows: list[tuple[str, Mapping[str, Any]]]) -> None:
        """Shed what the meters say is too much, in the order of the last good decision; decide nothing else."""
        commands: tuple[Command, ...] = ()
        if self.decision is not None:
            commands = protective_commands(
                self.facility,
                self.decision,
                self._observatory.telemetry,
                self._observatory.meters,
                self._ledger,
                self._clock.now(),
            )
        if commands:
            rows.append(("protection", {"commands": [command.id for command in commands]}))
        await self._logbook.write(rows)
        self._ledger = self._ledger.after_commands(commands)
        self._send(commands)
        self._announce()

    def _send(self, commands: Sequence[Command]) -> None:
        self._dispatcher.send(self.facility, tuple(commands))

    def _take_receipts(self) -> list[tuple[str, Mapping[str, Any]]]:
        receipts = tuple(self._receipts)
        self._receipts.clear()
        self._ledger = self._ledger.after_receipts(receipts)
        return [(record.RECEIPT, record.receipt_body(receipt)) for receipt in receipts]

    def _remember(self, decision: Decision) -> None:
        """Hand the tick to the historian, which may hang: the loop never waits for it."""
        historian = self._parts.historian
        if historian is None:
            return
        if self._remembering is not None and not self._remembering.done():
            self.alarm("historian", "the historian does not keep up: measurements are lost")
            return
        self._remembering = asyncio.create_task(self._store(historian, decision), name="historian")

    async def _store(self, historian: Historian, decision: Decision) -> None:
        try:
            await historian.record(decision.snapshot.at, series_of(self.facility, decision))
            self.alarm("historian", None)
        except HistorianError as error:
            self.alarm("historian", str(error))

    def _announce(self) -> None:
        self.announcer.publish(self.status())

    # What the gate and the dispatcher look up at the moment of sending

    def _permit(self, load: Load) -> Permit:
        facility = self.facility
        mode = most_restrictive(self._parts.ceiling, self._operator.mode, facility.mode_of(load.circuit))
        targets = {load.id, *facility.path(load.circuit)}
        holds = [hold for hold in self._operator.holds if hold.target in targets]
        return Permit(mode, min(holds, key=lambda hold: hold.kind.value != "off", default=None))

    def _reader(self, load: Load) -> Driver | None:
        return None if load.agent is not None else self._plant.drivers[load.driver]

    def _receipts_in(self, receipt: Receipt) -> None:
        self._receipts.append(receipt)

    def _is_pending(self, load_id: str, command_id: str) -> bool:
        entry: LedgerEntry = self._ledger.entry(load_id)
        return entry.pending and entry.command is not None and entry.command.id == command_id

    async def restore(self, load: Load, command: Command) -> Receipt:
        """Put remembered defaults back on one load, through the gate.

        Raises:
            MulletError: the gate or the device refused.
        """
        try:
            return await self._gate.restore(load, command, 5.0)
        except MulletError as error:
            self.alarm(f"restore/{load.id}", str(error))
            raise
