"""Made-up fleets in arrays, from ten loads to a hundred thousand, with limits that bind somewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mullet.planning.fleet import Fleet, make_fleet

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Yard:
    """A fleet and what it was made from, so that answers can be judged without it."""

    fleet: Fleet
    parent: Ints
    """(C,)"""
    circuit: Ints
    """(D,)"""
    profile: Ints
    """(D,)"""
    watts: Floats
    """(P, K)"""
    value: Floats
    """(P, K) TH/s"""
    points: Ints
    """(P,)"""
    follow: Floats
    """(C,)"""
    limits: Floats
    """(C,)"""

    def drawn(self, load_watts: Floats) -> Floats:
        """Return (C,) power at every circuit where each load draws `load_watts`, following auxiliaries included."""
        raw = np.bincount(self.circuit, weights=load_watts, minlength=len(self.parent))
        total = np.zeros(len(self.parent))
        for node in range(len(self.parent) - 1, -1, -1):
            total[node] += raw[node] * (1.0 + self.follow[node])
            if self.parent[node] >= 0:
                raw[self.parent[node]] += raw[node]
                total[self.parent[node]] += total[node] - raw[node]
        return total


def make_yard(loads: int, profiles: int, seed: int, breakers_share: tuple[float, float]) -> Yard:
    """Return a yard under a tree of four levels: connection, feeders, PDUs, breakers of some 40 loads each.

    Profiles have up to eight points; some are not concave. With `profiles` = `loads` no two loads are alike. Breakers'
    limits are drawn between the two shares of what their loads can draw, others between 0.85 and 1.1 of it.
    """
    draw = np.random.default_rng(seed)
    breakers = max(1, loads // 40)
    pdus, feeders = max(1, breakers // 12), max(1, breakers // 120)
    nodes = 1 + feeders + pdus + breakers
    parent = np.full(nodes, -1)
    parent[1 : 1 + feeders] = 0
    parent[1 + feeders : 1 + feeders + pdus] = 1 + np.arange(pdus) * feeders // pdus
    parent[1 + feeders + pdus :] = 1 + feeders + np.arange(breakers) * pdus // breakers
    circuit = 1 + feeders + pdus + np.arange(loads) * breakers // loads
    kinds = np.arange(loads) if profiles >= loads else draw.integers(0, profiles, loads)
    yard = _yard(draw, parent, circuit, kinds, min(profiles, loads), np.zeros(nodes), (0.85, 1.1))
    full = yard.drawn(yard.watts[:, -1][yard.profile])
    yard.limits[1 + feeders + pdus :] = full[1 + feeders + pdus :] * draw.uniform(*breakers_share, breakers)
    return yard


def random_yard(seed: int) -> Yard:
    """Return a small yard of any shape: deep or flat trees, auxiliaries that follow, limits of 0, any points."""
    draw = np.random.default_rng(seed)
    nodes = int(draw.integers(1, 9))
    parent = np.array([-1, *(int(draw.integers(0, k)) for k in range(1, nodes))])
    loads = int(draw.integers(0, 40))
    kinds = int(draw.integers(1, 6))
    follow = np.where(draw.random(nodes) < 0.3, draw.uniform(0.0, 0.4, nodes), 0.0)
    tightness = float(draw.uniform(0.05, 1.0))
    yard = _yard(
        draw, parent, draw.integers(0, nodes, loads), draw.integers(0, kinds, loads), kinds, follow, (tightness, 1.1)
    )
    yard.limits[draw.random(nodes) < 0.1] = 0.0
    return yard


def _yard(
    draw: np.random.Generator,
    parent: Ints,
    circuit: Ints,
    profile: Ints,
    kinds: int,
    follow: Floats,
    limits: tuple[float, float],
) -> Yard:
    points = draw.integers(2, 9, kinds)
    watts, value = np.zeros((kinds, 8)), np.zeros((kinds, 8))
    for kind in range(kinds):
        count = int(points[kind])
        power = np.sort(draw.uniform(0.45, 1.25, count - 1))
        nominal = float(draw.uniform(2_800.0, 3_700.0))
        j_per_th = float(draw.uniform(17.0, 31.0))
        hashes = 1.0 - 0.45 * (1.0 - power) - 0.35 * (power - 1.0) ** 2 + draw.normal(0.0, 0.01, count - 1)
        watts[kind, :count] = [20.0, *np.round(nominal * power, 1)]
        value[kind, :count] = [0.0, *(nominal / j_per_th * hashes)]
        watts[kind, count:], value[kind, count:] = watts[kind, count - 1], value[kind, count - 1]
    fleet = make_fleet(parent, circuit, profile, watts, value, points, follow)
    empty = np.zeros(len(parent))
    yard = Yard(fleet, parent, circuit, profile, watts, value, points, follow, empty)
    full = yard.drawn(watts[profile, points[profile] - 1] if len(profile) else np.zeros(0))
    empty[:] = full * draw.uniform(*limits, len(parent))
    return yard
