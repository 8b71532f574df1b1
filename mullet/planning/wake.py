"""What to wake, in which order, to use any power on any circuit: the shed list's counterpart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mullet.domain.facility import Facility
from mullet.domain.load import Load, LoadKind, Steering
from mullet.domain.snapshot import Snapshot
from mullet.planning.accounting import Standing, silent_after_s
from mullet.planning.index import GroupIndex, index_of
from mullet.planning.merit import break_even_per_mwh, market_now
from mullet.planning.positions import cycles_within_day, hull_level
from mullet.planning.queues import Queue, make_queues, rank, roster_of
from mullet.planning.thermal import why_not_wake


@dataclass(frozen=True, slots=True)
class WakeList:
    """Per circuit, the miners beneath that may be woken, the best earning first."""

    queues: Mapping[str, Queue]

    def query(self, circuit: str, watts: float) -> Sequence[str]:
        """Return the longest head of the circuit's list that uses no more than `watts` there.

        Raises:
            KeyError: no such circuit.
        """
        return self.queues[circuit].most(watts)

    def used_watts(self, circuit: str, count: int) -> float:
        """Return the power that the first `count` loads of the circuit's list may use."""
        return self.queues[circuit].total(count)

    def total_watts(self, circuit: str) -> float:
        """Return the power that can be put to use on the circuit in all."""
        queue = self.queues[circuit]
        return queue.total(len(queue.order))


def wake_list(facility: Facility, snapshot: Snapshot) -> WakeList:
    """Return the wake list of every circuit: who earns most per watt first, of equals the least worn.

    In it are miners that sleep, may be commanded and are not held, have slept their least time off, are not in
    back-off and have a stop left today: what could not be stopped again is not started. A load counts at the most it
    may draw at its best point. Whether waking pays, and whether other circuits have room, is the asker's to see.
    """
    groups = index_of(facility).groups
    roster = roster_of(facility)
    standing = Standing(facility, snapshot, silent_after_s(facility))
    market = market_now(facility, snapshot)
    members: list[int] = []
    watts: list[float] = []
    cycles: list[int] = []
    changed: list[float] = []
    entries = snapshot.ledger.entries
    position = -1
    for item in groups:
        wakes = _wakes(item) and snapshot.records_ok
        top = item.group.points[item.hull[-1]]
        for load in item.loads:
            position += 1
            if not wakes or not _may_wake(facility, snapshot, standing, item, load):
                continue
            more = load.most_at(top) - standing.most_watts(load)
            if more > 0.0:
                entry = entries.get(load.id)
                members.append(position)
                watts.append(more)
                cycles.append(cycles_within_day(entry, snapshot.at))
                changed.append((entry.turned_at or 0.0) if entry is not None else 0.0)
    who, each = np.array(members, dtype=np.int64), np.array(watts)
    earned = [(-break_even_per_mwh(market, item.group.points[0], item.group.points[item.hull[-1]]),) for item in groups]
    place = rank(earned)[roster.group[who]]
    order = np.lexsort((roster.by_id[who], np.array(changed), np.array(cycles), place))
    return WakeList(make_queues(roster, who[order], each[order]))


def _wakes(item: GroupIndex) -> bool:
    capability = item.loads[0].capability
    steerable = capability.steering is not Steering.MONITOR and capability.interruptible
    return item.group.kind is LoadKind.MINER and steerable and len(item.hull) > 1


def _may_wake(facility: Facility, snapshot: Snapshot, standing: Standing, item: GroupIndex, load: Load) -> bool:
    reading = standing.reading(load)
    if reading is None or not standing.ours(load):
        return False
    if facility.gates and why_not_wake(facility, snapshot, load) is not None:
        return False
    entry = snapshot.ledger.entries.get(load.id)
    if hull_level(item, entry, reading) > 0:
        return False
    if entry is None:
        return True
    if entry.pending or entry.blocked_until > snapshot.at:
        return False
    least_s = max(facility.pacing.min_off_s, load.capability.min_dwell_s)
    if entry.turned_at is not None and snapshot.at - entry.turned_at < least_s:
        return False
    return cycles_within_day(entry, snapshot.at) < facility.pacing.max_cycles_per_day
