"""What may be believed: meters that stand still or cannot be true, loads that answer as another, quiet residuals."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from control_kit import entry_of, ledger_of
from hypothesis import given
from hypothesis import strategies as st

from mullet.control.observe import FROZEN_AFTER_S, HEARTBEAT_AFTER_S, Observatory
from mullet.domain.command import CommandLedger, Verb
from mullet.domain.facility import Facility, Mode
from mullet.domain.feeds import Cause, Curtailment
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import LoadState, Quality
from mullet.testing.builders import circuit, command, facility, meter_reading, miner, price_curve, telemetry
from mullet.testing.virtual_time import START

SITE = facility(
    circuits=(circuit("grid", None, 20_000.0, meter="grid"),),
    miners=[miner(f"miners-{k:03d}", "grid") for k in (1, 2)],
    gpus=0,
)
FIRST = SITE.loads[0]
BOTH = 2 * FIRST.highest.watts


def look(seen: Observatory, at: float, ledger: CommandLedger | None = None) -> Snapshot:
    return seen.snapshot(at, ledger or CommandLedger(), (), Mode.AUTO, (), True, True)


def quality(seen: Observatory, at: float) -> Quality:
    return look(seen, at).meters["grid"].quality


def test_a_meter_that_repeats_itself_is_frozen_although_its_heart_beats() -> None:
    seen = Observatory(SITE)
    seen.saw(telemetry(FIRST, START - 1.0))
    for second in range(int(FROZEN_AFTER_S) + 1):
        assert second == 0 or quality(seen, START + second) is Quality.GOOD
        if second == 3:
            seen.saw(telemetry(FIRST, START + 3.0, FIRST.lowest.name))
        seen.saw_meter(meter_reading("grid", 5_000.0, START + second, heartbeat=second))
    frozen = look(seen, START + FROZEN_AFTER_S).meters["grid"]
    assert frozen.quality is Quality.BAD
    assert "frozen at 5000 W for 10 s" in frozen.detail
    seen.saw_meter(meter_reading("grid", 5_000.1, START + 11.0, heartbeat=11))
    assert quality(seen, START + 11.0) is Quality.GOOD


def test_a_meter_that_repeats_itself_while_nothing_moves_is_believed() -> None:
    seen = Observatory(SITE)
    seen.saw(telemetry(FIRST, START))
    for second in range(60):
        seen.saw_meter(meter_reading("grid", 5_000.0, START + second, heartbeat=second))
    assert quality(seen, START + 60.0) is Quality.GOOD


def test_a_heart_that_stands_still_is_found_sooner_although_the_watts_move() -> None:
    seen = Observatory(SITE)
    found = []
    for second in range(6):
        seen.saw_meter(meter_reading("grid", 5_000.0 + second, START + second, heartbeat=7))
        found.append(quality(seen, START + second))
    assert found == [Quality.GOOD] * (int(HEARTBEAT_AFTER_S) + 1) + [Quality.BAD] * 2
    assert "heartbeat stands still" in look(seen, START + 5.0).meters["grid"].detail


def test_a_meter_without_a_heart_is_judged_by_its_watts_alone() -> None:
    seen = Observatory(SITE)
    for second in range(30):
        seen.saw_meter(meter_reading("grid", 5_000.0 + second, START + second, heartbeat=None))
    assert quality(seen, START + 30.0) is Quality.GOOD


def test_zero_for_long_is_no_sign_of_a_frozen_meter() -> None:
    seen = Observatory(SITE)
    for second in range(30):
        seen.saw_meter(meter_reading("grid", 0.0, START + second, heartbeat=None))
    assert quality(seen, START + 30.0) is Quality.GOOD


@pytest.mark.parametrize("watts", [math.nan, math.inf, -math.inf, -5.0, None])
def test_what_cannot_be_true_is_bad_and_shows_no_watts(watts: float | None) -> None:
    seen = Observatory(SITE)
    seen.saw_meter(meter_reading("grid", watts))
    reading = look(seen, START).meters["grid"]
    assert (reading.quality, reading.watts) == (Quality.BAD, None)


def test_a_meter_that_was_bad_already_stays_as_its_driver_said() -> None:
    seen = Observatory(SITE)
    seen.saw_meter(replace(meter_reading("grid", None, quality=Quality.BAD), detail="checksum"))
    assert look(seen, START).meters["grid"].detail == "checksum"


def test_an_older_reading_than_the_latest_is_dropped() -> None:
    seen = Observatory(SITE)
    seen.saw(telemetry(FIRST, START + 2.0, "off"))
    seen.saw(telemetry(FIRST, START + 1.0))
    seen.saw_meter(meter_reading("grid", 40.0, START + 2.0))
    seen.saw_meter(meter_reading("grid", BOTH, START + 1.0))
    snapshot = look(seen, START + 2.0)
    assert snapshot.telemetry[FIRST.id].state is LoadState.ASLEEP
    assert snapshot.meters["grid"].watts == 40.0


def test_a_load_that_nobody_knows_is_not_taken_in() -> None:
    seen = Observatory(SITE)
    seen.saw(telemetry(miner("miners-099", "grid")))
    assert seen.telemetry == {}


@pytest.mark.parametrize("answers_as", ["aa:bb", "cc:dd", None])
def test_another_device_at_the_address_closes_the_load(answers_as: str | None) -> None:
    pinned = replace(FIRST, identity="aa:bb")
    seen = Observatory(replace(SITE, loads=(pinned, SITE.loads[1])))
    seen.saw(telemetry(pinned, identity=answers_as))
    reading = seen.telemetry[FIRST.id]
    if answers_as == "cc:dd":
        assert reading.fault == "answers as cc:dd, pinned to aa:bb"
        assert (reading.watts, reading.state, reading.th_per_s) == (None, None, None)
    else:
        assert reading.fault is None


# Residuals


def at_rest(seen: Observatory, at: float, extra: float, ledger: CommandLedger | None = None) -> float:
    """Let every load and the meter be read at `at`; return the residual's mean."""
    for load in SITE.loads:
        seen.saw(telemetry(load, at))
    seen.saw_meter(meter_reading("grid", BOTH + extra, at, heartbeat=None))
    return look(seen, at, ledger).residuals["grid"].mean_watts


