"""What to drop, in which order, to free any power on any circuit: sorted beforehand, answered in microseconds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from mullet.domain.facility import Facility
from mullet.domain.load import Load, LoadKind, Steering
from mullet.domain.snapshot import HoldKind, Snapshot
from mullet.planning.accounting import CircuitAccount, Standing, silent_after_s
from mullet.planning.index import index_of
from mullet.planning.merit import break_even_per_mwh, market_now

# What cannot be done at once is of little use to protection: slow loads are dropped after all fast ones.
_MINER_FAST, _MINER_SLOW, _GPU = 0, 1, 2


@dataclass(frozen=True, slots=True)
class _Queue:
    load_ids: tuple[str, ...]
    freed_watts: tuple[float, ...]
    """Power freed by the loads up to and including each."""


@dataclass(frozen=True, slots=True)
class ShedList:
    """Per circuit, the loads beneath in the order in which they are dropped."""

    queues: Mapping[str, _Queue]

    def query(self, circuit: str, watts: float) -> tuple[str, ...]:
        """Return the shortest head of the circuit's list that frees at least `watts`, or the whole list.

        Raises:
            KeyError: no such circuit.
        """
        queue = self.queues[circuit]
        if watts <= 0.0:
            return ()
        return queue.load_ids[: bisect_left(queue.freed_watts, watts - 1e-6) + 1]

    def freed_watts(self, circuit: str, count: int) -> float:
        """Return the power that the first `count` loads of the circuit's list free."""
        return self.queues[circuit].freed_watts[count - 1] if count > 0 else 0.0

    def total_watts(self, circuit: str) -> float:
        """Return the power that can be freed on the circuit in all."""
        freed = self.queues[circuit].freed_watts
        return freed[-1] if freed else 0.0


def shed_list(facility: Facility, snapshot: Snapshot, accounts: Mapping[str, CircuitAccount]) -> ShedList:
    """Return the shed list of every circuit: miners before GPUs, fast before slow, then the least valuable first.

    Only loads that may be commanded and draw above their lowest point are in it. Protection and emergency override
    holds that keep a load on, so those are in it too. On a circuit whose account is over its limit the loads beneath
    are in the same order: the account says how much to ask for.
    """
    index = index_of(facility)
    standing = Standing(facility, snapshot, silent_after_s(facility))
    market = market_now(facility, snapshot)
    ranked: list[tuple[tuple[float, ...], str, Load, float]] = []
    for item in index.groups:
        top = item.group.points[item.hull[-1]]
        earned = break_even_per_mwh(market, item.group.points[0], top)
        for load in item.loads:
            if not _may_shed(facility, snapshot, standing, load):
                continue
            freed = standing.most_watts(load) - load.most_at(load.lowest)
            if freed <= 0.0:
                continue
            if load.kind is LoadKind.GPU:
                service = facility.service_by_id.get(load.service or "")
                urgency = float(service.priority) if service is not None else 1e9
                value = service.value_per_mtoken if service is not None else 0.0
                key: tuple[float, ...] = (_GPU, -urgency, value)
            else:
                key = (_MINER_FAST if load.capability.fast else _MINER_SLOW, earned, -freed)
            ranked.append((key, load.id, load, freed))
    ranked.sort(key=lambda entry: (entry[0], entry[1]))
    ids: dict[str, list[str]] = {node: [] for node in accounts}
    sums: dict[str, list[float]] = {node: [] for node in accounts}
    factors = {item.number: list(zip(item.path, item.factors, strict=True)) for item in index.groups}
    for _, load_id, _, freed in ranked:
        for node, factor in factors[index.group_of[load_id]]:
            before = sums[node][-1] if sums[node] else 0.0
            ids[node].append(load_id)
            sums[node].append(before + freed * factor)
    return ShedList({node: _Queue(tuple(ids[node]), tuple(sums[node])) for node in accounts})


def _may_shed(facility: Facility, snapshot: Snapshot, standing: Standing, load: Load) -> bool:
    gpu = load.kind is LoadKind.GPU
    if load.capability.steering is Steering.MONITOR or not (gpu or load.capability.interruptible):
        return False
    if standing.reading(load) is None or not standing.auto(load):
        return False
    held = snapshot.held(facility, load.id) if snapshot.holds else None
    return held is None or held.kind is HoldKind.ON
