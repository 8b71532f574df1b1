"""journal verify, show, replay and export on a journal that the real writer wrote."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from cli_kit import run

from mullet.adapters.clock import SystemClock
from mullet.adapters.journal import SqliteJournal
from mullet.control import record
from mullet.control.decide import decide
from mullet.domain.facility import Facility
from mullet.testing import builders


def decided(watts: float) -> tuple[Facility, dict[str, Any]]:
    """Return a decision's row: two miners beneath a circuit of which `watts` may be used."""
    site = builders.facility(
        circuits=(builders.circuit("poi", usable_watts=watts),),
        loads=(builders.miner("wm-001", "poi"), builders.miner("wm-002", "poi")),
    )
    return site, record.decision_body(decide(site, builders.snapshot(site), None))


async def write(path: Path, rows: list[tuple[str, dict[str, Any]]]) -> None:
    journal = SqliteJournal(path, SystemClock())
    await journal.append(rows)
    await journal.close()


@pytest.fixture
async def journal(home: Path) -> Path:
    folder = home / "mullet" / "small"
    folder.mkdir(parents=True)
    site, body = decided(3_500.0)
    receipt = {
        "command_id": "1-1",
        "load_id": "wm-001",
        "at": 0.0,
        "acked": False,
        "detail": "busy",
        "unreachable": False,
    }
    rows: list[tuple[str, dict[str, Any]]] = [
        (record.START, {"epoch": 1, "policy_hash": site.policy_hash}),
        (record.FACILITY, record.facility_body(site)),
        (record.ALARM, {"key": "feed/price", "text": "no answer", "raised": True}),
        (record.DECISION, body),
        (record.RECEIPT, receipt),
        (record.STOP, {"reason": "asked to stop"}),
    ]
    await write(folder / "journal.db", rows)
    return folder / "journal.db"


def test_the_fixture_has_commands_to_tell_of() -> None:
    _, body = decided(3_500.0)
    assert [command["load_id"] for command in (*body["decreases"], *body["increases"])] != []


@pytest.mark.parametrize("where", ["small", "folder", "file"])
def test_verify_finds_the_journal_and_says_that_it_is_whole(journal: Path, where: str) -> None:
    result = run("journal", "verify", {"small": "small", "folder": str(journal.parent), "file": str(journal)}[where])
    assert (result.exit_code, result.stdout) == (0, f"{journal}: 6 rows, the chain is whole\n")


def test_verify_names_the_first_bad_row(journal: Path) -> None:
    with sqlite3.connect(journal) as connection:
        connection.execute("UPDATE row SET at = at + 1 WHERE seq = 3")
    connection.close()
    result = run("journal", "verify", "small")
    assert result.exit_code == 1
    assert "row 3: its digest does not match its content" in result.stdout
    report = json.loads(run("journal", "verify", "small", "--json").stdout)
    assert (report["ok"], report["rows"], report["first_bad_seq"]) == (False, 2, 3)


def test_no_journal_is_bad_input(journal: Path, tmp_path: Path) -> None:
    for where in ("other", str(tmp_path)):
        result = run("journal", "verify", where)
        assert result.exit_code == 2
        assert "no journal" in result.stderr
    other = tmp_path / "text.db"
    other.write_text("this is no journal")
    assert run("journal", "show", str(other)).exit_code == 2


def test_show_tells_each_row_in_a_line(journal: Path) -> None:
    text = run("journal", "show", "small").stdout
    assert "raised feed/price: no answer" in text
    assert "wm-001: refused: busy" in text
    assert "reason asked to stop" in text


def test_show_filters(journal: Path) -> None:
    def shown(*arguments: str) -> list[tuple[int, str]]:
        lines = run("journal", "show", "small", "--json", *arguments).stdout.splitlines()
        return [(row["seq"], row["kind"]) for row in map(json.loads, lines)]

    assert shown("--last", "1") == [(6, "stop")]
    assert shown("--kind", "alarm", "--kind", "stop") == [(3, "alarm"), (6, "stop")]
    assert (5, "receipt") in shown("--load", "wm-001")
    assert shown("--load", "wm-001", "--kind", "alarm") == []
    assert shown("--load", "nobody") == []


def test_replay_says_that_decisions_come_out_the_same(journal: Path) -> None:
    result = run("journal", "replay", "small")
    assert result.exit_code == 0
    assert "1 decisions, 1 the same, 0 different" in result.stdout


async def test_replay_says_no_where_a_decision_differs(tmp_path: Path) -> None:
    site, body = decided(3_500.0)
    body["budgets"]["poi"]["limit_w"] += 1.0
    await write(tmp_path / "journal.db", [(record.FACILITY, record.facility_body(site)), (record.DECISION, body)])
    result = run("journal", "replay", str(tmp_path), "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["decisions"], report["same"], report["different"][0]["seq"]) == (1, 0, 2)


def test_export_writes_rows_and_claims(journal: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in run("journal", "export", "small").stdout.splitlines()]
    assert [row["seq"] for row in rows] == [1, 2, 3, 4, 5, 6]
    out = tmp_path / "claims.jsonl"
    result = run("journal", "export", "small", "--what", "claims", "--out", str(out))
    claims = [json.loads(line) for line in out.read_text().splitlines()]
    assert result.stdout == f"{out}: {len(claims)} lines\n"
    assert {claim["type"] for claim in claims} >= {"budget", "command"}
    assert run("journal", "export", "small", "--what", "claims", "--kind", "stop").exit_code == 2
    assert run("journal", "export", "small", "--out", str(tmp_path)).exit_code == 2
