"""Promises that cannot all be kept: which data contradict each other, and what gives at which price.

A circuit's limit is never for sale here. What must run gives way to it, a promise gives at `LAST_RESORT_PER_MWH`
where it has no price of its own, and demand that no tier covers goes unserved at the price of `last_resort_tier`.
`price_contradictions` does so where the data alone show that it must be; `soften` does so for everything, for a problem
in which a solver found no solution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mullet.planning.commitment.flows import cooling_mw
from mullet.planning.commitment.problem import (
    Account,
    Budget,
    Floats,
    Inference,
    Ints,
    Mining,
    Pool,
    Problem,
    Tier,
)

LAST_RESORT_PER_MWH = 1e4
"""What missing a promise costs that has no price of its own and cannot be kept; an hour of a load counts its MWh."""

_TIER_FACTOR = 10.0
_COVERED = 1.0 - 1e-9
_ROUNDING = 1e-9
_TOKENS_PER_MTOKEN = 1e6
_SECONDS_PER_HOUR = 3600.0


def price_contradictions(problem: Problem) -> tuple[Problem, tuple[str, ...]]:
    """Return the problem with a price on every promise that its data show to be impossible, and a note for each.

    Needs a problem whose numbers have been checked.
    """
    notes: list[str] = []
    problem = _make_room(problem, notes)
    reach = _Reach(problem)
    return (
        replace(
            problem,
            inference=tuple(_covered(problem, service, notes) for service in problem.inference),
            awards=tuple(
                replace(award, slack_per_mwh=LAST_RESORT_PER_MWH)
                if award.slack_per_mwh is None
                and _noted(
                    notes, reach.award_conflict(award.circuit, award.mw), f"award beneath {reach.name(award.circuit)}"
                )
                else award
                for award in problem.awards
            ),
            ramps=tuple(
                replace(ramp, slack_per_mwh=LAST_RESORT_PER_MWH)
                if ramp.slack_per_mwh is None
                and _noted(notes, reach.ramp_conflict(number), f"ramp beneath {reach.name(ramp.circuit)}")
                else ramp
                for number, ramp in enumerate(problem.ramps)
            ),
            accounts=tuple(_priced_account(reach, number, notes) for number in range(len(problem.accounts))),
        ),
        tuple(notes),
    )


def soften(problem: Problem) -> tuple[Problem, tuple[str, ...]]:
    """Return the problem with a price on every promise, so that it has a solution, and notes that say so.

    What must run may stop, and never rises: then every schedule that starts nothing keeps what has no price.
    """
    notes: list[str] = []
    mining = []
    for group in problem.mining:
        if group.least_on is not None and len(group.least_on):
            running = int(group.running[0]) if len(group.running) else 0
            allowed = group.least_on if group.most_on is None else np.minimum(group.least_on, group.most_on)
            least = np.minimum.accumulate(np.minimum(allowed, running))
            if not np.array_equal(least, group.least_on):
                notes.append(f"group {group.key}: loads that must run may stop where promises contradict each other")
                group = replace(group, least_on=least)
        mining.append(group)
    problem = _make_room(replace(problem, mining=tuple(mining)), notes)
    awards = tuple(replace(a, slack_per_mwh=_price(a.slack_per_mwh)) for a in problem.awards)
    ramps = tuple(replace(r, slack_per_mwh=_price(r.slack_per_mwh)) for r in problem.ramps)
    accounts = tuple(
        replace(
            account,
            curtailment=tuple(replace(b, slack_price=_price(b.slack_price)) for b in account.curtailment),
            uptime=tuple(replace(b, slack_price=_price(b.slack_price, _load_mw(problem, n))) for b in account.uptime),
        )
        for n, account in enumerate(problem.accounts)
    )
    hard = sum(a.slack_per_mwh is None for a in problem.awards) + sum(r.slack_per_mwh is None for r in problem.ramps)
    hard += sum(b.slack_price is None for a in problem.accounts for b in (*a.curtailment, *a.uptime))
    if hard:
        notes.append(
            f"promises contradict each other: {hard} without a price may be missed at {LAST_RESORT_PER_MWH:g}/MWh"
        )
    services = tuple(_covered(problem, service, notes) for service in problem.inference)
    return replace(problem, awards=awards, ramps=ramps, accounts=accounts, inference=services), tuple(notes)


def last_resort_tier(service: Inference) -> Tier:
    """Return the tier that takes what no tier covers: ten times the worth of a Mtoken, and never less than mining.

    Never less: a MWh of the service's best pool, at its highest, is worth `LAST_RESORT_PER_MWH` at least.
    """
    worth = service.value_per_mtoken + max((tier.penalty_per_mtoken for tier in service.tiers), default=0.0)
    best = 0.0
    for pool in service.pools:
        power = pool.active_mw + float(np.sum(pool.segment_mw))
        made = pool.base_tokens_per_s + float(pool.segment_mw @ pool.tokens_per_s_per_mw)
        if power > 0.0:
            best = max(best, made / power * _SECONDS_PER_HOUR / _TOKENS_PER_MTOKEN)
    by_power = LAST_RESORT_PER_MWH / best if best > _ROUNDING else 0.0
    share = max(0.0, 1.0 - sum(tier.share for tier in service.tiers))
    return Tier(share, max(_TIER_FACTOR * worth, min(by_power, LAST_RESORT_PER_MWH), 1.0))


def _covered(problem: Problem, service: Inference, notes: list[str]) -> Inference:
    """Return the service with a tier of last resort where demand must be served, and name demand that cannot be."""
    share = sum(tier.share for tier in service.tiers)
    if share >= _COVERED:
        return service
    extended = replace(service, tiers=(*service.tiers, last_resort_tier(service)))
    must = service.demand_tokens_per_s * (1.0 - share)
    most = np.zeros_like(must)
    binding: set[str] = set()
    for pool in service.pools:
        made, circuits = _most_tokens(problem, pool)
        most, binding = most + made, binding | circuits
    over = np.flatnonzero(must > most * (1.0 + _ROUNDING))
    if len(over):
        step = int(over[0])
        within = f" within the limits of {', '.join(sorted(binding))}" if binding else ""
        notes.append(
            f"service {service.id}: {must[step]:g} tokens/s must be served at step {step}, its GPUs make "
            f"{most[step]:g} at most{within}: the rest goes unserved at "
            f"{extended.tiers[-1].penalty_per_mtoken:g} a Mtoken{_more(over)}"
        )
    return extended


def _most_tokens(problem: Problem, pool: Pool) -> tuple[Floats, set[str]]:
    """Return (T,) tokens/s that a pool makes at the most, and the circuits whose limits keep it from its highest."""
    widths = pool.segment_mw * pool.count
    room = np.full(problem.grid.count, float(np.sum(widths)))
    binding: set[str] = set()
    node = pool.circuit if pool.active_mw == 0.0 else -1
    while node >= 0:
        circuit = problem.circuits[node]
        if circuit.slack_per_mwh is None and np.any(circuit.limit_mw < room):
            room = np.minimum(room, circuit.limit_mw)
            binding.add(circuit.id)
        node = circuit.parent
    filled = np.clip(room - (np.cumsum(widths) - widths)[:, np.newaxis], 0.0, widths[:, np.newaxis])
    return pool.count * pool.base_tokens_per_s + pool.tokens_per_s_per_mw @ filled, binding


def _priced_account(reach: _Reach, number: int, notes: list[str]) -> Account:
    account = reach.problem.accounts[number]
    curtailment = tuple(
        replace(budget, slack_price=LAST_RESORT_PER_MWH)
        if budget.slack_price is None
        and _noted(notes, reach.curtailment_conflict(number, budget), f"account {account.id}: curtailment")
        else budget
        for budget in account.curtailment
    )
    uptime = tuple(
        replace(budget, slack_price=_price(None, _load_mw(reach.problem, number)))
        if budget.slack_price is None
        and _noted(notes, reach.uptime_conflict(number, budget), f"account {account.id}: uptime")
        else budget
        for budget in account.uptime
    )
    return replace(account, curtailment=curtailment, uptime=uptime)


@dataclass(frozen=True, slots=True, eq=False)
class _Forced:
    """(T,) What a circuit draws at the least: mining that must run, and all else."""

    mining_mw: Floats
    other_mw: Floats
    managed_mining_mw: Floats
    managed_other_mw: Floats


def _make_room(problem: Problem, notes: list[str]) -> Problem:
    """Let mining that must run stop where a limit does not carry it; raise a limit that nothing keeps to the draw."""
    forces = _Forces(problem)
    for node in reversed(range(len(problem.circuits))):
        circuit = forces.circuits[node]
        if circuit.slack_per_mwh is not None:
            continue
        forced = forces.at(node)
        short = np.flatnonzero(forced.mining_mw + forced.other_mw > circuit.limit_mw + _ROUNDING)
        if not len(short):
            continue
        step = int(short[0])
        if np.any(forced.mining_mw[short] > 0.0):
            left = max(0.0, circuit.limit_mw[step] - forced.other_mw[step])
            notes.append(
                f"circuit {circuit.id}: loads that must run draw {forced.mining_mw[step]:g} MW at step {step}, its "
                f"limit leaves {left:g} MW: they may stop{_more(short)}"
            )
            forces.stop(node, short)
            forced = forces.at(node)
        drawn = forced.mining_mw + forced.other_mw
        over = np.flatnonzero(drawn > circuit.limit_mw + _ROUNDING)
        if len(over):
            step = int(over[0])
            notes.append(
                f"circuit {circuit.id}: its limit of {circuit.limit_mw[step]:g} MW at step {step} cannot be kept: "
                f"cooling and GPUs that cannot be put aside draw {drawn[step]:g} MW{_more(over)}"
            )
            forces.circuits[node] = replace(circuit, limit_mw=np.maximum(circuit.limit_mw, drawn))
    return replace(problem, circuits=tuple(forces.circuits), mining=tuple(forces.mining))


def _stoppable(group: Mining, steps: Ints) -> Mining:
    if group.least_on is None:
        return group
    least = group.least_on.copy()
    least[steps] = 0
    return replace(group, least_on=least)


class _Forces:
    """What cannot be switched off beneath circuits, while mining is allowed to stop and limits rise."""

    def __init__(self, problem: Problem) -> None:
        self.circuits = list(problem.circuits)
        self.mining = list(problem.mining)
        self._steps = problem.grid.count
        self._pools = [0.0] * len(self.circuits)
        self._groups: list[list[int]] = [[] for _ in self.circuits]
        self._children: list[list[int]] = [[] for _ in self.circuits]
        self._known: dict[int, _Forced] = {}
        for node, circuit in enumerate(self.circuits):
            if circuit.parent >= 0:
                self._children[circuit.parent].append(node)
        for number, group in enumerate(self.mining):
            if group.least_on is not None and len(group.most_mw):
                self._groups[group.circuit].append(number)
        for pool in (pool for service in problem.inference for pool in service.pools):
            self._pools[pool.circuit] += pool.least_active * pool.active_mw

    def at(self, node: int) -> _Forced:
        """Return what a circuit draws at the least; children are asked first, which keeps the recursion flat."""
        if node not in self._known:
            self._known[node] = self._sum(node)
        return self._known[node]

    def stop(self, node: int, steps: Ints) -> None:
        """Let mining beneath a circuit stop in these steps."""
        self._known.pop(node, None)
        for number in self._groups[node]:
            self.mining[number] = _stoppable(self.mining[number], steps)
        for child in self._children[node]:
            self.stop(child, steps)

    def _sum(self, node: int) -> _Forced:
        circuit = self.circuits[node]
        mining, managed_mining = np.zeros(self._steps), np.zeros(self._steps)
        other, managed_other = np.zeros(self._steps), np.zeros(self._steps)
        for below in (self.at(child) for child in self._children[node]):
            mining, other = mining + below.mining_mw, other + below.other_mw
            managed_mining = managed_mining + below.managed_mining_mw
            managed_other = managed_other + below.managed_other_mw
        for group in (self.mining[number] for number in self._groups[node]):
            if group.least_on is not None:
                drawn = group.least_on * group.most_mw[0]
                mining, managed_mining = mining + drawn, managed_mining + drawn
        other, managed_other = other + self._pools[node], managed_other + self._pools[node]
        mining = mining + circuit.follow * managed_mining
        other = other + circuit.follow * managed_other
        idle = cooling_mw(circuit.cooling, managed_other)
        busy = cooling_mw(circuit.cooling, managed_other + managed_mining)
        return _Forced(mining + busy - idle, other + idle, managed_mining, managed_other)


class _Reach:
    """What mining beneath circuits can draw at the most and at the least, by the data alone."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._steps = problem.grid.count
        count = len(problem.circuits)
        self._most = [np.zeros(self._steps) for _ in range(count)]
        self._least = [np.zeros(self._steps) for _ in range(count)]
        for group in problem.mining:
            self._most[group.circuit] = self._most[group.circuit] + _may_run(group, self._steps) * float(
                np.sum(group.mean_mw)
            )
            if group.least_on is not None and len(group.mean_mw):
                self._least[group.circuit] = self._least[group.circuit] + group.least_on * group.mean_mw[0]
        for node in reversed(range(count)):
            circuit = problem.circuits[node]
            if circuit.slack_per_mwh is None:
                self._most[node] = np.minimum(self._most[node], circuit.limit_mw)
            if circuit.parent >= 0:
                self._most[circuit.parent] = self._most[circuit.parent] + self._most[node]
                self._least[circuit.parent] = self._least[circuit.parent] + self._least[node]
        # From the top down: nobody may draw more than what is above him carries.
        for node, circuit in enumerate(problem.circuits):
            if circuit.parent >= 0:
                self._most[node] = np.minimum(self._most[node], self._most[circuit.parent])

    def name(self, node: int) -> str:
        """Return the circuit's id."""
        return self.problem.circuits[node].id

    def award_conflict(self, node: int, mw: Floats) -> str | None:
        """Return in words where an award is above what mining may draw."""
        over = np.flatnonzero(mw > self._most[node] + _ROUNDING)
        if not len(over):
            return None
        step = int(over[0])
        return (
            f"{mw[step]:g} MW at step {step} is above {self._most[node][step]:g} MW that mining may draw{_more(over)}"
        )

    def ramp_conflict(self, number: int) -> str | None:
        """Return in words where a ramp does not reach what must be."""
        ramp = self.problem.ramps[number]
        low, high = ramp.now_least_mw, ramp.now_most_mw
        most, least = self._most[ramp.circuit], self._least[ramp.circuit]
        for award in self.problem.awards:
            if award.circuit == ramp.circuit and award.slack_per_mwh is None:
                least = np.maximum(least, np.where(award.mw <= most, award.mw, 0.0))
        for step in range(self._steps):
            low, high = max(0.0, low - ramp.down_mw[step]), min(high + ramp.up_mw[step], most[step])
            if low > most[step] + _ROUNDING:
                return f"mining draws {low:g} MW at step {step} at the least, {most[step]:g} MW may be drawn"
            if high < least[step] - _ROUNDING:
                return f"mining draws {high:g} MW at step {step} at the most, {least[step]:g} MW must be drawn"
            low = max(low, least[step])
        return None

    def curtailment_conflict(self, number: int, budget: Budget) -> str | None:
        """Return in words why more must be held back than the budget has."""
        held = np.zeros(self._steps)
        for group in self._owned(number):
            highest = float(np.sum(group.mean_mw))
            carried = np.minimum(_may_run(group, self._steps) * highest, self._most[group.circuit])
            held = held + group.count * highest - carried
        return self._compare(held, budget, 1.0, "MWh must be held back", "may be")

    def uptime_conflict(self, number: int, budget: Budget) -> str | None:
        """Return in words why loads cannot run for as long as they must."""
        run = np.zeros(self._steps)
        for group in self._owned(number):
            may = _may_run(group, self._steps)
            lowest = float(group.mean_mw[0]) if len(group.mean_mw) else 0.0
            if lowest > 0.0:
                # A load that draws next to nothing fits in any number: the quotient may be beyond all numbers.
                with np.errstate(over="ignore"):
                    may = np.minimum(may, self._most[group.circuit] / lowest)
            run = run + may
        return self._compare(run, budget, -1.0, "load-hours may run", "must")

    def _owned(self, number: int) -> list[Mining]:
        return [group for group in self.problem.mining if group.account == number]

    def _compare(self, amounts: Floats, budget: Budget, sign: float, has: str, wants: str) -> str | None:
        inside = slice(budget.first, budget.last)
        total = float(amounts[inside] @ self.problem.grid.hours[inside])
        if sign * (total - budget.amount) <= _ROUNDING * max(1.0, abs(total)):
            return None
        return f"{total:g} {has} in steps [{budget.first}, {budget.last}), {budget.amount:g} {wants}"


def _may_run(group: Mining, steps: int) -> Floats:
    if not len(group.mean_mw):
        return np.zeros(steps)
    return np.full(steps, float(group.count)) if group.most_on is None else group.most_on.astype(np.float64)


def _load_mw(problem: Problem, account: int) -> float:
    """Return the largest power of one load of the owner, 1 MW without any."""
    sizes = [float(np.sum(group.mean_mw)) for group in problem.mining if group.account == account]
    return max(sizes, default=0.0) or 1.0


def _price(price: float | None, mwh: float = 1.0) -> float:
    return LAST_RESORT_PER_MWH * mwh if price is None else price


def _noted(notes: list[str], conflict: str | None, name: str) -> bool:
    if conflict is None:
        return False
    notes.append(f"{name}: {conflict}: it may be missed at {LAST_RESORT_PER_MWH:g}/MWh")
    return True


def _more(places: Ints) -> str:
    return f" (and {len(places) - 1} more)" if len(places) > 1 else ""
