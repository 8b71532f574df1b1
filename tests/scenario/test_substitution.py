"""What is ordered is met provably: where a stop can be neither refuted nor proven, others go in its stead."""

from __future__ import annotations

from dataclasses import replace

from mullet.domain.command import Verb
from mullet.domain.feeds import Cause, Curtailment
from mullet.testing.builders import circuit, facility, miner
from tests.scenario.plant_model import PlantModel, Run


def test_others_go_where_one_that_hangs_keeps_a_meter_from_proving_stops() -> None:
    fast = replace(miner().capability, ramp_down_s=3.0, ramp_up_s=8.0)
    blind = replace(fast, measures_watts=False)
    # The blind ones earn least, so that an order takes them first.
    poor = [replace(load, circuit="pdu-a") for load in (miner(f"am-{k:03d}", capability=blind) for k in range(1, 6))]
    poor = [
        replace(load, points=(load.lowest, replace(load.highest, th_per_s=0.5 * load.highest.th_per_s)))
        for load in poor
    ]
    rich = [miner(f"wm-{k:03d}", "pdu-b", capability=fast) for k in range(1, 6)]
    site = facility(
        circuits=(
            circuit("poi", None, 60_000.0, meter="m-poi"),
            circuit("pdu-a", "poi", 30_000.0, meter="m-a"),
            circuit("pdu-b", "poi", 30_000.0, meter="m-b"),
        ),
        miners=[*poor, *rich],
        gpus=0,
    )
    run = Run(site, PlantModel(site, 7), price=10.0)
    run.run(20)
    run.model.devices["am-001"].fault = "silent"
    run.run(15)
    ceiling = 0.72 * run.model.truth("poi")
    at = run.model.now
    run.limits = (Curtailment("shed-1", "poi", ceiling, at, at + 3_600.0, Cause.EMERGENCY, at, priority=0),)
    before = len(run.trace.sent)
    run.run(60)
    last = run.trace.decisions[-1]
    asked = {command.load_id for command in run.trace.sent[before:] if command.verb is Verb.SLEEP}
    assert {load.id for load in poor[1:]} <= asked
    assert asked & {load.id for load in rich}, "nobody went in the stead of those that cannot be proven"
    # The sum of the most that all may draw, those that are unproven at full: below what was ordered.
    assert last.accounts["poi"].sum_watts <= ceiling
    assert run.trace.violations == []
    assert run.trace.lies == []
