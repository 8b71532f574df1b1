"""What miners tell of boards, temperatures, fans and errors, in bounds: pure rules, without a library or a socket."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mullet.ports import DeviceGarbled, DeviceRefused
from mullet_hardware.asic.device import MOST_TH_PER_S, celsius_of, first_of, number, refuse_error, text_of
from mullet_hardware.asic.protocol import Health

MOST_RPM = 30_000.0
MOST_CHIPS = 10_000.0
MOST_ERRORS = 16
MOST_ERROR_LETTERS = 60
FAILING = ("fail", "error", "fault", "missing")
"""What a chain's status says on Braiins OS where it does not merely tune or rest; its words are not documented."""
CORNERS = ("TopLeft", "TopRight", "BottomLeft", "BottomRight")
"""Sensors of a board on LuxOS."""
_CHAIN = re.compile(r"chain_acn(\d+)")
_FAN = re.compile(r"fan\d+")
_CELSIUS = re.compile(r"temp(\d+_)?\d+|temp_chip\d+")


def entries(told: object, what: str, who: str) -> list[dict[str, Any]]:
    """Return a list of objects.

    Raises:
        DeviceGarbled: it is none.
    """
    if not isinstance(told, list) or not all(isinstance(entry, dict) for entry in told):
        raise DeviceGarbled(f"{who} answered without {what}")
    return told


def at_work(rates: Sequence[float | None]) -> int | None:
    """Return how many boards hash, None where one of them does not tell, or none is told of."""
    known = [rate for rate in rates if rate is not None]
    return sum(rate > 0.0 for rate in known) if known and len(known) == len(rates) else None


def hottest(told: Iterable[object]) -> float | None:
    """Return the highest temperature, None where none is told; 0 stands for a sensor that is not there."""
    return max((celsius for value in told if (celsius := celsius_of({"of": value}, "of"))), default=None)


def slowest(told: Iterable[object], who: str, fitted: float | None = None) -> float | None:
    """Return the revolutions per minute of the slowest fan, None where none is told.

    Some firmware tells 0 for every place that could have a fan: `fitted` says how many there are.

    Raises:
        DeviceGarbled: one of them is no speed.
    """
    found = (number({"rpm": value}, "rpm", 1.0, MOST_RPM, who) for value in told)
    known = sorted((rpm for rpm in found if rpm is not None), reverse=True)
    return min(known[: None if fitted is None else int(fitted)], default=None)


def errors_of(told: Iterable[object]) -> tuple[str, ...]:
    """Return what is reported as wrong: each once, without what would break a line of a log, and not too much."""
    texts = ("".join(letter if letter.isprintable() else " " for letter in str(each)).strip() for each in told)
    return tuple(dict.fromkeys(text[:MOST_ERROR_LETTERS] for text in texts if text))[:MOST_ERRORS]


def joined_entries(answer: Mapping[str, Any], command: str, section: str, who: str) -> list[dict[str, Any]] | None:
    """Return a section of one of several answers that came joined, None where the device refused this one.

    Raises:
        DeviceRefused: the device refused them all.
        DeviceGarbled: there is no such section.
    """
    part = first_of(answer, command, who)
    try:
        refuse_error(part, who)
    except DeviceRefused:
        return None
    return entries(part.get(section), section, f"{who} ({command})")


def braiins_health(answer: Mapping[str, Any], who: str) -> Health:
    """Return what the joined answer of `devs`, `temps`, `fans` and `tunerstatus` tells.

    Raises:
        DeviceError: this is no such answer.
    """
    boards = joined_entries(answer, "devs", "DEVS", who)
    temps = joined_entries(answer, "temps", "TEMPS", who) or []
    fans = joined_entries(answer, "fans", "FANS", who) or []
    tuner = joined_entries(answer, "tunerstatus", "TUNERSTATUS", who) or []
    chains = [chain for each in tuner for chain in entries(each.get("TunerChainStatus", []), "chains", who)]
    return Health(
        boards=at_work([number(board, "MHS 5s", 1e-6, MOST_TH_PER_S, who) for board in boards or ()]),
        boards_fitted=None if boards is None else len(boards),
        celsius=hottest(board.get("Chip") for board in temps),
        fan_rpm=slowest((fan.get("RPM") for fan in fans), who),
        errors=errors_of(filter(None, map(_failure_of_chain, chains))) if chains else None,
    )


