"""The charts of a plan's page, as SVG: price, power by group under its limit, and what binds when."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from mullet.domain.load import LoadKind
from mullet.domain.units import SECONDS_PER_HOUR, WATTS_PER_MW
from mullet.planning.explain import CIRCUIT, Binding, Explanation, Stretch, mean_watts
from mullet.planning.wording import binding_words, moment, money

WIDTH, LEFT, RIGHT = 1_100.0, 84.0, 1_084.0
_PRICE_HEIGHT, _POWER_HEIGHT, _ROW = 190.0, 280.0, 26.0
_TOP, _BOTTOM = 12.0, 26.0
_MINING_COLOURS, _GPU_COLOURS = 6, 4
_LABEL_GAP = 13.0
_MOST_EVENS = 5
_MOST_ROWS = 20


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the stack: its name, its colour in the style sheet, and its power in each stretch."""

    name: str
    colour: str
    watts: tuple[float, ...]


def layers(found: Explanation) -> tuple[Layer, ...]:
    """Return the stack from the bottom: what is fixed, then GPUs, then miners; small groups are put together."""
    stretches = found.stretches
    shown: list[Layer] = []
    for kind, most, letter, rest in (
        (LoadKind.GPU, _GPU_COLOURS, "g", "other GPUs"),
        (LoadKind.MINER, _MINING_COLOURS, "m", "other miners"),
    ):
        keys = [worth.key for worth in found.groups if worth.kind is kind]
        keys.sort(key=lambda key: -mean_watts(stretches, key))
        for number, key in enumerate(keys[:most]):
            watts = tuple(stretch.group_watts.get(key, 0.0) for stretch in stretches)
            shown.append(Layer(key, f"var(--{letter}{number})", watts))
        if keys[most:]:
            watts = tuple(sum(stretch.group_watts.get(key, 0.0) for key in keys[most:]) for stretch in stretches)
            shown.append(Layer(rest, f"var(--{letter}{most})", watts))
    loads = [sum(stretch.group_watts.values()) for stretch in stretches]
    fixed = tuple(max(0.0, s.drawn_watts - load) for s, load in zip(stretches, loads, strict=True))
    if max(fixed, default=0.0) > 0.0:
        shown.insert(0, Layer("fixed and auxiliaries", "var(--fixed)", fixed))
    return tuple(shown)


def price_chart(found: Explanation) -> str:
    """Return the chart of the price, with the break-evens of what mining there is."""
    stretches, place = found.stretches, _time_place(found.stretches)
    evens = _break_evens(found)
    prices = [stretch.price_per_mwh for stretch in stretches]
    top = max(*prices, 0.0)
    # A break-even far above every price would press the price flat.
    evens = [(value, name) for value, name in evens if value <= 1.6 * top + 20.0]
    low, high = min(0.0, *prices), max([top, *(value for value, _ in evens)])
    ticks = nice_ticks(low, high, 5)
    level = _level_place(min(low, ticks[0]), max(high, ticks[-1]), _PRICE_HEIGHT)
    parts = _frame(stretches, place, level, ticks, _PRICE_HEIGHT, lambda value: f"{value:g}")
    line = _steps(stretches, prices, place, level)
    first, last, zero = place(stretches[0].start), place(stretches[-1].end), level(0.0)
    parts.append(f'<path class="price-fill" d="M{first:.1f},{zero:.1f}L{line[1:]}L{last:.1f},{zero:.1f}Z"/>')
    parts.append(f'<path class="price" d="{line}"/>')
    taken: list[float] = []
    for value, name in evens:
        y = level(value)
        parts.append(f'<line class="even" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if all(abs(y - other) >= _LABEL_GAP for other in taken):
            taken.append(y)
            words = f"{escape(name)} breaks even at {value:.2f}"
            parts.append(f'<text class="strong halo" x="{LEFT + 6}" y="{y - 4:.1f}">{words}</text>')
    return _svg("price", _PRICE_HEIGHT, parts, f"Price in {found.currency}/MWh over the horizon")


def power_chart(found: Explanation, before: Explanation | None) -> str:
    """Return the stack of planned power under the grid connection's limit; `before` is drawn as a dashed line."""
    stretches, place = found.stretches, _time_place(found.stretches)
    most = max(max(stretch.drawn_watts, stretch.limit_watts) for stretch in stretches)
    if before is not None:
        most = max(most, *(stretch.drawn_watts for stretch in before.stretches))
    ticks = nice_ticks(0.0, most / WATTS_PER_MW, 6)
    level = _level_place(0.0, max(most / WATTS_PER_MW, ticks[-1]), _POWER_HEIGHT)
    parts = _frame(stretches, place, level, ticks, _POWER_HEIGHT, lambda value: f"{value:g}")
    base = [0.0] * len(stretches)
    for layer in layers(found):
        tops = [under + watts / WATTS_PER_MW for under, watts in zip(base, layer.watts, strict=True)]
        there, back = _steps(stretches, tops, place, level), _steps(stretches, base, place, level, backwards=True)
        title = f"<title>{escape(layer.name)}</title>"
        parts.append(f'<path d="{there}L{back[1:]}Z" fill="{layer.colour}">{title}</path>')
        base = tops
    for start, end in _bound(found.bindings):
        size = f'width="{max(1.0, place(end) - place(start)):.1f}" height="{_POWER_HEIGHT - _TOP - _BOTTOM}"'
        parts.append(f'<rect class="band" x="{place(start):.1f}" y="{_TOP}" {size}/>')
    limits = [stretch.limit_watts / WATTS_PER_MW for stretch in stretches]
    parts.append(f'<path class="limit" d="{_steps(stretches, limits, place, level)}"/>')
    if before is not None:
        drawn = [stretch.drawn_watts / WATTS_PER_MW for stretch in before.stretches]
        parts.append(f'<path class="before" d="{_steps(before.stretches, drawn, place, level)}"/>')
    return _svg("power", _POWER_HEIGHT, parts, "Planned power in MW by group, and the limit")


def _bound(found: Sequence[Binding]) -> list[tuple[float, float]]:
    """Return the spans in which any circuit binds, those that touch put together; `found` is in order of start."""
    spans: list[tuple[float, float]] = []
    for binding in found:
        if binding.rule != CIRCUIT:
            continue
        if spans and binding.start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], binding.end))
        else:
            spans.append((binding.start, binding.end))
    return spans


