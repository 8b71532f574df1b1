"""Price series that a simulated market publishes: made up after ERCOT's habits, or replayed from a file.

The generator's numbers are fitted by eye to ERCOT's real-time prices of 2024: a median near 20 USD/MWh, a tenth of
HB_WEST's intervals below zero, one in a hundred above 200, one in a thousand above 1,000, the highest 4,965.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import random
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from mullet_simulators.world import PriceInterval

INTERVAL_S = 300.0
DAY_S = 86400.0
MEDIAN_PER_MWH = 22.0
PULL = 0.04
SIGMA = 0.09
SPIKE_STARTS_PER_INTERVAL = 1 / 500
SPIKE_ENDS_PER_INTERVAL = 1 / 8
SPIKE_MEDIAN_PER_MWH = 180.0
SPIKE_SIGMA = 1.1
MOST_PER_MWH = 5000.0
WIND_STARTS_PER_INTERVAL = 1 / 220
WIND_ENDS_PER_INTERVAL = 1 / 24
WIND_PER_MWH = (-35.0, -0.5)
EVENING_HOUR_UTC = 1.0
"""ERCOT's evening peak, about 19:00 local."""


class PriceSeries(Protocol):
    """Prices over calendar time, in USD/MWh."""

    def between(self, start: float, end: float) -> list[PriceInterval]:
        """Intervals that touch [start, end), in order; gaps stay gaps."""


class PriceSource(Protocol):
    """What the grid's price page shows."""

    def price_intervals(self, now: float) -> list[PriceInterval]:
        """The interval that holds `now` and those published ahead."""


class ErcotLikePrices:
    """An endless series of 5-minute prices: mean-reverting lognormal, spikes into the thousands, negative hours.

    The same seed gives the same price at the same calendar interval, counted from `epoch`.
    """

    def __init__(self, seed: int, epoch: float = 0.0, interval_s: float = INTERVAL_S) -> None:
        self._random = random.Random(f"prices/{seed}")
        self._epoch = epoch
        self._interval_s = interval_s
        self._prices: list[float] = []
        self._log = 0.0
        self._spike = 0.0
        self._wind = False

    def price(self, index: int) -> float:
        """Price of the interval `index` after the epoch. Raises IndexError before it."""
        if index < 0:
            raise IndexError("the series begins at its epoch")
        while len(self._prices) <= index:
            self._prices.append(round(self._next(len(self._prices)), 2))
        return self._prices[index]

    def between(self, start: float, end: float) -> list[PriceInterval]:
        """Intervals that touch [start, end)."""
        first = max(0, math.floor((start - self._epoch) / self._interval_s))
        last = math.ceil((end - self._epoch) / self._interval_s)
        return [
            PriceInterval(self._epoch + k * self._interval_s, self._epoch + (k + 1) * self._interval_s, self.price(k))
            for k in range(first, last)
        ]

    def _next(self, index: int) -> float:
        draw = self._random
        self._log += -PULL * self._log + draw.gauss(0.0, SIGMA)
        hour = (index * self._interval_s % DAY_S) / 3600.0
        shape = 1.0 + 0.45 * math.cos((hour - EVENING_HOUR_UTC) / 24.0 * 2.0 * math.pi)
        if self._spike > 0.0:
            self._spike *= draw.lognormvariate(0.0, 0.25)
            if draw.random() < SPIKE_ENDS_PER_INTERVAL:
                self._spike = 0.0
        elif draw.random() < SPIKE_STARTS_PER_INTERVAL:
            self._spike = SPIKE_MEDIAN_PER_MWH * draw.lognormvariate(0.0, SPIKE_SIGMA)
        turns = draw.random() < (WIND_ENDS_PER_INTERVAL if self._wind else WIND_STARTS_PER_INTERVAL)
        self._wind ^= turns
        if self._wind and self._spike == 0.0:
            low, high = WIND_PER_MWH
            return draw.triangular(low, high, 0.75 * high + 0.25 * low)
        return min(MOST_PER_MWH, MEDIAN_PER_MWH * shape * math.exp(self._log) + self._spike)


class CsvPrices:
    """A recorded series: a CSV file, or one packed with gzip, whose first column is the start of each interval."""

    def __init__(self, path: Path, column: str = "price_usd_mwh") -> None:
        """Raises OSError, or ValueError naming the line that is wrong."""
        self._starts: list[float] = []
        self._prices: list[float] = []
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
        rows = csv.DictReader(io.StringIO(text))
        if rows.fieldnames is None or column not in rows.fieldnames:
            raise ValueError(f"{path.name}: no column {column}")
        first = rows.fieldnames[0]
        for number, row in enumerate(rows, 2):
            if not row[column]:
                continue
            self._add(f"{path.name}:{number}", row[first], row[column])
        if len(self._starts) < 2:
            raise ValueError(f"{path.name}: fewer than two prices")
        gaps = sorted(b - a for a, b in pairwise(self._starts))
        self._interval_s = gaps[len(gaps) // 2]

    @property
    def start(self) -> float:
        """First instant of the recording, Unix seconds."""
        return self._starts[0]

    def between(self, start: float, end: float) -> list[PriceInterval]:
        """Intervals that touch [start, end); where the recording has a gap, so has this."""
        found = []
        for i in range(max(0, bisect_right(self._starts, start) - 1), len(self._starts)):
            begins = self._starts[i]
            if begins >= end:
                break
            next_start = self._starts[i + 1] if i + 1 < len(self._starts) else math.inf
            ends = min(begins + self._interval_s, next_start)
            if ends > start:
                found.append(PriceInterval(begins, ends, self._prices[i]))
        return found

    def _add(self, where: str, instant: str, price: str) -> None:
        try:
            at = datetime.fromisoformat(instant)
            value = float(price)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        t = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        if not math.isfinite(value) or (self._starts and t <= self._starts[-1]):
            raise ValueError(f"{where}: not a number, or not after the row before")
        self._starts.append(t)
        self._prices.append(value)


@dataclass(frozen=True, slots=True)
class CompressedCalendar:
    """A series whose calendar runs `factor` times as fast as the clock, from `epoch` at `started_at`."""

    series: PriceSeries
    started_at: float
    epoch: float
    factor: float = 1.0
    published_ahead: int = 24
    span_s: float = DAY_S
    """How far the calendar is searched for intervals to publish."""

    def price_intervals(self, now: float) -> list[PriceInterval]:
        """The interval that holds `now` and those published ahead, in clock time."""
        calendar = self.epoch + (now - self.started_at) * self.factor
        ahead = self.series.between(calendar, calendar + self.span_s)[: 1 + self.published_ahead]
        return [PriceInterval(self._clock(i.start), self._clock(i.end), i.price_per_mwh) for i in ahead]

    def _clock(self, calendar: float) -> float:
        return self.started_at + (calendar - self.epoch) / self.factor
