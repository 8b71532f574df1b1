"""Alarms recorded once per change, and rows that wait for a journal that takes no writes."""

from __future__ import annotations

import pytest
from control_kit import FakeJournal

from mullet.control.logbook import JOURNAL_ALARM, Logbook
from mullet.control.record import ALARM
from mullet.ports import JournalError
from mullet.testing.virtual_time import START, ManualClock


def book() -> tuple[Logbook, FakeJournal, ManualClock]:
    journal, clock = FakeJournal(), ManualClock()
    return Logbook(journal, clock), journal, clock


async def test_rows_go_to_disk_as_they_come() -> None:
    log, journal, _ = book()
    await log.write([("a", {}), ("b", {})])
    await log.write([("c", {})])
    assert journal.kinds() == ["a", "b", "c"]
    assert log.records_ok


async def test_nothing_to_say_writes_nothing() -> None:
    log, journal, _ = book()
    await log.write([])
    assert journal.appends == 0


async def test_a_journal_that_fails_is_said_and_its_rows_come_first_and_in_order_afterwards() -> None:
    log, journal, clock = book()
    journal.failing = True
    await log.write([("a", {}), ("b", {})])
    assert not log.records_ok
    text, since = log.alarms[JOURNAL_ALARM]
    assert "disk full" in text
    assert "increases stop" in text
    clock.advance(5.0)
    await log.write([("c", {})])
    assert log.alarms[JOURNAL_ALARM][1] == since == START
    assert journal.written == []
    journal.failing = False
    await log.write([("d", {})])
    assert journal.kinds() == ["a", "b", ALARM, "c", "d"]
    assert log.records_ok
    assert JOURNAL_ALARM not in log.alarms


async def test_what_waits_is_written_even_if_nothing_new_comes() -> None:
    log, journal, _ = book()
    journal.failing = True
    await log.write([("a", {})])
    journal.failing = False
    await log.write([])
    assert journal.kinds()[0] == "a"
    assert log.records_ok


async def test_nothing_is_written_twice_after_a_recovery() -> None:
    log, journal, _ = book()
    journal.failing = True
    await log.write([("a", {})])
    journal.failing = False
    await log.write([("b", {})])
    await log.write([("c", {})])
    assert [kind for kind in journal.kinds() if kind != "alarm"] == ["a", "b", "c"]


async def test_an_alarm_is_recorded_when_it_is_raised_and_when_it_ends_and_never_between() -> None:
    log, journal, clock = book()
    log.alarm("meter/grid", "silent for 4 s")
    clock.advance(1.0)
    log.alarm("meter/grid", "silent for 5 s")
    assert log.alarms["meter/grid"] == ("silent for 5 s", START)
    log.alarm("meter/grid", None)
    log.alarm("meter/grid", None)
    assert log.alarms == {}
    await log.write([])
    assert [(body["key"], body["raised"]) for body in journal.of("alarm")] == [
        ("meter/grid", True),
        ("meter/grid", False),
    ]


async def test_an_alarm_raised_while_rows_are_on_their_way_is_not_lost() -> None:
    log, journal, _ = book()

    class Interrupting(FakeJournal):
        async def append(self, rows):  # type: ignore[no-untyped-def]
            log.alarm("feed/price", "away")
            return await journal.append(rows)

    log._journal = Interrupting()
    await log.write([("a", {})])
    await log.write([])
    assert journal.kinds() == ["a", "alarm"]


async def test_what_must_be_recorded_at_once_says_so_when_it_is_not() -> None:
    log, journal, _ = book()
    journal.failing = True
    with pytest.raises(JournalError):
        await log.append([("operator", {})])
