"""What stands in when no fresh plan is at hand: the last plan moved on, and the caps that need no market at all."""

from __future__ import annotations

from dataclasses import replace

from mullet.domain.plan import Plan, PlanRequest, Rung
from mullet.planning.appraisal import earned
from mullet.planning.frame import (
    PLAN_LEASE_S,
    base_capacity,
    frame,
    grant_inference,
    interval_of,
    plan_of,
)


def shift_plan(plan: Plan, at: float) -> Plan | None:
    """Return `plan` from `at` on with a new lease, or None where its horizon does not reach that far.

    Guard it before use: limits and loads may have changed since it was made.
    """
    left = tuple(interval for interval in plan.intervals if interval.end > at)
    if not left or left[0].start > at:
        return None
    first = replace(left[0], start=at)
    lease_s = min(PLAN_LEASE_S, left[-1].end - at)
    return replace(
        plan,
        id=f"{Rung.SHIFTED.value}-{at:.3f}",
        made_at=at,
        valid_until=at + lease_s,
        rung=Rung.SHIFTED,
        intervals=(first, *left[1:]),
        bound=None,
        detail=f"{plan.id} of {at - plan.made_at:.0f} s ago",
    )


def safe_plan(request: PlanRequest) -> Plan:
    """Return the plan that needs no market: all mining at its lowest point, inference what it needs and can get."""
    made = frame(request)
    intervals = []
    history = []
    grants = []
    for slot in made.slots:
        counts = {
            group.item.number: [group.available] + [0] * (len(group.item.hull) - 1)
            for group in made.groups
            if group.is_miner
        }
        history.append(counts)
        grants.append(grant_inference(made, base_capacity(made, slot)))
        intervals.append(interval_of(made, slot, counts, grants[-1]))
    return plan_of(made, Rung.SAFE_CAPS, intervals, earned(made, history, grants), None, "mining at its lowest")
