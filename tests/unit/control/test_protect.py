"""Protection without a decision: the shed list's head, once, for what the last count or the meters say is too much."""

from __future__ import annotations

from typing import Any

from control_kit import asleep, decided, entry_of, ledger_of

from mullet.control.protect import protective_commands
from mullet.domain.command import Command, CommandLedger, Verb
from mullet.domain.facility import Facility
from mullet.domain.feeds import Cause
from mullet.domain.telemetry import MeterReading, Quality
from mullet.testing.builders import circuit, facility, meter_reading, miner, snapshot
from mullet.testing.virtual_time import START

FREED = 3_444.0
"""What one miner frees: 3,465 W at most, less 21 W asleep."""


def plant(usable: float = 20_000.0) -> Facility:
    miners = [miner(f"miners-{k:03d}", "grid") for k in range(1, 5)]
    return facility(circuits=(circuit("grid", None, usable, meter="grid"),), miners=miners, gpus=0)


def protect(site: Facility, meter: MeterReading | None = None, **fields: Any) -> tuple[Command, ...]:
    last = decided(site, snapshot(site))
    values: dict[str, Any] = {"telemetry": last.snapshot.telemetry, "ledger": CommandLedger(), **fields}
    meters = {"grid": meter} if meter is not None else {}
    return protective_commands(site, last, values["telemetry"], meters, values["ledger"], START + 1.0)


def test_within_the_limit_nothing_is_shed() -> None:
    assert protect(plant()) == ()
    assert protect(plant(), meter_reading("grid", 19_999.0)) == ()


def test_a_count_above_the_limit_sheds_just_enough() -> None:
    sent = protect(plant(usable=10_000.0))
    assert len(sent) == 2
    assert {(item.verb, item.cause) for item in sent} == {(Verb.SLEEP, Cause.PROTECTION)}
    assert [item.seq for item in sent] == [1, 2]
    assert all(item.not_after == START + 6.0 and not item.raises for item in sent)


def test_what_the_meter_shows_now_counts_although_the_last_count_was_well() -> None:
    assert len(protect(plant(), meter_reading("grid", 20_000.0 + 0.5 * FREED))) == 1
    assert len(protect(plant(), meter_reading("grid", 20_000.0 + 1.5 * FREED))) == 2


def test_a_bad_meter_sheds_nothing_by_itself() -> None:
    assert protect(plant(), meter_reading("grid", 99_000.0, quality=Quality.BAD)) == ()
    assert protect(plant(), meter_reading("grid", None)) == ()


def test_what_sleeps_already_is_not_counted_as_shed_once_more() -> None:
    site = plant()
    over = meter_reading("grid", 20_000.0 + 0.5 * FREED)
    (first,) = protect(site, over)
    seen = dict(snapshot(site).telemetry)
    seen[first.load_id] = asleep(site.load_by_id[first.load_id], START + 1.0)
    (second,) = protect(site, over, telemetry=seen)
    assert second.load_id != first.load_id


def test_what_is_under_way_is_waited_for() -> None:
    site = plant()
    over = meter_reading("grid", 20_000.0 + 0.5 * FREED)
    (first,) = protect(site, over)
    assert protect(site, over, ledger=ledger_of(entry_of(first))) == ()


def test_numbers_go_on_where_the_ledger_ends() -> None:
    sent = protect(plant(usable=10_000.0), ledger=CommandLedger(next_seq=41, epoch=3))
    assert [item.id for item in sent] == ["3-41", "3-42"]
