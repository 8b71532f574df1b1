"""Prices: what is not believed, and what stands in for it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullet.domain.facility import Circuit, Economics, Facility, Mode, Pacing, SafeAction, SafetyRow
from mullet.domain.feeds import PriceCurve, PriceInterval, Reading
from mullet.domain.snapshot import Snapshot
from mullet.programs.prices import AHEAD, FEED, FIXED, LAST_WEEK, forecast_prices, price_forecast, quarantine

AT = 1_700_000_100.0
ECONOMICS = Economics(hashprice_per_ph_day=50.0, fallback_price_per_mwh=88.0)
PLANT = Facility(
    id="f",
    currency="USD",
    circuits=(Circuit("g", None, 1e6, 8e5),),
    loads=(),
    services=(),
    auxiliaries=(),
    accounts=(),
    economics=ECONOMICS,
    pacing=Pacing(),
    safety=(SafetyRow("price", 600.0, SafeAction.LADDER),),
    mode=Mode.AUTO,
    policy_hash="h",
)


def curve(*prices, start=AT - 100.0, step_s=300.0):
    return PriceCurve(
        tuple(PriceInterval(start + n * step_s, start + (n + 1) * step_s, price) for n, price in enumerate(prices))
    )


def covers(found, at=AT):
    intervals = found.curve.intervals
    assert all(math.isfinite(interval.price_per_mwh) for interval in intervals)
    assert all(a.end == pytest.approx(b.start) for a, b in itertools.pairwise(intervals))
    assert intervals[0].start <= at
    assert intervals[-1].end >= at + 24 * 3_600.0


def test_a_fresh_feed_is_the_first_rung():
    found = price_forecast(Reading(curve(30.0, 31.0), AT - 60.0), None, PLANT, AT)
    assert (found.rung, found.curve.at(AT), found.curve.at(AT + 250.0)) == (FEED, 30.0, 31.0)
    covers(found)
    beyond = [interval.price_per_mwh for interval in found.curve.intervals if interval.start > AT + 600.0]
    assert beyond == sorted(beyond), "decays towards the fallback"
    assert beyond[-1] == pytest.approx(88.0, abs=0.01)


def test_the_last_price_holds_while_the_feed_is_fresh_and_no_longer():
    reading = Reading(curve(30.0), AT - 60.0)
    assert price_forecast(reading, None, PLANT, AT + 400.0).curve.at(AT + 400.0) == 30.0
    late = price_forecast(reading, None, PLANT, AT + 541.0)
    assert (late.rung, late.curve.at(AT + 541.0)) == (FIXED, 88.0)


def test_a_stale_feed_counts_for_what_it_published_ahead():
    found = price_forecast(Reading(curve(*[20.0] * 24, step_s=3_600.0), AT - 5_000.0), None, PLANT, AT)
    assert (found.rung, found.curve.at(AT)) == (AHEAD, 20.0)
    covers(found)


def test_then_last_week_and_then_the_fixed_price():
    week = PriceCurve(
        tuple(
            PriceInterval(AT - 604_800.0 + n * 3_600.0, AT - 604_800.0 + (n + 1) * 3_600.0, 10.0 + n // 24)
            for n in range(168)
        )
    )
    found = price_forecast(None, week, PLANT, AT)
    assert found.rung == LAST_WEEK
    assert 14.0 <= (found.curve.at(AT) or 0.0) <= 16.0
    covers(found)
    bare = price_forecast(None, None, PLANT, AT)
    assert (bare.rung, {interval.price_per_mwh for interval in bare.curve.intervals}) == (FIXED, {88.0})
    covers(bare)


def test_a_gap_is_filled_and_never_with_nothing():
    holed = PriceCurve((PriceInterval(AT - 900.0, AT - 300.0, 30.0), PriceInterval(AT + 900.0, AT + 1_800.0, 40.0)))
    found = price_forecast(Reading(holed, AT), None, PLANT, AT)
    assert found.rung == FIXED
    assert 30.0 < (found.curve.at(AT) or 0.0) < 88.0
    covers(found)


@given(
    st.lists(st.tuples(st.floats(-3_000.0, 9e4), st.floats(60.0, 7_200.0), st.floats(-500.0, 5_000.0)), max_size=8),
    st.floats(0.0, 2_000.0),
)
def test_the_ladder_always_covers_the_horizon(parts, age_s):
    intervals, end = [], -math.inf
    for offset, length, price in sorted(parts):
        start = max(AT + offset, end)
        intervals.append(PriceInterval(start, start + length, price))
        end = start + length
    found = price_forecast(Reading(PriceCurve(tuple(intervals)), AT - age_s), None, PLANT, AT)
    assert found.curve.mean(AT, AT + 24 * 3_600.0) is not None


def test_the_forecast_carries_hashprice_and_needs():
    found = forecast_prices(PLANT, Snapshot("f", AT, hashprice=Reading(44.0, AT)), {"chat": 1.0})
    assert (found.hashprice_per_ph_day, found.needs_watts, found.price_rung) == (44.0, {"chat": 1.0}, FIXED)
    assert forecast_prices(PLANT, Snapshot("f", AT), {}).hashprice_per_ph_day == 50.0


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (PriceCurve(()), "no intervals"),
        (curve(30.0, math.nan), "interval 2 holds a value that is no number"),
        (curve(math.inf), "no number"),
        (curve(30.0, 10_001.0), "interval 2: price 10001 per MWh is outside -1000..10000"),
        (curve(-1_001.0), "outside"),
        (PriceCurve((PriceInterval(AT, AT + 300, 1.0), PriceInterval(AT + 200, AT + 500, 1.0))), "overlaps"),
        (PriceCurve((PriceInterval(AT, AT, 1.0),)), "no Unix seconds"),
        (curve(30.0, start=AT * 1e3), "no Unix seconds"),
        (curve(*[5_000.0] * 6), "unit jump x1000"),
        (curve(*[0.03] * 6), "unit jump x0.001"),
        (curve(0.0301, start=AT + 9_000.0), "unit jump x0.001"),
    ],
)
def test_what_cannot_be_is_quarantined(bad, words):
    previous = curve(30.0, 30.0, 30.0, 28.0, 31.0, 33.0)
    if "5000" in repr(bad):
        previous = curve(*[5.0] * 6)
    reason = quarantine(bad, previous, ECONOMICS)
    assert reason is not None
    assert words in reason


@pytest.mark.parametrize("price", [-500.0, 0.0, 5_000.0, -1_000.0, 10_000.0])
def test_extremes_within_bounds_are_obeyed(price):
    assert quarantine(curve(price), curve(30.0, start=AT - 5_000.0), ECONOMICS) is None
    assert quarantine(curve(price), None, ECONOMICS) is None


def test_bounds_are_the_policys():
    assert quarantine(curve(300.0), None, replace(ECONOMICS, price_max_per_mwh=250.0)) is not None