def luxos_health(answer: Mapping[str, Any], who: str) -> Health:
    """Return what the joined answer of `devs`, `temps`, `fans` and `events` tells; older releases have no events.

    Raises:
        DeviceError: this is no such answer.
    """
    boards = joined_entries(answer, "devs", "DEVS", who)
    temps = joined_entries(answer, "temps", "TEMPS", who) or []
    fans = joined_entries(answer, "fans", "FANS", who) or []
    events = joined_entries(answer, "events", "EVENTS", who)
    return Health(
        boards=at_work([number(board, "MHS 5s", 1e-6, MOST_TH_PER_S, who) for board in boards or ()]),
        boards_fitted=None if boards is None else len(boards),
        celsius=hottest(board.get(corner) for board in temps for corner in CORNERS),
        fan_rpm=slowest((fan.get("RPM") for fan in fans), who),
        errors=None if events is None else errors_of(_event(event) for event in events),
    )


def antminer_health(answer: Mapping[str, Any], who: str) -> Health:
    """Return what the RPC's `stats` of a stock Antminer tells, which is no error.

    A place without a board has no chips, and its temperatures are 0.

    Raises:
        DeviceRefused: the device answered with an error.
        DeviceGarbled: this is no such answer.
    """
    refuse_error(answer, who)
    fields: dict[str, Any] = {}
    for entry in entries(answer.get("STATS"), "stats", who):
        fields.update(entry)
    places = [match[1] for name in fields if (match := _CHAIN.fullmatch(name))]
    boards = [place for place in places if number(fields, f"chain_acn{place}", 1.0, MOST_CHIPS, who)]
    rates = [number(fields, f"chain_rate{place}", 1e-3, MOST_TH_PER_S, who) for place in boards]
    return Health(
        boards=at_work(rates),
        boards_fitted=len(boards) if places else None,
        celsius=hottest(_antminer_celsius(fields)),
        fan_rpm=slowest(
            (rpm for name, rpm in fields.items() if _FAN.fullmatch(name)),
            who,
            number(fields, "fan_num", 1.0, MOST_RPM, who),
        ),
    )


def antminer_errors(summary: Mapping[str, Any], who: str) -> tuple[str, ...]:
    """Return what the summary of a stock Antminer's web interface reports as wrong.

    Raises:
        DeviceGarbled: it does not hold its checks.
    """
    checks = entries(summary.get("status"), "its checks", who)
    return errors_of(
        f"{check.get('type', '')}: {check.get('msg') or check.get('code', '')}"
        for check in checks
        if check.get("status") != "s"
    )


def _antminer_celsius(fields: Mapping[str, Any]) -> Iterable[object]:
    for name, value in fields.items():
        if not _CELSIUS.fullmatch(name):
            continue
        if isinstance(value, str):
            # The sensors of one board: "78-50-69-70".
            yield from (float(text) for text in re.findall(r"\d+", value)[:16])
        else:
            yield value


def _failure_of_chain(chain: Mapping[str, Any]) -> str:
    """Return what a chain's status says where it fails, "" where it does not; details follow in braces."""
    status = text_of(chain, "Status").split(" {")[0]
    failing = any(word in status.lower() for word in FAILING)
    return f"board {chain.get('HashchainIndex', '')}: {status}" if failing else ""


def _event(event: Mapping[str, Any]) -> str:
    """Return the code of an event, with the board that it is of."""
    place = f" of board {event['ID']}" if event.get("Target") == "BOARD" and "ID" in event else ""
    return f"{text_of(event, 'Code')}{place}"
