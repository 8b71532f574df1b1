"""The truth log and the claims, read from JSON lines into series that can be asked about any instant."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

LONGEST_SAMPLE_GAP_S = 1.0
"""Power is written ten times a second; a hole longer than this is reported, never bridged silently."""

Record = dict[str, Any]


class UnreadableRecord(ValueError):
    """The log has no header or is not what docs/wire.md says; the message names the line."""


@dataclass(slots=True)
class Steps:
    """A value that holds from each instant until the next one."""

    times: list[float] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def add(self, t: float, value: Any) -> None:
        at = bisect_right(self.times, t)
        self.times.insert(at, t)
        self.values.insert(at, value)

    def at(self, t: float) -> Any:
        """The value in force at t; None before the first."""
        i = bisect_right(self.times, t)
        return self.values[i - 1] if i else None

    def between(self, start: float, end: float) -> list[tuple[float, Any]]:
        """Changes in (start, end]."""
        lo, hi = bisect_right(self.times, start), bisect_right(self.times, end)
        return list(zip(self.times[lo:hi], self.values[lo:hi], strict=True))


@dataclass(frozen=True, slots=True)
class TruthLoad:
    kind: str
    circuit: str
    service: str | None


@dataclass(slots=True)
class Truth:
    """What physically happened, from the simulator's own log. Watts, Unix seconds."""

    start: float
    end: float
    parents: dict[str, str | None]
    loads: dict[str, TruthLoad]
    times: list[float]
    load_watts: list[array[float]]
    """One row per sample, one column per load in header order."""
    column: dict[str, int]
    circuit_watts: dict[str, list[float]]
    """All that is drawn beneath each circuit, unmanaged load included; one value per sample."""
    limits: dict[str, Steps]
    announced: list[Record]
    caps: dict[str, Steps]
    states: dict[str, Steps]
    disturbed: dict[str, Steps]
    """State changes and faults of each load: what may end a claim without any command."""
    events: list[Record]
    pools: dict[str, Record | None]
    """Digest and count of each miner's pool list at the start; None where the header does not tell."""
    pool_changes: list[Record]
    gaps: list[Record]

    def above(self, circuit: str) -> list[str]:
        """The circuit itself and every circuit over it, lowest first."""
        path: list[str] = []
        at: str | None = circuit
        while at is not None:
            path.append(at)
            at = self.parents[at]
        return path

    def beneath(self, circuit: str, kind: str) -> list[int]:
        """Columns of the loads of one kind anywhere beneath the circuit."""
        return [
            self.column[name]
            for name, load in self.loads.items()
            if load.kind == kind and circuit in self.above(load.circuit)
        ]

    def sample_before(self, t: float) -> int | None:
        """Index of the sample in force at t (the first sample where none is older)."""
        if not self.times:
            return None
        return max(0, bisect_right(self.times, t) - 1)

    def samples(self, start: float, end: float) -> range:
        """Indices of the samples in [start, end]."""
        return range(bisect_left(self.times, start), bisect_right(self.times, end))

    def watts(self, load: str, sample: int) -> float:
        return self.load_watts[sample][self.column[load]]


@dataclass(slots=True)
class Claims:
    """What the daemon says that it did, as exported from its journal."""

    commands: list[Record]
    outcomes: list[Record]
    budgets: list[Record]


def parse_lines(lines: Iterable[str]) -> tuple[list[Record], list[int]]:
    """The objects of a JSON lines text, and the numbers of the lines that are none."""
    records: list[Record] = []
    bad: list[int] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if isinstance(record, dict) and record.get("type") == "power":
                record["w"] = array("d", record["w"])
        except (ValueError, KeyError, TypeError):
            bad.append(number)
            continue
        if isinstance(record, dict) and isinstance(record.get("t"), int | float) and "type" in record:
            records.append(record)
        else:
            bad.append(number)
    return records, bad


def read_truth(lines: Iterable[str]) -> Truth:
    """The truth log as series. Raises UnreadableRecord without a usable header."""
    records, bad = parse_lines(lines)
    header = next((r for r in records if r["type"] == "header"), None)
    if header is None:
        raise UnreadableRecord("the truth log has no header")
    truth = _empty_truth(header)
    unmanaged: list[dict[str, float]] = []
    footer: float | None = None
    for r in sorted((r for r in records if r is not header), key=lambda r: float(r["t"])):
        if r["type"] == "footer":
            footer = r["t"]
        elif r["type"] == "power":
            if len(r["w"]) != len(truth.loads):
                raise UnreadableRecord(f"a power record at {r['t']} has {len(r['w'])} loads")
            truth.times.append(r["t"])
            truth.load_watts.append(r["w"])
            unmanaged.append(r.get("unmanaged") or {})
        else:
            _keep(truth, r)
    truth.end = max([truth.start, *truth.times[-1:], *([footer] if footer is not None else [])])
    _sum_circuits(truth, unmanaged)
    truth.gaps.extend(_find_gaps(truth, footer, bad))
    return truth


