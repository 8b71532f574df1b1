"""Whole active GPUs that make what a fraction of them would make, at the least power."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mullet.planning.commitment.certificate import Counts, pools, throughput_of
from mullet.planning.commitment.fleet_state import SAME_MW, Bools, FleetState, Floats
from mullet.planning.commitment.problem import Inference, Pool

_WHOLE = 1e-6
_HALVINGS = 50


def round_pools(state: FleetState) -> None:
    """Set active GPUs to the whole number below or above that makes the same tokens with less power."""
    for place, pool in enumerate(pools(state.problem)):
        active, power = state.relaxed.active[place], state.relaxed.pool_mw[place]
        wanted = throughput_of(pool, active, power)
        fewer, more = _neighbours(pool, active)
        less, enough = power_for(pool, fewer, wanted)
        plenty, _ = power_for(pool, more, wanted)
        cheaper = enough & (less + pool.active_mw * fewer <= plenty + pool.active_mw * more)
        state.active[place] = np.where(cheaper, fewer, more)
        state.pool_mw[place] = np.where(cheaper, less, plenty)
        same = np.abs(state.active[place] - active) <= _WHOLE
        # Where energy earns, a relaxed solution may draw more than its tokens ask for; so may this one.
        highest = float(np.sum(pool.segment_mw)) * state.active[place]
        state.pool_mw[place] = np.where(same, np.minimum(power, highest), state.pool_mw[place])
    _bound_waste(state)
    state.measure()


def cut_pools(state: FleetState) -> None:
    """Take power from pools where rows are over their limits although mining gave all it can."""
    state.measure()
    every = pools(state.problem)
    paths = _paths(state)
    hard = [place for place, circuit in enumerate(state.problem.circuits) if np.isfinite(circuit.limit_mw).any()]
    for row in reversed(hard):
        for step in np.flatnonzero(state.used_mw[row] - state.limit_mw[row] > SAME_MW):
            for place, pool in enumerate(every):
                excess = state.used_mw[row, step] - state.limit_mw[row, step]
                if excess <= SAME_MW or row not in paths[pool.circuit]:
                    continue
                _cut(state, place, pool, int(step), float(excess))
                state.measure()
    _bound_waste(state)
    state.measure()


def power_for(pool: Pool, active: Counts, tokens_per_s: Floats) -> tuple[Floats, Bools]:
    """Return (T,) the least power above the lowest limits that makes the tokens, and whether any does."""
    left = tokens_per_s - pool.base_tokens_per_s * active
    power = np.zeros_like(tokens_per_s)
    for width, slope in zip(pool.segment_mw, pool.tokens_per_s_per_mw, strict=True):
        if slope > 0.0:
            taken = np.clip(left / slope, 0.0, width * active)
            power = power + taken
            left = left - slope * taken
    return power, left <= 1e-9 * np.maximum(1.0, tokens_per_s)


def _bound_waste(state: FleetState) -> None:
    """Lower pools that must make more tokens than the program lets a service waste, however their power is laid.

    Where energy earns, a relaxed solution draws more than demand asks for, and whole GPUs make more with that power.
    """
    place = 0
    for service in state.problem.inference:
        last = place + len(service.pools)
        waste = sum(pool.base_tokens_per_s * pool.count for pool in service.pools)
        most = service.demand_tokens_per_s + waste
        power, active = state.pool_mw[place:last], state.active[place:last]

        low, high = np.zeros_like(most), np.ones_like(most)
        fits = _made(service, active, power, high) <= most
        for _ in range(_HALVINGS):
            middle = (low + high) / 2.0
            within = _made(service, active, power, middle) <= most
            low, high = np.where(within, middle, low), np.where(within, high, middle)
        state.pool_mw[place:last] = [np.where(fits, 1.0, low) * mw for mw in power]
        place = last


def _made(service: Inference, active: Sequence[Counts | Floats], power: Sequence[Floats], share: Floats) -> Floats:
    """Return (T,) the fewest tokens/s that a share of each pool's power can make."""
    total = np.zeros_like(share)
    for pool, gpus, mw in zip(service.pools, active, power, strict=True):
        total += _least_tokens(pool, gpus, share * mw)
    return total


def _least_tokens(pool: Pool, active: Counts | Floats, power: Floats) -> Floats:
    """Return (T,) the fewest tokens/s that the power can make: its least efficient segments first."""
    tokens = pool.base_tokens_per_s * active.astype(np.float64)
    left = power
    for width, slope in sorted(
        zip(pool.segment_mw.tolist(), pool.tokens_per_s_per_mw.tolist(), strict=True), key=lambda pair: pair[1]
    ):
        taken = np.minimum(left, width * active)
        tokens = tokens + slope * taken
        left = left - taken
    return tokens


def _neighbours(pool: Pool, active: Counts) -> tuple[Counts, Counts]:
    fewer = np.clip(np.floor(active + _WHOLE), pool.least_active, pool.count).astype(np.int64)
    more = np.clip(np.ceil(active - _WHOLE), pool.least_active, pool.count).astype(np.int64)
    return fewer, more


def _cut(state: FleetState, place: int, pool: Pool, step: int, excess: float) -> None:
    """Lower a pool's total by the excess, with as many GPUs active, or one fewer, as then make more tokens."""
    now, power = int(state.active[place][step]), float(state.pool_mw[place][step])
    budget = max(0.0, power + pool.active_mw * now - excess)
    best, best_rate = (now, 0.0), -1.0
    for active in {now, max(pool.least_active, now - 1)}:
        left = min(budget - pool.active_mw * active, float(np.sum(pool.segment_mw)) * active)
        rate = float(throughput_of(pool, np.array([active]), np.array([max(0.0, left)]))[0])
        if (left >= 0.0 or active == pool.least_active) and rate > best_rate:
            best, best_rate = (active, max(0.0, left)), rate
    state.active[place][step], state.pool_mw[place][step] = best


def _paths(state: FleetState) -> list[list[int]]:
    paths: list[list[int]] = []
    for place, circuit in enumerate(state.problem.circuits):
        paths.append([place, *(paths[circuit.parent] if circuit.parent >= 0 else [])])
    return paths
