"""`mullet journal`: check, read, replay and export the decision record."""

from __future__ import annotations

import json
import sys
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mullet.cli.client import state_homes
from mullet.cli.say import NO, AsJson, fail, instant, refusals, say, say_json, table

if TYPE_CHECKING:
    from mullet.ports import JournalRow

JOURNAL = "journal.db"
MOST_TEXT = 160

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Check, read, replay and export the decision record.

    WHERE is a journal file, a state folder, or the name of a facility.""",
)

Where = Annotated[str, typer.Argument(metavar="WHERE", help="A journal file, a state folder, or a facility's name.")]


class What(StrEnum):
    """What `export` writes."""

    ROWS = "rows"
    CLAIMS = "claims"


def find_journal(where: str) -> Path:
    """Return the journal file meant.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(where)
    if path.is_file():
        return path
    candidates = [path / JOURNAL] if path.is_dir() else []
    if Path(where).name == where:
        candidates += [home / where / JOURNAL for home in state_homes()]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = ", ".join(str(candidate) for candidate in candidates) or where
    raise FileNotFoundError(f"no journal {where!r} (looked for {looked})")


def _open(where: str) -> Path:
    with refusals(OSError):
        return find_journal(where)


@app.command(
    "verify",
    help="""Check every row and the chain of digests. Exits 1 and names the first bad row if there is one.

Example: mullet journal verify west-texas""",
)
def verify(where: Where, as_json: AsJson = False) -> None:
    from mullet.adapters.journal import verify as check
    from mullet.ports import JournalError

    path = _open(where)
    with refusals(JournalError):
        report = check(path)
    if as_json:
        say_json({"journal": str(path), "ok": report.ok, **asdict(report)})
    elif report.ok:
        say(f"{path}: {report.rows} rows, the chain is whole")
    else:
        at = f"row {report.first_bad_seq}: " if report.first_bad_seq is not None else ""
        say(f"{path}: {at}{report.reason} ({report.rows} good rows before it)")
    if not report.ok:
        raise typer.Exit(NO)


@app.command(
    "show",
    help="""Show the latest rows.

Example: mullet journal show west-texas --kind operator --last 5""",
)
def show(
    where: Where,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="Only rows of this kind; may be repeated.")] = None,
    last: Annotated[int, typer.Option("--last", min=1, help="How many rows.")] = 20,
    load: Annotated[str | None, typer.Option("--load", help="Only rows that tell of this load.")] = None,
    as_json: AsJson = False,
) -> None:
    rows = deque(
        (row for row in _rows(_open(where), kind) if load is None or load in set(_targets(row.body))), maxlen=last
    )
    if as_json:
        for row in rows:
            say_json(asdict(row))
        return
    table(
        ("row", "at", "kind", "what"),
        [(str(row.seq), instant(row.at), row.kind, summary(row, load)) for row in rows],
        right=("row",),
    )


@app.command(
    "replay",
    help="""Decide again every recorded tick from its recorded inputs and compare. Exits 1 if any decision differs.

Example: mullet journal replay west-texas""",
)
def replay(where: Where, as_json: AsJson = False) -> None:
    from mullet.control import record

    path = _open(where)
    with refusals(ValueError, KeyError):
        results = record.replay(_rows(path, [record.FACILITY, record.PLAN, record.DECISION]))
    different = [item for item in results if not item.same]
    if as_json:
        say_json(
            {
                "journal": str(path),
                "decisions": len(results),
                "same": len(results) - len(different),
                "different": [asdict(item) for item in different],
            }
        )
    else:
        for item in different:
            say(f"row {item.seq} of {instant(item.at)}: {item.detail}")
        say(f"{path}: {len(results)} decisions, {len(results) - len(different)} the same, {len(different)} different")
    if different:
        raise typer.Exit(NO)


