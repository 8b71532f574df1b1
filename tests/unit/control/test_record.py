"""The journal's rows: a restart forgets nothing, and replay comes out the same or says so."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from mullet.control import record
from mullet.control.decide import Decision
from mullet.domain.codec import canonical, decode, encode
from mullet.domain.command import CommandLedger
from mullet.domain.facility import Facility
from mullet.domain.snapshot import Snapshot
from mullet.ports import JournalRow
from tests.scenario.plant_model import PlantModel, Run
from tests.scenario.test_invariants import plant


def rows_of(site: Facility, decisions: list[Decision]) -> list[JournalRow]:
    """Return the rows that a run leaves, through JSON as the journal keeps them."""
    bodies: list[tuple[str, dict[str, Any]]] = [
        (record.START, {"epoch": 1, "policy_hash": site.policy_hash}),
        (record.FACILITY, record.facility_body(site)),
    ]
    bodies += [(record.DECISION, record.decision_body(decision)) for decision in decisions if decision.acts]
    return [
        JournalRow(number, 0.0, kind, json.loads(canonical(body)), "", "")
        for number, (kind, body) in enumerate(bodies, 1)
    ]


@pytest.fixture
def finished() -> Run:
    site = plant()
    run = Run(site, PlantModel(site, 7, asleep=frozenset({"wm-001"})))
    run.needs["chat"] = 900.0
    run.model.devices["wm-002"].fault = "refuse"
    run.run(40)
    run.price = 400.0
    run.run(40)
    return run


def test_every_decision_replays_to_the_same_result(finished: Run) -> None:
    rows = rows_of(finished.facility, finished.trace.decisions)
    results = record.replay(rows)
    assert len(results) >= 5
    assert [result for result in results if not result.same] == []


def test_replay_names_a_decision_that_was_edited(finished: Run) -> None:
    rows = rows_of(finished.facility, finished.trace.decisions)
    position = next(number for number, row in enumerate(rows) if row.body.get("decreases"))
    body = json.loads(json.dumps(rows[position].body))
    body["decreases"][0]["watts"] += 1.0
    rows[position] = replace(rows[position], body=body)
    assert [result.seq for result in record.replay(rows) if not result.same] == [rows[position].seq]


def test_the_ledger_comes_back_from_the_rows(finished: Run) -> None:
    rows = rows_of(finished.facility, finished.trace.decisions)
    ledger = record.restore_ledger(rows, finished.facility)
    assert ledger.epoch == 2
    assert ledger.next_seq == finished.ledger.next_seq
    for load_id, entry in finished.ledger.entries.items():
        back = ledger.entry(load_id)
        assert (back.pending, back.confirmed_point, back.confirmed_watts, back.failures, back.blocked_until) == (
            entry.pending,
            entry.confirmed_point,
            entry.confirmed_watts,
            entry.failures,
            entry.blocked_until,
        )
        assert back.command == entry.command


def test_a_ledger_from_an_empty_journal_starts_the_first_epoch() -> None:
    assert record.restore_ledger([], plant()) == CommandLedger(epoch=1)


def test_a_snapshot_survives_the_journal(finished: Run) -> None:
    snapshot = finished.trace.decisions[-1].snapshot
    assert decode(Snapshot, json.loads(json.dumps(encode(snapshot)))) == snapshot


def test_claims_have_the_shape_that_the_checker_reads(finished: Run) -> None:
    lines = list(record.claims(rows_of(finished.facility, finished.trace.decisions)))
    kinds = {line["type"] for line in lines}
    assert kinds == {"budget", "outcome", "command"}
    commands = {line["id"] for line in lines if line["type"] == "command"}
    assert {line["id"] for line in lines if line["type"] == "outcome"} <= commands
