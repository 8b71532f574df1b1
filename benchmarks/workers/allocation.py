"""The allocator's kernel tick by tick, against the bound of a linear program written from the loads alone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.fleets import Floats, Yard, make_yard, random_yard
from benchmarks.workers.process import serve
from benchmarks.workers.statistics import percentile
from mullet.planning.fleet import make_standing
from mullet.planning.knapsack import prepare, solve

_EARNED_PER_TH_HOUR = 50.0 / 24.0 / 1e3
_WATT = 1e-3
"""Limits are counted in watts; a thousandth of one is arithmetic."""


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options: loads, profiles, seed, breakers_share, ticks, bounds (ticks with a bound), instances (random),
    whole_s (seconds of search for the bound of whole loads, at the tick with the largest gap; 0 or absent: none)."""
    found: dict[str, Any] = {}
    if options["ticks"]:
        found |= _ticks(options)
    broken = 0
    for number in range(options["instances"]):
        broken += _breaks(random_yard(options["seed"] * 1_000_003 + number), number)
    return {**found, "instances_broken": broken}


def _ticks(options: Mapping[str, Any]) -> dict[str, Any]:
    yard = make_yard(options["loads"], options["profiles"], options["seed"], tuple(options["breakers_share"]))
    draw = np.random.default_rng(options["seed"])
    began = time.perf_counter()
    program = prepare(yard.fleet, _EARNED_PER_TH_HOUR)
    prepared_s = time.perf_counter() - began
    level = None
    walls, processor, gaps, bounds_s, broken = [], [], [], [], 0
    worst: tuple[float, Floats, float, float, float] | None = None
    for tick in range(options["ticks"] + 1):
        # Prices about the break-even of the lesser loads, limits that a program or an overload takes down and up.
        cost = float(draw.uniform(20.0, 80.0)) / 1e6
        limits = yard.limits * draw.uniform(0.9, 1.0, len(yard.limits))
        standing = make_standing(yard.fleet, level)
        cpu, began = time.thread_time(), time.perf_counter()
        done = solve(program, standing, limits, cost)
        if tick:
            walls.append(time.perf_counter() - began)
            processor.append(time.thread_time() - cpu)
        level = done.level
        drawn = yard.watts[yard.profile, level]
        broken += bool(np.any(yard.drawn(drawn) > limits + _WATT))
        if tick < options["bounds"]:
            began = time.process_time()
            bound = _bound(yard, limits, cost)
            bounds_s.append(time.process_time() - began)
            earned = _EARNED_PER_TH_HOUR * float(yard.value[yard.profile, level].sum()) - cost * float(drawn.sum())
            gaps.append((bound - earned) / bound)
            if worst is None or gaps[-1] > worst[0]:
                worst = gaps[-1], limits, cost, bound, earned
    whole: dict[str, Any] = {}
    if worst is not None and options.get("whole_s"):
        _, limits, cost, bound, earned = worst
        whole_bound = min(bound, _bound(yard, limits, cost, options["whole_s"]))
        whole = {"whole_gap": (whole_bound - earned) / bound, "whole_price": (bound - whole_bound) / bound}
    return {
        "prepare_s": prepared_s,
        "p50_s": percentile(walls, 0.5),
        "p99_s": percentile(walls, 0.99),
        "cpu_p99_s": percentile(processor, 0.99),
        "gap_max": max(gaps) if gaps else None,
        "gap_mean": float(np.mean(gaps)) if gaps else None,
        "bound_s": percentile(bounds_s, 0.5) if bounds_s else None,
        "ticks_broken": broken,
        **whole,
    }


def _bound(yard: Yard, limits: Floats, cost: float, whole_s: float | None = None) -> float:
    """Return what no allocation can exceed: loads alike and on one circuit share themselves out over all points.

    With `whole_s` loads are whole and HiGHS searches so long: what it has proven no whole allocation can exceed.
    """
    from scipy.optimize import Bounds, LinearConstraint, linprog, milp
    from scipy.sparse import coo_matrix

    pairs, counts = np.unique(np.stack([yard.circuit, yard.profile]), axis=1, return_counts=True)
    banks, most = pairs.shape[1], yard.watts.shape[1]
    gain = (_EARNED_PER_TH_HOUR * yard.value - cost * yard.watts)[pairs[1]]
    # Columns: loads of each bank at each point, then the power at each circuit.
    nodes = len(yard.parent)
    column = np.arange(banks * most)
    bank = column // most
    watts = yard.watts[pairs[1]].ravel()
    child = np.flatnonzero(yard.parent >= 0)
    rows = np.concatenate([bank, banks + pairs[0][bank], banks + np.arange(nodes), banks + yard.parent[child]])
    columns = np.concatenate([column, column, banks * most + np.arange(nodes), banks * most + child])
    cells = np.concatenate([np.ones(len(column)), watts / 1e3, -np.ones(nodes), np.ones(len(child))])
    matrix = coo_matrix((cells, (rows, columns)), shape=(banks + nodes, banks * most + nodes)).tocsr()
    right = np.concatenate([counts.astype(float), np.zeros(nodes)])
    loads = np.stack([np.zeros(banks * most), np.repeat(counts, most).astype(float)], axis=1)
    bounds = np.concatenate([loads, np.stack([np.zeros(nodes), limits / 1e3], axis=1)])
    objective = np.concatenate([-gain.ravel(), np.zeros(nodes)])
    if whole_s is not None:
        # Padding repeats a profile's last point: one of them is enough.
        padding = (np.arange(most)[None, :] >= yard.points[pairs[1]][:, None]).ravel()
        bounds[: banks * most][padding, 1] = 0.0
        found = milp(
            objective,
            constraints=LinearConstraint(matrix, right, right),
            bounds=Bounds(bounds[:, 0], bounds[:, 1]),
            integrality=np.concatenate([np.ones(banks * most), np.zeros(nodes)]),
            options={"time_limit": whole_s, "mip_rel_gap": 1e-9},
        )
        if found.mip_dual_bound is None:
            raise ValueError(f"no whole bound: {found.message}")
        return -float(found.mip_dual_bound)
    done = linprog(objective, A_eq=matrix, b_eq=right, bounds=bounds, method="highs")
    if done.status != 0:
        raise ValueError(f"no bound: {done.message}")
    return -float(done.fun)


def _breaks(yard: Yard, seed: int) -> bool:
    """Return whether the kernel breaks a limit of the yard that can be kept."""
    draw = np.random.default_rng(seed)
    program = prepare(yard.fleet, _EARNED_PER_TH_HOUR, band_per_watt=float(draw.choice([0.0, 5e-6])))
    top = yard.points[yard.profile] - 1
    level = draw.integers(0, top + 1) if len(top) else np.zeros(0, dtype=np.int64)
    floor = np.where(draw.random(len(level)) < 0.2, level, 0)
    standing = make_standing(yard.fleet, level, floor=floor)
    done = solve(program, standing, yard.limits, float(draw.uniform(-20.0, 120.0)) / 1e6)
    over = yard.drawn(yard.watts[yard.profile, done.level]) > yard.limits + _WATT
    # Where not even the lowest points fit, everything beneath must stand there: more cannot be done.
    hopeless = yard.drawn(yard.watts[yard.profile, 0]) > yard.limits + _WATT
    if bool(np.any(over & ~hopeless)):
        return True
    beneath = hopeless.copy()
    for node in range(1, len(yard.parent)):
        beneath[node] |= beneath[yard.parent[node]]
    return bool(np.any(done.level[beneath[yard.circuit]] != 0))


if __name__ == "__main__":
    serve(measure)
