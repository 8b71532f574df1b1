"""The cap sum: the most that everything beneath a circuit may draw, against what the circuit may carry.

Every load counts at the most it may draw: the limit that the device enforces, or the larger of what was confirmed,
what was commanded and what is read; its worst draw where none of that is known. What is measured and not
explained by loads and auxiliaries is unmanaged, so a sum is never below its meter's reading.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mullet.domain.command import LedgerEntry
from mullet.domain.facility import Circuit, Facility, Mode, SafeAction
from mullet.domain.feeds import Cause, Curtailment
from mullet.domain.load import Load
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import LoadState, MeterReading, Quality, Telemetry
from mullet.domain.units import format_watts
from mullet.planning.index import FacilityIndex, index_of
from mullet.planning.stance import RUNNING, named_point, outruns

TELEMETRY_SOURCE = "telemetry"
METER_SOURCE = "meter"
SILENT_AFTER_S = 15.0
NO_INCREASE_S = 3.0
ASSUME_MAX_S = 10.0
FAILSAFE_S = 30.0

_SIGMAS = 3.0
_READING_FACTOR = 1.02
_READING_MARGIN_WATTS = 5.0
_METER_LAG_S = 2.0
_NEVER_ASKED = LedgerEntry("")

# Ceilings of programs outbid one another by priority; these bind whatever another program says.
_UNCONDITIONAL = frozenset(
    {Cause.PROTECTION, Cause.FAILSAFE, Cause.EMERGENCY, Cause.AI_PREEMPTION, Cause.THERMAL, Cause.HOLD}
)


@dataclass(frozen=True, slots=True)
class CircuitAccount:
    """What may be drawn at one circuit, against its limit, in watts."""

    circuit_id: str
    limit_watts: float
    """What the circuit may carry now."""
    target_limit_watts: float
    """As `limit_watts`, and below every ceiling that starts before its loads could still shed."""
    cause: Cause | None
    """Cause of the ceiling that sets `target_limit_watts`; None where the usable limit does."""
    loads_watts: float
    auxiliary_watts: float
    unmanaged_watts: float
    error_watts: float
    sum_watts: float
    room_watts: float
    """Limit less sum; never above 0 where the meter cannot be trusted."""
    measured_watts: float | None
    increases_allowed: bool
    why_not: str
    """Why nothing beneath may increase; empty where it may."""
    planned_unmanaged_watts: float
    """Unmanaged load to plan with: steady while loads move and their meter lags behind them."""
    planned_error_watts: float
    """Meter error to plan with: that of a reading at the limit."""

    @property
    def over(self) -> bool:
        """Whether the sum is above what the circuit may carry now."""
        return self.sum_watts > self.limit_watts + 1e-6


class Standing:
    """Which loads may be commanded at one instant, and the most that each load may draw."""

    def __init__(self, facility: Facility, snapshot: Snapshot, silent_after_s: float, advise: bool = False) -> None:
        """`advise` treats circuits in mode advise as if they were in auto: what would be done."""
        self._facility = facility
        self._snapshot = snapshot
        self._oldest = snapshot.at - silent_after_s
        modes = (Mode.AUTO, Mode.ADVISE) if advise else (Mode.AUTO,)
        self._auto = {circuit.id: snapshot.mode_of(facility, circuit.id) in modes for circuit in facility.circuits}
        self._targets = frozenset(hold.target for hold in snapshot.holds)
        self._most = _counted(facility, snapshot, silent_after_s, advise)

    @property
    def facility(self) -> Facility:
        """The facility that is counted."""
        return self._facility

    def reading(self, load: Load) -> Telemetry | None:
        """Return the load's reading if it is good and young enough to rely on."""
        reading = self._snapshot.telemetry.get(load.id)
        if reading is None or reading.fault is not None or not reading.at >= self._oldest:
            return None
        return reading

    def held(self, load: Load) -> bool:
        """Return whether an operator's hold lies on the load or above it."""
        if not self._targets:
            return False
        return load.id in self._targets or not self._targets.isdisjoint(self._facility.path(load.circuit))

    def barred(self, load: Load) -> bool:
        """Return whether nothing can be written to the load, whatever it is asked for."""
        return load.id in self._snapshot.barred

    def auto(self, load: Load) -> bool:
        """Return whether the mode along the load's path lets it be moved."""
        return self._auto[load.circuit]

    def ours(self, load: Load) -> bool:
        """Return whether mode, holds and its driver let the load be moved at all."""
        return self._auto[load.circuit] and not self.held(load) and not self.barred(load)

    def most_watts(self, load: Load) -> float:
        """Return the most that the load may draw."""
        found = self._most.get(load.id)
        if found is None:
            found = self._most[load.id] = self._count(load)
        return found

    def _count(self, load: Load) -> float:
        reading = self.reading(load)
        if reading is None:
            return load.worst_watts
        measured = reading.watts if load.capability.measures_watts else None
        if measured is not None and not math.isfinite(measured):
            return load.worst_watts
        if not self.ours(load):
            return max(load.worst_watts, measured or 0.0)
        entry = self._snapshot.ledger.entries.get(load.id) or _NEVER_ASKED
        if load.capability.enforces_limit:
            return _most_under_limit(load, reading, entry, measured)
        commanded = _commanded_watts(load, entry, reading)
        return max(_base_watts(load, reading, entry, measured, commanded), commanded, measured or 0.0)


