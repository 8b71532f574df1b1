"""What a load is believed to draw by what it tells, and whether that can be relied on. Pure."""

from __future__ import annotations

from mullet.domain.command import Command, LedgerEntry, Verb
from mullet.domain.load import Load
from mullet.domain.telemetry import LoadState, Telemetry
from mullet.planning.stance import RUNNING, named_point, outruns

FULL_RATE_FRACTION = 0.97
"""A load that hashes at this share of its nominal rate draws what it draws at full."""


def observed_draw(load: Load, reading: Telemetry | None, entry: LedgerEntry) -> float:
    """Return what the load is believed to draw: its own truthful watts, else nominal watts by its state."""
    if reading is not None and reading.watts is not None and load.capability.measures_watts:
        return reading.watts
    if reading is not None and reading.fault is None and reading.state is not None:
        if reading.state not in RUNNING:
            return load.lowest.watts
        point = named_point(load, entry.stands) if load.steps_between else None
        known = point is not None and point is not load.lowest and not outruns(load, point, reading)
        return point.watts if known and point is not None else load.highest.watts
    if entry.confirmed_point:
        return load.point(entry.confirmed_point).watts
    return load.highest.watts


def is_assumed(load: Load, reading: Telemetry) -> bool:
    """Return whether the load runs and measures nothing, so that its point is all that tells what it draws."""
    return not load.capability.measures_watts and not load.capability.enforces_limit and reading.state in RUNNING


def unproven(load: Load, entry: LedgerEntry, reading: Telemetry) -> bool:
    """Return whether nothing but its own word says that a load which measures no watts draws less than at full."""
    if load.capability.measures_watts or load.capability.enforces_limit or reading.state in RUNNING:
        return False
    return reading.state is not None and entry.stands != load.lowest.name


def ramp_s(load: Load, command: Command) -> float:
    """Return the time that the load has for the change; one that reboots for a new point also boots in it."""
    capability = load.capability
    if command.verb is Verb.POWER and capability.reboots_on_change:
        return max(capability.ramp_up_s, capability.ramp_down_s)
    return capability.ramp_up_s if command.raises else capability.ramp_down_s


def unsettled(at: float, load: Load, entry: LedgerEntry, reading: Telemetry | None) -> bool:
    """Return whether the load is on its way, so that what it draws now is not known from its reading."""
    if reading is not None and reading.state in (LoadState.STARTING, LoadState.STOPPING):
        return True
    command = entry.command
    if command is None:
        return False
    if command.raises and not load.capability.measures_watts:
        # It may hash before it draws all that it will.
        rate = reading.th_per_s if reading is not None else None
        point = named_point(load, command.point) or load.highest
        full = rate is not None and rate >= FULL_RATE_FRACTION * point.th_per_s
        if not full and at < command.issued_at + load.capability.ramp_up_s:
            return True
    return entry.pending and not _overdue(at, load, command, reading)


def _overdue(at: float, load: Load, command: Command, reading: Telemetry | None) -> bool:
    """Return whether a load hashes on that should long draw less."""
    if command.raises or reading is None or reading.state is not LoadState.ACTIVE:
        return False
    if command.verb is Verb.SLEEP:
        return at > command.issued_at + load.capability.ramp_down_s
    point = named_point(load, command.point)
    if not load.steps_between or point is None:
        return False
    return at > command.issued_at + ramp_s(load, command) and outruns(load, point, reading)
