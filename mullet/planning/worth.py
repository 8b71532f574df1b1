"""What the loads of a group are worth under a plan: break-evens, the next change, and what would switch the next load.

A break-even is the market's price at which a step from one operating point to the next earns nothing, the adder to that
price and the auxiliaries that follow the load paid for. What a start costs is not in it: a plan sits out short spikes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mullet.domain.facility import Facility
from mullet.domain.load import LoadKind
from mullet.domain.plan import Group, Plan, PlanInterval
from mullet.domain.units import SECONDS_PER_HOUR, WATTS_PER_MW
from mullet.planning.index import GroupIndex, index_of
from mullet.planning.merit import Market

TOKENS_PER_MTOKEN = 1e6
START = "start"
"""Held by what a start costs, by minimum times or by pacing: by no row that has a price of its own."""
DEMAND = "demand"
PRICE = "price"
_LEAST_WORTH_PER_MWH = 1e-6
_OUTBID = 0.99
"""Of a step's margin: prices of power that reach this much leave the step nothing, the solver's tolerance aside."""


@dataclass(frozen=True, slots=True)
class StepWorth:
    """What one load earns by going from one operating point to the next, at the present market."""

    point_from: str
    point_to: str
    loads: int
    """How many of the group's loads stand at `point_to` or above."""
    break_even_per_mwh: float
    """The market's price at which the step earns nothing."""
    break_even_hashprice: float | None
    """Hashprice per PH and day at which it earns nothing at the present price; None for GPUs."""
    margin_per_mwh: float
    """Break-even less the present price."""
    margin_per_hour: float
    """What one load earns per hour by standing there, energy paid."""


@dataclass(frozen=True, slots=True)
class Change:
    """The first interval in which the group's counts are other than now."""

    at: float
    loads: int
    """How many loads move."""
    counts: tuple[int, ...]
    watts: float
    """By how much the group's power changes."""
    price_per_mwh: float
    because: str
    """"price", "circuit:<id>", the key of a program, "demand" (GPUs), or "start": what a start costs, minimum times."""


@dataclass(frozen=True, slots=True)
class Switch:
    """What would move the next load of the group up or down one step now."""

    point_from: str
    point_to: str
    loads: int
    """How many loads could go the same way."""
    price_per_mwh: float | None
    """Below this price (up) or above it (down) the next load goes; None where no price moves it."""
    hashprice: float | None
    held_by: str | None
    """"circuit:<id>", the key of a program or "start", where something else than the price decides."""
    limit_watts: float | None = None
    """The limit of the circuit that holds it back."""
    limit_for_next_watts: float | None = None
    """The limit under which one more load surely goes."""
    limit_for_all_watts: float | None = None


@dataclass(frozen=True, slots=True)
class GroupWorth:
    """A group now, and what it waits for."""

    key: str
    kind: LoadKind
    circuit: str
    service: str | None
    loads: int
    counts: tuple[int, ...]
    """Loads at each operating point now."""
    watts: float
    """The most that they draw together now."""
    steps: tuple[StepWorth, ...]
    next_change: Change | None
    more: Switch | None
    """What would move the next load up; None where all stand at their highest, and for GPUs that nothing holds back."""
    less: Switch | None
    """What would move the next load down; None where all stand at their lowest."""


