"""Pydantic types for what a policy file holds: quantities with units, ids, ranges of addresses."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from mullet.domain.units import Dimension, QuantityError, parse_quantity, units_of

_MOST_ADDRESSES = 65_536


def refused(message: str, suggestion: str = "") -> PydanticCustomError:
    """Return an error whose message and suggestion reach the reader unchanged."""
    return PydanticCustomError("policy", "{message}", {"message": message, "suggestion": suggestion})


def default(text: str) -> Any:
    """Return a field whose default is written as it would be in the file ("60 s")."""
    return Field(default=text, validate_default=True)


def currency_of(info: ValidationInfo) -> str:
    """Return the facility's currency, handed in as validation context."""
    return str((info.context or {}).get("currency", "USD"))


_EXAMPLES = {
    Dimension.POWER: "12 kW",
    Dimension.TIME: "30 s",
    Dimension.FRACTION: "5 %",
    Dimension.HASHRATE: "126 TH/s",
    Dimension.TOKEN_RATE: "2500 tokens/s",
    Dimension.ENERGY_PRICE: "45 {currency}/MWh",
    Dimension.HASHPRICE: "50 {currency}/PH/d",
    Dimension.TOKEN_PRICE: "2 {currency}/Mtoken",
    Dimension.TEMPERATURE: "20 degC",
    Dimension.FLOW: "40 L/min",
    Dimension.RAMP: "10 %/min",
    Dimension.MONEY: "100 {currency}",
}


@dataclass(frozen=True)
class Quantity:
    """A number with a unit of `dimension`, within [low, high] (`above`: must exceed it), kept in its SI unit."""

    dimension: Dimension
    low: float | None = None
    high: float | None = None
    above: float | None = None

    def parse(self, value: Any, info: ValidationInfo) -> float:
        """Return the SI value of a text with a unit."""
        currency = currency_of(info)
        example = _EXAMPLES[self.dimension].format(currency=currency)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise refused(f"must be a {self.dimension.value} with a unit", f"such as {example!r}")
        text = str(value).replace("{currency}", currency)
        try:
            number = parse_quantity(text, self.dimension, currency)
        except QuantityError as error:
            message, _, suggestion = str(error).partition("; ")
            if not suggestion.startswith("use one of"):
                message, suggestion = message.partition(", such as")[0], f"write it with its unit, such as {example!r}"
            raise refused(message, suggestion) from None
        if self.low is not None and number < self.low:
            raise refused(f"{text} is too low", f"the least is {self.low:g}")
        if self.above is not None and number <= self.above:
            raise refused(f"{text} is too low", f"it must be above {self.above:g}")
        if self.high is not None and number > self.high:
            limit = f"{self.high * 100:g} %" if self.dimension is Dimension.FRACTION else f"{self.high:g}"
            raise refused(f"{text} is too high", f"the most is {limit}")
        return number

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self.parse)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        units = ", ".join(units_of(self.dimension, "<currency>"))
        return {"type": "string", "description": f"{self.dimension.value} with its unit: one of {units}"}


