"""What is wrong with a policy file: where, in which field, what, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Path = tuple[str | int, ...]
"""Where a field is: keys and list indexes from the top of the file."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to change, at a 1-based line and column."""

    file: str
    line: int
    column: int
    field: str
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: "
        what = f"{self.field}: {self.message}" if self.field else self.message
        return where + what + (f"; {self.suggestion}" if self.suggestion else "")


class PolicyErrors(ValueError):
    """A policy was refused; `problems` holds every reason, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.line, p.column, p.field, p.message)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def field_name(path: Path) -> str:
    """Return a path as people read it: ("circuits", 2, "limit") is "circuits[2].limit"."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def nearest(word: str, names: Iterable[str]) -> str:
    """Return "did you mean 'x'?" for the name most like `word`, or "" where none is."""
    candidates = list(names)
    matches = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    if not matches:
        lowered = {name.lower(): name for name in candidates}
        matches = [lowered[match] for match in difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.6)]
    return f"did you mean {matches[0]!r}?" if matches else ""


def nearest_or_all(word: str, names: Iterable[str]) -> str:
    """Return the nearest name, or where none is near, all of them."""
    candidates = sorted(names)
    if not candidates:
        return "there is none"
    return nearest(word, candidates) or f"known: {', '.join(candidates)}"