def test_the_first_quiet_reading_is_taken_whole_and_later_ones_little_by_little() -> None:
    seen = Observatory(SITE)
    assert at_rest(seen, START, 100.0) == pytest.approx(100.0)
    means = [at_rest(seen, START + k, 200.0 + k) for k in range(1, 40)]
    assert means == sorted(means)
    assert 100.0 <= means[0] < means[5] < means[-1] < 240.0
    assert means[-1] > 215.0


def test_a_residual_does_not_settle_while_a_load_is_under_way() -> None:
    seen = Observatory(SITE)
    at_rest(seen, START, 100.0)
    busy = ledger_of(entry_of(command(FIRST, Verb.SLEEP, at=START + 1.0)))
    for second in range(1, 6):
        assert at_rest(seen, START + second, 3_000.0, busy) == pytest.approx(100.0)
    residual = look(seen, START + 5.0, busy).residuals["grid"]
    assert residual.latest_watts == pytest.approx(3_000.0)
    # It was not quiet for long enough right afterwards either.
    assert at_rest(seen, START + 6.0, 3_000.0) == pytest.approx(100.0)
    assert at_rest(seen, START + 9.0, 3_000.0) > 100.0


def test_the_same_reading_is_not_counted_twice() -> None:
    seen = Observatory(SITE)
    at_rest(seen, START, 100.0)
    assert look(seen, START + 1.0).residuals == look(seen, START + 2.0).residuals


def test_a_bad_meter_teaches_nothing() -> None:
    seen = Observatory(SITE)
    at_rest(seen, START, 100.0)
    before = look(seen, START).residuals
    seen.saw_meter(meter_reading("grid", math.nan, START + 5.0))
    assert look(seen, START + 5.0).residuals == before


