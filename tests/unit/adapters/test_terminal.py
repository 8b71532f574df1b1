"""The terminal view: what it shows, at any width and in any state, and what it says where there is no terminal."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest
from rich.console import Console

from mullet.adapters.terminal import MOST_CIRCUITS, TerminalView, bar, line, render, sparkline, watch, watts
from mullet.adapters.trail import row_of
from mullet.domain.snapshot import HoldKind
from mullet.testing.desk import MadeUpDesk

AT = 1_790_000_000.0


def drawn(status: dict[str, Any], recent: Any = (), width: int = 110, history: Any = ()) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(render(status, recent, history))
    return captured.get()


async def test_a_screen_tells_what_an_operator_needs() -> None:
    desk = MadeUpDesk(AT, "west-texas")
    rows = []
    for _ in range(70):
        desk.tick()
        rows.append(row_of(desk.status()))
    await desk.hold("hall-a-031", HoldKind.OFF, "Ana", "fan replacement")
    desk.alarms["feed/price"] = ("price feed is 412 s old", AT)
    text = drawn(desk.status(), desk.recent(), history=rows)
    for wanted in (
        "west-texas",
        "AUTO",
        "feed/price",
        "1 load cannot be read",
        "480 kW",
        "headroom",
        "hall-ai",
        "chat",
        "hall-a-031 off",
        "demand response, in 25 min",
        "Ana holds hall-a-031",
    ):
        assert wanted in text, wanted


@pytest.mark.parametrize("width", [40, 80, 200])
def test_it_stays_within_any_width(width: int) -> None:
    desk = MadeUpDesk(AT)
    desk.alarms["long"] = ("x" * 300, AT)
    desk.note("decision", "y" * 300)
    assert max(len(text) for text in drawn(desk.status(), desk.recent(), width).splitlines()) <= width


def test_before_the_first_tick_it_says_so() -> None:
    early = {"facility": "demo", "at": AT, "mode": "observe", "ready": False}
    assert "waiting for the first tick" in drawn(early)
    assert "waiting for the first tick" in line(early)


def test_what_is_unknown_is_shown_as_unknown() -> None:
    status = MadeUpDesk(AT).status()
    status["price_per_mwh"] = None
    status["power_w"]["meter"] = None
    status["plan"] = {"id": None, "rung": None, "valid_until": None}
    status["services"]["chat"] = {
        "need_w": None,
        "limit_w": 0.0,
        "waiting": None,
        "running": None,
        "tokens_per_s": None,
    }
    assert "unknown" in drawn(status)
    assert "price unknown" in line(status)


def test_of_many_circuits_the_tightest_stay_in_view() -> None:
    status = MadeUpDesk(AT).status()
    spare = status["circuits"]["hall-ai"]
    for number in range(40):
        status["circuits"][f"row-{number:02}"] = {**spare, "sum_w": 1.0}
    status["circuits"]["row-39"] = {**spare, "sum_w": 2.0 * spare["limit_w"]}
    text = drawn(status)
    assert "row-39" in text
    assert text.count("row-") <= MOST_CIRCUITS
    assert f"{len(status['circuits']) - MOST_CIRCUITS} more" in text


def test_without_a_terminal_lines_come_when_something_changed_or_time_passed() -> None:
    desk, stream = MadeUpDesk(AT), io.StringIO()
    with TerminalView(stream) as view:
        assert not view.on_screen
        for _ in range(25):
            desk.tick()
            view.show(desk.status(), desk.recent())
        assert len(stream.getvalue().splitlines()) == 3
        desk.alarms["meter"] = ("silent", AT)
        view.show(desk.status())
    assert stream.getvalue().splitlines()[-1].endswith("ALARM meter: silent")
    assert "\x1b" not in stream.getvalue()


async def test_a_terminal_gets_its_screen_back_when_the_watch_is_cancelled() -> None:
    desk, stream = MadeUpDesk(AT), io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, height=40)
    task = asyncio.create_task(watch(desk, TerminalView(stream, "Ctrl-C ends", console)))
    async with asyncio.timeout(5.0):
        while "Ctrl-C ends" not in stream.getvalue():
            desk.tick()
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    text = stream.getvalue()
    assert text.count("\x1b[?1049h") == text.count("\x1b[?1049l") == 1
    assert not desk.subscribers


def test_bars_and_curves_fill_their_cells() -> None:
    assert [bar(parts, 10.0, 20).plain.count("━") for parts in ([], [(5.0, "")], [(4.0, ""), (6.0, "")])] == [0, 10, 20]
    assert len(bar([(50.0, ""), (-5.0, "")], 10.0, 20).plain) == 20
    assert bar([(1.0, "")], 0.0, 20).plain == "─" * 20
    assert sparkline([0.0, None, 10.0, 5.0], 0.0) == "▁ █▅"
    assert sparkline([3.0, 3.0]) == "▁▁"
    assert sparkline([None]) == ""
    assert [watts(value) for value in (None, 12.0, 1_234.0, 45_600.0, 456_000.0, 2.5e7)] == [
        "–",
        "12 W",
        "1.23 kW",
        "45.6 kW",
        "456 kW",
        "25.0 MW",
    ]
