"""What became of each command, judged by readings alone: an acknowledgement is no evidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from mullet.control.background import Ground, grounds, least_others
from mullet.control.draw import ramp_s, unsettled
from mullet.domain.command import Command, Evidence, LedgerEntry, Outcome, OutcomeKind, Verb
from mullet.domain.facility import Facility
from mullet.domain.load import Load, LoadKind, OperatingPoint
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import LoadState, Quality, Telemetry
from mullet.planning.stance import named_point, outruns, reaches, slack, truthful_watts

LIMIT_SLACK_WATTS = 1.0
READ_GRACE_S = 3.0
"""Time beyond the ramp for the readings themselves to arrive."""
MOVED_FRACTION = 0.2
METER_FRESH_S = 2.0
HIDDEN_FRACTION = 0.1
"""Of one load's draw: the most that may hide in a circuit's meter when it credits a batch."""
HIDDEN_MOST = 0.9
"""Of one load's draw: the most that may hide in all, with noise and what is not known as exactly."""
MOST_WAIT_S = 120.0
"""A load that says it sleeps waits at most this long for its circuit's meter to settle."""

Claimant = tuple[Load, Command | None, Telemetry, OperatingPoint]
"""A load that tells no watts, what was asked of it, what it tells, and the point where its meter shall prove it."""


def verify(facility: Facility, snapshot: Snapshot) -> tuple[Outcome, ...]:
    """Return the outcomes that the snapshot's readings establish for commands still pending."""
    outcomes: list[Outcome] = []
    lowered: list[Claimant] = []
    # In the facility's order: a ledger that was read back from the journal may have another one.
    for load in facility.loads:
        entry = snapshot.ledger.entries.get(load.id)
        if entry is None or not entry.pending or entry.command is None:
            continue
        command, reading = entry.command, snapshot.telemetry.get(load.id)
        if entry.receipt is not None and entry.receipt.acked is False and not entry.receipt.unreachable:
            outcomes.append(_outcome(snapshot, entry, OutcomeKind.REFUSED, reading, None, entry.receipt.detail))
            continue
        if reading is not None and reading.fault is None and reading.at > command.issued_at:
            if load.capability.enforces_limit:
                done = _limit_outcome(snapshot, load, entry, reading)
            elif command.verb is Verb.SLEEP and not load.capability.measures_watts:
                done = None
                # The last watts of a ramp are too few for a meter to see; its time must have passed as well.
                ramped = snapshot.at >= command.issued_at + load.capability.ramp_down_s
                if ramped and reading.state is LoadState.ASLEEP and (reading.th_per_s or 0.0) == 0.0:
                    lowered.append((load, command, reading, load.lowest))
            elif command.verb is Verb.POWER:
                done = _point_outcome(snapshot, load, entry, reading)
                point = _point_to_prove(snapshot, load, command, reading)
                if done is None and point is not None:
                    lowered.append((load, command, reading, point))
            else:
                done = _state_outcome(snapshot, load, entry, reading)
            if done is not None:
                outcomes.append(done)
                continue
        late = _late_outcome(facility, snapshot, load, entry, reading)
        if late is not None:
            outcomes.append(late)
    lowered.extend(_standing(facility, snapshot))
    credited = _meter_outcomes(facility, snapshot, lowered)
    settled = {outcome.load_id for outcome in credited}
    return (*(outcome for outcome in outcomes if outcome.load_id not in settled), *credited)


def _standing(facility: Facility, snapshot: Snapshot) -> Iterator[Claimant]:
    """Yield loads found asleep that measure no watts and that nothing was asked of: the meter can credit them too."""
    for load in facility.loads:
        if load.capability.measures_watts or load.kind is not LoadKind.MINER:
            continue
        entry, reading = snapshot.ledger.entry(load.id), snapshot.telemetry.get(load.id)
        if entry.pending or entry.confirmed_point is not None or reading is None:
            continue
        if reading.state is LoadState.ASLEEP and (reading.th_per_s or 0.0) == 0.0:
            yield load, None, reading, load.lowest


