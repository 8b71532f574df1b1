"""Fakes behind the ports for tests of control: what they were told, in order, and how they shall fail."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mullet.control.counting import most_by_load
from mullet.control.decide import Decision
from mullet.control.reconcile import reconcile
from mullet.domain.command import Command, CommandLedger, LedgerEntry, Receipt, Verb
from mullet.domain.facility import Facility
from mullet.domain.feeds import Cause
from mullet.domain.load import Capability, Load, LoadKind
from mullet.domain.plan import Desired, Plan, PlanRequest, Setpoint
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import LoadState, MeterReading, Quality, Telemetry
from mullet.planning.accounting import account
from mullet.planning.greedy import plan_merit_order
from mullet.ports import Clock, Identity, JournalError, JournalRow, PlanningError
from mullet.testing.builders import telemetry
from mullet.testing.virtual_time import START

Story = list[tuple[str, Any]]
"""What happened, in order: shared by the fakes whose order matters."""


@dataclass
class FakeDriver:
    """Devices that do at once what they are told, and tell how they stand."""

    clock: Clock | None = None
    points: dict[str, str] = field(default_factory=dict)
    """Where each load stands; its highest point unless named. A limit between points goes by its watts."""
    story: Story = field(default_factory=list)
    failing: dict[str, Exception] = field(default_factory=dict)
    """By load: what `apply` and `read` raise."""
    apply_takes_s: float = 0.0
    unwinds_s: float = 0.0
    """How long a cancelled `apply` takes to let go of its device."""
    applied: list[Command] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    limits: dict[str, float] = field(default_factory=dict)
    mute: bool = False
    """No reading is watched."""
    closed: bool = False

    def _now(self) -> float:
        return self.clock.now() if self.clock is not None else START

    async def open(self, loads: Sequence[Load]) -> None:
        """Nothing to start."""

    async def close(self) -> None:
        self.closed = True

    def capability(self, load: Load) -> Capability:
        return load.capability

    async def identify(self, load: Load, deadline_s: float) -> Identity:
        return Identity(load.identity, "make", "model", "1")

    def reading(self, load: Load) -> Telemetry:
        """Return what the load tells now."""
        found = telemetry(load, self._now(), self.points.get(load.id))
        if load.id in self.limits:
            found = replace(found, limit_watts=self.limits[load.id], watts=self.limits[load.id])
        return found

    async def read(self, load: Load, deadline_s: float) -> Telemetry:
        self.reads.append(load.id)
        if load.id in self.failing:
            raise self.failing[load.id]
        return self.reading(load)

    async def watch(self, loads: Sequence[Load], period_s: float) -> AsyncIterator[Telemetry]:
        assert self.clock is not None
        while True:
            for load in loads:
                if not self.mute:
                    yield self.reading(load)
            await self.clock.sleep(period_s)

    async def apply(self, load: Load, command: Command, deadline_s: float) -> Receipt:
        self.story.append(("apply", command.id))
        if self.apply_takes_s and self.clock is not None:
            try:
                await self.clock.sleep(self.apply_takes_s)
            except asyncio.CancelledError:
                await self.clock.sleep(self.unwinds_s)
                self.story.append(("gave up", command.id))
                raise
        if load.id in self.failing:
            raise self.failing[load.id]
        self.applied.append(command)
        if load.kind is LoadKind.GPU:
            self.limits[load.id] = command.watts
        else:
            self.points[load.id] = (load.lowest if command.verb is Verb.SLEEP else load.highest).name
        return Receipt(command.id, load.id, self._now(), True, "ok")

    async def restore_defaults(self, load: Load, deadline_s: float) -> Receipt:
        self.restored.append(load.id)
        if load.id in self.failing:
            raise self.failing[load.id]
        return Receipt("restore", load.id, self._now(), True, "restored")


@dataclass
class FakeLink:
    """An agent that says yes."""

    sent: list[tuple[str, Command]] = field(default_factory=list)
    error: Exception | None = None

    async def open(self) -> None:
        """Nothing to start."""

    async def close(self) -> None:
        """Nothing to end."""

    async def send(self, agent: str, command: Command, deadline_s: float) -> Receipt:
        if self.error is not None:
            raise self.error
        self.sent.append((agent, command))
        return Receipt(command.id, command.load_id, START, True, "ok")

    async def renew(self, agent: str, lease_s: float) -> None:
        """Nothing is leased here."""

    async def telemetry(self, agent: str) -> AsyncIterator[Telemetry]:
        await asyncio.Event().wait()
        yield Telemetry(agent, 0.0)

    def alive(self, agent: str) -> bool:
        return True


@dataclass
class FakeJournal:
    """Rows in memory; `failing` refuses them, `held` keeps rows of the kind `holds` waiting."""

    story: Story = field(default_factory=list)
    written: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    failing: bool = False
    held: asyncio.Event | None = None
    holds: str = "decision"
    appends: int = 0

    async def append(self, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> int:
        self.appends += 1
        if self.failing:
            raise JournalError("disk full")
        await asyncio.sleep(0)
        if self.held is not None and any(kind == self.holds for kind, _ in rows):
            await self.held.wait()
        for kind, body in rows:
            self.written.append((kind, body))
            for key in ("decreases", "increases"):
                self.story.extend(("journal", item["id"]) for item in body.get(key, ()) if kind == "decision")
        return len(self.written)

    def rows(self, kinds: Sequence[str] | None = None, after: int = 0) -> list[JournalRow]:
        found = [JournalRow(n, 0.0, kind, body, "", "") for n, (kind, body) in enumerate(self.written, 1)]
        return [row for row in found if (kinds is None or row.kind in kinds) and row.seq > after]

    async def close(self) -> None:
        """Nothing to close."""

    def kinds(self) -> list[str]:
        """Return the kinds of the rows, in order."""
        return [kind for kind, _ in self.written]

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """Return the bodies of the rows of one kind."""
        return [body for found, body in self.written if found == kind]


@dataclass
class FakePlanner:
    """Answers after `takes_s` with what `make` makes of the request."""

    clock: Clock | None = None
    takes_s: float = 0.0
    make: Callable[[PlanRequest], Plan] = plan_merit_order
    error: Exception | None = None
    asked: list[PlanRequest] = field(default_factory=list)
    closed: bool = False

    async def plan(self, request: PlanRequest, limit_s: float) -> Plan:
        self.asked.append(request)
        if self.takes_s:
            assert self.clock is not None
            await self.clock.sleep(self.takes_s)
        if self.error is not None:
            raise self.error
        return self.make(request)

    async def close(self) -> None:
        self.closed = True


@dataclass
class FakeMeter:
    """Shows what the devices beneath its circuit say they draw, and at the top `extra` watts."""

    clock: Clock
    site: Callable[[], Facility]
    driver: FakeDriver
    extra: float = 0.0
    beat: Any = field(default_factory=itertools.count)

    async def open(self) -> None:
        """Nothing to connect."""

    async def close(self) -> None:
        """Nothing to close."""

    async def read(self, meter_id: str, deadline_s: float) -> MeterReading:
        site = self.site()
        node = next(item for item in site.circuits if item.meter == meter_id)
        beneath = sum(self.driver.reading(load).watts or 0.0 for load in site.loads_beneath[node.id])
        beat = next(self.beat)
        # No real meter repeats itself to the bit.
        extra = self.extra if node.parent is None else 0.0
        watts = beneath + extra + 0.001 * (beat % 7)
        return MeterReading(meter_id, self.clock.now(), watts, Quality.GOOD, beat)


def entry_of(order: Command, **fields: Any) -> LedgerEntry:
    """Return the entry of a load that was just sent `order`."""
    values: dict[str, Any] = {"command": order, "pending": True, "last_change_at": order.issued_at, **fields}
    return LedgerEntry(order.load_id, **values)


def ledger_of(*entries: LedgerEntry) -> CommandLedger:
    """Return a ledger with these entries."""
    return CommandLedger({entry.load_id: entry for entry in entries}, next_seq=100)


def decided(site: Facility, seen: Snapshot, points: Mapping[str, str] | None = None, **fields: Any) -> Decision:
    """Return the decision to move the loads in `points`; all others stand as desired."""
    accounts = account(site, seen)
    setpoints = {
        load_id: Setpoint(load_id, point, site.load_by_id[load_id].point(point).watts, Cause.ECONOMIC, "as told")
        for load_id, point in (points or {}).items()
    }
    desired = Desired(seen.at, "plan", setpoints)
    dispatch = reconcile(site, seen, accounts, most_by_load(site, seen), desired)
    values: dict[str, Any] = {
        "snapshot": seen,
        "plan": None,
        "outcomes": (),
        "accounts": accounts,
        "desired": desired,
        "dispatch": dispatch,
        "judged": seen.ledger,
        "ledger": seen.ledger.after_commands(dispatch.commands),
        **fields,
    }
    return Decision(**values)


def asleep(load: Load, at: float, **fields: Any) -> Telemetry:
    """Return what a sleeping miner tells."""
    return replace(telemetry(load, at, load.lowest.name), state=LoadState.ASLEEP, th_per_s=0.0, **fields)


NO_PLAN = PlanningError("the worker was killed after 1.0 s")
