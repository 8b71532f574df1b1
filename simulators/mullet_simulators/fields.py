"""Reading a mapping from outside field by field, with errors that name the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ScenarioError(ValueError):
    """A scenario is wrong; the message begins with the path of the field."""


class Fields:
    """One mapping of a scenario file; `finish()` refuses the keys that nobody asked for."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, Mapping):
            raise ScenarioError(f"{path or 'scenario'}: expected a mapping, got {value!r}")
        self._values: dict[str, Any] = {str(key): item for key, item in value.items()}
        self._path = path
        self._read: set[str] = set()

    def where(self, name: str) -> str:
        """Path of a field for a message."""
        return f"{self._path}.{name}" if self._path else name

    def has(self, name: str) -> bool:
        """Is the field given and not null?"""
        return self._values.get(name) is not None

    def text(self, name: str, default: str | None = None, among: frozenset[str] | None = None) -> str:
        """A string, optionally one of a few."""
        value = self._get(name, default)
        if not isinstance(value, str) or not value:
            raise ScenarioError(f"{self.where(name)}: expected a text, got {value!r}")
        if among is not None and value not in among:
            raise ScenarioError(f"{self.where(name)}: {value!r} is none of {', '.join(sorted(among))}")
        return value

    def number(self, name: str, default: float | None = None, low: float = 0.0, high: float = float("inf")) -> float:
        """A number within [low, high]."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ScenarioError(f"{self.where(name)}: expected a number, got {value!r}")
        if not low <= value <= high:
            raise ScenarioError(f"{self.where(name)}: {value:g} is outside {low:g}..{high:g}")
        return float(value)

    def integer(self, name: str, default: int | None = None, low: int = 0, high: int = 1_000_000) -> int:
        """A whole number within [low, high]."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ScenarioError(f"{self.where(name)}: expected a whole number, got {value!r}")
        if not low <= value <= high:
            raise ScenarioError(f"{self.where(name)}: {value} is outside {low}..{high}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise ScenarioError(f"{self.where(name)}: expected true or false, got {value!r}")
        return value

    def child(self, name: str) -> Fields:
        """A mapping within this one."""
        return Fields(self._get(name, None), self.where(name))

    def children(self, name: str, *, required: bool = False) -> list[Fields]:
        """A list of mappings; empty where the field is absent and not required."""
        value = self._get(name, None if required else [])
        if not isinstance(value, list):
            raise ScenarioError(f"{self.where(name)}: expected a list, got {value!r}")
        if required and not value:
            raise ScenarioError(f"{self.where(name)}: expected at least one entry")
        return [Fields(item, f"{self.where(name)}[{index}]") for index, item in enumerate(value)]

    def instant_s(self, name: str, cycle_s: float, default: float | None = None) -> float:
        """Seconds from the start of the cycle: `NAME` is a share of the cycle, `NAME_s` is seconds."""
        if self.has(f"{name}_s"):
            return self.number(f"{name}_s")
        return self.number(name, default, high=1.0) * cycle_s

    def finish(self) -> None:
        """Raise ScenarioError for the first field that nobody read."""
        for name in self._values:
            if name not in self._read:
                raise ScenarioError(f"{self.where(name)}: no such field")

    def _get(self, name: str, default: object) -> Any:
        self._read.add(name)
        value = self._values.get(name)
        if value is None:
            if default is None:
                raise ScenarioError(f"{self.where(name)}: missing")
            return default
        return value
