"""A schedule while it is being fitted to its limits: whole counts of every group in one array, room on every row.

A row is an upper limit in some steps: a circuit (by the most that loads draw), the import beneath the billed peak, or
mining beneath a ramp (both by expected draw). Limits that have a price stand where the relaxed solution paid for them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mullet.planning.commitment.certificate import (
    Counts,
    Schedule,
    circuit_mw,
    drawn_mw,
    dwell_window,
    market_prices,
    mining_mw,
    promised,
)
from mullet.planning.commitment.problem import Problem

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SAME_MW = 1e-9
"""Power below which two rows are taken to be equal."""


class FleetState:
    """Counts, usage of rows and worth of loads; `counts` and `pool_mw` change, everything else follows the relaxation.

    G groups, M steps of the longest curve, T steps of the grid, R rows, D the most rows above any group.
    """

    def __init__(self, problem: Problem, relaxed: Schedule) -> None:
        self.problem = problem
        self.relaxed = relaxed
        groups, steps = problem.mining, problem.grid.count
        depth = max([1, *(len(group.most_mw) for group in groups)])
        self.levels = np.array([len(group.most_mw) for group in groups], dtype=np.int64)
        self.most_mw = _padded([group.most_mw for group in groups], depth)
        self.mean_mw = _padded([group.mean_mw for group in groups], depth)
        self.th_per_s = _padded([group.th_per_s for group in groups], depth)
        self.count = np.array([group.count for group in groups], dtype=np.int64)
        self.before = np.array([group.running[0] if len(group.running) else 0 for group in groups], dtype=np.int64)
        self.start_cost = np.array([group.start_cost for group in groups]).reshape(len(groups), steps)
        self.least_on = np.zeros((len(groups), steps), dtype=np.int64)
        self.most_on = np.repeat(np.where(self.levels > 0, self.count, 0)[:, None], steps, axis=1)
        windows: dict[float, Ints] = {}
        for dwell_s in {dwell for group in groups for dwell in (group.min_on_s, group.min_off_s)}:
            windows[dwell_s] = dwell_window(problem.grid, dwell_s)
        self.on_first = np.array([windows[group.min_on_s] for group in groups]).reshape(len(groups), steps)
        self.off_first = np.array([windows[group.min_off_s] for group in groups]).reshape(len(groups), steps)
        for place, group in enumerate(groups):
            if group.least_on is not None:
                self.least_on[place] = group.least_on
            if group.most_on is not None:
                self.most_on[place] = np.minimum(self.most_on[place], group.most_on)
        self.relaxed_counts = np.zeros((len(groups), depth, steps))
        for place, counts in enumerate(relaxed.at_least):
            self.relaxed_counts[place, : len(counts)] = counts
        self.counts = np.zeros((len(groups), depth, steps), dtype=np.int64)
        self.pool_mw = [np.array(power, dtype=np.float64) for power in relaxed.pool_mw]
        self.active: list[Counts] = list(relaxed.active)
        self._set_rows()
        self.worth = self._worth()
        """(G, M, T) What one load more at a step of its curve earns over a step of the grid, starts apart."""
        self.measure()

    def schedule(self) -> Schedule:
        """Return the counts as they stand."""
        running = self.counts[:, 0]
        starts: Ints = np.maximum(np.diff(running, axis=1, prepend=self.before[:, None]), 0)
        at_least = tuple(self.counts[place, :levels].copy() for place, levels in enumerate(self.levels))
        return Schedule(at_least, tuple(starts), tuple(self.pool_mw), tuple(self.active))

    def measure(self) -> None:
        """Take usage and ramps' limits from the counts as they stand."""
        self.used_mw = self._usage(self.schedule())
        first = len(self.problem.circuits) + 1
        for place, ramp in enumerate(self.problem.ramps):
            power = self.used_mw[first + place]
            before = np.concatenate([[ramp.now_most_mw], power[:-1]])
            after = np.concatenate([power[1:], [np.inf]])
            down = np.concatenate([self._down[place][1:], [np.inf]])
            self.limit_mw[first + place] = np.minimum(before + self._up[place], after + down)

    def settle_ramps(self) -> None:
        """Set ramps' limits to the highest powers, none above those that stand, that keep all ramps at once."""
        first = len(self.problem.circuits) + 1
        for place, ramp in enumerate(self.problem.ramps):
            cap = self.used_mw[first + place].copy()
            last = ramp.now_most_mw
            for step, up in enumerate(self._up[place]):
                last = cap[step] = min(cap[step], last + up)
            for step in range(len(cap) - 1, 0, -1):
                cap[step - 1] = min(cap[step - 1], cap[step] + self._down[place][step])
            self.limit_mw[first + place] = cap

    def room_mw(self) -> Floats:
        """Return (R + 1, T) what is left on each row; the last row has no limit and stands for no row."""
        room = self.limit_mw - self.used_mw + SAME_MW
        return np.vstack([room, np.full((1, room.shape[1]), np.inf)])

    def draw_mw(self, groups: Ints, most_mw: Floats, mean_mw: Floats) -> Floats:
        """Return (len(groups), D, T) what loads that add most_mw (one per group) and mean_mw draw on their rows."""
        size = np.where(self.by_mean[groups], mean_mw[:, None], most_mw[:, None])
        return np.asarray(self.factor[groups] * size[:, :, None])

    def dwells(self, groups: Ints, running: Ints) -> Bools:
        """Return whether (B, T) running counts of the groups keep bounds, minimum times and start limits, (B,)."""
        moves = np.diff(running, axis=1, prepend=self.before[groups][:, None])
        at = np.arange(len(groups))[:, None]
        kept = np.all((running >= self.least_on[groups]) & (running <= self.most_on[groups]), axis=1)
        for events, first, standing in (
            (np.maximum(moves, 0), self.on_first, running),
            (np.maximum(-moves, 0), self.off_first, self.count[groups][:, None] - running),
        ):
            total = np.concatenate([np.zeros((len(groups), 1), dtype=np.int64), np.cumsum(events, axis=1)], axis=1)
            recent = total[:, 1:] - total[at, first[groups]]
            kept &= np.all((recent <= standing) | (events.cumsum(axis=1) == 0), axis=1)
        for place, group in enumerate(groups):
            for limit in self.problem.mining[group].start_limits:
                kept[place] &= np.maximum(moves[place, limit.first : limit.last], 0).sum() <= limit.most + 1e-9
        return np.asarray(kept, dtype=np.bool_)

    def _set_rows(self) -> None:
        problem, steps = self.problem, self.problem.grid.count
        circuits = problem.circuits
        relaxed = self.relaxed_mw = self._usage(self.relaxed)
        self.limit_mw = np.full_like(relaxed, np.inf)
        for place, circuit in enumerate(circuits):
            priced = circuit.slack_per_mwh is not None
            self.limit_mw[place] = np.maximum(circuit.limit_mw, relaxed[place]) if priced else circuit.limit_mw
        for charge in problem.site.demand_charges:
            window = slice(charge.first, charge.last)
            if charge.per_mw > 0.0 and charge.first < charge.last:
                peak = max(charge.floor_mw, float(np.max(relaxed[len(circuits), window], initial=0.0)))
                self.limit_mw[len(circuits), window] = np.minimum(self.limit_mw[len(circuits), window], peak)
        self._up, self._down = [], []
        for place, ramp in enumerate(problem.ramps):
            power = relaxed[len(circuits) + 1 + place]
            priced = ramp.slack_per_mwh is not None
            up = np.diff(power, prepend=ramp.now_most_mw)
            down = -np.diff(power, prepend=ramp.now_least_mw)
            self._up.append(np.maximum(ramp.up_mw, up) if priced else ramp.up_mw)
            self._down.append(np.maximum(ramp.down_mw, down) if priced else ramp.down_mw)
        paths, rises = self._paths()
        depth = max([1, *(len(path) for path in paths)]) + 1 + len(problem.ramps)
        self.rows_of = np.full((len(problem.mining), depth), len(self.limit_mw), dtype=np.int64)
        self.by_mean = np.ones(self.rows_of.shape, dtype=np.bool_)
        self.factor = np.zeros((*self.rows_of.shape, steps))
        for place, group in enumerate(problem.mining):
            path = paths[group.circuit]
            self.rows_of[place, : len(path)] = path
            self.by_mean[place, : len(path)] = False
            rise = 1.0 + np.cumsum([rises[node] for node in path], axis=0)
            self.factor[place, : len(path)] = rise
            self.rows_of[place, len(path)] = len(circuits)
            self.factor[place, len(path)] = rise[-1]
            for number, ramp in enumerate(problem.ramps):
                if ramp.circuit in path:
                    self.rows_of[place, len(path) + 1 + number] = len(circuits) + 1 + number
                    self.factor[place, len(path) + 1 + number] = 1.0

    def _paths(self) -> tuple[list[list[int]], list[Floats]]:
        steps = self.problem.grid.count
        paths: list[list[int]] = []
        rises = []
        for place, circuit in enumerate(self.problem.circuits):
            paths.append([place, *(paths[circuit.parent] if circuit.parent >= 0 else [])])
            slope = np.max([segment.slope for segment in circuit.cooling], axis=0) if circuit.cooling else 0.0
            rises.append(np.full(steps, circuit.follow) + slope)
        return paths, rises

    def _usage(self, schedule: Schedule) -> Floats:
        mining = mining_mw(self.problem, schedule)
        ramps = [mining[ramp.circuit] for ramp in self.problem.ramps]
        return np.vstack([circuit_mw(self.problem, schedule), drawn_mw(self.problem, schedule), *ramps])

    def _worth(self) -> Floats:
        """Price loads at the market, and at the price of what the relaxed solution already gives up."""
        problem, hours = self.problem, self.problem.grid.hours
        usage = self.relaxed_mw
        imported = usage[len(problem.circuits)]
        sell, cost = market_prices(problem)
        price = np.where(imported >= problem.site.ppa_mw - SAME_MW, cost, sell)
        power_price = np.zeros((len(problem.mining), len(hours)))
        most_price, load_price = np.zeros_like(power_price), np.zeros_like(power_price)
        mining = mining_mw(problem, self.relaxed)
        paths, _ = self._paths()
        for place, group in enumerate(problem.mining):
            path = paths[group.circuit]
            power_price[place] = self.factor[place, len(path)] * price
            for row, node in enumerate(path):
                slack = problem.circuits[node].slack_per_mwh
                if slack is not None:
                    over = usage[node] > problem.circuits[node].limit_mw + SAME_MW
                    most_price[place] += self.factor[place, row] * slack * over
            for award in problem.awards:
                if award.slack_per_mwh is not None and award.circuit in path:
                    power_price[place] -= award.slack_per_mwh * (mining[award.circuit] < award.mw - SAME_MW)
            if group.account >= 0:
                account = problem.accounts[group.account]
                held, run = promised(problem, self.relaxed, group.account)
                for budget in account.curtailment:
                    window = slice(budget.first, budget.last)
                    if budget.slack_price is not None and held[window].sum() > budget.amount + SAME_MW:
                        power_price[place, window] -= budget.slack_price
                for budget in account.uptime:
                    window = slice(budget.first, budget.last)
                    if budget.slack_price is not None and run[window].sum() < budget.amount - SAME_MW:
                        load_price[place, window] += budget.slack_price
        worth = self.th_per_s[:, :, None] * problem.site.earned_per_th_hour
        worth = worth - self.mean_mw[:, :, None] * power_price[:, None] - self.most_mw[:, :, None] * most_price[:, None]
        worth[:, 0] += load_price
        return np.asarray(worth * hours)


def _padded(rows: list[Floats], width: int) -> Floats:
    padded = np.zeros((len(rows), width))
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return padded
