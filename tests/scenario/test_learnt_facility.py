"""Nameplates that are wrong: what mode observe learns makes the cap sum true and the merit order right."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mullet.domain.command import Verb
from mullet.domain.facility import Facility, Mode, Pacing
from mullet.domain.load import OperatingPoint
from mullet.domain.plan import group_loads
from mullet.planning.learned import with_learned
from mullet.planning.learning import Learner
from mullet.testing.builders import circuit, facility, miner
from tests.scenario.plant_model import PlantModel, Run

QUICK = Pacing(min_on_s=5.0, min_off_s=5.0, command_gap_s=3.0, economic_ramp_per_s=1.0, block_fraction=1.0)


def plant(usable: float, watts: tuple[float, float] = (3_300.0, 3_300.0)) -> Facility:
    fast = replace(miner().capability, ramp_down_s=3.0, ramp_up_s=8.0)
    loads = [
        miner(f"{name}-{k:03d}", "poi", watts=each, worst_watts=1.1 * each, capability=fast)
        for name, each in zip(("a", "b"), watts, strict=True)
        for k in range(1, 5)
    ]
    return facility(circuits=(circuit("poi", None, usable, meter="m-poi"),), miners=loads, gpus=0, pacing=QUICK)


def observed(nameplate: Facility, truth: Facility, seed: int) -> Facility:
    """Return the facility as mode observe learns it."""
    run = Run(nameplate, PlantModel(truth, seed))
    run.mode = Mode.OBSERVE
    learner = Learner(nameplate)
    for _ in range(30 * 10):
        decision = run.tick()
        learner.observe(nameplate, decision.snapshot, decision.judged, decision.outcomes)
    assert run.trace.sent == []
    found, notes = with_learned(nameplate, learner.learned(), learner.makes)
    assert set(notes) == {"a", "b"}
    return found


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1_000), drawn=st.sampled_from([2_900.0, 3_150.0, 3_500.0, 3_900.0]))
def test_the_cap_sum_covers_what_is_drawn_whatever_the_nameplate_says(seed: int, drawn: float) -> None:
    limit = 6.5 * drawn
    nameplate, truth = plant(limit), plant(limit, (drawn, drawn))
    found = observed(nameplate, truth, seed)
    for load in found.loads:
        assert load.most_at(load.highest) >= drawn
        assert load.worst_watts >= max(drawn, nameplate.loads[0].worst_watts)
    names = [load.id for load in truth.loads]
    run = Run(found, PlantModel(truth, seed, asleep=frozenset(names[:4])), price=20.0)
    run.run(90)
    run.price = 400.0
    run.run(60)
    run.price = 20.0
    run.run(90)
    assert run.trace.violations == []
    assert run.trace.lies == []


def test_the_bank_that_measures_worse_goes_first() -> None:
    limit = 40_000.0
    nameplate, truth = plant(limit), plant(limit, (3_600.0, 3_000.0))
    found = observed(nameplate, truth, 3)
    # Their nameplates are alike; between their measured break-evens only the better bank mines.
    run = Run(found, PlantModel(truth, 3), price=70.0)
    run.run(60)
    assert {command.load_id[0] for command in run.trace.sent} == {"a"}
    assert all(command.verb is Verb.SLEEP for command in run.trace.sent)
    assert sum(device.active for device in run.model.devices.values()) == 4


def test_two_makes_in_one_bank_are_two_groups_and_the_worse_goes_first() -> None:
    nameplate = plant(40_000.0)
    nameplate = replace(nameplate, loads=tuple(replace(load, bank="hall") for load in nameplate.loads))
    truth = plant(40_000.0, (3_600.0, 3_000.0))
    run = Run(nameplate, PlantModel(truth, 3))
    run.mode = Mode.OBSERVE
    for name, device in run.model.devices.items():
        device.make = {"a": "Antminer S19 / luxos", "b": "Antminer S21 / luxos"}[name[0]]
    learner = Learner(nameplate)
    for _ in range(30 * 10):
        decision = run.tick()
        learner.observe(nameplate, decision.snapshot, decision.judged, decision.outcomes)
    found, notes = with_learned(nameplate, learner.learned(), learner.makes)
    assert set(notes) == {"hall (Antminer S19 / luxos)", "hall (Antminer S21 / luxos)"}
    assert [len(group.load_ids) for group in group_loads(nameplate)] == [8]
    assert [{name[0] for name in group.load_ids} for group in group_loads(found)] == [{"a"}, {"b"}]
    run = Run(found, PlantModel(truth, 3), price=70.0)
    run.run(60)
    assert {command.load_id[0] for command in run.trace.sent} == {"a"}
    assert sum(device.active for device in run.model.devices.values()) == 4


def test_a_device_is_asked_for_its_setting_not_for_what_it_measures() -> None:
    points = (OperatingPoint("off", 20.0), OperatingPoint("eco", 2_000.0, 80.0), OperatingPoint("full", 3_300.0, 110.0))
    measured = (points[0], replace(points[1], watts=1_900.0, setting_watts=2_000.0), points[2])
    site = plant(40_000.0)
    site = replace(site, loads=tuple(replace(load, points=measured) for load in site.loads))
    run = Run(site, PlantModel(site, 3), price=65.0)
    run.run(30)
    assert {(command.verb, command.point, command.watts) for command in run.trace.sent} == {
        (Verb.POWER, "eco", 2_000.0)
    }
    assert run.trace.sent[0].most_after_watts == pytest.approx(1_900.0 * 1.05)
