"""From a plan request on its grid to the commitment problem in numbers: MW, MWh and money, T steps."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mullet.domain.plan import PlanRequest
from mullet.planning.capacity import Capacity
from mullet.planning.commitment.problem import (
    Account,
    Award,
    Budget,
    CircuitLimit,
    DemandCharge,
    Floats,
    Grid,
    Ints,
    Mining,
    Problem,
    Ramp,
    Site,
    StartLimit,
)
from mullet.planning.frame import Frame, GroupFrame, base_capacity, grant_inference, reserve_watts, start_cost
from mullet.planning.pose_service import MW, pose_service

DAY_S = 86_400.0
STRICT_PER_MWH = 1e5
"""What a MWh of inference not served costs the last service beyond its flex share: ten times the widest price bound
in use, so that no price of energy or hashing outweighs it; each service before it costs as much again."""
RAMP_PER_MWH = 2e4
RESERVE_PER_MWH = 3e3
"""Prices of a ramp and of a reserve that cannot be kept. A circuit's limit is for sale only where a policy says so."""


@dataclass(frozen=True, slots=True, eq=False)
class Posed:
    """The problem and who stands where in it."""

    problem: Problem
    mining: tuple[GroupFrame, ...]
    """In the order of `Problem.mining`."""
    pools: tuple[GroupFrame, ...]
    """In the order of services and their pools."""
    services: tuple[str | None, ...]
    """In the order of `Problem.inference`."""
    armed_watts: tuple[Mapping[str, float], ...]
    """Per step: standing reserve kept free per service."""


def pose(made: Frame) -> Posed:
    """Return the problem that `made` asks; loads at their lowest points are part of what is fixed."""
    request, facility = made.request, made.request.facility
    position = {node: number for number, node in enumerate(_top_down(request))}
    granted = grant_inference(made, base_capacity(made, made.slots[0]))
    notes: list[str] = []
    limits = _limits(made, granted, notes)
    mining = tuple(
        group for group in made.groups if group.is_miner and group.available and len(group.item.group.points) > 1
    )
    serving = {g.item.group.service for g in made.groups if not g.is_miner and g.available}
    services = tuple(sorted(serving, key=lambda name: _rank(request, name)))
    pools: list[GroupFrame] = []
    inference = []
    for rank, service in enumerate(services):
        mine = [g for g in made.groups if not g.is_miner and g.available and g.item.group.service == service]
        pools.extend(mine)
        strict = STRICT_PER_MWH * (len(services) - rank)
        inference.append(pose_service(made, service, strict, mine, position))
    used = {account.id: number for number, account in enumerate(facility.accounts)}
    least, most = _dwell(made, mining, limits)
    problem = Problem(
        grid=_grid(made),
        circuits=tuple(
            CircuitLimit(
                id=node,
                parent=position.get(facility.circuit_by_id[node].parent or "", -1),
                limit_mw=limits[node] / MW,
                follow=sum(a.follows for a in facility.auxiliaries if a.circuit == node),
                slack_per_mwh=request.obligations.limit_slack_per_mwh.get(node),
            )
            for node in position
        ),
        mining=tuple(
            _mining(made, group, position, used.get(group.item.loads[0].account, -1), least[n], most[n])
            for n, group in enumerate(mining)
        ),
        inference=tuple(inference),
        site=_site(made),
        accounts=_accounts(made, mining),
        awards=tuple(
            Award(position[node], np.full(len(made.slots), watts / MW), RESERVE_PER_MWH)
            for node, watts in request.obligations.reserve_watts.items()
            if watts > 0.0 and node in position
        ),
        ramps=_ramps(made, mining, position),
        notes=tuple(notes),
    )
    armed = tuple(
        {name: _armed(made, name, watts, granted) for name, watts in slot.armed_watts.items()} for slot in made.slots
    )
    return Posed(problem, mining, tuple(pools), services, armed)


def _top_down(request: PlanRequest) -> list[str]:
    facility = request.facility
    return sorted(facility.circuit_by_id, key=lambda node: (len(facility.path(node)), node))


def _grid(made: Frame) -> Grid:
    at = made.slots[0].start
    return Grid(
        starts_s=np.array([slot.start - at for slot in made.slots]),
        hours=np.array([slot.hours for slot in made.slots]),
        origin_s=at,
    )


