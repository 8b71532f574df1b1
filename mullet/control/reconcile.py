"""Desired minus what is: the commands that may go out now. Pure and idempotent; all it remembers is in the snapshot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mullet.control.gate import OVERRIDES_HOLD_ON
from mullet.domain.command import Command, LedgerEntry, Verb
from mullet.domain.facility import Facility
from mullet.domain.feeds import Cause
from mullet.domain.load import Load, LoadKind
from mullet.domain.plan import Desired, Setpoint
from mullet.domain.snapshot import HoldKind, Snapshot
from mullet.domain.telemetry import LoadState, Telemetry
from mullet.planning.accounting import CircuitAccount
from mullet.planning.stance import running_point
from mullet.planning.thermal import why_not_wake

LIMIT_DEADBAND_WATTS = 15.0
"""A device limit this close to the wanted one is left alone: demand is not known to a watt."""
LEAST_RAISE_WATTS = 20.0
RAISE_FRACTION = 0.99
"""A raise uses at most this much of the proven room (R4: verified power less 1 %)."""
WAKE_MARGIN_FRACTION = 0.004
"""Of a circuit's limit: room that must be left after a wake (hysteresis against meter noise)."""
RAMP_WINDOW_S = 10.0
SEND_DEADLINE_S = 5.0
"""A command that was not delivered by then is dead (R55: stale after 5 s)."""

