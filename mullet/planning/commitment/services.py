"""Inference services in the program: active GPUs, power in concave segments, demand served and unserved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mullet.planning.commitment.assembly import Assembly, Places, nowhere
from mullet.planning.commitment.flows import Source
from mullet.planning.commitment.problem import Floats, Inference, Pool, Problem

MTOKENS_PER_THOUSAND_HOUR = 3600.0 / 1e3
"""Mtokens that a thousand tokens/s make in an hour."""


@dataclass(frozen=True, slots=True, eq=False)
class Services:
    """Where services and their pools, in order, stand in the program."""

    active: tuple[Places, ...]
    """Per pool (T,)."""
    segments: tuple[Places, ...]
    """Per pool (S, T)."""
    unserved: tuple[Places, ...]
    """Per service (tiers, T), thousands of tokens/s."""
    sources: tuple[Source, ...]
    rows: dict[str, Places]
    value: float
    """What serving all demand would earn; what goes unserved is taken off it."""


def add_services(assembly: Assembly, problem: Problem) -> Services:
    """Add pools, served and unserved demand.

    A segment's power is at most its width for each active GPU (the perspective of the concave curve), so that the
    throughput of n GPUs at P is n times that of one at P / n, without whole variables.
    """
    steps = problem.grid.count
    active: list[Places] = []
    segments: list[Places] = []
    unserved: list[Places] = []
    sources: list[Source] = []
    active_rows: list[Places] = []
    serve = nowhere(len(problem.inference), steps)
    value = 0.0
    for number, service in enumerate(problem.inference):
        demand = service.demand_tokens_per_s / 1e3
        mtokens = problem.grid.hours * MTOKENS_PER_THOUSAND_HOUR
        value += service.value_per_mtoken * float(demand @ mtokens)
        # More than demand is made only where GPUs at their lowest limits make it: no price is low enough for waste.
        surplus = sum(pool.base_tokens_per_s * pool.count for pool in service.pools) / 1e3
        serve[number] = assembly.rows((steps,), demand, demand + surplus)
        for pool in service.pools:
            gpus = assembly.variables((steps,), pool.least_active, pool.count)
            powers, rows = _segments(assembly, pool, gpus)
            assembly.put(serve[number], gpus, pool.base_tokens_per_s / 1e3)
            assembly.put(serve[number], powers, pool.tokens_per_s_per_mw[:, np.newaxis] / 1e3)
            active.append(gpus)
            segments.append(powers)
            active_rows.append(rows)
            sources.append(_source(pool, gpus, powers))
        unserved.append(_unserved(assembly, service, serve[number], demand, mtokens))
    rows_of = {"serve": serve, "active": np.concatenate([nowhere(0, steps), *active_rows])}
    return Services(tuple(active), tuple(segments), tuple(unserved), tuple(sources), rows_of, value)


def _segments(assembly: Assembly, pool: Pool, gpus: Places) -> tuple[Places, Places]:
    shape = (len(pool.segment_mw), len(gpus))
    width = pool.segment_mw[:, np.newaxis]
    powers = assembly.variables(shape, 0.0, width * pool.count)
    rows = assembly.rows(shape, 0.0)
    assembly.put(rows, gpus, width)
    assembly.put(rows, powers, -1.0)
    return powers, rows


def _source(pool: Pool, gpus: Places, powers: Places) -> Source:
    draw = np.concatenate([[pool.active_mw], np.ones(len(powers))])
    highest = np.concatenate([[float(pool.count)], pool.segment_mw * pool.count])
    return Source(pool.circuit, np.vstack([gpus, powers]), highest, draw, draw, mining=False)


def _unserved(assembly: Assembly, service: Inference, serve: Places, demand: Floats, mtokens: Floats) -> Places:
    shape = (len(service.tiers), len(demand))
    share = np.array([tier.share for tier in service.tiers]).reshape(-1, 1)
    loss = np.array([service.value_per_mtoken + tier.penalty_per_mtoken for tier in service.tiers]).reshape(-1, 1)
    unserved = assembly.variables(shape, 0.0, share * demand, -loss * mtokens)
    assembly.put(serve, unserved, 1.0)
    return unserved
