"""What a schedule earns and which limits it breaks, from the problem alone.

Nothing here knows the program, so that a fault in its making or in its solver shows. What a schedule leaves open is
set as it earns most: cooling on its curve, power bought ahead used before it is sold, demand unserved in the order of
the tiers, slacks as small as they may be. Counts may be fractions, so that a relaxed solution is judged alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mullet.planning.commitment.problem import Budget, Grid, Inference, Mining, Pool, Problem

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Counts = NDArray[np.int64] | NDArray[np.float64]

TOLERANCE = 1e-6
"""How far a limit may be missed, relative to its size and at least in its unit, before that is a violation."""


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Where every group and pool stands in every step; pools in the order of services and their pools."""

    at_least: tuple[Counts, ...]
    """Per mining group (M, T): loads at or above each step; [0] is how many run."""
    starts: tuple[Counts, ...]
    """Per mining group (T,): loads started."""
    pool_mw: tuple[Floats, ...]
    """Per pool (T,): power above the lowest limits of its active GPUs."""
    active: tuple[Counts, ...]
    """Per pool (T,): active GPUs."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What a schedule earns, by cause, and the quantities behind it. Costs are positive."""

    hashing: float
    inference: float
    resale: float
    energy: float
    """What is bought beyond power bought ahead, at price and adder."""
    coincident: float
    starts: float
    unserved_cost: float
    demand_charges: float
    slacks: float
    """Limits, awards, ramps and budgets that give at a price."""
    import_mw: Floats
    """(T,) All that is expected to be drawn; peaks are billed by it."""
    circuit_mw: Floats
    """(circuits, T) Most power at each circuit, auxiliaries and cooling included."""
    unserved: tuple[Floats, ...]
    """Per service (T,): tokens/s of demand that go unserved."""

    @property
    def earned(self) -> float:
        """The program's objective."""
        costs = self.energy + self.coincident + self.starts + self.unserved_cost + self.demand_charges + self.slacks
        return self.hashing + self.inference + self.resale - costs


def evaluate(problem: Problem, schedule: Schedule) -> Evaluation:
    """Return what the schedule earns over the horizon; what may not give is not priced (see `violations`)."""
    hours, site = problem.grid.hours, problem.site
    hash_rates = [group.th_per_s @ counts for group, counts in zip(problem.mining, schedule.at_least, strict=True)]
    imported = drawn_mw(problem, schedule)
    sell, _ = market_prices(problem)
    # What was bought ahead is used first: reselling never earns more than buying costs (`Site.sell_per_mwh`).
    sold = np.maximum(site.ppa_mw - imported, 0.0)
    bought = imported - site.ppa_mw + sold
    value, penalty, unserved = 0.0, 0.0, []
    for service, throughput in zip(problem.inference, _throughputs(problem, schedule), strict=True):
        short = np.maximum(service.demand_tokens_per_s - throughput, 0.0)
        mtokens = hours * 3600.0 / 1e6
        value += service.value_per_mtoken * float((service.demand_tokens_per_s - short) @ mtokens)
        penalty += float(_penalty_rate(service, short) @ mtokens)
        unserved.append(short)
    peaks = sum(
        charge.per_mw * max(0.0, float(np.max(imported[charge.first : charge.last], initial=0.0)) - charge.floor_mw)
        for charge in site.demand_charges
    )
    return Evaluation(
        hashing=float((sum(hash_rates, np.zeros(len(hours))) * site.earned_per_th_hour) @ hours),
        inference=value,
        resale=float((sold * sell) @ hours),
        energy=float((bought * (site.price_per_mwh + site.adder_per_mwh)) @ hours),
        coincident=float((bought * site.coincident_per_mwh) @ hours),
        starts=sum(
            float(group.start_cost @ starts) for group, starts in zip(problem.mining, schedule.starts, strict=True)
        ),
        unserved_cost=penalty,
        demand_charges=float(peaks),
        slacks=_slack_cost(problem, schedule),
        import_mw=imported,
        circuit_mw=circuit_mw(problem, schedule),
        unserved=tuple(unserved),
    )


