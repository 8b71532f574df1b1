"""What the journal keeps of a run, and the way back: the ledger at start, and exact replay of any decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mullet.control.decide import Decision, decide
from mullet.control.planning_cycle import Adopted
from mullet.domain.codec import decode, encode
from mullet.domain.command import Command, CommandLedger, LedgerEntry, Outcome, Receipt
from mullet.domain.facility import Facility
from mullet.domain.plan import Plan, PlanRequest
from mullet.domain.snapshot import Snapshot
from mullet.ports import JournalRow

START, STOP, FACILITY, PLAN, DECISION, RECEIPT = "start", "stop", "facility", "plan", "decision", "receipt"
ALARM, OPERATOR, ADVICE, RELOAD = "alarm", "operator", "advice", "reload"


def facility_body(facility: Facility) -> dict[str, Any]:
    """Return the row that lets replay know the facility."""
    return {"policy_hash": facility.policy_hash, "facility": encode(facility)}


def plan_body(adopted: Adopted) -> dict[str, Any]:
    """Return the row of an adopted plan: what it was made from, by which rung, and what was passed over.

    The facility is not repeated: it is in the latest row of its kind.
    """
    request = {name: encode(getattr(adopted.request, name)) for name in PlanRequest.__slots__ if name != "facility"}
    return {"plan": encode(adopted.plan), "request": request, "passed_over": list(adopted.passed_over)}


def receipt_body(receipt: Receipt) -> dict[str, Any]:
    """Return the row of what a device answered."""
    body: dict[str, Any] = encode(receipt)
    return body


def decision_body(decision: Decision) -> dict[str, Any]:
    """Return the row of a tick that claimed or sent something."""
    dispatch = decision.dispatch
    return {
        "plan_id": decision.plan.id if decision.plan is not None else None,
        "rung": decision.plan.rung.value if decision.plan is not None else None,
        "snapshot": encode(decision.snapshot),
        "outcomes": encode(decision.outcomes),
        "decreases": encode(dispatch.decreases),
        "increases": encode(dispatch.increases),
        "rules": {
            command.load_id: {
                "rule": decision.desired.setpoints[command.load_id].rule,
                "binding": decision.desired.setpoints[command.load_id].binding,
            }
            for command in dispatch.commands
        },
        "budgets": {
            circuit_id: {"limit_w": account.limit_watts, "sum_w": account.sum_watts}
            for circuit_id, account in decision.accounts.items()
        },
    }


def resumable(rows: Sequence[JournalRow]) -> Sequence[JournalRow]:
    """Return the rows from which the ledger can be rebuilt without reading the whole journal.

    The latest decision row carries the whole ledger in its snapshot, so only it and what follows is needed.
    """
    for position in range(len(rows) - 1, -1, -1):
        if rows[position].kind == DECISION:
            return rows[position:]
    return rows


def restore_ledger(rows: Sequence[JournalRow], facility: Facility) -> CommandLedger:
    """Return the ledger from the latest decision's own snapshot plus all that followed, in a new epoch."""
    recent = resumable(rows)
    epoch = max((int(row.body["epoch"]) for row in rows if row.kind == START), default=0)
    ledger = CommandLedger()
    if recent and recent[0].kind == DECISION:
        ledger = decode(CommandLedger, recent[0].body["snapshot"]["ledger"])
    after = fold(ledger, recent, facility)
    known: dict[str, LedgerEntry] = {
        load_id: entry for load_id, entry in after.entries.items() if load_id in facility.load_by_id
    }
    return replace(after, entries=known, epoch=epoch + 1)


def fold(ledger: CommandLedger, rows: Iterable[JournalRow], facility: Facility) -> CommandLedger:
    """Return `ledger` once `rows` were folded in."""
    pacing = facility.pacing
    for row in rows:
        if row.kind == DECISION:
            outcomes: tuple[Outcome, ...] = decode(tuple[Outcome, ...], row.body["outcomes"])
            ledger = ledger.after_outcomes(outcomes, pacing.backoff_first_s, pacing.backoff_most_s)
            commands: list[Command] = []
            for key in ("decreases", "increases"):
                commands.extend(decode(tuple[Command, ...], row.body[key]))
            ledger = ledger.after_commands(tuple(commands))
        elif row.kind == RECEIPT:
            ledger = ledger.after_receipts((decode(Receipt, row.body),))
    return ledger


@dataclass(frozen=True, slots=True)
class Replayed:
    """Whether one recorded decision came out the same again."""

    seq: int
    at: float
    same: bool
    detail: str


def replay(rows: Iterable[JournalRow]) -> list[Replayed]:
    """Decide again every recorded tick from its recorded inputs, plan and rung, and compare exactly."""
    facility: Facility | None = None
    plans: dict[str, Plan] = {}
    results: list[Replayed] = []
    for row in rows:
        if row.kind == FACILITY:
            facility = decode(Facility, row.body["facility"])
        elif row.kind == PLAN:
            plan: Plan = decode(Plan, row.body["plan"])
            plans[plan.id] = plan
        elif row.kind == DECISION:
            results.append(_replay_one(row, facility, plans))
    return results


def _replay_one(row: JournalRow, facility: Facility | None, plans: Mapping[str, Plan]) -> Replayed:
    if facility is None:
        return Replayed(row.seq, row.at, False, "no facility on record before it")
    plan_id = row.body["plan_id"]
    if plan_id is not None and plan_id not in plans:
        return Replayed(row.seq, row.at, False, f"plan {plan_id} is not on record")
    snapshot: Snapshot = decode(Snapshot, row.body["snapshot"])
    decision = decide(facility, snapshot, plans[plan_id] if plan_id is not None else None)
    again = decision_body(decision)
    for key in ("outcomes", "decreases", "increases", "budgets", "rules"):
        if again[key] != row.body[key]:
            return Replayed(row.seq, row.at, False, f"{key} differ")
    count = len(decision.dispatch.commands)
    return Replayed(row.seq, row.at, True, f"{count} commands, {len(decision.outcomes)} outcomes, the same")


def claims(rows: Iterable[JournalRow]) -> Iterable[dict[str, Any]]:
    """Yield the claims of `docs/wire.md` that the journal holds, for the independent checker."""
    for row in rows:
        if row.kind != DECISION:
            continue
        for circuit_id, budget in row.body["budgets"].items():
            yield {"t": row.at, "type": "budget", "circuit": circuit_id, **budget}
        for outcome in row.body["outcomes"]:
            yield {
                "t": outcome["at"],
                "type": "outcome",
                "id": outcome["command_id"] or f"standing/{outcome['load_id']}/{row.seq}",
                "load": outcome["load_id"],
                "kind": outcome["kind"],
                "watts": outcome["watts"],
                "most_w": outcome["most_watts"],
                "evidence": outcome["evidence"],
                "acked": outcome["acked"],
            }
        for command in (*row.body["decreases"], *row.body["increases"]):
            yield {
                "t": command["issued_at"],
                "type": "command",
                "id": command["id"],
                "load": command["load_id"],
                "verb": command["verb"],
                "from_w": command["most_before_watts"],
                "to_w": command["most_after_watts"],
                "cause": command["cause"],
            }
