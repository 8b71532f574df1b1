"""From what a search found to the banks of a policy: groups of like devices, and the YAML to paste. Pure.

Where the devices told watts of themselves the group says so; elsewhere an estimate stands, and is called one.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from mullet.domain.load import Steering
from mullet.domain.telemetry import LoadState
from mullet.ports import Sighting

STANDBY_FRACTION = 0.01
STANDBY_LEAST_W, STANDBY_MOST_W = 1.0, 30.0
"""Assumed draw of a device that is off and does not tell it: a hundredth of full, within these."""
WORST_FRACTION = 1.07
"""Assumed worst draw over full: makers give their figures with 5 %, and cold air and low voltage add to it."""
RANGES_PER_LINE = 4
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and what it rests on, in words."""

    value: float
    basis: str
    reported: bool
    """Whether the devices themselves told it; else it is an estimate."""


@dataclass(frozen=True, slots=True)
class Bank:
    """Devices of one model with one kind of firmware and one kind of access, as a policy would list them."""

    id: str
    title: str
    make: str
    model: str
    firmwares: tuple[str, ...]
    options: dict[str, Any]
    addresses: tuple[str, ...]
    """Ranges, ascending."""
    count: int
    running: int
    controlled: bool
    full_watts: Figure | None
    off_watts: Figure | None
    worst_watts: float | None
    th_per_s: Figure | None
    default_password: bool | None
    access: str
    """What keeps it from being written to, "" where nothing does."""


def banks_of(sightings: Iterable[Sighting]) -> list[Bank]:
    """Return what was found as banks, in order of model; devices that differ in options or password stand apart."""
    groups: dict[tuple[str, ...], list[Sighting]] = {}
    for sighting in sightings:
        options = json.dumps(dict(sighting.options), sort_keys=True)
        key = (sighting.model, sighting.title, options, str(sighting.default_password))
        groups.setdefault(key, []).append(sighting)
    taken: set[str] = set()
    return [_bank(groups[key], taken) for key in sorted(groups)]


