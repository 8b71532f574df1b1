"""What a circuit's meter shows beside the loads that tell what they draw; against it, it proves that loads stopped.

A load that cannot be read, or that measures nothing and sleeps by its own word alone, draws what it draws like
everything else that nobody manages. While nothing is asked of it, it is a part of the background, from the moment at
which the background was learnt with it; it proves nothing for itself by that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mullet.control.draw import is_assumed, observed_draw, unproven, unsettled
from mullet.domain.command import LedgerEntry
from mullet.domain.facility import Facility
from mullet.domain.load import Load
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import Background, MeterReading, Telemetry
from mullet.planning.accounting import silent_after_s

WEIGHT = 0.1
"""Of the newest sample, once there are enough."""
SAME_FRACTION = 0.02
"""Loads at work that differ by less are the same ones."""
QUIET_S = 2.0
"""Nothing beneath was asked or moved for this long before a sample counts: meters lag behind."""
SAMPLES_WITH_SILENT = 20
"""Before silent loads count as a part of it: one may have been on its way off when it fell silent."""


SILENT, ASLEEP = "silent", "asleep"


def moved(mean: float, sigma: float, samples: int, latest: float) -> tuple[float, float]:
    """Return mean and spread after one more sample: of all while there are few, then weighted to the latest."""
    weight = max(WEIGHT, 1.0 / (samples + 1))
    return mean + weight * (latest - mean), math.sqrt((1.0 - weight) * (sigma**2 + weight * (latest - mean) ** 2))


def is_unread(reading: Telemetry | None, at: float, silent_s: float) -> bool:
    """Return whether nothing is known of what the load does now."""
    return reading is None or reading.fault is not None or at - reading.at > silent_s


@dataclass(frozen=True, slots=True)
class Seen:
    """One load as far as a meter above it is concerned."""

    watts: float
    """What it draws as it last stood."""
    moving: bool
    """Whether `watts` is not to be relied on yet."""
    told_watts: float
    """What it draws by what it tells now."""
    assumed_watts: float
    """How much of that goes by its point, because it measures nothing."""
    aside: tuple[str, str] | None
    """Why what it tells is not counted; None where it is."""
    asked: bool
    """Whether it was asked for something that is not settled, or is on its way."""


def see(
    load: Load, entry: LedgerEntry, latest: Telemetry | None, last_good: Telemetry | None, at: float, silent_s: float
) -> Seen:
    """Return what there is to know of one load at `at`."""
    watts = observed_draw(load, last_good, entry)
    moving = last_good is None or entry.pending or unsettled(at, load, entry, last_good)
    aside = _aside(load, entry, latest, at, silent_s)
    if aside is not None or latest is None:
        on_its_way = aside is not None and aside[1].startswith(ASLEEP) and unsettled(at, load, entry, latest)
        return Seen(watts, moving, 0.0, 0.0, aside, entry.pending or on_its_way)
    told = watts if latest is last_good else observed_draw(load, latest, entry)
    asked = moving if latest is last_good else entry.pending or unsettled(at, load, entry, latest)
    return Seen(watts, moving, told, told if is_assumed(load, latest) else 0.0, None, asked)


@dataclass(slots=True)
class Beneath:
    """All loads beneath a circuit at one moment."""

    at: float
    watts: float = 0.0
    moving: bool = False
    told_watts: float = 0.0
    assumed_watts: float = 0.0
    aside: list[tuple[str, str]] = field(default_factory=list)
    asked: bool = False

    def add(self, seen: Seen) -> None:
        """Take in one load."""
        self.watts += seen.watts
        self.moving = self.moving or seen.moving
        self.told_watts += seen.told_watts
        self.assumed_watts += seen.assumed_watts
        self.asked = self.asked or seen.asked
        if seen.aside is not None:
            self.aside.append(seen.aside)


class Backgrounds:
    """Learns the background of each circuit while nothing beneath it moves."""

    def __init__(self) -> None:
        self._moved_at: dict[str, float] = {}

    def next(
        self, circuit_id: str, known: Background | None, meter: MeterReading, beneath: Beneath, first_sigma: float
    ) -> Background | None:
        """Return the background after one more good meter reading."""
        if meter.watts is None or beneath.asked:
            self._moved_at[circuit_id] = beneath.at
            return known
        if beneath.at - self._moved_at.get(circuit_id, -math.inf) < QUIET_S:
            return known
        aside, latest = tuple(sorted(beneath.aside)), meter.watts - beneath.told_watts
        if known is None or known.aside != aside:
            mean, sigma, samples = latest, max(first_sigma, 1.0), 1
        else:
            mean, sigma = moved(known.mean_watts, known.sigma_watts, known.samples, latest)
            samples = known.samples + 1
        silent = any(why.startswith(SILENT) for _, why in aside)
        assumed, bias = _biased(known, beneath.assumed_watts, max(0.0, mean + sigma), silent)
        return Background(mean, sigma, samples, aside, assumed, bias)


def _biased(known: Background | None, assumed_watts: float, most_watts: float, silent: bool) -> tuple[float, float]:
    """Return what is assumed and how far it may be too little.

    What is seen beside the loads is what nobody manages, never negative, and what they draw above their points. So it
    bounds that, however much of it is the other; with more of them at work it is bounded anew. Only while a silent
    load adds its draw does an earlier bound stand: it is of another hour, and miners draw more as they get warm.
    """
    if known is None or assumed_watts > known.assumed_watts * (1.0 + SAME_FRACTION):
        return assumed_watts, most_watts if assumed_watts > 0.0 else 0.0
    if assumed_watts < known.assumed_watts * (1.0 - SAME_FRACTION):
        return known.assumed_watts, known.bias_watts
    return known.assumed_watts, min(known.bias_watts, most_watts) if silent else most_watts


@dataclass(frozen=True, slots=True)
class Ground:
    """What a meter may be held against."""

    mean_watts: float
    sigma_watts: float
    aside: frozenset[str]
    """Loads that are a part of it, of which it therefore proves nothing."""
    bias_watts: float
    """What the claimants may have drawn beyond their points as it was learnt, so that so much more may hide."""
    left_watts: float
    """What may still be in it of loads that are no part of it any more."""
    assumes: bool
    """Whether loads that measure nothing count by their points, as they did when it was learnt."""


def grounds(facility: Facility, snapshot: Snapshot, circuit_id: str, meter_watts: float) -> Iterator[Ground]:
    """Yield what the meter of a circuit may be held against now, the most telling first.

    That there is nothing beside the loads can always be held against it: whatever there is can only keep the meter
    from agreeing. What was learnt can, as long as every load in it is as it was then.
    """
    circuit, residual = facility.circuit_by_id[circuit_id], snapshot.residuals.get(circuit_id)
    yield Ground(0.0, max(1.0, circuit.meter_error * abs(meter_watts) / 3.0), frozenset(), 0.0, 0.0, False)
    known = residual.background if residual is not None else None
    learnt = _learnt(facility, snapshot, known) if known is not None else None
    if learnt is not None:
        yield learnt


def _learnt(facility: Facility, snapshot: Snapshot, known: Background) -> Ground | None:
    """Return the ground that was learnt, None where it does not hold now.

    A silent load that can be read again, or was asked for something, takes it with it. One that slept by its own word
    and does so no longer leaves behind what it drew then, which is at most all that was seen.
    """
    silent_s, aside, left = silent_after_s(facility), set(), False
    silent = any(why.startswith(SILENT) for _, why in known.aside)
    if known.samples < (SAMPLES_WITH_SILENT if silent else 1):
        return None
    for load_id, why in known.aside:
        load = facility.load_by_id.get(load_id)
        if load is None:
            return None
        entry, reading = snapshot.ledger.entry(load_id), snapshot.telemetry.get(load_id)
        if not entry.pending and _aside(load, entry, reading, snapshot.at, silent_s) == (load_id, why):
            aside.add(load_id)
        elif why.startswith(SILENT):
            return None
        else:
            left = True
    left_watts = max(0.0, known.mean_watts) + known.sigma_watts if left else 0.0
    return Ground(known.mean_watts, known.sigma_watts, frozenset(aside), known.bias_watts, left_watts, True)


def _aside(
    load: Load, entry: LedgerEntry, reading: Telemetry | None, at: float, silent_s: float
) -> tuple[str, str] | None:
    """Return why what the load tells is not counted, with the latest command to it: after another it is another."""
    command_id = entry.command.id if entry.command is not None else ""
    if reading is None or is_unread(reading, at, silent_s):
        return load.id, f"{SILENT} {command_id}"
    return (load.id, f"{ASLEEP} {command_id}") if unproven(load, entry, reading) else None


def least_others(
    facility: Facility, snapshot: Snapshot, loads: Iterable[Load], aside: frozenset[str], assumes: bool
) -> float:
    """Return the least that all loads draw but those `aside`, by points where `assumes` and nothing is measured.

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
        unknown = moving or (not assumes and reading is not None and is_assumed(load, reading))
        total += load.lowest.watts if unknown else observed_draw(load, reading, entry)
    return total