def verify_deadline(facility: Facility, load: Load, command: Command) -> float:
    """Return the instant after which a command that nothing confirms has failed."""
    return command.issued_at + ramp_s(load, command) * facility.pacing.verify_margin + READ_GRACE_S


def _limit_outcome(snapshot: Snapshot, load: Load, entry: LedgerEntry, reading: Telemetry) -> Outcome | None:
    command = entry.command
    if command is None or reading.limit_watts is None:
        return None
    limit = reading.limit_watts
    draws_within = reading.watts is None or reading.watts <= slack(limit)
    if abs(limit - command.watts) <= LIMIT_SLACK_WATTS and draws_within:
        return _outcome(snapshot, entry, OutcomeKind.APPLIED, reading, limit, "enforced limit read back")
    return None


def _point_outcome(snapshot: Snapshot, load: Load, entry: LedgerEntry, reading: Telemetry) -> Outcome | None:
    """Judge a miner that was asked to go to another point at which it runs."""
    command = entry.command
    if command is None:
        return None
    point = named_point(load, command.point)
    if point is None:
        return None
    if _holds(snapshot, load, command, point, reading) and not _needs_meter(load, command, point):
        words = "point read back" if truthful_watts(load, reading) is not None else "hashing read back"
        return _outcome(snapshot, entry, OutcomeKind.APPLIED, reading, command.most_after_watts, words)
    if _moved(command, reading) and not entry.converging:
        return _outcome(snapshot, entry, OutcomeKind.CONVERGING, reading, None, "moving")
    return None


def _holds(snapshot: Snapshot, load: Load, command: Command, point: OperatingPoint, reading: Telemetry) -> bool:
    """Return whether a reading taken after the ramp shows the load at the point: on its way it only passes there."""
    ramped = reading.at >= command.issued_at + ramp_s(load, command)
    hashes = reading.state is LoadState.ACTIVE and (reading.th_per_s or 0.0) > 0.0
    if not ramped or not hashes or outruns(load, point, reading):
        return False
    return not command.raises or reaches(load, point, reading)


def _point_to_prove(snapshot: Snapshot, load: Load, command: Command, reading: Telemetry) -> OperatingPoint | None:
    """Return the point at which the load says it stands and which only its circuit's meter can prove, if any."""
    point = named_point(load, command.point) if command.verb is Verb.POWER else None
    if point is None or not _needs_meter(load, command, point):
        return None
    return point if _holds(snapshot, load, command, point, reading) else None


def _needs_meter(load: Load, command: Command, point: OperatingPoint) -> bool:
    """Return whether only a circuit's meter can prove the point: a lower one, of a load that tells no true watts."""
    return not load.capability.measures_watts and point is not load.highest and not command.raises


def _state_outcome(snapshot: Snapshot, load: Load, entry: LedgerEntry, reading: Telemetry) -> Outcome | None:
    command = entry.command
    if command is None:
        return None
    if command.verb is Verb.SLEEP:
        if (
            reading.state is LoadState.ASLEEP
            and reading.watts is not None
            and reading.watts <= slack(command.most_after_watts)
        ):
            return _outcome(
                snapshot, entry, OutcomeKind.APPLIED, reading, command.most_after_watts, "state and watts read back"
            )
    elif reading.state is LoadState.ACTIVE and (reading.th_per_s or 0.0) > 0.0:
        within = reading.watts is None or reading.watts <= slack(command.most_after_watts)
        if within:
            return _outcome(
                snapshot, entry, OutcomeKind.APPLIED, reading, command.most_after_watts, "hashing read back"
            )
    moved = _moved(command, reading)
    if moved and not entry.converging:
        return _outcome(snapshot, entry, OutcomeKind.CONVERGING, reading, None, "moving")
    return None


