"""What a simulated miner's fans do: they follow the boards' temperature, which follows what the miner draws."""

from __future__ import annotations

from mullet_simulators.miners.physics import AMBIENT_C, RISE_C, Readings

REST_RPM = 2400
FULL_RPM = 5400
STEP_RPM = 30
"""Two pulses a revolution, counted for a second."""


def fan_rpm(said: Readings, least_rpm: int = 0) -> int:
    """Revolutions per minute of each fan; `least_rpm` while it does not mine."""
    if not said.mining:
        return least_rpm
    share = min(1.2, max(0.0, (said.board_c - AMBIENT_C) / RISE_C))
    return round((REST_RPM + (FULL_RPM - REST_RPM) * share) / STEP_RPM) * STEP_RPM