OVERRIDES_PACING = frozenset(
    {Cause.PROTECTION, Cause.FAILSAFE, Cause.EMERGENCY, Cause.AI_PREEMPTION, Cause.DEMAND_RESPONSE, Cause.RESERVE}
)
OVERRIDES_COMMAND_RATE = frozenset({Cause.PROTECTION, Cause.FAILSAFE, Cause.EMERGENCY, Cause.AI_PREEMPTION})


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What goes out now. Decreases always may; increases were admitted into proven room."""

    decreases: tuple[Command, ...] = ()
    increases: tuple[Command, ...] = ()
    withheld: Mapping[str, str] = field(default_factory=dict)
    """Per load: why what is desired is not sent yet. Every "did nothing" has its reason."""

    @property
    def commands(self) -> tuple[Command, ...]:
        """All commands in the order of sending: decreases first."""
        return (*self.decreases, *self.increases)


@dataclass(frozen=True, slots=True)
class _Step:
    """One difference between desired and observed."""

    load: Load
    setpoint: Setpoint
    entry: LedgerEntry
    verb: Verb
    point: str
    watts: float
    """What is asked for: the setpoint, but a miner that is woken to a point between wakes as it likes first."""
    most_now: float
    most_then: float
    lifts: bool = False
    """It goes up from where it is seen to stand, although it already counts at that or more."""

    @property
    def raises(self) -> bool:
        return self.verb is Verb.WAKE or self.lifts or self.most_then > self.most_now + 1e-6

    @property
    def moves(self) -> bool:
        """Whether a running miner only goes to another point: that starts and stops nothing."""
        return self.verb is Verb.POWER and self.load.kind is LoadKind.MINER

    @property
    def restores(self) -> bool:
        """Whether a miner only goes back to where it was verified to stand: no move for money, so no pacing."""
        if self.load.kind is not LoadKind.MINER:
            # A GPU's limits between points have no name, so that one passes for another.
            return False
        return not self.raises and self.entry.stands == self.setpoint.point


def reconcile(
    facility: Facility,
    snapshot: Snapshot,
    accounts: Mapping[str, CircuitAccount],
    most_now: Mapping[str, float],
    desired: Desired,
) -> Dispatch:
    """Return the commands that may be sent at `snapshot.at`.

    `most_now` is the most each load may draw as counted in `accounts`. Decreases are held back only by the
    pacing that their cause does not override; an increase needs proven room at every circuit above it.
    """
    withheld: dict[str, str] = {}
    steps = _differences(facility, snapshot, most_now, desired, withheld)
    pace = _Pace(facility, snapshot)
    falls: list[_Step] = []
    for step in (step for step in steps if not step.raises):
        reason = _why_not_fall(facility, snapshot, step) or pace.why_not(step)
        if reason is not None:
            withheld[step.load.id] = reason
        else:
            pace.take(step)
            falls.append(step)
    raising = [step for step in steps if step.raises]
    rises = _admit(facility, snapshot, accounts, raising, desired.armed_watts, pace, withheld)
    number = snapshot.ledger.next_seq
    commands: list[Command] = []
    for step, watts in [*((step, step.watts) for step in falls), *rises]:
        commands.append(_command(facility, snapshot, step, watts, number, desired.plan_id))
        number += 1
    return Dispatch(tuple(commands[: len(falls)]), tuple(commands[len(falls) :]), withheld)


def _differences(
    facility: Facility,
    snapshot: Snapshot,
    most_now: Mapping[str, float],
    desired: Desired,
    withheld: dict[str, str],
) -> list[_Step]:
    steps: list[_Step] = []
    for load_id, setpoint in desired.setpoints.items():
        load, entry = facility.load_by_id[load_id], snapshot.ledger.entry(load_id)
        verb = _verb(load, setpoint, snapshot, entry, most_now[load_id])
        if verb is None:
            continue
        step = _step(load, setpoint, snapshot, entry, verb, most_now[load_id])
        command = entry.command
        if entry.pending and command is not None:
            if command.verb is verb and command.point == step.point and abs(command.watts - step.watts) <= 1.0:
                withheld[load_id] = "under way, not yet verified"
                continue
            if step.raises:
                withheld[load_id] = f"waits for command {command.id} to be verified"
                continue
            if not command.raises and step.watts >= command.watts - LIMIT_DEADBAND_WATTS:
                withheld[load_id] = f"command {command.id} already takes it lower"
                continue
        if entry.blocked_until > snapshot.at:
            withheld[load_id] = (
                f"backs off for {entry.blocked_until - snapshot.at:.0f} s after {entry.failures} failures"
            )
            continue
        steps.append(step)
    return steps


def _step(load: Load, setpoint: Setpoint, snapshot: Snapshot, entry: LedgerEntry, verb: Verb, most_now: float) -> _Step:
    if load.capability.enforces_limit:
        return _Step(load, setpoint, entry, verb, setpoint.point, setpoint.watts, most_now, setpoint.watts)
    point = load.highest if verb is Verb.WAKE and load.steps_between else load.point(setpoint.point)
    reading = snapshot.telemetry.get(load.id)
    lifts = False
    if verb is Verb.POWER and reading is not None:
        stands = running_point(load, entry, reading)
        lifts = stands is not None and point.watts > stands.watts
        if lifts and stands is not None:
            most_now = min(most_now, load.most_at(stands))
    return _Step(load, setpoint, entry, verb, point.name, point.asked_watts, most_now, load.most_at(point), lifts)


def _verb(load: Load, setpoint: Setpoint, snapshot: Snapshot, entry: LedgerEntry, most_now: float) -> Verb | None:
    """Return what would have to be asked of the load, or None where it already stands as desired."""
    reading = snapshot.telemetry.get(load.id)
    if load.capability.enforces_limit:
        limit = reading.limit_watts if reading is not None else None
        if limit is not None and not entry.pending and abs(limit - setpoint.watts) <= LIMIT_DEADBAND_WATTS:
            return None
        return Verb.POWER
    state = reading.state if reading is not None else None
    asleep = state in (LoadState.ASLEEP, LoadState.STOPPING)
    wants_sleep = setpoint.point == load.lowest.name
    if wants_sleep:
        credited = most_now <= load.most_at(load.lowest) + 1e-6
        if asleep and credited and not entry.pending:
            return None
        return Verb.SLEEP
    if state in (LoadState.ACTIVE, LoadState.STARTING):
        if entry.pending and entry.command is not None and entry.command.verb is Verb.SLEEP:
            return Verb.WAKE
        return _move(load, setpoint, entry, reading, most_now) if load.steps_between and reading is not None else None
    return Verb.WAKE


def _move(load: Load, setpoint: Setpoint, entry: LedgerEntry, reading: Telemetry, most_now: float) -> Verb | None:
    """Return whether a running miner has to be sent to the setpoint's point."""
    wanted = load.point(setpoint.point)
    if entry.pending and entry.command is not None:
        # Its point follows once it has woken, unless there is no time for that.
        waking = entry.command.verb is Verb.WAKE
        hurries = setpoint.cause in OVERRIDES_PACING and wanted is not load.highest
        return Verb.WAKE if waking and not hurries else Verb.POWER
    stands = running_point(load, entry, reading)
    if wanted is load.highest:
        # One that was found running and tells nothing is taken to run at full.
        full = stands is wanted or (stands is None and entry.command is None)
        return None if full else Verb.POWER
    return None if stands is wanted and most_now <= load.most_at(wanted) + 1e-6 else Verb.POWER


def _why_not_fall(facility: Facility, snapshot: Snapshot, step: _Step) -> str | None:
    cause = step.setpoint.cause
    hold = snapshot.held(facility, step.load.id)
    if hold is not None and hold.kind is HoldKind.ON and cause not in OVERRIDES_HOLD_ON:
        return f"held on by {hold.owner}: {hold.reason}"
    if cause in OVERRIDES_PACING or step.restores:
        return None
    if step.moves:
        return _why_not_move(snapshot, step)
    pacing, entry = facility.pacing, step.entry
    since_s = _since(snapshot, entry.turned_at)
    least_s = max(pacing.min_on_s, step.load.capability.min_dwell_s)
    if since_s is not None and since_s < least_s:
        return f"minimum time on: {least_s - since_s:.0f} s left"
    if len([t for t in entry.cycles if t > snapshot.at - 86_400.0]) >= pacing.max_cycles_per_day:
        return f"{pacing.max_cycles_per_day} economic cycles today are used up"
    return None


