"""Why a plan is as it is: what binds and what more of it is worth, what each group is worth, and what would change it.

The numbers come from the plan alone: its counts, its budgets and the prices of its rows. Times are Unix seconds, powers
watts; a worth "per MWh" is the same number as one per MW and hour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from mullet.domain.facility import Circuit, Facility
from mullet.domain.feeds import Cause, Curtailment
from mullet.domain.plan import Plan, PlanInterval, PlanRequest, Rung
from mullet.domain.units import SECONDS_PER_HOUR, WATTS_PER_MW
from mullet.planning.accounting import lowest_ceiling
from mullet.planning.index import index_of
from mullet.planning.worth import GroupWorth, Room, group_watts, group_worth

CIRCUIT = "circuit"
_LEAST_WORTH_PER_MWH = 1e-6
_SAME_WATTS = 0.5


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a plan is judged by, besides the facility: the present, hashprice, ceilings, and what is drawn anyhow."""

    at: float
    hashprice_per_ph_day: float
    curtailments: tuple[Curtailment, ...] = ()
    fixed_watts: Mapping[str, float] = field(default_factory=dict)


def conditions_of(request: PlanRequest) -> Conditions:
    """Return the conditions under which a plan was asked for."""
    return Conditions(
        at=request.at,
        hashprice_per_ph_day=request.forecast.hashprice_per_ph_day,
        curtailments=request.obligations.curtailments,
        fixed_watts=request.fixed_watts,
    )


@dataclass(frozen=True, slots=True)
class Binding:
    """A stretch of time, [start, end), over which a circuit's limit or a program's rule holds the plan back."""

    rule: str
    """"circuit", or what a program's key begins with: "ramp", "award", "peak", "curtailment", "uptime"."""
    subject: str
    """The circuit, account or number that the rule is about."""
    start: float
    end: float
    mean_per_mwh: float
    """Mean over time of what one more MW would be worth per hour."""
    most_per_mwh: float
    worth_per_mw: float
    """What one more MW over the whole stretch would be worth."""
    limit_watts: float | None = None
    """A circuit's lowest limit within the stretch."""
    cause: Cause | None = None
    """Why a circuit's limit is below its usual one, if it is."""


@dataclass(frozen=True, slots=True)
class Armed:
    """Power kept free for a step of a service's demand over [start, end), and what that costs."""

    service: str
    start: float
    end: float
    watts: float
    cost: float
    """What the same power would have earned where a circuit above the service binds; 0 where none does."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the plan earns and what no plan could exceed."""

    objective: float
    bound: float | None
    gap: float | None
    gap_percent: float | None
    """Of the bound's size; None where the bound is 0 or unknown."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """One interval of the plan as it is drawn: price, power and limit of the grid connection."""

    start: float
    end: float
    price_per_mwh: float
    drawn_watts: float
    """The most that may be drawn: loads, auxiliaries that follow them, and what is fixed."""
    limit_watts: float
    group_watts: Mapping[str, float]

    @property
    def hours(self) -> float:
        """Length in hours."""
        return (self.end - self.start) / SECONDS_PER_HOUR


@dataclass(frozen=True, slots=True)
class Explanation:
    """A plan's reasons."""

    facility: str
    currency: str
    at: float
    rung: Rung
    certificate: Certificate
    bindings: tuple[Binding, ...]
    """In order of their start; of those that start together, the dearest first."""
    groups: tuple[GroupWorth, ...]
    armed: tuple[Armed, ...]
    stretches: tuple[Stretch, ...]


def explain(plan: Plan, facility: Facility, conditions: Conditions) -> Explanation:
    """Return why `plan` is as it is; `conditions.at` says which of its intervals is the present one."""
    at, hashprice, rooms = conditions.at, conditions.hashprice_per_ph_day, _rooms(plan, facility, conditions)
    return Explanation(
        facility=facility.id,
        currency=facility.currency,
        at=conditions.at,
        rung=plan.rung,
        certificate=certificate(plan),
        bindings=bindings(plan, facility, conditions),
        groups=tuple(group_worth(plan, facility, group.key, at, hashprice, rooms) for group in plan.groups),
        armed=_armed(plan, facility),
        stretches=tuple(_stretches(plan, facility, conditions)),
    )


def explain_group(plan: Plan, facility: Facility, conditions: Conditions, key: str) -> GroupWorth:
    """Return what the group is worth now, its next change and what would switch its next load.

    Raises:
        KeyError: the plan has no such group.
    """
    return group_worth(
        plan, facility, key, conditions.at, conditions.hashprice_per_ph_day, _rooms(plan, facility, conditions)
    )


def _rooms(plan: Plan, facility: Facility, conditions: Conditions) -> dict[str, Room]:
    """Return each circuit's limit now and what the plan may draw there, auxiliaries and what is fixed counted."""
    drawn = {node: conditions.fixed_watts.get(node, 0.0) for node in facility.circuit_by_id}
    interval = plan.interval_at(conditions.at) or plan.intervals[0]
    watts = group_watts(interval, facility)
    for item in index_of(facility).groups:
        for node, factor in zip(item.path, item.factors, strict=True):
            drawn[node] += watts.get(item.group.key, 0.0) * factor
    armed_beneath = _service_paths(facility)
    for service, armed in interval.armed_watts.items():
        for node in armed_beneath(service):
            drawn[node] += armed
    return {
        node: Room(ceiling(circuit, conditions, conditions.at)[0], drawn[node])
        for node, circuit in facility.circuit_by_id.items()
    }


