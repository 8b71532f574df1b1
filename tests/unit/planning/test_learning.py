"""What is learnt of a fleet: only what stands still is learnt from, and the cap sum never counts less than measured."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from learning_kit import CAPABLE, POINTS, bank, learned, of, plant, point, watch

from mullet.domain.command import CommandLedger, Evidence, LedgerEntry, Outcome, OutcomeKind, Verb
from mullet.domain.load import OFF
from mullet.domain.telemetry import LoadState, Telemetry
from mullet.planning.learned import ENOUGH_SAMPLES, LearnedMake, LearnedRamp, with_learned
from mullet.planning.learning import JUDGED_VISITS, STEADY_VISITS, Learner
from mullet.planning.merit import break_even_per_mwh, market_now
from mullet.planning.sketch import MOST_COUNTED, Sketch
from mullet.testing.builders import command, miner, snapshot
from mullet.testing.virtual_time import START

# Quantiles


@given(st.lists(st.floats(0.5, 50_000.0), min_size=1, max_size=300), st.floats(0.0, 1.0))
def test_a_quantile_covers_its_share_and_is_one_percent_high_at_most(values: list[float], share: float) -> None:
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    exact = sorted(values)[max(0, math.ceil(share * len(values) - 1e-9) - 1)]
    most = sketch.at_most(share)
    assert most is not None
    assert exact * (1.0 - 1e-9) <= most <= exact * 1.01 * (1.0 + 1e-9)
    assert sketch.about(share) == pytest.approx(exact, rel=0.006)


def test_memory_is_bounded_and_old_values_fade() -> None:
    sketch = Sketch()
    assert (sketch.at_most(0.5), sketch.about(0.5), len(sketch)) == (None, None, 0)
    for value in [1_000.0] * MOST_COUNTED + [2_000.0] * (MOST_COUNTED + 1):
        sketch.add(value)
    sketch.add(math.nan)
    sketch.add(-5.0)
    assert len(sketch) <= MOST_COUNTED
    assert sketch.about(0.5) == pytest.approx(2_000.0, rel=0.006)
    again = Sketch(sketch.bins())
    assert (again.bins(), len(again)) == (sketch.bins(), len(sketch))


# What is learnt from


def test_watts_and_rates_at_rest_are_learnt() -> None:
    site = plant()
    learner = Learner(site)
    seen = Telemetry("x", START, watts=3_100.0, th_per_s=104.0, state=LoadState.ACTIVE)
    watch(learner, site, 8, **{load.id: seen for load in site.loads[:6]})
    found = point(learner)
    assert (found.samples, found.loads, found.rates) == (6 * (8 - STEADY_VISITS), 6, 36)
    assert found.watts == pytest.approx(3_100.0, rel=0.006)
    assert 3_100.0 <= (found.watts_p95 or 0.0) <= 3_131.0
    assert found.most_watts == pytest.approx(3_100.0)
    assert found.joules_per_th == pytest.approx(3_100.0 / 104.0, rel=0.012)
    assert point(learner, OFF).samples == 0
    assert {each.bank for each in learner.learned()} == {"wm"}


@pytest.mark.parametrize(
    "reading",
    [
        Telemetry("x", START, watts=900.0, th_per_s=0.0, state=LoadState.STARTING),
        Telemetry("x", START, watts=900.0, th_per_s=0.0, state=LoadState.STOPPING),
        Telemetry("x", START, watts=900.0, th_per_s=9.0, state=None),
        Telemetry("x", START, fault="no answer"),
    ],
    ids=["starting", "stopping", "unknown", "silent"],
)
def test_nothing_is_learnt_from_what_moves_or_is_not_known(reading: Telemetry) -> None:
    site = plant(count=1)
    learner = Learner(site)
    watch(learner, site, 6, **{"wm-001": reading})
    assert [each.samples + each.rates for each in of(learner).points] == [0, 0]


def test_nothing_is_learnt_while_a_command_is_out_or_its_ramp_runs() -> None:
    site = plant(count=1)
    load = site.loads[0]
    for entry in (
        LedgerEntry(load.id, command(load), pending=True, last_change_at=START - 900.0),
        LedgerEntry(load.id, command(load), last_change_at=START + 100.0),
        LedgerEntry(load.id, command(load), last_change_at=START - 900.0, confirmed_at=START + 100.0),
        # It woke by itself: whatever it does now, it was not asked to.
        LedgerEntry(load.id, confirmed_point=OFF, confirmed_watts=21.0, confirmed_at=START - 900.0),
    ):
        learner = Learner(site)
        watch(learner, site, 5, CommandLedger({load.id: entry}))
        assert point(learner).samples == 0


def test_a_stale_reading_counts_once() -> None:
    site = plant(count=1)
    learner = Learner(site)
    frozen = snapshot(site, START)
    for second in range(300):
        learner.observe(site, replace(frozen, at=START + second), CommandLedger(), ())
    assert point(learner).samples == 0


def test_watts_of_loads_that_do_not_measure_are_not_learnt() -> None:
    site = plant(capability=replace(miner().capability, measures_watts=False))
    learner = Learner(site)
    seen = Telemetry("x", START, watts=1_000.0, th_per_s=104.0, state=LoadState.ACTIVE)
    watch(learner, site, 8, **{load.id: seen for load in site.loads[:6]})
    assert (point(learner).samples, point(learner).watts) == (0, None)
    assert point(learner).th_per_s == pytest.approx(104.0, rel=0.006)
    # What it hashes is known all the same, and by that the bank is ranked.
    found, _ = with_learned(site, learner.learned())
    assert found.loads[0].highest.watts == site.loads[0].highest.watts
    assert found.loads[0].highest.th_per_s == pytest.approx(104.0, rel=0.006)


def test_a_sleeping_load_hashes_nothing_worth_learning() -> None:
    site = plant()
    learner = Learner(site)
    seen = Telemetry("x", START, watts=15.0, th_per_s=0.0, state=LoadState.ASLEEP)
    watch(learner, site, 8, **{load.id: seen for load in site.loads[:6]})
    found = point(learner, OFF)
    assert (found.samples, found.rates, found.joules_per_th) == (36, 0, None)


def test_a_point_between_is_learnt_where_it_is_known() -> None:
    site = plant(points=POINTS, capability=CAPABLE)
    learner = Learner(site)
    seen = Telemetry("x", START, watts=2_040.0, th_per_s=82.0, state=LoadState.ACTIVE)
    lost = Telemetry("x", START, watts=2_700.0, th_per_s=95.0, state=LoadState.ACTIVE)
    watch(learner, site, 8, **{"wm-001": seen, "wm-002": seen, "wm-003": lost})
    assert point(learner, "eco").samples == 2 * (8 - STEADY_VISITS)
    assert point(learner, "full").samples == 3 * (8 - STEADY_VISITS)


def ended(load_id: str, verb: Verb, seconds: float, **fields: Any) -> tuple[CommandLedger, Outcome]:
    load = plant().load_by_id[load_id]
    order = command(load, verb)
    outcome = Outcome(
        order.id, load_id, START + seconds, OutcomeKind.APPLIED, None, None, Evidence.READBACK, True, **fields
    )
    return CommandLedger({load_id: LedgerEntry(load_id, order)}), outcome


def test_ramps_are_learnt_from_what_was_verified() -> None:
    site = plant()
    learner = Learner(site)
    for seconds in [2.0] * 18 + [9.0] * 2:
        ledger, outcome = ended("wm-001", Verb.SLEEP, seconds)
        learner.observe(site, snapshot(site), ledger, (outcome,))
        learner.observe(site, snapshot(site), ledger, (replace(outcome, kind=OutcomeKind.REFUSED),))
        learner.observe(site, snapshot(site), ledger, (replace(outcome, command_id="another"),))
    ramp = of(learner).ramp_down
    assert ramp.samples == 20
    assert ramp.p50_s == pytest.approx(2.0, rel=0.01)
    assert ramp.p95_s == pytest.approx(9.0, rel=0.011)
    assert of(learner).ramp_up == LearnedRamp(0, None, None)


# Who is far from its group


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        ({"watts": 3_800.0}, "draws 3.8 kW, its group 3.3 kW; takes 34.5 J/TH, its group 30.0"),
        ({"th_per_s": 70.0}, "hashes 70.0 TH/s, its group 110.0; takes 47.1 J/TH, its group 30.0"),
        ({"watts": 3_380.0}, None),
    ],
)
def test_a_load_far_from_its_group_is_named(reading: dict[str, float], words: str | None) -> None:
    site = plant()
    learner = Learner(site)
    values = {"watts": 3_300.0, "th_per_s": 110.0, "state": LoadState.ACTIVE, **reading}
    odd = Telemetry("wm-004", START, **values)
    due = watch(learner, site, STEADY_VISITS + JUDGED_VISITS - 1, **{"wm-004": odd})
    assert learner.far == {}
    due = watch(learner, site, 2, start=due, **{"wm-004": odd})
    assert learner.far == ({} if words is None else {"wm-004": words})
    watch(learner, site, 60, start=due)
    assert learner.far == {}


def test_a_group_that_scatters_flags_nobody_and_a_small_one_neither() -> None:
    site = plant()
    learner = Learner(site)
    scattered = {
        f"wm-{k:03d}": Telemetry("x", START, watts=2_800.0 + 200.0 * k, th_per_s=110.0, state=LoadState.ACTIVE)
        for k in range(1, 7)
    }
    watch(learner, site, 10, **scattered)
    assert learner.far == {}
    small = plant(count=3)
    learner = Learner(small)
    watch(learner, small, 10, **{"wm-001": scattered["wm-001"]})
    assert learner.far == {}


# What is kept


def test_a_later_run_goes_on_and_points_that_changed_start_anew() -> None:
    site = plant()
    learner = Learner(site)
    watch(learner, site, 8)
    kept = json.loads(json.dumps(learner.kept()))
    assert Learner(site, kept).learned() == learner.learned()
    other = plant(watts=3_000.0)
    assert next(p for p in of(Learner(other, kept)).points if p.name == "normal").samples == 0
    learner.adopt(other)
    assert point(learner).samples == 0


@pytest.mark.parametrize(
    "kept",
    [
        {"banks": 5},
        {"banks": {"wm": 5}},
        {"banks": {"wm": {"points": {}}}},
        {"banks": {"wm": [{"make": None, "points": 5}]}},
        {"banks": {"wm": [{"make": None, "points": {}, "ramp_down": {}}]}},
        {"banks": {"wm": [{"points": {}, "ramp_down": {}, "ramp_up": {}}]}},
        {"makes": ["M50S / luxos"]},
        {"makes": {"M50S / luxos": 5}},
    ],
    ids=["banks", "bank", "one make", "points", "no ramp", "no make", "list of makes", "no loads"],
)
def test_what_was_kept_in_another_shape_is_refused(kept: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        Learner(plant(), kept)


# What becomes of the facility


def test_planning_goes_by_what_was_measured_and_devices_are_asked_by_nameplate() -> None:
    site = plant(points=POINTS, capability=CAPABLE)
    found, notes = with_learned(site, bank(learned("eco", 1_900.0, th_per_s=84.0), learned("full", 3_150.0)))
    load = found.loads[0]
    assert [p.watts for p in load.points] == [20.0, 1_900.0, 3_150.0]
    assert [p.th_per_s for p in load.points] == [0.0, 84.0, 110.0]
    assert [p.asked_watts for p in load.points] == [20.0, 2_000.0, 3_300.0]
    assert notes == {"wm": "eco 2000 -> 1900 W, 80 -> 84 TH/s; full 3300 -> 3150 W, 110 -> 110 TH/s"}
    assert found.loads[6] == site.loads[6]
    assert [each.id for each in found.loads] == [each.id for each in site.loads]
    market = market_now(site, snapshot(site))
    assert break_even_per_mwh(market, *load.points[:2]) > break_even_per_mwh(market, *site.loads[0].points[:2])


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ((), ()),
        (bank(learned()), ("wm",)),
        (bank(learned(), make="M50S / luxos"), ()),
        (bank(learned(samples=ENOUGH_SAMPLES - 1)), ()),
        (bank(learned(loads=2)), ()),
        (bank(learned(watts=1_000.0)), ()),
        (bank(learned("eco", 2_900.0), learned("full", 2_800.0)), ()),
        (bank(learned("eco", th_per_s=115.0, watts=2_000.0)), ()),
    ],
    ids=[
        "nothing",
        "switched off",
        "another make",
        "few samples",
        "few loads",
        "not plausible",
        "not ascending",
        "rates fall",
    ],
)
def test_too_little_or_too_odd_leaves_the_nameplate(found: tuple[LearnedMake, ...], kept: tuple[str, ...]) -> None:
    site = plant(points=POINTS, capability=CAPABLE)
    assert with_learned(site, found, {}, kept)[0].loads == site.loads


@given(
    watts=st.floats(1_700.0, 4_900.0),
    spread=st.floats(0.0, 0.6),
    most=st.floats(0.0, 0.6),
    standby=st.floats(1.0, 200.0),
    tolerance=st.floats(0.0, 0.2),
)
def test_the_cap_sum_never_counts_less_than_was_measured(
    watts: float, spread: float, most: float, standby: float, tolerance: float
) -> None:
    site = plant(tolerance=tolerance)
    high = learned("normal", watts, watts_p95=watts * (1.0 + spread), most_watts=watts * (1.0 + most))
    low = replace(learned(OFF, standby), watts_p95=standby * 1.5, most_watts=standby * 1.2, rates=0, th_per_s=None)
    found, notes = with_learned(site, bank(low, high))
    for load in found.loads[:6]:
        assert load.worst_watts >= site.loads[0].worst_watts
        assert load.tolerance == tolerance
        if load.points != site.loads[0].points:
            for seen in (low, high):
                assert load.most_at(load.point(seen.name)) >= max(seen.watts_p95 or 0.0, seen.most_watts or 0.0) - 1e-6
        else:
            assert notes["wm"].startswith("not taken over") or watts == 3_300.0


@pytest.mark.parametrize(("p95", "taken"), [(1.9, 1.9), (1.2, 1.5), (7.0, 7.0)])
def test_ramps_go_by_what_was_measured_but_never_below_half(p95: float, taken: float) -> None:
    site = plant()
    found, _ = with_learned(site, bank(down=LearnedRamp(ENOUGH_SAMPLES, 1.0, p95), up=LearnedRamp(5, 9.0, 9.0)))
    capability = found.loads[0].capability
    assert (capability.ramp_down_s, capability.ramp_up_s) == (taken, 60.0)
