"""How commands speak: results to stdout, everything else to stderr, one exit code for each kind of answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn

import typer

NO, USAGE = 1, 2
PLAIN_WIDTH = 200
"""Columns of a table that goes to a file or a pipe, so that nothing is cut."""

_MEASURED = ("_s", "_w", "_mwh", "_day")
"""Ends of the names of quantities: where one is missing it is not known, while a missing hold is none."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]


def say(text: str = "") -> None:
    """Print a line of the result."""
    sys.stdout.write(text + "\n")


def say_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    say(json.dumps(value, ensure_ascii=False))
    sys.stdout.flush()


def note(text: str) -> None:
    """Print a line that is no result: to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def fail(text: str, code: int = USAGE) -> NoReturn:
    """End the command with a clear word and its code."""
    note(f"mullet: {text}" if text else "mullet: failed")
    raise typer.Exit(code)


@contextmanager
def refusals(*errors: type[BaseException], code: int = USAGE) -> Iterator[None]:
    """Turn errors that are the user's to solve into one line and an exit code."""
    try:
        yield
    except errors as error:
        fail(describe(error), code)


def describe(error: BaseException) -> str:
    """Return an error as a line for people."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    return str(error) or type(error).__name__


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", *, right: Sequence[str] = ()) -> None:
    """Print a table; the columns named in `right` are aligned as numbers are."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        grid.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    Console(file=sys.stdout, width=width, highlight=False, soft_wrap=False).print(grid)


def nested(value: Any, indent: int = 0) -> Iterator[str]:
    """Yield plain data as indented lines; what is empty is left out."""
    pad = "  " * indent
    if isinstance(value, Mapping):
        for key, item in value.items():
            if item == "":
                continue
            if isinstance(item, Mapping | list) and item:
                yield f"{pad}{key}:"
                yield from nested(item, indent + 1)
            else:
                yield f"{pad}{key}: {plain(key, item)}"
    elif isinstance(value, list):
        for item in value:
            yield f"{pad}- {', '.join(nested(item)) if isinstance(item, Mapping) else plain('', item)}"


def plain(key: str, value: Any) -> str:
    """Return one value as people read it; the unit is in the key's name."""
    if value is None:
        return "unknown" if key.endswith(_MEASURED) or key in ("state", "watts") else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping | list):
        return "none"
    if isinstance(value, int | float):
        if key == "watts" or key.endswith("_w"):
            return power(value)
        if key in ("at", "issued_at", "valid_until", "start", "end", "since"):
            return instant(value)
        if key.endswith("_s"):
            return f"{value:.1f} s"
        return f"{value:g}"
    return str(value)


def power(watts: float | None) -> str:
    """Return watts as people read them; None is "?"."""
    from mullet.domain.units import format_watts

    return "?" if watts is None else format_watts(watts)


def many(count: int, thing: str) -> str:
    """Return "1 problem" or "3 problems"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def number(value: float | None, digits: int = 0) -> str:
    """Return a number with a fixed count of decimals; None is "?"."""
    return "?" if value is None else f"{value:.{digits}f}"


def instant(at: float | None) -> str:
    """Return Unix seconds as UTC in ISO 8601, to the second."""
    if at is None:
        return "?"
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{at:g}"