def certificate(plan: Plan) -> Certificate:
    """Return how far the plan may be from the best one."""
    if plan.bound is None:
        return Certificate(plan.objective, None, None, None)
    gap = plan.bound - plan.objective
    percent = None if plan.bound == 0.0 else 100.0 * gap / abs(plan.bound)
    return Certificate(plan.objective, plan.bound, gap, percent)


def bindings(plan: Plan, facility: Facility, conditions: Conditions) -> tuple[Binding, ...]:
    """Return every stretch of neighbouring intervals in which a circuit or a program binds."""
    found: list[Binding] = []
    open_now: dict[tuple[str, str, Cause | None], Binding] = {}
    for interval in plan.intervals:
        before, open_now = open_now, {}
        for one in _binding_in(interval, facility, conditions):
            place = (one.rule, one.subject, one.cause)
            last = before.pop(place, None)
            open_now[place] = one if last is None else _joined(last, one)
        found += before.values()
    found += open_now.values()
    return tuple(sorted(found, key=lambda one: (one.start, -one.worth_per_mw, one.rule, one.subject)))


def _binding_in(interval: PlanInterval, facility: Facility, conditions: Conditions) -> Iterator[Binding]:
    start, end = interval.start, interval.end
    hours = (end - start) / SECONDS_PER_HOUR
    for node, price in interval.shadow_price_per_mwh.items():
        if price > _LEAST_WORTH_PER_MWH and node in facility.circuit_by_id:
            limit, cause = ceiling(facility.circuit_by_id[node], conditions, start, end)
            yield Binding(CIRCUIT, node, start, end, price, price, price * hours, limit, cause)
    for key, price in interval.program_price_per_mwh.items():
        if price > _LEAST_WORTH_PER_MWH:
            rule, _, subject = key.partition(":")
            yield Binding(rule, subject, start, end, price, price, price * hours)


def _joined(first: Binding, second: Binding) -> Binding:
    worth = first.worth_per_mw + second.worth_per_mw
    limits = [limit for limit in (first.limit_watts, second.limit_watts) if limit is not None]
    return Binding(
        rule=first.rule,
        subject=first.subject,
        start=first.start,
        end=second.end,
        mean_per_mwh=worth * SECONDS_PER_HOUR / (second.end - first.start),
        most_per_mwh=max(first.most_per_mwh, second.most_per_mwh),
        worth_per_mw=worth,
        limit_watts=min(limits, default=None),
        cause=first.cause,
    )


def ceiling(
    circuit: Circuit, conditions: Conditions, start: float, end: float | None = None
) -> tuple[float, Cause | None]:
    """Return the lowest limit of the circuit within [start, end), or at `start`, and why it is below the usual one."""
    until = start if end is None else end
    here = [item for item in conditions.curtailments if item.circuit == circuit.id]
    # Only ceilings that hold at the same instant outbid one another.
    instants = {start} | {item.start for item in here if start < item.start < until}
    found = [lowest_ceiling(circuit, [c for c in here if c.start <= at < c.end]) for at in sorted(instants)]
    return min(found, key=lambda pair: pair[0])


def _armed(plan: Plan, facility: Facility) -> tuple[Armed, ...]:
    found: list[Armed] = []
    open_now: dict[str, Armed] = {}
    paths = _service_paths(facility)
    for interval in plan.intervals:
        before, open_now = open_now, {}
        for service, watts in interval.armed_watts.items():
            if watts <= 0.0:
                continue
            price = sum(interval.shadow_price_per_mwh.get(node, 0.0) for node in paths(service))
            cost = price * watts / WATTS_PER_MW * (interval.end - interval.start) / SECONDS_PER_HOUR
            last = before.get(service)
            if last is not None and abs(last.watts - watts) <= _SAME_WATTS:
                del before[service]
                open_now[service] = Armed(service, last.start, interval.end, last.watts, last.cost + cost)
            else:
                open_now[service] = Armed(service, interval.start, interval.end, watts, cost)
        found += before.values()
    return tuple(sorted([*found, *open_now.values()], key=lambda one: (one.start, one.service)))


def _service_paths(facility: Facility) -> Callable[[str], tuple[str, ...]]:
    """Return a function from a service to the circuits that lie above all of its GPUs."""

    def path(service: str) -> tuple[str, ...]:
        circuits = {load.circuit for load in facility.loads_of_service.get(service, ())}
        paths = [facility.path(circuit) for circuit in sorted(circuits)]
        return tuple(node for node in paths[0] if all(node in other for other in paths)) if paths else ()

    return path


def _stretches(plan: Plan, facility: Facility, conditions: Conditions) -> Iterator[Stretch]:
    index = {item.group.key: item for item in index_of(facility).groups}
    root = facility.root
    fixed = conditions.fixed_watts.get(root.id, 0.0)
    for interval in plan.intervals:
        watts = group_watts(interval, facility)
        drawn = sum(here * index[key].factors[-1] for key, here in watts.items())
        limit, _ = ceiling(root, conditions, interval.start, interval.end)
        yield Stretch(interval.start, interval.end, interval.price_per_mwh, drawn + fixed, limit, watts)


def mean_watts(stretches: tuple[Stretch, ...], key: str | None = None) -> float:
    """Return the mean over time of what a group draws, or of what the grid connection does."""
    total = sum((one.drawn_watts if key is None else one.group_watts.get(key, 0.0)) * one.hours for one in stretches)
    hours = sum(one.hours for one in stretches)
    return total / hours if hours > 0.0 else 0.0
