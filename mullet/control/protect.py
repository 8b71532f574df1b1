"""Protection that needs no plan and no allocation: drop from the shed list what the meters say is too much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mullet.control.decide import Decision
from mullet.control.reconcile import SEND_DEADLINE_S
from mullet.domain.command import Command, CommandLedger, Verb
from mullet.domain.facility import Facility
from mullet.domain.feeds import Cause
from mullet.domain.telemetry import LoadState, Telemetry
from mullet.planning.shed import shed_list


def protective_commands(
    facility: Facility,
    last: Decision,
    telemetry: Mapping[str, Telemetry],
    ledger: CommandLedger,
    at: float,
) -> tuple[Command, ...]:
    """Return sleep commands for circuits whose last good count was above their limit."""
    order = shed_list(facility, last.snapshot, last.accounts)
    chosen: list[str] = []
    for circuit in reversed(facility.circuits):
        account = last.accounts[circuit.id]
        excess = max(account.sum_watts, account.measured_watts or 0.0) - account.limit_watts
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


def _asleep(reading: Telemetry | None) -> bool:
    return reading is not None and reading.state in (LoadState.ASLEEP, LoadState.STOPPING)
