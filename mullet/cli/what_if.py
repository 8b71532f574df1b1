"""`mullet plan --set`: what may be set, and how it changes the facility and the request of a plan."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mullet.domain.facility import Facility
from mullet.domain.feeds import PriceCurve, PriceInterval
from mullet.domain.plan import PlanRequest
from mullet.domain.units import Dimension, QuantityError, parse_quantity

_NEAR = 4
_BARE = {
    Dimension.ENERGY_PRICE: "{currency}/MWh",
    Dimension.HASHPRICE: "{currency}/PH/d",
    Dimension.TOKEN_PRICE: "{currency}/Mtoken",
}
"""Units that a bare number is taken to be in; powers and times are always written with theirs."""


class SettingError(ValueError):
    """A `--set` names nothing that may be set, or its value cannot be."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that may be set."""

    key: str
    takes: str
    """An example of its value."""
    help: str
    read: Callable[[str], float]
    """Raises QuantityError."""
    on_facility: Callable[[Facility, float], Facility] | None = None
    on_request: Callable[[PlanRequest, float], PlanRequest] | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A setting with the value that it is given."""

    setting: Setting
    text: str
    value: float


def settings_of(facility: Facility) -> tuple[Setting, ...]:
    """Return everything that may be set for the facility, circuits and services and banks by their ids."""
    found = [*_prices(facility), *_economics(facility), *_pacing(facility)]
    for circuit in facility.circuits:
        found += _circuit(facility, circuit.id)
    for service in facility.services:
        found += _service(facility, service.id)
    found += [_bank(bank, tuple(load.id for load in loads)) for bank, loads in facility.banks.items()]
    return tuple(found)


def read_changes(facility: Facility, texts: Sequence[str]) -> tuple[Change, ...]:
    """Return what texts such as "circuits.poi.limit=18MW" ask for.

    Raises:
        SettingError: no such setting (the message names the nearest), a setting twice, or a value that cannot be.
    """
    known = {setting.key: setting for setting in settings_of(facility)}
    found: dict[str, Change] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise SettingError(f"--set {text!r}: write it as NAME=VALUE, such as prices.adder=5")
        setting = known.get(key)
        if setting is None:
            raise SettingError(f"--set {key}: nothing is called that; {_nearest(key, known)}")
        if key in found:
            raise SettingError(f"--set {key}: given twice")
        try:
            found[key] = Change(setting, value, setting.read(value))
        except QuantityError as error:
            raise SettingError(f"--set {key}={value}: {error}") from None
    return tuple(found.values())


def _nearest(key: str, known: Mapping[str, Setting]) -> str:
    near = difflib.get_close_matches(key, known, n=_NEAR, cutoff=0.5)
    if not near:
        tail = key.rpartition(".")[2]
        near = [name for name in known if name.rpartition(".")[2] == tail][:_NEAR]
    return f"near: {', '.join(near)}" if near else "`--set help` lists all"


def changed_facility(facility: Facility, changes: Sequence[Change]) -> Facility:
    """Return the facility with what is changed of it."""
    for change in changes:
        if change.setting.on_facility is not None:
            facility = change.setting.on_facility(facility, change.value)
    return facility


def changed_request(request: PlanRequest, changes: Sequence[Change]) -> PlanRequest:
    """Return the request, already made for the changed facility, with what is changed of forecast and loads."""
    for change in changes:
        if change.setting.on_request is not None:
            request = change.setting.on_request(request, change.value)
    return request


def _quantity(
    dimension: Dimension, facility: Facility, low: float | None = None, high: float | None = None
) -> Callable[[str], float]:
    def read(text: str) -> float:
        currency = facility.currency
        unit = _BARE.get(dimension, "").format(currency=currency)
        value = parse_quantity(f"{text} {unit}" if unit and _is_number(text) else text, dimension, currency)
        return _within(text, value, low, high)

    return read


def _number(low: float | None = None) -> Callable[[str], float]:
    def read(text: str) -> float:
        if _is_number(text):
            return _within(text, float(text), low, None)
        try:
            return _within(text, parse_quantity(text, Dimension.FRACTION), low, None)
        except QuantityError:
            raise QuantityError(f"{text!r} is no number; write it as 1.2 or 120 %") from None

    return read


def _whole(most: int) -> Callable[[str], float]:
    def read(text: str) -> float:
        if not text.isdecimal():
            raise QuantityError(f"{text!r} is no whole number")
        return _within(text, float(text), 0.0, float(most))

    return read


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _within(text: str, value: float, low: float | None, high: float | None) -> float:
    if low is not None and value < low:
        raise QuantityError(f"{text} is too low; the least is {low:g}")
    if high is not None and value > high:
        raise QuantityError(f"{text} is too high; the most is {high:g}")
    return value


def _on_prices(change: Callable[[float, float], float]) -> Callable[[PlanRequest, float], PlanRequest]:
    def apply(request: PlanRequest, value: float) -> PlanRequest:
        curve = request.forecast.prices
        moved = tuple(PriceInterval(i.start, i.end, change(i.price_per_mwh, value)) for i in curve.intervals)
        return replace(request, forecast=replace(request.forecast, prices=PriceCurve(moved)))

    return apply


def _prices(facility: Facility) -> list[Setting]:
    price = _quantity(Dimension.ENERGY_PRICE, facility)
    adder, shift, scale = "what a MWh costs on top of its price", "added to every price", "times every price"
    return [
        Setting("prices.adder", "5", adder, price, on_facility=_set("economics", "energy_adder_per_mwh")),
        Setting("prices.shift", "-10", shift, price, on_request=_on_prices(lambda old, value: old + value)),
        Setting("prices.scale", "1.2", scale, _number(0.0), on_request=_on_prices(lambda old, value: old * value)),
    ]


def _set(part: str, name: str, item: str | None = None) -> Callable[[Facility, float], Facility]:
    """Return a change of one field of a part of the facility, or of the one of its items whose id is `item`."""

    def apply(facility: Facility, value: float) -> Facility:
        changed: dict[str, Any] = {name: value}
        held = getattr(facility, part)
        if item is None:
            changed = {part: replace(held, **changed)}
        else:
            changed = {part: tuple(replace(one, **changed) if one.id == item else one for one in held)}
        return replace(facility, **changed)

    return apply


def _economics(facility: Facility) -> list[Setting]:
    price = _quantity(Dimension.ENERGY_PRICE, facility, low=0.0)
    hashprice = _quantity(Dimension.HASHPRICE, facility, low=0.0)
    fee = _quantity(Dimension.FRACTION, facility, 0.0, 1.0)
    on_economics = _set("economics", "hashprice_per_ph_day")

    def on_forecast(request: PlanRequest, value: float) -> PlanRequest:
        return replace(request, forecast=replace(request.forecast, hashprice_per_ph_day=value))

    earned, band = "what a PH/s earns a day", "what a change must earn more than staying"
    return [
        Setting("hashprice", "45", earned, hashprice, on_economics, on_forecast),
        Setting("economics.hashprice", "45", earned, hashprice, on_economics, on_forecast),
        Setting("economics.pool_fee", "2%", "the pool's share", fee, _set("economics", "pool_fee")),
        Setting("economics.deadband", "5", band, price, _set("economics", "deadband_per_mwh")),
    ]


def _pacing(facility: Facility) -> list[Setting]:
    time = _quantity(Dimension.TIME, facility, low=0.0)
    ramp = _quantity(Dimension.RAMP, facility, low=0.0)
    moves = "how fast mining moves for money"
    return [
        Setting("pacing.ramp", "10%/min", moves, ramp, _set("pacing", "economic_ramp_per_s")),
        Setting("pacing.min_on", "30min", "least time that a miner stays on", time, _set("pacing", "min_on_s")),
        Setting("pacing.min_off", "10min", "least time that a miner stays off", time, _set("pacing", "min_off_s")),
    ]


def _circuit(facility: Facility, circuit: str) -> list[Setting]:
    watts = _quantity(Dimension.POWER, facility, low=0.0)
    limit, unmanaged = "the most that may be drawn", "the most that unmanaged load draws"
    on_unmanaged = _set("circuits", "unmanaged_max_watts", circuit)
    return [
        Setting(f"circuits.{circuit}.limit", "18MW", limit, watts, _set("circuits", "usable_watts", circuit)),
        Setting(f"circuits.{circuit}.unmanaged", "150kW", unmanaged, watts, on_unmanaged),
    ]


def _service(facility: Facility, service: str) -> list[Setting]:
    watts = _quantity(Dimension.POWER, facility, low=0.0)
    value = _quantity(Dimension.TOKEN_PRICE, facility, low=0.0)
    share = _quantity(Dimension.FRACTION, facility, 0.0, 1.0)

    def need(request: PlanRequest, watts: float) -> PlanRequest:
        needs = {**request.forecast.needs_watts, service: watts}
        return replace(request, forecast=replace(request.forecast, needs_watts=needs))

    earned, flex, reserve = (
        "what a million tokens earn",
        "share of throughput that may be given up",
        "power kept free for a step of demand",
    )
    return [
        Setting(f"services.{service}.need", "80kW", "GPU power that demand needs", watts, on_request=need),
        Setting(f"services.{service}.value", "2", earned, value, _set("services", "value_per_mtoken", service)),
        Setting(f"services.{service}.flex", "10%", flex, share, _set("services", "flex", service)),
        Setting(f"services.{service}.reserve", "4kW", reserve, watts, _set("services", "reserve_watts", service)),
    ]


def _bank(bank: str, ids: tuple[str, ...]) -> Setting:
    def at_hand(request: PlanRequest, count: float) -> PlanRequest:
        return replace(request, available=request.available - frozenset(ids[int(count) :]))

    what = "how many of the bank's loads are at hand"
    return Setting(f"banks.{bank}.available", str(len(ids)), what, _whole(len(ids)), on_request=at_hand)
