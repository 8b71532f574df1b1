"""Truth log: what physically happened, as JSON lines (schema in docs/wire.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

LOAD_STATES = frozenset({"hashing", "asleep", "stopping", "starting", "dead", "lost"})
POOL_CAUSES = frozenset({"fault", "request"})


class TruthLog:
    """Writes the truth log; without a path it counts records and writes nothing.

    Raises OSError where the file cannot be opened.
    """

    def __init__(self, now: Callable[[], float], path: Path | None = None) -> None:
        self._now = now
        self._file: TextIO | None = None if path is None else path.open("w", encoding="utf-8")
        self.records = 0
        self.closed = False

    def header(
        self,
        seed: int,
        circuits: Mapping[str, Mapping[str, Any]],
        loads: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Name the circuits and the loads; the order of `loads` is the order of every power record."""
        self._write("header", {"seed": seed, "circuits": circuits, "loads": loads}, flush=True)

    def power(self, watts: list[float], unmanaged: Mapping[str, float]) -> None:
        """Watts of each load in header order, and unmanaged watts by circuit."""
        self._write("power", {"w": watts, "unmanaged": unmanaged}, flush=True)

    def cap(self, load: str, cap_w: float) -> None:
        """A GPU's enforced power limit in watts has changed."""
        self._write("cap", {"load": load, "cap_w": cap_w})

    def state(self, load: str, state: str) -> None:
        """A load's true state has changed. Raises ValueError for a state the schema does not know."""
        if state not in LOAD_STATES:
            raise ValueError(f"no such load state: {state}")
        self._write("state", {"load": load, "state": state})

    def limit(self, circuit: str, limit_w: float, announced_at: float) -> None:
        """A circuit's true limit in watts is another from now on."""
        self._write("limit", {"circuit": circuit, "limit_w": limit_w, "announced_at": announced_at})

    def event(self, kind: str, **detail: Any) -> None:
        """Something happened to the facility: price_spike, demand_step, limit_cut, fault."""
        self._write("event", {"kind": kind, **detail})

    def request(self, load: str, verb: str, answer: str) -> None:
        """A device received a control request and answered "ok", "refused" or "none"."""
        self._write("request", {"load": load, "verb": verb, "answer": answer})

    def pools(self, load: str, digest: str, count: int, cause: str) -> None:
        """A miner's pool list is another: its digest, how many of its pools have a URL, "fault" or "request".

        Flushed at once, as it must be on record whatever becomes of the process. Raises ValueError for another cause.
        """
        if cause not in POOL_CAUSES:
            raise ValueError(f"no such cause of a change of pools: {cause}")
        self._write("pools", {"load": load, "digest": digest, "count": count, "cause": cause}, flush=True)

    def footer(self) -> None:
        """The clean end: write it and close. Harmless when repeated."""
        if self.closed:
            return
        self._write("footer", {}, flush=True)
        self.close()

    def close(self) -> None:
        """Close without a footer, as after a failure."""
        self.closed = True
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, kind: str, body: Mapping[str, Any], *, flush: bool = False) -> None:
        self.records += 1
        if self._file is None:
            return
        record = {"t": round(self._now(), 4), "type": kind, **body}
        self._file.write(json.dumps(record, separators=(",", ":")) + "\n")
        if flush:
            self._file.flush()
