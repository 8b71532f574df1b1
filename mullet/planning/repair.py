"""What the greedy pass leaves over: up to four loads at once, some up and some down, into the watts that remain.

A circuit that binds has less left than its next increment. A move's loss is what it yields less than the same watts
are worth at that circuit's margin; a move can only gain if its loss is below the worth of what is left, so few loads
are looked at. Moves may end at points off the hull. Pairs of moves are joined to fours by a search in sorted sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mullet.planning.fleet import Bools, Fleet, Floats, Ints

_CANDIDATES = 8
"""Moves up, and as many down, that are tried together at each circuit."""
_MOST_CIRCUITS = 64
"""Circuits where fours are looked for in a round: those where most is left over."""
_LITTLE = 0.05
"""Of what a circuit's rest is worth: a small loss."""
_LEAST = 1e-12
"""Of what a circuit's rest is worth: a smaller gain is rounding."""


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
    worth: float
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


@dataclass(frozen=True, slots=True)
class _Moves:
    """One load each, from one point to another."""

    row: Ints
    start: Ints
    end: Ints
    micro: Floats
    """Change at the domain's circuit; positive for moves up."""
    gain: Floats
    domain: Ints
    """Ascending among moves up, and among moves down."""
    place: Ints
    """Column among the domain's moves: first those up, then those down, the least loss first."""


