"""Miners that come back by themselves are put back at once, whatever paces moves for money."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mullet.domain.command import Verb
from mullet.domain.facility import Facility, Pacing
from mullet.domain.feeds import Cause
from mullet.domain.snapshot import Hold, HoldKind
from mullet.testing.builders import circuit, facility, miner
from tests.scenario.plant_model import START, PlantModel, Run

PACED = Pacing(economic_ramp_per_s=1.0, block_fraction=1.0, min_on_s=600.0, min_off_s=60.0, max_cycles_per_day=1)
SETTINGS = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def plant(blind: bool = False, pacing: Pacing = PACED, miners: int = 4) -> Facility:
    fast = replace(miner().capability, ramp_down_s=3.0, ramp_up_s=8.0, measures_watts=not blind)
    return facility(
        circuits=(circuit("poi", None, 20_000.0, meter="m-poi"),),
        miners=[miner(f"wm-{k:03d}", "poi", capability=fast) for k in range(1, miners + 1)],
        gpus=0,
        pacing=pacing,
    )


def asleep_for_money(site: Facility) -> Run:
    run = Run(site, PlantModel(site, 3), price=400.0)
    run.run(40)
    assert all(not device.active for device in run.model.devices.values())
    assert all(run.ledger.entry(load.id).stands == "off" for load in site.loads)
    return run


@SETTINGS
@given(blind=st.booleans(), down_s=st.integers(1, 30), wait=st.integers(0, 70), many=st.integers(1, 4))
def test_a_miner_that_came_back_hashing_is_put_back_within_one_poll(
    blind: bool, down_s: int, wait: int, many: int
) -> None:
    site = plant(blind)
    run = asleep_for_money(site)
    run.run(wait)
    before = len(run.trace.sent)
    back = [f"wm-{k:03d}" for k in range(1, many + 1)]
    for name in back:
        run.model.devices[name].blip(run.model.now, down_s)
    for _ in range(down_s):
        run.tick()
    returns = run.model.now
    while any(run.model.devices[name].back_at is not None for name in back):
        run.tick()
        returns = run.model.now
    run.run(1)
    sent = run.trace.sent[before:]
    assert sorted(command.load_id for command in sent) == back
    assert all(command.verb is Verb.SLEEP and command.cause is Cause.ECONOMIC for command in sent)
    assert all(command.issued_at <= returns + 1.0 for command in sent)
    rules = run.trace.decisions[-2].desired.setpoints, run.trace.decisions[-1].desired.setpoints
    assert any(back[0] in each and "woke by itself" in each[back[0]].rule for each in rules)
    run.run(20)
    assert all(not run.model.devices[name].active for name in back)
    # Not one of them was stopped for money once more, and none of the others had to go in its place.
    assert all(len(run.ledger.entry(name).cycles) == 1 for name in back)
    assert len(run.trace.sent) - before == many
    assert run.trace.violations == []
    assert run.trace.lies == []


def test_while_it_is_down_and_back_it_counts_at_its_worst_draw() -> None:
    site = plant()
    run = asleep_for_money(site)
    load = site.load_by_id["wm-001"]
    lowest = sum(each.most_at(each.lowest) for each in site.loads[1:])
    run.model.devices["wm-001"].blip(run.model.now, 5.0)
    counted = [run.tick().accounts["poi"].loads_watts for _ in range(6)]
    assert counted == pytest.approx([lowest + load.worst_watts] * 6)


def test_a_held_one_is_left_and_others_keep_their_place() -> None:
    site = plant()
    run = asleep_for_money(site)
    run.holds = (Hold("hold-1", "wm-001", HoldKind.ON, "anna", "looks at it", START),)
    before = len(run.trace.sent)
    run.model.devices["wm-001"].blip(run.model.now, 3.0)
    run.run(20)
    assert run.trace.sent[before:] == []
    run.holds = ()
    run.run(2)
    assert [command.load_id for command in run.trace.sent[before:]] == ["wm-001"]


def test_one_that_may_stay_is_taken_on_and_stopped_for_money_like_any_other_later() -> None:
    site = plant(pacing=replace(PACED, min_off_s=3_600.0))
    run = asleep_for_money(site)
    run.price = 20.0
    run.model.devices["wm-001"].blip(run.model.now, 3.0)
    before = len(run.trace.sent)
    run.run(30)
    assert run.trace.sent[before:] == []
    entry = run.ledger.entry("wm-001")
    assert entry.stands == "normal"
    run.price = 400.0
    run.run(5)
    # Its stops of the day are used up, and one for money waits for that.
    assert run.trace.sent[before:] == []
    assert run.trace.decisions[-1].dispatch.withheld["wm-001"].startswith("minimum time on")


def test_within_the_deadband_it_is_put_back_and_no_other_is_stopped_for_it() -> None:
    site = plant(pacing=replace(PACED, min_on_s=0.0, command_gap_s=0.0, max_cycles_per_day=9))
    run = asleep_for_money(site)
    break_even = 50.0 * 110.0 / 1_000.0 / 24.0 / (3_280.0 / 1e6)
    run.price = break_even
    run.model.devices["wm-002"].blip(run.model.now, 3.0)
    before = len(run.trace.sent)
    run.run(20)
    assert [(command.load_id, command.verb) for command in run.trace.sent[before:]] == [("wm-002", Verb.SLEEP)]
