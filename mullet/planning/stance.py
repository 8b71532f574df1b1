"""Where a miner stands against where it was put: what was verified, and what a reading says against it. Pure."""

from __future__ import annotations

from mullet.domain.command import LedgerEntry
from mullet.domain.telemetry import LoadState, Telemetry

RUNNING = frozenset({LoadState.ACTIVE, LoadState.STARTING})


def came_back(lowest: str, entry: LedgerEntry | None, reading: Telemetry | None) -> bool:
    """Return whether a miner runs although it was verified to sleep and nobody has asked it to wake since.

    A blip of its supply or a reboot does that. It belongs where it was put (`lowest`, its lowest point's name).
    """
    if entry is None or entry.confirmed_point != lowest or reading is None or reading.fault is not None:
        return False
    return reading.state in RUNNING and entry.stands == lowest
