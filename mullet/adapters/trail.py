"""What the charts show: the newest hour in memory, second by second, and what is older from the telemetry file."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

from mullet.ports import HistorianError

KEEP_ROWS = 3_600
MOST_POINTS = 1_200
"""More points than a chart has pixels are not sent."""
STORE_STEP_S = 10.0
"""The telemetry file has no finer rows than this."""
COLUMNS = ("miner_w", "gpu_w", "unmanaged_w", "meter_w", "limit_w", "sum_w", "price_per_mwh")

_STORED = {"miner_w": "miner_w", "gpu_w": "gpu_w", "meter_w": "meter_w", "price_per_mwh": "price_per_mwh"}
_STORED_OF_CIRCUIT = {"limit_w": "limit_w", "sum_w": "sum_w"}


class SeriesReader(Protocol):
    """Reads stored series (`adapters.historian.TelemetryStore` and `TelemetryReader`)."""

    def series(
        self, key: str, field: str, start: float, end: float, step_s: float | None = None
    ) -> list[tuple[float, float]]:
        """Return (instant, value) in [start, end), in order."""


@dataclass(frozen=True, slots=True)
class Row:
    """One instant of the charts; values in the order of `COLUMNS`, None where unknown."""

    at: float
    values: tuple[float | None, ...]


class Trail:
    """Keeps the rows of the charts. Times are Unix seconds."""

    def __init__(self, store: SeriesReader | None = None) -> None:
        self._rows: deque[Row] = deque(maxlen=KEEP_ROWS)
        self._store = store
        self._root: str | None = None

    def take(self, status: Mapping[str, Any]) -> None:
        """Keep one row of a status, unless one was kept within the last half second."""
        row = row_of(status)
        if row is None or (self._rows and row.at - self._rows[-1].at < 0.5):
            return
        self._root = root_of(status) or self._root
        self._rows.append(row)

    async def columns(self, start: float, end: float, most: int = MOST_POINTS) -> dict[str, list[float | None]]:
        """Return `at` and every column of [start, end), with `most` points at most, oldest first."""
        most = max(2, min(most, MOST_POINTS))
        step_s = (end - start) / most
        rows = [row for row in self._rows if start <= row.at < end]
        newest_stored = rows[0].at if rows else end
        older = await self._stored(start, newest_stored, max(STORE_STEP_S, step_s))
        # The store's last step may reach into what memory has: memory is finer.
        older = [row for row in older if row.at < newest_stored]
        joined = [*older, *rows]
        return as_columns(thin(joined, step_s) if len(joined) > most else joined)

    async def _stored(self, start: float, end: float, step_s: float) -> list[Row]:
        store, root = self._store, self._root
        if store is None or end - start < step_s:
            return []
        wanted = {column: ("facility", field) for column, field in _STORED.items()}
        if root is not None:
            wanted.update({column: (f"circuit/{root}", field) for column, field in _STORED_OF_CIRCUIT.items()})

        def read() -> dict[str, dict[float, float]]:
            return {
                column: dict(store.series(key, field, start, end, step_s)) for column, (key, field) in wanted.items()
            }

        try:
            found = await asyncio.to_thread(read)
        except HistorianError:
            # Before the first measurement there is no file; a broken one raises an alarm where it is written.
            return []
        instants = sorted({at for series in found.values() for at in series})
        return [Row(at, _completed({column: found.get(column, {}).get(at) for column in COLUMNS})) for at in instants]


def row_of(status: Mapping[str, Any]) -> Row | None:
    """Return the row of a status, None before the first tick."""
    power = status.get("power_w")
    if power is None:
        return None
    root = root_of(status)
    circuit = status["circuits"][root] if root is not None else {}
    values = {
        "miner_w": power.get("miner"),
        "gpu_w": power.get("gpu"),
        "meter_w": power.get("meter"),
        "limit_w": circuit.get("limit_w"),
        "sum_w": circuit.get("sum_w"),
        "price_per_mwh": status.get("price_per_mwh"),
    }
    return Row(status["at"], _completed(values))


def root_of(status: Mapping[str, Any]) -> str | None:
    """Return the circuit that has no parent."""
    circuits: Mapping[str, Mapping[str, Any]] = status.get("circuits", {})
    return next((name for name, circuit in circuits.items() if circuit["parent"] is None), None)


def thin(rows: Iterable[Row], step_s: float) -> list[Row]:
    """Return one row per step, each value the mean of what is known in it."""
    return [_mean(list(members)) for _, members in groupby(rows, key=lambda row: row.at // step_s)]


def as_columns(rows: Sequence[Row]) -> dict[str, list[float | None]]:
    """Return rows as columns."""
    columns: dict[str, list[float | None]] = {"at": [row.at for row in rows]}
    for position, name in enumerate(COLUMNS):
        columns[name] = [row.values[position] for row in rows]
    return columns


def _completed(values: Mapping[str, float | None]) -> tuple[float | None, ...]:
    """Add what nobody manages: the meter's reading less what the loads say they draw."""
    known = {**values, "unmanaged_w": None}
    meter, miner, gpu = values.get("meter_w"), values.get("miner_w"), values.get("gpu_w")
    if meter is not None and miner is not None and gpu is not None:
        known["unmanaged_w"] = max(0.0, meter - miner - gpu)
    return tuple(known.get(column) for column in COLUMNS)


def _mean(rows: Sequence[Row]) -> Row:
    means: list[float | None] = []
    for position in range(len(COLUMNS)):
        known = [value for row in rows if (value := row.values[position]) is not None]
        means.append(sum(known) / len(known) if known else None)
    return Row(rows[0].at, tuple(means))
