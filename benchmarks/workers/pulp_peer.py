"""The peer PuLP with HiGHS: the same mathematics written from the problem, one Python object per variable."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from benchmarks.instances import instance
from benchmarks.workers.process import serve
from benchmarks.workers.tree import Tree, chord, windows
from mullet.planning.commitment.problem import Inference, Mining, Problem

MTOKENS_PER_KILO = 3_600.0 / 1e3


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options: those of `instance`. Imports and making the instance are not counted."""
    import pulp

    problem = instance(options)
    began = time.process_time()
    model = _Model(pulp, problem)
    model.build()
    built = time.process_time()
    model.program.solve(pulp.HiGHS(msg=False, threads=1))
    ended = time.process_time()
    return {
        "objective": float(pulp.value(model.program.objective)),
        "status": pulp.LpStatus[model.program.status],
        "build_s": built - began,
        "solve_s": ended - built,
        "variables": len(model.program.variables()),
        "rows": len(model.program.constraints),
    }


class _Model:
    """The program while it is written down."""

    def __init__(self, pulp: Any, problem: Problem) -> None:
        self.pulp = pulp
        self.problem = problem
        self.steps = range(problem.grid.count)
        self.hours = problem.grid.hours
        self.tree = Tree(problem.circuits)
        self.program = pulp.LpProblem("plan", pulp.LpMaximize)
        self.gain: list[tuple[Any, float]] = []
        self.constant = 0.0
        self.most: list[list[list[tuple[Any, float]]]] = [[[] for _ in self.steps] for _ in problem.circuits]
        """Per circuit and step: most power of what is fed from it directly."""
        self.mean: list[list[list[tuple[Any, float]]]] = [[[] for _ in self.steps] for _ in problem.circuits]
        self.mining: list[list[list[tuple[Any, float]]]] = [[[] for _ in self.steps] for _ in problem.circuits]
        self.held: dict[int, list[list[tuple[Any, float]]]] = {}
        self.run: dict[int, list[list[tuple[Any, float]]]] = {}

    def variable(self, name: str, low: float | None = 0.0, high: float | None = None) -> Any:
        """Return a new variable."""
        return self.pulp.LpVariable(name, low, high)

    def row(self, terms: list[tuple[Any, float]], sense: str, right: float) -> None:
        """Add terms <= right, >= right or == right."""
        expression = self.pulp.LpAffineExpression(terms)
        if sense == "<=":
            self.program += expression <= right
        elif sense == ">=":
            self.program += expression >= right
        else:
            self.program += expression == right

    def build(self) -> None:
        """Write everything down."""
        for number, group in enumerate(self.problem.mining):
            self.add_group(number, group)
        for number, service in enumerate(self.problem.inference):
            self.add_service(number, service)
        self.add_circuits()
        self.add_site()
        self.add_obligations()
        self.add_accounts()
        self.program += self.pulp.LpAffineExpression(self.gain, self.constant)

    def add_group(self, number: int, group: Mining) -> None:
        """Add counts, starts and how long loads stay on and off."""
        site = self.problem.site
        levels = range(len(group.mean_mw))
        z = [[self.variable(f"z_{number}_{m}_{t}", 0.0, group.count) for t in self.steps] for m in levels]
        v = [self.variable(f"v_{number}_{t}", 0.0, group.count) for t in self.steps]
        for t in self.steps:
            if group.least_on is not None:
                z[0][t].lowBound = float(group.least_on[t])
            if group.most_on is not None:
                z[0][t].upBound = float(group.most_on[t])
            for m in levels:
                earned = float(group.th_per_s[m] * site.earned_per_th_hour[t] * self.hours[t])
                self.gain.append((z[m][t], earned))
                self.most[group.circuit][t].append((z[m][t], float(group.most_mw[m])))
                self.mean[group.circuit][t].append((z[m][t], float(group.mean_mw[m])))
                self.mining[group.circuit][t].append((z[m][t], float(group.mean_mw[m])))
                if m:
                    self.row([(z[m - 1][t], 1.0), (z[m][t], -1.0)], ">=", 0.0)
            self.gain.append((v[t], -float(group.start_cost[t])))
            before = [(z[0][t - 1], 1.0)] if t else []
            self.row([(v[t], 1.0), (z[0][t], -1.0), *before], ">=", 0.0 if t else -float(group.running[0]))
        for t, first in windows(self.problem.grid, group.min_on_s, last_only=False):
            self.row([(z[0][t], 1.0), *((v[k], -1.0) for k in range(first, t + 1))], ">=", 0.0)
        for t, first in windows(self.problem.grid, group.min_off_s, last_only=True):
            starts = [(v[k], 1.0) for k in range(first, t + 1)]
            if first:
                self.row([*starts, (z[0][first - 1], 1.0)], "<=", group.count)
            else:
                self.row(starts, "<=", group.count - float(group.running[0]))
        for limit in group.start_limits:
            self.row([(v[t], 1.0) for t in range(limit.first, limit.last)], "<=", limit.most)
        if group.account >= 0:
            held = self.held.setdefault(group.account, [[] for _ in self.steps])
            run = self.run.setdefault(group.account, [[] for _ in self.steps])
            for t in self.steps:
                held[t] += [(z[m][t], float(group.mean_mw[m] * self.hours[t])) for m in levels]
                run[t].append((z[0][t], float(self.hours[t])))

    def add_service(self, number: int, service: Inference) -> None:
        """Add active GPUs, their power, and what goes unserved; tokens in thousands."""
        served: list[list[tuple[Any, float]]] = [[] for _ in self.steps]
        for place, pool in enumerate(service.pools):
            name = f"{number}_{place}"
            for t in self.steps:
                active = self.variable(f"n_{name}_{t}", pool.least_active, pool.count)
                power = [(active, pool.active_mw)]
                served[t].append((active, pool.base_tokens_per_s / 1e3))
                for s, (width, slope) in enumerate(zip(pool.segment_mw, pool.tokens_per_s_per_mw, strict=True)):
                    segment = self.variable(f"p_{name}_{s}_{t}")
                    self.row([(segment, 1.0), (active, -float(width))], "<=", 0.0)
                    power.append((segment, 1.0))
                    served[t].append((segment, float(slope) / 1e3))
                self.most[pool.circuit][t] += power
                self.mean[pool.circuit][t] += power
        for t in self.steps:
            demand = float(service.demand_tokens_per_s[t]) / 1e3
            mtokens = float(self.hours[t]) * MTOKENS_PER_KILO
            self.constant += service.value_per_mtoken * demand * mtokens
            for k, tier in enumerate(service.tiers):
                short = self.variable(f"s_{number}_{k}_{t}", 0.0, tier.share * demand)
                served[t].append((short, 1.0))
                self.gain.append((short, -(service.value_per_mtoken + tier.penalty_per_mtoken) * mtokens))
            self.row(served[t], ">=", demand)

    def add_circuits(self) -> None:
        """Add the most power at every circuit and its limit."""
        raw = [[self.variable(f"r_{c}_{t}") for t in self.steps] for c in range(len(self.problem.circuits))]
        self.cooled(raw, "most")
        for c, circuit in enumerate(self.problem.circuits):
            for t in self.steps:
                feeds = [(raw[child][t], -1.0) for child in self.tree.children[c]]
                own = [(variable, -watts) for variable, watts in self.most[c][t]]
                self.row([(raw[c][t], 1.0), *feeds, *own], "==", 0.0)
                total = {id(raw[c][t]): (raw[c][t], 1.0)}
                for d in self.tree.subtree[c]:
                    follow = self.problem.circuits[d].follow
                    if follow:
                        held = total.get(id(raw[d][t]), (raw[d][t], 0.0))
                        total[id(raw[d][t])] = (raw[d][t], held[1] + follow)
                terms = list(total.values()) + [(self.cool[d][t], 1.0) for d in self.tree.subtree[c] if d in self.cool]
                if circuit.slack_per_mwh is not None:
                    slack = self.variable(f"over_{c}_{t}")
                    self.gain.append((slack, -circuit.slack_per_mwh * float(self.hours[t])))
                    terms.append((slack, -1.0))
                if len(terms) == 1:
                    raw[c][t].upBound = float(circuit.limit_mw[t]) / terms[0][1]
                else:
                    self.row(terms, "<=", float(circuit.limit_mw[t]))

    def cooled(self, raw: Any, name: str) -> None:
        """Add the cooling that load `raw` (by circuit and step) needs."""
        self.cool: dict[int, list[Any]] = {}
        for c, circuit in enumerate(self.problem.circuits):
            if not circuit.cooling:
                continue
            self.cool[c] = [self.variable(f"cool_{name}_{c}_{t}") for t in self.steps]
            for segment in circuit.cooling:
                for t in self.steps:
                    terms = [(self.cool[c][t], 1.0), (raw[c][t], -float(segment.slope[t]))]
                    self.row(terms, ">=", float(segment.fixed_mw[t]))
            least, rise = chord(self.problem, self.tree, c, most=name == "most")
            for t in self.steps:
                self.row([(self.cool[c][t], 1.0), (raw[c][t], -float(rise[t]))], "<=", float(least[t]))

    def add_site(self) -> None:
        """Add import, resale and demand charges, by expected power."""
        site = self.problem.site
        marked = self.tree.marked
        raw = {c: [self.variable(f"e_{c}_{t}") for t in self.steps] for c in marked}
        for c in marked:
            for t in self.steps:
                own = [(v, -mw) for d in self.tree.nearest[c] for v, mw in self.mean[d][t]]
                feeds = [(raw[child][t], -1.0) for child in self.tree.marked_children[c]]
                self.row([(raw[c][t], 1.0), *feeds, *own], "==", 0.0)
        self.cooled(raw, "mean")
        imports = []
        for t in self.steps:
            bought = self.variable(f"y_{t}")
            sold = self.variable(f"sold_{t}", 0.0, float(site.ppa_mw[t]))
            imported = self.variable(f"i_{t}")
            imports.append(imported)
            cost = float(site.price_per_mwh[t] + site.adder_per_mwh[t] + site.coincident_per_mwh[t])
            self.gain.append((bought, -cost * float(self.hours[t])))
            if site.sell_per_mwh is not None:
                self.gain.append((sold, float(site.sell_per_mwh[t] * self.hours[t])))
            drawn = [(raw[c][t], -(self.problem.circuits[c].follow + (1.0 if c in self.tree.roots else 0.0)))
                     for c in marked]  # fmt: skip
            drawn += [(cooling[t], -1.0) for cooling in self.cool.values()]
            self.row([(imported, 1.0), *drawn], "==", float(site.fixed_mw[t]))
            self.row([(bought, 1.0), (sold, -1.0), (imported, -1.0)], "==", -float(site.ppa_mw[t]))
        for k, charge in enumerate(site.demand_charges):
            peak = self.variable(f"peak_{k}")
            self.gain.append((peak, -charge.per_mw))
            for t in range(charge.first, charge.last):
                self.row([(peak, 1.0), (imports[t], -1.0)], ">=", -charge.floor_mw)

    def add_obligations(self) -> None:
        """Add awards that must stay droppable and ramps."""
        mining: dict[int, list[Any]] = {}
        for c in {award.circuit for award in self.problem.awards} | {ramp.circuit for ramp in self.problem.ramps}:
            mining[c] = [self.variable(f"m_{c}_{t}") for t in self.steps]
            for t in self.steps:
                own = [(v, -mw) for d in self.tree.subtree[c] for v, mw in self.mining[d][t]]
                self.row([(mining[c][t], 1.0), *own], "==", 0.0)
        for k, award in enumerate(self.problem.awards):
            for t in self.steps:
                terms = [(mining[award.circuit][t], 1.0)]
                terms += self.slack(f"short_{k}_{t}", award.slack_per_mwh, float(self.hours[t]), 1.0)
                self.row(terms, ">=", float(award.mw[t]))
        for k, ramp in enumerate(self.problem.ramps):
            for t in self.steps:
                slack = self.slack(f"ramp_{k}_{t}", ramp.slack_per_mwh, float(self.hours[t]), -1.0)
                now, before = mining[ramp.circuit][t], mining[ramp.circuit][t - 1] if t else None
                up, down = float(ramp.up_mw[t]), float(ramp.down_mw[t])
                rise = [(now, 1.0)] if before is None else [(now, 1.0), (before, -1.0)]
                self.row([*rise, *slack], "<=", up if t else up + ramp.now_most_mw)
                fall = [(variable, -sign) for variable, sign in rise]
                self.row([*fall, *slack], "<=", down if t else down - ramp.now_least_mw)

    def slack(self, name: str, price: float | None, weight: float, sign: float) -> list[tuple[Any, float]]:
        """Return the term of a slack at a price, none without one."""
        if price is None:
            return []
        found = self.variable(name)
        self.gain.append((found, -price * weight))
        return [(found, sign)]

    def add_accounts(self) -> None:
        """Add curtailment budgets and uptime floors."""
        for a, account in enumerate(self.problem.accounts):
            groups = [group for group in self.problem.mining if group.account == a]
            full = sum(group.count * float(group.mean_mw.sum()) for group in groups)
            for k, budget in enumerate(account.curtailment):
                span = range(budget.first, budget.last)
                terms = [term for t in span for term in self.held[a][t]]
                terms += self.slack(f"held_{a}_{k}", budget.slack_price, 1.0, 1.0)
                self.row(terms, ">=", full * float(self.hours[budget.first : budget.last].sum()) - budget.amount)
            for k, budget in enumerate(account.uptime):
                terms = [term for t in range(budget.first, budget.last) for term in self.run[a][t]]
                terms += self.slack(f"run_{a}_{k}", budget.slack_price, 1.0, 1.0)
                self.row(terms, ">=", budget.amount)


if __name__ == "__main__":
    serve(measure)
