"""Temperature and flow: when a miner may not be woken, and when one that runs must stop. Pure."""

from __future__ import annotations

from mullet.domain.facility import Facility, ThermalGate
from mullet.domain.load import Load, LoadKind
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import LoadState

RESTING = frozenset({LoadState.ASLEEP, LoadState.STOPPING})


def why_not_wake(facility: Facility, snapshot: Snapshot, load: Load) -> str | None:
    """Return why the load may not be woken: a sensor tells so, or is silent; None if it may."""
    if load.kind is not LoadKind.MINER:
        return None
    for gate in facility.gates:
        if gate.cooling == load.cooling and (reason := closed(gate, snapshot)) is not None:
            return reason
    return None


def waits(facility: Facility, snapshot: Snapshot, load: Load) -> bool:
    """Return whether the load sleeps and may not be woken: then it is not to be planned with either."""
    if not facility.gates:
        return False
    reading = snapshot.telemetry.get(load.id)
    resting = reading is not None and reading.state in RESTING
    return resting and why_not_wake(facility, snapshot, load) is not None


def why_stop(facility: Facility, snapshot: Snapshot, load: Load) -> str | None:
    """Return why the load must stop now: a flow that is known to be lost; None where nothing says so."""
    if load.kind is not LoadKind.MINER:
        return None
    for gate in facility.gates:
        if gate.stops and gate.cooling == load.cooling and (reason := _outside(gate, snapshot)) is not None:
            return reason
    return None


def closed(gate: ThermalGate, snapshot: Snapshot) -> str | None:
    """Return why nothing may be woken through the gate, None where it may."""
    reading = snapshot.sensors.get(gate.sensor)
    if reading is None:
        return f"{gate.sensor} was never read"
    age_s = reading.age_s(snapshot.at)
    if age_s > gate.max_age_s:
        return f"{gate.sensor} is silent for {age_s:.0f} s"
    return _outside(gate, snapshot)


def _outside(gate: ThermalGate, snapshot: Snapshot) -> str | None:
    reading = snapshot.sensors.get(gate.sensor)
    if reading is None or reading.age_s(snapshot.at) > gate.max_age_s:
        return None
    value = reading.value
    if gate.least is not None and value < gate.least:
        return f"{gate.sensor} {value:g} {gate.unit} is below {gate.least:g} {gate.unit}"
    if gate.most is not None and value > gate.most:
        return f"{gate.sensor} {value:g} {gate.unit} is above {gate.most:g} {gate.unit}"
    return None
