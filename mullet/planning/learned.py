"""What was learnt of miners, and the facility as it is known by that instead of by nameplates. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType

from mullet.domain.facility import Facility
from mullet.domain.load import Load, LoadKind, OperatingPoint

ENOUGH_SAMPLES = 20
ENOUGH_LOADS = 3
"""Or all loads of the make, where its bank has fewer."""
PLAUSIBLE = (0.5, 1.5)
"""A running point whose median is outside this range of its nameplate is told, and not believed."""
LEAST_RAMP = 0.5
"""Of the capability's ramp: no shorter one is believed."""


@dataclass(frozen=True, slots=True)
class LearnedPoint:
    """An operating point as measured while loads stood there, nothing moving."""

    name: str
    nameplate_watts: float
    nameplate_th_per_s: float
    samples: int
    loads: int
    watts: float | None
    """Median; None where the loads do not measure, or nothing was seen."""
    watts_p95: float | None
    most_watts: float | None
    """Mean draw of the load that draws most."""
    rates: int
    """Samples of the hashrate."""
    th_per_s: float | None

    @property
    def joules_per_th(self) -> float | None:
        """Energy per TH as measured, by the medians."""
        return self.watts / self.th_per_s if self.watts is not None and self.th_per_s else None


@dataclass(frozen=True, slots=True)
class LearnedRamp:
    """Time from a command to the new draw, in seconds."""

    samples: int
    p50_s: float | None
    p95_s: float | None


@dataclass(frozen=True, slots=True)
class LearnedMake:
    """All that was learnt of one make in one bank; its first point is its standby."""

    bank: str
    make: str | None
    """None: of the loads whose make is not known."""
    points: tuple[LearnedPoint, ...]
    ramp_down: LearnedRamp
    ramp_up: LearnedRamp
    loads: int
    """Loads of this make in the bank now."""

    @property
    def title(self) -> str:
        """Bank and make, for people."""
        return self.bank if self.make is None else f"{self.bank} ({self.make})"


def by_name(make: str | None) -> tuple[bool, str]:
    """Return by what makes are sorted: those that are not known come last."""
    return make is None, make or ""


def with_learned(
    facility: Facility,
    learned: Iterable[LearnedMake],
    makes: Mapping[str, str] = MappingProxyType({}),
    kept: Collection[str] = (),
) -> tuple[Facility, dict[str, str]]:
    """Return the facility with measured watts, rates and ramps, and per bank and make what was taken over, or why not.

    `makes` tells the make of each load that is known; a load goes by what was learnt of its own make in its own bank,
    or by its nameplate. A point's watts are its median, or more where the cap sum asks for it: the most that a load
    counts at a point is never below the 95th percentile measured there, nor below the mean of the load that draws most.
    Banks in `kept` stay by nameplate.
    """
    found = {(each.bank, each.make): each for each in learned if each.bank not in kept}
    alike: dict[tuple[str, str | None], list[Load]] = {}
    for load in facility.of_kind(LoadKind.MINER):
        alike.setdefault((load.bank, makes.get(load.id)), []).append(load)
    changed: dict[str, Load] = {}
    notes: dict[str, str] = {}
    for key, members in alike.items():
        if key not in found:
            continue
        made, note = _learned(members[0], found[key], len(members))
        if note:
            notes[found[key].title] = note
        if made is None:
            continue
        for load in members:
            changed[load.id] = replace(
                load, points=made.points, worst_watts=made.worst_watts, capability=made.capability
            )
    if not changed:
        return facility, notes
    return replace(facility, loads=tuple(changed.get(load.id, load) for load in facility.loads)), notes


def _learned(load: Load, found: LearnedMake, members: int) -> tuple[Load | None, str]:
    """Return the load as measured, and a line that says what differs; None where nothing was taken over."""
    words: list[str] = []
    points: list[OperatingPoint] = []
    worst = load.worst_watts
    for point in load.points:
        seen = next((each for each in found.points if each.name == point.name), None)
        made = point
        if seen is not None and seen.loads >= min(ENOUGH_LOADS, members):
            watts, rate = _counted_watts(load, point, seen), _counted_rate(point, seen)
            for value, plate, unit in ((watts, point.watts, "W"), (rate, point.th_per_s, "TH/s")):
                if point is not load.lowest and not PLAUSIBLE[0] * plate <= value <= PLAUSIBLE[1] * plate:
                    odd = f"{point.name} measures {value:g} {unit}, its nameplate is {plate:g} {unit}"
                    return None, f"not taken over: {odd}"
            made = replace(point, watts=watts, th_per_s=rate, setting_watts=point.asked_watts)
            if watts != point.watts:
                worst = max(worst, watts, seen.watts_p95 or 0.0, seen.most_watts or 0.0)
            if made.watts != point.watts or made.th_per_s != point.th_per_s:
                words.append(f"{point.name} {point.watts:.0f} -> {watts:.0f} W, {point.th_per_s:g} -> {rate:g} TH/s")
        points.append(made)
    if any(high.watts <= low.watts or high.th_per_s < low.th_per_s for low, high in pairwise(points)):
        return None, "not taken over: its points as measured do not ascend"
    capability = load.capability
    down = _ramp_s(capability.ramp_down_s, found.ramp_down)
    up = _ramp_s(capability.ramp_up_s, found.ramp_up)
    if (down, up) != (capability.ramp_down_s, capability.ramp_up_s):
        words.append(f"ramps {capability.ramp_down_s:g}, {capability.ramp_up_s:g} -> {down:g}, {up:g} s")
        capability = replace(capability, ramp_down_s=down, ramp_up_s=up)
    if not words:
        return None, ""
    return replace(load, points=tuple(points), worst_watts=worst, capability=capability), "; ".join(words)


def _counted_rate(point: OperatingPoint, seen: LearnedPoint) -> float:
    known = seen.th_per_s is not None and seen.rates >= ENOUGH_SAMPLES and point.th_per_s > 0.0
    return round(seen.th_per_s or 0.0, 1) if known else point.th_per_s


def _counted_watts(load: Load, point: OperatingPoint, seen: LearnedPoint) -> float:
    """Return the nominal watts at which `Load.most_at` covers what was measured; by nameplate where too little was."""
    if seen.watts is None or seen.samples < ENOUGH_SAMPLES:
        return point.watts
    allowed = 1.0 + load.tolerance
    most = max(seen.watts_p95 or 0.0, seen.most_watts or 0.0)
    watts = max(seen.watts or 0.0, most / allowed)
    # Rounded, but never below.
    return float(-(-watts // 1))


def _ramp_s(known_s: float, found: LearnedRamp) -> float:
    if found.p95_s is None or found.samples < ENOUGH_SAMPLES:
        return known_s
    return round(max(found.p95_s, LEAST_RAMP * known_s), 1)
