"""What a meter shows above its limit now goes fast loads first, whatever the merit order would drop. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mullet.domain.command import CommandLedger, LedgerEntry
from mullet.domain.facility import Facility
from mullet.domain.feeds import Cause
from mullet.domain.load import Load
from mullet.domain.plan import Desired, Setpoint
from mullet.domain.snapshot import Snapshot
from mullet.domain.units import format_watts
from mullet.planning.accounting import CircuitAccount
from mullet.planning.shed import ShedList, shed_list
from mullet.planning.stance import named_point


def relieve(
    facility: Facility, snapshot: Snapshot, accounts: Mapping[str, CircuitAccount], desired: Desired
) -> Desired:
    """Return `desired` with fast loads off beneath every circuit that draws more than it may.

    Slow loads that the merit order dropped take longer than a breaker waits (R2); fast ones that are on their way
    down already count against the excess.
    """
    setpoints: dict[str, Setpoint] = dict(desired.setpoints)
    order: ShedList | None = None
    for circuit in facility.circuits:
        account = accounts[circuit.id]
        measured = account.measured_watts
        if measured is None or measured <= account.limit_watts * (1.0 + circuit.meter_error):
            continue
        order = order or shed_list(facility, snapshot, accounts)
        why = f"{circuit.id} draws {format_watts(measured)} of {format_watts(account.limit_watts)}: fast loads go first"
        _drop_fast(facility, snapshot.ledger, order, circuit.id, measured - account.limit_watts, why, setpoints)
    return replace(desired, setpoints=setpoints)


def _drop_fast(
    facility: Facility,
    ledger: CommandLedger,
    order: ShedList,
    circuit_id: str,
    excess: float,
    why: str,
    setpoints: dict[str, Setpoint],
) -> None:
    freed = 0.0
    for load_id in order.queues[circuit_id].load_ids:
        load, setpoint = facility.load_by_id[load_id], setpoints.get(load_id)
        if freed >= excess or not load.capability.fast:
            return
        if setpoint is None or load.capability.enforces_limit:
            continue
        if setpoint.point != load.lowest.name:
            lowest = load.lowest
            setpoints[load_id] = Setpoint(
                load_id, lowest.name, lowest.watts, Cause.PROTECTION, f"{lowest.name}: {why}", circuit_id
            )
        freed += _drawn_watts(load, ledger.entry(load_id)) - load.lowest.watts


def _drawn_watts(load: Load, entry: LedgerEntry) -> float:
    point = named_point(load, entry.confirmed_point) if load.steps_between else None
    return load.highest.watts if point is None or point is load.lowest else point.watts
