"""The few series that are wanted from a Prometheus text page, by exact name, and everything else left unread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Metric

MOST_SERIES = 10_000

Labels = frozenset[tuple[str, str]]


class NotMetrics(ValueError):
    """A text is no page of the wanted metrics."""


@dataclass(frozen=True, slots=True)
class Page:
    """Wanted series by quantity and labels, and which quantities the page knows at all."""

    values: Mapping[str, Mapping[Labels, float]]
    known: frozenset[str]
    """Quantities whose metric is declared or present; a known one without values has had no request yet."""


def load_parser() -> Callable[[str], Iterable[Metric]]:
    """Import the parser, which takes longer than a tick has; call this before the loop runs."""
    from prometheus_client.parser import text_string_to_metric_families

    return text_string_to_metric_families


def read_page(text: str, names: Mapping[str, Sequence[str]]) -> Page:
    """Return the series of `names`: quantity -> sample names it may have, of which the first one present counts.

    Raises:
        NotMetrics: no exposition text, none of the names, a series twice, or a value that is negative or not finite.
    """
    wanted = {name: quantity for quantity, aliases in names.items() for name in aliases}
    declared, lines = _sift(text, wanted)
    found: dict[str, dict[Labels, float]] = {}
    for name, labels, value in _parse(lines):
        if not (math.isfinite(value) and value >= 0.0):
            raise NotMetrics(f"{name} is {value}")
        series = found.setdefault(name, {})
        if labels in series:
            raise NotMetrics(f"{name} has the same labels twice")
        series[labels] = value
    known = {wanted[name] for name in declared | found.keys()}
    if not known:
        raise NotMetrics("no metrics that are known here")
    values = {
        quantity: next((found[name] for name in aliases if name in found), {}) for quantity, aliases in names.items()
    }
    return Page(values, frozenset(known))


def _sift(text: str, wanted: Mapping[str, str]) -> tuple[set[str], list[str]]:
    declared: set[str] = set()
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name = line[7:].split(" ", 1)[0]
            # Counters are declared with or without _total, histograms without the suffix of their sum.
            declared.update(wanted.keys() & {name, f"{name}_total", f"{name}_sum", f"{name}_count"})
            continue
        ends = [end for end in (line.find("{"), line.find(" "), line.find("\t")) if end >= 0]
        if ends and line[: min(ends)] in wanted:
            lines.append(line)
    if len(lines) > MOST_SERIES:
        raise NotMetrics(f"more than {MOST_SERIES} series")
    return declared, lines


def _parse(lines: Sequence[str]) -> list[tuple[str, Labels, float]]:
    parse = load_parser()
    try:
        families = list(parse("\n".join(lines) + "\n"))
        return [
            (sample.name, frozenset(sample.labels.items()), float(sample.value))
            for family in families
            for sample in family.samples
        ]
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise NotMetrics(f"a line is no metric: {error or type(error).__name__}") from error
