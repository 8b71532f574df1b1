"""One controllable consumer: what it can do, where it may stand, what it draws at most."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LoadKind(StrEnum):
    """The two kinds of load of a mullet data center."""

    MINER = "miner"
    GPU = "gpu"


class Steering(StrEnum):
    """How finely a driver can set a load's power."""

    CONTINUOUS = "continuous"
    STEPPED = "stepped"
    MODES = "modes"
    ON_OFF = "on_off"
    MONITOR = "monitor"


MOVES = frozenset({Steering.CONTINUOUS, Steering.STEPPED, Steering.MODES})
"""Steerings by which a running load is moved from one point to another."""


class LeaseHolder(StrEnum):
    """Who takes a load to its fail-safe point when the controller falls silent."""

    DEVICE = "device"
    AGENT = "agent"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Capability:
    """What a driver can really do with a load; a table of our own, never a library's flags."""

    steering: Steering
    measures_watts: bool
    """The load's own reading of its watts is truthful (a readback counts as evidence)."""
    enforces_limit: bool
    """The device itself keeps its draw under the limit it reports (a GPU does, a miner does not)."""
    ramp_down_s: float
    """95th percentile of the time from command to the new, lower draw."""
    ramp_up_s: float
    """95th percentile of the time from command to the new, higher draw, boot included."""
    lease: LeaseHolder = LeaseHolder.NONE
    interruptible: bool = True
    reboots_on_change: bool = False
    min_dwell_s: float = 0.0

    @property
    def fast(self) -> bool:
        """Whether the load sheds within 5 s (the fast class of the requirements)."""
        return self.ramp_down_s <= 5.0


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A place where a load may stand: nominal watts and what it produces there."""

    name: str
    watts: float
    th_per_s: float = 0.0
    tokens_per_s: float = 0.0
    setting_watts: float | None = None
    """What the device is asked for to stand there, where that is not what it was measured to draw."""

    @property
    def asked_watts(self) -> float:
        """What the device is asked for to stand there."""
        return self.watts if self.setting_watts is None else self.setting_watts


OFF = "off"
AIR, LIQUID = "air", "liquid"


@dataclass(frozen=True, slots=True)
class Load:
    """One controllable consumer. `id` is stable; the address is an attribute."""

    id: str
    kind: LoadKind
    bank: str
    driver: str
    address: str
    circuit: str
    account: str
    points: tuple[OperatingPoint, ...]
    """Ascending in watts; the first is where the load draws least."""
    fail_safe: str
    """Name of the point to which a lapsed lease takes the load."""
    worst_watts: float
    """The most the load can draw whatever it was told."""
    tolerance: float
    """Most draw at a point above its nominal watts, as a fraction."""
    capability: Capability
    service: str | None = None
    identity: str | None = None
    """MAC, serial or UUID that the device must answer with; None while not pinned."""
    agent: str | None = None
    """The edge agent that holds the load's lease and passes its commands on; None if driven directly."""
    cooling: str = AIR
    """How its heat leaves: which thermal gates it stands behind."""
    min_watts: float = 0.0
    """Signed lower end of the load's range (below zero for what can feed in)."""

    def point(self, name: str) -> OperatingPoint:
        """Return the operating point called `name`.

        Raises:
            KeyError: the load has no such point.
        """
        for candidate in self.points:
            if candidate.name == name:
                return candidate
        raise KeyError(f"load {self.id} has no operating point {name!r}")

    @property
    def lowest(self) -> OperatingPoint:
        """The point at which the load draws least."""
        return self.points[0]

    @property
    def highest(self) -> OperatingPoint:
        """The point at which the load draws most."""
        return self.points[-1]

    @property
    def steps_between(self) -> bool:
        """Whether this is a miner that is moved between several points at which it runs."""
        if self.kind is not LoadKind.MINER or self.capability.enforces_limit or len(self.points) <= 2:
            return False
        return self.capability.steering in MOVES

    def next_above(self, point: OperatingPoint) -> OperatingPoint:
        """Return the next point up, or the highest."""
        return next((candidate for candidate in self.points if candidate.watts > point.watts), self.highest)

    def next_below(self, point: OperatingPoint) -> OperatingPoint:
        """Return the next point down, or the lowest."""
        return next((candidate for candidate in reversed(self.points) if candidate.watts < point.watts), self.lowest)

    def most_at(self, point: OperatingPoint) -> float:
        """Return the most watts the load may draw while it stands at `point`.

        A device that enforces its limit draws no more than the limit; any other may exceed its
        nominal draw by its tolerance, but never its worst draw.
        """
        if self.capability.enforces_limit:
            return point.watts
        return min(self.worst_watts, point.watts * (1.0 + self.tolerance))

    def point_for_watts(self, watts: float) -> OperatingPoint:
        """Return the highest point whose nominal watts do not exceed `watts`, or the lowest."""
        best = self.points[0]
        for candidate in self.points:
            if candidate.watts <= watts + 1e-6:
                best = candidate
        return best