def circuit_mw(problem: Problem, schedule: Schedule) -> Floats:
    """Return the most that managed loads, auxiliaries and cooling draw at each circuit, (circuits, T)."""
    return _with_auxiliaries(problem, _beneath(problem, _own_mw(problem, schedule, most=True)))


def drawn_mw(problem: Problem, schedule: Schedule) -> Floats:
    """Return all that is expected to be drawn from the grid connection, (T,)."""
    total = _with_auxiliaries(problem, _beneath(problem, _own_mw(problem, schedule, most=False)))
    roots = [place for place, circuit in enumerate(problem.circuits) if circuit.parent < 0]
    return np.asarray(problem.site.fixed_mw + total[roots].sum(axis=0))


def market_prices(problem: Problem) -> tuple[Floats, Floats]:
    """Return what a MWh bought ahead and left over sells for, and what a MWh bought costs, (T,) each."""
    site = problem.site
    sell = site.sell_per_mwh if site.sell_per_mwh is not None else np.zeros(problem.grid.count)
    return sell, site.price_per_mwh + site.adder_per_mwh + site.coincident_per_mwh


def mining_mw(problem: Problem, schedule: Schedule) -> Floats:
    """Return the power that mining beneath each circuit is expected to draw, (circuits, T)."""
    own = np.zeros((len(problem.circuits), problem.grid.count))
    for group, counts in zip(problem.mining, schedule.at_least, strict=True):
        own[group.circuit] += group.mean_mw @ counts
    return _beneath(problem, own)


def promised(problem: Problem, schedule: Schedule, account: int) -> tuple[Floats, Floats]:
    """Return MWh held back of an account's loads and hours that they run, (T,) each."""
    hours = problem.grid.hours
    held, run = np.zeros(len(hours)), np.zeros(len(hours))
    for group, counts in zip(problem.mining, schedule.at_least, strict=True):
        if group.account == account and len(counts):
            held += hours * (group.count * np.sum(group.mean_mw) - group.mean_mw @ counts)
            run += hours * counts[0]
    return held, run


def pools(problem: Problem) -> list[Pool]:
    """Return every pool in the order of services and their pools."""
    return [pool for service in problem.inference for pool in service.pools]


def throughput_of(pool: Pool, active: Counts, power_mw: Floats) -> Floats:
    """Return tokens/s of a pool, (T,): its segments fill in order, so that the curve is concave in power."""
    rate = pool.base_tokens_per_s * active
    left = np.asarray(power_mw, dtype=np.float64)
    for width, slope in zip(pool.segment_mw, pool.tokens_per_s_per_mw, strict=True):
        taken = np.clip(left, 0.0, width * active)
        rate = rate + slope * taken
        left = left - taken
    return np.asarray(rate, dtype=np.float64)


def dwell_window(grid: Grid, dwell_s: float) -> Ints:
    """Return, per step, the first step at or before it that began less than `dwell_s` before it, (T,)."""
    return np.minimum(np.searchsorted(grid.starts_s, grid.starts_s - dwell_s + 1e-6), np.arange(grid.count))


def _own_mw(problem: Problem, schedule: Schedule, most: bool) -> Floats:
    own = np.zeros((len(problem.circuits), problem.grid.count))
    for group, counts in zip(problem.mining, schedule.at_least, strict=True):
        own[group.circuit] += (group.most_mw if most else group.mean_mw) @ counts
    for pool, power, active in zip(pools(problem), schedule.pool_mw, schedule.active, strict=True):
        own[pool.circuit] += power + pool.active_mw * active
    return own


def _beneath(problem: Problem, own: Floats) -> Floats:
    total = own.copy()
    for place in range(len(problem.circuits) - 1, -1, -1):
        if problem.circuits[place].parent >= 0:
            total[problem.circuits[place].parent] += total[place]
    return total