def _limits(made: Frame, granted: Mapping[int, float], notes: list[str]) -> dict[str, Floats]:
    """Return watts per circuit and step above the lowest points; reserves are kept from mining, never from what
    inference is granted."""
    rows: dict[str, list[float]] = {circuit.id: [] for circuit in made.request.facility.circuits}
    short: dict[str, float] = {}
    floor = Capacity(dict.fromkeys(rows, 0.0))
    for group in made.gpus:
        floor.take(group.item, granted.get(group.item.number, 0.0))
    for slot in made.slots:
        left, kept = base_capacity(made, slot), reserve_watts(made, slot, granted)
        for node, row in rows.items():
            free = left.left[node]
            if free < 0.0:
                short[node] = min(short.get(node, 0.0), free)
            row.append(max(0.0, min(free, max(free - kept.get(node, 0.0), -floor.left[node]))))
    for node, watts in short.items():
        notes.append(f"{node}: what cannot be turned down exceeds the limit by {-watts / MW:.3f} MW")
    return {node: np.array(row) for node, row in rows.items()}


def _mining(
    made: Frame, group: GroupFrame, position: Mapping[str, int], account: int, least: Ints, most: Ints
) -> Mining:
    item, facility = group.item, made.request.facility
    watts = np.array([point.watts for point in item.group.points])
    hashing = np.array([point.th_per_s for point in item.group.points])
    count = len(item.group.points) - 1
    return Mining(
        key=item.group.key,
        circuit=position[item.group.circuit],
        count=group.available,
        most_mw=np.maximum(0.0, np.diff(np.array(item.most_watts))) / MW,
        mean_mw=np.diff(watts) / MW,
        th_per_s=np.diff(hashing),
        start_cost=np.array([start_cost(group, slot.market) for slot in made.slots]),
        running=np.full(count, group.running, dtype=np.int64),
        min_on_s=max(item.group.min_on_s, facility.pacing.min_on_s),
        min_off_s=max(item.group.min_off_s, facility.pacing.min_off_s),
        least_on=least,
        most_on=most,
        start_limits=_start_limits(made, group),
        account=account,
    )


def _start_limits(made: Frame, group: GroupFrame) -> tuple[StartLimit, ...]:
    """Bound starts day by day from now on; stops of the last day count against the first."""
    request = made.request
    each = request.facility.pacing.max_cycles_per_day
    mine = frozenset(group.item.group.load_ids)
    used = sum(min(each, n) for load, n in request.cycles_today.items() if load in mine)
    found = []
    day = 0
    starts = [slot.start for slot in made.slots]
    while (first := bisect_left(starts, request.at + day * DAY_S)) < len(starts):
        window = (first, bisect_left(starts, request.at + (day + 1) * DAY_S))
        found.append(StartLimit(*window, float(group.available * each - (0 if day else used))))
        day += 1
    return tuple(found)


def _dwell(made: Frame, mining: Sequence[GroupFrame], limits: Mapping[str, Floats]) -> tuple[list[Ints], list[Ints]]:
    """Return per group the loads that must and may run in each step, as their minimum times say.

    A minimum time on never outweighs a limit: where the loads that must run do not fit, as many may be stopped.
    """
    request = made.request
    least = [np.zeros(len(made.slots), dtype=np.int64) for _ in mining]
    most = [np.zeros(len(made.slots), dtype=np.int64) for _ in mining]
    until: list[tuple[list[float], list[float]]] = []
    for group in mining:
        on: list[float] = []
        off: list[float] = []
        for load_id in group.item.group.load_ids if request.settled_at else ():
            if load_id in request.settled_at and load_id in request.available:
                (on if load_id in request.running else off).append(request.settled_at[load_id])
        until.append((on, off))
    bound = [n for n, (on, off) in enumerate(until) if on or off]
    for n, group in enumerate(mining):
        most[n][:] = group.available
    for number, slot in enumerate(made.slots if bound else ()):
        left = Capacity({node: float(row[number]) for node, row in limits.items()})
        for n in bound:
            on, off = until[n]
            kept = sum(1 for instant in on if instant > slot.start)
            step = max(0.0, mining[n].item.most_watts[1] - mining[n].item.most_watts[0])
            least[n][number] = left.give(mining[n].item, step, kept)[0]
            most[n][number] = mining[n].available - sum(1 for instant in off if instant > slot.start)
    for row in least:
        # What could not be kept on once is off from then on.
        np.minimum.accumulate(row, out=row)
    return least, most


def _rank(request: PlanRequest, name: str | None) -> tuple[float, float, str]:
    found = request.facility.service_by_id.get(name or "")
    return (found.priority, -found.value_per_mtoken, found.id) if found is not None else (1e9, 0.0, "")


