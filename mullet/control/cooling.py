"""Stops what has lost its coolant flow, and says which gates keep miners asleep. Pure."""

from __future__ import annotations

from dataclasses import replace

from mullet.domain.facility import Facility
from mullet.domain.feeds import Cause
from mullet.domain.plan import Desired, Setpoint
from mullet.domain.snapshot import Snapshot
from mullet.planning.thermal import closed, why_stop


def stop_without_flow(facility: Facility, snapshot: Snapshot, desired: Desired) -> Desired:
    """Return `desired` with every miner off whose loop has lost its flow; no dwell and no ramp waits for that."""
    if not any(gate.stops for gate in facility.gates):
        return desired
    stopped = {}
    for load_id, setpoint in desired.setpoints.items():
        load = facility.load_by_id[load_id]
        reason = why_stop(facility, snapshot, load)
        if reason is not None and setpoint.point != load.lowest.name:
            rule = f"{load.lowest.name}: {reason}"
            stopped[load_id] = Setpoint(load_id, load.lowest.name, load.lowest.watts, Cause.PROTECTION, rule)
    return replace(desired, setpoints={**desired.setpoints, **stopped}) if stopped else desired


def cooling_alarms(facility: Facility, snapshot: Snapshot) -> dict[str, str | None]:
    """Return one alarm per sensor, None where its gate is open."""
    found: dict[str, str | None] = {}
    for gate in facility.gates:
        reason = closed(gate, snapshot)
        what = f"no {gate.cooling}-cooled miner is woken"
        found[f"cooling/{gate.sensor}"] = None if reason is None else f"{reason}: {what}"
    return found