@dataclass(frozen=True, slots=True)
class Room:
    """A circuit's limit now, and the most that the plan may draw there, everything counted."""

    limit_watts: float
    drawn_watts: float


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a step of one group is judged by in one interval."""

    market: Market
    per_token: float
    factor: float
    """Watts at the grid connection per watt of the group."""


def group_worth(
    plan: Plan,
    facility: Facility,
    key: str,
    at: float,
    hashprice_per_ph_day: float,
    rooms: Mapping[str, Room],
) -> GroupWorth:
    """Return what the group called `key` is worth at `at`; `rooms` are the circuits above it then.

    Raises:
        KeyError: the plan has no such group, or the facility knows none that is the same.
    """
    item = next((found for found in index_of(facility).groups if found.group.key == key), None)
    if item is None or item.group not in plan.groups:
        raise KeyError(f"no group {key!r} in the plan")
    position = next((n for n, interval in enumerate(plan.intervals) if interval.start <= at < interval.end), 0)
    interval = plan.intervals[position]
    group, counts = item.group, tuple(interval.counts[key])
    terms = _terms(facility, item, interval, hashprice_per_ph_day)
    hull = item.hull
    at_least = [sum(counts[k:]) for k in hull]
    steps = tuple(_step(group, hull[k - 1], hull[k], at_least[k], terms) for k in range(1, len(hull)))
    more = _more(item, interval, at_least, steps, rooms)
    return GroupWorth(
        key=key,
        kind=group.kind,
        circuit=group.circuit,
        service=group.service,
        loads=len(group.load_ids),
        counts=counts,
        watts=_watts(interval, facility, item),
        steps=steps,
        next_change=_next_change(plan, facility, item, position, hashprice_per_ph_day),
        more=more,
        less=_less(group.kind, at_least, steps),
    )


def group_watts(interval: PlanInterval, facility: Facility) -> dict[str, float]:
    """Return the most that each group's loads together may draw in the interval.

    Where the plan does not tell, miners are counted at their points, and GPUs share what the budget of their circuit
    leaves in proportion to what they may draw above their lowest points.
    """
    items = {
        item.group.key: item
        for item in index_of(facility).groups
        if len(interval.counts.get(item.group.key, ())) == len(item.group.points)
    }
    found = {
        key: sum(n * watts for n, watts in zip(interval.counts[key], item.most_watts, strict=True))
        for key, item in items.items()
    }
    for node in sorted({item.group.circuit for item in items.values()}, key=lambda node: -len(facility.path(node))):
        gpus = [key for key, item in items.items() if item.group.circuit == node and item.group.kind is LoadKind.GPU]
        for key in gpus:
            found[key] = sum(interval.counts[key]) * items[key].most_watts[0]
        spans = {k: sum(interval.counts[k]) * (items[k].most_watts[-1] - items[k].most_watts[0]) for k in gpus}
        span = sum(spans.values())
        left = interval.budget_watts.get(node, 0.0) - sum(
            found[key] for key, item in items.items() if node in item.path
        )
        share = min(1.0, max(0.0, left / span)) if span > 0.0 else 0.0
        for key in gpus:
            found[key] += share * spans[key]
    return {key: interval.group_watts.get(key, watts) for key, watts in found.items()}


def _watts(interval: PlanInterval, facility: Facility, item: GroupIndex) -> float:
    """Return one group's entry of `group_watts`, without counting the others where it need not."""
    key = item.group.key
    if item.group.kind is LoadKind.MINER and key not in interval.group_watts:
        return sum(n * watts for n, watts in zip(interval.counts[key], item.most_watts, strict=True))
    return group_watts(interval, facility)[key]


def _terms(facility: Facility, item: GroupIndex, interval: PlanInterval, hashprice: float) -> _Terms:
    economics = facility.economics
    service = facility.service_by_id.get(item.group.service or "")
    adder = economics.energy_adder_per_mwh if interval.adder_per_mwh is None else interval.adder_per_mwh
    market = Market(interval.price_per_mwh, adder, hashprice, economics.pool_fee, economics.deadband_per_mwh)
    return _Terms(market, 0.0 if service is None else service.value_per_mtoken / TOKENS_PER_MTOKEN, item.factors[-1])


def _step(group: Group, low: int, high: int, loads: int, terms: _Terms) -> StepWorth:
    below, above, market = group.points[low], group.points[high], terms.market
    mw = (above.watts - below.watts) * terms.factor / WATTS_PER_MW
    mined = market.earned_per_th_hour * (above.th_per_s - below.th_per_s)
    served = terms.per_token * (above.tokens_per_s - below.tokens_per_s) * SECONDS_PER_HOUR
    earned_per_hour = mined if group.kind is LoadKind.MINER else served
    cost_per_hour = market.cost_per_mwh * mw
    break_even = (earned_per_hour / mw if mw > 0.0 else 0.0) - market.adder_per_mwh
    pays_at = market.hashprice_per_ph_day * cost_per_hour / mined if mined > 0.0 else None
    return StepWorth(
        point_from=below.name,
        point_to=above.name,
        loads=loads,
        break_even_per_mwh=break_even,
        break_even_hashprice=pays_at,
        margin_per_mwh=break_even - market.price_per_mwh,
        margin_per_hour=earned_per_hour - cost_per_hour,
    )


def _more(
    item: GroupIndex,
    interval: PlanInterval,
    at_least: Sequence[int],
    steps: Sequence[StepWorth],
    rooms: Mapping[str, Room],
) -> Switch | None:
    """Return what would move the next load up: the limit or rule that holds it, or the price at which it pays."""
    for k, step in enumerate(steps, start=1):
        waiting = at_least[k - 1] - at_least[k]
        if waiting <= 0:
            continue
        if step.margin_per_mwh <= 0.0 and item.group.kind is LoadKind.MINER:
            price, hashprice = step.break_even_per_mwh, step.break_even_hashprice
            return Switch(step.point_from, step.point_to, waiting, price, hashprice, None)
        watts = item.most_watts[item.hull[k]] - item.most_watts[item.hull[k - 1]]
        node = _holder(item, interval, k, step.margin_per_mwh, rooms)
        if node is None:
            if item.group.kind is LoadKind.GPU:
                return None
            held = _program(interval, item.path) or START
            return Switch(step.point_from, step.point_to, waiting, None, None, held)
        one, room = watts * item.factors[item.path.index(node)], rooms.get(node)
        return Switch(
            step.point_from,
            step.point_to,
            waiting,
            None,
            None,
            f"circuit:{node}",
            None if room is None else room.limit_watts,
            None if room is None else max(room.limit_watts, room.drawn_watts + one),
            None if room is None else max(room.limit_watts, room.drawn_watts + one * waiting),
        )
    return None


