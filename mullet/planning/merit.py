"""What hashing is worth against what energy costs, and the order in which mining is given power."""

from __future__ import annotations

from dataclasses import dataclass

from mullet.domain.facility import Facility, SafeAction
from mullet.domain.feeds import PriceCurve, Reading
from mullet.domain.load import LoadKind, OperatingPoint
from mullet.domain.snapshot import Snapshot
from mullet.domain.units import TH_PER_PH, WATTS_PER_MW
from mullet.planning.index import GroupIndex

HOURS_PER_DAY = 24.0
PRICE_SOURCE = "price"
PRICE_AGE_S = 600.0


@dataclass(frozen=True, slots=True)
class Market:
    """The numbers that mining is judged by at one instant."""

    price_per_mwh: float
    adder_per_mwh: float
    hashprice_per_ph_day: float
    pool_fee: float
    deadband_per_mwh: float
    known: bool = True
    """Whether the price comes from a curve; if not it is the policy's fallback."""

    @property
    def cost_per_mwh(self) -> float:
        """What a MWh costs in all."""
        return self.price_per_mwh + self.adder_per_mwh

    @property
    def earned_per_th_hour(self) -> float:
        """What one TH/s earns in an hour after the pool's fee."""
        return self.hashprice_per_ph_day * (1.0 - self.pool_fee) / TH_PER_PH / HOURS_PER_DAY


def market_now(facility: Facility, snapshot: Snapshot, planned_price_per_mwh: float | None = None) -> Market:
    """Return the market at the snapshot's instant.

    The price is the plan's where one is given, else the curve's, else the policy's fallback; never 0 for unknown.
    """
    economics = facility.economics
    price = planned_price_per_mwh
    if price is None and snapshot.prices is not None:
        price = _price_now(facility, snapshot.prices, snapshot.at)
    known = price is not None
    hashprice = snapshot.hashprice.value if snapshot.hashprice is not None else economics.hashprice_per_ph_day
    return Market(
        price_per_mwh=economics.fallback_price_per_mwh if price is None else price,
        adder_per_mwh=economics.energy_adder_per_mwh,
        hashprice_per_ph_day=hashprice,
        pool_fee=economics.pool_fee,
        deadband_per_mwh=economics.deadband_per_mwh,
        known=known,
    )


def _price_now(facility: Facility, reading: Reading[PriceCurve], at: float) -> float | None:
    """Return the curve's price, or its last one while the feed is still fresh."""
    price = reading.value.at(at)
    fresh = reading.age_s(at) <= facility.safety_age_s(PRICE_SOURCE, SafeAction.LADDER, PRICE_AGE_S)
    if price is None and fresh and reading.value.intervals:
        last = max(reading.value.intervals, key=lambda interval: interval.end)
        return last.price_per_mwh if last.end <= at else None
    return price


def break_even_per_mwh(market: Market, lower: OperatingPoint, upper: OperatingPoint) -> float:
    """Return the all-in energy price at which going from `lower` to `upper` earns nothing."""
    watts = upper.watts - lower.watts
    if watts <= 0.0:
        return 0.0
    return market.earned_per_th_hour * (upper.th_per_s - lower.th_per_s) / watts * WATTS_PER_MW


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a mining group up its hull: from the hull point before to this one."""

    group: GroupIndex
    level: int
    """Position on the hull, 1 or higher."""
    most_watts: float
    """What the step adds to the most that one load may draw."""
    break_even_per_mwh: float


def mining_steps(groups: tuple[GroupIndex, ...], market: Market) -> list[Step]:
    """Return all steps of all mining groups, best first; ties by the groups' first id."""
    steps = []
    for item in groups:
        if item.group.kind is not LoadKind.MINER:
            continue
        for level in range(1, len(item.hull)):
            low, high = item.hull[level - 1], item.hull[level]
            worth = break_even_per_mwh(market, item.group.points[low], item.group.points[high])
            steps.append(Step(item, level, item.most_watts[high] - item.most_watts[low], worth))
    steps.sort(key=lambda step: (-step.break_even_per_mwh, step.group.first_id, step.level))
    return steps
