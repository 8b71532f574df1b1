"""A plan request laid out on its grid: intervals with price and limits, groups with the loads that are at hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mullet.domain.feeds import Curtailment, PriceCurve
from mullet.domain.load import LoadKind
from mullet.domain.plan import Group, Plan, PlanInterval, PlanRequest, Rung
from mullet.planning.accounting import lowest_ceiling
from mullet.planning.arming import armed_watts
from mullet.planning.capacity import Capacity
from mullet.planning.index import GroupIndex, index_of
from mullet.planning.merit import Market

PLAN_LEASE_S = 1_800.0


@dataclass(frozen=True, slots=True)
class Slot:
    """One interval of the grid."""

    start: float
    end: float
    nominal_s: float
    """Length of the grid's step here; the first interval may be cut short by the present."""
    market: Market
    free_watts: Mapping[str, float]
    """Per circuit: limit less fixed draws, standing reserves excluded; may be below zero."""
    armed_watts: Mapping[str, float] = field(default_factory=dict)
    """Per service: standing reserve to keep free for a step of its demand."""

    @property
    def hours(self) -> float:
        """Length in hours."""
        return (self.end - self.start) / 3_600.0


@dataclass(frozen=True, slots=True)
class GroupFrame:
    """A group with the number of its loads that may be commanded and that run now."""

    item: GroupIndex
    available: int
    running: int

    @property
    def is_miner(self) -> bool:
        """Whether the group mines."""
        return self.item.group.kind is LoadKind.MINER

    @property
    def span_watts(self) -> float:
        """Nominal watts between one load's lowest and highest points."""
        return self.item.group.points[-1].watts - self.item.group.points[0].watts


@dataclass(frozen=True, slots=True)
class Frame:
    """All that a planner needs, whatever its method."""

    request: PlanRequest
    groups: tuple[GroupFrame, ...]
    slots: tuple[Slot, ...]
    needs_watts: Mapping[str | None, float]
    """Per service: what its commandable GPUs shall get, between their lowest and highest points."""
    gaps: int
    """Intervals for which the forecast had no price."""
    lowest_watts: Mapping[str, float]
    """Per circuit: what the available loads draw at their lowest points, with the auxiliaries that follow."""

    @property
    def gpus(self) -> list[GroupFrame]:
        """The groups that do not mine."""
        return [group for group in self.groups if not group.is_miner]


def frame(request: PlanRequest) -> Frame:
    """Lay the request out on the facility's grid."""
    facility = request.facility
    groups = []
    producing = request.available & request.running
    for item in index_of(facility).groups:
        available = sum(map(request.available.__contains__, item.group.load_ids))
        running = sum(map(producing.__contains__, item.group.load_ids))
        groups.append(GroupFrame(item, available, running))
    slots = []
    gaps = 0
    for start, end, nominal in _split_near(edges(request.at, facility.grid_steps), request):
        price = request.forecast.prices.mean(start, end)
        if price is None or not math.isfinite(price):
            gaps += 1
        market = Market(
            price_per_mwh=facility.economics.fallback_price_per_mwh if price is None else price,
            adder_per_mwh=facility.economics.energy_adder_per_mwh
            + _adder(request.obligations.price_adders, start, end),
            hashprice_per_ph_day=request.forecast.hashprice_per_ph_day,
            pool_fee=facility.economics.pool_fee,
            deadband_per_mwh=facility.economics.deadband_per_mwh,
            known=price is not None,
        )
        free = free_watts(request, start, end)
        slots.append(Slot(start, end, nominal, market, free, armed_watts(facility, market)))
    lowest = Capacity(dict.fromkeys(facility.circuit_by_id, 0.0))
    for group in groups:
        lowest.take(group.item, group.available * group.item.most_watts[0])
    drawn = {node: -left for node, left in lowest.left.items()}
    return Frame(request, tuple(groups), tuple(slots), _needs(request, groups), gaps, drawn)


LEAST_STEP_S = 0.1
"""No step of the grid is shorter."""


