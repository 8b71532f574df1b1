"""What the greedy pass leaves over: single loads moved up, or one up and one down, into the watts that remain.

A circuit that binds has less left than its next increment. A move's loss is what it yields less than the same watts
are worth at that circuit's margin; a move can only gain if its loss is below the worth of what is left, so few loads
are looked at. Moves may end at points off the hull.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mullet.planning.fleet import Bools, Fleet, Floats, Ints

_CANDIDATES = 16
"""Moves up and moves down that are tried against each other at each circuit."""
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
    left: Floats
    """[C] microwatts left."""
    price: Floats
    """[C] worth of a watt at the margin, 0 where the circuit does not bind."""
    paid: Floats
    """[L] what a watt at the site costs."""
    worth: float
    half: float
    """Half the deadband per watt."""


@dataclass(frozen=True, slots=True)
class _Domains:
    """Each site answers to the circuit above it whose margin is worth most."""

    of: Ints
    """[L] domain of the site, -1 where nothing binds."""
    circuit: Ints
    """[Q]"""
    price: Floats
    """[Q]"""
    factor: Floats
    """[L] watts at the domain's circuit per watt at the site."""
    depth: Ints
    """[L] depth of the domain's circuit."""


@dataclass(frozen=True, slots=True)
class _Moves:
    """One load each, from one point to another; sorted by domain, the least loss first."""

    row: Ints
    start: Ints
    end: Ints
    micro: Floats
    """Change at the domain's circuit; positive for moves up."""
    gain: Floats
    domain: Ints
    place: Ints
    """Number within the domain."""


def improve(ground: Ground, rounds: int) -> int:
    """Move loads while that gains, for at most `rounds` rounds; change `at` and `left`; return the moves made."""
    domains = _domains(ground)
    if not domains.circuit.size:
        return 0
    rows = np.flatnonzero(domains.of[ground.site] >= 0)
    row, point = np.nonzero(ground.at[rows])
    row = rows[row]
    made = 0
    for _ in range(rounds):
        ups, downs, useful = _candidates(ground, domains, row, point)
        row, point = row[useful], point[useful]
        chosen_up, chosen_down = _pairs(ground, domains, ups, downs)
        if not chosen_up.size:
            break
        moved = _apply(ground, ups, downs, chosen_up, chosen_down)
        if not moved[0].size:
            break
        made += moved[0].size
        pairs = np.unique(np.concatenate([row * ground.at.shape[1] + point, moved[0] * ground.at.shape[1] + moved[1]]))
        row, point = pairs // ground.at.shape[1], pairs % ground.at.shape[1]
        here = ground.at[row, point] > 0
        row, point = row[here], point[here]
    return made


def _domains(ground: Ground) -> _Domains:
    fleet = ground.fleet
    inside = fleet.above >= 0
    worth = np.where(inside, ground.price[np.maximum(fleet.above, 0)] * fleet.factor, 0.0)
    depths, sites = worth.shape
    if not depths or not sites:
        none = np.zeros(0, dtype=np.int64)
        return _Domains(none, none, np.zeros(0), np.zeros(0), none)
    # Of equal margins the circuit nearest to the load: it has the least room.
    depth = depths - 1 - np.argmax(worth[::-1], axis=0)
    bound = worth[depth, np.arange(sites)] > 0.0
    circuit = np.where(bound, fleet.above[depth, np.arange(sites)], -1)
    circuits = np.unique(circuit[bound])
    of = np.where(bound, np.searchsorted(circuits, circuit), -1)
    return _Domains(of, circuits, ground.price[circuits], fleet.factor[depth, np.arange(sites)], depth)


