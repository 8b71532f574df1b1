"""Power for inference: what each service needs, spread over its GPUs, before any mining gets a watt."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mullet.domain.command import CommandLedger
from mullet.domain.facility import Facility, Service
from mullet.domain.feeds import Cause
from mullet.domain.load import Load, LoadKind, Steering
from mullet.domain.plan import PlanInterval, Setpoint
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import Telemetry
from mullet.domain.units import format_watts
from mullet.planning.accounting import CircuitAccount
from mullet.planning.bending import bent_watts
from mullet.planning.capacity import Capacity
from mullet.planning.positions import Members

# Limits stay as they are while they cover the need and exceed it by no more than this.
_KEEP_FRACTION = 0.02


@dataclass(frozen=True, slots=True)
class Served:
    """What inference was given."""

    setpoints: dict[str, Setpoint]
    granted_watts: dict[str, float]
    """Per circuit: power of the movable GPUs beneath."""
    risen_watts: dict[str, float]
    """Per circuit: how much more that is than those GPUs have now."""
    kept_watts: dict[str, float]
    """Per circuit: standing reserve kept free."""


def serve(
    facility: Facility,
    snapshot: Snapshot,
    accounts: Mapping[str, CircuitAccount],
    members: list[Members],
    capacity: Capacity,
    armed_watts: Mapping[str, float],
    interval: PlanInterval | None,
) -> Served:
    """Give every service its need in order of priority, and take that and the standing reserves from `capacity`.

    A service with flex gets less than its need where the plan says so, down to what its flex allows.
    """
    zeros = dict.fromkeys(capacity.left, 0.0)
    served = Served({}, dict(zeros), dict(zeros), dict(zeros))
    by_service: dict[str | None, list[Members]] = {}
    for here in members:
        if here.item.group.kind is LoadKind.GPU:
            by_service.setdefault(here.item.group.service, []).append(here)
    known = sorted(
        (facility.service_by_id[key] for key in by_service if key is not None and key in facility.service_by_id),
        key=lambda service: (service.priority, -service.value_per_mtoken, service.id),
    )
    order: list[Service | None] = [*known]
    order += [None] if None in by_service else []
    for service in order:
        groups = sorted(by_service[service.id if service else None], key=lambda here: here.item.first_id)
        _serve_one(snapshot, service, groups, accounts, capacity, served, interval)
    for service in order:
        if service is not None and service.id in armed_watts:
            _keep_reserve(armed_watts[service.id], by_service[service.id], capacity, served)
    return served


def power_kept(loads: Iterable[Load], telemetry: Mapping[str, Telemetry], ledger: CommandLedger) -> float:
    """Return the power that a service keeps while its need is unknown: what its GPUs, `loads`, were given last."""
    return sum(_kept(load, _now_watts(telemetry, ledger, load)) for load in loads)


def _kept(load: Load, now: float | None) -> float:
    return min(load.highest.watts, max(load.lowest.watts, now or load.lowest.watts))


def _now_watts(telemetry: Mapping[str, Telemetry], ledger: CommandLedger, load: Load) -> float | None:
    entry = ledger.entry(load.id)
    if entry.pending and entry.command is not None:
        return entry.command.watts
    reading = telemetry.get(load.id)
    return reading.limit_watts if reading is not None else None


def _serve_one(
    snapshot: Snapshot,
    service: Service | None,
    groups: list[Members],
    accounts: Mapping[str, CircuitAccount],
    capacity: Capacity,
    served: Served,
    interval: PlanInterval | None,
) -> None:
    loads = [load for here in groups for load in here.movable]
    if not loads:
        return
    now = {load.id: _now_watts(snapshot.telemetry, snapshot.ledger, load) for load in loads}
    clipped = {load.id: _kept(load, now[load.id]) for load in loads}
    serving = sum(here.serving_watts for here in groups)
    need = snapshot.needs.get(service.id) if service is not None else None
    known = need is not None and math.isfinite(need)
    wanted = (need - serving) if need is not None and known else sum(clipped.values())
    bent = _bent(service, groups, interval, wanted) if known else wanted
    limits, bound = _spread(groups, bent, now, clipped, capacity)
    name = service.id if service is not None else "no service"
    full = (
        f"{name} needs {format_watts(need)}" if need is not None and known else f"{name} keeps its power: need unknown"
    )
    if bent < wanted - 1.0 and service is not None:
        full += f", gets {format_watts(bent)}: more earns too little, its flex is {service.flex:.0%}"
    for here in groups:
        item = here.item
        for load in here.movable:
            watts = limits[load.id]
            before = now[load.id]
            cause, binding, rule = Cause.ECONOMIC, None, f"inference: {full}"
            if item.number in bound:
                binding = bound[item.number]
                account = accounts[binding]
                cause = account.cause or Cause.PROTECTION
                rule = (
                    f"inference bent: {full}, {binding} gives {format_watts(sum(limits.values()))} "
                    f"under {format_watts(account.target_limit_watts)}"
                )
            elif before is not None and watts > before:
                cause = Cause.AI_PREEMPTION
            point = "" if load.capability.steering is Steering.CONTINUOUS else load.point_for_watts(watts).name
            served.setpoints[load.id] = Setpoint(load.id, point, watts, cause, rule, binding)
            for node in item.path:
                served.granted_watts[node] += watts
                served.risen_watts[node] += max(0.0, watts - (before if before is not None else watts))


def _bent(
    service: Service | None, groups: Sequence[Members], interval: PlanInterval | None, wanted_watts: float
) -> float:
    """Return the power for the movable GPUs: what the plan gives them where that is less, down to what flex allows."""
    if service is None or service.flex <= 0.0 or interval is None:
        return wanted_watts
    planned = sum(interval.group_watts.get(here.item.group.key, math.inf) for here in groups)
    least = bent_watts([(len(here.movable), here.item.group.points) for here in groups], wanted_watts, service.flex)
    return max(least, min(wanted_watts, planned))


def _spread(
    groups: list[Members],
    wanted: float,
    now: Mapping[str, float | None],
    clipped: Mapping[str, float],
    capacity: Capacity,
) -> tuple[dict[str, float], dict[int, str]]:
    """Return a limit per GPU and, for groups that got less than their share, the circuit that bound."""
    lowest = {load.id: load.lowest.watts for here in groups for load in here.movable}
    highest = {load.id: load.highest.watts for here in groups for load in here.movable}
    wanted = min(max(wanted, sum(lowest.values())), sum(highest.values()))
    kept = sum(clipped.values())
    steady = all(now[key] is not None and abs((now[key] or 0.0) - clipped[key]) < 1e-6 for key in clipped)
    if steady and wanted - 1e-6 <= kept <= wanted * (1.0 + _KEEP_FRACTION) + len(clipped):
        trial = Capacity(capacity.left)
        fits = True
        for here in groups:
            extra = sum(clipped[load.id] - lowest[load.id] for load in here.movable)
            fits = fits and extra <= trial.room(here.item)[0] + 1e-6
            trial.take(here.item, extra)
        if fits:
            capacity.left = trial.left
            return dict(clipped), {}
    # An even share of the way from lowest to highest everywhere; what a circuit cannot carry goes to the others.
    extra_left = math.ceil(wanted - sum(lowest.values()) - 1e-9)
    given: dict[int, int] = {here.item.number: 0 for here in groups}
    ranges = {
        here.item.number: math.floor(sum(highest[load.id] - lowest[load.id] for load in here.movable))
        for here in groups
    }
    bound: dict[int, str] = {}
    while extra_left > 0:
        open_groups = [
            here
            for here in groups
            if here.item.number not in bound and given[here.item.number] < ranges[here.item.number]
        ]
        if not open_groups:
            break
        remaining, span = extra_left, sum(ranges[h.item.number] - given[h.item.number] for h in open_groups)
        for here in open_groups:
            number = here.item.number
            free = ranges[number] - given[number]
            share = min(free, remaining, math.ceil(extra_left * free / span))
            room, binding = capacity.room(here.item)
            granted = min(share, math.floor(room + 1e-6))
            if granted < share:
                bound[number] = binding
            capacity.take(here.item, float(granted))
            given[number] += granted
            remaining -= granted
        if remaining == extra_left:
            break
        extra_left = remaining
    if extra_left <= 0:
        bound = {}
    limits: dict[str, float] = {}
    for here in groups:
        limits.update(_within_group(here, given[here.item.number], capacity))
    return limits, bound


def _within_group(here: Members, extra: int, capacity: Capacity) -> dict[str, float]:
    loads = sorted(here.movable, key=lambda load: load.id)
    limits: dict[str, float] = {}
    left = float(extra)
    for number, load in enumerate(loads):
        low, high = load.lowest.watts, load.highest.watts
        share = left / (len(loads) - number)
        if load.capability.steering is Steering.CONTINUOUS:
            above = min(float(math.ceil(share - 1e-9)), math.floor(high - low))
        else:
            fitting = [p.watts - low for p in load.points if p.watts - low <= left + 1e-9]
            above = next((watts for watts in fitting if watts >= share - 1e-9), fitting[-1])
        limits[load.id] = low + above
        left -= above
    if left > 0.0:
        capacity.take(here.item, -left)
    return limits


def _keep_reserve(armed: float, groups: list[Members], capacity: Capacity, served: Served) -> None:
    absorbable: dict[str, float] = {}
    for here in groups:
        for load in here.movable:
            more = load.highest.watts - served.setpoints[load.id].watts
            for node, factor in zip(here.item.path, here.item.factors, strict=True):
                absorbable[node] = absorbable.get(node, 0.0) + more * factor
    for node, watts in absorbable.items():
        kept = min(armed, watts)
        capacity.keep(node, kept)
        served.kept_watts[node] += kept