def _moved(command: Command, reading: Telemetry) -> bool:
    if reading.watts is None or command.most_before_watts == command.most_after_watts:
        return False
    span = command.most_after_watts - command.most_before_watts
    return (reading.watts - command.most_before_watts) / span >= MOVED_FRACTION


def _late_outcome(
    facility: Facility, snapshot: Snapshot, load: Load, entry: LedgerEntry, reading: Telemetry | None
) -> Outcome | None:
    command = entry.command
    if command is None or snapshot.at < verify_deadline(facility, load, command):
        return None
    if _waits_for_meter(facility, snapshot, load, command, reading):
        return None
    silent = reading is None or reading.fault is not None or reading.at <= command.issued_at
    if silent:
        why = reading.fault if reading is not None and reading.fault else "no reading since the command"
        return _outcome(snapshot, entry, OutcomeKind.UNREACHABLE, None, None, why)
    if load.capability.enforces_limit and reading is not None and reading.limit_watts is not None:
        # A raise that changed nothing, or after which the limit even fell (a lapsed lease), was not applied in part.
        in_part = not command.raises or reading.limit_watts > command.most_before_watts + LIMIT_SLACK_WATTS
        draws_within = reading.watts is None or reading.watts <= slack(reading.limit_watts)
        if reading.limit_watts < command.watts and in_part and draws_within:
            detail = f"holds {reading.limit_watts:.0f} W although {command.watts:.0f} W was asked: the lower counts"
            return _outcome(snapshot, entry, OutcomeKind.APPLIED, reading, reading.limit_watts, detail)
        lost = entry.receipt is not None and entry.receipt.unreachable
        kind = OutcomeKind.UNREACHABLE if lost else OutcomeKind.REFUSED
        return _outcome(snapshot, entry, kind, reading, None, f"still enforces {reading.limit_watts:.0f} W")
    state = "unknown" if reading is None or reading.state is None else reading.state.value
    watts = "unknown" if reading is None or reading.watts is None else f"{reading.watts:.0f} W"
    said = "said yes, but " if entry.receipt is not None and entry.receipt.acked else ""
    return _outcome(snapshot, entry, OutcomeKind.REFUSED, reading, None, f"{said}state is {state}, draw {watts}")


def _waits_for_meter(
    facility: Facility, snapshot: Snapshot, load: Load, command: Command, reading: Telemetry | None
) -> bool:
    """Return whether a load that says it sleeps waits only because others on its circuit keep the meter moving."""
    if load.capability.measures_watts or reading is None or snapshot.at > command.issued_at + MOST_WAIT_S:
        return False
    stopped = command.verb is Verb.SLEEP and reading.state is LoadState.ASLEEP
    if not stopped and _point_to_prove(snapshot, load, command, reading) is None:
        return False
    circuit_id = metered_above(facility, snapshot, load)
    if circuit_id is None:
        return False
    for other in facility.loads_beneath[circuit_id]:
        entry, seen = snapshot.ledger.entry(other.id), snapshot.telemetry.get(other.id)
        if other.id != load.id and unsettled(snapshot.at, other, entry, seen):
            asleep = seen is not None and seen.state is LoadState.ASLEEP
            if not asleep:
                return True
    return False


def metered_above(facility: Facility, snapshot: Snapshot, load: Load) -> str | None:
    """Return the nearest circuit above the load whose meter has a good reading."""
    for circuit_id in facility.path(load.circuit):
        meter = facility.circuit_by_id[circuit_id].meter
        reading = snapshot.meters.get(meter) if meter is not None else None
        if reading is not None and reading.quality is Quality.GOOD and reading.watts is not None:
            return circuit_id
    return None


