"""`mullet status` and `mullet why`: what the running daemon knows, and why a load stands where it stands."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from mullet.cli.client import Daemon, segment
from mullet.cli.fleet import banks_of, show_fleet
from mullet.cli.reach import FacilityName, StateFolder, TokenFile, Url, ask, reach
from mullet.cli.say import USAGE, AsJson, fail, instant, many, nested, number, power, say, say_json, table

MOST_LOADS = 20_000
WATCH_S = 1.0
CLEAR = "\x1b[2J\x1b[H"


def register(app: typer.Typer) -> None:
    """Offer the commands of this module."""
    app.command("status", help=_STATUS)(status)
    app.command("why", help=_WHY)(why)


_STATUS = """Show what the running daemon knows: mode, power, headroom, circuits, plan, holds and alarms.

Example: mullet status --fleet"""

_WHY = """Explain a load's setpoint or what binds a circuit: the inputs, the limit and the rule that decided.

Of a load it also tells its group's break-even, the next change that the plan expects, and what would flip the next
load; of a circuit, when it binds and what one more MW is worth then. Times are in UTC.

Example: mullet why wm-a1-007"""


def status(
    fleet: Annotated[bool, typer.Option("--fleet", help="One row per bank, and what was measured of it.")] = False,
    loads: Annotated[bool, typer.Option("--loads", help="One row per load.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again every second until Ctrl-C.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    token_file: TokenFile = None,
    facility: FacilityName = None,
    state: StateFolder = None,
) -> None:
    if fleet and loads:
        fail("--fleet and --loads are two views; give one", USAGE)
    daemon = reach(url, token_file, facility, state)
    if not watch:
        _show(daemon, fleet, loads, as_json)
        return
    with contextlib.suppress(KeyboardInterrupt):
        _watch(daemon, fleet, loads, as_json)


def why(
    target: Annotated[str, typer.Argument(help="A load or a circuit.")],
    as_json: AsJson = False,
    url: Url = None,
    token_file: TokenFile = None,
    facility: FacilityName = None,
    state: StateFolder = None,
) -> None:
    answer = ask(reach(url, token_file, facility, state), "GET", f"why/{segment(target)}")
    if as_json:
        say_json(answer)
        return
    for line in nested(_in_words(answer)):
        say(line)


def _in_words(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer with the plan's reasons as sentences only: their numbers are for programs."""
    told = dict(answer)
    if told.get("group") is not None:
        told["group"] = {told["group"]["key"]: told["group"]["words"]}
    if "binds" in told:
        told["binds"] = [item["words"] for item in told["binds"]]
    return told


def _watch(daemon: Daemon, fleet: bool, loads: bool, as_json: bool) -> None:
    import time

    if fleet or loads or as_json:
        while True:
            if not as_json and sys.stdout.isatty():
                sys.stdout.write(CLEAR)
            _show(daemon, fleet, loads, as_json)
            sys.stdout.flush()
            time.sleep(WATCH_S)
    from mullet.adapters.terminal import TerminalView

    with TerminalView(note=f"{daemon.url}   Ctrl-C ends") as view:
        while True:
            answer = ask(daemon, "GET", "status")
            view.show(answer, answer.get("recent", ()))
            time.sleep(WATCH_S)


def _show(daemon: Daemon, fleet: bool, loads: bool, as_json: bool) -> None:
    if fleet or loads:
        page = ask(daemon, "GET", f"loads?limit={MOST_LOADS}")
        rows = page["rows"]
        banks = banks_of(rows, ask(daemon, "GET", "learned")) if fleet else {}
        if as_json:
            say_json(banks if fleet else rows)
        elif fleet:
            show_fleet(banks)
        else:
            show_loads(rows)
        return
    answer = ask(daemon, "GET", "status")
    if as_json:
        say_json(answer)
    else:
        show_status(answer)


