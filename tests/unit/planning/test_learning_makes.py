"""Alike are loads of one model and firmware in one bank: they are learnt and compared by themselves."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from learning_kit import bank, learned, of, plant, watch

from mullet.domain.load import LoadKind
from mullet.domain.plan import group_loads
from mullet.domain.telemetry import LoadState, Telemetry
from mullet.planning.learned import with_learned
from mullet.planning.learning import STEADY_VISITS, Learner
from mullet.planning.merit import break_even_per_mwh, market_now
from mullet.testing.builders import snapshot
from mullet.testing.virtual_time import START

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
