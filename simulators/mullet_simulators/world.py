"""What reaches the facility from outside: prices, limit notices, hashprice, inference demand."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from mullet_simulators.scenario import Scenario

LEAST_INTERVAL_S = 0.01


@dataclass(frozen=True, slots=True)
class PriceInterval:
    """A price in USD/MWh over [start, end), Unix seconds."""

    start: float
    end: float
    price_per_mwh: float


@dataclass(frozen=True, slots=True)
class LimitNotice:
    """A lowered limit over [start, end), listed from its announcement until its end, Unix seconds."""

    id: str
    circuit: str
    limit_w: float
    announced_at: float
    start: float
    end: float
    cause: str


class World:
    """Levels that servers publish; the timeline and the control port change them."""

    def __init__(self, scenario: Scenario, started_at: float) -> None:
        self._scenario = scenario
        self._started_at = started_at
        self._added_prices: list[PriceInterval] = []
        self._notices: list[LimitNotice] = []
        self.hashprice_per_ph_day = scenario.hashprice_per_ph_day
        self.requests_per_s: dict[str, float] = {
            service.id: service.requests_per_s_at(0.0) for service in scenario.services
        }

    def price_at(self, t: float) -> float:
        """Price in USD/MWh in force at Unix second `t`."""
        for added in reversed(self._added_prices):
            if added.start <= t < added.end:
                return added.price_per_mwh
        offset_s = t - self._started_at
        if self._scenario.repeats:
            offset_s %= self._scenario.cycle_s
        for spike in self._scenario.price.spikes:
            if spike.start_s <= offset_s < spike.end_s:
                return spike.price_per_mwh
        return self._scenario.price.base_per_mwh

    def price_intervals(self, now: float) -> list[PriceInterval]:
        """The interval that holds `now` and those published ahead."""
        spec = self._scenario.price
        first = math.floor((now - self._started_at) / spec.interval_s)
        start = self._started_at + first * spec.interval_s
        end = start + (1 + spec.published_ahead) * spec.interval_s
        edges = {start + k * spec.interval_s for k in range(1 + spec.published_ahead)}
        edges |= {edge for edge in self._price_changes(start, end) if start < edge < end}
        # Two edges meant to be one may differ by float noise, and no interval may be empty on the wire.
        ordered = [start]
        for edge in [*sorted(edges), end]:
            if edge > ordered[-1] + LEAST_INTERVAL_S:
                ordered.append(edge)
        # Asked in its middle: where an edge was left out, the price at its start is still that of before.
        intervals = [PriceInterval(a, b, self.price_at((a + b) / 2.0)) for a, b in itertools.pairwise(ordered)]
        return [interval for interval in intervals if interval.end > now]

    def add_price(self, interval: PriceInterval) -> None:
        """Publish a price over the scripted ones."""
        self._added_prices.append(interval)

    def announce(self, notice: LimitNotice) -> None:
        """Publish a lowered limit."""
        self._notices.append(notice)

    def limit_notices(self, now: float) -> list[LimitNotice]:
        """Notices announced and not yet ended."""
        return [notice for notice in self._notices if notice.announced_at <= now < notice.end]

    def _price_changes(self, start: float, end: float) -> set[float]:
        scenario = self._scenario
        changes = {edge for added in self._added_prices for edge in (added.start, added.end)}
        first, last = 0, 0
        if scenario.repeats:
            first = math.floor((start - self._started_at) / scenario.cycle_s)
            last = math.floor((end - self._started_at) / scenario.cycle_s)
        for cycle in range(first, last + 1):
            zero = self._started_at + cycle * scenario.cycle_s
            for spike in scenario.price.spikes:
                changes |= {zero + spike.start_s, zero + spike.end_s}
        return changes
