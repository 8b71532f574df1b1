"""Checks the options of drivers, meters, switches and feeds against the tables their classes publish."""

from __future__ import annotations

import types
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mullet.domain.units import Dimension, QuantityError, parse_quantity
from mullet.policy.draft import Draft
from mullet.policy.problems import Path, nearest_or_all
from mullet.policy.wiring import OptionsSchema

_DIMENSIONS = {"_s": Dimension.TIME, "_watts": Dimension.POWER, "_w": Dimension.POWER}
"""An option whose name ends so may be given as a quantity ("5 s") as well as a bare number of that unit."""


def check_driver(
    draft: Draft,
    known: Mapping[str, OptionsSchema],
    what: str,
    driver: str,
    raw: Mapping[str, Any],
    path: Path,
    implied: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any] | None:
    """Return the options with defaults filled in, or None after reporting what is wrong.

    `path` is that of the item which holds `driver` and `options`; `what` names the kind ("device", "meter", ...);
    `implied` are options that the rest of the file settles: filled in where the driver has them.
    """
    if driver not in known:
        draft.report((*path, "driver"), f"unknown {what} driver {driver!r}", nearest_or_all(driver, known))
        return None
    before = len(draft.problems)
    schema = known[driver]
    filled = {name: value for name, value in implied.items() if name in schema}
    for name, value in filled.items():
        if name in raw and raw[name] != value:
            draft.report((*path, "options", name), f"{raw[name]!r} is not {value!r}, which the file says above it")
    options = _check_options(draft, schema, {**raw, **filled}, (*path, "options"))
    return options if len(draft.problems) == before else None


def _check_options(draft: Draft, schema: OptionsSchema, raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name in raw:
        if name not in schema:
            draft.report((*path, name), f"unknown option {name!r}", nearest_or_all(name, schema), at_key=True)
    for name, (kind, fallback, help_text) in schema.items():
        if raw.get(name) is None and fallback is ...:
            draft.report((*path, name), "is missing", f"add {name!r}: {help_text}")
        elif raw.get(name) is None:
            options[name] = None if name in raw else fallback
        else:
            options[name] = _option(draft, name, kind, raw[name], (*path, name))
    return options


def _option(draft: Draft, name: str, kind: Any, value: Any, path: Path) -> Any:
    kinds = kind.__args__ if isinstance(kind, types.UnionType) else (kind,)
    for suffix, dimension in _DIMENSIONS.items():
        if name.endswith(suffix) and float in kinds and isinstance(value, str):
            try:
                return parse_quantity(value, dimension)
            except QuantityError as error:
                draft.report(path, *str(error).split("; ", 1))
                return value
    if isinstance(value, bool) and bool not in kinds:
        fits = False
    else:
        fits = isinstance(value, kinds) or (float in kinds and isinstance(value, int))
    if not fits:
        wanted = " or ".join(_type_name(one) for one in kinds)
        draft.report(path, f"{value!r} is not {wanted}")
        return value
    return float(value) if float in kinds and int not in kinds and isinstance(value, int) else value


def _type_name(kind: Any) -> str:
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping"}
    return names.get(kind, "a list" if kind in (list, tuple) else str(getattr(kind, "__name__", kind)))
