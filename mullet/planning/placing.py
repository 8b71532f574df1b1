"""From counts of loads at points to the loads themselves, and what that yields."""

from __future__ import annotations

import numpy as np

from mullet.planning.crowd import Crowd
from mullet.planning.fleet import Floats, Ints, Standing
from mullet.planning.giving import Stock, taken_of
from mullet.planning.increments import Program, at_circuits, root_factor


def counts_of(program: Program, crowd: Crowd, stock: Stock, sites: Ints | None = None) -> tuple[Ints, Ints]:
    """Return rows and [rows, K] how many of their loads the increments given so far put at each point.

    All rows, or those of some `sites`, ascending.
    """
    fleet = program.fleet
    most = fleet.watts.shape[1]
    taken = taken_of(stock)
    given = np.flatnonzero(taken > 0.0)
    number = stock.row[given]
    rows = np.arange(crowd.bank.size)
    if sites is not None:
        wanted = np.zeros(fleet.sites.size, dtype=np.bool_)
        wanted[sites] = True
        row_wanted = wanted[fleet.bank_site[crowd.bank]]
        rows = np.flatnonzero(row_wanted)
        local = np.cumsum(row_wanted) - 1
        here = row_wanted[number]
        given, number = given[here], number[here]
        line = local[number] * most
    else:
        line = number * most
    # An increment takes its loads from the hull position beneath.
    place = fleet.bank_profile[crowd.bank[number]] * most + stock.step[given]
    hull, moved = fleet.hull.ravel(), taken[given]
    ends = np.concatenate([line + hull[place], line + hull[place - 1]])
    change = np.bincount(ends, weights=np.concatenate([moved, -moved]), minlength=rows.size * most)
    at = change.astype(np.int64).reshape(rows.size, most)
    at[:, 0] += crowd.running[rows, 0]
    return rows, at


def place(program: Program, standing: Standing, crowd: Crowd, at: Ints) -> Ints:
    """Return [D] points: of equals, the worn and the lately started go on running, the spared are started."""
    most = at.shape[1]
    level = standing.level.copy()
    now = standing.level[crowd.who]
    # Rows whose loads stand as they shall stay as they are; only rows with loads at several points have to choose.
    standing_at = np.bincount(crowd.of * most + now, minlength=at.size)
    changed = np.zeros(at.shape[0], dtype=np.bool_)
    changed[np.flatnonzero(standing_at != at.ravel()) // most] = True
    moved = np.flatnonzero(changed[crowd.of])
    if not moved.size:
        return level
    full = np.flatnonzero(at.ravel() > 0)
    row, point = full // most, full % most
    wanted = np.zeros(at.shape[0], dtype=np.int64)
    wanted[row] = point
    level[crowd.who[moved]] = wanted[crowd.of[moved]]
    mixed = changed & (np.bincount(row, minlength=at.shape[0]) > 1)
    some = np.flatnonzero(mixed[crowd.of])
    if some.size:
        who, row = crowd.who[some], crowd.of[some]
        sign = np.where(now[some] > 0, -1.0, 1.0)
        keys = (
            program.fleet.tie[who],
            sign * standing.changed_at[who],
            sign * standing.cycles[who],
            -now[some],
            row,
        )
        order = np.lexsort(keys)
        who, row = who[order], row[order]
        # The first in line get the highest points of their row.
        rows = np.flatnonzero(mixed)
        downward = at[rows, ::-1]
        points = np.tile(np.arange(most - 1, -1, -1), rows.size)
        level[who] = np.repeat(points, downward.ravel())
    return level


def may_stay(program: Program, standing: Standing, crowd: Crowd, limits: Floats) -> bool:
    """Return whether the loads may stand where they stand."""
    fleet = program.fleet
    watts = fleet.watts.ravel()[program.offset + standing.level]
    watts = np.where(standing.movable, watts, standing.draw_watts)
    used = at_circuits(program, np.bincount(fleet.site, weights=watts, minlength=fleet.sites.size))
    if (used > limits).any():
        return False
    level = standing.level[crowd.who]
    return bool((level >= standing.floor[crowd.who]).all() and (level <= standing.ceiling[crowd.who]).all())


def earned(program: Program, standing: Standing, level: Ints, cost: float) -> tuple[float, float]:
    """Return what the movable loads yield less their energy, and what keeping loads as they are is worth."""
    fleet = program.fleet
    moved = standing.movable
    watts = fleet.watts.ravel()[program.offset + level]
    site_paid = cost * root_factor(fleet)
    yields = program.yields.ravel()[program.offset + level] - site_paid[fleet.site] * watts
    yielded = float(yields[moved].sum())
    if program.band_per_watt <= 0.0:
        return yielded, 0.0
    stood = fleet.watts[fleet.profile, fleet.hull[fleet.profile, fleet.snapped[fleet.profile, standing.level]]]
    # Of a load off the hull increments know the point beneath; where it stays it is kept as it is.
    stood = np.where(level == standing.level, watts, stood)
    return yielded, program.band_per_watt / 2.0 * float((2.0 * np.minimum(watts, stood) - watts)[moved].sum())


def used_watts(program: Program, standing: Standing, level: Ints) -> Floats:
    """Return [C] watts at each circuit."""
    fleet = program.fleet
    drawn = np.where(standing.movable, fleet.watts.ravel()[program.offset + level], standing.draw_watts)
    return at_circuits(program, np.bincount(fleet.site, weights=drawn, minlength=fleet.sites.size))


def dual(program: Program, margin: Floats) -> Floats:
    """Return [C] what each limit adds to the price of a watt beneath it, from the worth at each circuit's margin."""
    fleet = program.fleet
    found = np.zeros(fleet.circuits)
    above = np.zeros(fleet.sites.size)
    for node, factor in zip(fleet.above, fleet.factor, strict=True):
        here = np.flatnonzero(node >= 0)
        price = np.maximum(above[here], margin[node[here]] * factor[here])
        np.maximum.at(found, node[here], (price - above[here]) / factor[here])
        above[here] = price
    return found
