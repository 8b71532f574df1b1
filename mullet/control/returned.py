"""Miners that woke by themselves (a blip of the supply, a reboot): put back where they belong, or taken on as they run.

Pure. What puts one back restores a setpoint that stands, so it is no economic stop; what takes one on is a claim that
rests on its reading.
"""

from __future__ import annotations

from dataclasses import replace

from mullet.control.verify import within
from mullet.domain.command import Evidence, Outcome, OutcomeKind
from mullet.domain.facility import Facility
from mullet.domain.plan import Desired
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import LoadState
from mullet.planning.stance import came_back


def returned(facility: Facility, snapshot: Snapshot) -> tuple[str, ...]:
    """Return the loads that run although they were put to sleep, in the facility's order."""
    entries = snapshot.ledger.entries
    return tuple(
        load.id
        for load in facility.loads
        if came_back(load.lowest.name, entries.get(load.id), snapshot.telemetry.get(load.id))
    )


def tell(facility: Facility, load_ids: tuple[str, ...], desired: Desired) -> Desired:
    """Return `desired` with the reason said for each load that is put back."""
    found = {}
    for load_id in load_ids:
        setpoint = desired.setpoints.get(load_id)
        if setpoint is not None and setpoint.point == facility.load_by_id[load_id].lowest.name:
            found[load_id] = replace(setpoint, rule=f"{setpoint.rule}; it woke by itself and is put back")
    return replace(desired, setpoints={**desired.setpoints, **found}) if found else desired


def take_on(facility: Facility, snapshot: Snapshot, load_ids: tuple[str, ...], desired: Desired) -> tuple[Outcome, ...]:
    """Return a claim for each returned load that shall run and does: it stands at its highest point from now on.

    Without it, a stop for money later would pass for putting back what nobody had wanted back.
    """
    outcomes = []
    for load_id in load_ids:
        load, reading = facility.load_by_id[load_id], snapshot.telemetry[load_id]
        setpoint = desired.setpoints.get(load_id)
        if setpoint is None or setpoint.point == load.lowest.name:
            continue
        most = load.most_at(load.highest)
        hashes = reading.state is LoadState.ACTIVE and (reading.th_per_s or 0.0) > 0.0
        if not hashes or not within(reading.watts, most):
            continue
        outcomes.append(
            Outcome(
                command_id="",
                load_id=load_id,
                at=snapshot.at,
                kind=OutcomeKind.APPLIED,
                watts=reading.watts,
                most_watts=most,
                evidence=Evidence.READBACK,
                acked=None,
                detail="woke by itself and shall run",
                point=load.highest.name,
            )
        )
    return tuple(outcomes)
