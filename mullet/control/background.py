"""What a circuit's meter shows beside the loads that tell what they draw; against it, it proves that loads stopped.

A load that cannot be read, and that nothing is asked of, draws what it draws like everything else that nobody manages.
So it is a part of the background, from the moment at which the background was learnt with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from mullet.control.draw import observed_draw, unproven, unsettled
from mullet.domain.command import LedgerEntry
from mullet.domain.facility import Facility
from mullet.domain.load import Load
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import Background, MeterReading, Telemetry
from mullet.planning.accounting import silent_after_s

WEIGHT = 0.1
"""Of the newest sample, once there are enough."""
QUIET_S = 2.0
"""Nothing beneath was asked or moved for this long before a sample counts: meters lag behind."""
SAMPLES_WITH_UNREAD = 20
"""Before loads that cannot be read count as a part of it: one may have been on its way off when it fell silent."""


def is_unread(reading: Telemetry | None, at: float, silent_s: float) -> bool:
    """Return whether nothing is known of what the load does now."""
    return reading is None or reading.fault is not None or at - reading.at > silent_s


@dataclass(frozen=True, slots=True)
class Seen:
    """One load as far as a meter above it is concerned."""

    watts: float
    """What it draws as it last stood."""
    moving: bool
    told_watts: float | None
    """What it draws by what it tells now; None where it cannot be read."""
    unsure: bool
    """Whether its draw is not known although it can be read, or something is asked of it."""
    asked: tuple[str, str]


def see(
    load: Load, entry: LedgerEntry, latest: Telemetry | None, last_good: Telemetry | None, at: float, silent_s: float
) -> Seen:
    """Return what there is to know of one load at `at`."""
    watts = observed_draw(load, last_good, entry)
    moving = last_good is None or entry.pending or unsettled(at, load, entry, last_good)
    if latest is None or is_unread(latest, at, silent_s):
        return Seen(watts, moving, None, entry.pending, _asked(load, entry))
    if latest is last_good:
        return Seen(watts, moving, watts, moving or unproven(load, entry, latest), ("", ""))
    told_watts, unsure = observed_draw(load, latest, entry), entry.pending or unsettled(at, load, entry, latest)
    return Seen(watts, moving, told_watts, unsure or unproven(load, entry, latest), ("", ""))


@dataclass(slots=True)
class Beneath:
    """All loads beneath a circuit at one moment."""

    at: float
    watts: float = 0.0
    moving: bool = False
    told_watts: float = 0.0
    unread: list[tuple[str, str]] = field(default_factory=list)
    unsure: bool = False

    def add(self, seen: Seen) -> None:
        """Take in one load."""
        self.watts += seen.watts
        self.moving = self.moving or seen.moving
        self.unsure = self.unsure or seen.unsure
        if seen.told_watts is None:
            self.unread.append(seen.asked)
        else:
            self.told_watts += seen.told_watts


class Backgrounds:
    """Learns the background of each circuit while nothing beneath it moves or is unproven."""

    def __init__(self) -> None:
        self._quiet_since: dict[str, float] = {}

    def next(
        self, circuit_id: str, known: Background | None, meter: MeterReading, beneath: Beneath, first_sigma: float
    ) -> Background | None:
        """Return the background after one more good meter reading."""
        if meter.watts is None or beneath.unsure:
            self._quiet_since.pop(circuit_id, None)
            return known
        unread = tuple(sorted(beneath.unread))
        quiet_since = self._quiet_since.setdefault(circuit_id, beneath.at)
        if known is not None and beneath.at - quiet_since < QUIET_S:
            return known
        latest = meter.watts - beneath.told_watts
        if known is None or known.unread != unread:
            return Background(latest, max(first_sigma, 1.0), 1, unread)
        weight = max(WEIGHT, 1.0 / (known.samples + 1))
        mean = known.mean_watts + weight * (latest - known.mean_watts)
        variance = (1.0 - weight) * (known.sigma_watts**2 + weight * (latest - known.mean_watts) ** 2)
        return replace(known, mean_watts=mean, sigma_watts=math.sqrt(variance), samples=known.samples + 1)


def background_of(
    facility: Facility, snapshot: Snapshot, circuit_id: str, meter_watts: float
) -> tuple[float, float, frozenset[str]]:
    """Return mean and sigma of a circuit's background in watts, and the loads that are a part of it.

    Where what was learnt does not hold now (a load can be read again, or was asked for something since), it is taken
    to be nothing: whatever draws there besides can only keep the meter from agreeing.
    """
    circuit, residual = facility.circuit_by_id[circuit_id], snapshot.residuals.get(circuit_id)
    known = residual.background if residual is not None else None
    if known is not None and _holds(facility, snapshot, known):
        return known.mean_watts, known.sigma_watts, frozenset(load_id for load_id, _ in known.unread)
    return 0.0, max(1.0, circuit.meter_error * abs(meter_watts) / 3.0), frozenset()


def _holds(facility: Facility, snapshot: Snapshot, known: Background) -> bool:
    if known.samples < (SAMPLES_WITH_UNREAD if known.unread else 1):
        return False
    silent_s = silent_after_s(facility)
    for load_id, command_id in known.unread:
        load = facility.load_by_id.get(load_id)
        if load is None or not is_unread(snapshot.telemetry.get(load_id), snapshot.at, silent_s):
            return False
        if _asked(load, snapshot.ledger.entry(load_id)) != (load_id, command_id):
            return False
    return True


def least_others(facility: Facility, snapshot: Snapshot, loads: Iterable[Load], aside: frozenset[str]) -> float:
    """Return the least that all loads draw but those `aside`.

    One that cannot be read counts as nothing, and one on its way at its lowest point: what it no longer draws must
    not hide a liar. One that should long have stopped and still hashes is no longer on its way.
    """
    total, silent_s = 0.0, silent_after_s(facility)
    for load in loads:
        if load.id in aside:
            continue
        entry, reading = snapshot.ledger.entry(load.id), snapshot.telemetry.get(load.id)
        if is_unread(reading, snapshot.at, silent_s):
            continue
        moving = unsettled(snapshot.at, load, entry, reading)
        total += load.lowest.watts if moving else observed_draw(load, reading, entry)
    return total


def _asked(load: Load, entry: LedgerEntry) -> tuple[str, str]:
    return load.id, entry.command.id if entry.command is not None else ""
