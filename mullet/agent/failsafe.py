"""What an edge agent orders when a lease has lapsed, and how it tells that the load is there."""

from __future__ import annotations

from mullet.domain.command import Command, Verb
from mullet.domain.feeds import Cause
from mullet.domain.load import Load
from mullet.domain.telemetry import LoadState, Telemetry

LIMIT_TOLERANCE_WATTS = 1.0
"""Devices round a limit; within this it is the one asked for."""


def failsafe_command(load: Load, *, number: int, agent: str, epoch: int, now: float, deadline_s: float) -> Command:
    """Return the order that takes `load` to its fail-safe point; `now` is Unix seconds."""
    point = load.point(load.fail_safe)
    return Command(
        id=f"{agent}/failsafe/{load.id}/{number}",
        seq=number,
        epoch=epoch,
        load_id=load.id,
        verb=Verb.SLEEP if _sleeps(load) else Verb.POWER,
        point=point.name,
        watts=point.watts,
        most_before_watts=load.worst_watts,
        most_after_watts=load.most_at(point),
        cause=Cause.FAILSAFE,
        plan_id="",
        policy_hash="",
        issued_at=now,
        not_after=now + deadline_s,
        lease_s=0.0,
    )


def at_failsafe(load: Load, telemetry: Telemetry) -> bool | None:
    """Return whether the load draws no more than its fail-safe point lets it; None where the reading cannot tell.

    At or below counts: fail-safe only ever lowers, so a load that sleeps, or that a grid order holds
    lower still, is left alone.
    """
    if telemetry.fault is not None:
        return None
    point = load.point(load.fail_safe)
    if load.capability.enforces_limit:
        if telemetry.limit_watts is None:
            return None
        return telemetry.limit_watts <= point.watts + LIMIT_TOLERANCE_WATTS
    if telemetry.state is LoadState.ASLEEP:
        return True
    if _sleeps(load):
        return None if telemetry.state is None else False
    if load.capability.measures_watts and telemetry.watts is not None:
        return telemetry.watts <= load.most_at(point)
    if telemetry.limit_watts is not None:
        return telemetry.limit_watts <= point.watts + LIMIT_TOLERANCE_WATTS
    return None


def _sleeps(load: Load) -> bool:
    return load.fail_safe == load.lowest.name and not load.capability.enforces_limit
