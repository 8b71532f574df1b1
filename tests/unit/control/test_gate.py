"""The write gate: each reason to refuse, and that nothing unlisted ever passes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from control_kit import FakeDriver, FakeLink
from hypothesis import given
from hypothesis import strategies as st

from mullet.control.gate import ALLOWED_VERBS, Permit, WriteGate, refusal
from mullet.domain.command import Command, Verb
from mullet.domain.facility import Mode
from mullet.domain.feeds import Cause
from mullet.domain.snapshot import Hold, HoldKind
from mullet.ports import WriteRefused
from mullet.testing.builders import command, gpu, leased, miner
from mullet.testing.virtual_time import START

MINER, GPU = miner(), gpu()
OPEN = Permit(Mode.AUTO, None)


def held(kind: HoldKind, target: str = "feeder-a") -> Permit:
    return Permit(Mode.AUTO, Hold("hold-1", target, kind, "anna", "fan replaced", START))


def wake(**fields: Any) -> Command:
    return command(MINER, Verb.WAKE, **{"most_before_watts": 20.0, **fields})


def sleep(**fields: Any) -> Command:
    return command(MINER, Verb.SLEEP, **fields)


@pytest.mark.parametrize("order", [wake(), sleep()])
def test_an_open_gate_lets_a_sound_command_through(order: Command) -> None:
    assert refusal(MINER, order, OPEN, START) is None


@pytest.mark.parametrize(
    ("order", "permit", "now", "words"),
    [
        (wake(), Permit(Mode.ADVISE, None), START, "mode advise sends nothing"),
        (sleep(), Permit(Mode.OBSERVE, None), START, "mode observe sends nothing"),
        (sleep(), OPEN, START + 60.5, "good until 0.5 s ago"),
        (wake(), held(HoldKind.OFF), START, "feeder-a is held off by anna: fan replaced"),
        (sleep(), held(HoldKind.ON), START, "feeder-a is held on by anna: fan replaced"),
        (wake(), held(HoldKind.ON), START, "held on by anna"),
        (wake(load_id="miners-002"), OPEN, START, "command for miners-002 was addressed to miners-001"),
        (wake(watts=MINER.worst_watts + 1.0), OPEN, START, "outside the range"),
        (wake(watts=-1.0), OPEN, START, "outside the range"),
        (wake(watts=math.nan), OPEN, START, "outside the range"),
        (wake(watts=math.inf), OPEN, START, "outside the range"),
        (wake(not_after=math.nan), OPEN, START, "the command was good until"),
    ],
)
def test_each_reason_to_refuse(order: Command, permit: Permit, now: float, words: str) -> None:
    reason = refusal(MINER, order, permit, now)
    assert reason is not None
    assert words in reason


@pytest.mark.parametrize("cause", list(Cause))
@pytest.mark.parametrize("order", [wake(), sleep(), wake(most_before_watts=9_999.0)])
def test_no_cause_energises_what_is_held_off(cause: Cause, order: Command) -> None:
    reason = refusal(MINER, replace(order, cause=cause), held(HoldKind.OFF), START)
    assert (reason is None) == (order.verb is Verb.SLEEP)


@pytest.mark.parametrize("cause", list(Cause))
def test_only_what_protects_overrides_a_hold_on(cause: Cause) -> None:
    reason = refusal(MINER, sleep(cause=cause), held(HoldKind.ON), START)
    assert (reason is None) == (cause in {Cause.PROTECTION, Cause.FAILSAFE, Cause.EMERGENCY})


def test_a_gpu_may_not_go_below_its_least_limit() -> None:
    assert refusal(GPU, command(GPU, watts=GPU.min_watts), OPEN, START) is None
    assert refusal(GPU, command(GPU, watts=GPU.min_watts - 1.0), OPEN, START) is not None


@given(
    verb=st.one_of(st.sampled_from(["reboot", "pools", "POWER", "power ", "restore"]), st.text(max_size=12)),
    cause=st.sampled_from(list(Cause)),
    mode=st.sampled_from(list(Mode)),
    watts=st.floats(allow_nan=True, allow_infinity=True),
    now=st.floats(START - 100.0, START + 100.0),
)
def test_nothing_passes_that_is_not_listed_in_range_in_time_and_in_auto(
    verb: str, cause: Cause, mode: Mode, watts: float, now: float
) -> None:
    order = replace(wake(), verb=verb, cause=cause, watts=watts)  # type: ignore[arg-type]
    if refusal(MINER, order, Permit(mode, None), now) is None:
        assert verb in {allowed.value for allowed in ALLOWED_VERBS}
        assert mode is Mode.AUTO
        assert now <= order.not_after
        assert watts + 1e-6 >= 0.0
        assert watts <= MINER.worst_watts + 1e-6


def gate(driver: FakeDriver, link: FakeLink | None, permit: Permit = OPEN, at: float = START) -> WriteGate:
    return WriteGate({"asic": driver, "gpu": driver}, link, lambda _: permit, lambda: at)


async def test_a_direct_load_is_reached_by_its_driver_and_a_leased_one_by_its_agent() -> None:
    driver, link, far = FakeDriver(), FakeLink(), leased(GPU)
    door = gate(driver, link)
    assert (await door.send(MINER, sleep(), 5.0)).acked is True
    assert (await door.send(far, command(far), 5.0)).acked is True
    assert [order.load_id for order in driver.applied] == ["miners-001"]
    assert [(agent, order.load_id) for agent, order in link.sent] == [("agent-1", "gpus-001")]


async def test_what_is_refused_reaches_nobody() -> None:
    driver, link, far = FakeDriver(), FakeLink(), leased(GPU)
    shut = gate(driver, link, Permit(Mode.OBSERVE, None))
    for load, order in ((MINER, sleep()), (far, command(far))):
        with pytest.raises(WriteRefused):
            await shut.send(load, order, 5.0)
    with pytest.raises(WriteRefused):
        await shut.restore(MINER, wake(), 5.0)
    assert (driver.applied, driver.restored, link.sent) == ([], [], [])


async def test_the_permit_is_asked_at_the_moment_of_sending() -> None:
    driver, permits = FakeDriver(), [OPEN, held(HoldKind.OFF)]
    door = WriteGate({"asic": driver}, None, lambda _: permits.pop(0), lambda: START)
    await door.send(MINER, wake(), 5.0)
    with pytest.raises(WriteRefused, match="held off"):
        await door.send(MINER, wake(seq=2), 5.0)
    assert len(driver.applied) == 1


async def test_a_leased_load_without_a_link_is_refused() -> None:
    far = leased(GPU)
    with pytest.raises(WriteRefused, match="no link"):
        await gate(FakeDriver(), None).send(far, command(far), 5.0)


async def test_defaults_of_a_leased_load_are_not_this_side_s_to_restore() -> None:
    far = leased(GPU)
    with pytest.raises(WriteRefused, match="agent-1"):
        await WriteGate({}, FakeLink(), lambda _: OPEN, lambda: START).restore(far, command(far), 5.0)


async def test_restore_goes_through_the_same_gate() -> None:
    driver = FakeDriver()
    await gate(driver, None).restore(GPU, command(GPU), 5.0)
    assert driver.restored == ["gpus-001"]
