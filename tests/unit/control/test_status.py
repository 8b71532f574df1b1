"""The state as plain data, and why each load stands where it stands."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from control_kit import decided, entry_of, ledger_of

from mullet.control.status import explain, facility_status, loads_status, power_by_kind
from mullet.domain.command import Verb
from mullet.domain.snapshot import Hold, HoldKind
from mullet.domain.telemetry import Telemetry
from mullet.testing.builders import command, facility, snapshot
from mullet.testing.virtual_time import START

SITE = facility()
MINER = SITE.load_by_id["miners-001"]


def test_power_counts_what_was_read_and_no_more() -> None:
    seen = snapshot(SITE, points={"miners-001": "off"})
    assert power_by_kind(SITE, decided(SITE, seen)) == {"miner": 3 * 3_300.0 + 20.0, "gpu": 1_400.0}
    unread = replace(seen, telemetry={})
    assert power_by_kind(SITE, decided(SITE, unread)) == {"miner": 0.0, "gpu": 0.0}


def test_the_whole_state_is_plain_json_and_adds_up() -> None:
    hold = Hold("hold-1", "miners-002", HoldKind.OFF, "anna", "fan", START)
    fault = Telemetry("miners-003", START, fault="no answer")
    seen = snapshot(SITE, holds=(hold,), needs={"chat": 900.0})
    decision = decided(SITE, replace(seen, telemetry={**seen.telemetry, "miners-003": fault}), {"miners-001": "off"})
    status = facility_status(SITE, decision, {"b": ("second", START), "a": ("first", START)}, "auto", 40.0)
    assert json.loads(json.dumps(status, allow_nan=False)) == status
    root = decision.accounts["grid"]
    assert status["headroom_w"] == root.limit_watts - root.sum_watts
    assert status["pending"] == 1
    assert status["faults"] == {"miners-003": "no answer"}
    assert [alarm["text"] for alarm in status["alarms"]] == ["first", "second"]
    assert status["services"]["chat"]["need_w"] == 900.0
    assert status["services"]["chat"]["limit_w"] == 1_400.0
    assert [item["owner"] for item in status["holds"]] == ["anna"]


def test_each_load_has_a_row_and_a_silent_one_says_never_read() -> None:
    seen = snapshot(SITE)
    short = {key: value for key, value in seen.telemetry.items() if key != "gpus-002"}
    rows = {row["id"]: row for row in loads_status(SITE, decided(SITE, replace(seen, telemetry=short)))}
    assert set(rows) == set(SITE.load_by_id)
    assert (rows["gpus-002"]["fault"], rows["gpus-002"]["watts"], rows["gpus-002"]["age_s"]) == (
        "never read",
        None,
        None,
    )
    assert (rows["miners-001"]["state"], rows["miners-001"]["watts"]) == ("active", 3_300.0)


def test_an_unknown_target_is_no_answer() -> None:
    with pytest.raises(KeyError, match="miner-1"):
        explain(SITE, decided(SITE, snapshot(SITE)), "miner-1")


def test_a_load_s_reason_is_its_rule_and_what_was_asked_of_it() -> None:
    decision = decided(SITE, snapshot(SITE), {"miners-001": "off"})
    told = explain(SITE, decision, "miners-001")
    assert (told["rule"], told["cause"], told["setpoint"]["point"]) == ("as told", "economic", "off")
    assert told["last_command"]["verb"] == "sleep"
    assert told["last_command"]["pending"] is True
    assert list(told["circuits"]) == ["feeder-a", "grid"]


def test_one_that_is_held_says_by_whom() -> None:
    hold = Hold("hold-1", "feeder-a", HoldKind.OFF, "anna", "fan", START)
    told = explain(SITE, decided(SITE, snapshot(SITE, holds=(hold,))), "miners-001")
    assert told["hold"] == {"kind": "off", "owner": "anna", "reason": "fan"}
    assert told["rule"] == "held by an operator: not commanded"


def test_one_that_backs_off_says_for_how_long() -> None:
    failed = entry_of(command(MINER, Verb.SLEEP), pending=False, failures=3, blocked_until=START + 12.0)
    told = explain(SITE, decided(SITE, snapshot(SITE, ledger=ledger_of(failed))), "miners-001")
    assert told["rule"].startswith("backs off for 12 s more after failed commands")
    assert told["last_command"]["failures"] == 3


def test_one_that_is_withheld_says_what_it_waits_for() -> None:
    under_way = ledger_of(entry_of(command(MINER, Verb.SLEEP, most_after_watts=21.0)))
    told = explain(SITE, decided(SITE, snapshot(SITE, ledger=under_way), {"miners-001": "off"}), "miners-001")
    assert told["withheld"] == "under way, not yet verified"


def test_a_circuit_says_what_binds_it_and_counts_the_rules_beneath() -> None:
    seen = snapshot(SITE)
    none = replace(seen, meters={})
    told = explain(SITE, decided(SITE, none, {"miners-001": "off"}), "feeder-a")
    assert (told["meter"], told["meter_age_s"], told["increases"]) == ("none", None, False)
    assert "never read" in told["why_not"]
    assert told["setpoints"] == {"as told": 1, "not commanded": 3}
    assert told["shadow_price_per_mwh"] is None
