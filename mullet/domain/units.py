"""Quantities as people write them ("12 MW", "45 USD/MWh", "5 min") and as the code keeps them (SI, named units)."""

from __future__ import annotations

import math
import re
from enum import StrEnum

WATTS_PER_KW = 1_000.0
WATTS_PER_MW = 1_000_000.0
SECONDS_PER_HOUR = 3_600.0
SECONDS_PER_DAY = 86_400.0
TH_PER_PH = 1_000.0


class Dimension(StrEnum):
    """What a quantity measures; each has one SI unit in which the code keeps it."""

    POWER = "power"
    TIME = "time"
    FRACTION = "fraction"
    HASHRATE = "hashrate"
    TOKEN_RATE = "token rate"
    ENERGY_PRICE = "energy price"
    HASHPRICE = "hashprice"
    TOKEN_PRICE = "token price"
    TEMPERATURE = "temperature"
    FLOW = "flow"
    RAMP = "ramp"
    MONEY = "money"


_FACTORS: dict[Dimension, dict[str, float]] = {
    Dimension.POWER: {"W": 1.0, "kW": 1e3, "MW": 1e6, "GW": 1e9},
    Dimension.TIME: {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0},
    Dimension.FRACTION: {"%": 0.01},
    Dimension.HASHRATE: {"GH/s": 1e-3, "TH/s": 1.0, "PH/s": 1e3, "EH/s": 1e6},
    Dimension.TOKEN_RATE: {"tokens/s": 1.0},
    Dimension.TEMPERATURE: {"degC": 1.0, "°C": 1.0},
    Dimension.FLOW: {"L/min": 1.0, "L/s": 60.0, "m3/h": 1000.0 / 60.0},
    Dimension.RAMP: {"%/min": 0.01 / 60.0, "%/s": 0.01},
}

# Units whose first part is a currency code: "<CUR>/MWh" and so on.
_CURRENCY_FACTORS: dict[Dimension, dict[str, float]] = {
    Dimension.ENERGY_PRICE: {"/MWh": 1.0, "/kWh": 1e3},
    Dimension.HASHPRICE: {"/PH/d": 1.0, "/PH/day": 1.0, "/TH/d": 1e3},
    Dimension.TOKEN_PRICE: {"/Mtoken": 1.0, "/ktoken": 1e3},
    Dimension.MONEY: {"": 1.0},
}

_QUANTITY = re.compile(r"\s*([+-]?(?:\d[\d_]*)(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*(\S.*?)?\s*\Z")


class QuantityError(ValueError):
    """A text is not a quantity of the wanted dimension."""


def units_of(dimension: Dimension, currency: str = "USD") -> tuple[str, ...]:
    """Return the unit spellings that `dimension` accepts."""
    if dimension in _FACTORS:
        return tuple(_FACTORS[dimension])
    return tuple(f"{currency}{suffix}" for suffix in _CURRENCY_FACTORS[dimension])


def parse_quantity(text: str, dimension: Dimension, currency: str = "USD") -> float:
    """Return the value of `text` in the SI unit of `dimension`.

    Prices come back per MWh, per PH and day, per million tokens; fractions as 0..1; ramps per second.

    Raises:
        QuantityError: no number, no unit, a unit of another dimension, another currency, or not finite.
    """
    match = _QUANTITY.match(text)
    if match is None:
        raise QuantityError(f"{text!r} is not a number with a unit, such as {_example(dimension, currency)!r}")
    number, unit = float(match[1].replace("_", "")), match[2]
    if not math.isfinite(number):
        raise QuantityError(f"{text!r} is not finite")
    if unit is None:
        raise QuantityError(f"{text!r} has no unit; write it as {_example(dimension, currency)!r}")
    if dimension in _FACTORS:
        factor = _FACTORS[dimension].get(unit)
    else:
        factor = _CURRENCY_FACTORS[dimension].get(unit.removeprefix(currency)) if unit.startswith(currency) else None
    if factor is None:
        known = ", ".join(units_of(dimension, currency))
        raise QuantityError(f"{unit!r} is no unit of {dimension.value}; use one of {known}")
    return number * factor


def _example(dimension: Dimension, currency: str) -> str:
    return f"12 {units_of(dimension, currency)[-1]}"


def format_watts(watts: float) -> str:
    """Return `watts` as people read it: "3.28 kW", "12.4 MW"."""
    magnitude = abs(watts)
    if magnitude >= WATTS_PER_MW:
        return f"{watts / WATTS_PER_MW:.3g} MW" if magnitude < 1e9 else f"{watts / WATTS_PER_MW:.0f} MW"
    if magnitude >= WATTS_PER_KW:
        return f"{watts / WATTS_PER_KW:.4g} kW"
    return f"{watts:.0f} W"