def headline(status: Mapping[str, Any]) -> str:
    """Return the facility's state in one line."""
    watts = status.get("power_w")
    if watts is None:
        return f"{status.get('facility')}  {status.get('mode')}  {instant(status.get('at'))}  no tick finished yet"
    price = status.get("price_per_mwh")
    alarms = len(status.get("alarms", ()))
    parts = [
        f"{status.get('facility')}  {status.get('mode')}  {instant(status.get('at'))}",
        f"{power(watts.get('total'))} (miners {power(watts.get('miner'))}, GPUs {power(watts.get('gpu'))})",
        f"headroom {power(status.get('headroom_w'))}",
        "price unknown" if price is None else f"price {price:.2f} {status.get('currency')}/MWh",
        f"plan {status.get('plan', {}).get('rung') or 'none'}",
        f"{status.get('pending', 0)} pending",
    ]
    if alarms:
        parts.append(many(alarms, "alarm"))
    return "  ".join(parts)


def show_status(status: Mapping[str, Any]) -> None:
    """Print the state: a headline, circuits, services, and what stands in the way."""
    say(headline(status))
    circuits = status.get("circuits", {})
    if circuits:
        table(
            ("circuit", "limit", "counted", "room", "measured", "meter", "increases"),
            [_circuit_row(name, row) for name, row in circuits.items()],
            right=("limit", "counted", "room", "measured"),
        )
    services = status.get("services", {})
    if services:
        table(
            ("service", "need", "limit", "running", "waiting", "tokens/s"),
            [
                (
                    name,
                    power(row["need_w"]),
                    power(row["limit_w"]),
                    number(row["running"]),
                    number(row["waiting"]),
                    number(row["tokens_per_s"]),
                )
                for name, row in services.items()
            ],
            right=("need", "limit", "running", "waiting", "tokens/s"),
        )
    for hold in status.get("holds", ()):
        say(f"hold {hold['id']}: {hold['target']} {hold['kind']} by {hold['owner']}: {hold['reason']}")
    for item in status.get("curtailments", ()):
        until = instant(item["end"])
        say(f"limit {item['id']}: {item['circuit']} at most {power(item['limit_w'])} until {until} ({item['cause']})")
    for load, fault in status.get("faults", {}).items():
        say(f"fault {load}: {fault}")
    for alarm in status.get("alarms", ()):
        say(f"ALARM {alarm['key']}: {alarm['text']} (since {instant(alarm['since'])})")


def _circuit_row(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        name,
        power(row["limit_w"]),
        power(row["sum_w"]),
        power(row["room_w"]),
        power(row["measured_w"]),
        row["meter"] + (f" ({row['meter_detail']})" if row["meter_detail"] else ""),
        "yes" if row["increases"] else f"no: {row['why_not']}",
    )


def show_loads(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print one row per load."""
    table(
        ("load", "state", "draws", "limit", "setpoint", "cause", "rule", "age", "remarks"),
        [
            (
                row["id"],
                row["state"] or "unknown",
                power(row["watts"]),
                power(row["limit_w"]) if row["limit_w"] is not None else "",
                "" if row["setpoint_w"] is None else f"{row['setpoint']} {power(row['setpoint_w'])}".strip(),
                row["cause"] or "",
                row["rule"] or "",
                f"{number(row['age_s'], 1)} s",
                "; ".join(_remarks(row)),
            )
            for row in rows
        ],
        right=("draws", "limit", "age"),
    )


def _remarks(row: Mapping[str, Any]) -> list[str]:
    found = []
    if row["fault"] is not None:
        found.append(str(row["fault"]))
    if row["pending"]:
        found.append("pending")
    if row["failures"]:
        found.append(many(row["failures"], "failure"))
    if row["withheld"]:
        found.append(f"withheld: {row['withheld']}")
    if row.get("ailment"):
        found.append(f"not in order: {row['ailment']}")
    if row["far"]:
        found.append(f"far from its group: {row['far']}")
    return found
