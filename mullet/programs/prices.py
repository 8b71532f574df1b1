"""Which price to believe and what to expect of it: quarantine at the door, then a ladder that never ends in 0."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mullet.domain.facility import Economics, Facility, SafeAction
from mullet.domain.feeds import PriceCurve, PriceInterval, Reading
from mullet.domain.plan import Forecast
from mullet.domain.snapshot import Snapshot
from mullet.domain.units import SECONDS_PER_DAY, SECONDS_PER_HOUR

PRICE_SOURCE = "price"
PRICE_AGE_S = 600.0

FEED = "feed"
AHEAD = "published_ahead"
LAST_WEEK = "last_week"
FIXED = "fixed"

_STEP_S = 900.0
_DECAY_S = 2_700.0
_DAYS = 7
_QUANTILE = 0.75
# A longer curve says more surely than a lone interval whether its unit changed or the market did.
_LONG_CURVE = 4
_WIDE_JUMP = (300.0, 3_000.0)
_NARROW_JUMP = (800.0, 1_250.0)
_LATEST_INSTANT = 1e11


@dataclass(frozen=True, slots=True)
class PriceForecast:
    """A price for every instant of the horizon, and where the present one comes from."""

    curve: PriceCurve
    rung: str


def forecast_prices(
    facility: Facility, snapshot: Snapshot, needs: Mapping[str, float], history: PriceCurve | None = None
) -> Forecast:
    """Return the forecast that a plan is made from: the price ladder's curve, hashprice and the services' `needs`."""
    found = price_forecast(snapshot.prices, history, facility, snapshot.at)
    hashprice = snapshot.hashprice.value if snapshot.hashprice is not None else facility.economics.hashprice_per_ph_day
    return Forecast(found.curve, hashprice, dict(needs), price_rung=found.rung)


def price_forecast(
    reading: Reading[PriceCurve] | None, history: PriceCurve | None, facility: Facility, at: float
) -> PriceForecast:
    """Return a curve without gaps from `at` over the planning horizon (R29).

    While the feed is fresh its curve holds, and its last price decays towards what the ladder says beyond it. A feed
    gone stale still counts for the intervals that it published ahead. Then the upper quartile of the same hour over
    the last week of `history`, then the policy's fallback.
    """
    max_age_s = facility.safety_age_s(PRICE_SOURCE, SafeAction.LADDER, PRICE_AGE_S)
    horizon = at + sum(length * (count + 2) for length, count in facility.grid_steps)
    known: Sequence[PriceInterval] = () if reading is None else _held(reading, at, max_age_s)
    fresh = reading is not None and reading.age_s(at) <= max_age_s
    start = math.floor(at / _STEP_S) * _STEP_S
    inside = [interval for interval in known if interval.end > start and interval.start < horizon]
    intervals: list[PriceInterval] = []
    cursor = start
    last = max((i for i in known if i.end <= start), key=lambda i: i.end, default=None)
    for interval in [*inside, None]:
        until = interval.start if interval is not None else horizon
        while cursor < until - 1e-6:
            end = min(until, (math.floor(cursor / _STEP_S + 1e-9) + 1.0) * _STEP_S)
            base, _ = _usual(history, facility.economics, cursor)
            price = base
            if fresh and last is not None:
                price += (last.price_per_mwh - base) * math.exp(-(cursor - last.end) / _DECAY_S)
            intervals.append(PriceInterval(cursor, end, price))
            cursor = end
        if interval is not None:
            begin = max(cursor, interval.start)
            if interval.end > begin:
                intervals.append(PriceInterval(begin, interval.end, interval.price_per_mwh))
                cursor = interval.end
            last = interval
    if any(interval.start <= at < interval.end for interval in inside):
        rung = FEED if fresh else AHEAD
    else:
        rung = _usual(history, facility.economics, at)[1]
    return PriceForecast(PriceCurve(tuple(intervals)), rung)


def _held(reading: Reading[PriceCurve], at: float, max_age_s: float) -> list[PriceInterval]:
    """Return the feed's intervals; one that ended while the feed is still fresh holds until it would be stale.

    A page that is read again and again without ever telling of later intervals does not stay fresh by that.
    """
    intervals = sorted(reading.value.intervals, key=lambda interval: interval.start)
    until = min(reading.at, intervals[-1].end) + max_age_s if intervals else at
    if until <= at or intervals[-1].end > at:
        return intervals
    last = intervals[-1]
    return [*intervals[:-1], PriceInterval(last.start, until, last.price_per_mwh)]


def _usual(history: PriceCurve | None, economics: Economics, instant: float) -> tuple[float, str]:
    """Return what the hour of `instant` usually costs, and the rung that says so."""
    if history is not None:
        prices = []
        for day in range(1, _DAYS + 1):
            begin = math.floor(instant / SECONDS_PER_HOUR) * SECONDS_PER_HOUR - day * SECONDS_PER_DAY
            prices += [
                interval.price_per_mwh
                for interval in history.intervals
                if interval.start < begin + SECONDS_PER_HOUR and interval.end > begin
            ]
        if prices:
            return _quantile(prices, _QUANTILE), LAST_WEEK
    return economics.fallback_price_per_mwh, FIXED


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def quarantine(curve: PriceCurve, previous: PriceCurve | None, economics: Economics) -> str | None:
    """Return why `curve` cannot be believed, or None (R30, R31). In-range extremes pass; nothing is clipped."""
    if not curve.intervals:
        return "no intervals"
    before: PriceInterval | None = None
    for number, interval in enumerate(curve.intervals, start=1):
        if not all(math.isfinite(value) for value in (interval.start, interval.end, interval.price_per_mwh)):
            return f"interval {number} holds a value that is no number"
        if not 0.0 < interval.start < interval.end < _LATEST_INSTANT:
            return f"interval {number} runs from {interval.start:.0f} to {interval.end:.0f}, which are no Unix seconds"
        if not economics.price_min_per_mwh <= interval.price_per_mwh <= economics.price_max_per_mwh:
            return (
                f"interval {number}: price {interval.price_per_mwh:g} per MWh is outside "
                f"{economics.price_min_per_mwh:g}..{economics.price_max_per_mwh:g}"
            )
        if before is not None and interval.start < before.end:
            return f"interval {number} overlaps or precedes the one before it"
        before = interval
    return _unit_jump(curve, previous)


def _unit_jump(curve: PriceCurve, previous: PriceCurve | None) -> str | None:
    if previous is None or not previous.intervals:
        return None
    older = {interval.start: abs(interval.price_per_mwh) for interval in previous.intervals}
    both = [
        (abs(interval.price_per_mwh), older[interval.start]) for interval in curve.intervals if interval.start in older
    ]
    if both:
        now, then = _quantile([pair[0] for pair in both], 0.5), _quantile([pair[1] for pair in both], 0.5)
        band = _WIDE_JUMP
    else:
        now = _quantile([abs(interval.price_per_mwh) for interval in curve.intervals], 0.5)
        then = _quantile(list(older.values()), 0.5)
        band = _WIDE_JUMP if min(len(curve.intervals), len(older)) >= _LONG_CURVE else _NARROW_JUMP
    if min(now, then) <= 0.0:
        return None
    ratio = max(now, then) / min(now, then)
    if band[0] <= ratio <= band[1]:
        jumped = "x1000" if now > then else "x0.001"
        return f"unit jump {jumped}: median {now:g} per MWh after {then:g}"
    return None
