"""Power for mining: what inference leaves, to the loads that earn most per watt, with as few changes as possible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mullet.domain.facility import Facility
from mullet.domain.feeds import Cause
from mullet.domain.load import Load, LoadKind, OperatingPoint
from mullet.domain.plan import PlanInterval, Setpoint
from mullet.domain.snapshot import Snapshot
from mullet.domain.units import format_watts
from mullet.planning.accounting import CircuitAccount
from mullet.planning.banks import Banks, banks_of
from mullet.planning.capacity import Capacity
from mullet.planning.inference import Served
from mullet.planning.knapsack import fill
from mullet.planning.merit import Market, Step, break_even_per_mwh, mining_steps
from mullet.planning.positions import Members, cycles_within_day, hull_level


@dataclass(slots=True)
class _Bank:
    """A mining group while it is given power."""

    here: Members
    levels: dict[str, int]
    """Position on the hull at which each movable load stands."""
    at_least: list[int]
    """Per hull position: loads that stand there or above."""
    wanted: list[int] = field(default_factory=list)
    """Per hull position: loads that shall stand there or above, circuits aside."""
    given: list[int] = field(default_factory=list)
    bound: dict[int, str] = field(default_factory=dict)
    """Per hull position: circuit that kept loads below it."""
    planned: bool = False


def mine(
    facility: Facility,
    snapshot: Snapshot,
    accounts: Mapping[str, CircuitAccount],
    members: list[Members],
    capacity: Capacity,
    served: Served,
    market: Market,
    interval: PlanInterval | None,
) -> dict[str, Setpoint]:
    """Return a setpoint for every movable miner, taking what it gives from `capacity`."""
    banks: dict[int, _Bank] = {}
    for here in members:
        if here.item.group.kind is LoadKind.MINER and here.movable:
            banks[here.item.number] = _bank(here, snapshot)
    steps = mining_steps(tuple(bank.here.item for bank in banks.values()), market)
    spare = 0.0
    for step in steps:
        spare += _want(banks[step.group.number], step, market, interval)
    if spare > 0.0:
        _substitute(banks, steps, market, spare)
    _fill(facility, banks, steps, market, capacity)
    setpoints: dict[str, Setpoint] = {}
    for bank in banks.values():
        _place(bank, facility, snapshot, accounts, served, market, interval, setpoints)
    return setpoints


def _bank(here: Members, snapshot: Snapshot) -> _Bank:
    entries, telemetry, item = snapshot.ledger.entries, snapshot.telemetry, here.item
    levels = {load.id: hull_level(item, entries.get(load.id), telemetry.get(load.id)) for load in here.movable}
    full = len(here.movable)
    tally = [0] * (len(item.hull) + 1)
    for level in levels.values():
        tally[level] += 1
    at_least = [full] * len(item.hull)
    for k in range(1, len(item.hull)):
        at_least[k] = at_least[k - 1] - tally[k - 1]
    return _Bank(here, levels, at_least, [full] + [0] * (len(item.hull) - 1), [full] + [0] * (len(item.hull) - 1))


def _want(bank: _Bank, step: Step, market: Market, interval: PlanInterval | None) -> float:
    """Set how many loads shall take the step; return the watts that the plan wants but no load can take."""
    counts = interval.counts.get(step.group.group.key) if interval is not None else None
    full, k = len(bank.here.movable), step.level
    if counts is not None and len(counts) == len(step.group.group.points):
        bank.planned = True
        planned = sum(counts[step.group.hull[k] :])
        bank.wanted[k] = min(full, planned, bank.wanted[k - 1])
        return max(0, planned - bank.wanted[k]) * step.most_watts
    band = market.deadband_per_mwh / 2.0
    if market.cost_per_mwh < step.break_even_per_mwh - band:
        count = full
    elif market.cost_per_mwh <= step.break_even_per_mwh + band:
        count = bank.at_least[k]
    else:
        count = 0
    bank.wanted[k] = min(count, bank.wanted[k - 1])
    return 0.0


def _substitute(banks: dict[int, _Bank], steps: list[Step], market: Market, spare_watts: float) -> None:
    """Let the next profitable loads take what planned loads that cannot be moved leave."""
    for step in steps:
        if step.break_even_per_mwh <= market.cost_per_mwh or step.most_watts <= 0.0:
            continue
        bank, k = banks[step.group.number], step.level
        more = min(bank.wanted[k - 1] - bank.wanted[k], int(spare_watts / step.most_watts + 1e-9))
        if more > 0:
            bank.wanted[k] += more
            spare_watts -= more * step.most_watts


def _fill(facility: Facility, banks: dict[int, _Bank], steps: list[Step], market: Market, capacity: Capacity) -> None:
    """Give power to what is wanted, the best first; a load that runs is worth the deadband more than one that rests."""
    found = banks_of(facility, market)
    if found is not None:
        _fill_in_bulk(found, banks, capacity)
    # What did not fit whole is tried once more, step by step, in what is left; the circuit that refuses is named.
    portions: list[tuple[float, int, Step, bool]] = []
    for order, step in enumerate(steps):
        bank, k = banks[step.group.number], step.level
        if bank.given[k] < bank.wanted[k]:
            portions.append((-(step.break_even_per_mwh + market.deadband_per_mwh), order, step, True))
            portions.append((-step.break_even_per_mwh, order, step, False))
    portions.sort(key=lambda portion: (portion[0], portion[1], not portion[3]))
    for _, _, step, running in portions:
        bank, k = banks[step.group.number], step.level
        most = min(bank.wanted[k], bank.at_least[k]) if running else bank.wanted[k]
        count = min(most - bank.given[k], bank.given[k - 1] - bank.given[k])
        if count <= 0:
            continue
        given, binding = capacity.give(bank.here.item, step.most_watts, count)
        bank.given[k] += given
        if given < count:
            bank.bound.setdefault(k, binding)


def _fill_in_bulk(found: Banks, banks: dict[int, _Bank], capacity: Capacity) -> None:
    rows = len(found.row)
    running, wanted = np.zeros((rows, found.width), dtype=np.int64), np.zeros((rows, found.width), dtype=np.int64)
    for number, bank in banks.items():
        row, size = found.row[number], len(bank.wanted)
        running[row, :size], wanted[row, :size] = bank.at_least, bank.wanted
    room = np.empty(len(found.nodes))
    for node, index in found.nodes.items():
        room[index] = capacity.left[node]
    given = fill(found.program, running, wanted, room)
    for number, bank in banks.items():
        item = bank.here.item
        bank.given = given[found.row[number], : len(bank.wanted)].tolist()
        most = item.most_watts
        watts = sum(bank.given[k] * (most[item.hull[k]] - most[item.hull[k - 1]]) for k in range(1, len(item.hull)))
        if watts:
            capacity.take(item, watts)


def _place(
    bank: _Bank,
    facility: Facility,
    snapshot: Snapshot,
    accounts: Mapping[str, CircuitAccount],
    served: Served,
    market: Market,
    interval: PlanInterval | None,
    setpoints: dict[str, Setpoint],
) -> None:
    item, entries = bank.here.item, snapshot.ledger.entries
    points = item.group.points

    def rank(load: Load) -> tuple[int, int, float, str]:
        level = bank.levels[load.id]
        entry = entries.get(load.id)
        changed = (entry.turned_at or 0.0) if entry is not None else 0.0
        cycles = cycles_within_day(entry, snapshot.at)
        # Of those that run, the worn and the lately started stay; of those that rest, the spared start.
        return (-level, -cycles, -changed, load.id) if level else (0, cycles, changed, load.id)

    over = next((n for n in item.path if accounts[n].sum_watts > accounts[n].target_limit_watts + 1e-6), None)
    levels, given, wanted = bank.levels, bank.given, bank.wanted
    here, full = bank.here.movable, len(bank.here.movable)
    # Where all go to the same point for the same reason, none has to be chosen.
    alike = all(count in (0, full) for count in given) and all(count in (0, full) for count in wanted)
    words: dict[tuple[int, bool], tuple[OperatingPoint, Cause, str, str | None]] = {}
    relief: tuple[Cause, str] | None = None
    level, held_back = _level(given, wanted, 0)
    for position, load in enumerate(here if alike else sorted(here, key=rank)):
        if not alike:
            level, held_back = _level(given, wanted, position)
        key = (level, held_back)
        if key not in words:
            said = _words(bank, level, held_back, facility, accounts, served, market, interval)
            words[key] = (points[item.hull[level]], *said)
        point, cause, rule, binding = words[key]
        if over is not None and not held_back and level < levels[load.id]:
            # Whatever else speaks for it: this fall relieves a circuit, so no dwell or ramp may hold it back.
            relief = relief or _limit_words(over, facility, accounts, served)
            cause, rule, binding = relief[0], f"{rule.partition(':')[0]}: {relief[1]}", over
        setpoints[load.id] = Setpoint(load.id, point.name, point.watts, cause, rule, binding)


def _level(given: list[int], wanted: list[int], position: int) -> tuple[int, bool]:
    """Return the hull position of the load at `position`, and whether a circuit keeps it from a higher one."""
    level = 0
    while level + 1 < len(given) and given[level + 1] > position:
        level += 1
    return level, level + 1 < len(given) and wanted[level + 1] > position


def _words(
    bank: _Bank,
    level: int,
    held_back: bool,
    facility: Facility,
    accounts: Mapping[str, CircuitAccount],
    served: Served,
    market: Market,
    interval: PlanInterval | None,
) -> tuple[Cause, str, str | None]:
    item = bank.here.item
    points = [item.group.points[k] for k in item.hull]
    where = "off" if level == 0 else ("on" if len(points) == 2 else points[level].name)
    if held_back:
        binding = next((bank.bound[k] for k in range(level + 1, 0, -1) if k in bank.bound), item.path[0])
        cause, why = _limit_words(binding, facility, accounts, served)
        return cause, f"{where}: {why}", binding
    price = f"price {market.price_per_mwh:.1f} + adder {market.adder_per_mwh:.1f}"
    if not market.known:
        price = f"fallback {price}"
    if level == len(points) - 1:
        if level == 0:
            return Cause.ECONOMIC, f"{where}: no point earns more", None
        margin = break_even_per_mwh(market, points[0], points[level]) - market.cost_per_mwh
        return Cause.ECONOMIC, f"{where}: margin {margin:.1f} {facility.currency}/MWh", None
    worth = break_even_per_mwh(market, points[level], points[level + 1])
    unit = f"{facility.currency}/MWh"
    if market.cost_per_mwh > worth:
        return Cause.ECONOMIC, f"{where}: {price} above break-even {worth:.1f} {unit}", None
    if bank.planned and interval is not None:
        running = bank.wanted[level + 1]
        above = " or above" if level + 2 < len(points) else ""
        why = f"plan has {running} of {len(bank.here.movable)} at {points[level + 1].name}{above}"
        return Cause.ECONOMIC, f"{where}: {why}, {price} under break-even {worth:.1f} {unit}", None
    why = f"{price} within the deadband of break-even {worth:.1f} {unit}"
    return Cause.ECONOMIC, f"{where}: {why}", None


def _limit_words(
    node: str, facility: Facility, accounts: Mapping[str, CircuitAccount], served: Served
) -> tuple[Cause, str]:
    account = accounts[node]
    limit = format_watts(account.target_limit_watts)
    if account.sum_watts > facility.circuit_by_id[node].usable_watts + 1e-6:
        return Cause.PROTECTION, f"{node} may draw {format_watts(account.sum_watts)} of {limit}"
    inference = served.granted_watts[node]
    if account.cause is not None:
        return account.cause, f"{node} is held to {limit} ({account.cause.value})"
    if served.risen_watts[node] > 0.0 or served.kept_watts[node] > 0.0:
        return Cause.AI_PREEMPTION, f"{node} has {limit}, inference needs {format_watts(inference)}"
    if inference > 0.0:
        return Cause.PROTECTION, f"{node} has {limit}, inference holds {format_watts(inference)}"
    return Cause.PROTECTION, f"{node} has {limit}, all of it is given"
