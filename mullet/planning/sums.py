"""What a plan's counts add up to at every circuit, all intervals at once: for judging plans of many groups quickly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from mullet.domain.load import LoadKind
from mullet.domain.plan import PlanInterval
from mullet.planning.index import GroupIndex

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Sums over the groups of a facility; G groups, C circuits, T intervals."""

    loads: Floats
    """(G, T) Loads that each group places."""
    placed_watts: Floats
    """(C, T) Most draw of all loads where they are placed, with the auxiliaries that follow."""
    loads_watts: Floats
    """(C, T) The same without auxiliaries."""
    lowest_watts: Floats
    """(C, T) Draw of all loads at their lowest points, with auxiliaries."""
    mining_watts: Floats
    """(T,) Most draw of all miners."""
    mining_on: Floats
    """(T,) Miners above their lowest points."""


def well_formed(interval: PlanInterval, index: Mapping[str, GroupIndex], sizes: Sequence[int]) -> bool:
    """Return whether the interval has whole counts, none below 0, for each point of each group; `sizes` by `index`."""
    if interval.counts.keys() != index.keys():
        return False
    rows = [interval.counts[key] for key in index]
    if list(map(len, rows)) != list(sizes):
        return False
    kinds = set(map(type, chain.from_iterable(rows)))
    return kinds <= {int} and min(map(min, rows), default=0) >= 0


def add_up(intervals: Sequence[PlanInterval], index: Mapping[str, GroupIndex], circuits: Sequence[str]) -> Sums:
    """Return the sums of intervals that are all `well_formed`."""
    items = list(index.values())
    row = {node: number for number, node in enumerate(circuits)}
    sizes = [len(item.most_watts) for item in items]
    first = np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(np.int64) if items else np.zeros(0, dtype=np.int64)
    flat = [list(chain.from_iterable(map(interval.counts.__getitem__, index))) for interval in intervals]
    counts = np.array(flat, dtype=np.float64).T
    most = np.concatenate([np.array(item.most_watts) for item in items])[:, None]
    watts = np.add.reduceat(counts * most, first, axis=0)
    loads = np.add.reduceat(counts, first, axis=0)
    above = loads - counts[first]
    beneath, following = np.zeros((len(circuits), len(items))), np.zeros((len(circuits), len(items)))
    for number, item in enumerate(items):
        for node, factor in zip(item.path, item.factors, strict=True):
            beneath[row[node], number] = 1.0
            following[row[node], number] = factor
    mines = np.array([item.group.kind is LoadKind.MINER for item in items])
    return Sums(
        loads=loads,
        placed_watts=following @ watts,
        loads_watts=beneath @ watts,
        lowest_watts=following @ (loads * most[first]),
        mining_watts=watts[mines].sum(axis=0),
        mining_on=above[mines].sum(axis=0),
    )
