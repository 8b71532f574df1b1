"""Names to classes by entry points: what this installation can drive, measure, switch, read and simulate."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from enum import StrEnum
from importlib.metadata import EntryPoints, entry_points
from typing import Any

OptionsSchema = Mapping[str, tuple[Any, Any, str]]
"""Per option: its Python type or a union of types, its default (`...` where it must be given), a line of help."""


class Group(StrEnum):
    """The entry point groups that mullet looks into."""

    DRIVERS = "mullet.drivers"
    DISCOVERERS = "mullet.discoverers"
    METERS = "mullet.meters"
    SWITCHES = "mullet.switches"
    FEEDS = "mullet.feeds"
    NVML = "mullet.nvml"
    SIMULATORS = "mullet.simulators"


class UnknownName(KeyError):
    """No installed package offers this name; the message lists near matches."""

    def __str__(self) -> str:
        return str(self.args[0])


class DuplicateName(ValueError):
    """Two installed packages offer different objects under one name."""


class BrokenPlugin(ImportError):
    """A name is offered, but what stands behind it cannot be imported."""


class Registry:
    """Looks names up when asked and imports what stands behind them only then."""

    def __init__(self, find: Callable[..., EntryPoints] = entry_points) -> None:
        self._find = find
        self._values: dict[Group, dict[str, Callable[[], Any]]] = {}

    def names(self, group: Group) -> tuple[str, ...]:
        """Return the names of a group, sorted. Imports nothing.

        Raises:
            DuplicateName: a name is offered twice.
        """
        return tuple(sorted(self._group(group)))

    def load(self, group: Group, name: str) -> Any:
        """Import and return the class or function behind a name.

        Raises:
            UnknownName: nothing is offered under this name.
            DuplicateName: a name of the group is offered twice.
            BrokenPlugin: importing it failed.
        """
        known = self._group(group)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(known)) or 'none'}"
            raise UnknownName(f"{group.value} has no {name!r}; {hint}")
        try:
            return known[name]()
        except (ImportError, AttributeError) as error:
            raise BrokenPlugin(f"{group.value} {name!r} cannot be imported: {error}") from error

    def options_schema(self, group: Group, name: str) -> OptionsSchema:
        """Return the options that a class publishes, or none where it publishes no table. Raises as `load`."""
        schema: OptionsSchema = getattr(self.load(group, name), "options_schema", {})
        return schema

    def _group(self, group: Group) -> dict[str, Callable[[], Any]]:
        if group in self._values:
            return self._values[group]
        offered: dict[str, str] = {}
        loaders: dict[str, Callable[[], Any]] = {}
        for point in self._find(group=group.value):
            if offered.setdefault(point.name, point.value) != point.value:
                raise DuplicateName(
                    f"{group.value} {point.name!r} is offered twice: {offered[point.name]} and {point.value}"
                )
            loaders[point.name] = point.load
        self._values[group] = loaders
        return loaders
