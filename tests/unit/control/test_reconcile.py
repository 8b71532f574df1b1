"""Which commands may go out now: room first for inference, reserve and margin kept, wakes in stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from control_kit import entry_of, ledger_of
from hypothesis import given
from hypothesis import strategies as st

from mullet.control.counting import most_by_load
from mullet.control.decide import decide
from mullet.control.reconcile import RAISE_FRACTION, WAKE_MARGIN_FRACTION, Dispatch, reconcile
from mullet.domain.command import LedgerEntry, Verb
from mullet.domain.facility import Facility, Mode, Pacing
from mullet.domain.feeds import Cause
from mullet.domain.plan import Desired, Setpoint
from mullet.domain.snapshot import Hold, HoldKind, Snapshot
from mullet.domain.telemetry import Residual
from mullet.planning.accounting import account
from mullet.testing.builders import circuit, command, facility, gpu, miner, service, snapshot
from mullet.testing.virtual_time import START

FREE = Pacing(economic_ramp_per_s=1.0, block_fraction=1.0, min_on_s=0.0, min_off_s=0.0, command_gap_s=0.0)


def plant(usable: float = 20_000.0, miners: int = 4, gpus: int = 2, pacing: Pacing = FREE, **fields: Any) -> Facility:
    return facility(
        circuits=(circuit("grid", None, usable, meter="grid", meter_error=0.0),),
        miners=[miner(f"miners-{k:03d}", "grid", tolerance=0.0) for k in range(1, miners + 1)],
        gpus=[gpu(f"gpus-{k:03d}", "grid") for k in range(1, gpus + 1)],
        pacing=pacing,
        **fields,
    )


def low(site: Facility) -> dict[str, str]:
    return {load.id: load.lowest.name for load in site.loads}


def seen_low(site: Facility, **fields: Any) -> Snapshot:
    """Return all loads at their lowest point, under a meter whose residual is known to be nothing."""
    residual = {"grid": Residual("grid", 0.0, 0.0, 10, 0.0, START)}
    return snapshot(site, points=low(site), residuals=residual, **fields)


def run(site: Facility, seen: Snapshot, wanted: Mapping[str, str], cause: Cause = Cause.ECONOMIC) -> Dispatch:
    setpoints = {
        load_id: Setpoint(load_id, point, site.load_by_id[load_id].point(point).watts, cause, "test")
        for load_id, point in wanted.items()
    }
    armed = {each.id: each.reserve_watts for each in site.services if each.reserve_watts}
    desired = Desired(seen.at, "p", setpoints, armed)
    return reconcile(site, seen, account(site, seen), most_by_load(site, seen), desired)


def room(site: Facility, seen: Snapshot) -> float:
    return RAISE_FRACTION * account(site, seen)["grid"].room_watts


def names(commands: tuple[Any, ...]) -> list[str]:
    return [item.load_id for item in commands]


def test_decreases_go_before_increases_and_are_numbered_in_that_order() -> None:
    site = plant(miners=2)
    seen = snapshot(site, points={**low(site), "miners-001": "normal"})
    sent = run(site, seen, {"gpus-001": "700W", "miners-001": "off"})
    assert names(sent.commands) == ["miners-001", "gpus-001"]
    assert [item.seq for item in sent.commands] == [1, 2]
    assert [item.id for item in sent.commands] == ["1-1", "1-2"]
    assert all(item.not_after == START + 5.0 for item in sent.commands)


def test_inference_takes_its_room_before_mining_whatever_the_order_asked() -> None:
    # 480 W stand; two GPUs want 1,000 W more; a miner 3,280 W: both do not fit.
    site = plant(usable=4_600.0)
    sent = run(site, seen_low(site), {"miners-001": "normal", "gpus-001": "700W", "gpus-002": "700W"})
    assert names(sent.increases) == ["gpus-001", "gpus-002"]
    assert "waits for room: grid" in sent.withheld["miners-001"]


def test_among_services_the_lower_number_is_served_first() -> None:
    site = facility(
        circuits=(circuit("grid", None, 1_000.0, meter="grid", meter_error=0.0),),
        miners=0,
        gpus=[gpu("batch-001", "grid", service="batch"), gpu("chat-001", "grid", service="chat")],
        services=[service("batch", priority=5), service("chat", priority=1)],
    )
    sent = run(site, seen_low(site), {"batch-001": "700W", "chat-001": "700W"})
    assert names(sent.increases)[0] == "chat-001"
    assert sent.increases[0].watts == 700.0


def test_better_miners_are_woken_first() -> None:
    site = plant(usable=5_000.0, miners=0, gpus=0)
    poor, good = miner("poor-001", "grid", th_per_s=80.0), miner("good-001", "grid", th_per_s=140.0)
    site = replace(site, loads=(poor, good))
    sent = run(site, seen_low(site), {"poor-001": "normal", "good-001": "normal"})
    assert names(sent.increases) == ["good-001"]


def test_a_gpu_is_raised_by_what_there_is_and_a_miner_wholly_or_not_at_all() -> None:
    site = plant(usable=780.0, miners=0)
    seen = seen_low(site)
    sent = run(site, seen, {"gpus-001": "700W"})
    (raised,) = sent.increases
    assert raised.verb is Verb.POWER
    assert raised.point == ""
    assert raised.watts == int(200.0 + room(site, seen)) == raised.most_after_watts
    assert "waits for room" in sent.withheld["gpus-001"]


def test_a_raise_too_small_to_matter_waits() -> None:
    site = plant(usable=415.0, miners=0)
    sent = run(site, seen_low(site), {"gpus-001": "700W"})
    assert sent.increases == ()


def test_room_that_one_waits_for_is_not_given_to_those_after_it() -> None:
    # The GPUs want 1,000 W of 700; what is left over for them is not handed to the small miner.
    site = plant(usable=1_100.0, miners=0)
    site = replace(site, loads=(*site.loads, miner("small-001", "grid", watts=300.0, tolerance=0.0)))
    sent = run(site, seen_low(site), {"gpus-001": "700W", "gpus-002": "700W", "small-001": "normal"})
    assert "small-001" not in names(sent.increases)


def test_a_standing_reserve_is_never_given_to_mining_but_to_inference() -> None:
    bare = plant(usable=5_000.0, gpus=1, miners=1)
    kept = plant(usable=5_000.0, gpus=1, miners=1, services=[service("chat", reserve_watts=1_500.0)])
    assert names(run(bare, seen_low(bare), {"miners-001": "normal"}).increases) == ["miners-001"]
    assert run(kept, seen_low(kept), {"miners-001": "normal"}).increases == ()
    assert names(run(kept, seen_low(kept), {"gpus-001": "700W"}).increases) == ["gpus-001"]


@pytest.mark.parametrize(("spare", "wakes"), [(-5.0, False), (5.0, True)])
def test_a_wake_leaves_the_margin_that_keeps_a_meter_s_noise_from_undoing_it(spare: float, wakes: bool) -> None:
    # RAISE_FRACTION * (usable - 20 W) = 3,280 W + margin of usable
    usable = (3_280.0 + RAISE_FRACTION * 20.0) / (RAISE_FRACTION - WAKE_MARGIN_FRACTION) + spare
    site = plant(usable=usable, gpus=0, miners=1)
    assert bool(run(site, seen_low(site), {"miners-001": "normal"}).increases) == wakes


def test_wakes_go_out_in_stages_and_the_next_waits_for_the_block() -> None:
    pacing = replace(FREE, block_fraction=0.25)
    site = plant(usable=40_000.0, miners=8, gpus=0, pacing=pacing)
    wanted = {load.id: "normal" for load in site.loads}
    first = run(site, seen_low(site), wanted)
    assert len(first.increases) == 3
    assert all("staged wake at grid" in first.withheld[name] for name in wanted if name not in names(first.increases))
    again = seen_low(site, ledger=ledger_of(*(entry_of(item) for item in first.increases)))
    assert run(site, again, wanted).increases == ()
    done = [entry_of(replace(item, issued_at=START - 11.0), pending=False) for item in first.increases]
    later = seen_low(site, ledger=ledger_of(*done))
    assert names(run(site, later, {name: "normal" for name in wanted if name > "miners-003"}).increases)


def test_no_block_is_woken_before_the_one_before_it_is_verified_or_has_failed() -> None:
    site = plant(usable=40_000.0, miners=8, gpus=0, pacing=replace(FREE, block_fraction=0.25))
    wanted = {load.id: "normal" for load in site.loads}
    first = run(site, seen_low(site), wanted).increases
    assert len(first) == 3
    aged = [replace(item, issued_at=START - 11.0) for item in first]
    # Two of three are there, which would leave room in the block for two more.
    for last, woken in (({"pending": True}, 0), ({"pending": False}, 3), ({"pending": False, "failures": 1}, 3)):
        entries = [entry_of(item, pending=False) for item in aged[:2]]
        ledger = ledger_of(*entries, entry_of(aged[2], **last))
        sent = run(site, seen_low(site, ledger=ledger), {name: "normal" for name in wanted if name > "miners-003"})
        assert len(sent.increases) == woken, last
    assert (
        "is not yet verified"
        in run(site, seen_low(site, ledger=ledger_of(entry_of(aged[2]))), wanted).withheld["miners-005"]
    )


@pytest.mark.parametrize("kind", list(HoldKind))
def test_a_held_load_is_not_raised_and_its_room_is_not_kept(kind: HoldKind) -> None:
    site = plant(usable=4_000.0, miners=2, gpus=0)
    hold = Hold("hold-1", "miners-001", kind, "anna", "test", START)
    seen = seen_low(site)
    most = most_by_load(site, seen)
    setpoints = {name: Setpoint(name, "normal", 3_300.0, Cause.ECONOMIC, "test") for name in most}
    sent = reconcile(site, replace(seen, holds=(hold,)), account(site, seen), most, Desired(START, "p", setpoints))
    assert names(sent.increases) == ["miners-002"]
    assert sent.withheld["miners-001"] == f"held {kind.value} by anna: test"


def test_nothing_rises_where_the_account_is_shut_or_nothing_can_be_recorded() -> None:
    site = plant()
    wanted = {"miners-001": "normal", "gpus-001": "700W"}
    unmeasured = replace(seen_low(site), meters={})
    sent = run(site, unmeasured, wanted)
    assert sent.commands == ()
    assert all("no increase into unmeasured room: grid: meter grid was never read" in w for w in sent.withheld.values())
    unrecorded = run(site, seen_low(site, records_ok=False), wanted)
    assert unrecorded.commands == ()
    assert set(unrecorded.withheld.values()) == {"the journal takes no writes: nothing increases"}


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.ADVISE])
def test_other_modes_send_nothing(mode: Mode) -> None:
    site = plant()
    seen = snapshot(site, price_per_mwh=2_000.0, needs={"chat": 400.0})
    assert decide(site, seen, None).dispatch.decreases != ()
    assert decide(site, replace(seen, operator_mode=mode), None).dispatch.commands == ()


def test_before_the_first_reading_nothing_is_sent_and_every_load_says_why() -> None:
    site = plant()
    decision = decide(site, snapshot(site, price_per_mwh=2_000.0, first_reading_done=False), None)
    assert decision.dispatch.commands == ()
    assert set(decision.dispatch.withheld) == set(decision.desired.setpoints) != set()


def test_a_gpu_s_cap_that_falls_for_money_is_paced_although_caps_have_no_names() -> None:
    site = plant(miners=0, gpus=1, pacing=replace(FREE, min_on_s=60.0))
    load = site.loads[0]
    order = command(load, watts=430.0, at=START - 2.0, most_before_watts=200.0, point=None)
    entry = entry_of(
        order, pending=False, confirmed_point="", confirmed_watts=430.0, confirmed_at=START - 1.0, last_change_at=START
    )
    seen = snapshot(site, ledger=ledger_of(entry))
    fall = Setpoint(load.id, "", 230.0, Cause.ECONOMIC, "test")
    sent = reconcile(site, seen, account(site, seen), most_by_load(site, seen), Desired(START, "", {load.id: fall}))
    assert sent.commands == ()
    assert sent.withheld[load.id].startswith("minimum time on")


# What supersedes what


def waking(**fields: Any) -> LedgerEntry:
    load = plant().load_by_id["miners-001"]
    return entry_of(command(load, Verb.WAKE, most_before_watts=20.0, at=START - 2.0, **fields))


def test_a_sleep_supersedes_a_wake_that_is_under_way() -> None:
    site = plant()
    sent = run(site, seen_low(site, ledger=ledger_of(waking())), {"miners-001": "off"}, Cause.PROTECTION)
    assert [(item.load_id, item.verb) for item in sent.decreases] == [("miners-001", Verb.SLEEP)]


def test_a_wake_waits_for_the_sleep_under_way_to_be_verified() -> None:
    site = plant()
    load = site.load_by_id["miners-001"]
    ledger = ledger_of(entry_of(command(load, Verb.SLEEP, at=START - 1.0, most_after_watts=20.0)))
    sent = run(site, snapshot(site, ledger=ledger), {"miners-001": "normal"})
    assert sent.commands == ()
    assert sent.withheld["miners-001"] == "waits for command c1 to be verified"


@pytest.mark.parametrize(("wanted", "sent"), [("700W", 0), ("400W", 0), ("200W", 1)])
def test_a_limit_on_its_way_down_is_only_overtaken_by_a_lower_one(wanted: str, sent: int) -> None:
    site = plant()
    load = site.load_by_id["gpus-001"]
    order = command(load, watts=300.0, at=START - 1.0, most_before_watts=700.0)
    result = run(site, snapshot(site, ledger=ledger_of(entry_of(order))), {load.id: wanted}, Cause.AI_PREEMPTION)
    assert len(result.commands) == sent


def test_a_limit_that_differs_by_a_few_watts_is_left_alone() -> None:
    site = plant()
    near = Setpoint("gpus-001", "", 690.0, Cause.ECONOMIC, "test")
    seen = snapshot(site)
    sent = reconcile(
        site, seen, account(site, seen), most_by_load(site, seen), Desired(START, "", {near.load_id: near})
    )
    assert sent == Dispatch()


@given(
    usable=st.floats(500.0, 30_000.0),
    wanted=st.dictionaries(st.sampled_from([load.id for load in plant().loads]), st.booleans()),
)
def test_what_is_admitted_never_exceeds_the_proven_room(usable: float, wanted: dict[str, bool]) -> None:
    site = plant(usable=usable)
    seen = seen_low(site)
    points = {name: getattr(site.load_by_id[name], "highest" if up else "lowest").name for name, up in wanted.items()}
    sent = run(site, seen, points)
    risen = sum(item.most_after_watts - item.most_before_watts for item in sent.increases)
    assert risen <= max(0.0, room(site, seen)) + 1e-6
    assert all(item.raises for item in sent.increases)
    assert not any(item.raises for item in sent.decreases)
    assert len({item.load_id for item in sent.commands}) == len(sent.commands)
