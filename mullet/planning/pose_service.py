"""An inference service as the commitment problem sees it: what it needs, on which GPUs, and how far it may bend."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from mullet.domain.load import OperatingPoint
from mullet.planning.commitment.problem import Inference, Pool, Tier
from mullet.planning.frame import Frame, GroupFrame

MW = 1e6


def pose_service(
    made: Frame, name: str | None, strict: float, mine: Sequence[GroupFrame], position: Mapping[str, int]
) -> Inference:
    """Return the service; a Mtoken stands for a MWh at the lowest to highest points where no tokens are promised.

    Without a flex share power itself is what is served: the need is a power, its margin included, and which GPU of a
    service gets it is not the plan's to judge. With one, tokens are: what they earn decides how far power bends.
    """
    service = made.request.facility.service_by_id.get(name or "")
    need_watts = made.needs_watts[name]
    lowest = sum(g.available * g.item.group.points[0].watts for g in mine)
    steps = len(made.slots)
    if service is None or service.flex <= 0.0 or not _has_curve(mine):
        # A slope of 1e6/3600 tokens/s per MW makes a MWh one Mtoken.
        slope = 1e6 / 3_600.0
        pools = tuple(_pool(group, position, 0.0, [(group.span_watts / MW, slope)]) for group in mine)
        demand = max(0.0, need_watts - lowest) / MW * slope
        return Inference(name or "", pools, np.full(steps, demand), 0.0, (Tier(1.0, strict),))
    pools = tuple(
        _pool(group, position, group.item.group.points[0].tokens_per_s, _hull_segments(group.item.group.points))
        for group in mine
    )
    demand = sum(g.available * _tokens_at(g.item.group.points, _share_watts(g, mine, need_watts)) for g in mine)
    # The dearest MWh per Mtoken on the curve turns the price of a MWh into one of tokens.
    per_mtoken = strict / min(_mtoken_per_mwh(pool) for pool in pools)
    tiers = (Tier(service.flex, 0.0), Tier(1.0 - service.flex, per_mtoken))
    return Inference(service.id, pools, np.full(steps, demand), service.value_per_mtoken, tiers)


def _has_curve(mine: Sequence[GroupFrame]) -> bool:
    curves = [[point.tokens_per_s for point in group.item.group.points] for group in mine]
    return all(len(curve) > 1 and np.all(np.diff(curve) > 0.0) for curve in curves)


def _pool(group: GroupFrame, position: Mapping[str, int], base: float, segments: Sequence[tuple[float, float]]) -> Pool:
    return Pool(
        key=group.item.group.key,
        circuit=position[group.item.group.circuit],
        count=group.available,
        least_active=group.available,
        active_mw=0.0,
        base_tokens_per_s=base,
        segment_mw=np.array([width for width, _ in segments]),
        tokens_per_s_per_mw=np.array([slope for _, slope in segments]),
    )


def _hull_segments(points: Sequence[OperatingPoint]) -> list[tuple[float, float]]:
    """Return (MW, tokens/s per MW) along the curve's upper concave hull."""
    hull = [points[0]]
    for point in points[1:]:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    return [((b.watts - a.watts) / MW, _slope(a, b) * MW) for a, b in itertools.pairwise(hull)]


def _slope(low: OperatingPoint, high: OperatingPoint) -> float:
    return (high.tokens_per_s - low.tokens_per_s) / (high.watts - low.watts)


def _mtoken_per_mwh(pool: Pool) -> float:
    return float(np.min(pool.tokens_per_s_per_mw)) * 3_600.0 / 1e6


def _share_watts(group: GroupFrame, mine: Sequence[GroupFrame], need_watts: float) -> float:
    """Return the watts of one GPU of `group` when every GPU goes the same share of its way from lowest to highest."""
    low = sum(g.available * g.item.group.points[0].watts for g in mine)
    span = sum(g.available * g.span_watts for g in mine)
    share = min(1.0, max(0.0, (need_watts - low) / span)) if span > 0.0 else 0.0
    return group.item.group.points[0].watts + share * group.span_watts


def _tokens_at(points: Sequence[OperatingPoint], watts: float) -> float:
    return float(np.interp(watts, [p.watts for p in points], [p.tokens_per_s for p in points]))
