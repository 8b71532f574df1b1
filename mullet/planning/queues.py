"""Loads in one order, and for every circuit its own part of it with running sums: asked in microseconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import cast, overload

import numpy as np
from numpy.typing import NDArray

from mullet.domain.facility import Facility
from mullet.domain.load import Load
from mullet.planning.index import index_of

_ATTRIBUTE = "_planning_roster"


class Head(Sequence[str]):
    """The first loads of a queue, by id; equal to any sequence of the same ids. Nothing is copied to make one."""

    __slots__ = ("_count", "_ids", "_order")

    def __init__(self, ids: Sequence[str], order: NDArray[np.int64], count: int) -> None:
        self._ids, self._order, self._count = ids, order, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[str, ...]: ...
    def __getitem__(self, number: int | slice) -> str | tuple[str, ...]:
        if isinstance(number, slice):
            return tuple(self._ids[k] for k in self._order[: self._count][number])
        if not -self._count <= number < self._count:
            raise IndexError(number)
        return self._ids[int(self._order[number % self._count])]

    def __iter__(self) -> Iterator[str]:
        return (self._ids[k] for k in islice(self._order, self._count))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(other) == self._count and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


@dataclass(frozen=True, slots=True)
class Queue:
    """The loads beneath one circuit, in order."""

    ids: Sequence[str]
    order: NDArray[np.int64]
    """Positions in `ids`."""
    sums: NDArray[np.float64]
    """Watts at the circuit of the loads up to and including each."""

    @property
    def load_ids(self) -> Head:
        """All loads."""
        return Head(self.ids, self.order, len(self.order))

    @property
    def freed_watts(self) -> tuple[float, ...]:
        """`sums` as plain numbers."""
        return tuple(self.sums.tolist())

    def least(self, watts: float) -> Head:
        """Return the shortest head that comes to at least `watts`, or all."""
        if watts <= 0.0:
            return Head(self.ids, self.order, 0)
        count = int(self.sums.searchsorted(watts - 1e-6)) + 1
        return Head(self.ids, self.order, min(count, len(self.order)))

    def most(self, watts: float) -> Head:
        """Return the longest head that comes to no more than `watts`."""
        return Head(self.ids, self.order, int(self.sums.searchsorted(watts + 1e-6, side="right")))

    def total(self, count: int) -> float:
        """Return the watts of the first `count` loads."""
        return float(self.sums[count - 1]) if count > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Roster:
    """All loads of a facility, group by group, and where each hangs. Derived once."""

    loads: tuple[Load, ...]
    ids: tuple[str, ...]
    lowest_watts: tuple[float, ...]
    """The most each load may draw at its lowest point."""
    group: NDArray[np.int64]
    """Group of each load."""
    by_id: NDArray[np.int64]
    """Place of each load in the order of ids."""
    path: NDArray[np.int16] | NDArray[np.int64]
    """[groups, depth] circuits from the grid connection down to the group's own; then the number of circuits."""
    factor: NDArray[np.float64]
    """[groups, depth] watts at that circuit per watt of the group."""
    circuits: tuple[str, ...]


def roster_of(facility: Facility) -> Roster:
    """Return the facility's roster, built at the first call and kept with the facility like its index."""
    found = facility.__dict__.get(_ATTRIBUTE)
    if found is None:
        found = _build(facility)
        facility.__dict__[_ATTRIBUTE] = found
    return cast(Roster, found)


def _build(facility: Facility) -> Roster:
    groups = index_of(facility).groups
    loads = tuple(load for item in groups for load in item.loads)
    ids = tuple(load.id for load in loads)
    by_id = np.empty(len(ids), dtype=np.int64)
    by_id[np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)] = np.arange(len(ids))
    nodes = {circuit.id: number for number, circuit in enumerate(facility.circuits)}
    depth = max((len(item.path) for item in groups), default=0)
    # Few enough circuits are sorted in linear time.
    kind = np.int16 if len(nodes) < 32_000 else np.int64
    path, factor = np.full((len(groups), depth), len(nodes), dtype=kind), np.zeros((len(groups), depth))
    for item in groups:
        path[item.number, : len(item.path)] = [nodes[node] for node in reversed(item.path)]
        factor[item.number, : len(item.path)] = item.factors[::-1]
    group = np.repeat(np.arange(len(groups)), [len(item.loads) for item in groups])
    lowest = tuple(load.most_at(load.lowest) for load in loads)
    return Roster(loads, ids, lowest, group, by_id, path, factor, tuple(nodes))


def make_queues(roster: Roster, ranked: NDArray[np.int64], watts: NDArray[np.float64]) -> Mapping[str, Queue]:
    """Return every circuit's queue of the `ranked` loads (positions in the roster); `watts` goes with `ranked`."""
    found: dict[str, Queue] = {}
    groups = roster.group[ranked]
    # Each circuit is met at one depth only, and a stable sort leaves its loads as they are ranked.
    for depth in range(roster.path.shape[1]):
        node = roster.path[groups, depth]
        order = np.argsort(node, kind="stable")
        members, shares = ranked[order], (watts * roster.factor[groups, depth])[order]
        start = np.searchsorted(node[order], np.arange(len(roster.circuits) + 1)).tolist()
        for number in np.unique(node).tolist():
            if number < len(roster.circuits):
                low, high = start[number], start[number + 1]
                found[roster.circuits[number]] = Queue(roster.ids, members[low:high], np.cumsum(shares[low:high]))
    empty = Queue(roster.ids, ranked[:0], watts[:0])
    return {circuit: found.get(circuit, empty) for circuit in roster.circuits}


def rank(keys: Iterable[tuple[float, ...]]) -> NDArray[np.int64]:
    """Return the place of each key among all different ones."""
    found = list(keys)
    places = {key: number for number, key in enumerate(sorted(set(found)))}
    return np.array([places[key] for key in found], dtype=np.int64)