def fold(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return IPv4 addresses as ascending ranges: ("10.0.1.1-48", "10.0.2.7")."""
    runs: list[list[int]] = []
    for number in sorted({int(ipaddress.IPv4Address(address)) for address in addresses}):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return tuple(_range(ipaddress.IPv4Address(first), ipaddress.IPv4Address(last)) for first, last in runs)


def fragment(banks: Sequence[Bank], driver: str, circuit: str) -> str:
    """Return the `banks:` section of a policy; a bank whose watts nobody knows is commented out."""
    lines = ["banks:"] if any(bank.full_watts is not None for bank in banks) else ["banks: []"]
    for bank in banks:
        lines += _yaml(bank, driver, circuit)
    return "\n".join(lines) + "\n"


def _bank(members: Sequence[Sighting], taken: set[str]) -> Bank:
    first = members[0]
    running = [item for item in members if item.state is LoadState.ACTIVE]
    full = _full(members, running)
    measured = [item.watts for item in members if item.watts is not None]
    off = _off(members, full)
    worst = None if full is None else _three_digits(max([full.value, *measured]) * WORST_FRACTION)
    return Bank(
        id=_id(first, taken),
        title=first.title,
        make=first.make,
        model=first.model,
        firmwares=tuple(sorted({item.firmware for item in members if item.firmware})),
        options=dict(first.options),
        addresses=fold(item.address for item in members),
        count=len(members),
        running=len(running),
        controlled=first.steering is not Steering.MONITOR,
        full_watts=full,
        off_watts=off,
        worst_watts=worst,
        th_per_s=_hashrate(first, running),
        default_password=first.default_password,
        access=_access(first),
    )


def _full(members: Sequence[Sighting], running: Sequence[Sighting]) -> Figure | None:
    limits = [item.limit_watts for item in members if item.limit_watts]
    if limits:
        return Figure(_digits(median(limits)), _of("limit that the devices report", limits), True)
    drawn = [item.watts for item in running if item.watts]
    if drawn:
        return _told(members[0], drawn, "while running")
    plate = members[0].nameplate_watts
    return None if plate is None else Figure(plate, "estimated: maker's data sheet", False)


def _off(members: Sequence[Sighting], full: Figure | None) -> Figure | None:
    asleep = [item.watts for item in members if item.state is LoadState.ASLEEP and item.watts is not None]
    if asleep:
        return _told(members[0], asleep, "while asleep")
    if full is None:
        return None
    assumed = min(STANDBY_MOST_W, max(STANDBY_LEAST_W, STANDBY_FRACTION * full.value))
    return Figure(_digits(assumed), "estimated: assumed for a device that is off", False)


def _told(first: Sighting, watts: Sequence[float], when: str) -> Figure:
    """Return watts as the devices tell them, which some measure and some make up."""
    how = "measured by the devices" if first.measures_watts else "estimated: by the devices' own firmware,"
    return Figure(_digits(median(watts)), _of(f"{how} {when}", watts), first.measures_watts)


def _hashrate(first: Sighting, running: Sequence[Sighting]) -> Figure | None:
    told = [item.th_per_s for item in running if item.th_per_s]
    if told:
        return Figure(_digits(median(told)), _of("told by the devices while running", told), True)
    plate = first.nameplate_th_per_s
    return None if plate is None else Figure(plate, "estimated: maker's data sheet", False)


def _access(first: Sighting) -> str:
    if first.steering is Steering.MONITOR:
        return "only watched: nothing of it can be controlled"
    if "credential" in first.options:
        return ""
    if first.default_password is True:
        return "accepts its maker's default password; read-only until the policy says accept_default_password: true"
    if first.default_password is False:
        return "its password is not the maker's; read-only until a credential is named"
    if first.asks_password:
        return "read-only until a credential is named, or the policy says accept_default_password: true"
    return ""


def _yaml(bank: Bank, driver: str, circuit: str) -> list[str]:
    many = f"{bank.count} found, {bank.running} of them running"
    head = [f"# {' '.join(filter(None, (bank.title, bank.make, bank.model)))}; {many}"]
    if bank.firmwares:
        head.append(f"# versions: {', '.join(bank.firmwares[:RANGES_PER_LINE])}")
    if bank.access:
        head.append(f"# {bank.access}")
    body = [
        f"- id: {_quoted(bank.id)}",
        "  kind: miner",
        f"  driver: {driver}",
        f"  options: {{{', '.join(f'{name}: {_quoted(value)}' for name, value in bank.options.items())}}}",
    ]
    parts = _parts(bank.addresses)
    for index, part in enumerate(parts):
        # A text without quotes goes on in deeper lines.
        lead = "    " if index else "  addresses: "
        body.append(lead + ", ".join(part) + ("," if index < len(parts) - 1 else ""))
    body.append(f"  circuit: {_quoted(circuit)}")
    if bank.full_watts is None or bank.off_watts is None or bank.worst_watts is None:
        head.append("# nobody told its watts: fill in what one draws, then take away the number signs")
        body += ["  points:", '    - {name: "off", power: ? W}', "    - {name: full, power: ? W}", "  worst: ? W"]
        return [f"  # {_plain(line.removeprefix('# '))}" for line in (*head, *body)]
    rate, told = "", ""
    if bank.th_per_s is not None:
        rate, told = f", hashrate: {bank.th_per_s.value:g} TH/s", f"; hashrate {bank.th_per_s.basis}"
    body += [
        "  points:",
        f'    - {{name: "off", power: {bank.off_watts.value:g} W}}  # {bank.off_watts.basis}',
        f"    - {{name: full, power: {bank.full_watts.value:g} W{rate}}}  # {bank.full_watts.basis}{told}",
        f"  worst: {bank.worst_watts:g} W  # estimated: {WORST_FRACTION - 1.0:.0%} above full",
    ]
    return [f"  {line}" for line in (*(f"# {_plain(line.removeprefix('# '))}" for line in head), *body)]


def _id(first: Sighting, taken: set[str]) -> str:
    stem = re.sub(r"[^a-z0-9]+", "-", (first.model or first.title or UNKNOWN).lower().replace("+", "plus")).strip("-")
    stem = (stem or UNKNOWN)[:40]
    kind = re.sub(r"[^a-z0-9]+", "-", str(first.options.get("class", ""))).strip("-")
    candidates = [stem, f"{stem}-{kind}" if kind else stem]
    candidates += [f"{candidates[1]}-{number}" for number in range(2, len(taken) + 3)]
    found = next(name for name in candidates if name not in taken)
    taken.add(found)
    return found


def _range(first: ipaddress.IPv4Address, last: ipaddress.IPv4Address) -> str:
    if first == last:
        return str(first)
    start, end = str(first).rpartition("."), str(last).rpartition(".")
    return f"{first}-{end[2]}" if start[0] == end[0] else f"{first}-{last}"


def _parts(ranges: Sequence[str]) -> list[Sequence[str]]:
    return [ranges[at : at + RANGES_PER_LINE] for at in range(0, len(ranges), RANGES_PER_LINE)]


def _of(what: str, values: Sequence[float]) -> str:
    return f"{what}, median of {len(values)}" if len(values) > 1 else f"{what}, one"


def _quoted(value: object) -> str:
    """Return a scalar as YAML; a text is quoted where YAML could read it as anything else."""
    if isinstance(value, str) and re.fullmatch(r"[a-z][a-z0-9_-]*", value) and value not in ("on", "off", "yes", "no"):
        return value
    return json.dumps(value)


def _plain(text: str) -> str:
    """Return a device's own words without what would end a comment."""
    return "".join(char if char.isprintable() else " " for char in text)


def _digits(value: float) -> float:
    """Return a number with four digits that count."""
    if value <= 0.0:
        return 0.0
    return round(value, max(0, 3 - math.floor(math.log10(value))))


def _three_digits(value: float) -> float:
    """Return a number rounded up to three digits that count."""
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return _digits(math.ceil(value / step - 1e-9) * step)
