"""Makes: model and firmware of a load in one word chain, by which what is learnt of alike miners is kept together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from sys import intern
from typing import Any

MOST_MODEL = 60
"""Characters of a model that count: what a device calls itself is text from outside."""

Entry = Mapping[str, Any]


def make_of(firmware_class: str | None, entry: Entry) -> str | None:
    """Return a make such as "Antminer S19j Pro / luxos"; None where the class or the model is not known.

    A class alone is none: a Whatsminer that sleeps names no model, and would become another make each night. `entry`
    is what was identified at the load's address; of another class than the load's it says nothing.
    """
    if firmware_class is None or entry.get("class") != firmware_class:
        return None
    # VNish puts its version behind the model; a firmware that is brought up to date is no other make.
    model = " ".join(re.sub(r"\(.*?\)", " ", str(entry.get("model") or "")).split())[:MOST_MODEL]
    return intern(f"{model} / {firmware_class}") if model else None


class Makes:
    """The makes of a driver's loads. They cost a reading two look-ups: one is put together when its entry is new."""

    def __init__(
        self, entries: Callable[[], Mapping[str, Entry]], class_of: Callable[[str, Entry], str | None]
    ) -> None:
        """`entries` tells what was identified, by address; an entry is replaced, never changed.

        `class_of` returns a load's class from its bank and its entry.
        """
        self._entries = entries
        self._class_of = class_of
        self._told: dict[tuple[str, str], tuple[Entry, str | None]] = {}

    def of(self, bank: str, address: str) -> str | None:
        """Return the make of the load at `address`, None while it is not known."""
        entry = self._entries().get(address)
        if entry is None:
            return None
        known = self._told.get((bank, address))
        if known is None or known[0] is not entry:
            known = self._told[bank, address] = entry, make_of(self._class_of(bank, entry), entry)
        return known[1]