def improve(ground: Ground, domains: Domains, rounds: int) -> int:
    """Move loads while that gains, for at most `rounds` rounds; change `at` and `left`; return the moves made."""
    if not domains.circuit.size:
        return 0
    most = ground.at.shape[1]
    rows = np.flatnonzero(domains.of[ground.site] >= 0)
    row, point = np.nonzero(ground.at[rows])
    row = rows[row]
    made = 0
    settled = np.zeros(domains.circuit.size, dtype=np.bool_)
    deep = domains.circuit.size <= _MOST_CIRCUITS
    pairs_of = np.triu_indices(2 * _CANDIDATES + 1)
    for _ in range(rounds):
        moves, useful = _candidates(ground, domains, row, point)
        row, point = row[useful], point[useful]
        chosen = _combinations(ground, domains, moves, settled, pairs_of, deep)
        met = _apply(ground, moves, chosen) if chosen.size else np.zeros(0, dtype=np.int64)
        made += met.size // 2
        if not met.size:
            if deep:
                break
            deep = True
            continue
        pairs = np.unique(np.concatenate([row * most + point, met]))
        pairs = pairs[ground.at[pairs // most, pairs % most] > 0]
        row, point = pairs // most, pairs % most
    return made


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
    circuits, first = np.unique(circuit[chosen], return_index=True)
    of = np.where(chosen, np.searchsorted(circuits, circuit), -1)
    site = np.flatnonzero(chosen)[first]
    factor = fleet.factor[depth]
    return Domains(of, circuits, (best[site] - higher[site]) / factor[site], factor, depth)


def _candidates(ground: Ground, domains: Domains, row: Ints, point: Ints) -> tuple[_Moves, Bools]:
    """Return moves that may be of use, and which of the (row, point) pairs have any."""
    fleet = ground.fleet
    most = fleet.watts.shape[1]
    profile, site = ground.profile[row], ground.site[row]
    domain = domains.of[site]
    price, factor, paid = domains.price[domain] / 1e6, domains.factor[site], ground.paid[site]
    stake = price * np.maximum(ground.left[domains.circuit], 0.0)[domain]
    # What a point costs at the margins less what it yields: a move's loss is the difference of two of these.
    burden = (price * factor)[:, None] * ground.micro[profile]
    if paid.any():
        burden += paid[:, None] * fleet.watts[profile]
    burden -= ground.worth * fleet.value[profile]
    if ground.half > 0.0:
        # The margin for what is kept is another for loads that rise and loads that fall.
        rises = np.arange(most)[None, :] > point[:, None]
        burden -= np.where(rises, _kept(ground, row, point, profile, True), _kept(ground, row, point, profile, False))
    here = burden[np.arange(row.size), point]
    possible: Bools = (burden < (here + stake)[:, None]) & (np.arange(most)[None, :] < fleet.points[profile][:, None])
    possible[np.arange(row.size), point] = False
    useful: Bools = np.asarray(possible.any(axis=1))
    # Where many of a domain's moves lose little, only those are looked at any further.
    little = np.nonzero(possible & (burden < (here + _LITTLE * stake)[:, None]))
    room = _beneath(ground, domains)
    pair, end = _fitting(ground, domains, row, point, little, room)
    side = domain[pair] * 2 + (end > point[pair])
    enough: Bools = np.asarray(np.bincount(side, minlength=2 * domains.circuit.size) >= 4 * _CANDIDATES)
    poor = np.flatnonzero(useful & ~(enough[0::2] & enough[1::2])[domain])
    if poor.size:
        at, more_end = np.nonzero(possible[poor])
        more, more_end = _fitting(ground, domains, row, point, (poor[at], more_end), room)
        lacks = ~enough[domain[more] * 2 + (more_end > point[more])]
        pair = np.concatenate([pair[enough[side]], more[lacks]])
        end = np.concatenate([end[enough[side]], more_end[lacks]])
    kind = profile[pair]
    step = (ground.micro[kind, end] - ground.micro[kind, point[pair]]) * factor[pair]
    loss = burden[pair, end] - here[pair]
    found = []
    for up in (True, False):
        ranked, place = _ranked(step, loss, domain[pair], np.flatnonzero((step > 0.0) == up))
        at = pair[ranked]
        gain = price[at] * step[ranked] - loss[ranked]
        column = place if up else place + _CANDIDATES
        found.append((row[at], point[at], end[ranked], step[ranked], gain, domain[at], column))
    return _Moves(*(np.concatenate(both) for both in zip(*found, strict=True))), useful


def _fitting(
    ground: Ground, domains: Domains, row: Ints, point: Ints, moves: tuple[Any, ...], room: Floats
) -> tuple[Ints, Ints]:
    """Return, of `moves` (pairs and their ends), those within floor, ceiling and `room` [L] beneath the domain."""
    pair, end = moves
    who, start = row[pair], point[pair]
    kind, site = ground.profile[who], ground.site[who]
    rise = ground.micro[kind, end] - ground.micro[kind, start]
    fits = (end >= ground.floor[who]) & (end <= ground.ceiling[who]) & (rise != 0.0)
    # A rise must also fit the circuits between the load and its domain's.
    factor = domains.factor[site]
    fits &= rise * factor <= room[site] * factor + 0.5
    return pair[fits], end[fits]


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
        node = fleet.above[depth]
        here = node >= 0
        room[here] = np.minimum(room[here], ground.left[node[here]] / fleet.factor[depth, here])
    return room


def _ranked(step: Floats, loss: Floats, domain: Ints, which: Ints) -> tuple[Ints, Ints]:
    """Return the moves, among `which`, of least loss in each domain and their number there."""
    step, loss, domain = step[which], loss[which], domain[which]
    order = np.lexsort((step, loss, domain))
    step, loss, domain = step[order], loss[order], domain[order]
    # Moves that are alike in all that counts are worth trying once.
    new = np.ones(order.size, dtype=np.bool_)
    new[1:] = (domain[1:] != domain[:-1]) | (loss[1:] != loss[:-1]) | (step[1:] != step[:-1])
    order, domain = order[new], domain[new]
    place = np.arange(order.size) - np.searchsorted(domain, domain)
    few = place < _CANDIDATES
    return which[order[few]], place[few]


def _combinations(
    ground: Ground, domains: Domains, moves: _Moves, settled: Bools, pairs_of: tuple[Ints, ...], deep: bool
) -> Ints:
    """Return [N, 4] moves (-1 for none) to be made together, one line for a domain that gains, the best first.

    Two moves at the most, or up to four if `deep`; then only for the domains where most is at stake that are not yet
    `settled` [Q], and those where nothing gains are marked there.
    """
    active = np.unique(moves.domain[moves.place < _CANDIDATES])
    if deep:
        active = active[~settled[active]]
        stake = domains.price[active] * ground.left[domains.circuit[active]]
        active = np.sort(active[np.argsort(-stake, kind="stable")[:_MOST_CIRCUITS]])
    if not active.size:
        return np.zeros((0, 4), dtype=np.int64)
    width = 2 * _CANDIDATES + 1
    number = np.full((active.size, width), -1, dtype=np.int64)
    line = np.searchsorted(active, moves.domain)
    here = np.flatnonzero(active[np.minimum(line, active.size - 1)] == moves.domain)
    number[line[here], moves.place[here]] = here
    known = number >= 0
    step = np.where(known, moves.micro[number], 0.0)
    gain = np.where(known, moves.gain[number], -np.inf)
    # The last column is the move that moves nothing.
    gain[:, -1] = 0.0
    code = np.where(known, moves.row[number] * ground.at.shape[1] + moves.start[number], -1 - np.arange(width))
    spare = np.where(known, ground.at[moves.row[number], moves.start[number]], 4)
    one, two = pairs_of
    total = step[:, one] + step[:, two]
    worth = gain[:, one] + gain[:, two]
    worth[(code[:, one] == code[:, two]) & (spare[:, one] < 2)] = -np.inf
    left = np.maximum(ground.left[domains.circuit[active]], 0.0)[:, None] + 0.5
    lines = np.arange(active.size)
    alone = np.where(total <= left, worth, -np.inf)
    best = np.argmax(alone, axis=1)
    gained = alone[lines, best]
    pair = np.stack([number[lines, one[best]], number[lines, two[best]]], axis=1)
    ids = np.concatenate([pair, np.full_like(pair, -1)], axis=1)
    if deep:
        first, second, joint = _best_sums(total, worth, left)
        four = np.stack([number[lines, c] for c in (one[first], two[first], one[second], two[second])], axis=1)
        # Four moves may need more loads of one kind than there are; then two must do.
        codes = np.where(four >= 0, moves.row[four] * ground.at.shape[1] + moves.start[four], -1)
        wanted = (codes[:, :, None] == codes[:, None, :]).sum(axis=2)
        here = np.where(four >= 0, ground.at[moves.row[four], moves.start[four]], 4)
        use = (wanted <= here).all(axis=1) & (joint > gained)
        ids[use], gained = four[use], np.where(use, joint, gained)
    least = _LEAST * (1.0 + domains.price[active] * np.maximum(ground.left[domains.circuit[active]], 1.0))
    settled[active[gained <= least]] |= deep
    good = np.flatnonzero(gained > least)
    return ids[good[np.argsort(-gained[good], kind="stable")]]


def _best_sums(total: Floats, worth: Floats, left: Floats) -> tuple[Ints, Ints, Floats]:
    """Return per line the two columns whose worth together is greatest while their total is within `left`."""
    lines, columns = total.shape
    order = np.argsort(total, axis=1, kind="stable")
    ordered = np.take_along_axis(total, order, 1)
    best = np.maximum.accumulate(np.take_along_axis(worth, order, 1), axis=1)
    # Where the running maximum was last reached.
    fresh = np.ones(best.shape, dtype=np.bool_)
    fresh[:, 1:] = best[:, 1:] > best[:, :-1]
    where = np.maximum.accumulate(np.where(fresh, np.arange(columns)[None, :], 0), axis=1)
    # One search for all lines: every line is lifted above the one before it.
    lift = (2.0 * float(np.abs(total).max()) + float(left.max()) + 1.0) * 2.0 * np.arange(lines)[:, None]
    most = np.searchsorted((ordered + lift).ravel(), (left - total + lift).ravel(), side="right")
    most = most.reshape(lines, columns) - columns * np.arange(lines)[:, None] - 1
    possible = most >= 0
    most = np.clip(most, 0, columns - 1)
    joint = np.where(possible, worth + np.take_along_axis(best, most, 1), -np.inf)
    first = np.argmax(joint, axis=1)
    number = np.arange(lines)
    second = order[number, where[number, most[number, first]]]
    return first, second, joint[number, first]


def _apply(ground: Ground, moves: _Moves, chosen: Ints) -> Ints:
    """Make the moves that every circuit above still carries; return each row and point met, as one flat index."""
    fleet = ground.fleet
    used = chosen >= 0
    row = moves.row[chosen]
    site, profile = ground.site[row], ground.profile[row]
    rise = np.where(used, ground.micro[profile, moves.end[chosen]] - ground.micro[profile, moves.start[chosen]], 0.0)
    accepted = np.ones(chosen.shape[0], dtype=np.bool_)
    for depth in range(fleet.above.shape[0]):
        node = np.where(used, fleet.above[depth, site], -1)
        change = np.where(node >= 0, fleet.factor[depth, site] * rise, 0.0)
        same = node[:, :, None] == node[:, None, :]
        net = np.maximum((same * change[:, None, :]).sum(axis=2), 0.0)
        # Each circuit once for a line: where it is met first.
        net[np.argmax(same, axis=2) != np.arange(4)[None, :]] = 0.0
        net = np.where(accepted[:, None] & (node >= 0), net, 0.0)
        order = np.argsort(node.ravel(), kind="stable")
        group, ordered = node.ravel()[order], net.ravel()[order]
        summed = np.cumsum(ordered)
        first = np.searchsorted(group, group)
        within = summed - summed[first] + ordered[first]
        room = np.maximum(ground.left[np.maximum(group, 0)], 0.0) + 0.5
        accepted[order[(ordered > 0.0) & (within > room)] // 4] = False
    made = used & accepted[:, None]
    number = chosen[made]
    most = ground.at.shape[1]
    np.add.at(ground.at, (moves.row[number], moves.start[number]), -1)
    np.add.at(ground.at, (moves.row[number], moves.end[number]), 1)
    np.add.at(ground.given, site[made], rise[made])
    for depth in range(fleet.above.shape[0]):
        node = fleet.above[depth, site[made]]
        here = node >= 0
        np.add.at(ground.left, node[here], -(fleet.factor[depth, site[made]] * rise[made])[here])
    ends = moves.row[number] * most
    return np.concatenate([ends + moves.start[number], ends + moves.end[number]])