def binding_chart(found: Explanation) -> str:
    """Return one row per circuit or program that binds; the darker a bar, the more one more MW is worth."""
    rows: dict[tuple[str, str], list[Binding]] = {}
    for binding in found.bindings:
        rows.setdefault((binding.rule, binding.subject), []).append(binding)
    dearest = sorted(rows, key=lambda row: -sum(binding.worth_per_mw for binding in rows[row]))[:_MOST_ROWS]
    place, height = _time_place(found.stretches), _TOP + _ROW * len(dearest) + _BOTTOM
    parts = _time_axis(found.stretches, place, height)
    most = max((binding.mean_per_mwh for binding in found.bindings), default=1.0)
    for number, (rule, subject) in enumerate(dearest):
        y = _TOP + number * _ROW
        for binding in rows[rule, subject]:
            left, right = place(binding.start), place(binding.end)
            shade = 0.18 + 0.37 * binding.mean_per_mwh / most
            title = f"<title>{escape(binding_words(binding, found.currency))}</title>"
            size = f'width="{max(2.0, right - left):.1f}" height="{_ROW - 8}" rx="3" opacity="{shade:.2f}"'
            parts.append(f'<rect class="bar" x="{left:.1f}" y="{y + 4:.1f}" {size}>{title}</rect>')
            words = f"{money(binding.mean_per_mwh)} {found.currency}/MWh"
            if right - left > 7.0 * len(words):
                parts.append(f'<text class="strong" x="{left + 6:.1f}" y="{y + 17:.1f}">{escape(words)}</text>')
        name = subject if rule == CIRCUIT else f"{rule} {subject}"
        parts.append(f'<text class="strong" x="{LEFT - 8}" y="{y + 17:.1f}" text-anchor="end">{escape(name)}</text>')
    return _svg("binding", height, parts, "What binds when")


def _break_evens(found: Explanation) -> list[tuple[float, str]]:
    """Return the break-evens of mining, groups of one break-even together, the highest few."""
    names: dict[float, list[str]] = {}
    for worth in found.groups:
        for step in worth.steps if worth.kind is LoadKind.MINER else ():
            names.setdefault(round(step.break_even_per_mwh, 2), []).append(worth.key.partition(":")[2] or worth.key)
    found_evens = [
        (value, keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more") for value, keys in names.items()
    ]
    return sorted(found_evens, reverse=True)[:_MOST_EVENS]


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers that cover [low, high], about `most` of them."""
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if span / (factor * power) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]


def _time_place(stretches: Sequence[Stretch]) -> Callable[[float], float]:
    start, end = stretches[0].start, stretches[-1].end
    return lambda at: LEFT + (at - start) / (end - start) * (RIGHT - LEFT)


def _level_place(low: float, high: float, height: float) -> Callable[[float], float]:
    return lambda value: height - _BOTTOM - (value - low) / (high - low) * (height - _TOP - _BOTTOM)


def _steps(
    stretches: Sequence[Stretch],
    values: Sequence[float],
    place: Callable[[float], float],
    level: Callable[[float], float],
    backwards: bool = False,
) -> str:
    points = []
    for stretch, value in zip(stretches, values, strict=True):
        points += [(place(stretch.start), level(value)), (place(stretch.end), level(value))]
    ordered = reversed(points) if backwards else points
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in ordered)


def _frame(
    stretches: Sequence[Stretch],
    place: Callable[[float], float],
    level: Callable[[float], float],
    ticks: Sequence[float],
    height: float,
    form: Callable[[float], str],
) -> list[str]:
    parts = _time_axis(stretches, place, height)
    for tick in ticks:
        y = level(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{form(tick)}</text>')
    return parts


def _time_axis(stretches: Sequence[Stretch], place: Callable[[float], float], height: float) -> list[str]:
    start, end = stretches[0].start, stretches[-1].end
    hours = (end - start) / SECONDS_PER_HOUR
    steps_s = (60.0, 300.0, 900.0, 1_800.0, 3_600.0, 7_200.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0)
    step = next((s for s in steps_s if hours * SECONDS_PER_HOUR / s <= 13.0), 86_400.0)
    parts = []
    at = math.ceil(start / step) * step
    while at <= end:
        x, when = place(at), datetime.fromtimestamp(at, UTC)
        words = moment(at).split()[0] + f" {when.day}" if at % 86_400.0 == 0.0 else f"{when:%H:%M}"
        strong = ' class="strong"' if at % 86_400.0 == 0.0 else ""
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>')
        parts.append(f'<text{strong} x="{x:.1f}" y="{height - 8:.1f}" text-anchor="middle">{words}</text>')
        at += step
    return parts


def _svg(name: str, height: float, parts: Sequence[str], title: str) -> str:
    cross = f'<line class="cross" x1="0" x2="0" y1="{_TOP}" y2="{height - _BOTTOM:.1f}"/>'
    head = f'<svg data-chart="{name}" viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">'
    return f"{head}{''.join(parts)}{cross}</svg>"