def read_claims(lines: Iterable[str]) -> Claims:
    """The daemon's claims in order of time. Raises UnreadableRecord on a line that is no record."""
    records, bad = parse_lines(lines)
    if bad:
        raise UnreadableRecord(f"the claims have a line that is no record: {bad[0]}")
    records.sort(key=lambda r: float(r["t"]))

    def of(kind: str) -> list[Record]:
        return [r for r in records if r["type"] == kind]

    return Claims(of("command"), of("outcome"), of("budget"))


def _empty_truth(header: Record) -> Truth:
    circuits: dict[str, Record] = header["circuits"]
    start = float(header["t"])
    loads = {
        name: TruthLoad(kind=load["kind"], circuit=load["circuit"], service=load.get("service"))
        for name, load in header["loads"].items()
    }
    for name, load in loads.items():
        if load.circuit not in circuits:
            raise UnreadableRecord(f"load {name} is on an unknown circuit {load.circuit}")
    limits = {name: Steps() for name in circuits}
    for name, circuit in circuits.items():
        limits[name].add(start, float(circuit["limit_w"]))
    return Truth(
        start=start,
        end=start,
        parents={name: circuit.get("parent") for name, circuit in circuits.items()},
        loads=loads,
        times=[],
        load_watts=[],
        column={name: i for i, name in enumerate(loads)},
        circuit_watts={name: [] for name in circuits},
        limits=limits,
        announced=[],
        caps={name: Steps() for name in loads},
        states={name: Steps() for name in loads},
        disturbed={name: Steps() for name in loads},
        events=[],
        pools={name: load.get("pools") for name, load in header["loads"].items() if load["kind"] == "miner"},
        pool_changes=[],
        gaps=[],
    )


def _keep(truth: Truth, record: Record) -> None:
    t, kind = float(record["t"]), record["type"]
    if kind == "cap":
        truth.caps[record["load"]].add(t, float(record["cap_w"]))
    elif kind == "state":
        truth.states[record["load"]].add(t, record["state"])
        truth.disturbed[record["load"]].add(t, record["state"])
    elif kind == "limit":
        truth.limits[record["circuit"]].add(t, float(record["limit_w"]))
        truth.announced.append(record)
    elif kind == "pools":
        truth.pool_changes.append(record)
    elif kind == "event":
        truth.events.append(record)
        if record["kind"] == "fault" and record.get("load") in truth.disturbed:
            truth.disturbed[record["load"]].add(t, record.get("fault"))


def _sum_circuits(truth: Truth, unmanaged: list[dict[str, float]]) -> None:
    columns = {circuit: truth.beneath(circuit, "miner") + truth.beneath(circuit, "gpu") for circuit in truth.parents}
    paths = {circuit: truth.above(circuit) for circuit in truth.parents}
    for row, extra in zip(truth.load_watts, unmanaged, strict=True):
        sums = {circuit: sum([row[i] for i in columns[circuit]]) for circuit in columns}
        for at, watts in extra.items():
            for circuit in paths[at]:
                sums[circuit] += watts
        for circuit, watts in sums.items():
            truth.circuit_watts[circuit].append(watts)


def _find_gaps(truth: Truth, footer: float | None, bad_lines: list[int]) -> list[Record]:
    gaps: list[Record] = [{"why": "line is no record", "line": line} for line in bad_lines]
    edges = [truth.start, *truth.times, *([footer] if footer is not None else [])]
    for before, after in pairwise(edges):
        if after - before > LONGEST_SAMPLE_GAP_S:
            gaps.append(
                {
                    "why": "no power samples",
                    "at_s": round(before - truth.start, 3),
                    "seconds": round(after - before, 3),
                }
            )
    if not truth.times:
        gaps.append({"why": "no power samples", "at_s": 0.0, "seconds": round(truth.end - truth.start, 3)})
    if footer is None:
        gaps.append({"why": "no footer", "at_s": round(truth.end - truth.start, 3), "seconds": None})
    return gaps
