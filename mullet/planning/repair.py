"""What the greedy pass leaves over: up to four loads at once, some up and some down, into the watts that remain.

A circuit that binds has less left than its next increment. A move's loss is what it yields less than the same watts
are worth at that circuit's margin; a move can only gain if its loss is below the worth of what is left, so few loads
are looked at. Moves may end at points off the hull. Pairs of moves are joined to fours by a search in sorted sums.
A circuit's moves are looked for again only after loads beneath it were moved.
"""

from __future__ import annotations

import numpy as np

from mullet.planning.candidates import Moves, find_moves, no_moves
from mullet.planning.fleet import Bools, Floats, Ints
from mullet.planning.ground import Domains, Ground
from mullet.planning.joining import best_joint

_MOST_CIRCUITS = 64
"""Circuits where fours are looked for in a round: those where most is left over."""


def improve(ground: Ground, domains: Domains, rounds: int) -> int:
    """Move loads while that gains, for at most `rounds` rounds; change `at` and `left`; return the moves made.

    Two moves together at the most while any circuit gains by them, then up to four, at the circuits where most is at
    stake.
    """
    circuits = domains.circuit.size
    if not circuits:
        return 0
    most = ground.at.shape[1]
    rows = np.flatnonzero(domains.of[ground.site] >= 0)
    pairs = np.flatnonzero(ground.at.take(rows, axis=0).ravel() > 0)
    row = pairs // most
    pairs += (rows[row] - row) * most
    made = 0
    moves = no_moves(circuits)
    stale, barren = np.ones(circuits, dtype=np.bool_), np.zeros(circuits, dtype=np.bool_)
    deep = circuits <= _MOST_CIRCUITS
    for _ in range(rounds):
        if stale.any():
            pairs = _look(ground, domains, moves, stale, pairs)
        # A circuit without a move up gains nothing, and one where nothing was found gains nothing while nothing moves.
        active = np.flatnonzero((moves.row[:, 0] >= 0) & ~barren)
        if deep:
            stake = domains.price[active] * ground.left[domains.circuit[active]]
            active = np.sort(active[(-stake).argsort(kind="stable")[:_MOST_CIRCUITS]])
        stale[:] = False
        if active.size:
            columns, gained, gains = best_joint(ground, domains, moves, active, deep)
            barren[active[~gains]] = True
            good = np.flatnonzero(gains)
            good = good[(-gained[good]).argsort(kind="stable")]
            if good.size:
                moved, met = _apply(ground, domains, moves, active[good], columns[good])
                stale[moved] = True
                made += met.size // 2
        if not stale.any():
            if deep:
                break
            deep = True
            barren[:] = False
            continue
        pairs = np.sort(np.concatenate([pairs, met]))
        new = np.ones(pairs.size, dtype=np.bool_)
        new[1:] = pairs[1:] != pairs[:-1]
        pairs = pairs[new & (ground.at.ravel()[pairs] > 0)]
    return made


def _look(ground: Ground, domains: Domains, moves: Moves, stale: Bools, pairs: Ints) -> Ints:
    """Look for moves of the `stale` circuits; return the pairs (row and point, one flat index) that are of use."""
    most = ground.at.shape[1]
    row = pairs // most
    asked = slice(None) if stale.all() else np.flatnonzero(stale[domains.of[ground.site[row]]])
    some, row = pairs[asked], row[asked]
    useful = find_moves(ground, domains, moves, stale, row, some - row * most)
    if isinstance(asked, slice):
        return pairs[useful]
    keep = np.ones(pairs.size, dtype=np.bool_)
    keep[asked] = useful
    return pairs[keep]


def _apply(ground: Ground, domains: Domains, moves: Moves, domain: Ints, columns: Ints) -> tuple[Ints, Ints]:
    """Make each domain's moves if every circuit above still carries them, the first domains first.

    Return the domains whose moves are made, and each row and point met, as one flat index.
    """
    fleet = ground.fleet
    most = ground.at.shape[1]
    line = domain[:, None]
    row = moves.row[line, columns]
    used = row >= 0
    start, end = moves.start[line, columns], moves.end[line, columns]
    site, offset = ground.site[row], ground.profile[row] * most
    micro = ground.micro.ravel()
    rise = np.where(used, micro[offset + end] - micro[offset + start], 0.0)
    accepted = np.ones(domain.size, dtype=np.bool_)
    nodes = np.where(used, fleet.above[:, site], -1)
    changes = np.where(nodes >= 0, fleet.factor[:, site] * rise, 0.0)
    room = np.maximum(ground.left, 0.0) + 0.5
    for depth, (node, change) in enumerate(zip(nodes, changes, strict=True)):
        if depth <= domains.depth:
            # All that a domain moves goes through the same circuits down to its own.
            node, net = node.max(axis=1), np.maximum(change.sum(axis=1), 0.0)
        else:
            net = _net(node, change)
        if not accepted.all():
            net[~accepted] = 0.0
        flat = node.ravel()
        inside = np.flatnonzero(net.ravel() > 0.0)
        if not inside.size:
            continue
        wanted = np.bincount(flat[inside], weights=net.ravel()[inside], minlength=fleet.circuits)
        if (wanted <= room).all():
            continue
        order = inside[flat[inside].argsort(kind="stable")]
        group, ordered = flat[order], net.ravel()[order]
        summed = np.cumsum(ordered)
        first = group.searchsorted(group)
        within = summed - summed[first] + ordered[first]
        accepted[order[within > room[group]] // (net.size // domain.size)] = False
    made = used & accepted[:, None]
    rows, rises = row[made], rise[made]
    starts, ends = rows * most + start[made], rows * most + end[made]
    at = ground.at.ravel()
    np.subtract.at(at, starts, 1)
    np.add.at(at, ends, 1)
    np.add.at(ground.given, site[made], rises)
    nodes, changes = nodes[:, made], changes[:, made]
    np.subtract.at(ground.left, nodes[nodes >= 0], changes[nodes >= 0])
    return domain[accepted], np.concatenate([starts, ends])


def _net(node: Ints, change: Floats) -> Floats:
    """Return [N, 4] what each line of moves adds at each of its circuits, once for each; nothing is less than 0."""
    same = node[:, :, None] == node[:, None, :]
    net: Floats = np.maximum((same * change[:, None, :]).sum(axis=2), 0.0)
    net[same.argmax(axis=2) != np.arange(4)] = 0.0
    net[node < 0] = 0.0
    return net
