"""A figure with its target and peer, and how a run of them is printed and written down."""

from __future__ import annotations

import json
import operator
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_SENSES = {"<=": operator.le, ">=": operator.ge}
_PACKAGES = ("numpy", "ortools", "linopy", "highspy", "pulp")


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should be: at most or at least a number of the figure's unit."""

    sense: str
    """ "<=" or ">=". """
    number: float

    def met(self, value: float) -> bool:
        """Return whether `value` is on the right side."""
        return bool(_SENSES[self.sense](value, self.number))

    def __str__(self) -> str:
        return f"{self.sense} {self.number:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    figure: str
    value: float | None
    """None where it could not be measured; `peer` then says why."""
    unit: str
    target: Target | None = None
    peer: str | None = None
    """What was measured or computed in the same run to hold the figure against."""
    ratio: float | None = None
    """The peer's figure divided by this one, so that above 1 is better wherever less is."""
    failed: bool = False
    """Whether it should have been measured and could not be; a peer that is not installed is no failure."""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target or a value."""
        if self.target is None or self.value is None:
            return None
        return self.target.met(self.value)

    def plain(self) -> dict[str, object]:
        """Return the figure as JSON has it."""
        return {
            "figure": self.figure,
            "value": self.value,
            "unit": self.unit,
            "target": None if self.target is None else str(self.target),
            "met": self.met,
            "peer": self.peer,
            "ratio": self.ratio,
        }


def at_most(number: float) -> Target:
    """Return the target of at most `number`."""
    return Target("<=", number)


def at_least(number: float) -> Target:
    """Return the target of at least `number`."""
    return Target(">=", number)


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as a table of plain text."""
    heads = ("figure", "target", "value", "unit", "met", "ratio", "peer or limit")
    lines = [heads, *(_cells(figure) for figure in figures)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                     for line in lines)  # fmt: skip


def _cells(figure: Figure) -> tuple[str, ...]:
    met = {True: "yes", False: "NO", None: "-"}[figure.met]
    target = "-" if figure.target is None else str(figure.target)
    return (figure.figure, target, _number(figure.value), figure.unit, met, _number(figure.ratio), figure.peer or "-")


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1e5 else f"{value:.4g}"


def document(figures: Sequence[Figure]) -> dict[str, object]:
    """Return what is written as JSON: the figures, and where and of what they were measured."""
    return {"figures": [figure.plain() for figure in figures], "machine": machine(), "commit": commit()}


def write(figures: Sequence[Figure], path: Path) -> None:
    """Write the document to `path`.

    Raises:
        OSError: it cannot be written.
    """
    path.write_text(json.dumps(document(figures), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def machine() -> str:
    """Return the machine in a line: processor, cores, memory, system and versions."""
    words = [_processor(), f"{os.cpu_count()} cores", _memory(), f"{platform.system()} {platform.release()}"]
    words.append(f"Python {platform.python_version()}")
    words += [f"{name} {found}" for name in _PACKAGES if (found := _version(name)) is not None]
    return ", ".join(word for word in words if word)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (ValueError, OSError):
        return ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str:
    """Return the commit measured, with "-changed" where tracked files differ from it; "unknown" outside a clone."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return f"{head}-changed" if _git("status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()
