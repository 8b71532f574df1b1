"""`mullet status --fleet`: the fleet by bank, and what was measured of each bank of miners against its nameplate."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from mullet.cli.say import number, power, say, table

FAR_SHOWN = 10
"""Loads far from their group that are named per bank; --json names all."""


def banks_of(
    rows: Sequence[Mapping[str, Any]], learned: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, dict[str, Any]]:
    """Return the fleet by bank: how many loads stand in which state, what they draw, and what was learnt of them."""
    banks: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        banks[str(row["bank"])].append(row)
    found: dict[str, dict[str, Any]] = {}
    for bank, members in banks.items():
        found[bank] = {
            "kind": members[0]["kind"],
            "loads": len(members),
            "states": dict(Counter(str(row["state"] or "unknown") for row in members)),
            "faults": sum(1 for row in members if row["fault"] is not None),
            "pending": sum(1 for row in members if row["pending"]),
            "watts": sum(row["watts"] for row in members if row["watts"] is not None),
            "unmeasured": sum(1 for row in members if row["watts"] is None),
        }
        if learned is not None and bank in learned:
            found[bank]["learned"] = learned[bank]
    return found


def show_fleet(banks: Mapping[str, Mapping[str, Any]]) -> None:
    """Print one row per bank, then one per measured point, ramps, and who is far from its group."""
    table(
        ("bank", "kind", "loads", "states", "faults", "pending", "draws", "unmeasured"),
        [
            (
                bank,
                row["kind"],
                str(row["loads"]),
                ", ".join(f"{count} {state}" for state, count in sorted(row["states"].items())),
                str(row["faults"]),
                str(row["pending"]),
                power(row["watts"] if row["unmeasured"] < row["loads"] else None),
                str(row["unmeasured"]),
            )
            for bank, row in banks.items()
        ],
        right=("loads", "faults", "pending", "draws", "unmeasured"),
    )
    learned = {bank: row["learned"] for bank, row in banks.items() if row.get("learned")}
    points = [_point_row(bank, point) for bank, found in learned.items() for point in found["points"]]
    if points:
        columns = ("bank", "point", "nameplate", "measured", "p95", "TH/s", "J/TH", "loads", "samples")
        table(columns, points, right=columns[2:])
    for bank, found in learned.items():
        say(
            f"{bank}: {_ramp_words('down', found['ramp_down'])}; {_ramp_words('up', found['ramp_up'])}; {_basis(found)}"
        )
    for found in learned.values():
        far = list(found["far"].items())
        for load, words in far[:FAR_SHOWN]:
            say(f"far {load}: {words}")
        if len(far) > FAR_SHOWN:
            say(f"far: {len(far) - FAR_SHOWN} more of {found['bank']} (--json names them)")


def _point_row(bank: str, point: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        bank,
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
