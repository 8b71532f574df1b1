"""The peer linopy with HiGHS: the same mathematics written from the problem, whole arrays at a time."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.instances import instance
from benchmarks.workers.process import serve
from benchmarks.workers.tree import Tree, chord, windows
from mullet.planning.commitment.problem import Inference, Problem

MTOKENS_PER_KILO = 3_600.0 / 1e3


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options: those of `instance`. Imports and making the instance are not counted."""
    import linopy
    import xarray

    # What it says of coming versions; printing that would be counted as its time.
    warnings.simplefilter("ignore")
    problem = instance(options)
    began = time.process_time()
    model = _Model(linopy, xarray, problem)
    model.build()
    built = time.process_time()
    # The model goes to HiGHS as arrays, not through a file; nothing of it is faster.
    model.program.solve(solver_name="highs", io_api="direct", progress=False, output_flag=False, threads=1)
    ended = time.process_time()
    return {
        "objective": float(model.program.objective.value) + model.constant,
        "status": str(model.program.termination_condition),
        "build_s": built - began,
        "solve_s": ended - built,
        "variables": int(model.program.nvars),
        "rows": int(model.program.ncons),
    }


class _Model:
    """The program while it is written down."""

    def __init__(self, linopy: Any, xarray: Any, problem: Problem) -> None:
        self.linopy = linopy
        self.xarray = xarray
        self.problem = problem
        self.count = problem.grid.count
        self.time = np.arange(self.count)
        self.hours = self.array(problem.grid.hours)
        self.tree = Tree(problem.circuits)
        self.program = linopy.Model()
        self.gains: list[Any] = []
        self.constant = 0.0
        self.pools: list[tuple[int, Any]] = []
        """(circuit, power over time) of each pool."""

    def array(self, values: Any) -> Any:
        """Return values over time."""
        return self.xarray.DataArray(np.asarray(values, dtype=float), dims=["time"], coords={"time": self.time})

    def over_time(self, name: str, low: Any = 0.0, high: Any = np.inf) -> Any:
        """Return a new variable over time."""
        low = low if np.ndim(low) == 0 else self.array(low)
        high = high if np.ndim(high) == 0 else self.array(high)
        return self.program.add_variables(low, high, coords=[("time", self.time)], name=name)

    def build(self) -> None:
        """Write everything down."""
        self.add_groups()
        for number, service in enumerate(self.problem.inference):
            self.add_service(number, service)
        self.add_circuits()
        self.add_site()
        self.add_obligations()
        self.add_accounts()
        self.program.add_objective(self.linopy.merge(self.gains), sense="max")

    def add_groups(self) -> None:
        """Add counts, starts and how long loads stay on and off."""
        groups, count = self.problem.mining, self.count
        levels = max(len(group.mean_mw) for group in groups)
        numbers = np.arange(len(groups))
        self.group = [("group", numbers)]
        over = [*self.group, ("level", np.arange(levels)), ("time", self.time)]
        high, low = np.zeros((len(groups), levels, count)), np.zeros((len(groups), levels, count))
        th, mean, most = (np.zeros((len(groups), levels)) for _ in range(3))
        running = np.zeros(len(groups))
        for g, group in enumerate(groups):
            size = len(group.mean_mw)
            high[g, :size] = group.count
            th[g, :size], mean[g, :size], most[g, :size] = group.th_per_s, group.mean_mw, group.most_mw
            running[g] = group.running[0]
            if group.least_on is not None:
                low[g, 0] = group.least_on
            if group.most_on is not None:
                high[g, 0] = group.most_on
        there = np.array([[k < len(group.mean_mw) for k in range(levels)] for group in groups])
        by_level = [*self.group, over[1]]
        mask = self.xarray.DataArray(np.repeat(there[:, :, None], count, axis=2), coords=over)
        self.mean = self.xarray.DataArray(mean, coords=by_level)
        self.most = self.xarray.DataArray(most, coords=by_level)
        counts = np.array([float(group.count) for group in groups])
        by_group = [*self.group, ("time", self.time)]
        self.z = self.program.add_variables(
            self.xarray.DataArray(low, coords=over), self.xarray.DataArray(high, coords=over), mask=mask, name="z"
        )
        full = self.xarray.DataArray(np.repeat(counts[:, None], count, axis=1), coords=by_group)
        self.v = self.program.add_variables(0.0, full, name="v")
        self.u = self.z.isel(level=0, drop=True)
        upper = mask & (mask["level"] > 0)
        self.program.add_constraints(self.z.shift(level=1) - self.z >= 0.0, name="order", mask=upper)
        begun = np.zeros((len(groups), count))
        begun[:, 0] = -running
        right = self.xarray.DataArray(begun, coords=by_group)
        self.program.add_constraints(self.v - self.u + self.u.shift(time=1) >= right, name="start")
        self.add_dwell("min_on", [group.min_on_s for group in groups], counts, running)
        self.add_dwell("min_off", [group.min_off_s for group in groups], counts, running)
        for g, group in enumerate(groups):
            for k, limit in enumerate(group.start_limits):
                starts = self.v.sel(group=g).isel(time=slice(limit.first, limit.last)).sum()
                self.program.add_constraints(starts <= limit.most, name=f"starts_{g}_{k}")
        worth = self.xarray.DataArray(th, coords=by_level) * self.array(self.problem.site.earned_per_th_hour)
        cost = np.array([group.start_cost for group in groups])
        self.gains.append((self.z * (worth * self.hours)).sum())
        self.gains.append((self.v * self.xarray.DataArray(-cost, coords=by_group)).sum())

    def add_dwell(self, name: str, dwell_s: list[float], counts: Any, running: Any) -> None:
        """Add rows for windows of starts, all groups of one length at a time, step after step within the window."""
        for length_s in sorted(set(dwell_s)):
            mine = np.flatnonzero(np.array(dwell_s) == length_s)
            found = windows(self.problem.grid, length_s, last_only=name == "min_off")
            if not found:
                continue
            steps = np.array([t for t, _ in found])
            first = np.array([f for _, f in found])
            v, u = self.v.isel(group=mine), self.u.isel(group=mine)
            lags = int((steps - first).max())
            starts = []
            for lag in range(lags + 1):
                inside = self.xarray.DataArray(steps - lag >= first, dims=["time"], coords={"time": steps})
                starts.append((1.0 * v.shift(time=lag).isel(time=steps)).where(inside))
            begun = self.linopy.merge(starts, dim="_term") if len(starts) > 1 else starts[0]
            if name == "min_on":
                rows = u.isel(time=steps) - begun >= 0.0
                self.program.add_constraints(rows, name=f"{name}_{length_s:.0f}")
                continue
            right = np.where(first[None, :] == 0, (counts - running)[mine, None], counts[mine, None])
            before = np.maximum(first - 1, 0)
            later = self.xarray.DataArray(first > 0, dims=["time"], coords={"time": steps})
            rested = (1.0 * u.isel(time=before).assign_coords(time=steps)).where(later)
            bound = self.xarray.DataArray(right, coords=[("group", mine), ("time", steps)])
            self.program.add_constraints(begun + rested <= bound, name=f"{name}_{length_s:.0f}")

    def add_service(self, number: int, service: Inference) -> None:
        """Add active GPUs, their power, and what goes unserved; tokens in thousands."""
        demand = self.array(service.demand_tokens_per_s / 1e3)
        mtokens = self.hours * MTOKENS_PER_KILO
        served = []
        for place, pool in enumerate(service.pools):
            name = f"{number}_{place}"
            active = self.over_time(f"n_{name}", pool.least_active, pool.count)
            segments = [("segment", np.arange(len(pool.segment_mw)))]
            width = self.xarray.DataArray(pool.segment_mw, coords=segments)
            slope = self.xarray.DataArray(pool.tokens_per_s_per_mw / 1e3, coords=segments)
            power = self.program.add_variables(0.0, coords=[*segments, ("time", self.time)], name=f"p_{name}")
            self.program.add_constraints(power - width * active <= 0.0, name=f"width_{name}")
            self.pools.append((pool.circuit, power.sum("segment") + pool.active_mw * active))
            served.append((slope * power).sum("segment") + pool.base_tokens_per_s / 1e3 * active)
        self.constant += float((demand * mtokens).sum()) * service.value_per_mtoken
        for k, tier in enumerate(service.tiers):
            short = self.over_time(f"s_{number}_{k}", 0.0, (tier.share * demand).values)
            served.append(1.0 * short)
            self.gains.append((short * (-(service.value_per_mtoken + tier.penalty_per_mtoken) * mtokens)).sum())
        self.program.add_constraints(self.linopy.merge(served) >= demand, name=f"demand_{number}")

    def own(self, circuits: list[int], per_load: Any, pools: bool = True) -> list[Any]:
        """Return the power of what is fed from the circuits directly, as expressions over time."""
        found = []
        mine = [g for g, group in enumerate(self.problem.mining) if group.circuit in circuits]
        if mine:
            found.append((self.z.isel(group=mine) * per_load.isel(group=mine)).sum(["group", "level"]))
        if pools:
            found += [power for circuit, power in self.pools if circuit in circuits]
        return found

    def add_circuits(self) -> None:
        """Add the most power at every circuit and its limit."""
        raw = [self.over_time(f"r_{c}", 0.0, self.bound(c)) for c in range(len(self.problem.circuits))]
        cool = self.cooled(dict(enumerate(raw)), "most")
        for c, circuit in enumerate(self.problem.circuits):
            feeds = [1.0 * raw[child] for child in self.tree.children[c]]
            beneath = [-1.0 * raw[c], *feeds, *self.own([c], self.most)]
            self.program.add_constraints(self.linopy.merge(beneath) == 0.0, name=f"circuit_{c}")
            follow = [d for d in self.tree.subtree[c] if d != c and self.problem.circuits[d].follow]
            total = [(1.0 + circuit.follow) * raw[c], *(self.problem.circuits[d].follow * raw[d] for d in follow)]
            total += [1.0 * cool[d] for d in self.tree.subtree[c] if d in cool]
            if circuit.slack_per_mwh is not None:
                over = self.over_time(f"over_{c}")
                self.gains.append((over * (-circuit.slack_per_mwh * self.hours)).sum())
                total.append(-1.0 * over)
            if len(total) > 1:
                limit = self.array(circuit.limit_mw)
                self.program.add_constraints(self.linopy.merge(total) <= limit, name=f"limit_{c}")

    def bound(self, c: int) -> Any:
        """Return the limit as a bound on the load beneath, where only the circuit's own auxiliaries add to it."""
        circuits = self.problem.circuits
        alone = circuits[c].slack_per_mwh is None and not circuits[c].cooling
        alone = alone and not any(circuits[d].follow or circuits[d].cooling for d in self.tree.subtree[c] if d != c)
        return circuits[c].limit_mw / (1.0 + circuits[c].follow) if alone else np.inf

    def cooled(self, raw: dict[int, Any], name: str) -> dict[int, Any]:
        """Add the cooling that load `raw` needs, and return it by circuit."""
        cool = {}
        for c, circuit in enumerate(self.problem.circuits):
            if not circuit.cooling:
                continue
            cool[c] = self.over_time(f"cool_{name}_{c}")
            for k, segment in enumerate(circuit.cooling):
                rows = cool[c] - self.array(segment.slope) * raw[c] >= self.array(segment.fixed_mw)
                self.program.add_constraints(rows, name=f"cool_{name}_{c}_{k}")
            least, rise = chord(self.problem, self.tree, c, most=name == "most")
            rows = cool[c] - self.array(rise) * raw[c] <= self.array(least)
            self.program.add_constraints(rows, name=f"chord_{name}_{c}")
        return cool

    def add_site(self) -> None:
        """Add import, resale and demand charges, by expected power."""
        site, marked = self.problem.site, self.tree.marked
        raw = {c: self.over_time(f"e_{c}") for c in marked}
        for c in marked:
            feeds = [1.0 * raw[child] for child in self.tree.marked_children[c]]
            beneath = [-1.0 * raw[c], *feeds, *self.own(self.tree.nearest[c], self.mean)]
            self.program.add_constraints(self.linopy.merge(beneath) == 0.0, name=f"expected_{c}")
        cool = self.cooled(raw, "mean")
        bought, imported = self.over_time("bought"), self.over_time("import")
        sold = self.over_time("sold", 0.0, site.ppa_mw)
        cost = self.array(site.price_per_mwh + site.adder_per_mwh + site.coincident_per_mwh)
        self.gains.append((bought * (-cost * self.hours)).sum())
        if site.sell_per_mwh is not None:
            self.gains.append((sold * (self.array(site.sell_per_mwh) * self.hours)).sum())
        drawn = [-(self.problem.circuits[c].follow + (1.0 if c in self.tree.roots else 0.0)) * raw[c] for c in marked]
        drawn += [-1.0 * cooling for cooling in cool.values()]
        balance = self.linopy.merge([1.0 * imported, *drawn])
        self.program.add_constraints(balance == self.array(site.fixed_mw), name="energy")
        self.program.add_constraints(bought - sold - imported == self.array(-site.ppa_mw), name="bought")
        for k, charge in enumerate(site.demand_charges):
            peak = self.program.add_variables(0.0, name=f"peak_{k}")
            self.gains.append(-charge.per_mw * peak)
            within = imported.isel(time=slice(charge.first, charge.last))
            self.program.add_constraints(peak - within >= -charge.floor_mw, name=f"peak_{k}")

    def add_obligations(self) -> None:
        """Add awards that must stay droppable and ramps."""
        mining: dict[int, Any] = {}
        for c in {award.circuit for award in self.problem.awards} | {ramp.circuit for ramp in self.problem.ramps}:
            mining[c] = self.over_time(f"mining_{c}")
            own = self.own(self.tree.subtree[c], self.mean, pools=False)
            self.program.add_constraints(self.linopy.merge([-1.0 * mining[c], *own]) == 0.0, name=f"mining_{c}")
        for k, award in enumerate(self.problem.awards):
            terms = [1.0 * mining[award.circuit]]
            if award.slack_per_mwh is not None:
                short = self.over_time(f"short_{k}")
                self.gains.append((short * (-award.slack_per_mwh * self.hours)).sum())
                terms.append(1.0 * short)
            self.program.add_constraints(self.linopy.merge(terms) >= self.array(award.mw), name=f"award_{k}")
        for k, ramp in enumerate(self.problem.ramps):
            now = mining[ramp.circuit]
            up, down = np.array(ramp.up_mw, dtype=float), np.array(ramp.down_mw, dtype=float)
            up[0] += ramp.now_most_mw
            down[0] -= ramp.now_least_mw
            rise, fall = now - now.shift(time=1), now.shift(time=1) - now
            if ramp.slack_per_mwh is not None:
                slack = self.over_time(f"ramp_{k}")
                self.gains.append((slack * (-ramp.slack_per_mwh * self.hours)).sum())
                rise, fall = rise - slack, fall - slack
            self.program.add_constraints(rise <= self.array(up), name=f"up_{k}")
            self.program.add_constraints(fall <= self.array(down), name=f"down_{k}")

    def add_accounts(self) -> None:
        """Add curtailment budgets and uptime floors."""
        for a, account in enumerate(self.problem.accounts):
            mine = [g for g, group in enumerate(self.problem.mining) if group.account == a]
            full = sum(self.problem.mining[g].count * float(self.problem.mining[g].mean_mw.sum()) for g in mine)
            z, u = self.z.isel(group=mine), self.u.isel(group=mine)
            for k, budget in enumerate(account.curtailment):
                span = slice(budget.first, budget.last)
                drawn = (z.isel(time=span) * (self.mean.isel(group=mine) * self.hours.isel(time=span))).sum()
                least = full * float(self.hours.isel(time=span).sum()) - budget.amount
                self.add_budget(f"held_{a}_{k}", drawn, least, budget.slack_price)
            for k, budget in enumerate(account.uptime):
                span = slice(budget.first, budget.last)
                run = (u.isel(time=span) * self.hours.isel(time=span)).sum()
                self.add_budget(f"run_{a}_{k}", run, budget.amount, budget.slack_price)

    def add_budget(self, name: str, amount: Any, least: float, price: float | None) -> None:
        """Add amount >= least, short of it at a price."""
        if price is not None:
            short = self.program.add_variables(0.0, name=name)
            self.gains.append(-price * short)
            amount = amount + short
        self.program.add_constraints(amount >= least, name=name)


if __name__ == "__main__":
    serve(measure)
