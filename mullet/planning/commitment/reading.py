"""Numbers read from outside: refused with name and place where they make no sense, else mended and noted."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from mullet.planning.commitment.problem import Floats, Ints
from mullet.ports import PlanningError

BEYOND_BELIEF = 1e9
"""No number of a problem is larger, in its unit; throughput may be larger by a million (tokens/s per MW)."""
TOKENS_BEYOND_BELIEF = 1e15


class Reader:
    """Reads the numbers of one horizon and collects notes of what it mends."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.notes: list[str] = []

    def numbers(self, name: str, values: object, count: int, most: float = BEYOND_BELIEF, each: str = "step") -> Floats:
        """Return (count,) finite numbers, at most `most` in size, one for each step, power step or segment."""
        numbers = self.shaped(name, values, count)
        # Hundreds of groups come through here with every plan: what is sound is seen in one look.
        if len(numbers) and not max(numbers.max(), -numbers.min()) <= most:
            for place in np.flatnonzero(~(np.abs(numbers) <= most)):
                refuse(f"{name}: {each} {place} has {numbers[place]:g}")
        return numbers

    def over_time(self, name: str, values: object) -> Floats:
        """Return (T,) finite numbers."""
        return self.numbers(name, values, self.steps)

    def at_least_0(self, name: str, values: object, most: float = BEYOND_BELIEF) -> Floats:
        """Return (T,) finite numbers, those below 0 raised to it."""
        numbers = self.numbers(name, values, self.steps, most)
        if numbers.min(initial=0.0) < 0.0:
            below = np.flatnonzero(numbers < 0.0)
            step = below[0]
            self.notes.append(f"{name}: step {step} has {numbers[step]:g}, below 0: 0 counts{more(below)}")
            numbers = np.maximum(numbers, 0.0)
        return numbers

    def known(self, name: str, values: object) -> Floats:
        """Return (T,) numbers whose gaps are filled with the last one known before them, else the first one after."""
        numbers = self.shaped(name, values, self.steps)
        known = np.abs(numbers) <= BEYOND_BELIEF
        if np.all(known):
            return numbers
        if not np.any(known):
            refuse(f"{name}: no step has a value, step 0 has {numbers[0]:g}")
        missing = np.flatnonzero(~known)
        before = np.maximum.accumulate(np.where(known, np.arange(self.steps), -1))
        filled = numbers[np.where(before >= 0, before, int(np.argmax(known)))]
        self.notes.append(
            f"{name}: step {missing[0]} has {numbers[missing[0]]:g}; {filled[missing[0]]:g}, known before it or, if "
            f"nothing is, after it, stands in{more(missing)}"
        )
        return filled

    def shaped(self, name: str, values: object, count: int) -> Floats:
        """Return (count,) numbers of whatever worth."""
        numbers: Floats = np.asarray(values, dtype=np.float64)
        if numbers.shape != (count,):
            refuse(f"{name}: {numbers.shape} values where {count} are needed")
        return numbers

    def number(self, name: str, value: float, least: float = 0.0, most: float = BEYOND_BELIEF) -> float:
        """Return a number within its range."""
        if not least <= value <= most:
            refuse(f"{name} is {value:g}")
        return float(value)

    def price_of_missing(self, name: str, price: float | None) -> float | None:
        """Return the price of a slack, None where there is none."""
        return None if price is None else self.number(f"{name}: the price of missing it", price)

    def span(self, name: str, first: int, last: int) -> tuple[int, int]:
        """Return steps [first, last) within the horizon."""
        kept = min(max(first, 0), self.steps), min(max(last, 0), self.steps)
        kept = kept[0], max(kept)
        if kept != (first, last):
            self.notes.append(f"{name}: steps [{first}, {last}) of {self.steps} count as [{kept[0]}, {kept[1]})")
        return kept

    def counts(self, name: str, values: object, count: int, most: int, each: str = "step") -> Ints:
        """Return (count,) whole numbers from 0 to `most`, others cut to them."""
        if isinstance(values, np.ndarray) and values.dtype == np.int64 and values.shape == (count,):
            whole: Ints = values
            if not len(whole) or (whole.min() >= 0 and whole.max() <= most):
                return whole
        numbers = self.numbers(name, values, count, each=each)
        counts: Ints = np.clip(np.floor(numbers), 0, most).astype(np.int64)
        for place in np.flatnonzero(counts != numbers)[:1]:
            self.notes.append(f"{name}: {each} {place} has {numbers[place]:g}, of {most} loads: {counts[place]} count")
        return counts


def require_index(name: str, index: int, count: int, least: int = 0) -> None:
    """Refuse a place that does not exist."""
    if not least <= index < count:
        refuse(f"{name} {index} does not exist, there are {count}")


def more(places: Ints) -> str:
    """Say that a note speaks of more places than its first."""
    return f" (and {len(places) - 1} more)" if len(places) > 1 else ""


def refuse(words: str) -> NoReturn:
    """Raise what keeps a problem out."""
    raise PlanningError(words)
