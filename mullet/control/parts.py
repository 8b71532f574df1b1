"""What the loop is given by the composition root: the facility and everything that reaches the world."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mullet.domain.facility import Facility, Mode
from mullet.domain.snapshot import OperatorState
from mullet.planning.learning import Learner
from mullet.ports import Ailing, Clock, Driver, Feed, Historian, Journal, Link, Meter, Planner, Switch


class FeedKind(StrEnum):
    """What a feed tells."""

    PRICE = "price"
    LIMITS = "limits"
    HASHPRICE = "hashprice"
    DEMAND = "demand"
    SENSOR = "sensor"


@dataclass(frozen=True, slots=True)
class FeedPart:
    """One feed, how often it is read, and how long it may take."""

    name: str
    kind: FeedKind
    feed: Feed
    period_s: float
    max_age_s: float
    """Without a good value for this long, an alarm says so and the safety table's action is due."""
    deadline_s: float = 2.0
    service: str | None = None
    """Of a demand feed: the service. Of a sensor: which one."""


@dataclass(frozen=True)
class Plant:
    """The facility and everything that speaks to its devices; replaced as a whole by a reload."""

    facility: Facility
    drivers: Mapping[str, Driver]
    periods_s: Mapping[str, float]
    """Poll period by bank."""
    meters: Mapping[str, Meter] = field(default_factory=dict)
    meter_period_s: float = 1.0
    switches: Mapping[str, Switch] = field(default_factory=dict)
    feeds: tuple[FeedPart, ...] = ()
    barred: Mapping[str, str] = field(default_factory=dict)
    """Loads that their driver would refuse to write to, and why: for want of a password, say."""
    nameplate: Facility | None = None
    """The facility as the policy has it, where `facility` is as it was learnt to be."""
    close: Callable[[], Awaitable[None]] | None = None
    """Ends the drivers, meters, switches and feeds of this plant."""

    def ailments(self) -> dict[str, str]:
        """Return by load what its driver says is amiss with it; of what an agent drives the agent's log tells."""
        found: dict[str, str] = {}
        for driver in self.drivers.values():
            if isinstance(driver, Ailing):
                found.update(driver.ailments())
        return found


class DriversNow(Mapping[str, Driver]):
    """The drivers of whichever plant is running now."""

    def __init__(self, plant: Callable[[], Plant]) -> None:
        self._plant = plant

    def __getitem__(self, name: str) -> Driver:
        return self._plant().drivers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._plant().drivers)

    def __len__(self) -> int:
        return len(self._plant().drivers)


@dataclass(frozen=True)
class Parts:
    """All that the controller is handed."""

    plant: Plant
    clock: Clock
    planner: Planner
    journal: Journal
    historian: Historian | None
    link: Link | None
    operator: OperatorState
    save_operator: Callable[[OperatorState], None]
    """Persists the operator's state before it takes effect. Raises MulletError where it cannot be kept."""
    ceiling: Mode
    """The most that the command line allows."""
    beat: Callable[[str], None]
    """Called after every finished tick with a one-line status (the watchdog)."""
    learner: Learner | None = None
    """Learns from what is observed; None where nothing is learnt."""
    keep_learned: Callable[[Mapping[str, Any]], Awaitable[None]] | None = None
    """Stores what was learnt. Raises MulletError where it cannot."""
    reload: Callable[[], Awaitable[tuple[Plant, Mapping[str, Any]]]] | None = None
    """Builds the plant of the policy as it now stands, and says what changed. Raises ValueError with all problems."""
