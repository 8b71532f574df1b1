"""What is always true (design section 4), over random plants, faults and scripts in virtual time."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mullet.domain.command import OutcomeKind, Verb
from mullet.domain.facility import Facility, Pacing
from mullet.domain.feeds import Cause, Curtailment
from mullet.domain.load import LoadKind
from mullet.domain.snapshot import Hold, HoldKind
from mullet.testing.builders import circuit, facility, gpu, miner, service
from tests.scenario.plant_model import START, PlantModel, Run

QUICK = Pacing(
    min_on_s=5.0,
    min_off_s=5.0,
    command_gap_s=3.0,
    economic_ramp_per_s=0.05,
    block_fraction=0.5,
    block_period_s=3.0,
    max_cycles_per_day=1_000,
)
FAULTS = ("ok", "ignore", "silent", "refuse", "late", "dead", "says_stopped")
SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def plant(miners_a: int = 4, miners_b: int = 6, gpus: int = 2, tight: float = 0.85) -> Facility:
    """Return a three-level plant whose circuits cannot carry all their loads."""
    slow = replace(miner().capability, measures_watts=False, ramp_down_s=6.0, ramp_up_s=12.0)
    fast = replace(miner().capability, ramp_down_s=3.0, ramp_up_s=8.0)
    loads_a = [miner(f"wm-{k:03d}", "pdu-a", capability=fast) for k in range(1, miners_a + 1)]
    loads_b = [miner(f"am-{k:03d}", "pdu-b", capability=slow, th_per_s=95.0) for k in range(1, miners_b + 1)]
    cards = [gpu(f"card-{k:03d}", "pdu-a") for k in range(1, gpus + 1)]
    worst_a = miners_a * 3_465.0 + gpus * 700.0
    worst_b = miners_b * 3_465.0
    return facility(
        circuits=(
            circuit("poi", None, tight * tight * (worst_a + worst_b), meter="m-poi"),
            circuit("pdu-a", "poi", tight * worst_a, meter="m-a"),
            circuit("pdu-b", "poi", tight * worst_b, meter="m-b"),
        ),
        miners=[*loads_a, *loads_b],
        gpus=cards,
        services=[service("chat")],
        pacing=QUICK,
    )


@SETTINGS
@given(
    seed=st.integers(0, 10_000),
    faults=st.lists(st.tuples(st.integers(0, 9), st.sampled_from(FAULTS), st.integers(3, 60)), max_size=5),
    prices=st.lists(st.tuples(st.integers(5, 80), st.sampled_from([20.0, 60.0, 90.0, 400.0, -30.0])), max_size=4),
    needs=st.lists(st.tuples(st.integers(5, 80), st.sampled_from([400.0, 900.0, 1_400.0])), max_size=4),
)
def test_no_circuit_ever_draws_more_than_it_may(
    seed: int, faults: list[tuple[int, str, int]], prices: list[tuple[int, float]], needs: list[tuple[int, float]]
) -> None:
    site = plant()
    names = [load.id for load in site.of_kind(LoadKind.MINER)]
    # Three miners asleep keep the start within every limit: what was wrong before control began is not its doing.
    asleep = frozenset({names[3], names[8], names[9], names[0]})
    model = PlantModel(site, seed, asleep=asleep)
    run = Run(site, model, price=40.0, poll_every=1 + seed % 2)
    for second in range(100):
        for index, fault, at in faults:
            if at == second:
                model.devices[names[index]].fault = fault
        for at, price in prices:
            if at == second:
                run.price = price
        for at, need in needs:
            if at == second:
                run.needs["chat"] = need
        run.tick()
    assert run.trace.violations == []
    assert run.trace.lies == []


@SETTINGS
@given(seed=st.integers(0, 10_000), at=st.integers(20, 40), fraction=st.floats(0.4, 0.9), notice=st.integers(8, 20))
def test_a_cut_limit_is_met_when_its_notice_has_passed(seed: int, at: int, fraction: float, notice: int) -> None:
    site = plant()
    names = [load.id for load in site.of_kind(LoadKind.MINER)]
    model = PlantModel(site, seed, asleep=frozenset({names[0], names[3], names[8], names[9]}))
    run = Run(site, model)
    cut = fraction * site.circuit_by_id["pdu-a"].usable_watts
    begins = START + at + notice

    def allowed(circuit_id: str, now: float) -> float:
        usable = site.circuit_by_id[circuit_id].usable_watts
        return min(usable, cut) if circuit_id == "pdu-a" and now >= begins else usable

    run.allowed_watts = allowed
    for second in range(at + notice + 20):
        if second == at:
            run.limits = (Curtailment("cut", "pdu-a", cut, begins, begins + 60.0, Cause.DEMAND_RESPONSE, START + at),)
        run.tick()
    assert run.trace.violations == []


@SETTINGS
@given(seed=st.integers(0, 10_000), cards=st.integers(3, 5), tight=st.floats(0.76, 0.80))
def test_inference_gets_its_power_after_mining_was_shed_and_verified(seed: int, cards: int, tight: float) -> None:
    site = plant(miners_a=4, miners_b=2, gpus=cards, tight=tight)
    model = PlantModel(site, seed, asleep=frozenset({"wm-004", "am-001", "am-002"}))
    run = Run(site, model)
    run.run(20)
    gpus = [device for device in model.devices.values() if device.load.kind is LoadKind.GPU]
    had, need = sum(device.limit for device in gpus), 700.0 * cards
    room = site.circuit_by_id["pdu-a"].usable_watts - model.truth("pdu-a")
    run.needs["chat"] = need
    run.run(25)
    assert run.trace.violations == []
    assert sum(device.limit for device in gpus) >= need - 15.0 * cards
    raised = [command for command in run.trace.sent if command.verb is Verb.POWER and command.raises]
    shed = [command for command in run.trace.sent if command.verb is Verb.SLEEP and command.load_id.startswith("wm")]
    if need - had <= room:
        return
    assert shed, "the step was beyond the free room, and no miner was shed for it"
    verified = {
        outcome.command_id: outcome.at
        for decision in run.trace.decisions
        for outcome in decision.outcomes
        if outcome.kind is OutcomeKind.APPLIED
    }
    last_raise = max(raised, key=lambda command: command.issued_at)
    assert any(verified.get(command.id, 1e18) <= last_raise.issued_at for command in shed)


@SETTINGS
@given(seed=st.integers(0, 10_000), need=st.sampled_from([400.0, 900.0, 1_400.0]), price=st.sampled_from([20.0, 400.0]))
def test_it_converges_and_then_falls_silent(seed: int, need: float, price: float) -> None:
    site = plant()
    model = PlantModel(site, seed)
    run = Run(site, model, price=price)
    run.needs["chat"] = need
    run.run(120)
    sent = len(run.trace.sent)
    run.run(120)
    assert len(run.trace.sent) == sent, run.trace.sent[sent:][:3]


@SETTINGS
@given(seed=st.integers(0, 10_000), fault=st.sampled_from(["away", "frozen", "nan"]))
def test_nothing_increases_into_unmeasured_room(seed: int, fault: str) -> None:
    site = plant()
    names = [load.id for load in site.of_kind(LoadKind.MINER)]
    model = PlantModel(site, seed, asleep=frozenset(names[:2]) | frozenset(names[-2:]))
    run = Run(site, model, price=400.0)
    run.run(30)
    model.meter_fault["m-a"] = fault
    run.run(12)
    before = len(run.trace.sent)
    run.price = 20.0
    run.needs["chat"] = 1_400.0
    run.run(30)
    beneath = {load.id for load in site.loads_beneath["pdu-a"]}
    rises = [c for c in run.trace.sent[before:] if c.load_id in beneath and (c.raises or c.verb is Verb.WAKE)]
    assert rises == []


@SETTINGS
@given(seed=st.integers(0, 10_000), second=st.integers(0, 30))
def test_what_is_held_off_is_never_energised(seed: int, second: int) -> None:
    site = plant()
    model = PlantModel(site, seed, asleep=frozenset({"wm-001", "am-002"}))
    run = Run(site, model, price=20.0)
    run.holds = (
        Hold("hold-1", "wm-001", HoldKind.OFF, "anna", "fan replaced", START),
        Hold("hold-2", "am-002", HoldKind.OFF, "anna", "fan replaced", START),
    )
    run.run(second + 40)
    assert [c for c in run.trace.sent if c.load_id in ("wm-001", "am-002") and c.verb is Verb.WAKE] == []


def test_a_liar_is_found_and_others_are_shed_instead() -> None:
    site = plant(miners_a=6, miners_b=0, gpus=2)
    model = PlantModel(site, 2, asleep=frozenset({"wm-001"}))
    model.devices["wm-006"].fault = "ignore"
    model.devices["wm-005"].fault = "ignore"
    run = Run(site, model, price=40.0)
    run.run(10)
    run.needs["chat"] = 1_400.0
    run.limits = (
        Curtailment("cut", "pdu-a", 12_000.0, START + 25.0, START + 500.0, Cause.DEMAND_RESPONSE, START + 10.0),
    )
    run.run(60)
    assert model.truth("pdu-a") <= 12_000.0
    refused = {
        outcome.load_id
        for decision in run.trace.decisions
        for outcome in decision.outcomes
        if outcome.kind is OutcomeKind.REFUSED
    }
    assert refused
    assert run.trace.lies == []


def test_a_journal_that_takes_no_writes_takes_mining_to_its_fail_safe_point() -> None:
    site = plant()
    model = PlantModel(site, 4, asleep=frozenset({"wm-001"}))
    run = Run(site, model)
    run.run(10)
    run.records_ok = False
    before = len(run.trace.sent)
    run.run(40)
    after = run.trace.sent[before:]
    assert after
    assert not [c for c in after if c.raises or c.verb is Verb.WAKE]
    assert all(not device.active for device in model.devices.values() if device.load.kind is LoadKind.MINER)
