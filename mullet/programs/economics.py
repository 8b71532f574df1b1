"""What hashing earns per MWh, per operating point and bank: the energy price at which it stops paying.

Break-even [currency/MWh] = hashprice [currency/PH/day] x (1 - pool fee) x TH/s / 1000 / 24 / MW.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mullet.domain.facility import Economics, Facility
from mullet.domain.load import Load, LoadKind, OperatingPoint
from mullet.domain.units import TH_PER_PH, WATTS_PER_MW

_HOURS_PER_DAY = 24.0


@dataclass(frozen=True, slots=True)
class PointEconomics:
    """One operating point of a miner against the market, all in currency per MWh of all-in energy."""

    point: str
    break_even_per_mwh: float
    """Price at which standing here, rather than at the lowest point, earns nothing."""
    step_break_even_per_mwh: float
    """Price at which the step from the point below earns nothing."""


def break_even_per_mwh(hashprice_per_ph_day: float, pool_fee: float, th_per_s: float, watts: float) -> float:
    """Return the all-in energy price at which `th_per_s` for `watts` earns nothing; 0 where no watts are drawn."""
    if watts <= 0.0:
        return 0.0
    earned_per_hour = hashprice_per_ph_day * (1.0 - pool_fee) * th_per_s / TH_PER_PH / _HOURS_PER_DAY
    return earned_per_hour / (watts / WATTS_PER_MW)


def point_economics(
    load: Load, economics: Economics, hashprice_per_ph_day: float | None = None
) -> tuple[PointEconomics, ...]:
    """Return the economics of every point of a miner above its lowest."""
    hashprice = economics.hashprice_per_ph_day if hashprice_per_ph_day is None else hashprice_per_ph_day

    def between(lower: OperatingPoint, upper: OperatingPoint) -> float:
        return break_even_per_mwh(
            hashprice, economics.pool_fee, upper.th_per_s - lower.th_per_s, upper.watts - lower.watts
        )

    return tuple(
        PointEconomics(point.name, between(load.lowest, point), between(load.points[number], point))
        for number, point in enumerate(load.points[1:])
    )


def load_break_even(load: Load, economics: Economics, hashprice_per_ph_day: float | None = None) -> float:
    """Return the all-in price below which the miner earns something at one point at least; 0 if it never does."""
    found = point_economics(load, economics, hashprice_per_ph_day)
    return max((point.break_even_per_mwh for point in found), default=0.0)


def margin_per_mwh(
    load: Load, economics: Economics, price_per_mwh: float, hashprice_per_ph_day: float | None = None
) -> float:
    """Return what a MWh earns in the miner at its most efficient point, energy at `price_per_mwh` and adder paid."""
    cost = price_per_mwh + economics.energy_adder_per_mwh
    return load_break_even(load, economics, hashprice_per_ph_day) - cost


def bank_break_evens(facility: Facility, hashprice_per_ph_day: float | None = None) -> Mapping[str, float]:
    """Return the break-even of every bank of miners, by bank: that of its best load."""
    return {
        bank: max(load_break_even(load, facility.economics, hashprice_per_ph_day) for load in loads)
        for bank, loads in facility.banks.items()
        if loads[0].kind is LoadKind.MINER
    }
