"""The increments between hull points, sorted once: what a watt of each is worth, and which is given power first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mullet.planning.fleet import Fleet, Floats, Ints

MICRO = 1e6
FUZZ = 1e-4
"""Of a microwatt: what the binary fraction of a decimal number of watts may add."""
RUN, NEW, FIRM = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Program:
    """The increments of all banks in the order in which each site is given power. Build with `prepare`."""

    fleet: Fleet
    worth: float
    band_per_watt: float
    micro: Floats
    """[P, K] microwatts at each point, whole."""
    lowest: Floats
    """[D] microwatts at each load's lowest point."""
    rank: Ints
    """[3, P, K] per stream, profile and hull position: place in the common order, best first."""
    worth_of: Floats
    """[R] by place: what a watt is worth, the deadband's half added or taken."""
    firm_per_watt: float
    """What keeping a watt above the floor is worth: more than anything else."""
    index: Ints
    """[E] stream, bank and hull position of each increment, as a flat index into [2, B, K]."""
    site: Ints
    key: Ints
    """[E] site and place: ascending."""
    each: Floats
    """[E] microwatts of one load's increment."""
    worth_each: Floats
    """[E] what a watt of it is worth."""
    place: NDArray[np.int32]
    """[E] its place in the common order."""
    flow_of: Ints
    """[R] by place: the stream."""
    bank: Ints
    """[E]"""
    step: Ints
    """[E] hull position to which the increment leads."""
    yields: Floats
    """[P, K] what a load yields at each point; the padding yields -inf, so that nothing moves there."""
    micro_across: Floats
    """[K, P] as `micro`; numpy goes through long rows faster than through many short ones."""
    watts_across: Floats
    """[K, P]"""
    yields_across: Floats
    """[K, P]"""
    offset: Ints
    """[D] where the load's profile begins in a flat [P, K]."""
    top: Ints
    """[D] each load's highest point."""
    node: Ints
    """[M] circuits that carry sites, the root's depth first: one entry for each site and circuit above it."""
    carried: Ints
    """[M] the site, as a position in `fleet.sites`."""
    carries: Floats
    """[M] watts at the circuit per watt at the site."""


def prepare(fleet: Fleet, worth: float = 1.0, band_per_watt: float = 0.0) -> Program:
    """Sort the increments. `worth` turns the fleet's values into money per hour.

    `band_per_watt` is the deadband in money per hour and watt: a watt that is drawn now is worth half of it more, one
    that is not half of it less, so nothing changes for less than the whole.

    Raises:
        ValueError: `worth` or `band_per_watt` is negative or no number.
    """
    if not (np.isfinite(worth) and worth >= 0.0 and np.isfinite(band_per_watt) and band_per_watt >= 0.0):
        raise ValueError(f"worth {worth} and band {band_per_watt} must be numbers of at least 0")
    kinds, most = fleet.watts.shape
    micro = np.ceil(fleet.watts * MICRO - FUZZ)
    at = np.maximum(fleet.hull, 0)
    watts, value = np.take_along_axis(fleet.watts, at, 1), np.take_along_axis(fleet.value, at, 1)
    steps = np.arange(most)[None, :] < fleet.hull_points[:, None]
    steps[:, 0] = False
    profile, position = np.nonzero(steps)
    rise = watts[profile, position] - watts[profile, position - 1]
    density = np.zeros((kinds, most))
    density[profile, position] = worth * (value[profile, position] - value[profile, position - 1]) / rise
    # Rounding must not make a later increment look better than the one it stands on.
    density[:, 1:] = np.minimum.accumulate(density[:, 1:], axis=1)
    classes = profile.size
    plain = density[profile, position]
    half = band_per_watt / 2.0
    firm = 1e3 * (1.0 + band_per_watt + (float(plain.max()) if classes else 0.0))
    adjusted = np.concatenate([plain + half, plain - half, plain + firm])
    stream = np.repeat(np.arange(3), classes)
    kind, place = np.tile(profile, 3), np.tile(position, 3)
    order = np.lexsort((place, kind, stream, -adjusted))
    rank = np.full((3, kinds, most), -1, dtype=np.int64)
    rank[stream[order], kind[order], place[order]] = np.arange(order.size)
    lengths = fleet.hull_points[fleet.bank_profile] - 1
    banks = lengths.size
    bank = np.repeat(np.arange(banks), lengths)
    step = np.arange(bank.size) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
    bank, step = np.tile(bank, 2), np.tile(step, 2)
    flow = np.repeat(np.array([RUN, NEW]), bank.size // 2)
    bank_profile, bank_site = fleet.bank_profile[bank], fleet.bank_site[bank]
    key = bank_site * max(1, order.size) + rank[flow, bank_profile, step]
    sort = np.argsort(key, kind="stable")
    hull_micro = np.take_along_axis(micro, at, 1)
    each = hull_micro[bank_profile, step] - hull_micro[bank_profile, step - 1]
    worth_of = adjusted[order]
    inside = fleet.above >= 0
    yields = np.where(np.arange(most)[None, :] >= fleet.points[:, None], -np.inf, worth * fleet.value)
    return Program(
        fleet=fleet,
        worth=worth,
        band_per_watt=band_per_watt,
        micro=micro,
        lowest=micro[fleet.profile, 0],
        rank=rank,
        worth_of=worth_of,
        firm_per_watt=firm,
        index=(flow * (banks * most) + bank * most + step)[sort],
        site=bank_site[sort],
        key=key[sort],
        each=each[sort],
        worth_each=worth_of[rank[flow, bank_profile, step]][sort],
        place=rank[flow, bank_profile, step][sort].astype(np.int32),
        flow_of=stream[order],
        bank=bank[sort],
        step=step[sort],
        yields=yields,
        micro_across=np.ascontiguousarray(micro.T),
        watts_across=np.ascontiguousarray(fleet.watts.T),
        yields_across=np.ascontiguousarray(yields.T),
        offset=fleet.profile * most,
        top=(fleet.points - 1)[fleet.profile],
        node=fleet.above[inside],
        carried=np.nonzero(inside)[1],
        carries=fleet.factor[inside],
    )


def root_factor(fleet: Fleet) -> Floats:
    """Return [L] the watts at the grid connection per watt at each site."""
    return fleet.factor[0] if fleet.factor.size else np.zeros(fleet.sites.size)


def at_circuits(program: Program, at_sites: Any) -> Floats:
    """Return [C] what `at_sites` [L] comes to at every circuit."""
    weights = program.carries * at_sites[program.carried]
    return np.bincount(program.node, weights=weights, minlength=program.fleet.circuits).astype(np.float64, copy=False)
