"""Commands on their way, in virtual time: deadlines, readback, superseding, and an end that leaves nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from control_kit import FakeDriver, FakeLink

from mullet.control.dispatch import MOST_AT_ONCE, READBACK_EVERY_S, READBACK_FIRST_S, Dispatcher
from mullet.control.gate import Permit, WriteGate
from mullet.control.verify import verify_deadline
from mullet.domain.command import Command, Receipt, Verb
from mullet.domain.facility import Facility, Mode
from mullet.domain.telemetry import Telemetry
from mullet.ports import (
    CredentialsRejected,
    DeviceGarbled,
    DeviceRefused,
    DeviceUnreachable,
    IdentityMismatch,
    LinkError,
    NoPermission,
    UnsafeWrite,
)
from mullet.testing.builders import command, facility, gpu, leased
from mullet.testing.virtual_time import VirtualClock, in_virtual_time

SITE = facility(miners=3, gpus=[leased(gpu())])
FIRST, FAR = SITE.load_by_id["miners-001"], SITE.load_by_id["gpus-001"]


class Bench:
    """A dispatcher over fakes; a command stays pending until it is taken out of `pending`."""

    def __init__(self, mode: Mode = Mode.AUTO, **driver: Any) -> None:
        self.clock = VirtualClock()
        self.driver = FakeDriver(self.clock, **driver)
        self.link = FakeLink()
        self.receipts: list[Receipt] = []
        self.seen: list[Telemetry] = []
        self.pending: set[str] = set()
        gate = WriteGate({"asic": self.driver}, self.link, lambda _: Permit(mode, None), self.clock.now)
        self.dispatcher = Dispatcher(
            gate,
            self.clock,
            lambda load: None if load.agent is not None else self.driver,
            self.receipts.append,
            self.seen.append,
            lambda _, command_id: command_id in self.pending,
        )

    def order(self, load: Any = FIRST, seq: int = 1, lasts_s: float = 5.0, **fields: Any) -> Command:
        now = self.clock.now()
        return command(load, Verb.SLEEP, seq=seq, at=now, not_after=now + lasts_s, **fields)

    def send(self, *orders: Command, site: Facility = SITE) -> None:
        self.pending.update(item.id for item in orders)
        self.dispatcher.send(site, orders)

    async def settle(self, seconds: float = 0.1) -> None:
        await self.clock.sleep(seconds)


@in_virtual_time
async def test_an_answer_becomes_a_receipt_and_the_load_is_read_until_settled() -> None:
    bench = Bench()
    bench.send(bench.order())
    await bench.settle(READBACK_FIRST_S + 2.5 * READBACK_EVERY_S)
    assert [(item.command_id, item.acked) for item in bench.receipts] == [("c1", True)]
    assert len(bench.seen) == 3
    assert bench.dispatcher.in_flight == 1
    bench.pending.clear()
    await bench.settle(READBACK_EVERY_S)
    assert (len(bench.seen), bench.dispatcher.in_flight) == (3, 0)


@in_virtual_time
async def test_reading_back_ends_at_the_deadline_of_the_command() -> None:
    bench = Bench()
    order = bench.order()
    bench.send(order)
    await bench.settle(verify_deadline(SITE, FIRST, order) - bench.clock.now() + 2.0 * READBACK_EVERY_S)
    assert bench.dispatcher.in_flight == 0
    count = len(bench.seen)
    await bench.settle(30.0)
    assert len(bench.seen) == count


@in_virtual_time
async def test_a_device_that_fails_to_be_read_back_is_reported_as_a_fault() -> None:
    bench = Bench()
    bench.send(bench.order())
    await bench.settle(0.1)
    bench.driver.failing[FIRST.id] = DeviceUnreachable("no answer from 127.0.1.1")
    await bench.settle(READBACK_FIRST_S)
    assert bench.seen[0].fault == "DeviceUnreachable: no answer from 127.0.1.1"
    assert bench.seen[0].watts is None
    await bench.dispatcher.close(0.0)


@pytest.mark.parametrize(
    ("error", "acked", "unreachable"),
    [
        (DeviceRefused("busy"), False, False),
        (NoPermission("no root"), False, False),
        (UnsafeWrite("would lose the pools"), False, False),
        (CredentialsRejected("wrong password"), False, False),
        (IdentityMismatch("another device"), False, False),
        (DeviceUnreachable("timeout"), None, True),
        (DeviceGarbled("not JSON"), None, False),
    ],
)
def test_each_failure_becomes_a_receipt(error: Exception, acked: bool | None, unreachable: bool) -> None:
    @in_virtual_time
    async def sent() -> Receipt:
        bench = Bench(failing={FIRST.id: error})
        bench.send(bench.order())
        await bench.settle()
        await bench.dispatcher.close(0.0)
        (receipt,) = bench.receipts
        return receipt

    receipt = sent()
    assert (receipt.acked, receipt.unreachable) == (acked, unreachable)
    assert receipt.detail == f"{type(error).__name__}: {error}"


@in_virtual_time
async def test_an_agent_that_cannot_be_reached_is_told_from_one_that_says_no() -> None:
    bench = Bench()
    bench.link.error = LinkError("agent-1 does not answer")
    bench.send(bench.order(FAR))
    await bench.settle()
    (receipt,) = bench.receipts
    assert (receipt.acked, receipt.unreachable) == (None, True)
    # What an agent holds is read by the agent.
    await bench.settle(2.0)
    assert (bench.seen, bench.dispatcher.in_flight) == ([], 0)


@in_virtual_time
async def test_the_gate_s_no_is_a_receipt_and_nothing_is_applied() -> None:
    bench = Bench(Mode.OBSERVE)
    bench.send(bench.order())
    await bench.settle()
    assert bench.receipts[0].detail == "WriteRefused: mode observe sends nothing"
    assert bench.driver.story == []
    await bench.dispatcher.close(0.0)


@in_virtual_time
async def test_a_command_whose_turn_comes_too_late_is_never_sent() -> None:
    bench = Bench()
    bench.send(bench.order(lasts_s=0.0))
    await bench.settle()
    assert bench.receipts[0].acked is False
    assert "expired" in bench.receipts[0].detail
    assert bench.driver.story == []
    await bench.dispatcher.close(0.0)


@in_virtual_time
async def test_no_more_than_the_bound_are_sent_at_once_and_who_waits_too_long_is_dropped() -> None:
    many = MOST_AT_ONCE + 20
    site = facility(miners=many, gpus=0)
    bench = Bench(apply_takes_s=6.0)
    bench.send(*(bench.order(load, seq=n) for n, load in enumerate(site.loads)), site=site)
    await bench.settle(1.0)
    assert len(bench.driver.story) == MOST_AT_ONCE
    bench.pending.clear()
    await bench.settle(10.0)
    assert len(bench.driver.story) == MOST_AT_ONCE
    assert sum(1 for item in bench.receipts if "expired" in item.detail) == 20
    assert bench.dispatcher.in_flight == 0


@in_virtual_time
async def test_a_hung_device_does_not_delay_another() -> None:
    bench = Bench()
    second = SITE.load_by_id["miners-002"]
    bench.driver.apply_takes_s = 4.0
    bench.send(bench.order())
    await bench.settle()
    bench.driver.apply_takes_s = 0.0
    bench.send(bench.order(second, seq=2))
    await bench.settle()
    assert [item.command_id for item in bench.receipts] == ["c2"]
    await bench.dispatcher.close(0.0)


@in_virtual_time
async def test_a_newer_command_ends_the_readback_of_the_older() -> None:
    bench = Bench()
    bench.send(bench.order())
    await bench.settle(READBACK_FIRST_S + 0.1)
    reads = len(bench.seen)
    bench.send(bench.order(seq=2))
    bench.pending.discard("c2")
    await bench.settle(20.0)
    assert [item.command_id for item in bench.receipts] == ["c1", "c2"]
    assert len(bench.seen) == reads
    assert bench.dispatcher.in_flight == 0


@in_virtual_time
async def test_an_older_command_still_on_its_way_never_arrives_after_the_newer() -> None:
    bench = Bench(apply_takes_s=3.0)
    bench.send(bench.order())
    await bench.settle(1.0)
    for seq in (2, 3):
        bench.send(bench.order(seq=seq))
    await bench.settle(20.0)
    assert [item.id for item in bench.driver.applied] == ["c3"]
    assert [item.command_id for item in bench.receipts] == ["c3"]
    await bench.dispatcher.close(0.0)


@in_virtual_time
async def test_a_newer_command_waits_until_the_older_has_let_go_of_the_device() -> None:
    bench = Bench(apply_takes_s=3.0, unwinds_s=0.5)
    bench.send(bench.order())
    await bench.settle(1.0)
    bench.send(bench.order(seq=2))
    await bench.settle(20.0)
    assert bench.driver.story == [("apply", "c1"), ("gave up", "c1"), ("apply", "c2")]
    await bench.dispatcher.close(0.0)


@in_virtual_time
async def test_a_command_of_an_earlier_run_is_followed_but_not_sent_again() -> None:
    bench = Bench()
    order = bench.order()
    bench.pending.add(order.id)
    bench.dispatcher.follow(SITE, FIRST.id, order)
    await bench.settle(READBACK_FIRST_S + 0.1)
    assert (len(bench.seen), bench.receipts, bench.driver.applied) == (1, [], [])
    bench.pending.clear()
    await bench.settle(READBACK_EVERY_S + 0.1)
    assert bench.dispatcher.in_flight == 0


@pytest.mark.parametrize(("grace_s", "answered"), [(2.0, ["c1"]), (0.5, [])])
def test_closing_lets_what_is_under_way_be_answered_for_its_grace_and_leaves_no_task(
    grace_s: float, answered: list[str]
) -> None:
    @in_virtual_time
    async def closed() -> tuple[list[str], float]:
        bench = Bench(apply_takes_s=1.0)
        bench.send(bench.order(), bench.order(SITE.load_by_id["miners-002"], seq=2, lasts_s=0.0))
        await bench.settle()
        began = bench.clock.monotonic()
        await bench.dispatcher.close(grace_s)
        assert bench.dispatcher.in_flight == 0
        assert len(asyncio.all_tasks()) == 1
        return [item.command_id for item in bench.receipts if item.acked], bench.clock.monotonic() - began

    received, took_s = closed()
    assert received == answered
    assert took_s <= grace_s + 1e-6


@in_virtual_time
async def test_closing_awaits_a_superseded_command_too() -> None:
    bench = Bench(apply_takes_s=3.0)
    bench.send(bench.order())
    await bench.settle()
    bench.send(bench.order(seq=2))
    await bench.dispatcher.close(0.0)
    assert len(asyncio.all_tasks()) == 1
