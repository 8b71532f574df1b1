"""What becomes of a command by evidence alone; an acknowledgement never counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from control_kit import asleep, entry_of, ledger_of
from hypothesis import given
from hypothesis import strategies as st

from mullet.control.verify import MOST_WAIT_S, READ_GRACE_S, verify, verify_deadline
from mullet.domain.command import Command, Evidence, LedgerEntry, Outcome, OutcomeKind, Receipt, Verb
from mullet.domain.facility import Facility
from mullet.domain.load import Load
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import Background, LoadState, Quality, Residual, Telemetry
from mullet.testing.builders import circuit, command, facility, gpu, meter_reading, miner, snapshot, telemetry
from mullet.testing.virtual_time import START

BLIND = replace(miner().capability, measures_watts=False, ramp_down_s=6.0, ramp_up_s=12.0)
ROOT = (circuit("grid", None, 40_000.0, meter="grid"),)


def plant(count: int = 3, blind: bool = False) -> Facility:
    fields: dict[str, Any] = {"capability": BLIND} if blind else {}
    miners = [miner(f"miners-{k:03d}", "grid", **fields) for k in range(1, count + 1)]
    return facility(circuits=ROOT, miners=miners, gpus=[gpu("gpus-001", "grid")])


TOLD, GPU = plant().load_by_id["miners-001"], plant().load_by_id["gpus-001"]
LOW = TOLD.most_at(TOLD.lowest)


def order(load: Load, verb: Verb, **fields: Any) -> Command:
    low, high = load.most_at(load.lowest), load.most_at(load.highest)
    before, after = (high, low) if verb is Verb.SLEEP else (low, high)
    return command(load, verb, **{"most_before_watts": before, "most_after_watts": after, **fields})


def judge(load: Load, entry: LedgerEntry, reading: Telemetry | None, at: float) -> Outcome | None:
    site = plant()
    seen = snapshot(site, at)
    readings = {key: value for key, value in seen.telemetry.items() if key != load.id}
    if reading is not None:
        readings[load.id] = reading
    found = verify(site, replace(seen, telemetry=readings, ledger=ledger_of(entry)))
    assert len(found) <= 1
    return found[0] if found else None


def kind(found: Outcome | None) -> OutcomeKind | None:
    return found.kind if found is not None else None


SLEEP, WAKE = order(TOLD, Verb.SLEEP), order(TOLD, Verb.WAKE)


def test_asleep_by_state_and_watts_is_applied() -> None:
    found = judge(TOLD, entry_of(SLEEP), asleep(TOLD, START + 2.0), START + 2.0)
    assert found is not None
    assert (found.kind, found.evidence, found.most_watts) == (OutcomeKind.APPLIED, Evidence.READBACK, LOW)


@pytest.mark.parametrize(
    "reading",
    [
        asleep(
            TOLD,
            START + 2.0,
        ),
        replace(asleep(TOLD, START + 2.0), watts=900.0),
        replace(asleep(TOLD, START + 2.0), watts=None),
        replace(asleep(TOLD, START + 2.0), state=LoadState.STOPPING),
        replace(asleep(TOLD, START + 2.0), state=None),
        asleep(TOLD, START),
    ],
    ids=["proof", "still draws", "tells no watts", "stopping", "no state", "read before it was sent"],
)
def test_nothing_less_than_both_proves_a_sleep(reading: Telemetry, request: pytest.FixtureRequest) -> None:
    found = judge(TOLD, entry_of(SLEEP), reading, START + 2.0)
    assert (kind(found) is OutcomeKind.APPLIED) == ("proof" in request.node.callspec.id)


def test_an_acknowledgement_is_no_evidence() -> None:
    said_yes = entry_of(SLEEP, receipt=Receipt(SLEEP.id, TOLD.id, START, True, "ok"))
    assert judge(TOLD, said_yes, telemetry(TOLD, START + 2.0), START + 2.0) is None
    late = judge(TOLD, said_yes, telemetry(TOLD, START + 30.0), START + 30.0)
    assert late is not None
    assert late.kind is OutcomeKind.REFUSED
    assert late.detail == "said yes, but state is active, draw 3300 W"
    assert late.most_watts is None


def test_hashing_proves_a_wake_unless_it_draws_more_than_it_may() -> None:
    assert kind(judge(TOLD, entry_of(WAKE), telemetry(TOLD, START + 20.0), START + 20.0)) is OutcomeKind.APPLIED
    heavy = replace(telemetry(TOLD, START + 20.0), watts=4_000.0)
    assert kind(judge(TOLD, entry_of(WAKE), heavy, START + 20.0)) is not OutcomeKind.APPLIED
    idle = replace(telemetry(TOLD, START + 20.0), th_per_s=0.0, watts=300.0)
    assert judge(TOLD, entry_of(WAKE), idle, START + 20.0) is None


def test_one_on_its_way_is_converging_and_said_once() -> None:
    moving = replace(telemetry(TOLD, START + 2.0), state=LoadState.STOPPING, watts=2_000.0, th_per_s=0.0)
    found = judge(TOLD, entry_of(SLEEP), moving, START + 2.0)
    assert found is not None
    assert (found.kind, found.most_watts) == (OutcomeKind.CONVERGING, None)
    assert judge(TOLD, entry_of(SLEEP, converging=True), moving, START + 2.0) is None


def test_a_device_that_says_no_is_refused_at_once_with_its_words() -> None:
    no = entry_of(SLEEP, receipt=Receipt(SLEEP.id, TOLD.id, START, False, "access denied"))
    found = judge(TOLD, no, telemetry(TOLD, START + 1.0), START + 1.0)
    assert found is not None
    assert (found.kind, found.detail, found.acked) == (OutcomeKind.REFUSED, "access denied", False)


@pytest.mark.parametrize("verb", [Verb.SLEEP, Verb.WAKE])
def test_the_deadline_is_the_ramp_with_its_margin(verb: Verb) -> None:
    sent = order(TOLD, verb)
    ramp_s = TOLD.capability.ramp_up_s if verb is Verb.WAKE else TOLD.capability.ramp_down_s
    deadline = verify_deadline(plant(), TOLD, sent)
    assert deadline == START + 1.5 * ramp_s + READ_GRACE_S
    assert judge(TOLD, entry_of(sent), None, deadline - 0.01) is None
    assert kind(judge(TOLD, entry_of(sent), None, deadline)) is OutcomeKind.UNREACHABLE


def test_silence_is_told_from_refusal() -> None:
    late = START + 200.0
    gone = judge(TOLD, entry_of(SLEEP), Telemetry(TOLD.id, late, fault="no answer"), late)
    assert gone is not None
    assert (gone.kind, gone.detail) == (OutcomeKind.UNREACHABLE, "no answer")
    unread = judge(TOLD, entry_of(SLEEP), telemetry(TOLD, START), late)
    assert unread is not None
    assert (unread.kind, unread.detail) == (OutcomeKind.UNREACHABLE, "no reading since the command")


# Devices that enforce a limit


def limited(limit: float, watts: float | None = 300.0, at: float = START + 1.0) -> Telemetry:
    return replace(telemetry(GPU, at), limit_watts=limit, watts=watts)


CAP = command(GPU, watts=400.0, most_before_watts=700.0)


def test_a_limit_counts_once_it_is_read_back_and_kept() -> None:
    found = judge(GPU, entry_of(CAP), limited(400.4), START + 1.0)
    assert found is not None
    assert (found.kind, found.most_watts) == (OutcomeKind.APPLIED, 400.4)
    assert judge(GPU, entry_of(CAP), limited(402.0), START + 1.0) is None
    assert judge(GPU, entry_of(CAP), limited(400.0, watts=500.0), START + 1.0) is None


def test_of_a_limit_asked_and_a_lower_one_kept_the_lower_counts() -> None:
    late = START + 60.0
    found = judge(GPU, entry_of(CAP), limited(350.0, at=late), late)
    assert found is not None
    assert (found.kind, found.most_watts) == (OutcomeKind.APPLIED, 350.0)
    assert "the lower counts" in found.detail
    higher = judge(GPU, entry_of(CAP), limited(700.0, at=late), late)
    assert higher is not None
    assert (higher.kind, higher.detail) == (OutcomeKind.REFUSED, "still enforces 700 W")


# Miners that tell no watts: the meter must agree


def batch(
    extra: float = 0.0,
    *,
    sigma: float = 20.0,
    samples: int = 10,
    at: float = START + 10.0,
    meter_at: float | None = None,
    quality: Quality = Quality.GOOD,
    asked: int = 2,
    readings: Mapping[str, Telemetry] | None = None,
) -> tuple[Facility, Snapshot]:
    """Return a plant of three blind miners, `asked` of which say they sleep; the meter shows `extra` above that."""
    site = plant(blind=True)
    names = [f"miners-{k:03d}" for k in range(1, asked + 1)]
    seen = snapshot(site, at, points=dict.fromkeys(names, "off"), unmanaged_watts=500.0)
    for name in names:
        seen = replace(seen, telemetry={**seen.telemetry, name: asleep(site.load_by_id[name], at)})
    watts = seen.meters["grid"].watts
    assert watts is not None
    meter = meter_reading("grid", watts + extra, meter_at if meter_at is not None else at, quality)
    background = Background(500.0, sigma, samples) if samples else None
    residual = Residual("grid", 500.0, sigma, samples, 500.0, at, background)
    entries = [entry_of(order(site.load_by_id[name], Verb.SLEEP)) for name in names]
    return site, replace(
        seen,
        meters={"grid": meter},
        residuals={"grid": residual},
        ledger=ledger_of(*entries),
        telemetry={**seen.telemetry, **(readings or {})},
    )


def credited(case: tuple[Facility, Snapshot]) -> list[str]:
    return [found.load_id for found in verify(*case) if found.kind is OutcomeKind.APPLIED]


def test_a_batch_is_credited_where_the_meter_agrees() -> None:
    found = verify(*batch())
    assert [(item.load_id, item.kind, item.evidence, item.point) for item in found] == [
        ("miners-001", OutcomeKind.APPLIED, Evidence.BOTH, "off"),
        ("miners-002", OutcomeKind.APPLIED, Evidence.BOTH, "off"),
    ]


def test_one_liar_in_the_batch_and_nobody_is_credited() -> None:
    assert credited(batch(extra=3_280.0)) == []
    assert credited(batch(extra=0.15 * 3_280.0)) == []


@given(share=st.floats(0.11, 1.0), sigma=st.floats(1.0, 100.0))
def test_no_liar_hides_whatever_the_noise_that_the_meter_is_asked_at(share: float, sigma: float) -> None:
    smallest = 3_280.0
    if share * smallest > 3.0 * sigma:
        assert credited(batch(extra=share * smallest, sigma=sigma)) == []


@pytest.mark.parametrize(
    "case",
    [
        batch(sigma=600.0),
        batch(samples=0),
        batch(meter_at=START + 7.9),
        batch(meter_at=START),
        batch(quality=Quality.BAD),
    ],
    ids=["noisier than one miner", "residual unknown", "stale", "read before the command", "bad"],
)
def test_a_meter_that_cannot_tell_is_not_asked(case: tuple[Facility, Snapshot]) -> None:
    assert credited(case) == []


def test_one_that_still_hashes_is_not_credited_by_a_low_meter() -> None:
    site = plant(blind=True)
    liar = replace(asleep(site.load_by_id["miners-001"], START + 10.0), th_per_s=50.0)
    assert "miners-001" not in credited(batch(readings={"miners-001": liar}))


def test_a_meter_is_not_asked_before_the_ramp_is_over() -> None:
    assert credited(batch(at=START + 5.9)) == []
    assert len(credited(batch(at=START + 6.0))) == 2


def test_what_another_load_on_its_way_no_longer_draws_hides_no_liar() -> None:
    site, seen = batch()
    # The third still says that it hashes, but is off; a liar in the batch draws just what it no longer does.
    third = site.load_by_id["miners-003"]
    sent = order(third, Verb.SLEEP, at=START + 8.0)
    assert credited((site, seen)) != []
    busy = replace(seen, ledger=replace(seen.ledger, entries={**seen.ledger.entries, third.id: entry_of(sent)}))
    assert credited((site, busy)) == []


def test_it_waits_while_others_keep_the_meter_moving_but_not_for_ever() -> None:
    site, seen = batch(extra=1_500.0)
    third = site.load_by_id["miners-003"]

    def at(instant: float) -> list[OutcomeKind]:
        moving = replace(telemetry(third, instant), state=LoadState.STARTING)
        readings = {key: replace(value, at=instant) for key, value in seen.telemetry.items()}
        meter = replace(seen.meters["grid"], at=instant)
        later = replace(seen, at=instant, telemetry={**readings, third.id: moving}, meters={"grid": meter})
        return [item.kind for item in verify(site, later) if item.load_id == "miners-001"]

    assert at(START + 60.0) == []
    assert at(START + MOST_WAIT_S + 1.0) == [OutcomeKind.REFUSED]


def test_a_load_found_asleep_is_credited_without_any_command() -> None:
    site, seen = batch()
    found = verify(site, replace(seen, ledger=ledger_of()))
    assert [(item.command_id, item.load_id, item.kind) for item in found] == [
        ("", "miners-001", OutcomeKind.APPLIED),
        ("", "miners-002", OutcomeKind.APPLIED),
    ]
    after = seen.ledger.after_outcomes(found, 1.0, 30.0)
    assert after.entry("miners-001").confirmed_watts == site.load_by_id["miners-001"].most_at(
        site.load_by_id["miners-001"].lowest
    )
    assert (
        verify(
            site,
            replace(
                seen,
                ledger=replace(
                    after, entries={key: replace(value, pending=False) for key, value in after.entries.items()}
                ),
            ),
        )
        == ()
    )


def test_outcomes_come_in_the_facility_s_order_whatever_the_ledger_s() -> None:
    site, seen = batch()
    turned = dict(reversed(list(seen.ledger.entries.items())))
    assert verify(site, seen) == verify(site, replace(seen, ledger=replace(seen.ledger, entries=turned)))
