"""Whole loads taken off rows that carry too much, and put where there is room and they earn."""

from __future__ import annotations

import numpy as np

from mullet.planning.commitment.fleet_state import SAME_MW, Bools, FleetState, Floats, Ints

_WORTH_IT = 1e-9
_ROUNDS = 12


def lower_levels(state: FleetState) -> None:
    """Lower running loads, those that lose least per MW first, until no row is over its limit or all are lowest."""
    for _ in range(state.counts.shape[1]):
        over = state.used_mw - state.limit_mw
        rows = [row for row in range(len(over)) if np.any(over[row] > SAME_MW)]
        if not rows:
            return
        changed = False
        for row in reversed(rows):
            changed |= _lower_on_row(state, row)
        if not changed:
            return


def _lower_on_row(state: FleetState, row: int) -> bool:
    steps = np.flatnonzero(state.used_mw[row] - state.limit_mw[row] > SAME_MW)
    groups, place = np.nonzero(state.rows_of == row)
    levels = np.arange(1, state.counts.shape[1])
    if not len(steps) or not len(groups) or not len(levels):
        return False
    by_mean = state.by_mean[groups, place]
    size = np.where(by_mean[:, None], state.mean_mw[groups], state.most_mw[groups])[:, 1:, None]
    size = size * state.factor[groups, place][:, None, steps]
    standing = state.counts[groups][:, :, steps]
    above = np.concatenate([standing[:, 2:], np.zeros_like(standing[:, :1])], axis=1)
    there = (standing[:, 1:] - above).reshape(-1, len(steps))
    size = size.reshape(there.shape)
    worth = state.worth[groups][:, 1:, steps].reshape(there.shape)
    density = np.where((size > 0.0) & (there > 0), worth / np.maximum(size, 1e-15), np.inf)
    order = np.argsort(density, axis=0, kind="stable")
    sizes = np.take_along_axis(size, order, axis=0)
    loads = np.take_along_axis(np.where(np.isfinite(density), there, 0), order, axis=0)
    freed = np.cumsum(loads * sizes, axis=0) - loads * sizes
    short = state.used_mw[row, steps] - state.limit_mw[row, steps] - freed
    taken = np.minimum(loads, np.ceil(np.maximum(short, 0.0) / np.maximum(sizes, 1e-15) - 1e-9).astype(np.int64))
    taken = np.where(short > SAME_MW, taken, 0)
    if not np.any(taken):
        return False
    back = np.zeros_like(taken)
    np.put_along_axis(back, order, taken, axis=0)
    state.counts[groups[:, None, None], levels[None, :, None], steps[None, None, :]] -= back.reshape(
        len(groups), len(levels), len(steps)
    )
    state.measure()
    return True


def raise_levels(state: FleetState) -> None:
    """Raise running loads where that earns and every row above has room, best per MW first.

    A load may rise several steps of its curve at once, so that a poor step before a good one does not stop it.
    """
    depth = state.counts.shape[1]
    pairs = [(low, high) for low in range(1, depth) for high in range(low + 1, depth + 1)]
    if not pairs or not len(state.counts):
        return
    state.measure()
    room = state.room_mw()
    groups = np.tile(np.arange(len(state.counts)), len(pairs))
    low = np.repeat([pair[0] for pair in pairs], len(state.counts))
    high = np.repeat([pair[1] for pair in pairs], len(state.counts))
    exists = high <= state.levels[groups]
    groups, low, high = groups[exists], low[exists], high[exists]
    worth, most, mean = _between(state, groups, low, high)
    top = np.concatenate([state.counts, np.zeros_like(state.counts[:, :1])], axis=1)
    there = top[groups, low - 1] - top[groups, low]
    wanted = (worth > _WORTH_IT) & (there > 0)
    some = np.flatnonzero(np.any(wanted, axis=1))
    if not len(some):
        return
    groups, low, high = groups[some], low[some], high[some]
    worth, most, mean = worth[some], most[some], mean[some]
    size = state.draw_mw(groups, most, mean)
    wanted = wanted[some] & np.all(size <= room[state.rows_of[groups]], axis=1)
    density = np.where(wanted, worth / np.maximum(most[:, None], 1e-12), -np.inf)
    order = np.argsort(-density, axis=0, kind="stable")
    ranks = int(np.max(np.sum(wanted, axis=0), initial=0))
    for rank in range(ranks):
        item = order[rank]
        steps = np.flatnonzero(wanted[item, np.arange(len(item))])
        item = item[steps]
        group = groups[item]
        top_of = state.counts[group, low[item] - 1, steps]
        next_of = np.where(low[item] < depth, state.counts[group, np.minimum(low[item], depth - 1), steps], 0)
        rows = state.rows_of[group]
        sizes = size[item, :, steps]
        fits = np.min(
            np.where(sizes > 0.0, room[rows, steps[:, None]] / np.where(sizes > 0.0, sizes, 1.0), np.inf), axis=1
        )
        loads = np.clip(np.minimum(np.floor(fits), top_of - next_of), 0, None).astype(np.int64)
        for level in range(1, depth):
            inside = (low[item] <= level) & (level < high[item]) & (loads > 0)
            state.counts[group[inside], level, steps[inside]] += loads[inside]
        # Rows of one step differ from those of another, so no place is written twice.
        room[rows, steps[:, None]] -= sizes * loads[:, None]
    state.measure()


