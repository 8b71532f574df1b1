"""Makes hardware/SUPPORTED.md: `python -m mullet_hardware.asic.supported [--results FILE] > hardware/SUPPORTED.md`.

The table of firmwares comes from capability.py, what the contract showed from the file that
`pytest --asic-results FILE` wrote (hardware/contract-results.json where none is named). pyasic is not imported.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mullet.domain.load import Steering
from mullet_hardware.asic.capability import FIRMWARES, HEALTH, MONITOR, Firmware, Grade

RESULTS = Path(__file__).parents[2] / "contract-results.json"
RESULTS_HEADING = "## What the contract showed"
_ABOUT = """\
# Miner firmwares

Made by `uv run python -m mullet_hardware.asic.supported > hardware/SUPPORTED.md`; do not edit it.

**Nothing here was run on hardware**, unless a grade says so. A driver and its simulated device were written from one
text: that they agree shows that both read it alike, and the grade says what text it was. Treat a firmware as untried
on your machines: observe first.

Grades, the strongest first: *hardware* (run against it), *captured payload* (a test parses a response that others
captured from a device), *documentation* (written from it), *library source* (read there). A capture proves reads, never
writes. Where a line does not say *captured payload*, there is no capture.
"""
_RAMPS = """\
Ramps are cautious figures from documents and field reports, not measured: `ramp_down_s` and `ramp_up_s` of a bank take
what was measured on site. No miner here ends a setpoint by itself; an order for power is a ceiling.
"""
_STEERING = {
    Steering.MONITOR: "watched only",
    Steering.ON_OFF: "stop and resume",
    Steering.MODES: "stop, resume, modes",
    Steering.STEPPED: "stop, resume, steps",
    Steering.CONTINUOUS: "stop, resume, watts",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the document to standard output.

    Raises:
        OSError: the file of results that was named cannot be read.
        ValueError: it is none.
    """
    parser = argparse.ArgumentParser(prog="python -m mullet_hardware.asic.supported", description=__doc__)
    parser.add_argument("--results", type=Path, metavar="FILE", help="what `pytest --asic-results FILE` wrote")
    path = parser.parse_args(arguments).results
    if path is None and RESULTS.is_file():
        path = RESULTS
    sys.stdout.write(document(None if path is None else json.loads(path.read_text())))
    return 0


def document(results: Mapping[str, Any] | None) -> str:
    """Return the whole document; `results` is what the contract's tests wrote, None where they were not run."""
    return f"{capabilities()}\n{contract(results)}"


def capabilities() -> str:
    """Return the part that comes from the table of firmwares."""
    firmwares = list(FIRMWARES.values())
    can = _table(
        (
            "firmware",
            "class",
            "control",
            "power by",
            "a change reboots it",
            "writes are",
            "reports watts",
            "reports of boards, heat, fans, errors",
            "ramp down, up",
        ),
        (_can(each) for each in firmwares),
    )
    known = _table(
        ("class", "reads known from", "writes known from", "mining is told by", "ports", "default login", "sources"),
        (_known(each) for each in firmwares),
    )
    uncaptured = [f"`{each.name}`" for each in firmwares if each.grade_of_reads not in (Grade.CAPTURE, Grade.HARDWARE)]
    run = [f"`{each.name}`" for each in firmwares if Grade.HARDWARE in (each.grade_of_reads, each.grade_of_writes)]
    return "\n".join(
        (
            _ABOUT,
            f"Run on hardware: {', '.join(run) or 'none'}. No capture of: {', '.join(uncaptured) or 'none'}.\n",
            "## What can be done\n",
            can,
            _RAMPS,
            "## What that rests on\n",
            known,
        )
    )


def contract(results: Mapping[str, Any] | None) -> str:
    """Return the part that comes from the contract's tests."""
    about = f"{RESULTS_HEADING}\n\nThe driver against simulated devices on their wire, with every fault that they know"
    if results is None:
        return f"{about}: not recorded.\n"
    found: Mapping[str, Mapping[str, Mapping[str, int]]] = results["results"]
    latencies = sorted(
        {each for by_latency in found.values() for each in by_latency}, key=lambda text: int(text.split()[0])
    )
    rows = [
        (f"`{name}`", *(_outcome(found.get(name, {}).get(latency)) for latency in latencies))
        for name in FIRMWARES
        if name != MONITOR
    ]
    return (
        f"{about}, on {results['date']} by `{results['command']}`. Columns are the latency of each answer; a test is"
        " skipped where the device does not have the fault or takes no orders.\n\n"
        f"{_table(('class', *latencies), rows)}"
    )


def _can(firmware: Firmware) -> tuple[str, ...]:
    capability = firmware.capability
    watched = capability.steering is Steering.MONITOR
    return (
        firmware.title,
        f"`{firmware.name}`",
        _STEERING[capability.steering],
        firmware.power_by or "-",
        "-" if watched else "yes" if capability.reboots_on_change else "no",
        str(firmware.keeps),
        "yes" if capability.measures_watts else "no",
        _health(firmware),
        "-" if watched else f"{capability.ramp_down_s:g} s, {capability.ramp_up_s:g} s",
    )


def _health(firmware: Firmware) -> str:
    if firmware.untold == frozenset(HEALTH):
        return "not asked"
    untold = [name for name in HEALTH if name in firmware.untold]
    return f"all but {', '.join(untold)}" if untold else "all"


def _known(firmware: Firmware) -> tuple[str, ...]:
    ports = ", ".join(str(port) for port in (firmware.rpc_port, firmware.web_port) if port is not None)
    login = "none is asked for" if firmware.password is None else firmware.password
    return (
        f"`{firmware.name}`",
        str(firmware.grade_of_reads),
        "never written" if firmware.grade_of_writes is None else str(firmware.grade_of_writes),
        firmware.mining_told_by,
        ports,
        login if firmware.username is None else f"{firmware.username} / {login}",
        firmware.sources,
    )


def _outcome(counts: Mapping[str, int] | None) -> str:
    if counts is None:
        return "not run"
    failed = f"**{counts['failed']} failed**, " if counts["failed"] else ""
    return f"{failed}{counts['passed']} passed, {counts['skipped']} skipped"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
