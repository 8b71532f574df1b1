"""Where a miner stands against where it was put: what was verified, and what a reading says against it. Pure."""

from __future__ import annotations

import math

from mullet.domain.command import LedgerEntry, Verb
from mullet.domain.load import Load, OperatingPoint
from mullet.domain.telemetry import LoadState, Telemetry

RUNNING = frozenset({LoadState.ACTIVE, LoadState.STARTING})
READ_SLACK_FRACTION = 0.02
READ_SLACK_WATTS = 5.0
"""A reading this far above a point still counts as at it: the accuracy of device readings."""


UNPROVEN_AFTER_S = 8.0
"""Beyond the time in which a stop is normally proven: readings arrive within 3 s, and meters settle."""


def doubtful(entry: LedgerEntry | None, at: float, ramp_down_s: float, verify_margin: float) -> bool:
    """Return whether a stop was asked for and is not proven although its time has passed, or it failed before.

    A liar is one, and a miner without truthful watts while something that cannot be read shares its meter.
    """
    if entry is None or entry.command is None or entry.command.verb is not Verb.SLEEP:
        return False
    overdue = at > entry.command.issued_at + ramp_down_s * verify_margin + UNPROVEN_AFTER_S
    return entry.failures > 0 or (entry.pending and overdue)


def slack(watts: float) -> float:
    """Return the most that a device may read which draws at most `watts`."""
    return watts * (1.0 + READ_SLACK_FRACTION) + READ_SLACK_WATTS


def came_back(lowest: str, entry: LedgerEntry | None, reading: Telemetry | None) -> bool:
    """Return whether a miner runs although it was verified to sleep and nobody has asked it to wake since.

    A blip of its supply or a reboot does that. It belongs where it was put (`lowest`, its lowest point's name).
    """
    if entry is None or entry.confirmed_point != lowest or reading is None or reading.fault is not None:
        return False
    return reading.state in RUNNING and entry.stands == lowest


def named_point(load: Load, name: str | None) -> OperatingPoint | None:
    """Return the load's point of that name; None where it has none (a reload may have renamed it)."""
    return next((point for point in load.points if point.name == name), None)


def outruns(load: Load, point: OperatingPoint, reading: Telemetry) -> bool:
    """Return whether the reading shows the load above `point`, by its truthful watts, else by its hashrate."""
    watts = truthful_watts(load, reading)
    if watts is not None:
        return watts > slack(load.most_at(point))
    above = load.next_above(point)
    rate = reading.th_per_s
    return rate is not None and above is not point and rate > (point.th_per_s + above.th_per_s) / 2.0


def reaches(load: Load, point: OperatingPoint, reading: Telemetry) -> bool:
    """Return whether the reading shows the load nearer to `point`, or above it, than to the point below."""
    below = load.next_below(point)
    watts = truthful_watts(load, reading)
    if watts is not None:
        return watts >= (point.watts + below.watts) / 2.0
    return (reading.th_per_s or 0.0) >= (point.th_per_s + below.th_per_s) / 2.0


def running_point(load: Load, entry: LedgerEntry, reading: Telemetry) -> OperatingPoint | None:
    """Return the point at which a miner runs that is moved between several; None where nothing tells.

    What was verified since counts, unless the reading is above it; where a miner woke to, only its reading tells:
    firmware wakes at whatever was set last.
    """
    woken = entry.command is not None and entry.command.verb is Verb.WAKE
    point = named_point(load, entry.stands)
    if point is not None and point is not load.lowest and not woken and not outruns(load, point, reading):
        return point
    watts, limit = truthful_watts(load, reading), reading.limit_watts
    if watts is not None and math.isfinite(watts):
        near = min(load.points[1:], key=lambda candidate: abs(candidate.watts - watts))
        allowed = near.watts * (load.tolerance + READ_SLACK_FRACTION) + READ_SLACK_WATTS
        return near if abs(near.watts - watts) <= allowed else None
    if limit is not None and math.isfinite(limit):
        near = min(load.points[1:], key=lambda candidate: abs(candidate.asked_watts - limit))
        return near if abs(near.asked_watts - limit) <= slack(limit) - limit else None
    return None


def truthful_watts(load: Load, reading: Telemetry) -> float | None:
    """Return the watts that a load tells, None where it does not tell them truthfully."""
    return reading.watts if load.capability.measures_watts else None