def _counted(facility: Facility, snapshot: Snapshot, silent_after_s: float, advise: bool) -> dict[str, float]:
    """Return what has been counted of this snapshot so far: account, allocation and lists all ask for every load."""
    # Kept with the snapshot, which never changes; what is kept follows from it and the facility alone.
    key = f"_counted_{silent_after_s}_{advise}"
    kept: tuple[Facility, dict[str, float]] | None = snapshot.__dict__.get(key)
    if kept is None or kept[0] is not facility:
        kept = (facility, {})
        snapshot.__dict__[key] = kept
    return kept[1]


def _most_under_limit(load: Load, reading: Telemetry, entry: LedgerEntry, measured: float | None) -> float:
    limit = reading.limit_watts
    if limit is None or not math.isfinite(limit):
        return max(load.worst_watts, measured or 0.0)
    if entry.pending and entry.command is not None:
        limit = max(limit, entry.command.most_after_watts)
    if measured is not None and measured > limit * _READING_FACTOR + _READING_MARGIN_WATTS:
        return measured
    return limit


def _commanded_watts(load: Load, entry: LedgerEntry, reading: Telemetry) -> float:
    command = entry.command
    if command is None:
        return 0.0
    most = command.most_after_watts
    if load.steps_between:
        # It may have overtaken one that raised it and was never verified: what counted then still does.
        most = max(most, command.most_before_watts)
    if entry.pending:
        return most
    unverified = entry.confirmed_at is None or entry.confirmed_at < command.issued_at
    # A raise that failed may still happen late; only a truthful load's word that it sleeps speaks against it.
    asleep = load.capability.measures_watts and reading.state is LoadState.ASLEEP
    if unverified and (command.raises or load.steps_between) and not asleep:
        return most
    return 0.0


def _base_watts(load: Load, reading: Telemetry, entry: LedgerEntry, measured: float | None, commanded: float) -> float:
    confirmed = entry.confirmed_watts
    lowest = load.most_at(load.lowest)
    if confirmed is not None:
        allowed = max(confirmed, commanded)
        draws_more = measured is not None and measured > allowed * _READING_FACTOR + _READING_MARGIN_WATTS
        woke = reading.state in RUNNING and len(load.points) > 1 and allowed <= lowest + 1e-9
        if woke:
            # It came back by itself: at what point, nobody told it.
            return load.worst_watts
        # Without truthful watts, a hashrate above its point's tells as much.
        point = named_point(load, entry.confirmed_point) if load.steps_between and measured is None else None
        if not draws_more and (point is None or not outruns(load, point, reading)):
            return confirmed
    if measured is None and reading.state is not LoadState.ACTIVE:
        return load.worst_watts
    if measured is not None and reading.state is LoadState.ASLEEP and measured <= lowest + _READING_MARGIN_WATTS:
        return lowest
    return load.most_at(load.highest)


def silent_after_s(facility: Facility) -> float:
    """Return the age after which a load's reading counts as silence."""
    return facility.safety_age_s(TELEMETRY_SOURCE, SafeAction.WORST_DRAW, SILENT_AFTER_S)


def most_may_draw(facility: Facility, snapshot: Snapshot, load: Load, silent_after_s: float) -> float:
    """Return the most watts that `load` may draw as things stand."""
    return Standing(facility, snapshot, silent_after_s).most_watts(load)


