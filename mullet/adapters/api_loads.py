"""The table of loads: filtered, sorted and cut before it is sent, so that 10,000 loads cost a page what 100 do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
SORTS = ("id", "kind", "circuit", "state", "watts", "limit_w", "setpoint_w", "age_s", "cause", "failures")


@dataclass(frozen=True, slots=True)
class LoadFilter:
    """Which rows are wanted; empty text means any."""

    text: str = ""
    """Found in the id, bank, circuit, rule, cause or fault."""
    kind: str = ""
    state: str = ""
    """A state of `domain.telemetry.LoadState`, or "fault"."""
    circuit: str = ""
    sort: str = ""
    """One of `SORTS`, with a leading "-" for descending; empty keeps the policy's order."""
    limit: int = 200
    offset: int = 0


class LoadTable:
    """Rows of all loads, fetched once per tick however many pages ask."""

    def __init__(self, rows: Callable[[], Sequence[Row]], version: Callable[[], int | None]) -> None:
        """`version` changes with every tick; None means that it is not known, and nothing is kept."""
        self._rows = rows
        self._version = version
        self._kept: tuple[int, Sequence[Row]] | None = None

    def page(self, wanted: LoadFilter) -> dict[str, Any]:
        """Return the rows of one page, and how many there are."""
        rows = self._all()
        found = [row for row in rows if _matches(row, wanted)]
        if wanted.sort:
            name = wanted.sort.removeprefix("-")
            known = [row for row in found if row[name] is not None]
            unknown = [row for row in found if row[name] is None]
            found = [*sorted(known, key=lambda row: row[name], reverse=wanted.sort.startswith("-")), *unknown]
        return {
            "total": len(rows),
            "matched": len(found),
            "states": dict(Counter(_state(row) for row in rows)),
            "rows": found[wanted.offset : wanted.offset + wanted.limit],
        }

    def _all(self) -> Sequence[Row]:
        version = self._version()
        if version is None:
            return self._rows()
        if self._kept is None or self._kept[0] != version:
            self._kept = (version, self._rows())
        return self._kept[1]


def _state(row: Row) -> str:
    return "fault" if row["fault"] is not None else str(row["state"] or "unknown")


def _matches(row: Row, wanted: LoadFilter) -> bool:
    if wanted.kind and row["kind"] != wanted.kind:
        return False
    if wanted.circuit and row["circuit"] != wanted.circuit:
        return False
    if wanted.state and _state(row) != wanted.state:
        return False
    text = wanted.text.casefold()
    return not text or any(
        text in str(row[field]).casefold()
        for field in ("id", "bank", "circuit", "rule", "cause", "fault")
        if row[field] is not None
    )
