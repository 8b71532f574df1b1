"""Loads that may be moved, counted by bank, floor and ceiling, and the increments that they may be given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mullet.planning.fleet import Floats, Ints, Standing
from mullet.planning.giving import Stock, stock_of
from mullet.planning.increments import FIRM, NEW, RUN, Program, root_factor


@dataclass(slots=True)
class Crowd:
    """Rows are the movable loads of one bank with the same floor and ceiling."""

    who: Ints
    """[N] movable loads."""
    of: Ints
    """[N] row of each."""
    bank: Ints
    """[V]"""
    floor: Ints
    """[V] hull position"""
    ceiling: Ints
    """[V] hull position"""
    running: Ints
    """[V, K] loads that stand at this hull position or above it."""
    banks: int
    """Rows of loads without floor or ceiling: one for each bank."""


def gather(program: Program, standing: Standing) -> Crowd:
    """Return the movable loads by row."""
    fleet = program.fleet
    most = fleet.watts.shape[1]
    banks = fleet.bank_site.size
    bank, floors, ceilings = (
        np.arange(banks),
        np.zeros(banks, dtype=np.int64),
        fleet.hull_points[fleet.bank_profile] - 1,
    )
    who = np.flatnonzero(standing.movable)
    of, offset, now = fleet.bank[who], program.offset[who], standing.level[who]
    now = fleet.snapped.ravel()[offset + now]
    floor_point, ceiling_point = standing.floor[who], standing.ceiling[who]
    # Most loads have neither floor nor ceiling, and then nothing of the sort is worked out.
    if floor_point.any() or (ceiling_point < program.top[who]).any():
        profile = fleet.profile[who]
        ceiling = fleet.snapped[profile, ceiling_point]
        floor = fleet.snapped[profile, floor_point]
        # A floor between two hull points is kept by standing above it, where the ceiling lets it.
        between = (fleet.hull[profile, floor] != floor_point) & (ceiling > floor)
        floor = np.minimum(floor + between, ceiling)
        now = np.minimum(now, ceiling)
        bound = np.flatnonzero((floor > 0) | (ceiling < fleet.hull_points[profile] - 1))
        code = (of[bound] * most + floor[bound]) * most + ceiling[bound]
        codes, row = np.unique(code, return_inverse=True)
        of[bound] = banks + row
        bank = np.concatenate([bank, codes // (most * most)])
        floors = np.concatenate([floors, codes // most % most])
        ceilings = np.concatenate([ceilings, codes % most])
    running = np.bincount(of * most + now, minlength=bank.size * most).reshape(bank.size, most)
    # Column by column: numpy is slow at running sums over many short rows.
    for column in range(most - 2, -1, -1):
        running[:, column] += running[:, column + 1]
    return Crowd(who, of, bank, floors, ceilings, running, banks)


def stock_up(program: Program, crowd: Crowd, cost: float) -> Stock:
    """Return the increments that are worth their energy, in the order of giving."""
    fleet = program.fleet
    most, banks = fleet.watts.shape[1], crowd.banks
    free = crowd.running[:banks].astype(np.int32).ravel()
    table = np.concatenate([free, np.repeat(free[::most], most) - free])
    paid = cost * root_factor(fleet)
    index = program.index
    if cost != 0.0:
        some = np.flatnonzero(program.place < _cutoff(program, paid))
        count = table[index[some]]
        here = np.flatnonzero(count > 0)
        chosen, count = some[here], count[here]
    else:
        count = table[index]
        chosen = np.flatnonzero(count > 0)
        count = count[chosen]
    parts = [program.bank[chosen], program.step[chosen], program.key[chosen], program.each[chosen], count]
    worth = program.worth_each[chosen]
    if crowd.bank.size > banks:
        more, more_worth = _bounded(program, crowd, paid)
        merged = np.argsort(np.concatenate([parts[2], more[2]]), kind="stable")
        parts = [np.concatenate(pair)[merged] for pair in zip(parts, more, strict=True)]
        worth = np.concatenate([worth, more_worth])[merged]
    row, step, key, each, number = parts
    return stock_of(program, row, step, key, each, number.astype(np.float64), worth)


def _cutoff(program: Program, paid: Floats) -> Any:
    """Return the place from which on nothing is worth the energy: one for all sites, or [E] for each increment.

    Of increments worth just what they cost only those that run are kept; in the common order they come first.
    """
    if not paid.size:
        return 0
    down = -program.worth_of
    same = bool((paid == paid[0]).all())
    asked = -(paid[:1] if same else paid)
    cutoff, last = np.searchsorted(down, asked, side="left"), np.searchsorted(down, asked, side="right")
    for k in np.flatnonzero(last > cutoff):
        cutoff[k] += int((program.flow_of[cutoff[k] : last[k]] == RUN).sum())
    return np.int32(cutoff[0]) if same else cutoff[program.site]


def _bounded(program: Program, crowd: Crowd, paid: Floats) -> tuple[list[Any], Floats]:
    """Return the increments of the rows that have a floor or a ceiling."""
    fleet = program.fleet
    rows = np.arange(crowd.banks, crowd.bank.size)
    lengths = crowd.ceiling[rows]
    row = np.repeat(rows, lengths)
    step = np.arange(row.size) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
    firm = step <= crowd.floor[row]
    running, total = crowd.running[row, step], crowd.running[row, 0]
    flow = np.concatenate([np.where(firm, FIRM, RUN), np.full(row.size, NEW)])
    count = np.concatenate([np.where(firm, total, running), np.where(firm, 0, total - running)])
    row, step = np.tile(row, 2), np.tile(step, 2)
    bank = crowd.bank[row]
    profile, site = fleet.bank_profile[bank], fleet.bank_site[bank]
    place = program.rank[flow, profile, step]
    worth = program.worth_of[place]
    keep = (count > 0) & ((flow == FIRM) | (worth > paid[site]) | ((worth == paid[site]) & (flow == RUN)))
    hull_micro = np.take_along_axis(program.micro, np.maximum(fleet.hull, 0), 1)
    each = hull_micro[profile, step] - hull_micro[profile, step - 1]
    key = site * max(1, program.worth_of.size) + place
    order = np.flatnonzero(keep)[np.argsort(key[keep], kind="stable")]
    return [row[order], step[order], key[order], each[order], count[order]], worth[order]