def edges(at: float, steps: Sequence[tuple[float, int]]) -> list[tuple[float, float, float]]:
    """Return (start, end, step) from `at` on, every later start at a whole multiple of its step since the epoch."""
    found: list[tuple[float, float, float]] = []
    start = at
    for number, (length, count) in enumerate(steps):
        following = steps[number + 1][0] if number + 1 < len(steps) else length
        emitted = 0
        while emitted < count or not math.isclose(start % following, 0.0, abs_tol=1e-6):
            end = (math.floor(start / length + 1e-9) + 1.0) * length
            found.append((start, end, length))
            start = end
            emitted += 1
            if emitted > count + following / length + 1.0:
                break
    return found


def _split_near(grid: Sequence[tuple[float, float, float]], request: PlanRequest) -> list[tuple[float, float, float]]:
    """Split the nearest steps where the price changes by more than the deadband, so that none is shed too soon."""
    facility = request.facility
    intervals = request.forecast.prices.intervals
    jumps = [
        later.start
        for earlier, later in itertools.pairwise(intervals)
        if abs(later.price_per_mwh - earlier.price_per_mwh) > facility.economics.deadband_per_mwh
    ]
    split: list[tuple[float, float, float]] = []
    for start, end, nominal in grid:
        cuts = [start, end]
        if nominal == facility.grid_steps[0][0]:
            cuts = sorted({start, end, *(jump for jump in jumps if start + LEAST_STEP_S < jump < end - LEAST_STEP_S)})
        split.extend((first, last, nominal) for first, last in itertools.pairwise(cuts))
    return split


def _adder(curve: PriceCurve | None, start: float, end: float) -> float:
    """Return the mean of a program's price adder over [start, end); where it says nothing it adds nothing."""
    if curve is None:
        return 0.0
    total = 0.0
    for interval in curve.intervals:
        overlap = min(end, interval.end) - max(start, interval.start)
        if overlap > 0.0:
            total += overlap * interval.price_per_mwh
    return total / (end - start)


def free_watts(request: PlanRequest, start: float, end: float) -> dict[str, float]:
    """Return per circuit the lowest limit within [start, end) less what is fixed there."""
    free = {}
    touching: dict[str, list[Curtailment]] = {}
    for curtailment in request.obligations.curtailments:
        if curtailment.start < end and curtailment.end > start:
            touching.setdefault(curtailment.circuit, []).append(curtailment)
    for circuit in request.facility.circuits:
        overlapping = touching.get(circuit.id)
        if not overlapping:
            free[circuit.id] = circuit.usable_watts - request.fixed_watts.get(circuit.id, 0.0)
            continue
        # Only ceilings that hold at the same instant outbid one another.
        instants = {start} | {c.start for c in overlapping if c.start > start}
        limit = min(
            lowest_ceiling(circuit, [c for c in overlapping if c.start <= instant < c.end])[0] for instant in instants
        )
        free[circuit.id] = limit - request.fixed_watts.get(circuit.id, 0.0)
    return free


def _needs(request: PlanRequest, groups: Sequence[GroupFrame]) -> dict[str | None, float]:
    needs: dict[str | None, float] = {}
    for group in groups:
        if group.is_miner or not group.available:
            continue
        needs.setdefault(group.item.group.service, 0.0)
    for service in needs:
        mine = [group for group in groups if not group.is_miner and group.item.group.service == service]
        low = sum(group.available * group.item.group.points[0].watts for group in mine)
        high = sum(group.available * group.item.group.points[-1].watts for group in mine)
        wanted = request.forecast.needs_watts.get(service, low) if service is not None else low
        needs[service] = min(max(low, wanted if math.isfinite(wanted) else high), high)
    return needs


def base_capacity(made: Frame, slot: Slot) -> Capacity:
    """Return what is free in the slot with every available load at its lowest point."""
    return Capacity({node: free - made.lowest_watts[node] for node, free in slot.free_watts.items()})


def grant_inference(made: Frame, capacity: Capacity) -> dict[int, float]:
    """Give GPUs their needs above the lowest points, by priority; return the watts granted above it per group."""
    facility = made.request.facility

    def order(service: str | None) -> tuple[float, float, str]:
        found = facility.service_by_id.get(service or "")
        return (found.priority, -found.value_per_mtoken, found.id) if found is not None else (1e9, 0.0, "")

    granted: dict[int, float] = {}
    gpus = made.gpus
    for service in sorted(made.needs_watts, key=order):
        mine = [group for group in gpus if group.item.group.service == service]
        left = made.needs_watts[service] - sum(g.available * g.item.group.points[0].watts for g in mine)
        for group in mine:
            points = group.item.group.points
            most = group.available * (points[-1].watts - points[0].watts)
            give = max(0.0, min(left, most, capacity.room(group.item)[0]))
            capacity.take(group.item, give)
            granted[group.item.number] = give
            left -= give
    return granted