@app.command(
    "export",
    help="""Write rows, or the claims that the independent checker grades, as JSON lines.

Example: mullet journal export west-texas --what claims --out claims.jsonl""",
)
def export(
    where: Where,
    what: Annotated[What, typer.Option("--what", help="Rows as they are, or claims (docs/wire.md).")] = What.ROWS,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="Only rows of this kind; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write; stdout if left out.")] = None,
) -> None:
    from mullet.control import record

    if what is What.CLAIMS and kind:
        fail("--kind chooses rows; claims come from decisions alone")
    path = _open(where)
    lines: Iterator[Mapping[str, Any]]
    if what is What.CLAIMS:
        lines = iter(record.claims(_rows(path, [record.DECISION])))
    else:
        lines = (asdict(row) for row in _rows(path, kind))
    if out is None:
        for line in lines:
            sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
        return
    count = 0
    with refusals(OSError), open(out, "w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
            count += 1
    say(f"{out}: {count} lines")


def _rows(path: Path, kinds: list[str] | None) -> Iterator[JournalRow]:
    from mullet.adapters.journal import JournalReader
    from mullet.ports import JournalError

    with refusals(JournalError):
        yield from JournalReader(path).iterate(kinds or None)


def _targets(body: Mapping[str, Any]) -> Iterator[str]:
    """Yield the loads and circuits that a row tells of."""
    yield from (body[key] for key in ("load_id", "load") if isinstance(body.get(key), str))
    for key in ("outcomes", "decreases", "increases"):
        yield from (item["load_id"] for item in body.get(key) or ())
    for key, name in (("hold", "target"), ("ceiling", "circuit")):
        if isinstance(body.get(key), Mapping):
            yield str(body[key].get(name))


def summary(row: JournalRow, load: str | None = None) -> str:
    """Return a row in one line."""
    body = row.body
    writers = {
        "decision": lambda: _decision(body, load),
        "advice": lambda: _decision(body, load),
        "receipt": lambda: _receipt(body),
        "plan": lambda: f"{body['plan']['id']} by {body['plan']['rung']}" + _passed_over(body),
        "alarm": lambda: f"{'raised' if body['raised'] else 'cleared'} {body['key']}: {body['text']}",
        "facility": lambda: f"{body['facility']['id']}, policy {str(body['policy_hash'])[:12]}",
    }
    text = writers[row.kind]() if row.kind in writers else _flat(body)
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"


def _decision(body: Mapping[str, Any], load: str | None) -> str:
    commands = [*body.get("decreases", ()), *body.get("increases", ())]
    outcomes = list(body.get("outcomes", ()))
    if load is not None:
        rule = body.get("rules", {}).get(load, {}).get("rule", "")
        told = [f"{item['verb']} {item['point'] or item['watts']} ({rule})" for item in commands if _of(item, load)]
        told += [f"{item['kind']} by {item['evidence']}" for item in outcomes if _of(item, load)]
        return "; ".join(told)
    parts = [f"plan {body.get('rung') or 'none'}" if "rung" in body else f"plan {body.get('plan_id')}"]
    if commands:
        first = ", ".join(item["load_id"] for item in commands[:3])
        causes = Counter(item["cause"] for item in commands)
        why = ", ".join(f"{count} {cause}" for cause, count in causes.most_common())
        parts.append(f"{len(commands)} commands ({why}): {first}{' …' if len(commands) > 3 else ''}")
    if outcomes:
        kinds = Counter(item["kind"] for item in outcomes)
        parts.append("outcomes " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
    return "; ".join(parts)


def _of(item: Mapping[str, Any], load: str) -> bool:
    return bool(item["load_id"] == load)


def _receipt(body: Mapping[str, Any]) -> str:
    answer = {True: "acked", False: "refused", None: "no answer"}[body["acked"]]
    return f"{body['load_id']}: {answer}{': ' + body['detail'] if body.get('detail') else ''}"


def _passed_over(body: Mapping[str, Any]) -> str:
    return f"; passed over: {'; '.join(body['passed_over'])}" if body.get("passed_over") else ""


def _flat(body: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {json.dumps(value) if isinstance(value, dict | list) else value}" for key, value in body.items()
    )
