"""What is learnt of a fleet: only what stands still is learnt from, and the cap sum never counts less than measured."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullet.domain.command import CommandLedger, Evidence, LedgerEntry, Outcome, OutcomeKind, Verb
from mullet.domain.facility import Facility
from mullet.domain.load import OFF, LoadKind, OperatingPoint, Steering
from mullet.domain.plan import group_loads
from mullet.domain.telemetry import LoadState, Telemetry
from mullet.planning.learned import ENOUGH_SAMPLES, LearnedMake, LearnedPoint, LearnedRamp, with_learned
from mullet.planning.learning import JUDGED_VISITS, STEADY_VISITS, Learner
from mullet.planning.merit import break_even_per_mwh, market_now
from mullet.planning.sketch import MOST_COUNTED, Sketch
from mullet.testing.builders import circuit, command, facility, gpu, miner, snapshot, telemetry
from mullet.testing.virtual_time import START

POINTS = (OperatingPoint(OFF, 20.0), OperatingPoint("eco", 2_000.0, 80.0), OperatingPoint("full", 3_300.0, 110.0))
CAPABLE = replace(miner().capability, steering=Steering.STEPPED)


def plant(count: int = 6, **fields: Any) -> Facility:
    miners = [miner(f"wm-{k:03d}", "grid", **fields) for k in range(1, count + 1)]
    return facility(circuits=(circuit("grid", None, 90_000.0),), miners=miners, gpus=[gpu("gpus-001", "grid")])


def watch(
    learner: Learner,
    site: Facility,
    visits: int,
    ledger: CommandLedger | None = None,
    start: float = START,
    **readings: Telemetry,
) -> float:
    """Let every load be visited so often; returns when the next visit is due."""
    book = ledger or CommandLedger()
    count = len([load for load in site.loads if load.driver == "asic"])
    for visit in range(visits):
        for turn in range(count):
            at = start + 30.0 * visit + turn
            told = {load.id: replace(telemetry(load, at), **_told(readings.get(load.id))) for load in site.loads}
            learner.observe(site, replace(snapshot(site, at), telemetry=told), book, ())
    return start + 30.0 * visits


def _told(reading: Telemetry | None) -> dict[str, Any]:
    if reading is None:
        return {}
    names = ("watts", "th_per_s", "state", "fault", "limit_watts", "make")
    return {name: getattr(reading, name) for name in names}


def of(learner: Learner, make: str | None = None) -> LearnedMake:
    """Return what was learnt of a make of the only bank."""
    return next(each for each in learner.learned() if each.make == make)


def point(learner: Learner, name: str = "normal") -> LearnedPoint:
    return next(each for each in of(learner).points if each.name == name)


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


# Makes: model and firmware


OLD, NEW = "Antminer S19 / luxos", "Antminer S21 / luxos"


def mixed(drawn: dict[str, float], makes: dict[str, str | None]) -> dict[str, Telemetry]:
    """Return what loads tell that draw so much, each of its make."""
    return {
        name: Telemetry("x", START, watts=watts, th_per_s=110.0, state=LoadState.ACTIVE, make=makes.get(name))
        for name, watts in drawn.items()
    }


def ids(first: int, last: int) -> list[str]:
    return [f"wm-{k:03d}" for k in range(first, last + 1)]


def test_each_make_of_a_bank_is_learnt_and_compared_by_itself() -> None:
    site = plant(count=13)
    makes: dict[str, str | None] = {**dict.fromkeys(ids(1, 6), OLD), **dict.fromkeys(ids(7, 12), NEW)}
    drawn = {**dict.fromkeys(ids(1, 6), 3_400.0), **dict.fromkeys(ids(7, 13), 2_900.0), "wm-002": 2_900.0}
    learner = Learner(site)
    watch(learner, site, 12, **mixed(drawn, makes))
    found = learner.learned()
    assert [(each.bank, each.make, each.loads) for each in found] == [("wm", OLD, 6), ("wm", NEW, 6), ("wm", None, 1)]
    medians = [each.points[1].watts for each in found]
    assert medians == pytest.approx([3_400.0, 2_900.0, 2_900.0], rel=0.006)
    # Among all thirteen it would be like most.
    assert set(learner.far) == {"wm-002"}
    assert learner.far["wm-002"].startswith("draws 2.9 kW, its group 3.4 kW")


def test_a_load_whose_make_changes_starts_anew_there() -> None:
    site = plant(count=6)
    full = dict.fromkeys(ids(1, 6), 3_300.0)
    learner = Learner(site)
    due = watch(learner, site, 10, **mixed({**full, "wm-006": 3_900.0}, dict.fromkeys(ids(1, 6), OLD)))
    assert set(learner.far) == {"wm-006"}
    other = {**dict.fromkeys(ids(1, 5), OLD), "wm-006": NEW}
    before = of(learner, OLD).points[1].samples
    due = watch(learner, site, 1, start=due, **mixed({**full, "wm-006": 2_700.0}, other))
    assert learner.far == {}
    assert (of(learner, OLD).loads, of(learner, NEW).loads) == (5, 1)
    assert (of(learner, OLD).points[1].samples, of(learner, NEW).points[1].samples) == (before + 5, 0)
    due = watch(learner, site, STEADY_VISITS, start=due, **mixed({**full, "wm-006": 2_700.0}, other))
    assert of(learner, NEW).points[1].watts == pytest.approx(2_700.0, rel=0.006)
    # A reading without a make changes nothing; the last load of a make takes its figures along.
    due = watch(learner, site, 1, start=due, **mixed(full, {}))
    assert learner.makes == other
    watch(learner, site, 1, start=due, **mixed(full, dict.fromkeys(ids(1, 6), OLD)))
    assert [each.make for each in learner.learned()] == [OLD]


def test_a_make_that_turns_up_is_learnt_by_nameplate_whatever_is_planned_with() -> None:
    site = plant(count=6)
    learner = Learner(site)
    watch(learner, site, 10, **mixed(dict.fromkeys(ids(1, 6), 3_000.0), {}))
    planned, _ = with_learned(site, learner.learned())
    assert planned.loads[0].highest.watts != site.loads[0].highest.watts
    watch(
        learner,
        planned,
        10,
        start=START + 900.0,
        **mixed(dict.fromkeys(ids(1, 6), 3_000.0), dict.fromkeys(ids(1, 6), OLD)),
    )
    assert of(learner, OLD).points[1].nameplate_watts == site.loads[0].highest.watts
    assert Learner(site, json.loads(json.dumps(learner.kept()))).learned() == learner.learned()


def test_makes_are_known_at_start_and_after_a_reload() -> None:
    site = plant(count=8)
    makes: dict[str, str | None] = {**dict.fromkeys(ids(1, 4), OLD), **dict.fromkeys(ids(5, 7), NEW)}
    learner = Learner(site)
    watch(learner, site, 8, **mixed(dict.fromkeys(ids(1, 8), 3_100.0), makes))
    again = Learner(site, json.loads(json.dumps(learner.kept())))
    assert again.makes == makes
    assert again.learned() == learner.learned()
    smaller = plant(count=4)
    again.adopt(smaller)
    assert [(each.make, each.loads) for each in again.learned()] == [(OLD, 4)]
    assert again.makes == dict.fromkeys(ids(1, 4), OLD)


@given(
    first=st.lists(st.sampled_from([OLD, NEW]), min_size=3, max_size=3),
    turns=st.lists(st.tuples(st.integers(0, 2), st.sampled_from([OLD, NEW, None])), min_size=1, max_size=10),
    restarts=st.booleans(),
)
def test_makes_are_never_mixed_up(first: list[str], turns: list[tuple[int, str | None]], restarts: bool) -> None:
    site, names = plant(count=3), ids(1, 3)
    draws = {OLD: 3_400.0, NEW: 2_900.0}
    learner, due = Learner(site), START
    real, told = dict(zip(names, first, strict=True)), dict[str, str | None]()
    for number, make in [(0, None), *turns]:
        name = names[number]
        # Who has told what it is may be replaced; who has not tells it now, or says nothing.
        real[name] = make if make is not None and name in learner.makes else real[name]
        told[name] = None if make is None else real[name]
        due = watch(learner, site, 4, start=due, **mixed({each: draws[real[each]] for each in names}, told))
        if restarts:
            learner = Learner(site, json.loads(json.dumps(learner.kept())))
        assert sum(each.loads for each in learner.learned()) == 3
        assert all(each.loads for each in learner.learned())
    for each in learner.learned():
        seen = each.points[1]
        if seen.samples and each.make is not None:
            assert seen.watts == pytest.approx(draws[each.make], rel=0.006)
            assert (seen.watts_p95 or 0.0) <= 1.02 * draws[each.make]
            assert (seen.most_watts or 0.0) <= 1.001 * draws[each.make]


def test_what_was_learnt_before_a_bank_of_one_make_was_known_stays_its_own() -> None:
    site = plant(count=6)
    drawn = dict.fromkeys(ids(1, 6), 3_600.0)
    learner = Learner(site)
    due = watch(learner, site, 10, **mixed(drawn, {}))
    known = of(learner).points[1]
    due = watch(learner, site, 1, start=due, **mixed(drawn, dict.fromkeys(ids(1, 4), OLD)))
    assert [(each.make, each.points[1].samples) for each in learner.learned()] == [(OLD, 0), (None, known.samples + 2)]
    again = Learner(site, json.loads(json.dumps(learner.kept())))
    watch(again, site, 1, start=due, **mixed(drawn, dict.fromkeys(ids(1, 6), OLD)))
    (found,) = again.learned()
    assert (found.make, found.loads) == (OLD, 6)
    assert found.points[1].samples == known.samples + 2
    assert (found.points[1].loads, found.points[1].most_watts) == (6, pytest.approx(3_600.0))


def test_what_was_learnt_before_a_bank_of_two_makes_was_known_is_nobodys() -> None:
    site = plant(count=6)
    learner = Learner(site)
    drawn = {**dict.fromkeys(ids(1, 3), 3_400.0), **dict.fromkeys(ids(4, 6), 2_900.0)}
    due = watch(learner, site, 10, **mixed(drawn, {}))
    watch(
        learner, site, 1, start=due, **mixed(drawn, {**dict.fromkeys(ids(1, 3), OLD), **dict.fromkeys(ids(4, 6), NEW)})
    )
    assert [(each.make, each.points[1].samples) for each in learner.learned()] == [(OLD, 0), (NEW, 0)]


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


def learned(name: str = "full", watts: float = 3_100.0, **fields: Any) -> LearnedPoint:
    plate = next(each for each in (*POINTS, OperatingPoint("normal", 3_300.0, 110.0)) if each.name == name)
    values: dict[str, Any] = {
        "nameplate_watts": plate.watts,
        "nameplate_th_per_s": plate.th_per_s,
        "samples": ENOUGH_SAMPLES,
        "loads": 6,
        "watts": watts,
        "watts_p95": 1.01 * watts,
        "most_watts": 1.01 * watts,
        "rates": ENOUGH_SAMPLES,
        "th_per_s": plate.th_per_s,
        **fields,
    }
    return LearnedPoint(name, **values)


NOTHING = LearnedRamp(0, None, None)


def bank(
    *points: LearnedPoint, down: LearnedRamp = NOTHING, up: LearnedRamp = NOTHING, make: str | None = None
) -> tuple[LearnedMake, ...]:
    return (LearnedMake("wm", make, points, down, up, 6),)


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


def test_a_load_goes_by_what_was_learnt_of_its_own_make() -> None:
    site = plant(count=8)
    makes = {**dict.fromkeys(ids(1, 4), OLD), **dict.fromkeys(ids(5, 7), NEW)}
    found, notes = with_learned(
        site,
        (*bank(learned("normal", 3_500.0), make=OLD), *bank(learned("normal", 3_000.0, samples=1), make=NEW)),
        makes,
    )
    assert [load.highest.watts for load in found.loads[:8]] == [3_500.0] * 4 + [site.loads[0].highest.watts] * 4
    assert notes == {f"wm ({OLD})": "normal 3300 -> 3500 W, 110 -> 110 TH/s"}
    both = (*bank(learned("normal", 3_500.0), make=OLD), *bank(learned("normal", 3_000.0), make=NEW))
    found, notes = with_learned(site, both, makes)
    assert set(notes) == {f"wm ({OLD})", f"wm ({NEW})"}
    groups = [group for group in group_loads(found) if group.kind is LoadKind.MINER]
    assert [(group.points[-1].watts, group.load_ids) for group in groups] == [
        (3_500.0, tuple(ids(1, 4))),
        (3_000.0, tuple(ids(5, 7))),
        (3_300.0, ("wm-008",)),
    ]
    market = market_now(found, snapshot(found))
    worth = [break_even_per_mwh(market, *found.load_by_id[name].points) for name in ("wm-001", "wm-008", "wm-005")]
    assert worth == sorted(worth)
    assert worth[0] < worth[2]


def test_few_loads_of_a_make_are_enough_where_there_are_no_more() -> None:
    site, makes = plant(count=8), dict.fromkeys(ids(1, 2), OLD)
    two = bank(learned("normal", 3_500.0, loads=2), make=OLD)
    assert with_learned(site, two, makes)[0].loads[0].highest.watts == 3_500.0
    assert with_learned(site, two, dict.fromkeys(ids(1, 3), OLD))[0].loads == site.loads


@given(
    drawn=st.tuples(st.floats(1_700.0, 4_900.0), st.floats(1_700.0, 4_900.0)),
    spread=st.floats(0.0, 0.3),
    which=st.lists(st.sampled_from([OLD, NEW, None]), min_size=6, max_size=6),
)
def test_no_load_counts_less_than_its_own_make_was_measured(
    drawn: tuple[float, float], spread: float, which: list[str | None]
) -> None:
    site = plant()
    makes = {name: make for name, make in zip(ids(1, 6), which, strict=True) if make is not None}
    points = {
        make: learned("normal", watts, watts_p95=watts * (1.0 + spread), most_watts=watts, loads=6)
        for make, watts in zip((OLD, NEW), drawn, strict=True)
    }
    found, _ = with_learned(site, tuple(each for make in points for each in bank(points[make], make=make)), makes)
    for load, plate in zip(found.loads[:6], site.loads[:6], strict=True):
        make = makes.get(load.id)
        if make is None or load.points == plate.points:
            assert load == plate
            continue
        assert load.most_at(load.highest) >= (points[make].watts_p95 or 0.0) - 1e-6
        assert load.worst_watts >= plate.worst_watts
        assert load.highest.asked_watts == plate.highest.watts


@pytest.mark.parametrize(("p95", "taken"), [(1.9, 1.9), (1.2, 1.5), (7.0, 7.0)])
def test_ramps_go_by_what_was_measured_but_never_below_half(p95: float, taken: float) -> None:
    site = plant()
    found, _ = with_learned(site, bank(down=LearnedRamp(ENOUGH_SAMPLES, 1.0, p95), up=LearnedRamp(5, 9.0, 9.0)))
    capability = found.loads[0].capability
    assert (capability.ramp_down_s, capability.ramp_up_s) == (taken, 60.0)
