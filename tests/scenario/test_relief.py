"""A limit cut without notice: what the meters show above it goes within R2, fast loads first."""

from __future__ import annotations

from mullet.domain.command import Verb
from mullet.domain.feeds import Cause, Curtailment
from mullet.domain.load import LoadKind
from tests.scenario.plant_model import PlantModel, Run
from tests.scenario.test_invariants import plant


def test_fast_loads_relieve_a_circuit_whose_limit_fell_without_notice() -> None:
    site = plant(miners_a=6, miners_b=6)
    names = [load.id for load in site.of_kind(LoadKind.MINER)]
    model = PlantModel(site, 5, asleep=frozenset({names[0], names[1], names[9], names[10], names[11]}))
    run = Run(site, model)
    run.run(20)
    cut, at = 0.6 * model.truth("poi"), model.now + 1.0
    run.limits = (Curtailment("cut", "poi", cut, at, at + 300.0, Cause.DEMAND_RESPONSE, at),)
    run.allowed_watts = lambda circuit, now: (
        1.02 * cut if circuit == "poi" and now >= at else site.circuit_by_id[circuit].usable_watts
    )
    before = len(run.trace.sent)
    run.run(30)
    assert run.trace.over_s.get("poi", 0.0) <= 5.0
    first = [command for command in run.trace.sent[before:] if command.verb is Verb.SLEEP]
    assert first
    soon = [command for command in first if command.issued_at <= at + 2.0]
    assert any(site.load_by_id[command.load_id].capability.fast for command in soon)