def _site(made: Frame) -> Site:
    request = made.request
    steps = len(made.slots)
    markets = [slot.market for slot in made.slots]
    blocks = np.zeros(steps)
    sell = np.zeros(steps)
    sold = any(block.sell_per_mwh is not None for block in request.obligations.blocks)
    for number, slot in enumerate(made.slots):
        for block in request.obligations.blocks:
            share = max(0.0, min(slot.end, block.end) - max(slot.start, block.start)) / (slot.end - slot.start)
            blocks[number] += share * block.watts / MW
            if share > 0.0 and block.sell_per_mwh is not None:
                sell[number] = block.sell_per_mwh
    root = request.facility.root.id
    lowest = Capacity(dict.fromkeys(request.facility.circuit_by_id, 0.0))
    for group in made.groups:
        if group.available:
            lowest.take(group.item, group.available * group.item.group.points[0].watts)
    fixed = (request.fixed_watts.get(root, 0.0) - lowest.left[root]) / MW
    price = np.array([market.price_per_mwh for market in markets])
    adder = np.array([market.adder_per_mwh for market in markets])
    coincident = np.array([_mean(request, slot.start, slot.end) for slot in made.slots])
    return Site(
        price_per_mwh=price,
        adder_per_mwh=adder,
        coincident_per_mwh=coincident,
        earned_per_th_hour=np.array([market.earned_per_th_hour for market in markets]),
        fixed_mw=np.full(steps, max(0.0, fixed)),
        ppa_mw=blocks,
        sell_per_mwh=np.minimum(sell, price + adder + coincident) if sold else None,
        demand_charges=tuple(
            DemandCharge(first, last, peak.per_mw, peak.floor_watts / MW)
            for peak in request.obligations.peaks
            if (window := _window(made, peak.start, peak.end)) is not None
            for first, last in [window]
        ),
    )


def _mean(request: PlanRequest, start: float, end: float) -> float:
    curve = request.obligations.coincident_peak
    if curve is None:
        return 0.0
    parts = [max(0.0, min(end, each.end) - max(start, each.start)) * each.price_per_mwh for each in curve.intervals]
    return sum(parts) / (end - start)


def _window(made: Frame, start: float, end: float) -> tuple[int, int] | None:
    inside = [number for number, slot in enumerate(made.slots) if slot.start < end and slot.end > start]
    return (inside[0], inside[-1] + 1) if inside else None


def _accounts(made: Frame, mining: Sequence[GroupFrame]) -> tuple[Account, ...]:
    request = made.request
    found = []
    for account in request.facility.accounts:
        budgets = tuple(
            Budget(window[0], window[1], budget.mwh, RESERVE_PER_MWH)
            for budget in request.obligations.budgets
            if budget.account == account.id and (window := _window(made, budget.start, budget.end)) is not None
        )
        loads = sum(group.available for group in mining if group.item.loads[0].account == account.id)
        hours = sum(slot.hours for slot in made.slots)
        floor: tuple[Budget, ...] = ()
        if account.uptime_floor > 0.0 and loads:
            # What an hour of a load's absence costs is its owner's to say; until then it outweighs any price.
            floor = (Budget(0, len(made.slots), account.uptime_floor * loads * hours, RESERVE_PER_MWH),)
        found.append(Account(account.id, budgets, floor))
    return tuple(found)


def _ramps(made: Frame, mining: Sequence[GroupFrame], position: Mapping[str, int]) -> tuple[Ramp, ...]:
    """Bound how far mining as a whole moves between steps; of what runs now the point is not known."""
    facility = made.request.facility
    per_s = facility.pacing.economic_ramp_per_s * facility.root.usable_watts / MW
    step = np.array([per_s * slot.nominal_s for slot in made.slots])
    highest = sum(g.available * g.span_watts for g in mining) / MW
    if not mining or float(np.min(step)) >= highest:
        return ()
    least = sum(g.running * (g.item.group.points[1].watts - g.item.group.points[0].watts) for g in mining) / MW
    most = sum(g.running * g.span_watts for g in mining) / MW
    return (Ramp(position[facility.root.id], step, step, least, most, RAMP_PER_MWH),)


def _armed(made: Frame, service: str, watts: float, granted: Mapping[int, float]) -> float:
    """Return how much of a standing reserve the service's GPUs could still take."""
    more = sum(
        group.available * group.span_watts - granted.get(group.item.number, 0.0)
        for group in made.groups
        if not group.is_miner and group.item.group.service == service
    )
    return min(watts, max(0.0, more))
