"""What an operator must know after a tick, and that it is taken back when it is over."""

from __future__ import annotations

from dataclasses import replace

from control_kit import decided, entry_of, ledger_of

from mullet.control.alarms import SILENT_METER_S, standing_alarms
from mullet.control.status import loads_status
from mullet.domain.command import Verb
from mullet.domain.facility import Mode
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import Quality, Telemetry
from mullet.testing.builders import command, facility, meter_reading, snapshot
from mullet.testing.virtual_time import START

SITE = facility(miners=4)


def alarms(seen: Snapshot) -> dict[str, str | None]:
    return standing_alarms(SITE, decided(SITE, seen))


def test_where_all_is_well_every_alarm_is_named_and_empty() -> None:
    found = alarms(snapshot(SITE))
    assert set(found.values()) == {None}
    assert {"circuit/grid", "meter/feeder-a", "loads/unread", "loads/failing"} <= set(found)


def test_a_circuit_over_its_limit() -> None:
    found = alarms(snapshot(SITE, unmanaged_watts=8_000.0))
    assert found["circuit/grid"] is not None
    assert "may draw" in found["circuit/grid"]
    assert "of 20 kW: only decreases go out" in found["circuit/grid"]


def test_a_meter_never_read_bad_and_silent_are_told_apart() -> None:
    seen = snapshot(SITE)
    grid = seen.meters["grid"]
    none = replace(seen, meters={key: value for key, value in seen.meters.items() if key != "grid"})
    assert alarms(none)["meter/grid"] == "meter grid was never read: no increase beneath it"
    bad = replace(meter_reading("grid", None, quality=Quality.BAD), detail="reads nan")
    found = alarms(replace(seen, meters={**seen.meters, "grid": bad}))
    assert found["meter/grid"] == "meter grid: reads nan; counted as at its limit"
    for age_s, said in ((SILENT_METER_S, False), (SILENT_METER_S + 0.5, True)):
        old = replace(grid, at=START - age_s)
        assert (alarms(replace(seen, meters={**seen.meters, "grid": old}))["meter/grid"] is not None) == said


def test_unread_loads_are_named_and_then_counted() -> None:
    seen = snapshot(SITE)
    faults = {load.id: Telemetry(load.id, START, fault="no answer") for load in SITE.loads if load.bank == "miners"}
    one = replace(seen, telemetry={**seen.telemetry, "miners-002": faults["miners-002"]})
    assert alarms(one)["loads/unread"] == "1 load cannot be read; counted at worst draw: miners-002"
    text = alarms(replace(seen, telemetry={**seen.telemetry, **faults}))["loads/unread"]
    assert text == ("4 loads cannot be read; counted at worst draw: miners-001, miners-002, miners-003 and 1 more")


def test_a_load_that_does_not_follow() -> None:
    failed = entry_of(command(SITE.loads[0], Verb.SLEEP), pending=False, failures=2)
    found = alarms(snapshot(SITE, ledger=ledger_of(failed)))
    assert found["loads/failing"] == "1 load did not follow commands; others take their place: miners-001"


def test_a_bank_that_cannot_be_written_to_is_told_where_it_would_be() -> None:
    barred = {load.id: "credential 'site' is not provided" for load in SITE.loads}
    bank = SITE.loads[0].bank
    decision = decided(SITE, snapshot(SITE))
    assert standing_alarms(SITE, decision, barred)[f"barred/{bank}"] == (
        f"{bank} is read-only: credential 'site' is not provided"
    )
    assert standing_alarms(SITE, decision)[f"barred/{bank}"] is None
    watched = replace(SITE, mode=Mode.OBSERVE)
    assert standing_alarms(watched, decided(watched, snapshot(watched)), barred)[f"barred/{bank}"] is None


def test_what_is_amiss_with_a_load_is_an_alarm_and_in_its_row() -> None:
    decision = decided(SITE, snapshot(SITE))
    one = SITE.loads[0].id
    amiss = {one: "2 of 3 boards work", "of-another-policy": "a fan stands still"}
    assert standing_alarms(SITE, decision, ailments=amiss)["loads/ailing"] == (
        f"1 load not in order (mullet status --fleet): {one}"
    )
    assert standing_alarms(SITE, decision)["loads/ailing"] is None
    rows = {row["id"]: row["ailment"] for row in loads_status(SITE, decision, ailments=amiss)}
    assert rows.pop(one) == "2 of 3 boards work"
    assert set(rows.values()) == {None}


def test_a_load_that_cannot_be_written_to_says_so_in_its_row() -> None:
    barred = {SITE.loads[0].id: "no password"}
    rows = loads_status(SITE, decided(SITE, snapshot(SITE)), barred=barred)
    assert {row["id"] for row in rows if row["withheld"] == "no password"} == set(barred)