def test_a_load_that_falls_silent_is_counted_as_it_last_stood() -> None:
    seen = Observatory(SITE)
    at_rest(seen, START, 100.0)
    seen.saw(replace(telemetry(FIRST, START + 1.0), watts=None, state=None, th_per_s=None, fault="no answer"))
    seen.saw_meter(meter_reading("grid", BOTH + 90.0, START + 3.0, heartbeat=None))
    assert look(seen, START + 3.0).residuals["grid"].latest_watts == pytest.approx(90.0)


@given(st.lists(st.floats(-2_000.0, 2_000.0), min_size=1, max_size=30))
def test_a_residual_stays_within_what_was_seen_and_has_a_spread(extras: list[float]) -> None:
    seen = Observatory(SITE)
    for second, extra in enumerate(extras):
        at_rest(seen, START + second, extra)
    residual = look(seen, START + len(extras)).residuals["grid"]
    assert min(extras) - 1e-6 <= residual.mean_watts <= max(extras) + 1e-6
    assert residual.sigma_watts > 0.0
    assert math.isfinite(residual.sigma_watts)


# Completeness, feeds, reload


def test_complete_means_every_load_and_every_meter() -> None:
    seen = Observatory(SITE)
    seen.saw(telemetry(FIRST))
    assert not seen.complete()
    seen.saw(replace(telemetry(SITE.loads[1]), fault="no answer", watts=None, state=None))
    assert not seen.complete()
    seen.saw(telemetry(SITE.loads[1], START + 1.0))
    seen.saw_meter(meter_reading("grid", BOTH, START + 1.0))
    look(seen, START + 1.0)
    assert seen.complete()


def test_a_refused_price_leaves_the_last_good_one_and_says_why() -> None:
    seen = Observatory(SITE)
    seen.refused_prices("nothing is known yet")
    assert seen.prices is None
    seen.saw_prices(price_curve([40.0]), START)
    seen.refused_prices("unit jump")
    reading = look(seen, START + 60.0).prices
    assert reading is not None
    assert (reading.value.at(START), reading.at, reading.quarantined) == (40.0, START, "unit jump")
    seen.saw_prices(price_curve([41.0]), START + 60.0)
    assert seen.prices is not None
    assert seen.prices.quarantined is None


def test_limits_are_levels_what_is_no_longer_listed_has_ended() -> None:
    seen = Observatory(SITE)
    limit = Curtailment("dr-1", "grid", 9_000.0, START, START + 900.0, Cause.DEMAND_RESPONSE, START)
    assert seen.limits_at is None
    seen.saw_limits((limit,), START)
    assert look(seen, START).curtailments == (limit,)
    seen.saw_limits((), START + 1.0)
    assert look(seen, START + 1.0).curtailments == ()
    assert seen.limits_at == START + 1.0


def reduced() -> Facility:
    return replace(SITE, loads=SITE.loads[:1], policy_hash="1" * 64)


def test_a_reload_keeps_what_is_known_of_what_remains() -> None:
    seen = Observatory(SITE)
    at_rest(seen, START, 100.0)
    seen.adopt(reduced())
    assert set(seen.telemetry) == {FIRST.id}
    seen.saw(telemetry(SITE.loads[1], START + 1.0))
    assert set(seen.telemetry) == {FIRST.id}
    snapshot = look(seen, START + 1.0)
    assert snapshot.residuals["grid"].samples == 1
    assert snapshot.meters["grid"].watts == BOTH + 100.0


def test_a_circuit_that_a_reload_takes_away_is_forgotten() -> None:
    seen = Observatory(SITE)
    at_rest(seen, START, 100.0)
    moved = replace(FIRST, circuit="other")
    other: Facility = facility(circuits=(circuit("other", None, 9_000.0),), miners=[moved], gpus=0)
    seen.adopt(other)
    assert look(seen, START + 1.0).residuals == {}
    assert seen.complete()