def _with_auxiliaries(problem: Problem, beneath: Floats) -> Floats:
    extra = np.zeros_like(beneath)
    for place, circuit in enumerate(problem.circuits):
        extra[place] = circuit.follow * beneath[place]
        if circuit.cooling:
            curve = [segment.slope * beneath[place] + segment.fixed_mw for segment in circuit.cooling]
            extra[place] += np.maximum(np.max(curve, axis=0), 0.0)
    return np.asarray(beneath + _beneath(problem, extra))


def _throughputs(problem: Problem, schedule: Schedule) -> list[Floats]:
    found, place = [], 0
    for service in problem.inference:
        total = np.zeros(problem.grid.count)
        for pool in service.pools:
            total += throughput_of(pool, schedule.active[place], schedule.pool_mw[place])
            place += 1
        found.append(total)
    return found


def _penalty_rate(service: Inference, short: Floats) -> Floats:
    rate, left = np.zeros_like(short), short
    for tier in service.tiers:
        taken = np.minimum(left, tier.share * service.demand_tokens_per_s)
        rate += tier.penalty_per_mtoken * taken
        left = left - taken
    return rate


@dataclass(frozen=True, slots=True, eq=False)
class _Limit:
    """Something that may have a price: what was missed, per step or in sum."""

    words: str
    unit: str
    missed: Floats
    size: Floats
    """Against which `missed` is judged, same shape."""
    weight: Floats
    """What `missed` is multiplied by to be priced: hours for power, 1 for amounts."""
    price: float | None
    first: int = 0


def _limits(problem: Problem, schedule: Schedule) -> list[_Limit]:
    hours = problem.grid.hours
    found = []
    for circuit, power in zip(problem.circuits, circuit_mw(problem, schedule), strict=True):
        over = power - circuit.limit_mw
        found.append(
            _Limit(f"circuit {circuit.id}: over its limit", "MW", over, circuit.limit_mw, hours, circuit.slack_per_mwh)
        )
    mining = mining_mw(problem, schedule)
    for award in problem.awards:
        short = award.mw - mining[award.circuit]
        words = f"circuit {problem.circuits[award.circuit].id}: droppable mining short of the award"
        found.append(_Limit(words, "MW", short, award.mw, hours, award.slack_per_mwh))
    for ramp in problem.ramps:
        power = mining[ramp.circuit]
        up = np.diff(power, prepend=ramp.now_most_mw) - ramp.up_mw
        down = -np.diff(power, prepend=ramp.now_least_mw) - ramp.down_mw
        name = problem.circuits[ramp.circuit].id
        if ramp.slack_per_mwh is not None:
            # One slack gives way in both directions, so only the larger miss of a step is paid.
            both = np.maximum(up, down)
            found.append(_Limit(f"circuit {name}: moves too far", "MW", both, power, hours, ramp.slack_per_mwh))
        else:
            found.append(_Limit(f"circuit {name}: rises too far", "MW", up, power, hours, None))
            found.append(_Limit(f"circuit {name}: falls too far", "MW", down, power, hours, None))
    for place, account in enumerate(problem.accounts):
        held, run = promised(problem, schedule, place)
        for budget in account.curtailment:
            missed = float(np.sum(held[budget.first : budget.last])) - budget.amount
            found.append(_of_budget(f"account {account.id}: held back beyond its budget", "MWh", missed, budget))
        for budget in account.uptime:
            missed = budget.amount - float(np.sum(run[budget.first : budget.last]))
            found.append(_of_budget(f"account {account.id}: runs less than promised", "load-hours", missed, budget))
    return found


def _of_budget(words: str, unit: str, missed: float, budget: Budget) -> _Limit:
    one = np.ones(1)
    return _Limit(words, unit, missed * one, abs(budget.amount) * one, one, budget.slack_price, budget.first)


def _slack_cost(problem: Problem, schedule: Schedule) -> float:
    return sum(
        limit.price * float(np.maximum(limit.missed, 0.0) @ limit.weight)
        for limit in _limits(problem, schedule)
        if limit.price is not None
    )


