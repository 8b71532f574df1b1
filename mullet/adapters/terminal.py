"""The facility in a terminal: one screen that follows every tick, or plain lines where nobody looks at a screen."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mullet.adapters.trail import Row, row_of
from mullet.ports import Operations

GPU, MINER, UNMANAGED, FREE, PRICE = "cyan", "dark_orange", "grey58", "grey27", "medium_purple1"
GOOD, WARN, BAD, QUIET = "green3", "yellow3", "bold red", "grey58"
MODE_STYLES = {"auto": "bold black on green3", "advise": "bold black on yellow3", "observe": "bold white on grey35"}
BAR = 28
WIDE_BAR = 64
SPARK = 64
MOST_CIRCUITS = 14
MOST_SERVICES = 8
MOST_RECENT = 8
LINE_EVERY_S = 10.0
_LEVELS = "▁▂▃▄▅▆▇█"

Status = Mapping[str, Any]


def render(status: Status, recent: Sequence[Mapping[str, Any]] = (), history: Iterable[Row] = ()) -> RenderableType:
    """Return one screen. `recent` is newest first; `history` (of `adapters.trail`), oldest first, draws the curves."""
    parts: list[RenderableType] = [_header(status)]
    if status.get("power_w") is None:
        return Group(*parts, Padding(Text("waiting for the first tick", style=QUIET), (1, 1)))
    parts.extend(_alarms(status))
    parts.append(Padding(_power(status, list(history)), (1, 1, 0, 1)))
    parts.append(Padding(_circuits(status), (1, 1, 0, 1)))
    if status["services"]:
        parts.append(Padding(_services(status), (1, 1, 0, 1)))
    standing = _standing(status)
    if standing is not None:
        parts.append(Padding(standing, (1, 1, 0, 1)))
    parts.append(Padding(_recent(recent), (1, 1, 0, 1)))
    return Group(*parts)


def line(status: Status) -> str:
    """Return the state as one plain line."""
    power = status.get("power_w")
    head = f"{_time(status['at'])} {status['facility']} {status['mode']}"
    if power is None:
        return f"{head} waiting for the first tick"
    price = status["price_per_mwh"]
    parts = [
        f"grid {watts(power['meter'] if power['meter'] is not None else power['total'])}",
        f"AI {watts(power['gpu'])}",
        f"mining {watts(power['miner'])}",
        f"headroom {watts(status['headroom_w'])}",
        f"price {'unknown' if price is None else f'{price:.2f}'} {status['currency']}/MWh",
        f"plan {status['plan']['rung'] or 'none'}",
        f"{status['pending']} pending",
    ]
    parts.extend(f"ALARM {alarm['key']}: {alarm['text']}" for alarm in status["alarms"])
    return f"{head} {', '.join(parts)}"


class TerminalView:
    """Shows statuses on a terminal as one live screen, and as a line now and then where there is no terminal."""

    def __init__(self, stream: TextIO | None = None, note: str = "", console: Console | None = None) -> None:
        """`note` stands in the last line, such as the page's address and how to end."""
        self._stream = stream if stream is not None else sys.stdout
        self._console = console if console is not None else Console(file=self._stream, highlight=False)
        self._note = note
        self._history: deque[Row] = deque(maxlen=SPARK)
        self._live: Live | None = None
        self._said: tuple[float, tuple[Any, ...]] | None = None

    @property
    def on_screen(self) -> bool:
        """Whether somebody can look at a screen here."""
        return self._console.is_terminal and not self._console.options.ascii_only

    def __enter__(self) -> Self:
        """Take the screen."""
        if self.on_screen:
            # It is redrawn once per status; a refreshing thread of its own would have nothing to do.
            self._live = Live(console=self._console, screen=True, auto_refresh=False, redirect_stderr=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the screen back as it was."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def show(self, status: Status, recent: Sequence[Mapping[str, Any]] = ()) -> None:
        """Show one status."""
        row = row_of(status)
        if row is not None:
            self._history.append(row)
        if self._live is None:
            self._say(status)
            return
        screen = render(status, recent, self._history)
        note = Padding(Text(self._note, style=QUIET), (1, 1, 0, 1)) if self._note else ""
        self._live.update(Group(screen, note), refresh=True)

    def _say(self, status: Status) -> None:
        """Write a line when something beside the numbers changed, or every now and then."""
        alarms = tuple(alarm["key"] for alarm in status.get("alarms", ()))
        holds = tuple(hold["id"] for hold in status.get("holds", ()))
        matter = (status["mode"], status.get("ready"), alarms, holds, status.get("plan", {}).get("rung"))
        if self._said is not None and self._said[1] == matter and status["at"] - self._said[0] < LINE_EVERY_S:
            return
        self._said = (status["at"], matter)
        self._stream.write(line(status) + "\n")
        self._stream.flush()


async def watch(operations: Operations, view: TerminalView) -> None:
    """Show every tick until cancelled."""
    recent = getattr(operations, "recent", None)
    events: Any = operations.events()
    with view:
        async with aclosing(events):
            async for status in events:
                view.show(status, [] if recent is None else recent())


def watts(value: float | None) -> str:
    """Return watts with three digits and the unit that fits."""
    if value is None:
        return "–"
    for unit, scale in (("MW", 1e6), ("kW", 1e3)):
        if abs(value) >= scale:
            digits = 2 if abs(value) < 10 * scale else 1 if abs(value) < 100 * scale else 0
            return f"{value / scale:.{digits}f} {unit}"
    return f"{value:.0f} W"


def bar(parts: Sequence[tuple[float, str]], whole: float, width: int, fill: str = "━") -> Text:
    """Return a bar of `width` cells that is filled by `parts` (value, style) as shares of `whole`."""
    text = Text()
    reached, cells = 0.0, 0
    for value, style in parts:
        reached += max(0.0, value)
        upto = min(width, round(width * reached / whole)) if whole > 0.0 else 0
        text.append(fill * max(0, upto - cells), style=style)
        cells = max(cells, upto)
    text.append(("─" if fill == "━" else "━") * (width - cells), style=FREE)
    return text


def sparkline(values: Sequence[float | None], low: float | None = None) -> str:
    """Return one block character per value, scaled from `low` (or the least value) to the greatest."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    least, most = min(known) if low is None else low, max(known)
    span = most - least
    cells = []
    for value in values:
        share = 0.0 if value is None or span <= 0.0 else (value - least) / span
        cells.append(" " if value is None else _LEVELS[max(0, min(7, int(8 * share)))])
    return "".join(cells)


def _header(status: Status) -> RenderableType:
    grid = Table.grid(expand=True)
    grid.add_column()
    grid.add_column(justify="right")
    mode = str(status["mode"])
    left = Text.assemble(
        ("mullet", "bold"), "  ", (str(status["facility"]), "bold cyan"), "  ", (f" {mode.upper()} ", MODE_STYLES[mode])
    )
    if not status.get("ready"):
        left.append("  reading the loads", style=WARN)
    pending = status.get("pending", 0)
    right = Text(_time(status["at"]), style=QUIET)
    if pending:
        right = Text.assemble((f"{pending} pending", WARN), "  ", right)
    grid.add_row(left, right)
    return Padding(grid, (0, 1))


def _alarms(status: Status) -> list[RenderableType]:
    lines = [
        Text.assemble(("● ", BAD), (f"{alarm['key']}  ", BAD), str(alarm["text"]), overflow="ellipsis", no_wrap=True)
        for alarm in status["alarms"]
    ]
    faults: Mapping[str, str] = status["faults"]
    if faults and all(alarm["key"] != "loads/unread" for alarm in status["alarms"]):
        some = ", ".join(list(faults)[:4]) + (", …" if len(faults) > 4 else "")
        lines.append(
            Text.assemble(
                ("● ", WARN),
                (f"{len(faults)} load{'' if len(faults) == 1 else 's'} cannot be read  ", WARN),
                some,
                no_wrap=True,
            )
        )
    return [Padding(Group(*lines), (1, 1, 0, 1))] if lines else []


def _power(status: Status, history: Sequence[Row]) -> RenderableType:
    power, row = status["power_w"], row_of(status)
    limit = row.values[4] if row is not None else None
    meter = power["meter"] if power["meter"] is not None else power["total"]
    unmanaged = max(0.0, meter - power["miner"] - power["gpu"])
    whole = max(limit or 0.0, meter)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=11)
    grid.add_column(justify="right", min_width=9)
    grid.add_column(no_wrap=True)
    stack = bar([(power["gpu"], GPU), (power["miner"], MINER), (unmanaged, UNMANAGED)], whole, WIDE_BAR, "█")
    headroom = status["headroom_w"]
    grid.add_row(Text("Grid draw", style="bold"), Text(watts(meter), style="bold"), stack)
    grid.add_row("Limit", watts(limit), _headroom(headroom, limit))
    for name, style, value, column, low in (
        ("■ GPUs", GPU, watts(power["gpu"]), 1, 0.0),
        ("■ Miners", MINER, watts(power["miner"]), 0, 0.0),
        ("■ Unmanaged", UNMANAGED, watts(unmanaged), 2, 0.0),
        ("■ Price", PRICE, _price(status), 6, None),
    ):
        spark = sparkline([item.values[column] for item in history], low)
        label = Text(name)
        label.stylize(style, 0, 1)
        grid.add_row(label, value, Text(spark, style=style))
    return grid


def _headroom(headroom: float, limit: float | None) -> Text:
    share = headroom / limit if limit else 0.0
    style = BAD if headroom < 0.0 else WARN if share < 0.03 else GOOD
    return Text.assemble((f"{watts(headroom)} headroom", style), (f"  {100 * share:.0f} % of the limit is free", QUIET))


def _price(status: Status) -> str:
    price = status["price_per_mwh"]
    return "unknown" if price is None else f"{price:.2f}/MWh"


def _circuits(status: Status) -> RenderableType:
    circuits: Mapping[str, Mapping[str, Any]] = status["circuits"]
    tight = sorted(circuits, key=lambda name: circuits[name]["sum_w"] / max(1.0, circuits[name]["limit_w"]))
    shown = set(tight[-MOST_CIRCUITS:]) | {name for name, item in circuits.items() if item["parent"] is None}
    table = _table("Circuit", "", "Worst sum", "Limit", "Measured", "")
    for name, depth in _tree(circuits):
        if name not in shown:
            continue
        item = circuits[name]
        limit, worst, measured = item["limit_w"], item["sum_w"], item["measured_w"]
        over = worst > limit + 0.5 or (measured or 0.0) > limit
        style = BAD if over else WARN if worst > 0.97 * limit else "white"
        whole = max(limit, worst)
        filled = min(measured if measured is not None else worst, worst)
        gauge = bar([(filled, style), (worst - filled, UNMANAGED)], whole, BAR)
        table.add_row(
            "  " * depth + name, gauge, Text(watts(worst), style=style), watts(limit), watts(measured), _remark(item)
        )
    if len(circuits) > len(shown):
        table.add_row(Text(f"{len(circuits) - len(shown)} more", style=QUIET), "", "", "", "", "")
    return table


def _remark(item: Mapping[str, Any]) -> Text:
    if item["meter"] == "bad":
        return Text(item["meter_detail"] or "meter bad", style=BAD)
    if item["meter_age_s"] is not None and item["meter_age_s"] > 5.0:
        return Text(f"meter {item['meter_age_s']:.0f} s old", style=WARN)
    if not item["increases"]:
        return Text(item["why_not"] or "no increases", style=WARN)
    return Text(str(item["cause"] or "").replace("_", " "), style=QUIET)


def _tree(circuits: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, int]]:
    order: list[tuple[str, int]] = []

    def walk(parent: str | None, depth: int) -> None:
        for name, item in circuits.items():
            if item["parent"] == parent:
                order.append((name, depth))
                walk(name, depth + 1)

    walk(None, 0)
    return order


def _services(status: Status) -> RenderableType:
    table = _table("Service", "", "Need", "Cap", "Waiting", "Tokens/s")
    for name, item in list(status["services"].items())[:MOST_SERVICES]:
        need, cap = item["need_w"], item["limit_w"]
        short = need is not None and need > cap + 1.0
        gauge = bar([(min(need or 0.0, cap), WARN if short else GPU)], max(cap, need or 0.0, 1.0), BAR)
        tokens = "–" if item["tokens_per_s"] is None else f"{item['tokens_per_s']:,.0f}"
        waiting = "–" if item["waiting"] is None else f"{item['waiting']:,.0f}"
        table.add_row(name, gauge, Text(watts(need), style=WARN if short else ""), watts(cap), waiting, tokens)
    return table


def _standing(status: Status) -> RenderableType | None:
    lines = [
        Text.assemble(
            ("hold    ", WARN), f"{item['target']} {item['kind']}  ", (f"{item['owner']}: {item['reason']}", QUIET)
        )
        for item in status["holds"]
    ]
    for item in status["curtailments"]:
        ahead_s = item["start"] - status["at"]
        when = f"in {ahead_s / 60.0:.0f} min" if ahead_s > 0.0 else "now"
        cause = item["cause"].replace("_", " ")
        lines.append(
            Text.assemble(
                ("ceiling ", WARN), f"{item['circuit']} at most {watts(item['limit_w'])}  ", (f"{cause}, {when}", QUIET)
            )
        )
    return Group(*lines[:6]) if lines else None


def _recent(recent: Sequence[Mapping[str, Any]]) -> RenderableType:
    if not recent:
        return Text("nothing was decided yet", style=QUIET)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=QUIET)
    grid.add_column(style=QUIET, min_width=8)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    for item in recent[:MOST_RECENT]:
        grid.add_row(_time(item["at"]), str(item["kind"]), Text(str(item["text"])))
    return grid


def _table(*names: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=QUIET, pad_edge=False)
    for position, name in enumerate(names):
        right = 2 <= position < (5 if name != "Tokens/s" else 6)
        table.add_column(
            name, justify="right" if right else "left", no_wrap=True, min_width=14 if position == 0 else None
        )
    return table


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%SZ")
