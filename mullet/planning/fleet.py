"""Loads, operating points and circuits as arrays: what the knapsack needs of a facility, derived once.

Indices run over circuits (C), loads (D), profiles (P: loads with the same operating points) and points (K, padded).
A bank is all loads with the same circuit and profile; a site is a circuit that loads hang on directly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything about loads and circuits that no tick changes. Build with `make_fleet`."""

    circuit: Ints
    """[D] circuit of each load."""
    profile: Ints
    """[D] profile of each load."""
    watts: Floats
    """[P, K] the most a load draws at each point, ascending; padded with the last point."""
    value: Floats
    """[P, K] what a load yields there, in any unit (see `knapsack.prepare`); padded with the last point."""
    points: Ints
    """[P] number of points."""
    hull: Ints
    """[P, K] points on the upper concave hull, ascending; padded with -1."""
    hull_points: Ints
    """[P] number of points on the hull."""
    snapped: Ints
    """[P, K] per point: the highest hull position that draws no more than it."""
    tie: Ints
    """[D] order of loads that are equal in everything else."""
    circuits: int
    sites: Ints
    """[L] circuits that loads hang on directly, ascending."""
    above: Ints
    """[T, L] the circuit at depth t above (or at) each site, -1 where the site is less deep; the root is t = 0."""
    factor: Floats
    """[T, L] watts at that circuit per watt at the site, auxiliaries that follow included; 0 where there is none."""
    bank_site: Ints
    """[B] position in `sites`."""
    bank_profile: Ints
    """[B]"""
    bank: Ints
    """[D] bank of each load."""
    site: Ints
    """[D] position of each load's circuit in `sites`."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How the loads stand at one instant, [D] each; points are counted from 0, the lowest."""

    level: Ints
    """Point at which the load stands, or to which the latest command takes it."""
    movable: Bools
    """What is False is left alone: held, silent, blocked. It counts at `draw_watts`."""
    floor: Ints
    """Point below which only a limit may take the load: its least time on, no cycle left today."""
    ceiling: Ints
    """Point above which the load may not go: its least time off."""
    cycles: Floats
    """Economic stops within a day: of equals, the worn are left running and the spared are started."""
    changed_at: Floats
    """Instant of the last change, 0 where there was none."""
    draw_watts: Floats
    """The most that the load may draw where it is not movable."""


def make_fleet(
    parent: Any,
    circuit: Any,
    profile: Any,
    watts: Any,
    value: Any,
    points: Any = None,
    follow: Any = None,
    tie: Any = None,
) -> Fleet:
    """Derive a fleet.

    `parent` [C]: circuit above each, -1 at a root. `circuit`, `profile` [D]. `watts`, `value` [P, K]. `points` [P]:
    how many of the K columns are used (all if None). `follow` [C]: auxiliary watts per watt of load beneath the
    circuit. `tie` [D]: order among equals (the loads' own order if None).

    Raises:
        ValueError: shapes do not fit, an index is out of range, circuits form a ring, a profile's watts are not
            ascending, or a number is not finite.
    """
    parents, circuits, profiles = (np.asarray(a, dtype=np.int64) for a in (parent, circuit, profile))
    power, worth = np.array(watts, dtype=np.float64), np.array(value, dtype=np.float64)
    if power.ndim != 2 or power.shape != worth.shape or power.shape[1] < 1:
        raise ValueError(f"watts {power.shape} and value {worth.shape} must both be (profiles, points)")
    kinds, most = power.shape
    count = np.full(kinds, most, dtype=np.int64) if points is None else np.asarray(points, dtype=np.int64)
    if count.shape != (kinds,) or np.any(count < 1) or np.any(count > most):
        raise ValueError("each profile needs between 1 and K points")
    if circuits.shape != profiles.shape or circuits.ndim != 1:
        raise ValueError("circuit and profile must have one entry per load")
    _check_range("circuit", circuits, parents.size)
    _check_range("profile", profiles, kinds)
    column = np.minimum(np.arange(most)[None, :], count[:, None] - 1)
    power, worth = np.take_along_axis(power, column, 1), np.take_along_axis(worth, column, 1)
    bad = ~(np.isfinite(power).all(axis=1) & np.isfinite(worth).all(axis=1))
    if bad.any():
        raise ValueError(f"profile {int(np.argmax(bad))} has a point that is no number")
    bad = (np.diff(power, axis=1) < 0.0).any(axis=1)
    if bad.any():
        raise ValueError(f"the points of profile {int(np.argmax(bad))} are not ascending in watts")
    follows = np.zeros(parents.size) if follow is None else np.asarray(follow, dtype=np.float64)
    sites, site_of = np.unique(circuits, return_inverse=True)
    above, factor = _paths(parents, follows, sites)
    keys, bank = np.unique(site_of.astype(np.int64) * kinds + profiles, return_inverse=True)
    hull, hull_points, snapped = _hulls(power, worth, count)
    return Fleet(
        circuit=circuits,
        profile=profiles,
        watts=power,
        value=worth,
        points=count,
        hull=hull,
        hull_points=hull_points,
        snapped=snapped,
        tie=np.arange(circuits.size, dtype=np.int64) if tie is None else np.asarray(tie, dtype=np.int64),
        circuits=int(parents.size),
        sites=sites,
        above=above,
        factor=factor,
        bank_site=keys // kinds,
        bank_profile=keys % kinds,
        bank=bank.astype(np.int64),
        site=site_of.astype(np.int64),
    )