def _between(state: FleetState, groups: Ints, low: Ints, high: Ints) -> tuple[Floats, Floats, Floats]:
    summed = [
        np.concatenate([np.zeros_like(part[:, :1]), np.cumsum(part, axis=1)], axis=1)
        for part in (state.worth, state.most_mw, state.mean_mw)
    ]
    worth, most, mean = (part[groups, high] - part[groups, low] for part in summed)
    return worth, most, mean


def add_runs(state: FleetState, bonus: Floats | None = None, most: int = 10_000) -> int:
    """Let whole loads run longer or once more where that earns, and return how many.

    `bonus` (G, T) is earned on top per load and step; `most` is where to stop.
    """
    added = 0
    for _ in range(_ROUNDS):
        state.measure()
        top, worth = _best_load(state)
        if bonus is not None:
            worth = worth + bonus
        running = state.counts[:, 0]
        worth = np.where(running < state.most_on, worth, -np.inf)
        groups = np.flatnonzero(np.any(worth > _WORTH_IT, axis=1))
        if not len(groups):
            return added
        moves = np.diff(running, axis=1, prepend=state.before[:, None])
        opening = np.where(moves < 0, 0.0, -state.start_cost)[groups]
        closing = np.pad(np.where(moves > 0, state.start_cost, 0.0)[groups][:, 1:], ((0, 0), (0, 1)))
        gain, first, last = _best_interval(worth[groups], opening, closing)
        accepted = 0
        for place in np.argsort(-gain, kind="stable"):
            if gain[place] <= _WORTH_IT or added >= most:
                break
            if _run_longer(state, int(groups[place]), int(first[place]), int(last[place]) + 1, top, worth):
                accepted += 1
                added += 1
        if not accepted:
            return added
    return added


def _best_load(state: FleetState) -> tuple[Ints, Floats]:
    """Return how far up its curve one load more could best go (0: no room) and what it would earn, (G, T) each."""
    groups = np.arange(len(state.counts))
    room = state.room_mw()[state.rows_of]
    best = np.full((len(groups), state.counts.shape[2]), -np.inf)
    top = np.zeros(best.shape, dtype=np.int64)
    for level in range(1, state.counts.shape[1] + 1):
        size = state.draw_mw(groups, state.most_mw[:, :level].sum(axis=1), state.mean_mw[:, :level].sum(axis=1))
        worth = state.worth[:, :level].sum(axis=1)
        better = np.all(size <= room, axis=1) & (worth > best) & (state.levels >= level)[:, None]
        best, top = np.where(better, worth, best), np.where(better, level, top)
    return top, best


def _run_longer(state: FleetState, group: int, first: int, last: int, top: Ints, worth: Floats) -> bool:
    """Run one load more over the steps, or over as much longer as its minimum times ask for, if that still earns."""
    running = state.counts[group, 0]
    moves = np.diff(running, prepend=state.before[group])
    begins = [first, *np.flatnonzero(moves[: first + 1] < 0)[::-1][:2]]
    for begin, end in _windows(begins, last, moves[last:] > 0, state.on_first[group] > first):
        if worth[group, begin:end].min() == -np.inf:
            continue
        changed = running.copy()
        changed[begin:end] += 1
        starts = np.maximum(np.diff(changed, prepend=state.before[group]), 0) - np.maximum(moves, 0)
        earned = float(worth[group, begin:end].sum() - starts @ state.start_cost[group])
        if earned <= _WORTH_IT or not state.dwells(np.array([group]), changed[None])[0]:
            continue
        levels = np.arange(state.counts.shape[1])[:, None] < top[group, begin:end]
        if _place_run(state, group, slice(begin, end), levels):
            return True
    return False


def _windows(begins: list[int], last: int, joins: Bools, long_enough: Bools) -> list[tuple[int, int]]:
    """Return steps [begin, end), short ones first, that meet runs before and after, or that last a minimum time."""
    steps = len(long_enough)
    ends = [last, *(np.flatnonzero(joins)[:2] + last), *np.flatnonzero(long_enough)[:1], steps]
    pairs = {(int(begin), int(max(end, last))) for begin in begins for end in ends}
    return sorted(pairs, key=lambda pair: (pair[1] - pair[0], pair[0]))


