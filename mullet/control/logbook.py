"""Alarms and the rows that are not on disk yet: what must be recorded is kept until it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mullet.control.record import ALARM
from mullet.ports import Clock, Journal, JournalError

Row = tuple[str, Mapping[str, Any]]
JOURNAL_ALARM = "journal"
MOST_UNWRITTEN = 2_000
"""Rows kept in memory while the journal takes none; beyond that the oldest are lost, and the gap is told."""


class Logbook:
    """Writes rows before anything is sent; rows that could not be written come first next time."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._unwritten: list[Row] = []
        self._alarms: dict[str, tuple[str, float]] = {}
        self._lost = 0
        self.records_ok = True
        """Whether the latest rows are on disk. Where they are not, nothing increases."""

    @property
    def alarms(self) -> Mapping[str, tuple[str, float]]:
        """Alarms that stand, with the moment each was raised."""
        return self._alarms

    def alarm(self, key: str, text: str | None) -> None:
        """Raise an alarm, or clear it when `text` is None; each change is recorded once."""
        known = self._alarms.get(key)
        if text is None:
            if known is not None:
                del self._alarms[key]
                self._unwritten.append((ALARM, {"key": key, "text": known[0], "raised": False}))
        elif known is None:
            self._alarms[key] = (text, self._clock.now())
            self._unwritten.append((ALARM, {"key": key, "text": text, "raised": True}))
        else:
            self._alarms[key] = (text, known[1])

    async def append(self, rows: Iterable[Row]) -> None:
        """Record something at once.

        Raises:
            JournalError: it is not on disk.
        """
        await self._journal.append(list(rows))

    async def write(self, rows: Iterable[Row]) -> None:
        """Put rows on disk, or keep them and say so in `records_ok` and an alarm."""
        self._unwritten.extend(rows)
        if not self._unwritten:
            return
        taken = list(self._unwritten)
        try:
            await self._journal.append(taken)
        except JournalError as error:
            self.records_ok = False
            self.alarm(JOURNAL_ALARM, f"{error}: increases stop, the facility goes to its fail-safe points")
            excess = len(self._unwritten) - MOST_UNWRITTEN
            if excess > 0:
                del self._unwritten[:excess]
                self._lost += excess
            return
        del self._unwritten[: len(taken)]
        if self._lost:
            self._unwritten.append((ALARM, {"key": "journal/gap", "text": f"{self._lost} rows lost", "raised": True}))
            self._lost = 0
        if not self.records_ok:
            self.records_ok = True
            self.alarm(JOURNAL_ALARM, None)
