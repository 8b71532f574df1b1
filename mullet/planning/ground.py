"""What is moved on when whole loads are moved: where they stand, and the circuits that they answer to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mullet.planning.fleet import Bools, Fleet, Floats, Ints


@dataclass(slots=True)
class Ground:
    """Where the loads stand and what is left. Rows are loads of one bank with the same floor and ceiling."""

    fleet: Fleet
    at: Ints
    """[V, K] loads of each row at each point."""
    profile: Ints
    """[V]"""
    site: Ints
    """[V] position in `fleet.sites`."""
    floor: Ints
    """[V] point"""
    ceiling: Ints
    """[V] point"""
    running: Ints
    """[V, K] loads that stood at this hull position or above it before."""
    micro: Floats
    """[P, K] microwatts at each point."""
    given: Floats
    """[L] microwatts given above the lowest points."""
    left: Floats
    """[C] microwatts left."""
    paid: Floats
    """[L] what a watt at the site costs, and what it is worth to others above the circuit that the site answers to."""
    micro_across: Floats
    """[K, P]"""
    watts_across: Floats
    """[K, P]"""
    yields_across: Floats
    """[K, P] what a load yields at each point, -inf in the padding."""
    half: float
    """Half the deadband per watt."""


@dataclass(frozen=True, slots=True)
class Domains:
    """Each site answers to the circuit above it whose margin is worth most; these are at one depth."""

    of: Ints
    """[L] domain of the site, -1 for none of these."""
    circuit: Ints
    """[Q]"""
    price: Floats
    """[Q] what a watt there is worth, less what the circuits above it charge for it."""
    factor: Floats
    """[L] watts at the domain's circuit per watt at the site."""
    depth: int


def find_domains(fleet: Fleet, price: Floats) -> tuple[Ints, Floats, Floats]:
    """Return [L] the depth of the circuit whose margin is worth most to each site, -1 where nothing binds.

    With it, [L] what a watt at the site is worth there, and [L] what it is worth at the circuits above that one.
    """
    inside = fleet.above >= 0
    worth = np.where(inside, price[np.maximum(fleet.above, 0)] * fleet.factor, 0.0)
    depths, sites = worth.shape
    if not depths or not sites:
        return np.full(sites, -1, dtype=np.int64), np.zeros(sites), np.zeros(sites)
    # Of equal margins the circuit nearest to the grid: one search then looks at all loads beneath it.
    depth = np.argmax(worth, axis=0)
    best = worth[depth, np.arange(sites)]
    higher = np.where(np.arange(depths)[:, None] < depth[None, :], worth, 0.0).max(axis=0)
    return np.where(best > 0.0, depth, -1), best, higher


def make_domains(fleet: Fleet, depth: int, chosen: Bools, best: Floats, higher: Floats) -> Domains:
    """Return the circuits at `depth` that the `chosen` sites [L] answer to."""
    circuit = np.where(chosen, fleet.above[depth], -1)
    sites = np.flatnonzero(chosen)
    site_at = np.full(fleet.circuits, -1, dtype=np.int64)
    # Written last to first, so that each circuit's first site stays.
    site_at[circuit[sites[::-1]]] = sites[::-1]
    known = site_at >= 0
    circuits, site = np.flatnonzero(known), site_at[known]
    of = np.where(chosen, (np.cumsum(known) - 1)[circuit], -1)
    factor = fleet.factor[depth]
    return Domains(of, circuits, (best[site] - higher[site]) / factor[site], factor, depth)