def _place_run(state: FleetState, group: int, window: slice, levels: Bools) -> bool:
    rows = state.rows_of[group]
    size = (
        np.where(state.by_mean[group][:, None], state.mean_mw[group] @ levels, state.most_mw[group] @ levels)
        * state.factor[group][:, window]
    )
    inside = rows < len(state.used_mw)
    rows, size = rows[inside], size[inside]
    if np.any(state.used_mw[rows, window] + size > state.limit_mw[rows, window] + SAME_MW):
        return False
    state.counts[group][:, window] += levels
    state.used_mw[rows, window] += size
    return True


def drop_runs(state: FleetState, rounds: int = 60) -> int:
    """Stop whole loads where rows are still over their limits, and return how many.

    Billed peaks are no reason to stop a load: they may give. Nor is running at a loss: what makes it worth while (a
    promise, a start saved later) may lie outside the market's prices.
    """
    dropped = 0
    scale = 1e3 * (1.0 + float(np.max(np.abs(state.worth), initial=0.0))) / _smallest(state)
    hard = np.ones(len(state.used_mw), dtype=np.bool_)
    hard[len(state.problem.circuits)] = False
    for _ in range(rounds):
        over = np.where(hard[:, None], np.maximum(state.used_mw - state.limit_mw - SAME_MW, 0.0), 0.0)
        running = state.counts[:, 0]
        least = state.counts == running[:, None]
        loss = np.sum(np.where(least, state.worth, 0.0), axis=1)
        size_most = np.einsum("gmt,gm->gt", least, state.most_mw)
        size_mean = np.einsum("gmt,gm->gt", least, state.mean_mw)
        size = np.where(state.by_mean[:, :, None], size_mean[:, None], size_most[:, None]) * state.factor
        excess = np.vstack([over, np.zeros((1, over.shape[1]))])[state.rows_of]
        relief = np.sum(np.minimum(size, excess), axis=1) * scale
        worth = np.where(running > state.least_on, relief - np.maximum(loss, 0.0), -np.inf)
        groups = np.flatnonzero(np.any(relief > _WORTH_IT, axis=1))
        if not len(groups):
            return dropped
        moves = np.diff(running, axis=1, prepend=state.before[:, None])
        opening = np.where(moves > 0, state.start_cost, 0.0)[groups]
        closing = np.pad(np.where(moves < 0, 0.0, -state.start_cost)[groups][:, 1:], ((0, 0), (0, 1)))
        gain, first, last = _best_interval(worth[groups], opening, closing)
        left = np.vstack([over, np.zeros((1, over.shape[1]))])
        accepted = 0
        for place in np.argsort(-gain, kind="stable"):
            if gain[place] <= _WORTH_IT:
                break
            group, window = groups[place], slice(int(first[place]), int(last[place]) + 1)
            rows = state.rows_of[group]
            # What others of this round relieved already is no reason any more.
            gone = np.sum(np.minimum(size[group], excess[group]) - np.minimum(size[group], left[rows]), axis=0)
            if gain[place] - scale * gone[window].sum() <= max(_WORTH_IT, 0.5 * gain[place]):
                continue
            if _stop_run(state, int(group), window.start, window.stop):
                left[rows, window] = np.maximum(left[rows, window] - size[group][:, window], 0.0)
                accepted += 1
        if not accepted:
            return dropped
        dropped += accepted
        state.measure()
    return dropped


def _stop_run(state: FleetState, group: int, first: int, last: int) -> bool:
    """Stop one load over the steps, or over as much longer as its minimum times ask for."""
    running = state.counts[group, 0]
    moves = np.diff(running, prepend=state.before[group])
    begins = [first, *np.flatnonzero(moves[: first + 1] > 0)[::-1][:2]]
    for begin, end in _windows(begins, last, moves[last:] < 0, state.off_first[group] > first):
        changed = running.copy()
        changed[begin:end] -= 1
        if state.dwells(np.array([group]), changed[None])[0]:
            counts = state.counts[group][:, begin:end]
            np.minimum(counts, changed[begin:end], out=counts)
            return True
    return False


def _smallest(state: FleetState) -> float:
    drawing = state.most_mw[state.most_mw > 0.0]
    return float(drawing.min()) if len(drawing) else 1.0


def _best_interval(worth: Floats, opening: Floats, closing: Floats) -> tuple[Floats, Ints, Ints]:
    """Return per row the most that worth summed over one interval, its opening and its closing earn, first, last."""
    rows, steps = worth.shape
    best, first, last = np.full(rows, -np.inf), np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
    current, begin = np.full(rows, -np.inf), np.zeros(rows, dtype=np.int64)
    for step in range(steps):
        fresh = opening[:, step] > current
        current = np.where(fresh, opening[:, step], current) + worth[:, step]
        begin = np.where(fresh, step, begin)
        better = current + closing[:, step] > best
        best = np.where(better, current + closing[:, step], best)
        first, last = np.where(better, begin, first), np.where(better, step, last)
    return best, first, last