def _candidates(ground: Ground, domains: _Domains, row: Ints, point: Ints) -> tuple[_Moves, _Moves, Bools]:
    """Return moves up, moves down, and which of the (row, point) pairs have any that may be of use."""
    fleet = ground.fleet
    most = fleet.watts.shape[1]
    profile, site = ground.profile[row], ground.site[row]
    domain = domains.of[site]
    factor = domains.factor[site][:, None]
    step = (ground.micro[profile] - ground.micro[profile, point][:, None]) * factor
    gain = ground.worth * (fleet.value[profile] - fleet.value[profile, point][:, None])
    gain -= ground.paid[site][:, None] * (fleet.watts[profile] - fleet.watts[profile, point][:, None])
    targets = np.arange(most)[None, :]
    allowed = (targets >= ground.floor[row][:, None]) & (targets <= ground.ceiling[row][:, None]) & (step != 0.0)
    if ground.half > 0.0:
        gain += np.where(
            step > 0.0, _kept(ground, row, point, profile, True), _kept(ground, row, point, profile, False)
        )
    price = domains.price[domain][:, None] / 1e6
    left = np.maximum(ground.left[domains.circuit], 0.0)[domain][:, None]
    loss = price * step - gain
    allowed &= loss < price * left
    # A rise must also fit the circuits between the load and its domain's.
    allowed &= (step <= 0.0) | (step <= _beneath(ground, domains)[site][:, None] * factor + 0.5)
    up_row, up_end = np.nonzero(allowed & (step > 0.0))
    down_row, down_end = np.nonzero(allowed & (step < 0.0))
    found = []
    for at, end in ((up_row, up_end), (down_row, down_end)):
        found.append(_ranked(row[at], point[at], end, step[at, end], gain[at, end], loss[at, end], domain[at]))
    return found[0], found[1], allowed.any(axis=1)


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


def _beneath(ground: Ground, domains: _Domains) -> Floats:
    """Return [L] the microwatts that each site may still get by the circuits beneath its domain's."""
    fleet = ground.fleet
    room = np.full(fleet.sites.size, np.inf)
    for depth in range(fleet.above.shape[0]):
        node = fleet.above[depth]
        here = (node >= 0) & (depth > domains.depth)
        room[here] = np.minimum(room[here], ground.left[node[here]] / fleet.factor[depth, here])
    return room


def _ranked(row: Ints, start: Ints, end: Ints, step: Floats, gain: Floats, loss: Floats, domain: Ints) -> _Moves:
    order = np.lexsort((step, loss, domain))
    step, loss, domain = step[order], loss[order], domain[order]
    # Moves that are alike in all that counts are worth trying once.
    new = np.ones(order.size, dtype=np.bool_)
    new[1:] = (domain[1:] != domain[:-1]) | (loss[1:] != loss[:-1]) | (step[1:] != step[:-1])
    order, step, domain = order[new], step[new], domain[new]
    place = np.arange(order.size) - np.searchsorted(domain, domain)
    few = place < _CANDIDATES
    order = order[few]
    return _Moves(row[order], start[order], end[order], step[few], gain[order], domain[few], place[few])