def _why_not_rise(facility: Facility, snapshot: Snapshot, step: _Step) -> str | None:
    hold = snapshot.held(facility, step.load.id)
    if hold is not None:
        return f"held {hold.kind.value} by {hold.owner}: {hold.reason}"
    if not snapshot.records_ok:
        return "the journal takes no writes: nothing increases"
    if step.load.kind is LoadKind.GPU:
        return None
    if step.moves:
        return _why_not_move(snapshot, step)
    shut = why_not_wake(facility, snapshot, step.load)
    if shut is not None:
        return f"no wake: {shut}"
    since_s = _since(snapshot, step.entry.turned_at)
    least_s = max(facility.pacing.min_off_s, step.load.capability.min_dwell_s)
    if since_s is not None and since_s < least_s:
        return f"minimum time off: {least_s - since_s:.0f} s left"
    return None


def _why_not_move(snapshot: Snapshot, step: _Step) -> str | None:
    least_s, since_s = step.load.capability.min_dwell_s, _since(snapshot, step.entry.last_change_at)
    if since_s is not None and since_s < least_s:
        return f"minimum time at a point: {least_s - since_s:.0f} s left"
    return None


def _since(snapshot: Snapshot, instant: float | None) -> float | None:
    return None if instant is None else snapshot.at - instant


class _Pace:
    """What the economic ramp and the command gap still allow in this tick, from the ledger alone."""

    def __init__(self, facility: Facility, snapshot: Snapshot) -> None:
        self._facility = facility
        self._snapshot = snapshot
        self._fallen = {circuit.id: 0.0 for circuit in facility.circuits}
        self._risen = {circuit.id: 0.0 for circuit in facility.circuits}
        self._woken = {circuit.id: 0.0 for circuit in facility.circuits}
        self._block_since: dict[str, float] = {}
        """Per circuit: when the first wake was sent that is neither verified nor failed."""
        for load in facility.loads:
            entry = snapshot.ledger.entries.get(load.id)
            if entry is None or entry.command is None:
                continue
            command = entry.command
            moved = abs(command.most_after_watts - command.most_before_watts)
            recent = command.issued_at > snapshot.at - RAMP_WINDOW_S
            for circuit_id in facility.path(load.circuit):
                if recent and command.cause not in OVERRIDES_PACING and not entry.restoring:
                    book = self._risen if command.raises else self._fallen
                    book[circuit_id] += moved
                fresh = command.issued_at > snapshot.at - facility.pacing.block_period_s
                if command.verb is Verb.WAKE and (entry.pending or fresh):
                    self._woken[circuit_id] += moved
                if command.verb is Verb.WAKE and entry.pending:
                    since = min(command.issued_at, self._block_since.get(circuit_id, command.issued_at))
                    self._block_since[circuit_id] = since

    def why_not(self, step: _Step) -> str | None:
        """Return why pacing holds the step back, or None."""
        if step.restores:
            return None
        cause, pacing = step.setpoint.cause, self._facility.pacing
        if cause not in OVERRIDES_COMMAND_RATE and step.load.kind is LoadKind.MINER:
            since_s = _since(self._snapshot, step.entry.last_change_at)
            if since_s is not None and since_s < pacing.command_gap_s:
                return f"one command each {pacing.command_gap_s:.0f} s: {pacing.command_gap_s - since_s:.0f} s left"
        if cause in OVERRIDES_PACING and not (step.raises and step.load.kind is LoadKind.MINER):
            return None
        moved = abs(step.most_then - step.most_now)
        for circuit_id in self._facility.path(step.load.circuit):
            usable = self._facility.circuit_by_id[circuit_id].usable_watts
            book = self._risen if step.raises else self._fallen
            allowed = pacing.economic_ramp_per_s * RAMP_WINDOW_S * usable
            if book[circuit_id] > 0.0 and book[circuit_id] + moved > allowed:
                return f"ramp of {circuit_id}: {book[circuit_id] / 1e3:.1f} kW moved in the last {RAMP_WINDOW_S:.0f} s"
            since = self._block_since.get(circuit_id)
            if step.verb is Verb.WAKE and since is not None and self._snapshot.at - since > pacing.block_period_s:
                seconds = self._snapshot.at - since
                return f"staged wake at {circuit_id}: the block woken {seconds:.0f} s ago is not yet verified"
            block = pacing.block_fraction * usable
            if step.verb is Verb.WAKE and self._woken[circuit_id] > 0.0 and self._woken[circuit_id] + moved > block:
                return f"staged wake at {circuit_id}: {self._woken[circuit_id] / 1e3:.1f} kW of the block under way"
        return None

    def take(self, step: _Step) -> None:
        """Count the step against what is left."""
        moved = abs(step.most_then - step.most_now)
        for circuit_id in self._facility.path(step.load.circuit):
            if step.setpoint.cause not in OVERRIDES_PACING and not step.restores:
                book = self._risen if step.raises else self._fallen
                book[circuit_id] += moved
            if step.verb is Verb.WAKE:
                self._woken[circuit_id] += moved


