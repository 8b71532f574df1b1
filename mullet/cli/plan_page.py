"""`mullet plan --html`: a plan and its reasons as one page that needs nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files

from mullet import __version__
from mullet.cli.plan_svg import LEFT, RIGHT, WIDTH, Layer, binding_chart, layers, power_chart, price_chart
from mullet.domain.load import LoadKind
from mullet.domain.units import WATTS_PER_MW, format_watts
from mullet.planning.difference import Difference, joined
from mullet.planning.explain import Explanation, mean_watts
from mullet.planning.wording import change_words, money, plan_words, span, switch_words
from mullet.planning.worth import GroupWorth

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def plan_page(
    found: Explanation,
    after: Explanation | None = None,
    contrast: Difference | None = None,
    changes: Sequence[str] = (),
) -> str:
    """Return the page of a plan; with `after`, of the plan with `changes`, against `found` without them."""
    shown = found if after is None else after
    before = None if after is None else found
    style, script = (
        files("mullet.cli").joinpath("page", name).read_text("utf-8") for name in ("style.css", "hover.js")
    )
    made = f"{datetime.fromtimestamp(shown.at, UTC):%a %d %b %Y %H:%M} UTC, by {shown.rung.value}"
    with_changes = f' <span class="muted">with {escape(", ".join(changes))}</span>' if changes else ""
    stack = layers(shown)
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Plan of {escape(shown.facility)}</title>',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{style}</style></head><body><main>",
        f"<header><h1>Plan of {escape(shown.facility)}{with_changes}</h1>",
        f'<p class="muted">{escape(made)}; all times are UTC</p></header>',
        f'<div class="cards">{"".join(_cards(shown, contrast))}</div>',
        _panel(f"Price, {escape(shown.currency)}/MWh", price_chart(shown)),
        _panel("Planned power, MW", power_chart(shown, before) + _key(stack, before is not None)),
    ]
    if shown.bindings:
        parts.append(_panel("What binds, and what one more MW is worth", binding_chart(shown)))
    parts.append(_panel("Why", f'<ul class="reasons">{"".join(_reasons(shown))}</ul>'))
    if contrast is not None:
        parts.append(_panel("What if", _difference(contrast, shown)))
    parts += [
        _panel("Groups now", _groups(shown)),
        f"<footer>mullet {escape(__version__)}. A break-even counts energy, adders, pool fee and auxiliaries; what a "
        "start costs comes on top, so a plan sits out short spikes.</footer></main>",
        f'<div id="tip"></div><script type="application/json" id="data">{_data(shown, stack)}</script>',
        f"<script>{script}</script></body></html>\n",
    ]
    return "\n".join(parts)


def _panel(title: str, body: str) -> str:
    return f'<section class="panel"><h2>{title}</h2>{body}</section>'


def _cards(shown: Explanation, contrast: Difference | None) -> Iterator[str]:
    currency, sure = escape(shown.currency), shown.certificate
    earned = f"{money(sure.objective)} {currency}"
    gap = "bound unknown" if sure.gap is None else f"at most {money(sure.gap)} {currency} short of the best"
    if sure.gap_percent is not None:
        gap += f" ({sure.gap_percent:.3f} %)"
    yield _card(earned, f"earned over the horizon; {gap}")
    if contrast is not None:
        side = "up" if contrast.objective >= 0.0 else "down"
        yield _card(f"{contrast.objective:+,.2f} {currency}", "by the changes", side)
    hours = sum(stretch.hours for stretch in shown.stretches)
    mean = mean_watts(shown.stretches)
    yield _card(f"{mean / WATTS_PER_MW:.3f} MW", f"planned on average over {hours:.1f} h")
    paid = [(s.price_per_mwh * s.drawn_watts * s.hours, s.drawn_watts * s.hours) for s in shown.stretches]
    energy = sum(weight for _, weight in paid)
    if energy > 0.0:
        yield _card(f"{sum(value for value, _ in paid) / energy:.2f} {currency}/MWh", "mean price of the energy drawn")
    scarce = sum(binding.worth_per_mw for binding in shown.bindings if binding.rule == "circuit")
    yield _card(f"{money(scarce)} {currency}/MW", "worth of one more MW where circuits bind")


def _card(value: str, words: str, side: str = "") -> str:
    return f'<div class="card"><b class="{side}">{value}</b><span>{words}</span></div>'


def _key(stack: Sequence[Layer], compared: bool) -> str:
    items = [f'<span><i style="background:{layer.colour}"></i>{escape(layer.name)}</span>' for layer in stack]
    items.append('<span><i class="line"></i>limit</span>')
    items.append('<span><i style="background:var(--band);border:1px solid var(--bind)"></i>a circuit binds</span>')
    if compared:
        items.append('<span><i class="line dash"></i>without the changes</span>')
    return f'<div class="key">{"".join(items)}</div>'


def _reasons(shown: Explanation) -> Iterator[str]:
    for words in plan_words(shown):
        yield f"<li>{escape(words)}</li>"


def _difference(contrast: Difference, shown: Explanation) -> str:
    currency = escape(shown.currency)
    mean = f"{contrast.mean_watts / WATTS_PER_MW:+.3f} MW on average"
    head = f"<p>{contrast.objective:+,.2f} {currency} over the horizon; {mean}, {contrast.mwh:+,.2f} MWh in all.</p>"
    groups = [
        f'<tr><td class="name">{escape(key)}</td><td class="n">{watts / WATTS_PER_MW:+.3f}</td></tr>'
        for key, watts in contrast.groups.items()
    ]
    pieces = [
        f'<tr><td class="name">{span(piece.start, piece.end)}</td><td class="n">{piece.price_per_mwh:+.2f}</td>'
        f'<td class="n">{piece.drawn_watts / WATTS_PER_MW:+.3f}</td></tr>'
        for piece in joined(contrast.pieces)
        if abs(piece.drawn_watts) >= 0.5
    ]
    tables = _table(("group", "*mean MW"), groups)
    if pieces:
        tables += _table(("when", f"*price, {currency}/MWh", "*MW"), pieces)
    return f'{head}<div class="pair">{tables}</div>'


def _groups(shown: Explanation) -> str:
    columns = (
        "group",
        "*loads",
        "*MW",
        f"*break-even, {escape(shown.currency)}/MWh",
        "*margin",
        "next change",
        "flips it",
    )
    return _table(columns, ["".join(_group_row(worth, shown)) for worth in shown.groups])


def _group_row(worth: GroupWorth, shown: Explanation) -> Iterator[str]:
    steps = worth.steps if worth.kind is LoadKind.MINER else worth.steps[-1:]
    served = f", serves {worth.service}" if worth.service else ""
    yield f'<tr><td class="name">{escape(worth.key)}<small>{escape(worth.circuit + served)}</small></td>'
    taken = "<br>".join(f"{step.loads} {escape(step.point_to)}" for step in steps)
    yield f'<td class="n">{taken}<small>of {worth.loads}</small></td>'
    yield f'<td class="n">{worth.watts / WATTS_PER_MW:.3f}</td>'
    yield f'<td class="n">{"<br>".join(f"{step.break_even_per_mwh:,.2f}" for step in steps)}</td>'
    sides = ("up" if step.margin_per_mwh >= 0.0 else "down" for step in steps)
    margins = (
        f'<span class="{side}">{step.margin_per_mwh:+,.2f}</span>' for side, step in zip(sides, steps, strict=True)
    )
    yield f'<td class="n">{"<br>".join(margins)}</td>'
    change = "none expected" if worth.next_change is None else change_words(worth.next_change)
    yield f'<td class="words">{escape(change)}</td>'
    flips = [
        f"{arrow} {escape(switch_words(switch, shown.currency, up))}"
        for switch, arrow, up in ((worth.more, "↑", True), (worth.less, "↓", False))
        if switch is not None
    ]
    yield f'<td class="words">{"<br>".join(flips)}</td></tr>'


def _table(columns: Sequence[str], rows: Sequence[str]) -> str:
    """Return a table; columns that begin with a star hold numbers."""
    head = "".join(f'<th class="n">{name[1:]}</th>' if name.startswith("*") else f"<th>{name}</th>" for name in columns)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _data(shown: Explanation, stack: Sequence[Layer]) -> str:
    """Return what the page's script shows under the pointer, as JSON that no text can end early."""
    steps = []
    for number, stretch in enumerate(shown.stretches):
        lines = [
            span(stretch.start, stretch.end),
            f"price {stretch.price_per_mwh:.2f} {shown.currency}/MWh",
            f"planned {format_watts(stretch.drawn_watts)} of {format_watts(stretch.limit_watts)}",
            *(f"  {layer.name}: {format_watts(layer.watts[number])}" for layer in reversed(stack)),
        ]
        for binding in shown.bindings:
            if binding.start <= stretch.start < binding.end:
                lines.append(f"{binding.subject} binds: {money(binding.mean_per_mwh)} {shown.currency}/MWh")
        steps.append({"start": stretch.start, "end": stretch.end, "text": "\n".join(lines)})
    data = {
        "left": LEFT,
        "right": RIGHT,
        "width": WIDTH,
        "start": shown.stretches[0].start,
        "end": shown.stretches[-1].end,
        "steps": steps,
    }
    return json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
