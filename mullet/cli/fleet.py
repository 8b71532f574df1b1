"""`mullet status --fleet`: the fleet by bank and make, and what was measured of each against its nameplate."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mullet.cli.say import number, power, say, table

NAMED = 10
"""Loads not in order, or far from their group, that are named per bank and make; --json names all."""
UNKNOWN = "?"


def banks_of(
    rows: Sequence[Mapping[str, Any]], learned: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, dict[str, Any]]:
    """Return the fleet by bank and, in it, by make: how many loads are in which state, what they draw, what was learnt.

    A make is model and firmware, None where it is not known.
    """
    banks: dict[str, dict[str | None, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        banks[str(row["bank"])][row.get("make")].append(row)
    found: dict[str, dict[str, Any]] = {}
    for bank, makes in banks.items():
        of_bank = (learned or {}).get(bank)
        measured = {each["make"]: each for each in of_bank["makes"]} if of_bank is not None else {}
        found[bank] = {
            "kind": next(iter(makes.values()))[0]["kind"],
            **_counts([row for members in makes.values() for row in members]),
            "makes": [
                {"make": make, **_counts(makes[make]), "learned": measured.get(make)}
                for make in sorted(makes, key=lambda make: (make is None, make or ""))
            ],
        }
        if of_bank is not None:
            found[bank]["far"] = of_bank["far"]
    return found


def _counts(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "loads": len(members),
        "states": dict(Counter(str(row["state"] or "unknown") for row in members)),
        "faults": sum(1 for row in members if row["fault"] is not None),
        "pending": sum(1 for row in members if row["pending"]),
        "watts": sum(row["watts"] for row in members if row["watts"] is not None),
        "unmeasured": sum(1 for row in members if row["watts"] is None),
        "ailing": {row["id"]: row["ailment"] for row in members if row.get("ailment")},
    }


def show_fleet(banks: Mapping[str, Mapping[str, Any]]) -> None:
    """Print one row per bank and make and one per measured point, then ramps and who is not in order or far."""
    table(
        ("bank", "make", "kind", "loads", "states", "faults", "pending", "draws", "unmeasured", "ailing", "far"),
        [
            (
                bank,
                row["make"] or UNKNOWN,
                banks[bank]["kind"],
                str(row["loads"]),
                ", ".join(f"{count} {state}" for state, count in sorted(row["states"].items())),
                str(row["faults"]),
                str(row["pending"]),
                power(row["watts"] if row["unmeasured"] < row["loads"] else None),
                str(row["unmeasured"]),
                str(len(row["ailing"])),
                str(len(row["learned"]["far"])) if row["learned"] else "",
            )
            for bank, row in _rows(banks)
        ],
        right=("loads", "faults", "pending", "draws", "unmeasured", "ailing", "far"),
    )
    learned = [(bank, row["learned"]) for bank, row in _rows(banks) if row["learned"]]
    points = [_point_row(bank, found["make"], point) for bank, found in learned for point in found["points"]]
    if points:
        columns = ("bank", "make", "point", "nameplate", "measured", "p95", "TH/s", "J/TH", "loads", "samples")
        table(columns, points, right=columns[3:])
    for bank, found in learned:
        ramps = f"{_ramp_words('down', found['ramp_down'])}; {_ramp_words('up', found['ramp_up'])}"
        say(f"{_title(bank, found['make'])}: {ramps}; {_basis(found)}")
    for bank, row in _rows(banks):
        _name("ailing", row["ailing"], _title(bank, row["make"]))
    for bank, found in learned:
        _name("far", found["far"], _title(bank, found["make"]))


def _name(kind: str, loads: Mapping[str, str], title: str) -> None:
    for load, words in list(loads.items())[:NAMED]:
        say(f"{kind} {load}: {words}")
    if len(loads) > NAMED:
        say(f"{kind}: {len(loads) - NAMED} more of {title} (--json names them)")


def _rows(banks: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((bank, row) for bank, found in banks.items() for row in found["makes"])


def _title(bank: str, make: str | None) -> str:
    return bank if make is None else f"{bank} ({make})"


def _point_row(bank: str, make: str | None, point: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        bank,
        make or UNKNOWN,
        point["name"],
        power(point["nameplate_watts"]),
        power(point["watts"]),
        power(point["watts_p95"]),
        number(point["th_per_s"], 1),
        number(point["joules_per_th"], 1),
        str(point["loads"]),
        str(point["samples"]),
    )


def _ramp_words(which: str, ramp: Mapping[str, Any]) -> str:
    if not ramp["samples"]:
        return f"ramp {which} not measured yet"
    return f"ramp {which} p50 {number(ramp['p50_s'], 1)} s, p95 {number(ramp['p95_s'], 1)} s of {ramp['samples']}"


def _basis(found: Mapping[str, Any]) -> str:
    return "planned by what was measured" if found["in_use"].get("learned") else "planned by nameplate"
