"""What feeds bring, checked before it is believed, and handed to the observatory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mullet.control.observe import Observatory
from mullet.control.parts import FeedKind, FeedPart
from mullet.domain.facility import Facility
from mullet.domain.feeds import Curtailment, PriceCurve, ServiceDemand
from mullet.domain.units import format_watts
from mullet.ports import FeedError, Quarantined
from mullet.programs.prices import quarantine

LEAST_SENSED, MOST_SENSED = -60.0, 1e6
"""No temperature of air or coolant and no flow is outside."""
UNIT_JUMP = 100.0
"""A ceiling so many times above its circuit's rating is in another unit: believed, it would hide the true one."""


class Intake:
    """One taker per feed; a value that cannot be believed is quarantined, never clipped."""

    def __init__(self, observatory: Observatory, facility: Facility, alarm: Callable[[str, str | None], None]) -> None:
        self._observatory = observatory
        self._facility = facility
        self.alarm = alarm
        self._misplaced: dict[str, frozenset[str]] = {}
        """By feed: the limits that name a circuit which nobody knows."""

    def taker(self, part: FeedPart) -> Callable[[object, float], Awaitable[None]]:
        """Return the function that takes in what `part` brings; it raises FeedError for what is not usable."""

        async def take(value: object, at: float) -> None:
            self._take(part, value, at)

        return take

    def _take(self, part: FeedPart, value: object, at: float) -> None:
        if part.kind is FeedKind.PRICE and isinstance(value, PriceCurve):
            known = self._observatory.prices
            reason = quarantine(value, known.value if known is not None else None, self._facility.economics)
            if reason is not None:
                self._observatory.refused_prices(reason)
                raise Quarantined(f"quarantined: {reason}")
            self._observatory.saw_prices(value, at)
        elif part.kind is FeedKind.HASHPRICE and isinstance(value, float):
            if not 0.0 < value < 10_000.0:
                raise Quarantined(f"quarantined: hashprice {value} is outside 0..10,000 per PH and day")
            self._observatory.saw_hashprice(value, at)
        elif part.kind is FeedKind.SENSOR and isinstance(value, float):
            if not LEAST_SENSED <= value <= MOST_SENSED:
                raise Quarantined(f"quarantined: {part.name} {value:g} is outside {LEAST_SENSED:g}..{MOST_SENSED:g}")
            self._observatory.saw_sensor(part.service or part.name, value, at)
        elif part.kind is FeedKind.LIMITS and isinstance(value, tuple):
            self._observatory.saw_limits(self._known_limits(part.name, value), at)
        elif part.kind is FeedKind.DEMAND and isinstance(value, ServiceDemand):
            self._observatory.saw_demand(value)
        else:
            raise FeedError(f"{part.name} brought a {type(value).__name__}, which is no {part.kind.value}")

    def _known_limits(self, feed: str, limits: tuple[object, ...]) -> tuple[Curtailment, ...]:
        known: list[Curtailment] = []
        misplaced: set[str] = set()
        for limit in limits:
            if not isinstance(limit, Curtailment):
                raise FeedError(f"a limit is a {type(limit).__name__}")
            if limit.circuit not in self._facility.circuit_by_id:
                misplaced.add(limit.id)
                self.alarm(f"limit/{limit.id}", f"limit {limit.id} names circuit {limit.circuit!r}, which is unknown")
                continue
            rating_watts = self._facility.circuit_by_id[limit.circuit].rating_watts
            if limit.limit_watts > UNIT_JUMP * rating_watts:
                raise Quarantined(
                    f"quarantined: limit {limit.id} gives {limit.circuit} {format_watts(limit.limit_watts)}, "
                    f"rated {format_watts(rating_watts)}: another unit?"
                )
            known.append(limit)
        for gone in self._misplaced.get(feed, frozenset()) - misplaced:
            self.alarm(f"limit/{gone}", None)
        self._misplaced[feed] = frozenset(misplaced)
        return tuple(known)
