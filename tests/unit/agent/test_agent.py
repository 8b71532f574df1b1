"""The whole edge agent against devices in memory, in virtual time, over the link within the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullet.adapters.link import InProcessLink
from mullet.agent.agent import Agent, AgentSettings
from mullet.agent.lease import LeaseState
from mullet.control.gate import Permit, WriteGate
from mullet.domain.command import Command, Receipt, Verb
from mullet.domain.facility import Mode
from mullet.domain.load import Capability, Load
from mullet.domain.message import CommandMessage, command_payload
from mullet.domain.telemetry import LoadState, Telemetry
from mullet.ports import DeviceUnreachable, Identity, LinkError
from mullet.testing.builders import command, gpu, miner, telemetry
from mullet.testing.virtual_time import VirtualClock, in_virtual_time, run_virtual

FACILITY = "demo"
GPU = gpu("gpus-001", fail_safe="300W")
OTHER = gpu("gpus-002", fail_safe="300W")
MINER = miner("miners-001")
LEASE_S = 60.0


@dataclass
class Devices:
    """A driver whose devices are numbers: what they enforce, and whether they answer or obey."""

    clock: VirtualClock
    standing: dict[str, Telemetry]
    applied: list[tuple[float, Command]] = field(default_factory=list)
    silent: bool = False
    deaf: bool = False
    broken: bool = False
    apply_s: float = 0.01
    opened: int = 0

    async def open(self, loads: Sequence[Load]) -> None:
        self.opened += 1

    async def close(self) -> None:
        self.opened -= 1

    def capability(self, load: Load) -> Capability:
        return load.capability

    async def identify(self, load: Load, deadline_s: float) -> Identity:
        return Identity(None, "", "", "")

    async def read(self, load: Load, deadline_s: float) -> Telemetry:
        if self.silent:
            await self.clock.sleep(deadline_s)
            raise DeviceUnreachable("no answer")
        return replace(self.standing[load.id], at=self.clock.now())

    async def watch(self, loads: Sequence[Load], period_s: float) -> AsyncIterator[Telemetry]:
        while True:
            for load in loads:
                if self.silent:
                    yield Telemetry(load.id, self.clock.now(), fault="no answer")
                else:
                    yield replace(self.standing[load.id], at=self.clock.now())
            await self.clock.sleep(period_s)

    async def apply(self, load: Load, command: Command, deadline_s: float) -> Receipt:
        if self.broken:
            raise RuntimeError("a bug in the driver")
        if self.silent:
            await self.clock.sleep(deadline_s)
            raise DeviceUnreachable("no answer")
        await self.clock.sleep(self.apply_s)
        self.applied.append((self.clock.monotonic(), command))
        if not self.deaf:
            asleep = command.verb is Verb.SLEEP
            self.standing[load.id] = replace(
                self.standing[load.id],
                limit_watts=command.watts if load.capability.enforces_limit else None,
                watts=command.watts,
                state=LoadState.ASLEEP if asleep else LoadState.ACTIVE,
            )
        return Receipt(command.id, load.id, self.clock.now(), True)

    async def restore_defaults(self, load: Load, deadline_s: float) -> Receipt:
        raise AssertionError("only ever called by an operator's command")


@dataclass
class Bench:
    clock: VirtualClock
    devices: Devices
    link: InProcessLink
    agent: Agent
    seq: int = 0

    def order(self, load: Load, watts: float, verb: Verb = Verb.POWER) -> Command:
        self.seq += 1
        return command(load, verb, watts=watts, at=self.clock.now(), seq=self.seq)

    async def send(self, load: Load, watts: float, verb: Verb = Verb.POWER) -> Receipt:
        return await self.link.send("node-1", self.order(load, watts, verb), 5.0)

    def limit(self, load: Load) -> float | None:
        return self.devices.standing[load.id].limit_watts


@dataclass
class Memory:
    """Keeps the end of the leases as a file does, within one run of the machine."""

    deadline: float | None = None

    def recall(self, now: float) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - now)

    def remember(self, deadline: float) -> None:
        self.deadline = deadline


def make_agent(
    clock: VirtualClock, devices: Devices, link: InProcessLink, loads: Sequence[Load], memory: Memory
) -> Agent:
    drivers = {load.driver: devices for load in loads}
    gate = WriteGate(drivers, None, lambda load: Permit(Mode.AUTO, None), clock.now)
    named = AgentSettings("node-1", FACILITY, tuple(loads), lease_s=LEASE_S)
    return Agent(named, drivers, gate, clock, link.transport("node-1"), memory=memory)


@asynccontextmanager
async def running(agent: Agent) -> AsyncIterator[None]:
    task = asyncio.create_task(agent.run())
    await asyncio.sleep(0.1)
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@asynccontextmanager
async def bench(
    *loads: Load, cold_boot: bool = False, standing: Sequence[Telemetry] | None = None
) -> AsyncIterator[Bench]:
    loads = loads or (GPU, OTHER)
    clock = VirtualClock()
    devices = Devices(clock, {one.load_id: one for one in standing or [telemetry(load) for load in loads]})
    link = InProcessLink(FACILITY, clock, lambda: 1)
    agent = make_agent(clock, devices, link, loads, Memory(0.0 if cold_boot else None))
    async with running(agent):
        yield Bench(clock, devices, link, agent)
    assert devices.opened == 0


@in_virtual_time
async def test_a_command_is_carried_out_and_answered() -> None:
    async with bench() as b:
        receipt = await b.send(GPU, 500.0)
        assert receipt.acked is True
        assert b.limit(GPU) == 500.0
        assert b.limit(OTHER) == 700.0


@in_virtual_time
async def test_the_readback_of_a_command_comes_within_two_seconds() -> None:
    async with bench() as b:
        readings = b.link.telemetry("node-1")
        await b.send(GPU, 500.0)
        async with asyncio.timeout(2.0):
            async for reading in readings:
                if reading.load_id == GPU.id and reading.limit_watts == 500.0:
                    return


@in_virtual_time
async def test_a_start_and_a_stop_change_no_device() -> None:
    async with bench() as b:
        await b.link.renew("node-1", LEASE_S)
        await asyncio.sleep(30.0)
    assert b.devices.applied == []
    async with running(make_agent(b.clock, b.devices, b.link, (GPU, OTHER), Memory())):
        await asyncio.sleep(59.0)
    assert b.devices.applied == []


@in_virtual_time
async def test_an_agent_that_crashes_over_and_over_does_not_lengthen_the_leases() -> None:
    clock, memory = VirtualClock(), Memory()
    devices = Devices(clock, {GPU.id: telemetry(GPU)})
    for _ in range(7):
        async with running(make_agent(clock, devices, InProcessLink(FACILITY, clock, lambda: 1), (GPU,), memory)):
            await asyncio.sleep(10.0)
    assert devices.standing[GPU.id].limit_watts == 300.0


@in_virtual_time
async def test_after_a_silent_lease_every_load_is_at_failsafe_within_ten_seconds() -> None:
    async with bench() as b:
        await b.send(GPU, 650.0)
        await b.link.renew("node-1", LEASE_S)
        last_word = b.clock.monotonic()
        await asyncio.sleep(LEASE_S - 1.0)
        assert b.limit(GPU) == 650.0
        await asyncio.sleep(11.0)
        assert (b.limit(GPU), b.limit(OTHER)) == (300.0, 300.0)
        went = [at for at, order in b.devices.applied if order.watts == 300.0]
        assert len(went) == 2
        assert all(LEASE_S <= at - last_word <= LEASE_S + 10.0 for at in went)


@in_virtual_time
async def test_heartbeats_alone_keep_every_load_where_it_stands() -> None:
    async with bench() as b:
        for _ in range(60):
            await b.link.renew("node-1", LEASE_S)
            await asyncio.sleep(10.0)
        assert b.devices.applied == []


@in_virtual_time
async def test_a_cold_boot_is_failsafe_until_told() -> None:
    async with bench(cold_boot=True) as b:
        await asyncio.sleep(2.0)
        assert b.limit(GPU) == 300.0
        with_setpoint_only = await b.send(GPU, 600.0)
        assert with_setpoint_only.acked is False
        await b.link.renew("node-1", LEASE_S)
        await asyncio.sleep(5.0)
        assert b.limit(GPU) == 300.0
        assert (await b.send(GPU, 600.0)).acked is True
        assert b.limit(GPU) == 600.0
        assert b.limit(OTHER) == 300.0


@in_virtual_time
async def test_nothing_executes_after_a_lapse_until_heartbeat_and_setpoint() -> None:
    async with bench() as b:
        await asyncio.sleep(LEASE_S + 5.0)
        b.devices.applied.clear()
        for _ in range(20):
            assert (await b.send(GPU, 700.0)).acked is False
            await asyncio.sleep(5.0)
        assert b.devices.applied == []
        await b.link.renew("node-1", LEASE_S)
        assert (await b.send(GPU, 700.0)).acked is True
        assert b.limit(GPU) == 700.0


@in_virtual_time
async def test_failsafe_never_raises() -> None:
    async with bench() as b:
        await b.send(GPU, 220.0)
        await asyncio.sleep(LEASE_S + 10.0)
        assert b.limit(GPU) == 220.0
        assert b.limit(OTHER) == 300.0


@in_virtual_time
async def test_a_device_that_says_yes_and_stays_is_tried_until_it_is_read_back() -> None:
    async with bench() as b:
        b.devices.deaf = True
        await asyncio.sleep(LEASE_S + 60.0)
        assert b.agent.state().settled == frozenset()
        assert len(b.devices.applied) > 10
        b.devices.deaf = False
        await asyncio.sleep(10.0)
        assert b.agent.state().settled == {GPU.id, OTHER.id}
        tried = len(b.devices.applied)
        await asyncio.sleep(60.0)
        assert len(b.devices.applied) == tried


@in_virtual_time
async def test_a_device_that_leaves_failsafe_by_itself_is_brought_back() -> None:
    async with bench() as b:
        await asyncio.sleep(LEASE_S + 10.0)
        b.devices.standing[GPU.id] = telemetry(GPU)
        await asyncio.sleep(10.0)
        assert b.limit(GPU) == 300.0


@in_virtual_time
async def test_a_silent_device_is_reported_and_does_not_end_the_agent() -> None:
    async with bench() as b:
        b.devices.silent = True
        with pytest.raises(LinkError):
            await b.send(GPU, 500.0)
        await asyncio.sleep(LEASE_S + 30.0)
        b.devices.silent = False
        await asyncio.sleep(15.0)
        assert (b.limit(GPU), b.limit(OTHER)) == (300.0, 300.0)


@in_virtual_time
async def test_a_fault_in_a_driver_does_not_end_the_leases() -> None:
    async with bench() as b:
        b.devices.broken = True
        receipt = await b.send(GPU, 500.0)
        assert receipt.acked is None
        assert receipt.unreachable
        b.devices.broken = False
        await asyncio.sleep(LEASE_S + 10.0)
        assert b.limit(GPU) == 300.0


@in_virtual_time
async def test_of_commands_that_queue_up_behind_a_slow_one_only_the_newest_executes() -> None:
    async with bench() as b:
        b.devices.apply_s = 2.0
        orders = [b.order(GPU, watts) for watts in (650.0, 600.0, 550.0, 500.0)]
        receipts = await asyncio.gather(*(b.link.send("node-1", order, 10.0) for order in orders))
        assert [receipt.acked for receipt in receipts][-1] is True
        assert b.limit(GPU) == 500.0
        assert len(b.devices.applied) <= 2


@in_virtual_time
async def test_a_command_whose_sender_gave_up_never_executes() -> None:
    async with bench() as b:
        b.devices.apply_s = 3.0
        first = asyncio.create_task(b.send(GPU, 650.0))
        await asyncio.sleep(0.1)
        with pytest.raises(LinkError):
            await b.link.send("node-1", b.order(GPU, 700.0), 1.0)
        await first
        await asyncio.sleep(10.0)
        assert [order.watts for _, order in b.devices.applied] == [650.0]


@in_virtual_time
async def test_a_miner_sleeps_when_its_lease_lapses() -> None:
    async with bench(MINER) as b:
        await asyncio.sleep(LEASE_S + 10.0)
        assert [order.verb for _, order in b.devices.applied] == [Verb.SLEEP]
        assert b.agent.state().leases == {MINER.id: LeaseState.LAPSED}
        assert b.agent.state().settled == {MINER.id}


@in_virtual_time
async def test_fifty_old_commands_execute_nothing() -> None:
    async with bench() as b:
        orders = [b.order(GPU, 200.0 + n) for n in range(50)]
        await asyncio.sleep(30.0)
        for order in orders:
            payload = command_payload(FACILITY, order)
            b.link.transport("node-1").deliver(CommandMessage(FACILITY, GPU.id, payload))
        await asyncio.sleep(5.0)
        assert b.devices.applied == []
        assert b.agent.state().rejected == {"stale": 50}


@in_virtual_time
async def test_an_agent_that_does_not_run_is_an_error_at_once() -> None:
    clock = VirtualClock()
    link = InProcessLink(FACILITY, clock, lambda: 1)
    with pytest.raises(LinkError, match="does not run"):
        await link.send("node-1", command(GPU, at=clock.now()), 5.0)
    assert not link.alive("node-1")


STEPS = st.lists(
    st.tuples(st.sampled_from(["beat", "order", "reboot", "deaf", "obeys"]), st.floats(0.1, 90.0)), max_size=12
)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, cold_boot=st.booleans())
def test_a_lapsed_lease_always_means_the_safe_point(steps: list[tuple[str, float]], cold_boot: bool) -> None:
    """Whatever happened before: once a lease and ten seconds are over without a word, no load is above fail-safe."""

    async def scenario() -> None:
        async with bench(cold_boot=cold_boot) as b:
            for kind, wait_s in steps:
                if kind == "beat":
                    await b.link.renew("node-1", LEASE_S)
                elif kind == "order":
                    await b.send(GPU, 600.0)
                elif kind == "reboot":
                    b.devices.standing[GPU.id] = telemetry(GPU)
                else:
                    b.devices.deaf = kind == "deaf"
                before = len(b.devices.applied)
                lapsed = b.agent.state().leases[GPU.id] is LeaseState.LAPSED
                await asyncio.sleep(wait_s)
                if lapsed:
                    assert all(order.watts <= 300.0 for _, order in b.devices.applied[before:])
            b.devices.deaf = False
            await asyncio.sleep(LEASE_S + 10.0)
            for load in (GPU, OTHER):
                limit = b.limit(load)
                assert limit is not None
                assert limit <= 300.0

    run_virtual(scenario())
