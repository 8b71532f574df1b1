"""A plan in the terminal: its intervals as a table, price and power as charts, its reasons in words."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from mullet.cli.say import PLAIN_WIDTH, instant, number, power, say, table
from mullet.domain.facility import Facility
from mullet.domain.plan import Plan, PlanInterval, PlanRequest
from mullet.domain.units import WATTS_PER_MW
from mullet.planning.difference import Difference, joined
from mullet.planning.explain import Explanation, Stretch
from mullet.planning.wording import group_words, moment, plan_words

_BLOCKS = " ▁▂▃▄▅▆▇█"
_PRICE_ROWS, _POWER_ROWS = 6, 8
_LEAST_COLUMNS, _MOST_COLUMNS = 24, 120


def show_plan(facility: Facility, request: PlanRequest, made: Plan, found: Explanation) -> None:
    """Print the plan, its charts and its reasons."""
    say(f"{facility.id}: plan of {instant(made.made_at)} by {made.rung.value}")
    say(f"Prices from {request.forecast.price_rung}" + (f"; {made.detail}" if made.detail else ""))
    _show_intervals(made, found)
    show_charts(found)
    say()
    say("Why (times in UTC)")
    for line in plan_words(found):
        say(f"  {line}")
    for worth in found.groups:
        where = f"{worth.key} on {worth.circuit}" + (f", serves {worth.service}" if worth.service else "")
        say(f"{where}: {power(worth.watts)} now")
        for line in group_words(worth, found.currency):
            say(f"  {line}")


def show_difference(found: Difference, after: Explanation, changes: Sequence[str]) -> None:
    """Print what the changes make of the plan, in money and power."""
    say()
    say(f"What if {', '.join(changes)}")
    mean, most = _signed_mw(found.mean_watts), _signed_mw(found.most_watts)
    say(f"  {found.objective:+,.2f} {after.currency} over the horizon; {mean} on average, {found.mwh:+,.2f} MWh in all")
    if not found.mwh and not found.most_watts:
        say("  power is the same throughout")
        return
    say(f"  the largest difference in power is {most}")
    for key, watts in found.groups.items():
        if abs(watts) >= 0.5:
            say(f"  {key}: {_signed_mw(watts)} on average")
    table(
        ("from", "minutes", "price", "power"),
        [
            (
                moment(piece.start),
                number((piece.end - piece.start) / 60.0, 0),
                f"{piece.price_per_mwh:+.2f}",
                _signed_mw(piece.drawn_watts),
            )
            for piece in joined(found.pieces)
            if abs(piece.drawn_watts) >= 0.5
        ],
        right=("minutes", "price", "power"),
    )


def _signed_mw(watts: float) -> str:
    return f"{watts / WATTS_PER_MW:+.3f} MW"


def _show_intervals(made: Plan, found: Explanation) -> None:
    drawn = {stretch.start: stretch for stretch in found.stretches}
    table(
        ("from", "minutes", "price", "planned", "limit", *(group.key for group in made.groups)),
        [
            (
                instant(interval.start),
                number((interval.end - interval.start) / 60.0, 0),
                number(interval.price_per_mwh, 2),
                power(drawn[interval.start].drawn_watts),
                power(drawn[interval.start].limit_watts),
                *_counts(made, interval),
            )
            for interval in _merged(made, drawn)
        ],
        right=("minutes", "price", "planned", "limit"),
    )


def _counts(made: Plan, interval: PlanInterval) -> list[str]:
    """Return how many loads of each group stand at which point."""
    cells = []
    for group in made.groups:
        pairs = zip(interval.counts[group.key], group.points, strict=True)
        cells.append(" ".join(f"{count} {point.name}" for count, point in reversed(list(pairs)) if count) or "none")
    return cells


def _merged(made: Plan, drawn: dict[float, Stretch]) -> list[PlanInterval]:
    """Return the intervals with equal neighbours joined, so that a flat night is one line."""
    found: list[PlanInterval] = []
    for interval in made.intervals:
        last = found[-1] if found else None
        if (
            last is not None
            and last.counts == interval.counts
            and last.budget_watts == interval.budget_watts
            and drawn[last.start].limit_watts == drawn[interval.start].limit_watts
            and math.isclose(last.price_per_mwh, interval.price_per_mwh, abs_tol=0.005)
        ):
            found[-1] = replace(last, end=interval.end)
        else:
            found.append(interval)
    return found


def show_charts(found: Explanation) -> None:
    """Print price, and planned power under the limit, over the horizon; every column is the same length of time."""
    columns = _columns(found.stretches)
    if not columns:
        return
    from rich.console import Console
    from rich.text import Text

    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    console = Console(file=sys.stdout, width=width, highlight=False, soft_wrap=True)
    prices = [stretch.price_per_mwh for stretch in columns]
    low, high = min(0.0, *prices), max(0.0, *prices)
    console.print(Text(f"\nprice, {found.currency}/MWh"))
    for label, line in _bars(prices, low, high, _PRICE_ROWS, lambda value: f"{value:.0f}"):
        console.print(Text(f"{label:>9} ┤").append(Text(line, style="magenta")))
    console.print(Text(f"{low:>9.0f} └" + "─" * len(columns)))
    drawn = [stretch.drawn_watts / WATTS_PER_MW for stretch in columns]
    limits = [stretch.limit_watts / WATTS_PER_MW for stretch in columns]
    top = max(*limits, *drawn)
    console.print(Text("\nplanned MW under the limit (‾)"))
    for row, (label, line) in enumerate(_bars(drawn, 0.0, top, _POWER_ROWS, lambda value: f"{value:.3g}")):
        text = Text(f"{label:>9} ┤")
        for mark, limit in zip(line, limits, strict=True):
            at_limit = row == min(_POWER_ROWS - 1, int((top - limit) / top * _POWER_ROWS)) if top > 0.0 else False
            text.append("‾" if at_limit and mark == " " else mark, style="red" if at_limit else "cyan")
        console.print(text)
    console.print(Text(f"{0:>9} └" + "─" * len(columns)))
    console.print(Text(" " * 11 + _ticks(columns)))


def _columns(stretches: Sequence[Stretch]) -> list[Stretch]:
    """Return one stretch per column of the chart."""
    if not stretches:
        return []
    start, end = stretches[0].start, stretches[-1].end
    width = _terminal_width() - 12
    count = max(_LEAST_COLUMNS, min(_MOST_COLUMNS, width))
    found, position = [], 0
    for column in range(count):
        at = start + (column + 0.5) * (end - start) / count
        while position < len(stretches) - 1 and stretches[position].end <= at:
            position += 1
        found.append(stretches[position])
    return found


def _terminal_width() -> int:
    import shutil

    return shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 100


def _bars(
    values: Sequence[float], low: float, high: float, rows: int, form: Callable[[float], str]
) -> list[tuple[str, str]]:
    """Return rows of a bar chart from `low` to `high`, top first, each with the label of its upper edge."""
    span = (high - low) or 1.0
    found = []
    for row in range(rows):
        edge = high - row * span / rows
        line = ""
        for value in values:
            filled = (value - (edge - span / rows)) / (span / rows)
            line += _BLOCKS[round(max(0.0, min(1.0, filled)) * (len(_BLOCKS) - 1))]
        found.append((form(edge), line))
    return found


def _ticks(columns: Sequence[Stretch]) -> str:
    """Return times under the charts, about one every twenty columns."""
    line, step = "", 20
    for column in range(0, len(columns), step):
        line = line.ljust(column) + moment(columns[column].start)
    return line
