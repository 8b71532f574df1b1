"""Measurements in one SQLite file: loads as compressed columns per instant, circuits and the facility as plain rows.

A column holds one field of all loads at one instant; about 4 bytes a value, 50 times fewer rows than one each.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

import numpy as np

from mullet.adapters.spool import Spool
from mullet.adapters.sqlite_file import connect_read_only, reason_of
from mullet.ports import HistorianError

logger = logging.getLogger(__name__)

LOAD_PREFIX = "load/"
BACKLOG = 30
"""Instants that may wait for the disk before the oldest is dropped."""
CLOSE_S = 5.0
TIDY_EVERY_S = 600.0
TIDY_ROWS = 20_000
"""Most rows that one tidying deletes, so that it never holds the file for long."""
WAIT_S = 60.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS load (position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS load_column (
    field TEXT NOT NULL, at REAL NOT NULL, data BLOB NOT NULL, PRIMARY KEY (field, at)
);
CREATE INDEX IF NOT EXISTS load_column_by_time ON load_column (at);
CREATE TABLE IF NOT EXISTS series (id INTEGER PRIMARY KEY, key TEXT NOT NULL, field TEXT NOT NULL, UNIQUE (key, field));
CREATE TABLE IF NOT EXISTS point (
    series INTEGER NOT NULL, at REAL NOT NULL, value REAL NOT NULL, PRIMARY KEY (series, at)
) WITHOUT ROWID;
"""

Series = Mapping[str, Mapping[str, float]]
Point = tuple[float, float]


