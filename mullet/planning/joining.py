"""Moves joined so that together they fit what a circuit has left: pairs, and fours by a search in sorted sums."""

from __future__ import annotations

import numpy as np

from mullet.planning.candidates import CANDIDATES, Moves
from mullet.planning.fleet import Bools, Floats, Ints
from mullet.planning.ground import Domains, Ground

_ONE, _TWO = np.triu_indices(2 * CANDIDATES + 1)
"""Columns of a pair; both are the same where two loads of a kind make the same move."""
_LEAST = 1e-12
"""Of what a circuit's rest is worth: a smaller gain is rounding."""
_SLACK = 1e-9
"""Of the worth of the watts moved: what rounding may hide."""


def best_joint(ground: Ground, domains: Domains, moves: Moves, active: Ints, deep: bool) -> tuple[Ints, Floats, Bools]:
    """Return for each `active` domain four columns of its moves to be made together, what is gained, and if it counts.

    Two moves at the most, or up to four if `deep`.
    """
    none = 2 * CANDIDATES
    row, start, step, gain = moves.row[active], moves.start[active], moves.micro[active], moves.gain[active]
    known = row >= 0
    code = np.where(known, row * ground.at.shape[1] + start, -1 - np.arange(none + 1))
    spare = np.where(known, ground.at[row, start], 4)
    total = step.take(_ONE, axis=1) + step.take(_TWO, axis=1)
    worth = gain.take(_ONE, axis=1) + gain.take(_TWO, axis=1)
    worth[(code.take(_ONE, axis=1) == code.take(_TWO, axis=1)) & (spare.take(_ONE, axis=1) < 2)] = -np.inf
    left = np.maximum(ground.left[domains.circuit[active]], 0.0)[:, None] + 0.5
    lines = np.arange(active.size)
    alone = np.where(total <= left, worth, -np.inf)
    best = alone.argmax(axis=1)
    gained = alone[lines, best]
    four = np.full((active.size, 4), none)
    four[:, 0], four[:, 1] = _ONE[best], _TWO[best]
    if deep:
        line, first, second, joint = _best_sums(total, worth, left, domains.price[active] / 1e6, gained)
        columns = np.stack([_ONE[first], _TWO[first], _ONE[second], _TWO[second]], axis=1)
        # Four moves may need more loads of one kind than there are; then two must do.
        codes, spares = code[line[:, None], columns], spare[line[:, None], columns]
        wanted = (codes[:, :, None] == codes[:, None, :]).sum(axis=2)
        use = np.flatnonzero(((wanted <= spares) | (columns == none)).all(axis=1) & (joint > gained[line]))
        four[line[use]], gained[line[use]] = columns[use], joint[use]
    least = _LEAST * (1.0 + domains.price[active] * np.maximum(ground.left[domains.circuit[active]], 1.0))
    return four, gained, gained > least


def _best_sums(
    total: Floats, worth: Floats, left: Floats, price: Floats, gained: Floats
) -> tuple[Ints, Ints, Ints, Floats]:
    """Return lines, per line the two columns whose worth together is greatest with a total within `left`, and it.

    Lines are left out where no two columns can be worth more than is `gained` already.
    """
    # Two columns gain what their watts are worth less their losses, so at most what is left is worth less the losses.
    loss = price[:, None] * total - worth
    most = price * left[:, 0] - gained
    slack = _SLACK * price * (left[:, 0] + total.max(axis=1) - total.min(axis=1))
    keep = loss < (most - loss.min(axis=1) + slack)[:, None]
    counts = keep.sum(axis=1)
    kept = np.flatnonzero(counts)
    if not kept.size:
        return kept, kept, kept, np.zeros(0)
    lines, width = kept.size, int(counts.max())
    flat = np.flatnonzero(keep)
    line = np.repeat(np.arange(lines), counts[kept])
    column = np.zeros((lines, width), dtype=np.int64)
    totals, worths = np.full((lines, width), np.abs(total).max()), np.full((lines, width), -np.inf)
    to = line * width + np.arange(flat.size) - np.repeat(np.cumsum(counts[kept]) - counts[kept], counts[kept])
    column.ravel()[to] = flat % total.shape[1]
    totals.ravel()[to], worths.ravel()[to] = total.ravel()[flat], worth.ravel()[flat]
    first, second, joint = _search(totals, worths, left[kept])
    number = np.arange(lines)
    return kept, column[number, first], column[number, second], joint


def _search(total: Floats, worth: Floats, left: Floats) -> tuple[Ints, Ints, Floats]:
    """Return per line the two columns whose worth together is greatest while their total is within `left`."""
    lines, columns = total.shape
    base = columns * np.arange(lines)[:, None]
    order = total.argsort(axis=1, kind="stable") + base
    ordered = total.ravel()[order]
    best = np.maximum.accumulate(worth.ravel()[order], axis=1)
    # Where the running maximum was last reached.
    fresh = np.ones(best.shape, dtype=np.bool_)
    fresh[:, 1:] = best[:, 1:] > best[:, :-1]
    # One search for all lines: every line is lifted above the one before it.
    lift = (2.0 * float(np.abs(total).max()) + float(left.max()) + 1.0) * 2.0 * np.arange(lines)[:, None]
    most = (ordered + lift).ravel().searchsorted((left - total + lift).ravel(), side="right").reshape(lines, columns)
    most -= 1
    possible = most >= base
    np.clip(most, base, base + columns - 1, out=most)
    joint = np.where(possible, worth + best.ravel()[most], -np.inf)
    first = joint.argmax(axis=1)
    number = np.arange(lines)
    until = most[number, first] - base[:, 0]
    reached = np.where(fresh & (np.arange(columns)[None, :] <= until[:, None]), np.arange(columns)[None, :], 0)
    second = order[number, reached.max(axis=1)] - base[:, 0]
    return first, second, joint[number, first]