def account(facility: Facility, snapshot: Snapshot, advise: bool = False) -> Mapping[str, CircuitAccount]:
    """Return the account of every circuit. `advise` counts circuits in mode advise as if in auto."""
    index = index_of(facility)
    tallies = _tally(facility, snapshot, index, Standing(facility, snapshot, silent_after_s(facility), advise))
    accounts: dict[str, CircuitAccount] = {}
    below: dict[str, list[CircuitAccount]] = {circuit.id: [] for circuit in facility.circuits}
    reasons = {circuit.id: "" for circuit in facility.circuits}
    for node in index.bottom_up:
        circuit = facility.circuit_by_id[node]
        made, reasons[node] = _circuit_account(facility, snapshot, index, circuit, tallies[node], below[node])
        accounts[node] = made
        if circuit.parent is not None:
            below[circuit.parent].append(made)
    general = ""
    if not snapshot.records_ok:
        general = "the journal takes no writes"
    elif not snapshot.first_reading_done:
        general = "not every load has been asked once since start"
    for node in index.bottom_up:
        why = general or next((reasons[above] for above in facility.path(node) if reasons[above]), "")
        if why:
            accounts[node] = replace(accounts[node], increases_allowed=False, why_not=why)
    return accounts


@dataclass(slots=True)
class _Tally:
    most: float = 0.0
    observed: float = 0.0
    auxiliary: float = 0.0
    auxiliary_observed: float = 0.0
    moving: float = 0.0
    """What loads that were just commanded may draw beyond what they were last seen to draw."""


def _tally(facility: Facility, snapshot: Snapshot, index: FacilityIndex, standing: Standing) -> dict[str, _Tally]:
    tallies = {node: _Tally() for node in index.bottom_up}
    entries = snapshot.ledger.entries
    for load in facility.loads:
        tally = tallies[load.circuit]
        tally.most += standing.most_watts(load)
        reading = standing.reading(load)
        observed = 0.0
        if reading is not None and reading.watts is not None and math.isfinite(reading.watts):
            observed = reading.watts
        tally.observed += observed
        entry = entries.get(load.id)
        if entry is not None and entry.command is not None and _moves(entry, snapshot.at):
            command = entry.command
            tally.moving += max(0.0, command.most_before_watts - observed, command.most_after_watts - observed)
    auxiliaries = {node: [a for a in facility.auxiliaries if a.circuit == node] for node in index.bottom_up}
    for node in index.bottom_up:
        tally = tallies[node]
        for auxiliary in auxiliaries[node]:
            tally.auxiliary += auxiliary.fixed_watts + auxiliary.follows * max(0.0, tally.most)
            tally.auxiliary_observed += auxiliary.fixed_watts + auxiliary.follows * max(0.0, tally.observed)
        parent = facility.circuit_by_id[node].parent
        if parent is not None:
            above = tallies[parent]
            above.most += tally.most
            above.observed += tally.observed
            above.auxiliary += tally.auxiliary
            above.auxiliary_observed += tally.auxiliary_observed
            above.moving += tally.moving
    return tallies


def _moves(entry: LedgerEntry, at: float) -> bool:
    since = max(entry.last_change_at or 0.0, entry.confirmed_at or 0.0)
    return entry.pending or at - since <= _METER_LAG_S


def _circuit_account(
    facility: Facility,
    snapshot: Snapshot,
    index: FacilityIndex,
    circuit: Circuit,
    tally: _Tally,
    children: list[CircuitAccount],
) -> tuple[CircuitAccount, str]:
    reading = snapshot.meters.get(circuit.meter) if circuit.meter is not None else None
    age_s = math.inf if reading is None else snapshot.at - reading.at
    good = reading is not None and _usable(reading)
    no_increase = facility.safety_age_s(METER_SOURCE, SafeAction.NO_INCREASE, NO_INCREASE_S)
    assume_max = facility.safety_age_s(METER_SOURCE, SafeAction.ASSUME_MAX, ASSUME_MAX_S)
    failsafe = facility.safety_age_s(METER_SOURCE, SafeAction.FAILSAFE_LIMIT, FAILSAFE_S)
    metered = circuit.meter is not None
    trusted = metered and good and age_s <= assume_max
    limit, target, cause = _limits(circuit, snapshot, index.lead_s[circuit.id])
    # A meter that was never read since start has no age: no increase, but nothing is shed for it either.
    lost = reading is not None and age_s > failsafe
    if lost and circuit.failsafe_watts is not None and circuit.failsafe_watts < target:
        limit, target, cause = min(limit, circuit.failsafe_watts), circuit.failsafe_watts, Cause.FAILSAFE

    measured = reading.watts if trusted and reading is not None else None
    if measured is not None:
        unmanaged, planned = _metered_unmanaged(snapshot, index, circuit, tally, measured, target)
        error = circuit.meter_error * abs(measured)
        planned_error = circuit.meter_error * max(abs(target), abs(measured))
    else:
        unmanaged = circuit.unmanaged_max_watts + sum(child.unmanaged_watts for child in children)
        planned = circuit.unmanaged_max_watts + sum(child.planned_unmanaged_watts for child in children)
        error = sum(child.error_watts for child in children)
        planned_error = sum(child.planned_error_watts for child in children)
    total = tally.most + tally.auxiliary + unmanaged + error
    room = limit - total
    why = ""
    if metered and not trusted:
        room = min(room, 0.0)
        why = f"{circuit.id}: {_meter_words(circuit, reading, good, age_s)}, counted as at its limit"
    elif metered and age_s > no_increase:
        why = f"{circuit.id}: meter {circuit.meter} silent for {age_s:.1f} s"
    elif total > limit + 1e-6:
        why = f"{circuit.id} may draw {format_watts(total)} of {format_watts(limit)}"
    made = CircuitAccount(
        circuit_id=circuit.id,
        limit_watts=limit,
        target_limit_watts=target,
        cause=cause,
        loads_watts=tally.most,
        auxiliary_watts=tally.auxiliary,
        unmanaged_watts=unmanaged,
        error_watts=error,
        sum_watts=total,
        room_watts=room,
        measured_watts=measured,
        increases_allowed=True,
        why_not="",
        planned_unmanaged_watts=planned,
        planned_error_watts=planned_error,
    )
    return made, why


