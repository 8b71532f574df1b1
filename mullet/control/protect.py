"""Protection that needs no plan and no allocation: drop from the shed list what the meters say is too much."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from mullet.control.decide import Decision
from mullet.control.reconcile import SEND_DEADLINE_S
from mullet.domain.command import Command, CommandLedger, Verb
from mullet.domain.facility import Facility
from mullet.domain.feeds import Cause
from mullet.domain.telemetry import LoadState, MeterReading, Quality, Telemetry
from mullet.planning.shed import ShedList, shed_list


def protective_commands(
    facility: Facility,
    last: Decision,
    telemetry: Mapping[str, Telemetry],
    meters: Mapping[str, MeterReading],
    ledger: CommandLedger,
    at: float,
) -> tuple[Command, ...]:
    """Return sleep commands for circuits whose last good count, or whose meter now, is above their limit."""
    order = shed_list(facility, last.snapshot, last.accounts)
    chosen: list[str] = []
    for circuit in reversed(facility.circuits):
        account = last.accounts[circuit.id]
        excess = max(account.sum_watts, account.measured_watts or 0.0) - account.limit_watts
        measured = _measured_watts(meters.get(circuit.meter) if circuit.meter is not None else None)
        if measured is not None and measured > account.limit_watts:
            # What sleeps by now is in the list as it was; the meter no longer shows it.
            excess = max(excess, measured - account.limit_watts + _gone_watts(order, circuit.id, telemetry))
        if excess > 0.0:
            chosen.extend(load_id for load_id in order.query(circuit.id, excess) if load_id not in chosen)
    awake = [load_id for load_id in chosen if not _asleep(telemetry.get(load_id)) and not ledger.entry(load_id).pending]
    return sleep_commands(facility, awake, ledger, at, Cause.PROTECTION)


def sleep_commands(
    facility: Facility, load_ids: Iterable[str], ledger: CommandLedger, at: float, cause: Cause
) -> tuple[Command, ...]:
    """Return one sleep command per load."""
    commands = []
    for number, load_id in enumerate(load_ids, start=ledger.next_seq):
        load = facility.load_by_id[load_id]
        commands.append(
            Command(
                id=f"{ledger.epoch}-{number}",
                seq=number,
                epoch=ledger.epoch,
                load_id=load_id,
                verb=Verb.SLEEP,
                point=load.lowest.name,
                watts=load.lowest.watts,
                most_before_watts=load.worst_watts,
                most_after_watts=load.most_at(load.lowest),
                cause=cause,
                plan_id="",
                policy_hash=facility.policy_hash,
                issued_at=at,
                not_after=at + SEND_DEADLINE_S,
                lease_s=facility.pacing.lease_s,
            )
        )
    return tuple(commands)


def _measured_watts(reading: MeterReading | None) -> float | None:
    return reading.watts if reading is not None and reading.quality is Quality.GOOD else None


def _gone_watts(order: ShedList, circuit: str, telemetry: Mapping[str, Telemetry]) -> float:
    queue = order.queues[circuit]
    freed = [after - before for before, after in itertools.pairwise((0.0, *queue.freed_watts))]
    return sum(watts for load_id, watts in zip(queue.load_ids, freed, strict=True) if _asleep(telemetry.get(load_id)))


def _asleep(reading: Telemetry | None) -> bool:
    return reading is not None and reading.state in (LoadState.ASLEEP, LoadState.STOPPING)
