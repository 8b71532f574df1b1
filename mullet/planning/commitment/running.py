"""From a fraction of loads running to whole loads, without starts that the relaxed solution does not pay for."""

from __future__ import annotations

import numpy as np

from mullet.planning.commitment.fleet_state import FleetState, Floats, Ints

_WHOLE = 1e-6
_THRESHOLDS = 8


def round_running(state: FleetState, turn: float = 0.5) -> None:
    """Set `state.counts` to whole counts that follow the relaxed ones within less than one load.

    Starts and stops are summed over time and both cut at one threshold. What bounds running loads and their minimum
    times are differences of such sums, so every threshold keeps all of them (they form a network), and over all
    thresholds the mean of the starts is what the relaxed solution pays for. Of a few thresholds each group takes the
    one that earns most in the room that the groups before it left. `turn` in (0, 1) shifts the thresholds.
    """
    relaxed = state.relaxed_counts[:, 0]
    running = np.rint(relaxed).astype(np.int64)
    groups = np.flatnonzero(np.any(np.abs(relaxed - running) > _WHOLE, axis=1))
    if len(groups):
        moves = np.diff(relaxed[groups], axis=1, prepend=state.before[groups][:, None])
        started = _snapped(np.cumsum(np.maximum(moves, 0.0), axis=1))
        stopped = _snapped(np.cumsum(np.maximum(-moves, 0.0), axis=1))
        thresholds = ((np.arange(_THRESHOLDS) + turn) / _THRESHOLDS)[None, :, None]
        wanted = np.floor(started[:, None] + thresholds) - np.floor(stopped[:, None] + thresholds)
        wanted = wanted + state.before[groups][:, None, None]
        wanted = np.concatenate([wanted, np.floor(relaxed[groups] + _WHOLE)[:, None]], axis=1)
        choices = wanted.shape[1]
        allowed = _kept(state, np.repeat(groups, choices), wanted.reshape(-1, wanted.shape[2]).astype(np.int64))
        running[groups] = _chosen(state, groups, allowed.reshape(wanted.shape))
    state.counts[:, 0] = running
    for level in range(1, state.counts.shape[1]):
        whole = np.floor(state.relaxed_counts[:, level] + _WHOLE).astype(np.int64)
        state.counts[:, level] = np.minimum(whole, state.counts[:, level - 1])
    state.measure()


def _snapped(sums: Floats) -> Floats:
    whole = np.rint(sums)
    return np.asarray(np.where(np.abs(sums - whole) < _WHOLE, whole, sums))


def _kept(state: FleetState, groups: Ints, wanted: Ints) -> Ints:
    """Follow `wanted` (B, T) as near as minimum times, bounds and start limits let each group, step by step."""
    rows, steps = wanted.shape
    started, stopped = np.zeros((rows, steps + 1), dtype=np.int64), np.zeros((rows, steps + 1), dtype=np.int64)
    found = np.empty_like(wanted)
    last, at, count = state.before[groups], np.arange(rows), state.count[groups]
    on_first, off_first = state.on_first[groups], state.off_first[groups]
    least, most = state.least_on[groups], state.most_on[groups]
    limited = [
        (place, limit) for place, group in enumerate(groups) for limit in state.problem.mining[group].start_limits
    ]
    for step in range(steps):
        low = np.maximum(started[:, step] - started[at, on_first[:, step]], least[:, step])
        high = np.minimum(count - (stopped[:, step] - stopped[at, off_first[:, step]]), most[:, step])
        for place, limit in limited:
            if limit.first <= step < limit.last:
                left = int(limit.most + 1e-9) - (started[place, step] - started[place, limit.first])
                high[place] = min(high[place], last[place] + max(0, left))
        now = np.minimum(np.maximum(wanted[:, step], low), high)
        started[:, step + 1] = started[:, step] + np.maximum(now - last, 0)
        stopped[:, step + 1] = stopped[:, step] + np.maximum(last - now, 0)
        found[:, step] = last = now
    return found


def _chosen(state: FleetState, groups: Ints, choices: Ints) -> Ints:
    """Return (len(groups), T), one of each group's (K, T) choices, large loads first."""
    counts = state.relaxed_counts[groups]
    # What one running load carries: the mix of steps that the relaxed solution gives it, the whole curve where none.
    share = np.where(counts[:, :1] > _WHOLE, counts / np.maximum(counts[:, :1], _WHOLE), 1.0)
    worth = np.sum(share * state.worth[groups], axis=1)
    most = np.einsum("gmt,gm->gt", share, state.most_mw[groups])
    mean = np.einsum("gmt,gm->gt", share, state.mean_mw[groups])
    size = np.where(state.by_mean[groups][:, :, None], mean[:, None], most[:, None]) * state.factor[groups]
    before = np.broadcast_to(state.before[groups][:, None, None], (*choices.shape[:2], 1))
    moves = np.diff(choices, axis=2, prepend=before)
    starts = np.einsum("gkt,gt->gk", np.maximum(moves, 0), state.start_cost[groups])
    away = choices - counts[:, None, 0]
    gains = np.einsum("gkt,gt->gk", away, worth) - starts
    room = np.vstack([state.limit_mw - state.relaxed_mw, np.full((1, choices.shape[2]), np.inf)])
    room = np.maximum(room, 0.0)
    price = np.maximum(2.0 * worth, 0.0) / np.maximum(most, 1e-12)
    found = np.empty((len(groups), choices.shape[2]), dtype=np.int64)
    for place in np.argsort(-most.sum(axis=1), kind="stable"):
        rows = state.rows_of[groups[place]]
        added = away[place][:, None] * size[place, None]
        over = np.maximum(added - room[rows], 0.0)
        cost = np.einsum("krt,t->k", over, price[place])
        best = int(np.argmax(gains[place] - cost))
        found[place] = choices[place, best]
        room[rows] -= added[best]
    return found