def violations(problem: Problem, schedule: Schedule, whole: bool = True) -> tuple[str, ...]:
    """Return in words what the schedule breaks that is not for sale: where, in which step, by how much.

    `whole=False` lets counts be fractions, as in a relaxed solution.
    """
    found: list[str] = []
    for limit in _limits(problem, schedule):
        if limit.price is None:
            found += _beyond(limit.words, limit.unit, limit.missed, limit.size, limit.first)
    for group, counts, starts in zip(problem.mining, schedule.at_least, schedule.starts, strict=True):
        found += _group_violations(problem.grid, group, counts, starts)
        if whole:
            found += _fractions(f"group {group.key}", counts)
            found += _fractions(f"group {group.key}", starts[None, :])
    for pool, power, active in zip(pools(problem), schedule.pool_mw, schedule.active, strict=True):
        name = f"pool {pool.key}"
        found += _beyond(f"{name}: fewer GPUs active than cannot be put aside", "GPUs", pool.least_active - active)
        found += _beyond(f"{name}: more GPUs active than there are", "GPUs", active - pool.count)
        most_mw = float(np.sum(pool.segment_mw)) * np.asarray(active, dtype=np.float64)
        found += _beyond(f"{name}: power below its lowest limit", "MW", -power, most_mw)
        found += _beyond(f"{name}: power above its highest limit", "MW", power - most_mw, most_mw)
        if whole:
            found += _fractions(name, active[None, :])
    for service, throughput in zip(problem.inference, _throughputs(problem, schedule), strict=True):
        share = sum(tier.share for tier in service.tiers)
        short = service.demand_tokens_per_s * (1.0 - share) - throughput
        words = f"service {service.id}: serves less than its tiers allow"
        found += _beyond(words, "tokens/s", short, service.demand_tokens_per_s)
    return tuple(found)


def _group_violations(grid: Grid, group: Mining, counts: Counts, starts: Counts) -> list[str]:
    if not len(counts):
        return []
    name, running = f"group {group.key}", counts[0]
    found = []
    for step in range(len(counts)):
        above = counts[step - 1] if step else np.full(grid.count, group.count)
        words = f"more loads at step {step} of its curve than beneath it" if step else "more loads run than there are"
        found += _beyond(f"{name}: {words}", "loads", counts[step] - above)
    found += _beyond(f"{name}: fewer than no loads", "loads", -np.vstack([counts, starts[None, :]]).min(axis=0))
    before = np.concatenate([[group.running[0]], running[:-1]])
    found += _beyond(f"{name}: runs more without a start", "loads", running - before - starts)
    stops = np.maximum(starts - (running - before), 0)
    for dwell_s, events, standing, words in (
        (group.min_on_s, starts, running, "stopped before it ran long enough"),
        (group.min_off_s, stops, group.count - running, "started before it stood long enough"),
    ):
        total = np.concatenate([[0], np.cumsum(events)])
        recent = total[1:] - total[dwell_window(grid, dwell_s)]
        found += _beyond(f"{name}: {words}", "loads", recent - standing if dwell_s > 0.0 else np.zeros(grid.count))
    if group.least_on is not None:
        found += _beyond(f"{name}: fewer run than must", "loads", group.least_on - running)
    if group.most_on is not None:
        found += _beyond(f"{name}: more run than may", "loads", running - group.most_on)
    for limit in group.start_limits:
        over = np.array([float(np.sum(starts[limit.first : limit.last])) - limit.most])
        found += _beyond(f"{name}: started too often", "starts", over, first=limit.first)
    return found


def _beyond(words: str, unit: str, over: Counts, size: Counts | None = None, first: int = 0) -> list[str]:
    allowed = TOLERANCE * np.maximum(1.0, np.abs(size)) if size is not None else np.full(len(over), TOLERANCE)
    return [
        f"{words} in step {first + step} by {float(over[step]):.6g} {unit}"
        for step in np.flatnonzero(~(over <= allowed))
    ]


def _fractions(name: str, counts: Counts) -> list[str]:
    broken = np.flatnonzero(np.any(counts != np.rint(counts), axis=0))
    return [f"{name}: a count is not whole in step {step}" for step in broken]
