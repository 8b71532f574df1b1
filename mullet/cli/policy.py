"""Commands on policy files: check, schema, diff."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mullet.cli.load import load, read
from mullet.cli.say import NO, AsJson, many, number, power, say, say_json, table

if TYPE_CHECKING:
    from mullet.policy import Problem


def register(app: typer.Typer) -> None:
    """Offer the commands of this module."""
    app.command("check", help=_CHECK)(check)
    app.command("schema", help=_SCHEMA)(schema)
    app.command("diff", help=_DIFF)(diff)


_CHECK = """Check policy files: every problem at once, with file, line, column and field; then what follows from them.

A name of a policy that comes with mullet works too. Exits 1 if there is a problem.

Example: mullet check site.yaml"""

_SCHEMA = """Print the JSON schema of the policy file, for your editor.

Example: mullet schema > mullet.schema.json"""

_DIFF = """Tell what a change of policy would change; spelling, order and comments do not count. Exits 1 if they differ.

Example: mullet diff site.yaml site.new.yaml"""


def check(
    policies: Annotated[list[str], typer.Argument(metavar="POLICY...", help="Policy files.")],
    as_json: AsJson = False,
) -> None:
    reports = [_report(name) for name in policies]
    if as_json:
        say_json({"ok": all(report["ok"] for report in reports), "policies": reports})
    else:
        for report in reports:
            _show(report)
    if not all(report["ok"] for report in reports):
        raise typer.Exit(NO)


def schema() -> None:
    from mullet.policy import json_schema

    say(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="The policy as it is.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The policy as it would be.")],
    as_json: AsJson = False,
) -> None:
    from mullet.policy import diff as difference

    changes = difference(load(before), load(after))
    if as_json:
        say_json({"same": not changes, "changes": [asdict(change) for change in changes]})
    else:
        for change in changes:
            say(str(change))
        raising = sum(1 for change in changes if change.raises_limit)
        say(f"{many(len(changes), 'change')}, {raising} of which raise a limit" if changes else "No difference")
    if changes:
        raise typer.Exit(NO)


def _report(name: str) -> dict[str, Any]:
    from mullet.policy import PolicyErrors

    try:
        loaded = read(name)
    except PolicyErrors as error:
        return {"policy": name, "ok": False, "problems": [_problem(problem) for problem in error.problems]}
    facility, derived = loaded.facility, loaded.derived
    return {
        "policy": name,
        "ok": True,
        "problems": [],
        "warnings": [_problem(problem) for problem in loaded.warnings],
        "facility": facility.id,
        "mode": facility.mode.value,
        "currency": facility.currency,
        "policy_hash": loaded.hash,
        "banks": {
            bank: {
                "kind": loads[0].kind.value,
                "loads": len(loads),
                "circuit": loads[0].circuit,
                "most_w": sum(item.highest.watts for item in loads),
                "break_even_per_mwh": derived.break_even_per_mwh.get(bank),
            }
            for bank, loads in facility.banks.items()
        },
        "circuits": {
            circuit.id: {
                "parent": circuit.parent,
                "limit_w": circuit.usable_watts,
                "worst_w": derived.worst_watts[circuit.id],
                "failsafe_w": derived.failsafe_watts[circuit.id],
            }
            for circuit in facility.circuits
        },
    }


def _problem(problem: Problem) -> dict[str, Any]:
    return {**asdict(problem), "text": str(problem)}


def _show(report: dict[str, Any]) -> None:
    for problem in (*report["problems"], *report.get("warnings", ())):
        say(problem["text"])
    if not report["ok"]:
        say(f"{report['policy']}: {many(len(report['problems']), 'problem')}")
        return
    warned = len(report["warnings"])
    say(
        f"{report['policy']}: good; facility {report['facility']}, mode {report['mode']}"
        + (f", {many(warned, 'warning')}" if warned else "")
    )
    currency = report["currency"]
    table(
        ("bank", "kind", "loads", "circuit", "at most", "break-even"),
        [
            (
                bank,
                row["kind"],
                str(row["loads"]),
                row["circuit"],
                power(row["most_w"]),
                "" if row["break_even_per_mwh"] is None else f"{number(row['break_even_per_mwh'], 2)} {currency}/MWh",
            )
            for bank, row in report["banks"].items()
        ],
        right=("loads", "at most", "break-even"),
    )
    table(
        ("circuit", "under", "limit", "worst draw", "when silent"),
        [
            (
                circuit,
                row["parent"] or "",
                power(row["limit_w"]),
                _against(row["worst_w"], row["limit_w"]),
                _against(row["failsafe_w"], row["limit_w"]),
            )
            for circuit, row in report["circuits"].items()
        ],
        right=("limit", "worst draw", "when silent"),
    )


def _against(watts: float, limit: float) -> str:
    return f"{power(watts)} ({watts / limit:.0%})" if limit > 0.0 else power(watts)