def make_standing(fleet: Fleet, level: Any = None, **known: Any) -> Standing:
    """Return how the loads stand; what is not given is the plainest: all movable, at their lowest point, never worn.

    Raises:
        ValueError: an array has not one entry per load, or a level, floor or ceiling is not one of the load's points.
    """
    loads = fleet.circuit.size
    top = fleet.points[fleet.profile] - 1
    here = np.zeros(loads, dtype=np.int64) if level is None else np.asarray(level, dtype=np.int64)
    defaults: dict[str, Any] = {
        "movable": np.ones(loads, dtype=np.bool_),
        "floor": np.zeros(loads, dtype=np.int64),
        "ceiling": top,
        "cycles": np.zeros(loads),
        "changed_at": np.zeros(loads),
        "draw_watts": None,
    }
    unknown = set(known) - set(defaults)
    if unknown:
        raise TypeError(f"unknown: {', '.join(sorted(unknown))}")
    given = {name: known[name] if known.get(name) is not None else value for name, value in defaults.items()}
    for name, array in (("level", here), ("floor", given["floor"]), ("ceiling", given["ceiling"])):
        array = np.asarray(array)
        if array.shape != (loads,) or np.any(array < 0) or np.any(array > top):
            raise ValueError(f"{name} must name one of its points for each of {loads} loads")
    if given["draw_watts"] is None:
        given["draw_watts"] = fleet.watts[fleet.profile, here]
    for name in ("movable", "cycles", "changed_at", "draw_watts"):
        if np.shape(given[name]) != (loads,):
            raise ValueError(f"{name} needs one entry for each of {loads} loads")
    return Standing(
        level=here,
        movable=np.asarray(given["movable"], dtype=np.bool_),
        floor=np.asarray(given["floor"], dtype=np.int64),
        ceiling=np.asarray(given["ceiling"], dtype=np.int64),
        cycles=np.asarray(given["cycles"], dtype=np.float64),
        changed_at=np.asarray(given["changed_at"], dtype=np.float64),
        draw_watts=np.asarray(given["draw_watts"], dtype=np.float64),
    )


def _check_range(name: str, array: Ints, size: int) -> None:
    if array.size and (int(array.min()) < 0 or int(array.max()) >= size):
        raise ValueError(f"{name} names {int(array.max())} and {int(array.min())}, there are {size}")


def _paths(parents: Ints, follows: Floats, sites: Ints) -> tuple[Ints, Floats]:
    """Return [T, L] circuits above each site by depth and the watts there per watt at the site."""
    chain = [sites]
    while True:
        last = chain[-1]
        nxt = np.where(last >= 0, parents[np.maximum(last, 0)], -1)
        if not (nxt >= 0).any():
            break
        if len(chain) > parents.size:
            raise ValueError("circuits form a ring")
        chain.append(nxt)
    upward = np.stack(chain) if sites.size else np.zeros((1, 0), dtype=np.int64)
    added = np.where(upward >= 0, follows[np.maximum(upward, 0)], 0.0) if parents.size else np.zeros(upward.shape)
    factors = np.where(upward >= 0, 1.0 + np.cumsum(added, axis=0), 0.0)
    length = (upward >= 0).sum(axis=0)
    # From "steps above the site" to "depth beneath the root".
    depths = np.arange(upward.shape[0])[:, None]
    source = length[None, :] - 1 - depths
    inside = source >= 0
    source = np.maximum(source, 0)
    above = np.where(inside, np.take_along_axis(upward, source, 0), -1)
    return above, np.where(inside, np.take_along_axis(factors, source, 0), 0.0)


def _hulls(watts: Floats, value: Floats, count: Ints) -> tuple[Ints, Ints, Ints]:
    """Return hull points, their number, and per point the highest hull position at or below it, for every profile."""
    kinds, most = watts.shape
    rows = np.arange(kinds)
    hull = np.full((kinds, most), -1, dtype=np.int64)
    hull[:, 0] = 0
    at, length = np.zeros(kinds, dtype=np.int64), np.ones(kinds, dtype=np.int64)
    for position in range(1, most):
        more_watts, more_value = watts - watts[rows, at][:, None], value - value[rows, at][:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.where((more_watts > 0.0) & (more_value > 0.0), more_value / more_watts, -np.inf)
        # Of equal slopes the farthest: a point on the line between two others changes nothing.
        best = np.minimum(most - 1 - np.argmax(slope[:, ::-1], axis=1), count - 1)
        goes = slope[rows, best] > -np.inf
        if not goes.any():
            break
        hull[goes, position] = best[goes]
        at = np.where(goes, best, at)
        length += goes
    padded = np.where(hull >= 0, np.take_along_axis(watts, np.maximum(hull, 0), 1), np.inf)
    snapped = (padded[:, None, :] <= watts[:, :, None]).sum(axis=2) - 1
    return hull, length, np.maximum(snapped, 0)