def _pairs(ground: Ground, domains: _Domains, ups: _Moves, downs: _Moves) -> tuple[Ints, Ints]:
    """Return, for each domain that gains, the best move up and the best move down with it (-1 for none)."""
    active = np.unique(ups.domain)
    if not active.size:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    width = _CANDIDATES
    up_step, up_gain, up_id = _padded(active, ups, width, np.inf)
    down_step, down_gain, down_id = _padded(active, downs, width, 0.0)
    none = np.zeros((active.size, 1))
    down_step, down_gain = np.concatenate([none, down_step], axis=1), np.concatenate([none, down_gain], axis=1)
    down_id = np.concatenate([none.astype(np.int64) - 1, down_id], axis=1)
    left = np.maximum(ground.left[domains.circuit[active]], 0.0)[:, None, None] + 0.5
    fits = up_step[:, :, None] + down_step[:, None, :] <= left
    fits &= (up_id[:, :, None] != -1) & ((down_id != -1) | (np.arange(width + 1) == 0)[None, :])[:, None, :]
    # The same loads cannot go up and down at once.
    up_code = np.where(up_id >= 0, ups.row[up_id] * ground.at.shape[1] + ups.start[up_id], -1)
    down_code = np.full(down_id.shape, -2, dtype=np.int64)
    if downs.row.size:
        down_code = np.where(down_id >= 0, downs.row[down_id] * ground.at.shape[1] + downs.start[down_id], -2)
    fits &= up_code[:, :, None] != down_code[:, None, :]
    total = np.where(fits, up_gain[:, :, None] + down_gain[:, None, :], -np.inf)
    flat = total.reshape(active.size, -1)
    best = np.argmax(flat, axis=1)
    scale = domains.price[active] * np.maximum(ground.left[domains.circuit[active]], 1.0) / 1e6
    gains = flat[np.arange(active.size), best]
    good = np.flatnonzero(gains > _LEAST + _LEAST * scale)
    good = good[np.argsort(-gains[good], kind="stable")]
    return up_id[good, best[good] // (width + 1)], down_id[good, best[good] % (width + 1)]


def _padded(active: Ints, moves: _Moves, width: int, empty: float) -> tuple[Floats, Floats, Ints]:
    step = np.full((active.size, width), empty)
    gain = np.full((active.size, width), -np.inf)
    number = np.full((active.size, width), -1, dtype=np.int64)
    at = np.searchsorted(active, moves.domain)
    here = np.flatnonzero((at < active.size) & (active[np.minimum(at, active.size - 1)] == moves.domain))
    line, place = at[here], moves.place[here]
    step[line, place], gain[line, place], number[line, place] = moves.micro[here], moves.gain[here], here
    return step, gain, number


def _apply(ground: Ground, ups: _Moves, downs: _Moves, up: Ints, down: Ints) -> tuple[Ints, Ints]:
    """Make the moves that every circuit above still carries, the greatest gains first; return rows and points met."""
    fleet = ground.fleet
    paired = down >= 0
    sites = [ground.site[ups.row[up]], np.zeros(up.size, dtype=np.int64)]
    profiles = [ground.profile[ups.row[up]], np.zeros(up.size, dtype=np.int64)]
    rise = [
        ground.micro[profiles[0], ups.end[up]] - ground.micro[profiles[0], ups.start[up]],
        np.zeros(up.size),
    ]
    if paired.any():
        other = down[paired]
        sites[1][paired] = ground.site[downs.row[other]]
        profiles[1][paired] = ground.profile[downs.row[other]]
        rise[1][paired] = (
            ground.micro[profiles[1][paired], downs.end[other]] - ground.micro[profiles[1][paired], downs.start[other]]
        )
    accepted = np.ones(up.size, dtype=np.bool_)
    for depth in range(fleet.above.shape[0]):
        # The net change counts where both are under one circuit; what falls elsewhere helps nobody before it is booked.
        node = [fleet.above[depth, s] for s in sites]
        change = [np.where(n >= 0, fleet.factor[depth, s] * r, 0.0) for n, s, r in zip(node, sites, rise, strict=True)]
        net = np.maximum(change[0] + np.where(node[1] == node[0], change[1], 0.0), 0.0) * accepted
        order = np.argsort(node[0], kind="stable")
        group, ordered = node[0][order], net[order]
        summed = np.cumsum(ordered)
        first = np.searchsorted(group, group)
        within = summed - summed[first] + ordered[first]
        room = np.maximum(ground.left[np.maximum(group, 0)], 0.0) + 0.5
        accepted[order[(group >= 0) & (ordered > 0.0) & (within > room)]] = False
    for side, moves, number in ((0, ups, up), (1, downs, down)):
        use = accepted & (paired if side else np.True_)
        picked = number[use]
        np.add.at(ground.at, (moves.row[picked], moves.start[picked]), -1)
        np.add.at(ground.at, (moves.row[picked], moves.end[picked]), 1)
        for depth in range(fleet.above.shape[0]):
            node = fleet.above[depth, sites[side][use]]
            here = node >= 0
            np.add.at(ground.left, node[here], -(fleet.factor[depth, sites[side][use]] * rise[side][use])[here])
    rows = [ups.row[up[accepted]]] * 2 + [downs.row[down[accepted & paired]]] * 2
    points = [ups.start[up[accepted]], ups.end[up[accepted]]]
    points += [downs.start[down[accepted & paired]], downs.end[down[accepted & paired]]]
    return np.concatenate(rows), np.concatenate(points)
