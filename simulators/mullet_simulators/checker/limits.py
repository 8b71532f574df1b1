"""True watts against the limit in force, integrated over every circuit."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from .record import Record, Truth

ROUNDING_W = 1e-6
"""Sums of floats may differ in the last place; nothing physical is this small."""
WINDOW_S = 900.0
RIPPLE = 0.001
"""Loads that nobody commands waver by so much of a circuit's draw; the least miner or GPU step is more."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A span over which both watts and limit hold."""

    start: float
    end: float
    watts: float
    limit_w: float
    cut: bool
    """The limit fell at `start`."""


@dataclass(slots=True)
class LimitFigures:
    violations: list[Record] = field(default_factory=list)
    over_limit_s: float = 0.0
    over_limit_mw_s: float = 0.0
    worst_over_percent: float = 0.0
    longest_over_102_s: float = 0.0
    longest_over_110_s: float = 0.0
    worst_15min_mean_percent: float = 0.0


def integrate_limits(truth: Truth) -> LimitFigures:
    """Violations, excess after cuts, and the figures of R2, over all circuits.

    Excess after a cut is summed per circuit, so a cut that two circuits overrun counts for both.
    """
    figures = LimitFigures()
    for circuit in truth.parents:
        stretches = list(_stretches(truth, circuit))
        _split_excess(truth, circuit, stretches, figures)
        for stretch in stretches:
            if stretch.limit_w > 0:
                over = 100.0 * (stretch.watts / stretch.limit_w - 1.0)
                figures.worst_over_percent = max(figures.worst_over_percent, over)
        figures.longest_over_102_s = max(figures.longest_over_102_s, _longest(stretches, 1.02))
        figures.longest_over_110_s = max(figures.longest_over_110_s, _longest(stretches, 1.10))
        figures.worst_15min_mean_percent = max(figures.worst_15min_mean_percent, _worst_mean(stretches))
    figures.violations.sort(key=lambda v: (v["at_s"], v["circuit"]))
    return figures


def _stretches(truth: Truth, circuit: str) -> Iterator[Stretch]:
    limits, watts = truth.limits[circuit], truth.circuit_watts[circuit]
    if not truth.times:
        return
    first = truth.times[0]
    edges = sorted({*truth.times, *(t for t in limits.times if first < t < truth.end), truth.end})
    sample = 0
    for start, end in pairwise(edges):
        while sample + 1 < len(truth.times) and truth.times[sample + 1] <= start:
            sample += 1
        changed = bisect_right(limits.times, start) - 1
        cut = changed > 0 and limits.times[changed] == start and limits.values[changed] < limits.values[changed - 1]
        yield Stretch(start, end, watts[sample], limits.values[changed], cut)


def _split_excess(truth: Truth, circuit: str, stretches: list[Stretch], figures: LimitFigures) -> None:
    """Sort each excursion: what a cut alone caused, and what load or commands caused.

    A cut excuses the excursion that starts with it for as long as the power never rises above what it was at
    the cut (and a ripple); from the instant it does, the rest of the excursion is a violation.
    """
    excused_w: float | None = None
    violation: Record | None = None
    was_over = False
    for s in stretches:
        over_w = s.watts - s.limit_w
        if over_w <= ROUNDING_W:
            excused_w, violation, was_over = None, None, False
            continue
        if s.cut and (not was_over or excused_w is not None):
            # A second cut during an excused excursion may only tighten what is excused.
            excused_w = s.watts if excused_w is None else min(excused_w, s.watts)
        elif excused_w is not None and s.watts > excused_w * (1.0 + RIPPLE):
            excused_w = None
        was_over = True
        seconds = s.end - s.start
        if excused_w is not None:
            figures.over_limit_s += seconds
            figures.over_limit_mw_s += over_w / 1e6 * seconds
            continue
        if violation is None:
            violation = {
                "circuit": circuit,
                "at_s": round(s.start - truth.start, 3),
                "seconds": 0.0,
                "limit_w": s.limit_w,
                "worst_over_w": 0.0,
            }
            figures.violations.append(violation)
        violation["seconds"] = round(s.end - truth.start - violation["at_s"], 3)
        violation["worst_over_w"] = max(violation["worst_over_w"], round(over_w, 3))


def _longest(stretches: list[Stretch], factor: float) -> float:
    longest, since = 0.0, None
    for s in stretches:
        if s.watts > s.limit_w * factor + ROUNDING_W:
            since = s.start if since is None else since
            longest = max(longest, s.end - since)
        else:
            since = None
    return longest


def _worst_mean(stretches: list[Stretch]) -> float:
    """The highest mean of watts over mean of limit in any 15 minutes (the whole log where it is shorter)."""
    if not stretches:
        return 0.0
    edges, joules, allowed = [stretches[0].start], [0.0], [0.0]
    for s in stretches:
        edges.append(s.end)
        joules.append(joules[-1] + s.watts * (s.end - s.start))
        allowed.append(allowed[-1] + s.limit_w * (s.end - s.start))
    if edges[-1] - edges[0] <= WINDOW_S:
        return 100.0 * joules[-1] / allowed[-1] if allowed[-1] > 0 else 0.0
    window, worst = WINDOW_S, 0.0
    # The ratio of two piecewise linear sums peaks where the window touches an edge.
    for end in {*edges, *(t + window for t in edges)}:
        if edges[0] + window <= end <= edges[-1]:
            used = _interpolate(edges, joules, end) - _interpolate(edges, joules, end - window)
            may = _interpolate(edges, allowed, end) - _interpolate(edges, allowed, end - window)
            if may > 0:
                worst = max(worst, 100.0 * used / may)
    return worst


def _interpolate(times: list[float], values: list[float], t: float) -> float:
    i = min(max(bisect_right(times, t) - 1, 0), len(times) - 2)
    span = times[i + 1] - times[i]
    return values[i] + (values[i + 1] - values[i]) * ((t - times[i]) / span if span > 0 else 0.0)