def _meter_outcomes(facility: Facility, snapshot: Snapshot, lowered: Iterable[Claimant]) -> list[Outcome]:
    """Credit loads that say they draw less but measure no watts, batch by batch, where the circuit meter agrees.

    The meter agrees when what it shows above everything else is within three sigma of the circuit's background, or
    within a tenth of the smallest draw in the batch; and it is only asked when that smallest draw exceeds six
    sigma, so that not even one of them can still be drawing.
    """
    batches: dict[str, list[Claimant]] = {}
    for load, command, reading, point in lowered:
        circuit_id = metered_above(facility, snapshot, load)
        if circuit_id is not None:
            batches.setdefault(circuit_id, []).append((load, command, reading, point))
    outcomes: list[Outcome] = []
    for circuit_id, batch in batches.items():
        for load, _, reading, point in _proven(facility, snapshot, circuit_id, batch):
            entry, most = snapshot.ledger.entry(load.id), load.most_at(point)
            fell = "stopped" if point is load.lowest else "fell"
            detail = f"hashing {fell} and the meter of {circuit_id} agrees"
            claim = _outcome(snapshot, entry, OutcomeKind.APPLIED, reading, most, detail, Evidence.BOTH)
            outcomes.append(replace(claim, point=point.name))
    return outcomes


def _proven(facility: Facility, snapshot: Snapshot, circuit_id: str, batch: list[Claimant]) -> list[Claimant]:
    meter_id = facility.circuit_by_id[circuit_id].meter
    meter = snapshot.meters[meter_id] if meter_id is not None else None
    if meter is None or meter.watts is None or snapshot.at - meter.at > METER_FRESH_S:
        return []
    if any(command is not None and meter.at <= command.issued_at for _, command, _, _ in batch):
        return []
    for ground in grounds(facility, snapshot, circuit_id, meter.watts):
        part = [claimant for claimant in batch if claimant[0].id not in ground.aside]
        if part and _meter_agrees(facility, snapshot, circuit_id, meter.watts, ground, part):
            return part
    return []


def _meter_agrees(
    facility: Facility, snapshot: Snapshot, circuit_id: str, meter_watts: float, ground: Ground, part: list[Claimant]
) -> bool:
    apart = ground.aside | {load.id for load, _, _, _ in part}
    others = least_others(facility, snapshot, facility.loads_beneath[circuit_id], apart, ground.assumes)
    standby = sum(point.watts for _, _, _, point in part)
    smallest = min(load.next_above(point).watts - point.watts for load, _, _, point in part)
    excess = meter_watts - others - ground.mean_watts - standby
    noise = 3.0 * ground.sigma_watts
    if 2.0 * noise >= smallest or excess > max(noise, HIDDEN_FRACTION * smallest):
        return False
    # Where so many stop at once that what each drew beyond its point adds up, one of them could hide in that; and
    # where less is left than is known of, something fell that nobody asked, and may hide one as well.
    bias = min(ground.bias_watts, sum(load.tolerance * load.highest.watts for load, _, _, _ in part))
    # Both are parts of the same reading, so that together they are no more than the greater bound.
    return abs(excess) + max(bias, ground.left_watts) + noise <= HIDDEN_MOST * smallest


def _outcome(
    snapshot: Snapshot,
    entry: LedgerEntry,
    kind: OutcomeKind,
    reading: Telemetry | None,
    most_watts: float | None,
    detail: str,
    evidence: Evidence | None = None,
) -> Outcome:
    command = entry.command
    if evidence is None:
        evidence = Evidence.READBACK if kind in (OutcomeKind.APPLIED, OutcomeKind.CONVERGING) else Evidence.NONE
    return Outcome(
        command_id=command.id if command is not None and entry.pending else "",
        load_id=entry.load_id,
        at=snapshot.at,
        kind=kind,
        watts=reading.watts if reading is not None else None,
        most_watts=most_watts,
        evidence=evidence,
        acked=entry.receipt.acked if entry.receipt is not None and entry.pending else None,
        detail=detail,
    )


def within(watts: float | None, most_watts: float) -> bool:
    """Return whether a reading is no more than `most_watts`, or tells no watts at all."""
    return watts is None or watts <= slack(most_watts)