def _holder(
    item: GroupIndex, interval: PlanInterval, k: int, margin_per_mwh: float, rooms: Mapping[str, Room]
) -> str | None:
    """Return the circuit that keeps loads from step `k`: one without room for it, else the dearest if it outbids it."""
    points, hull, path = item.group.points, item.hull, item.path
    most_watts = item.most_watts[hull[k]] - item.most_watts[hull[k - 1]]
    dearest = _dearest(interval, path)
    # A limit may be full and yet have no price here: an earlier or later interval may bear it for both.
    full = [
        node
        for node, factor in zip(path, item.factors, strict=True)
        if (room := rooms.get(node)) is not None and room.drawn_watts + most_watts * factor > room.limit_watts
    ]
    if full:
        return dearest if dearest in full else full[0]
    prices = interval.shadow_price_per_mwh
    outbid = most_watts * sum(prices.get(node, 0.0) * f for node, f in zip(path, item.factors, strict=True))
    earned = margin_per_mwh * (points[hull[k]].watts - points[hull[k - 1]].watts) * item.factors[-1]
    return dearest if outbid >= _OUTBID * earned else None


def _less(kind: LoadKind, at_least: Sequence[int], steps: Sequence[StepWorth]) -> Switch | None:
    """Return what would move the next load down: the price above which its highest step earns nothing."""
    for k in range(len(steps), 0, -1):
        step = steps[k - 1]
        standing = at_least[k] - (at_least[k + 1] if k < len(steps) else 0)
        if standing <= 0:
            continue
        held = None if step.margin_per_mwh >= 0.0 else START if kind is LoadKind.MINER else DEMAND
        price, hashprice = (step.break_even_per_mwh, step.break_even_hashprice) if held is None else (None, None)
        return Switch(step.point_to, step.point_from, standing, price, hashprice, held)
    return None


def _next_change(plan: Plan, facility: Facility, item: GroupIndex, position: int, hashprice: float) -> Change | None:
    key, now = item.group.key, plan.intervals[position]
    counts = now.counts[key]
    for later in plan.intervals[position + 1 :]:
        found = later.counts[key]
        if tuple(found) == tuple(counts):
            continue
        watts = _watts(later, facility, item) - _watts(now, facility, item)
        because = _because(item, now, later, watts, facility, hashprice)
        return Change(later.start, _moved(counts, found), tuple(found), watts, later.price_per_mwh, because)
    return None


def _moved(before: Sequence[int], after: Sequence[int]) -> int:
    """Return how many loads must move at least; those that join or leave count too."""
    gained = sum(max(0, b - a) for a, b in zip(before, after, strict=True))
    lost = sum(max(0, a - b) for a, b in zip(before, after, strict=True))
    return max(gained, lost)


def _because(
    item: GroupIndex, now: PlanInterval, later: PlanInterval, watts: float, facility: Facility, hashprice: float
) -> str:
    """Return what the change from `now` to `later` comes of; `watts` is above 0 where power goes up."""
    up, miner = watts > 0.0, item.group.kind is LoadKind.MINER
    if miner and len(item.hull) > 1:
        # Of a change between off and on the lowest step tells, of one between modes the highest.
        between_modes = sum(now.counts[item.group.key][1:]) == sum(later.counts[item.group.key][1:])
        low, high = (item.hull[-2], item.hull[-1]) if between_modes else (item.hull[0], item.hull[1])
        paid, pays = (
            _step(item.group, low, high, 0, _terms(facility, item, interval, hashprice)).margin_per_mwh > 0.0
            for interval in (now, later)
        )
        if paid != pays and pays == up:
            return PRICE
    node = _dearest(now if up else later, item.path)
    if node is not None:
        return f"circuit:{node}"
    if not miner:
        return DEMAND
    return _program(now, item.path) or _program(later, item.path) or START


def _dearest(interval: PlanInterval, path: Sequence[str]) -> str | None:
    """Return the circuit of the path whose limit costs most here, or None where none binds."""
    priced = [(interval.shadow_price_per_mwh.get(node, 0.0), node) for node in path]
    price, node = max(priced, key=lambda pair: pair[0])
    return node if price > _LEAST_WORTH_PER_MWH else None


def _program(interval: PlanInterval, path: Sequence[str]) -> str | None:
    """Return the key of the dearest program that binds on the path, or on no circuit in particular."""
    priced = [
        (price, key)
        for key, price in interval.program_price_per_mwh.items()
        if price > _LEAST_WORTH_PER_MWH and (key.split(":")[0] not in ("ramp", "award") or key.split(":")[-1] in path)
    ]
    return max(priced)[1] if priced else None
