"""What to drop, in which order, to free any power on any circuit: sorted beforehand, answered in microseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mullet.domain.facility import Facility
from mullet.domain.load import LoadKind, Steering
from mullet.domain.snapshot import HoldKind, Snapshot
from mullet.planning.accounting import CircuitAccount, Standing, silent_after_s
from mullet.planning.index import GroupIndex, index_of
from mullet.planning.merit import Market, break_even_per_mwh, market_now
from mullet.planning.positions import cycles_within_day
from mullet.planning.queues import Queue, make_queues, rank, roster_of

# What cannot be done at once is of little use to protection: slow loads are dropped after all fast ones.
_MINER_FAST, _MINER_SLOW, _GPU = 0, 1, 2


@dataclass(frozen=True, slots=True)
class ShedList:
    """Per circuit, the loads beneath in the order in which they are dropped."""

    queues: Mapping[str, Queue]

    def query(self, circuit: str, watts: float) -> Sequence[str]:
        """Return the shortest head of the circuit's list that frees at least `watts`, or the whole list.

        Raises:
            KeyError: no such circuit.
        """
        return self.queues[circuit].least(watts)

    def freed_watts(self, circuit: str, count: int) -> float:
        """Return the power that the first `count` loads of the circuit's list free."""
        return self.queues[circuit].total(count)

    def total_watts(self, circuit: str) -> float:
        """Return the power that can be freed on the circuit in all."""
        queue = self.queues[circuit]
        return queue.total(len(queue.order))


def shed_list(facility: Facility, snapshot: Snapshot, accounts: Mapping[str, CircuitAccount]) -> ShedList:
    """Return the shed list of every circuit: miners before GPUs, fast before slow, then the least valuable first.

    Only loads that may be commanded and draw above their lowest point are in it. Protection and emergency override
    holds that keep a load on, so those are in it too. On a circuit whose account is over its limit the loads beneath
    are in the same order: the account says how much to ask for.
    """
    groups = index_of(facility).groups
    roster = roster_of(facility)
    standing = Standing(facility, snapshot, silent_after_s(facility))
    market = market_now(facility, snapshot)
    members: list[int] = []
    freed: list[float] = []
    worn: list[int] = []
    entries = snapshot.ledger.entries
    position = -1
    for item in groups:
        if not _sheds(item) or not standing.auto(item.loads[0]):
            position += len(item.loads)
            continue
        for load in item.loads:
            position += 1
            if (
                standing.reading(load) is None
                or standing.barred(load)
                or (snapshot.holds and _held_off(facility, snapshot, load.id))
            ):
                continue
            watts = standing.most_watts(load) - roster.lowest_watts[position]
            if watts > 0.0:
                members.append(position)
                freed.append(watts)
                worn.append(cycles_within_day(entries.get(load.id), snapshot.at))
    who, watts_each = np.array(members, dtype=np.int64), np.array(freed)
    place = rank(_worth(facility, item, market) for item in groups)[roster.group[who]]
    miner = np.array([item.group.kind is LoadKind.MINER for item in groups], dtype=np.bool_)[roster.group[who]]
    # Of miners that earn the same: who frees most, then who is least worn; then by id, whatever the policy's order.
    wear = np.where(miner, np.array(worn, dtype=np.int64), 0)
    order = np.lexsort((roster.by_id[who], wear, np.where(miner, -watts_each, 0.0), place))
    return ShedList(make_queues(roster, who[order], watts_each[order]))


def _sheds(item: GroupIndex) -> bool:
    capability = item.loads[0].capability
    if capability.steering is Steering.MONITOR:
        return False
    return item.group.kind is LoadKind.GPU or capability.interruptible


def _worth(facility: Facility, item: GroupIndex, market: Market) -> tuple[float, ...]:
    if item.group.kind is LoadKind.GPU:
        service = facility.service_by_id.get(item.group.service or "")
        urgency = float(service.priority) if service is not None else 1e9
        return (_GPU, -urgency, service.value_per_mtoken if service is not None else 0.0)
    top = item.group.points[item.hull[-1]]
    speed = _MINER_FAST if item.loads[0].capability.fast else _MINER_SLOW
    return (speed, break_even_per_mwh(market, item.group.points[0], top))


def _held_off(facility: Facility, snapshot: Snapshot, load_id: str) -> bool:
    held = snapshot.held(facility, load_id)
    return held is not None and held.kind is not HoldKind.ON