def _usable(reading: MeterReading) -> bool:
    return reading.quality is Quality.GOOD and reading.watts is not None and math.isfinite(reading.watts)


def _meter_words(circuit: Circuit, reading: MeterReading | None, good: bool, age_s: float) -> str:
    if reading is None:
        return f"meter {circuit.meter} was never read"
    if not good:
        return f"meter {circuit.meter} reads badly ({reading.detail or 'no value'})"
    return f"meter {circuit.meter} silent for {age_s:.1f} s"


def _metered_unmanaged(
    snapshot: Snapshot, index: FacilityIndex, circuit: Circuit, tally: _Tally, measured: float, target: float
) -> tuple[float, float]:
    unexplained = measured - tally.most - tally.auxiliary
    ceiling = index.unmanaged_max_watts[circuit.id]
    residual = snapshot.residuals.get(circuit.id)
    if residual is None:
        return max(ceiling, unexplained), ceiling
    margin = _SIGMAS * residual.sigma_watts
    latest = residual.latest_watts - tally.auxiliary_observed
    seen = max(0.0, latest + margin) if latest > 0.0 else 0.0
    unmanaged = max(min(seen, ceiling), unexplained, 0.0)
    # A meter lags behind loads that move, so their change would be taken for unmanaged load and shed twice: the
    # plan goes by what was seen while nothing moved, and by the latest reading only where that is above the limit.
    steady = max(0.0, residual.mean_watts + margin - tally.auxiliary_observed)
    if residual.samples > 0 and measured <= target:
        return unmanaged, steady
    unexpected = max(0.0, latest - tally.moving)
    return unmanaged, max(steady, unexpected) if residual.samples > 0 else unexpected


def _limits(circuit: Circuit, snapshot: Snapshot, lead_s: float) -> tuple[float, float, Cause | None]:
    here = [c for c in snapshot.curtailments if c.circuit == circuit.id and c.end > snapshot.at]
    now = [c for c in here if c.start <= snapshot.at]
    soon = [c for c in here if c.announced_at <= snapshot.at and c.start <= snapshot.at + lead_s]
    limit, _ = lowest_ceiling(circuit, now)
    target, cause = lowest_ceiling(circuit, now + [c for c in soon if c not in now])
    return limit, min(limit, target), cause


def lowest_ceiling(circuit: Circuit, curtailments: Sequence[Curtailment]) -> tuple[float, Cause | None]:
    """Return what the circuit may carry under `curtailments` (all on this circuit) and the cause of what binds.

    Between programs the lowest priority number wins and ties go to the lowest ceiling; protection, emergency and
    the like always bind.
    """
    programs = [c for c in curtailments if c.cause not in _UNCONDITIONAL]
    first = min((c.priority for c in programs), default=0)
    binding = [c for c in curtailments if c.cause in _UNCONDITIONAL or c.priority == first]
    limit, cause = circuit.usable_watts, None
    for curtailment in sorted(binding, key=lambda c: (c.limit_watts, c.id)):
        if curtailment.limit_watts < limit:
            limit, cause = curtailment.limit_watts, curtailment.cause
    return limit, cause