def _admit(
    facility: Facility,
    snapshot: Snapshot,
    accounts: Mapping[str, CircuitAccount],
    rises: list[_Step],
    armed_watts: Mapping[str, float],
    pace: _Pace,
    withheld: dict[str, str],
) -> list[tuple[_Step, float]]:
    """Admit increases into proven room, inference first; one that must wait keeps its room from those after it."""
    room = {circuit_id: account.room_watts * RAISE_FRACTION for circuit_id, account in accounts.items()}
    reserve = _standing_reserve(facility, armed_watts)
    admitted: list[tuple[_Step, float]] = []
    order = sorted(rises, key=lambda step: _rank(facility, step))
    for step in order:
        path = facility.path(step.load.circuit)
        reason = _why_not_rise(facility, snapshot, step) or pace.why_not(step)
        shut = next((accounts[node].why_not for node in path if not accounts[node].increases_allowed), None)
        if reason is None and shut is not None:
            reason = f"no increase into unmeasured room: {shut}"
        if reason is not None:
            withheld[step.load.id] = reason
            continue
        wanted = max(0.0, step.most_then - step.most_now)
        mining = step.load.kind is LoadKind.MINER
        free = {node: room[node] - (_kept_free(facility, accounts, node, wanted) if mining else 0.0) for node in path}
        if mining:
            free = {node: watts - reserve[node] for node, watts in free.items()}
        tightest = min(path, key=lambda node: free[node])
        granted = wanted if free[tightest] >= wanted else max(0.0, free[tightest])
        for node in path:
            room[node] -= wanted
        if granted < wanted:
            withheld[step.load.id] = (
                f"waits for room: {tightest} has {max(0.0, free[tightest]):.0f} W proven free, {wanted:.0f} W wanted"
            )
            if not step.load.capability.enforces_limit or granted < LEAST_RAISE_WATTS:
                continue
        limited = step.load.capability.enforces_limit
        admitted.append((step, math.floor(step.watts - (wanted - granted)) if limited else step.watts))
        pace.take(step)
    return admitted


def _kept_free(facility: Facility, accounts: Mapping[str, CircuitAccount], node: str, wanted: float) -> float:
    """Return the room that a wake must leave, or the noise of a meter would put it back to sleep."""
    return WAKE_MARGIN_FRACTION * accounts[node].limit_watts + facility.circuit_by_id[node].meter_error * wanted


def _rank(facility: Facility, step: _Step) -> tuple[float, ...]:
    if step.load.kind is LoadKind.GPU:
        service = facility.service_by_id.get(step.load.service or "")
        return (0.0, float(service.priority if service is not None else 99))
    joules_per_th = step.watts / max(step.load.point(step.point).th_per_s, 1e-9)
    return (1.0, joules_per_th)


def _standing_reserve(facility: Facility, armed_watts: Mapping[str, float]) -> dict[str, float]:
    reserve = {circuit.id: 0.0 for circuit in facility.circuits}
    for service, watts in armed_watts.items():
        circuits = {node for load in facility.loads_of_service[service] for node in facility.path(load.circuit)}
        for node in circuits:
            reserve[node] += watts
    return reserve


def _command(facility: Facility, snapshot: Snapshot, step: _Step, watts: float, number: int, plan_id: str) -> Command:
    limited = step.load.capability.enforces_limit
    return Command(
        id=f"{snapshot.ledger.epoch}-{number}",
        seq=number,
        epoch=snapshot.ledger.epoch,
        load_id=step.load.id,
        verb=step.verb,
        point=step.point if abs(watts - step.watts) < 1e-9 else "",
        watts=watts,
        most_before_watts=step.most_now,
        most_after_watts=watts if limited else step.most_then,
        cause=step.setpoint.cause,
        plan_id=plan_id,
        policy_hash=facility.policy_hash,
        issued_at=snapshot.at,
        not_after=snapshot.at + SEND_DEADLINE_S,
        lease_s=facility.pacing.lease_s,
    )
