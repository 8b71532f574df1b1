"""Moves of one load that may be of use to the circuit it answers to: at each circuit a few up and a few down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mullet.planning.fleet import Bools, Floats, Ints
from mullet.planning.ground import Domains, Ground

CANDIDATES = 8
"""Moves up, and as many down, that are tried together at each circuit."""
_LITTLE = 0.05
"""Of what a circuit's rest is worth: a small loss."""


@dataclass(frozen=True, slots=True)
class Moves:
    """[Q, 2 * CANDIDATES + 1] by domain: moves up, moves down, each the least loss first, and the move of nothing."""

    row: Ints
    """-1 where there is none."""
    start: Ints
    end: Ints
    micro: Floats
    """Change at the domain's circuit; 0 where there is none."""
    gain: Floats
    """-inf where there is none; 0 for the move of nothing."""


def no_moves(domains: int) -> Moves:
    """Return a table for `find_moves` to write."""
    shape = (domains, 2 * CANDIDATES + 1)
    row, start, end = (np.full(shape, -1, dtype=np.int64) for _ in range(3))
    gain = np.full(shape, -np.inf)
    gain[:, -1] = 0.0
    return Moves(row, start, end, np.zeros(shape), gain)


def find_moves(ground: Ground, domains: Domains, moves: Moves, stale: Bools, row: Ints, point: Ints) -> Bools:
    """Write the `stale` [Q] domains' moves anew; `row` and `point` [X] are theirs. Return which of them are of use."""
    most = ground.at.shape[1]
    profile, site = ground.profile[row], ground.site[row]
    domain = domains.of[site]
    price, factor, paid = domains.price[domain] / 1e6, domains.factor[site], ground.paid[site]
    stake = price * np.maximum(ground.left[domains.circuit], 0.0)[domain]
    burden = _burden(ground, row, point, profile, price * factor, paid)
    flat = burden.ravel()
    own = point * row.size + np.arange(row.size)
    here = flat[own]
    flat[own] = np.inf
    # In the order of the pairs, so that of equal moves the first is taken.
    some = np.flatnonzero(np.ascontiguousarray((burden < here + stake).T))
    pair = some // most
    end = some - pair * most
    useful = np.zeros(row.size, dtype=np.bool_)
    useful[pair] = True
    start, burdened, at_first = point[pair], flat[end * row.size + pair], here[pair]
    of, who = domain[pair], row[pair]
    offset = profile[pair] * most
    micro = ground.micro.ravel()
    rise = micro[offset + end] - micro[offset + start]
    step, side = rise * factor[pair], of * 2 + (end < start)
    fits = (end >= ground.floor[who]) & (end <= ground.ceiling[who]) & (rise != 0.0)
    if domains.depth + 1 < ground.fleet.above.shape[0]:
        # A rise must also fit the circuits between the load and its domain's.
        fits &= step <= _beneath(ground, domains)[site[pair]] * factor[pair] + 0.5
    # Where many of a domain's moves lose little, only those are looked at any further.
    little = fits & (burdened < at_first + _LITTLE * stake[pair])
    sides = 2 * domains.circuit.size
    enough = np.bincount(side[little], minlength=sides) >= 4 * CANDIDATES
    kept = np.flatnonzero(np.where(enough[side], little, fits))
    loss = burdened[kept] - at_first[kept]
    chosen, place = _ranked(step[kept], loss, side[kept], sides)
    kept, loss = kept[chosen], loss[chosen]
    pair, of, column = pair[kept], of[kept], place + CANDIDATES * (side[kept] & 1)
    anew = np.flatnonzero(stale)
    moves.row[anew] = -1
    moves.micro[anew] = 0.0
    moves.gain[anew, :-1] = -np.inf
    moves.row[of, column], moves.start[of, column], moves.end[of, column] = row[pair], point[pair], end[kept]
    moves.micro[of, column] = step[kept]
    moves.gain[of, column] = price[pair] * step[kept] - loss
    return useful


def _burden(ground: Ground, row: Ints, point: Ints, profile: Ints, price: Floats, paid: Floats) -> Floats:
    """Return [K, X] what a point costs at the margins less what it yields: a move's loss is a difference of two."""
    burden: Floats = ground.micro_across.take(profile, axis=1)
    burden *= price
    if paid.any():
        power = ground.watts_across.take(profile, axis=1)
        power *= paid
        burden += power
    burden -= ground.yields_across.take(profile, axis=1)
    if ground.half > 0.0:
        # The margin for what is kept is another for loads that rise and loads that fall.
        rises = np.arange(burden.shape[0])[None, :] > point[:, None]
        kept = np.where(rises, _kept(ground, row, point, profile, True), _kept(ground, row, point, profile, False))
        burden -= kept.T
    return burden


def _kept(ground: Ground, row: Ints, point: Ints, profile: Ints, up: bool) -> Floats:
    """Return [X, K] what keeping loads as they are adds to the gain of moving the load that is first in line."""
    fleet = ground.fleet
    higher = np.cumsum(ground.at[row][:, ::-1], axis=1)[:, ::-1]
    number = higher[np.arange(row.size), point]
    ahead = number - ground.at[row, point]
    line = ahead if up else number - 1
    stood = (ground.running[row][:, 1:] > line[:, None]).sum(axis=1)
    stood_watts = fleet.watts[profile, fleet.hull[profile, stood]][:, None]
    watts = fleet.watts[profile]
    keep: Floats = ground.half * (2.0 * np.minimum(watts, stood_watts) - watts)
    return keep - keep[np.arange(row.size), point][:, None]


def _beneath(ground: Ground, domains: Domains) -> Floats:
    """Return [L] the microwatts that each site may still get by the circuits beneath its domain's."""
    fleet = ground.fleet
    room = np.full(fleet.sites.size, np.inf)
    for depth in range(domains.depth + 1, fleet.above.shape[0]):
        node, factor = fleet.above[depth], fleet.factor[depth]
        here = np.full(room.size, np.inf)
        np.divide(ground.left[node], factor, out=here, where=node >= 0)
        np.minimum(room, here, out=room)
    return room


def _ranked(step: Floats, loss: Floats, side: Ints, sides: int) -> tuple[Ints, Ints]:
    """Return the moves of least loss on each side and their number there."""
    # Numbers of 16 bits are sorted by counting: several times as fast as one sort by both.
    small = side.astype(np.uint16) if sides <= 1 << 16 else side
    order = loss.argsort(kind="stable")
    order = order[small[order].argsort(kind="stable")]
    ordered, lost, at = step[order], loss[order], side[order]
    if ((at[1:] == at[:-1]) & (lost[1:] == lost[:-1]) & (ordered[1:] < ordered[:-1])).any():
        # Of equal losses the smaller step comes first; moves that lose as much and differ in watts are rare.
        order = np.lexsort((step, loss, side))
    step, loss, side = step[order], loss[order], side[order]
    # Moves that are alike in all that counts are worth trying once.
    new = np.ones(order.size, dtype=np.bool_)
    new[1:] = (side[1:] != side[:-1]) | (loss[1:] != loss[:-1]) | (step[1:] != step[:-1])
    order, side = order[new], side[new]
    place = np.arange(order.size) - side.searchsorted(side)
    few = place < CANDIDATES
    return order[few], place[few]
