"""The merit order over the horizon: what runs when every interval is judged by its own price. No solver."""

from __future__ import annotations

from collections.abc import Sequence

from mullet.domain.plan import Plan, PlanInterval, PlanRequest, Rung
from mullet.planning.appraisal import earned
from mullet.planning.frame import (
    Frame,
    Slot,
    base_capacity,
    frame,
    grant_inference,
    interval_of,
    plan_of,
    reserve_watts,
)
from mullet.planning.merit import Step, mining_steps


def plan_merit_order(request: PlanRequest) -> Plan:
    """Return the plan that gives inference its need and mining what pays, best first, in every interval by itself."""
    made = frame(request)
    running = {group.item.number: group.running for group in made.groups}
    intervals: list[PlanInterval] = []
    history: list[dict[int, list[int]]] = []
    grants: list[dict[int, float]] = []
    steps: list[Step] = []
    judged: float | None = None
    for slot in made.slots:
        if slot.market.earned_per_th_hour != judged:
            # What a step is worth changes with hashing's price alone, which seldom does within a horizon.
            judged = slot.market.earned_per_th_hour
            steps = mining_steps(tuple(group.item for group in made.groups), slot.market)
        counts, granted = fill_slot(made, slot, running, steps)
        running = {number: levels[1] if len(levels) > 1 else 0 for number, levels in counts.items()}
        history.append(counts)
        grants.append(granted)
        intervals.append(interval_of(made, slot, counts, granted))
    detail = f"{made.gaps} intervals without a price" if made.gaps else ""
    return plan_of(made, Rung.MERIT_ORDER, intervals, earned(made, history, grants), None, detail)


def fill_slot(
    made: Frame, slot: Slot, running: dict[int, int], steps: Sequence[Step]
) -> tuple[dict[int, list[int]], dict[int, float]]:
    """Return hull counts per mining group and watts granted per GPU group for one interval; `steps` are best first."""
    capacity = base_capacity(made, slot)
    granted = grant_inference(made, capacity)
    for node, watts in reserve_watts(made, slot, granted).items():
        capacity.keep(node, watts)
    by_number = {group.item.number: group for group in made.groups if group.is_miner}
    counts = {number: [group.available] + [0] * (len(group.item.hull) - 1) for number, group in by_number.items()}
    band = slot.market.deadband_per_mwh / 2.0
    for step in steps:
        levels, k = counts[step.group.number], step.level
        # Auxiliaries that follow the load are paid for too.
        cost = slot.market.cost_per_mwh * step.group.factors[-1]
        if cost < step.break_even_per_mwh - band:
            wanted = levels[k - 1]
        elif cost <= step.break_even_per_mwh + band:
            wanted = min(levels[k - 1], running.get(step.group.number, 0))
        else:
            continue
        levels[k], _ = capacity.give(step.group, step.most_watts, wanted)
    return counts, granted