def reserve_watts(made: Frame, slot: Slot, granted: Mapping[int, float]) -> dict[str, float]:
    """Return per circuit the standing reserve that mining must leave free, given what GPUs got above their lowest."""
    kept: dict[str, float] = {}
    for service, armed in slot.armed_watts.items():
        absorbable: dict[str, float] = {}
        for group in made.gpus:
            if group.item.group.service != service:
                continue
            points = group.item.group.points
            more = group.available * (points[-1].watts - points[0].watts) - granted.get(group.item.number, 0.0)
            for node, factor in zip(group.item.path, group.item.factors, strict=True):
                absorbable[node] = absorbable.get(node, 0.0) + max(0.0, more) * factor
        for node, watts in absorbable.items():
            kept[node] = kept.get(node, 0.0) + min(armed, watts)
    return kept


def interval_of(
    made: Frame, slot: Slot, at_least: Mapping[int, Sequence[int]], granted: Mapping[int, float]
) -> PlanInterval:
    """Return the plan's interval for hull counts per mining group and watts above the lowest point per GPU group."""
    counts: dict[int, list[int]] = {}
    for group in made.groups:
        if group.is_miner:
            here = counts[group.item.number] = [0] * len(group.item.group.points)
            levels = [*at_least[group.item.number], 0]
            for position, k in enumerate(group.item.hull):
                here[k] = levels[position] - levels[position + 1]
    return interval_with(made, slot, counts, granted)


def interval_with(
    made: Frame, slot: Slot, mining: Mapping[int, Sequence[int]], granted: Mapping[int, float]
) -> PlanInterval:
    """Return the plan's interval for loads at each point per mining group and watts above the lowest per GPU group."""
    counts: dict[str, tuple[int, ...]] = {}
    power: dict[str, float] = {}
    budget = {circuit.id: 0.0 for circuit in made.request.facility.circuits}
    for group in made.groups:
        points = group.item.group.points
        if group.is_miner:
            here = list(mining[group.item.number])
            watts = sum(n * most for n, most in zip(here, group.item.most_watts, strict=True))
        else:
            extra = granted.get(group.item.number, 0.0)
            high = min(group.available, int(extra / group.span_watts + 1e-9)) if group.span_watts > 0.0 else 0
            here = [0] * len(points)
            here[-1] += high
            here[0] += group.available - high
            watts = group.available * points[0].watts + extra
        counts[group.item.group.key] = tuple(here)
        power[group.item.group.key] = watts
        for node in group.item.path:
            budget[node] += watts
    market = slot.market
    return PlanInterval(
        slot.start,
        slot.end,
        market.price_per_mwh,
        counts,
        budget,
        adder_per_mwh=market.adder_per_mwh,
        group_watts=power,
    )


def plan_of(
    made: Frame, rung: Rung, intervals: Sequence[PlanInterval], objective: float, bound: float | None, detail: str
) -> Plan:
    """Return a plan with its lease: half the horizon, and no longer than half an hour."""
    at = made.request.at
    lease_s = min(PLAN_LEASE_S, (intervals[-1].end - at) / 2.0)
    groups: tuple[Group, ...] = tuple(group.item.group for group in made.groups)
    return Plan(f"{rung.value}-{at:.3f}", at, at + lease_s, rung, groups, tuple(intervals), objective, bound, detail)


def start_cost(group: GroupFrame, market: Market) -> float:
    """Return what one start of the group must earn back: the hashing lost meanwhile, and the deadband while it runs."""
    points, hull = group.item.group.points, group.item.hull
    lost = market.earned_per_th_hour * points[hull[1]].th_per_s * group.item.group.start_up_s / 3_600.0
    energy_mwh = (points[hull[1]].watts - points[hull[0]].watts) / 1e6 * group.item.group.min_on_s / 3_600.0
    return lost + market.deadband_per_mwh * energy_mwh
