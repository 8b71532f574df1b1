"""Frozen values to plain JSON and back, exactly: what the journal stores and replay reads."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, TypeVar, cast

T = TypeVar("T")


class CodecError(ValueError):
    """Data does not have the shape of the wanted type."""


@cache
def _field_names(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


@cache
def _field_types(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {name: hints[name] for name in _field_names(cls)}


def encode(value: Any) -> Any:
    """Return `value` (dataclasses, enums, mappings, sequences, sets) as plain JSON data."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: encode(getattr(value, name)) for name in _field_names(type(value))}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (frozenset, set)):
        return sorted(encode(item) for item in value)
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    if isinstance(value, (str, int, float)):
        return value
    raise CodecError(f"cannot encode {type(value).__name__}")


def decode(cls: Any, data: Any) -> Any:
    """Return `data` as an instance of `cls` (a dataclass, or a type made of dataclasses and plain values).

    Raises:
        CodecError: a field is missing or unknown, or a value has the wrong type.
    """
    origin = typing.get_origin(cls)
    arguments = typing.get_args(cls)
    if cls is Any:
        return data
    if origin in (typing.Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        errors = []
        for option in arguments:
            if option is type(None):
                continue
            try:
                return decode(option, data)
            except CodecError as error:
                errors.append(str(error))
        raise CodecError("; ".join(errors) or f"None is not {cls}")
    if origin is tuple:
        if not isinstance(data, list):
            raise CodecError(f"expected a list, found {type(data).__name__}")
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(decode(arguments[0], item) for item in data)
        if len(arguments) != len(data):
            raise CodecError(f"expected {len(arguments)} items, found {len(data)}")
        return tuple(decode(option, item) for option, item in zip(arguments, data, strict=True))
    if origin is frozenset:
        return frozenset(decode(arguments[0], item) for item in data)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(data, dict):
            raise CodecError(f"expected an object, found {type(data).__name__}")
        return {key: decode(arguments[1], item) for key, item in data.items()}
    if origin is not None and dataclasses.is_dataclass(origin):
        return _decode_dataclass(cast(type, origin), data, dict(zip(_parameters(origin), arguments, strict=True)))
    if isinstance(cls, type) and issubclass(cls, Enum):
        try:
            return cls(data)
        except ValueError as error:
            raise CodecError(str(error)) from None
    if dataclasses.is_dataclass(cls):
        return _decode_dataclass(cast(type, cls), data, {})
    if cls is float and type(data) in (int, float):
        return float(data)
    if cls in (str, int, bool) and type(data) is cls:
        return data
    raise CodecError(f"{data!r} is not {getattr(cls, '__name__', cls)}")


def _parameters(origin: Any) -> tuple[Any, ...]:
    return tuple(getattr(origin, "__parameters__", ()))


def _decode_dataclass(cls: type, data: Any, bound: dict[Any, Any]) -> Any:
    if not isinstance(data, dict):
        raise CodecError(f"expected an object for {cls.__name__}, found {type(data).__name__}")
    hints = _field_types(cls)
    unknown = data.keys() - hints.keys()
    if unknown:
        raise CodecError(f"{cls.__name__} has no field {sorted(unknown)[0]!r}")
    values = {}
    for field in dataclasses.fields(cls):
        if field.name in data:
            hint = hints[field.name]
            values[field.name] = decode(bound.get(hint, hint), data[field.name])
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise CodecError(f"{cls.__name__}.{field.name} is missing")
    return cls(**values)


def canonical(value: Any) -> str:
    """Return the one JSON text of `value`: keys sorted, no blanks, floats as shortest repr, never NaN."""
    return json.dumps(encode(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
