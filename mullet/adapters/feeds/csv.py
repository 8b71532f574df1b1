"""Prices recorded in a CSV series: first column the instant at which an interval starts, then columns with units."""

from __future__ import annotations

import asyncio
import csv
import gzip
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from mullet.adapters.feeds.http import read_options
from mullet.adapters.feeds.price import CURRENCY_OPTION, facility_currency
from mullet.domain.feeds import PriceCurve, PriceInterval
from mullet.ports import DriverContext, FeedError

BEHIND_S = 3_600.0

_PRICE_COLUMN = re.compile(r".*_([a-z]{3})_(mwh|kwh)")
_PER_MWH = {"mwh": 1.0, "kwh": 1_000.0}


@dataclass(frozen=True, slots=True)
class Series:
    """One column of a CSV series, in order of time; rows without a value are left out, so a gap stays a gap."""

    column: str
    step_s: float
    """The most frequent distance between two rows."""
    points: tuple[tuple[float, float], ...]
    """(interval start in Unix seconds, value)."""

    def intervals(self) -> Iterator[tuple[float, float, float]]:
        """Yield (start, end, value). A value holds until the next one, or for one step where that is far away."""
        nexts = [start for start, _ in self.points[1:]] + [math.inf]
        for (start, value), end in zip(self.points, nexts, strict=True):
            # Markets that settle by run, not by clock, jitter by seconds; that is no gap.
            yield start, end if end - start < 1.5 * self.step_s else start + self.step_s, value


def read_series(path: Path | str, column: str = "") -> Series:
    """Read one column of a file, gzipped if its name ends in .gz; `column` may be empty where there is only one.

    Raises:
        FeedError: the file cannot be read, has no such column, or a row is wrong (naive or repeated instant, out of
            order, no finite number); the message names the row, counted from 1 beneath the header.
    """
    try:
        opened = gzip.open if str(path).endswith(".gz") else open
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            return _read(csv.reader(file, strict=True), column)
    except OSError as error:
        raise FeedError(f"{path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error, EOFError, zlib.error) as error:
        raise FeedError(f"{path}: {error}") from error
    except ValueError as error:
        raise FeedError(f"{path}: {error}") from None


def _read(rows: Any, column: str) -> Series:
    header = [name.strip() for name in next(rows, [])]
    if len(header) < 2:
        raise ValueError("the header needs an instant and at least one value column")
    if not column and len(header) > 2:
        raise ValueError(f"several columns, say which: {', '.join(header[1:])}")
    if column and column not in header[1:]:
        raise ValueError(f"no column {column!r}; there are {', '.join(header[1:])}")
    index = header.index(column, 1) if column else 1
    starts: list[float] = []
    points: list[tuple[float, float]] = []
    for number, row in enumerate(rows, start=1):
        if not row:
            continue
        if len(row) != len(header):
            raise ValueError(f"row {number}: {len(row)} cells, the header has {len(header)}")
        start = _instant(row[0], number)
        if starts and start <= starts[-1]:
            raise ValueError(f"row {number}: {'repeats' if start == starts[-1] else 'lies before'} the row above it")
        starts.append(start)
        if row[index].strip():
            points.append((start, _number(row[index], number)))
    if not points:
        raise ValueError("no values")
    distances = Counter(later - earlier for earlier, later in pairwise(starts))
    step_s = distances.most_common(1)[0][0] if distances else 3_600.0
    return Series(header[index], step_s, tuple(points))


def _instant(text: str, number: int) -> float:
    try:
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is not None:
            return moment.timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"row {number}: {text!r:.60} is no instant") from None
    raise ValueError(f"row {number}: {text!r:.60} has no zone")


def _number(text: str, number: int) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"row {number}: {text!r:.60} is no number") from None
    if not math.isfinite(value):
        raise ValueError(f"row {number}: {text!r:.60} is not finite")
    return value


class CsvPriceFeed:
    """Reads prices from a file, for replay and for prices that somebody else downloads (`ports.Feed`).

    Raises:
        ValueError: the options are wrong.
    """

    options_schema: ClassVar[dict[str, tuple[type, Any, str]]] = {
        "path": (str, ..., "CSV file; the first column is the UTC instant at which an interval starts"),
        "column": (str, "", "price column, such as price_usd_mwh; may be left out where there is only one"),
        "currency": CURRENCY_OPTION,
        "replay_from": (
            str,
            "",
            "instant in the file that stands for the first read; empty takes its instants as real",
        ),
        "ahead_s": (float, 172_800.0, "how far ahead of now prices are told, in seconds"),
    }

    def __init__(self, context: DriverContext, feed_id: str) -> None:
        options = read_options(context, feed_id, self.options_schema)
        self._feed_id = feed_id
        self._clock = context.clock
        self._path = Path(options["path"])
        self._column: str = options["column"]
        self._currency = facility_currency(feed_id, options)
        self._ahead_s: float = options["ahead_s"]
        self._replay_from = datetime.fromisoformat(options["replay_from"]) if options["replay_from"] else None
        if self._replay_from is not None and self._replay_from.tzinfo is None:
            raise ValueError(f"feed {feed_id}: replay_from has no zone")
        self._shift_s: float | None = None if self._replay_from else 0.0
        self._series: Series | None = None
        self._read_at: tuple[int, int] | None = None

    async def fetch(self, deadline_s: float) -> PriceCurve:
        """Return the prices around now; the file is read again when it has changed.

        Raises:
            FeedError: the file cannot be read, is wrong, in another currency, or holds no price around now.
        """
        try:
            async with asyncio.timeout(deadline_s):
                series, factor = await asyncio.to_thread(self._load)
        except TimeoutError:
            raise FeedError(f"feed {self._feed_id}: {self._path} was not read within {deadline_s:g} s") from None
        now = self._clock.now()
        if self._shift_s is None:
            assert self._replay_from is not None
            self._shift_s = now - self._replay_from.timestamp()
        intervals = []
        for start, end, value in series.intervals():
            start, end = start + self._shift_s, end + self._shift_s
            if end > now - BEHIND_S and start < now + self._ahead_s:
                intervals.append(PriceInterval(start, end, value * factor))
        if not intervals:
            raise FeedError(f"feed {self._feed_id}: {self._path} holds no price around now")
        return PriceCurve(tuple(intervals))

    async def close(self) -> None:
        """There is nothing to close."""

    def _load(self) -> tuple[Series, float]:
        try:
            status = self._path.stat()
        except OSError as error:
            raise FeedError(f"feed {self._feed_id}: {self._path}: {error.strerror}") from error
        found = (status.st_mtime_ns, status.st_size)
        if self._series is None or found != self._read_at:
            self._series, self._read_at = read_series(self._path, self._column), found
        match = _PRICE_COLUMN.fullmatch(self._series.column)
        if match is None:
            raise FeedError(
                f"feed {self._feed_id}: column {self._series.column!r} does not name its unit, as price_usd_mwh does"
            )
        if match[1].upper() != self._currency:
            raise FeedError(
                f"feed {self._feed_id}: prices are in {match[1].upper()}, the facility reckons in {self._currency}"
            )
        return self._series, _PER_MWH[match[2]]
