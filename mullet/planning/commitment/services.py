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


def add_services(assembly: Assembly, problem: Problem) -> Services:
    """Add pools, served and unserved demand.

    A segment's power is at most its width for each active GPU (the perspective of the concave curve), so that the
    throughput of n GPUs at P is n times that of one at P / n, without whole variables.
    """
    steps = problem.grid.count
    mtokens = problem.grid.hours * MTOKENS_PER_THOUSAND_HOUR
    pools = [pool for service in problem.inference for pool in service.pools]
    active: list[Places] = []
    segments: list[Places] = []
    unserved: list[Places] = []
    sources: list[Source] = []
    demand, serve = (nowhere(len(problem.inference), steps) for _ in range(2))
    segment = nowhere(len(pools), max((len(pool.segment_mw) for pool in pools), default=0), steps)
    for number, service in enumerate(problem.inference):
        demanded = service.demand_tokens_per_s / 1e3
        served = assembly.variables((steps,), gain=service.value_per_mtoken * mtokens)
        demand[number] = assembly.rows((steps,), demanded, demanded)
        assembly.put(demand[number], served, 1.0)
        unserved.append(_unserved(assembly, service, demand[number], mtokens))
        # More than demand is made only where GPUs at their lowest limits make it: no price is low enough for waste.
        surplus = sum(pool.base_tokens_per_s * pool.count for pool in service.pools) / 1e3
        serve[number] = assembly.rows((steps,), 0.0, surplus)
        assembly.put(serve[number], served, -1.0)
        for pool in service.pools:
            gpus = assembly.variables((steps,), pool.least_active, pool.count)
            powers, rows = _segments(assembly, pool, gpus)
            segment[len(active), : len(rows)] = rows
            assembly.put(serve[number], gpus, pool.base_tokens_per_s / 1e3)
            assembly.put(serve[number], powers, pool.tokens_per_s_per_mw[:, np.newaxis] / 1e3)
            active.append(gpus)
            segments.append(powers)
            sources.append(_source(pool, gpus, powers))
    rows_of = {"demand": demand, "serve": serve, "segment": segment}
    return Services(tuple(active), tuple(segments), tuple(unserved), tuple(sources), rows_of)


def _segments(assembly: Assembly, pool: Pool, gpus: Places) -> tuple[Places, Places]:
    shape = (len(pool.segment_mw), len(gpus))
    width = pool.segment_mw[:, np.newaxis]
    powers = assembly.variables(shape, 0.0, width * pool.count)
    rows = assembly.rows(shape, -np.inf, 0.0)
    assembly.put(rows, powers, 1.0)
    assembly.put(rows, gpus, -width)
    return powers, rows


def _source(pool: Pool, gpus: Places, powers: Places) -> Source:
    draw = np.concatenate([[pool.active_mw], np.ones(len(powers))])
    highest = np.concatenate([[float(pool.count)], pool.segment_mw * pool.count])
    return Source(pool.circuit, np.vstack([gpus, powers]), highest, draw, draw, mining=False)


def _unserved(assembly: Assembly, service: Inference, demand: Places, mtokens: Floats) -> Places:
    share = np.array([tier.share for tier in service.tiers]).reshape(-1, 1)
    penalty = np.array([tier.penalty_per_mtoken for tier in service.tiers]).reshape(-1, 1)
    shape = (len(service.tiers), len(mtokens))
    unserved = assembly.variables(shape, 0.0, share * service.demand_tokens_per_s / 1e3, -penalty * mtokens)
    assembly.put(demand, unserved, 1.0)
    return unserved
