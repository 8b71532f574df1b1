"""What feeds tell: prices, hashprice, inference demand, ceilings; each with the moment it was learned."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """A value from a feed and when it was learned (Unix seconds); `quarantined` says why a newer one was refused."""

    value: T
    at: float
    quarantined: str | None = None

    def age_s(self, now: float) -> float:
        """Return how old the value is at `now`."""
        return now - self.at


@dataclass(frozen=True, slots=True)
class PriceInterval:
    """A price over the half-open interval [start, end), Unix seconds."""

    start: float
    end: float
    price_per_mwh: float


@dataclass(frozen=True, slots=True)
class PriceCurve:
    """Half-open intervals with a price in the facility's currency; a gap answers None ("unknown"), never 0."""

    intervals: tuple[PriceInterval, ...]

    def at(self, instant: float) -> float | None:
        """Return the price at `instant`, or None where the curve has a gap."""
        for interval in self.intervals:
            if interval.start <= instant < interval.end:
                return interval.price_per_mwh
        return None

    def mean(self, start: float, end: float) -> float | None:
        """Return the time-weighted mean price over [start, end), or None if any part of it is a gap."""
        covered = 0.0
        total = 0.0
        for interval in self.intervals:
            overlap = min(end, interval.end) - max(start, interval.start)
            if overlap > 0.0:
                covered += overlap
                total += overlap * interval.price_per_mwh
        if covered + 1e-6 < end - start or covered <= 0.0:
            return None
        return total / covered


@dataclass(frozen=True, slots=True)
class ServiceDemand:
    """Demand on one inference service, as its metrics tell; unknown is None, never 0."""

    service: str
    at: float
    running: float | None
    waiting: float | None
    tokens_per_s: float | None
    """Tokens generated and prefilled per second over the last scrapes."""
    offered_tokens_per_s: float | None
    """Tokens per second that arrivals ask for (served plus growth of the queue)."""
    ttft_s: float | None = None
    watched_s: float | None = None
    """For how long its counters have been watched without a break, where the rates come of counters."""


class Cause(StrEnum):
    """Why power is held back, from what protects to what earns."""

    PROTECTION = "protection"
    FAILSAFE = "failsafe"
    EMERGENCY = "emergency"
    AI_PREEMPTION = "ai_preemption"
    DEMAND_RESPONSE = "demand_response"
    RESERVE = "reserve"
    COINCIDENT_PEAK = "coincident_peak"
    DEMAND_CHARGE = "demand_charge"
    ECONOMIC = "economic"
    THERMAL = "thermal"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Curtailment:
    """A ceiling on a circuit over [start, end), and why."""

    id: str
    circuit: str
    limit_watts: float
    start: float
    end: float
    cause: Cause
    announced_at: float
    priority: int = 10
    """Lower wins; ties: the most restrictive."""
