"""How much GPU power a service needs: its offered tokens laid on its GPUs' curve, with queue and margin."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from mullet.domain.facility import Service
from mullet.domain.feeds import ServiceDemand
from mullet.domain.load import Load

HOLD_S = 10.0
DRAIN_S = 5.0
SETTLE_S = 10.0
"""Seconds for which a service must have been watched before its rates move any power.

Arrivals are near enough Poisson: over 3 s of 10 requests/s the count strays by 18 %, over 10 s by 10 %. Requests that
wait are no matter of rates, and are answered at once.
"""
_BISECTIONS = 40


def needed_watts(
    service: Service, loads: Sequence[Load], demand: ServiceDemand | None, at: float, hold_s: float = HOLD_S
) -> float | None:
    """Return the GPU power that `service` needs now, margin included, at most what its `loads` can take.

    The last known demand is held for `hold_s`. After that, and until it has been watched for `SETTLE_S`, the need is
    unknown (None): the service keeps the power it has, and what answers a rise is its standing reserve alone.
    """
    lowest = sum(load.lowest.watts for load in loads)
    highest = sum(load.highest.watts for load in loads)
    if not loads:
        return 0.0
    if demand is None or at - demand.at > hold_s:
        return None
    if demand.watched_s is not None and demand.watched_s < SETTLE_S and not demand.waiting:
        return None
    offered = offered_tokens_per_s(demand)
    if offered is None:
        return None
    if offered <= 0.0:
        return lowest
    return min(highest, _watts_for(loads, offered) * (1.0 + service.margin))


def offered_tokens_per_s(demand: ServiceDemand) -> float | None:
    """Return the tokens per second that would serve arrivals and drain the queue in about `DRAIN_S`; None if unknown.

    A waiting request is worth what a running one gets; with none running, one such request a drain time.
    """
    served = _known(demand.tokens_per_s)
    arriving = _known(demand.offered_tokens_per_s)
    running, waiting = _known(demand.running), _known(demand.waiting)
    if served is None and arriving is None:
        return 0.0 if running == 0.0 and waiting == 0.0 else None
    rate = max(served or 0.0, arriving or 0.0)
    if not waiting:
        return rate
    each = rate / running if running else rate / DRAIN_S
    return rate + each * waiting


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) and value >= 0.0 else None


def _watts_for(loads: Sequence[Load], tokens_per_s: float) -> float:
    """Return the least power, shared as allocation shares it, at which the GPUs make `tokens_per_s`."""

    def made(fraction: float) -> float:
        return sum(_tokens_at(load, _watts_at(load, fraction)) for load in loads)

    if made(1.0) <= tokens_per_s:
        return sum(load.highest.watts for load in loads)
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        if made(middle) < tokens_per_s:
            low = middle
        else:
            high = middle
    return sum(_watts_at(load, high) for load in loads)


def _watts_at(load: Load, fraction: float) -> float:
    return load.lowest.watts + fraction * (load.highest.watts - load.lowest.watts)


def _tokens_at(load: Load, watts: float) -> float:
    """Return the throughput between operating points, straight from one to the next."""
    points = load.points
    for lower, upper in itertools.pairwise(points):
        if watts <= upper.watts:
            share = (watts - lower.watts) / (upper.watts - lower.watts) if upper.watts > lower.watts else 1.0
            return lower.tokens_per_s + share * (upper.tokens_per_s - lower.tokens_per_s)
    return points[-1].tokens_per_s


def hold_up(held: tuple[float, float] | None, need: float, at: float, up_hold_s: float) -> tuple[float, float]:
    """Return the need to act on and since when it stands: it rises at once and falls after `up_hold_s` of less.

    `held` is what this returned before, None at first.
    """
    if held is None or need >= held[0] or at - held[1] >= up_hold_s:
        return need, at
    return held