@dataclass(frozen=True)
class PowerRange:
    """Two powers as "200 W - 700 W", kept as (low, high) in watts."""

    def parse(self, value: Any, info: ValidationInfo) -> tuple[float, float]:
        """Return (low, high) in watts."""
        parts = re.split(r"\s+(?:-|to)\s+", value.strip()) if isinstance(value, str) else []
        if len(parts) != 2:
            raise refused("must be a range of power", "write it as '200 W - 700 W'")
        power = Quantity(Dimension.POWER, low=0.0)
        low, high = (power.parse(part, info) for part in parts)
        if low >= high:
            raise refused(f"{value}: the lower end is not below the upper end")
        return low, high

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self.parse)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "description": "a range of power, such as '200 W - 700 W'"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a load answers, and who must answer there (None while not pinned)."""

    address: str
    identity: str | None = None


@dataclass(frozen=True)
class AddressList:
    """Addresses in any of the spellings of docs/policy.md, kept as a tuple of `Address`."""

    def parse(self, value: Any, info: ValidationInfo) -> tuple[Address, ...]:
        """Return the addresses in order."""
        if isinstance(value, str):
            found = [Address(text) for part in value.split(",") for text in expand_range(part)]
        elif isinstance(value, list):
            found = [item for entry in value for item in self._entry(entry)]
        elif isinstance(value, dict):
            found = self._counted(value)
        else:
            raise refused("must be a range, a list or a count", "write it as '10.0.1.1-48'")
        if not found:
            raise refused("holds no address")
        if len(found) > _MOST_ADDRESSES:
            raise refused(f"holds {len(found)} addresses; the most is {_MOST_ADDRESSES}")
        seen: set[str] = set()
        for item in found:
            if item.address in seen:
                raise refused(f"{item.address} is given twice")
            seen.add(item.address)
        return tuple(found)

    def _entry(self, entry: Any) -> list[Address]:
        if isinstance(entry, str):
            return [Address(text) for text in expand_range(entry)]
        if isinstance(entry, int) and not isinstance(entry, bool) and entry >= 0:
            return [Address(str(entry))]
        if isinstance(entry, dict):
            extra = sorted(set(entry) - {"address", "identity"})
            if extra:
                raise refused(f"unknown key {extra[0]!r} in an address", "known: address, identity")
            address, identity = entry.get("address"), entry.get("identity")
            if isinstance(address, int | str) and not isinstance(address, bool) and str(address).strip():
                if identity is not None and not (isinstance(identity, str) and identity.strip()):
                    raise refused(f"identity of {address} must be a text", "quote the MAC, serial or UUID")
                return [Address(str(address), identity)]
        raise refused(f"{entry!r} is no address", 'write {address: 10.0.1.7, identity: "AA:BB:..."}')

    def _counted(self, value: dict[str, Any]) -> list[Address]:
        extra = sorted(set(value) - {"count", "first"})
        if extra:
            raise refused(f"unknown key {extra[0]!r}", "known: count, first")
        count, first = value.get("count"), value.get("first", 0)
        for name, number, least in (("count", count, 1), ("first", first, 0)):
            if not isinstance(number, int) or isinstance(number, bool) or number < least:
                raise refused(f"{name} must be a whole number of {least} or more")
        assert isinstance(count, int)
        if count > _MOST_ADDRESSES:
            raise refused(f"holds {count} addresses; the most is {_MOST_ADDRESSES}")
        return [Address(str(first + index)) for index in range(count)]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self.parse)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        one = {"type": "object", "properties": {"address": {}, "identity": {"type": "string"}}, "required": ["address"]}
        counted = {
            "type": "object",
            "properties": {"count": {"type": "integer"}, "first": {"type": "integer", "default": 0}},
            "required": ["count"],
        }
        ranged = {"type": "string", "description": "addresses and ranges, such as '10.0.1.1-48, 10.0.2.7'"}
        listed = {"type": "array", "items": {"anyOf": [ranged, {"type": "integer"}, one]}}
        return {"anyOf": [ranged, listed, counted]}


def expand_range(text: str) -> list[str]:
    """Return the addresses of "10.0.1.7", "10.0.1.1-48" or "10.0.1.1-10.0.2.48".

    Raises:
        PydanticCustomError: not an IPv4 address or an ascending range.
    """
    text = text.strip()
    if "/" in text:
        raise refused(f"{text!r} is a network, not a range", "write the first and last address, such as '10.0.1.1-48'")
    first_text, dash, last_text = (part.strip() for part in text.partition("-"))
    try:
        first = ipaddress.IPv4Address(first_text)
        if dash and "." not in last_text:
            last_text = f"{first_text.rpartition('.')[0]}.{last_text}"
        last = ipaddress.IPv4Address(last_text) if dash else first
    except ValueError:
        raise refused(f"{text!r} is no address", "write it as '10.0.1.7' or '10.0.1.1-48'") from None
    if last < first:
        raise refused(f"{text!r} runs backwards")
    if int(last) - int(first) >= _MOST_ADDRESSES:
        raise refused(f"{text!r} holds more than {_MOST_ADDRESSES} addresses")
    return [str(ipaddress.IPv4Address(number)) for number in range(int(first), int(last) + 1)]


def _parse_id(value: Any) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", text):
        raise refused(f"{value!r} is no id", "use letters, digits, '-' and '_', at most 63")
    return text


@dataclass(frozen=True)
class _Id:
    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_parse_id)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"}


Id = Annotated[str, _Id()]
Watts = Annotated[float, Quantity(Dimension.POWER, low=0.0)]
PositiveWatts = Annotated[float, Quantity(Dimension.POWER, above=0.0)]
Seconds = Annotated[float, Quantity(Dimension.TIME, low=0.0)]
PositiveSeconds = Annotated[float, Quantity(Dimension.TIME, above=0.0)]
Fraction = Annotated[float, Quantity(Dimension.FRACTION, low=0.0, high=1.0)]
Ramp = Annotated[float, Quantity(Dimension.RAMP, above=0.0)]
Hashrate = Annotated[float, Quantity(Dimension.HASHRATE, low=0.0)]
TokenRate = Annotated[float, Quantity(Dimension.TOKEN_RATE, low=0.0)]
EnergyPrice = Annotated[float, Quantity(Dimension.ENERGY_PRICE)]
PositiveEnergyPrice = Annotated[float, Quantity(Dimension.ENERGY_PRICE, above=0.0)]
Hashprice = Annotated[float, Quantity(Dimension.HASHPRICE, above=0.0)]
TokenPrice = Annotated[float, Quantity(Dimension.TOKEN_PRICE, low=0.0)]
Flow = Annotated[float, Quantity(Dimension.FLOW, above=0.0)]
Temperature = Annotated[float, Quantity(Dimension.TEMPERATURE)]
PowerLimits = Annotated[tuple[float, float], PowerRange()]
Addresses = Annotated[tuple[Address, ...], AddressList()]