class TelemetryStore:
    """Writes in a thread of its own (`ports.Historian`); a disk that fails costs measurements, never control.

    Times are seconds. Loads are stored every `load_period_s` and kept for `load_keep_s`; all other series every
    `chart_period_s` for `chart_keep_s`.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        load_period_s: float = 10.0,
        chart_period_s: float = 10.0,
        load_keep_s: float = 48 * 3_600.0,
        chart_keep_s: float = 31 * 86_400.0,
    ) -> None:
        self._path = Path(path)
        self._load_pace = _Pace(load_period_s)
        self._chart_pace = _Pace(chart_period_s)
        self._tidy_pace = _Pace(TIDY_EVERY_S)
        self._load_keep_s = load_keep_s
        self._chart_keep_s = chart_keep_s
        self._connection: sqlite3.Connection | None = None
        self._positions: dict[str, int] = {}
        self._series_ids: dict[tuple[str, str], int] = {}
        self._written = 0
        self._failed = 0
        self._problem: str | None = None
        self._spool: Spool[tuple[float, Series]] = Spool(BACKLOG)
        self._thread = threading.Thread(target=self._work, name="telemetry", daemon=True)
        self._thread.start()

    @property
    def written(self) -> int:
        """Instants that were stored, or passed over because the period was not yet over."""
        return self._written

    @property
    def dropped(self) -> int:
        """Instants that were not stored: the disk was too slow, or refused them."""
        return self._spool.dropped + self._failed

    @property
    def problem(self) -> str | None:
        """Why the latest instant was not stored; None if it was."""
        return self._problem

    async def record(self, at: float, series: Series) -> None:
        """Hand over the fields per series key at one instant. Never waits for the disk."""
        self._spool.put((at, series))

    def series(self, key: str, field: str, start: float, end: float, step_s: float | None = None) -> list[Point]:
        """Return (instant, value) in [start, end), in order; see `TelemetryReader.series`."""
        return TelemetryReader(self._path).series(key, field, start, end, step_s)

    async def close(self) -> None:
        """Write what waits, and close the file, within a few seconds."""
        self._spool.close()
        await asyncio.to_thread(self._thread.join, CLOSE_S)

    # Everything below runs in the writer's thread.

    def _work(self) -> None:
        while True:
            item = self._spool.take(WAIT_S)
            if item is not None:
                self._store(*item)
            elif self._spool.closed:
                break
        self._disconnect()

    def _store(self, at: float, series: Series) -> None:
        try:
            connection = self._connection or self._connect()
            connection.execute("BEGIN IMMEDIATE")
            if self._load_pace.due(at):
                self._store_loads(connection, at, series)
            if self._chart_pace.due(at):
                self._store_points(connection, at, series)
            if self._tidy_pace.due(at):
                self._tidy(connection, at)
            connection.execute("COMMIT")
        except (sqlite3.Error, OSError, TypeError, ValueError) as error:
            self._failed += 1
            reason = reason_of(error) if isinstance(error, (sqlite3.Error, OSError)) else str(error)
            if self._problem is None:
                logger.warning("measurements are not stored: %s: %s", self._path, reason)
            self._problem = f"{self._path}: {reason}"
            self._disconnect()
        else:
            if self._problem is not None:
                logger.info("measurements are stored again")
            self._problem = None
            self._written += 1

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=1.0)
        self._connection = connection
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA journal_size_limit = 33554432")
        connection.executescript(_SCHEMA)
        self._positions = dict(connection.execute("SELECT id, position FROM load"))
        self._series_ids = {
            (key, field): number for number, key, field in connection.execute("SELECT id, key, field FROM series")
        }
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        for pace in (self._load_pace, self._chart_pace, self._tidy_pace):
            pace.restart()
        if connection is not None:
            connection.close()

    def _store_loads(self, connection: sqlite3.Connection, at: float, series: Series) -> None:
        found = {key[len(LOAD_PREFIX) :]: fields for key, fields in series.items() if key.startswith(LOAD_PREFIX)}
        for load_id in found.keys() - self._positions.keys():
            self._positions[load_id] = len(self._positions)
            connection.execute("INSERT INTO load VALUES (?, ?)", (self._positions[load_id], load_id))
        columns: dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]] = {}
        for load_id, fields in found.items():
            position = self._positions[load_id]
            for field, value in fields.items():
                if field not in columns:
                    columns[field] = np.full(len(self._positions), np.nan, dtype="<f4")
                columns[field][position] = value
        connection.executemany(
            "INSERT OR REPLACE INTO load_column VALUES (?, ?, ?)",
            [(field, at, zlib.compress(column.tobytes(), 1)) for field, column in columns.items()],
        )

    def _store_points(self, connection: sqlite3.Connection, at: float, series: Series) -> None:
        rows = []
        for key, fields in series.items():
            if key.startswith(LOAD_PREFIX):
                continue
            for field, value in fields.items():
                number = self._series_ids.get((key, field))
                if number is None:
                    number = self._series_ids[key, field] = len(self._series_ids) + 1
                    connection.execute("INSERT INTO series VALUES (?, ?, ?)", (number, key, field))
                # SQLite has no NaN: it would read back as NULL.
                if value == value:
                    rows.append((number, at, value))
        connection.executemany("INSERT OR REPLACE INTO point VALUES (?, ?, ?)", rows)

    def _tidy(self, connection: sqlite3.Connection, at: float) -> None:
        connection.execute(
            "DELETE FROM load_column WHERE rowid IN (SELECT rowid FROM load_column WHERE at < ? LIMIT ?)",
            (at - self._load_keep_s, TIDY_ROWS),
        )
        share = max(1, TIDY_ROWS // max(1, len(self._series_ids)))
        for number in self._series_ids.values():
            old = "SELECT at FROM point WHERE series = ?1 AND at < ?2 ORDER BY at LIMIT ?3"
            connection.execute(
                f"DELETE FROM point WHERE series = ?1 AND at IN ({old})", (number, at - self._chart_keep_s, share)
            )


class TelemetryReader:
    """Reads a telemetry file, also while the daemon writes to it. Every call opens and closes the file."""

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)

    def series(self, key: str, field: str, start: float, end: float, step_s: float | None = None) -> list[Point]:
        """Return (instant, value) in [start, end), in order; with `step_s` the mean of each step, at its beginning.

        An unknown key or field has no values.

        Raises:
            HistorianError: the file cannot be read.
        """
        connection: sqlite3.Connection | None = None
        try:
            connection = connect_read_only(self._path)
            points = (
                _load_points(connection, key[len(LOAD_PREFIX) :], field, start, end)
                if key.startswith(LOAD_PREFIX)
                else _plain_points(connection, key, field, start, end)
            )
            return list(points if step_s is None else _means(points, step_s))
        except (sqlite3.Error, OSError, zlib.error) as error:
            reason = str(error) if isinstance(error, zlib.error) else reason_of(error)
            raise HistorianError(f"{self._path}: {reason}") from error
        finally:
            if connection is not None:
                connection.close()

    def keys(self) -> dict[str, tuple[str, ...]]:
        """Return the fields of every series that is no load, by key.

        Raises:
            HistorianError: the file cannot be read.
        """
        try:
            connection = connect_read_only(self._path)
            try:
                rows = connection.execute("SELECT key, field FROM series ORDER BY key, field").fetchall()
            finally:
                connection.close()
        except (sqlite3.Error, OSError) as error:
            raise HistorianError(f"{self._path}: {reason_of(error)}") from error
        return {key: tuple(field for _, field in fields) for key, fields in groupby(rows, key=lambda row: str(row[0]))}


def _load_points(connection: sqlite3.Connection, load_id: str, field: str, start: float, end: float) -> Iterator[Point]:
    found = connection.execute("SELECT position FROM load WHERE id = ?", (load_id,)).fetchone()
    if found is None:
        return
    position = found[0]
    rows = connection.execute(
        "SELECT at, data FROM load_column WHERE field = ? AND at >= ? AND at < ? ORDER BY at", (field, start, end)
    )
    for at, data in rows:
        column = np.frombuffer(zlib.decompress(data), dtype="<f4")
        # A column is as long as there were loads when it was written.
        if position < len(column) and not np.isnan(column[position]):
            yield at, float(column[position])


def _plain_points(connection: sqlite3.Connection, key: str, field: str, start: float, end: float) -> Iterator[Point]:
    found = connection.execute("SELECT id FROM series WHERE key = ? AND field = ?", (key, field)).fetchone()
    if found is not None:
        yield from connection.execute(
            "SELECT at, value FROM point WHERE series = ? AND at >= ? AND at < ? ORDER BY at", (found[0], start, end)
        )


def _means(points: Iterator[Point], step_s: float) -> Iterator[Point]:
    for step, members in groupby(points, key=lambda point: point[0] // step_s):
        values = [value for _, value in members]
        yield step * step_s, sum(values) / len(values)


class _Pace:
    """Says which instants are due, one per period; an instant before the last one is always due."""

    def __init__(self, period_s: float) -> None:
        # Ticks jitter; a little early is in time.
        self._least_s = 0.95 * period_s
        self._last: float | None = None

    def due(self, at: float) -> bool:
        if self._last is not None and self._last <= at < self._last + self._least_s:
            return False
        self._last = at
        return True

    def restart(self) -> None:
        self._last = None
