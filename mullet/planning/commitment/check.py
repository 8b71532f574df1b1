"""The door: no problem reaches a solver before its numbers are known to make sense.

What cannot be read (shapes, indices, numbers that are not numbers) is refused with the thing, the step and the value.
What can be read in one safe way is mended and noted. What contradicts itself is left to `contradictions`, which names
the data that bind. Everything after the door may take its data as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mullet.planning.commitment.contradictions import price_contradictions
from mullet.planning.commitment.problem import (
    Account,
    Award,
    Budget,
    CircuitLimit,
    Cooling,
    DemandCharge,
    Floats,
    Grid,
    Inference,
    Ints,
    Mining,
    Pool,
    Problem,
    Ramp,
    Site,
    StartLimit,
    Tier,
)
from mullet.planning.commitment.reading import BEYOND_BELIEF, TOKENS_BEYOND_BELIEF, Reader, more, refuse, require_index
from mullet.ports import PlanningError

_SAME_S = 1.0
"""How far the start of a step may be from the end of the one before it."""
_SHARE_ROUNDING = 1e-9


def check(problem: Problem) -> tuple[Problem, tuple[str, ...]]:
    """Return the problem as it can be built and solved, and in words what was mended in it.

    The notes are not among the problem's own, which say how it was posed. Nothing is removed: groups, circuits and
    tiers keep their places.

    Raises:
        PlanningError: the message names the thing, the step and the value that cannot be read.
    """
    try:
        door = _Door(problem.grid)
        checked = door.problem(problem)
        checked, contradictions = price_contradictions(checked)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise PlanningError(f"the problem cannot be read: {error}") from error
    return checked, (*door.notes, *contradictions)


class _Door(Reader):
    """Looks at one problem, part by part, and collects what it mends."""

    def __init__(self, grid: Grid) -> None:
        _check_grid(grid)
        super().__init__(grid.count)

    def problem(self, problem: Problem) -> Problem:
        for node, circuit in enumerate(problem.circuits):
            if not -1 <= circuit.parent < node:
                refuse(f"circuit {circuit.id}: parent {circuit.parent} does not come before it (it is {node})")
        return replace(
            problem,
            circuits=tuple(self._circuit(circuit) for circuit in problem.circuits),
            mining=tuple(self._mining(group, problem) for group in problem.mining),
            inference=tuple(self._service(service, problem) for service in problem.inference),
            site=self._site(problem.site),
            accounts=tuple(self._account(account) for account in problem.accounts),
            awards=tuple(self._award(award, problem) for award in problem.awards),
            ramps=tuple(self._ramp(ramp, problem) for ramp in problem.ramps),
        )

    def _circuit(self, circuit: CircuitLimit) -> CircuitLimit:
        name = f"circuit {circuit.id}"
        limit = np.asarray(circuit.limit_mw, dtype=np.float64)
        # No limit at all is a limit too; a limit that nobody knows is not.
        bounded = np.where(limit == np.inf, BEYOND_BELIEF, limit)
        return replace(
            circuit,
            limit_mw=self.at_least_0(f"{name}: limit (MW)", bounded),
            follow=self.number(f"{name}: follow", circuit.follow),
            cooling=tuple(self._cooling(f"{name}: cooling {n}", c) for n, c in enumerate(circuit.cooling)),
            slack_per_mwh=self.price_of_missing(f"{name}: limit", circuit.slack_per_mwh),
        )

    def _cooling(self, name: str, cooling: Cooling) -> Cooling:
        slope = self.at_least_0(f"{name}: slope", cooling.slope)
        return Cooling(slope, self.over_time(f"{name}: fixed draw (MW)", cooling.fixed_mw))

    def _mining(self, group: Mining, problem: Problem) -> Mining:
        name = f"group {group.key}"
        require_index(f"{name}: circuit", group.circuit, len(problem.circuits))
        require_index(f"{name}: account", group.account, len(problem.accounts), least=-1)
        if group.count < 0:
            refuse(f"{name}: {group.count} loads")
        if group.count == 0:
            self.notes.append(f"{name} has no loads: nothing is planned for it")
        count = int(np.size(group.most_mw))
        most = self.numbers(f"{name}: most power (MW) of a power step", group.most_mw, count, each="power step")
        mean = self.numbers(f"{name}: expected power (MW) of a power step", group.mean_mw, count, each="power step")
        th_per_s = self.numbers(f"{name}: TH/s of a power step", group.th_per_s, count, each="power step")
        for number in np.flatnonzero((most < 0.0) | (mean < 0.0)):
            refuse(
                f"{name}: operating points out of order: point {number + 1} draws {most[number]:+g} MW at most and "
                f"{mean[number]:+g} MW as expected against the one before it"
            )
        dominated = np.flatnonzero(th_per_s <= 0.0)
        if len(dominated):
            first = int(dominated[0])
            self.notes.append(
                f"{name}: operating point {first + 1} is dominated: {mean[first]:+g} MW for {th_per_s[first]:+g} "
                f"TH/s; it pays only where energy costs less than nothing{more(dominated)}"
            )
        over = np.flatnonzero(mean > most)
        if len(over):
            first = int(over[0])
            self.notes.append(
                f"{name}: power step {first} is expected to draw {mean[first]:g} MW and may draw {most[first]:g} at "
                f"most: the larger counts as both{more(over)}"
            )
            most = np.maximum(most, mean)
        least_on, most_on = self._held(name, group)
        return replace(
            group,
            most_mw=most,
            mean_mw=mean,
            th_per_s=th_per_s,
            start_cost=self.at_least_0(f"{name}: cost of a start", group.start_cost),
            running=self._running(name, group, count),
            min_on_s=self.number(f"{name}: min_on_s", group.min_on_s),
            min_off_s=self.number(f"{name}: min_off_s", group.min_off_s),
            least_on=least_on,
            most_on=most_on,
            start_limits=tuple(self._start_limit(f"{name}: start limit", limit) for limit in group.start_limits),
        )

    def _running(self, name: str, group: Mining, count: int) -> Ints:
        running = self.counts(f"{name}: running", group.running, count, group.count, each="power step")
        ordered = np.minimum.accumulate(running) if len(running) else running
        for number in np.flatnonzero(ordered != running)[:1]:
            self.notes.append(
                f"{name}: {running[number]} loads at power step {number}, more than at a lower one: "
                f"{ordered[number]} count"
            )
        return ordered

    def _held(self, name: str, group: Mining) -> tuple[Ints | None, Ints | None]:
        least = most = None
        if group.least_on is not None:
            least = self.counts(f"{name}: loads that must run", group.least_on, self.steps, group.count)
        if group.most_on is not None:
            most = self.counts(f"{name}: loads that may run", group.most_on, self.steps, group.count)
        if least is not None and most is not None:
            crossed = np.flatnonzero(least > most)
            if len(crossed):
                step = int(crossed[0])
                self.notes.append(
                    f"{name}: {least[step]} loads must run at step {step} and {most[step]} may: {most[step]} run"
                    f"{more(crossed)}"
                )
                least = np.minimum(least, most)
        return least, most

    def _start_limit(self, name: str, limit: StartLimit) -> StartLimit:
        return StartLimit(*self.span(name, limit.first, limit.last), self.number(name, limit.most))

    def _service(self, service: Inference, problem: Problem) -> Inference:
        name = f"service {service.id}"
        demand = self.at_least_0(f"{name}: demand (tokens/s)", service.demand_tokens_per_s, TOKENS_BEYOND_BELIEF)
        return replace(
            service,
            pools=tuple(self._pool(pool, problem) for pool in service.pools),
            demand_tokens_per_s=demand,
            value_per_mtoken=self.number(f"{name}: value of a Mtoken", service.value_per_mtoken),
            tiers=self._tiers(name, service.tiers),
        )

    def _tiers(self, name: str, tiers: Sequence[Tier]) -> tuple[Tier, ...]:
        kept: list[Tier] = []
        left = 1.0
        for number, tier in enumerate(sorted(tiers, key=lambda tier: tier.penalty_per_mtoken)):
            share = self.number(f"{name}: share of tier {number}", tier.share)
            penalty = self.number(f"{name}: penalty of tier {number}", tier.penalty_per_mtoken)
            if share > left + _SHARE_ROUNDING:
                self.notes.append(
                    f"{name}: tiers share out more than all demand: tier {number} gets {left:g}, not {share:g}"
                )
            share = min(share, left)
            left = max(0.0, left - share)
            kept.append(Tier(share, penalty))
        if [tier.penalty_per_mtoken for tier in tiers] != [tier.penalty_per_mtoken for tier in kept]:
            self.notes.append(f"{name}: penalties of its tiers do not ascend: the cheapest go first")
        return tuple(kept)

    def _pool(self, pool: Pool, problem: Problem) -> Pool:
        name = f"pool {pool.key}"
        require_index(f"{name}: circuit", pool.circuit, len(problem.circuits))
        if pool.count < 0:
            refuse(f"{name}: {pool.count} GPUs")
        count = int(np.size(pool.segment_mw))
        width = self.numbers(f"{name}: width (MW) of a segment", pool.segment_mw, count, each="segment")
        slope = self.numbers(
            f"{name}: tokens/s per MW of a segment", pool.tokens_per_s_per_mw, count, TOKENS_BEYOND_BELIEF, "segment"
        )
        for number in np.flatnonzero((width < 0.0) | (slope < 0.0)):
            refuse(f"{name}: segment {number} of {width[number]:g} MW makes {slope[number]:g} tokens/s per MW")
        least = int(np.clip(pool.least_active, 0, pool.count))
        if least != pool.least_active:
            self.notes.append(f"{name}: {pool.least_active} GPUs cannot be put aside, of {pool.count}: {least} count")
        concave = _concave(width, slope)
        risen = np.flatnonzero(concave != slope)
        if len(risen):
            first = int(risen[0])
            self.notes.append(
                f"{name}: segment {first} makes {slope[first]:g} tokens/s per MW and a later one more: operating "
                f"points between are dominated, {concave[first]:g} counts for both"
            )
        return replace(
            pool,
            least_active=least,
            active_mw=self.number(f"{name}: power (MW) of an active GPU", pool.active_mw),
            base_tokens_per_s=self.number(
                f"{name}: tokens/s of an active GPU", pool.base_tokens_per_s, most=TOKENS_BEYOND_BELIEF
            ),
            segment_mw=width,
            tokens_per_s_per_mw=concave,
        )

    def _site(self, site: Site) -> Site:
        price = self.known("price ($/MWh)", site.price_per_mwh)
        adder = self.known("adder ($/MWh)", site.adder_per_mwh)
        coincident = self.at_least_0("coincident-peak cost ($/MWh)", site.coincident_per_mwh)
        ppa = self.at_least_0("power bought ahead (MW)", site.ppa_mw)
        return replace(
            site,
            price_per_mwh=price,
            adder_per_mwh=adder,
            coincident_per_mwh=coincident,
            earned_per_th_hour=self.known("revenue ($ per TH/s and hour)", site.earned_per_th_hour),
            fixed_mw=self.at_least_0("fixed draw (MW)", site.fixed_mw),
            ppa_mw=ppa,
            sell_per_mwh=self._resale(site, price + adder + coincident),
            demand_charges=tuple(self._charge(n, charge) for n, charge in enumerate(site.demand_charges)),
        )

    def _resale(self, site: Site, cost: Floats) -> Floats | None:
        if site.sell_per_mwh is None:
            return None
        sell = self.known("resale price ($/MWh)", site.sell_per_mwh)
        above = np.flatnonzero(sell > cost)
        if len(above):
            step = int(above[0])
            self.notes.append(
                f"resale price ($/MWh): {sell[step]:g} at step {step} is above {cost[step]:g}, what a MWh costs, which "
                f"counts instead{more(above)}"
            )
        return np.minimum(sell, cost)

    def _charge(self, number: int, charge: DemandCharge) -> DemandCharge:
        name = f"demand charge {number}"
        return DemandCharge(
            *self.span(name, charge.first, charge.last),
            self.number(f"{name}: price of a MW", charge.per_mw),
            self.number(f"{name}: floor (MW)", charge.floor_mw),
        )

    def _account(self, account: Account) -> Account:
        name = f"account {account.id}"
        return replace(
            account,
            curtailment=tuple(self._budget(f"{name}: curtailment {n}", b) for n, b in enumerate(account.curtailment)),
            uptime=tuple(self._budget(f"{name}: uptime {n}", b) for n, b in enumerate(account.uptime)),
        )

    def _budget(self, name: str, budget: Budget) -> Budget:
        first, last = self.span(name, budget.first, budget.last)
        return Budget(first, last, self.number(name, budget.amount), self.price_of_missing(name, budget.slack_price))

    def _award(self, award: Award, problem: Problem) -> Award:
        require_index("award: circuit", award.circuit, len(problem.circuits))
        name = f"award beneath {problem.circuits[award.circuit].id}"
        price = self.price_of_missing(name, award.slack_per_mwh)
        return replace(award, mw=self.at_least_0(f"{name} (MW)", award.mw), slack_per_mwh=price)

    def _ramp(self, ramp: Ramp, problem: Problem) -> Ramp:
        require_index("ramp: circuit", ramp.circuit, len(problem.circuits))
        name = f"ramp beneath {problem.circuits[ramp.circuit].id}"
        least = self.number(f"{name}: least power now (MW)", ramp.now_least_mw)
        most = self.number(f"{name}: most power now (MW)", ramp.now_most_mw)
        if least > most:
            self.notes.append(f"{name}: draws at least {least:g} MW and at most {most:g} now: {least:g} counts as both")
        return replace(
            ramp,
            up_mw=self.at_least_0(f"{name}: up (MW)", np.minimum(ramp.up_mw, BEYOND_BELIEF)),
            down_mw=self.at_least_0(f"{name}: down (MW)", np.minimum(ramp.down_mw, BEYOND_BELIEF)),
            now_least_mw=least,
            now_most_mw=max(least, most),
            slack_per_mwh=self.price_of_missing(name, ramp.slack_per_mwh),
        )


def _check_grid(grid: Grid) -> None:
    hours, starts = np.asarray(grid.hours, dtype=np.float64), np.asarray(grid.starts_s, dtype=np.float64)
    if hours.ndim != 1 or starts.shape != hours.shape:
        refuse(f"the horizon: {starts.shape} starts for {hours.shape} lengths of steps")
    if not len(hours):
        refuse("the horizon has no steps")
    for number, length in enumerate(hours):
        if not 0.0 < length <= BEYOND_BELIEF:
            refuse(f"step {number} of the horizon lasts {length:g} h")
    expected = np.concatenate(([0.0], (np.cumsum(hours) * 3600.0)[:-1]))
    for step in np.flatnonzero(~(np.abs(starts - expected) <= _SAME_S)):
        refuse(f"step {step} of the horizon starts at {starts[step]:g} s, the one before ends at {expected[step]:g}")


def _concave(width: Floats, slope: Floats) -> Floats:
    """Return slopes that never rise: neighbours that do get their mean by width (pool adjacent violators)."""
    if not np.any(np.diff(slope) > 0.0):
        return slope
    blocks: list[tuple[float, float, int]] = []
    for wide, steep in zip(width, slope, strict=True):
        blocks.append((float(wide), float(steep), 1))
        while len(blocks) > 1 and blocks[-2][1] < blocks[-1][1]:
            (left, low, few), (right, high, more) = blocks[-2:]
            total = left + right
            blocks[-2:] = [(total, (left * low + right * high) / total if total else high, few + more)]
    return np.repeat([steep for _, steep, _ in blocks], [members for _, _, members in blocks])
