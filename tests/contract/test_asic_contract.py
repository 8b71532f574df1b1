"""The miners' driver against its contract: every firmware, with and without 100 ms on every answer.

Normally each firmware is held against a sample of it at one of the two latencies (asic_sampling.py says how it is
drawn; `--asic-seed N` draws another); `--asic-matrix` runs all of it at both for all.

The driver starts a worker process, which takes seconds: one driver serves all tests, each with a plant of its own at
the same addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from asic_cases import CASES, SIMULATED, FirmwareCase

from mullet.domain.command import Command, Verb
from mullet.domain.load import Load, Steering
from mullet.domain.telemetry import LoadState, Telemetry
from mullet.ports import Clock, CredentialsRejected, DeviceError, Driver, DriverContext, UnsafeWrite
from mullet.testing.builders import command, miner
from mullet.testing.contract import (
    GRACE_S,
    DriverContract,
    DriverHarness,
    Fault,
    Truth,
    command_a_failing,
    eventually,
    named,
    need_commands,
    opened,
    unready,
)
from mullet_hardware.asic.driver import AsicDriver
from mullet_simulators.facility import Facility
from mullet_simulators.faults import WATTS_TOLD, miner_faults
from mullet_simulators.miners.models import MODELS
from mullet_simulators.testing import find_subnet, require_pools_kept, simulated_facility

pytestmark = pytest.mark.e2e

LATENCIES_S = (0.0, 0.1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One variant of each firmware; both latencies of all where the whole matrix is asked for."""
    if "variant" not in metafunc.fixturenames:
        return
    whole, seed = metafunc.config.getoption("--asic-matrix"), metafunc.config.getoption("--asic-seed")
    chosen = [
        pytest.param((case, latency_s), id=f"{case.firmware}-{latency_s * 1000:.0f}ms")
        for number, case in enumerate(CASES.values())
        for turn, latency_s in enumerate(LATENCIES_S)
        if whole or (number + seed) % len(LATENCIES_S) == turn
    ]
    metafunc.parametrize("variant", chosen, indirect=True, scope="class")


def options_of(case: FirmwareCase) -> dict[str, Any]:
    return {"class": case.firmware, "accept_default_password": True, **case.options}


def new_driver(options: dict[str, dict[str, Any]], clock: Clock) -> AsicDriver:
    return AsicDriver(DriverContext(options=options, secret=lambda name: None, clock=clock))


def scenario(case: FirmwareCase) -> dict[str, Any]:
    bank = {
        "id": case.firmware,
        "number": 1,
        "circuit": "pdu",
        "model": case.model,
        "count": 2,
        "ramp_scale": case.ramp_scale,
    }
    return {
        "circuits": [{"id": "pdu", "limit_w": 20000}],
        "banks": [bank],
        "price": {"base_per_mwh": 38.0},
    }


class AsicHarness(DriverHarness):
    """Two miners of one model on their real protocol."""

    def __init__(self, case: FirmwareCase, subnet: int, latency_s: float, clock: Clock) -> None:
        self.case = case
        self.clock = clock
        self.options = options_of(case)
        self.loads = [
            replace(miner(f"{case.firmware}-{k:03d}", "pdu", case.watts), address=f"127.{subnet}.1.{k}") for k in (1, 2)
        ]
        self.latency_s = latency_s
        self.commandable = case.controlled
        self.failed: set[Fault | None] = set()
        self.deadline_s = 1.5 + 4.0 * case.requests_per_read * latency_s
        self.ramp_s = 12.0 + 10.0 * latency_s
        self.facility: Facility | None = None
        self.received: Any = None

    def new_driver(self) -> AsicDriver:
        return new_driver({self.case.firmware: self.options}, self.clock)

    def device(self, load: Load) -> Any:
        assert self.facility is not None
        return self.facility.plant.loads[load.id]

    def truth(self, load: Load) -> Truth:
        device = self.device(load)
        return Truth(watts=device.watts, setting=(device._wanted_on, device.share, device.limit_w, device.boots))

    def requests(self, load: Load) -> int:
        return int(self.received[load.id])

    def knows(self, fault: Fault) -> bool:
        protocol = MODELS[self.case.model].protocol
        return fault in SIMULATED and SIMULATED[fault] in miner_faults(protocol)

    async def fail(self, load: Load, fault: Fault | None) -> None:
        assert self.facility is not None
        self.failed.add(fault)
        self.facility.set_fault(load.id, named(SIMULATED, fault))

    def pools(self) -> dict[str, Any]:
        return {load.id: self.device(load).truth()["pools"] for load in self.loads}

    def middle(self, load: Load) -> Command:
        order = command(load, Verb.POWER, at=self.clock.now(), seq=3)
        return replace(order, watts=self.case.middle_watts or 0.0, point=self.case.middle_point)

    def lowering(self, load: Load) -> Command:
        return command(load, Verb.SLEEP, at=self.clock.now(), seq=1)

    def raising(self, load: Load) -> Command:
        return command(load, Verb.WAKE, at=self.clock.now(), seq=2)

    def shows(self, telemetry: Telemetry, command: Command) -> bool:
        return telemetry.state is (LoadState.ASLEEP if command.verb is Verb.SLEEP else LoadState.ACTIVE)

    def happened(self, load: Load, command: Command) -> bool:
        return bool(self.device(load).state == ("asleep" if command.verb is Verb.SLEEP else "hashing"))


@pytest.fixture(scope="class")
def variant(request: pytest.FixtureRequest) -> tuple[FirmwareCase, float]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="class")
def subnet() -> Iterator[int]:
    """A subnet that is ours between tests, too: whoever looks for one takes this port for a sign."""
    for _ in range(20):
        number = find_subnet()
        with contextlib.suppress(OSError), socket.create_server((f"127.{number}.0.1", 8701)):
            yield number
            return
    raise OSError("no free loopback subnet")


@pytest_asyncio.fixture(loop_scope="class", scope="class")
async def open_driver(class_clock: Clock) -> AsyncIterator[AsicDriver]:
    driver = new_driver({case.firmware: options_of(case) for case in CASES.values()}, class_clock)
    await driver.open([])
    yield driver
    await driver.close()


@pytest.mark.asyncio(loop_scope="class")
class TestAsicContract(DriverContract):
    """Everything that any driver must do."""

    tells_none = ("tokens_per_s",)

    @pytest_asyncio.fixture(loop_scope="class")
    async def harness(
        self,
        variant: tuple[FirmwareCase, float],
        subnet: int,
        class_clock: Clock,
        count_requests: Callable[[Facility], Any],
        tmp_path: Path,
    ) -> AsyncIterator[AsicHarness]:
        case, latency_s = variant
        harness, truth = AsicHarness(case, subnet, latency_s, class_clock), tmp_path / "truth.jsonl"
        async with simulated_facility(
            scenario(case), subnet, truth=truth, servers=(), device_latency_s=latency_s
        ) as facility:
            harness.facility = facility
            harness.received = count_requests(facility).received
            for load in harness.loads:
                # Long enough to be seen, and no longer: nothing that is tested depends on it.
                harness.device(load).reboot_away_s = harness.device(load).blip_s = 0.5
            assert all(pool["url"] for held in harness.pools().values() for pool in held)
            yield harness
        # Whatever failed, and whatever was asked for: only the fault that loses pools has changed any.
        lost = 1 if Fault.POOLS_LOST in harness.failed else 0
        assert require_pools_kept(truth).get("fault", 0) == lost

    @pytest_asyncio.fixture(loop_scope="class")
    async def driver(self, open_driver: AsicDriver, harness: AsicHarness) -> Driver:
        return open_driver

    async def test_power_between_is_set_and_read_back(self, harness: AsicHarness, driver: Driver) -> None:
        if harness.case.middle_watts is None:
            assert driver.capability(harness.loads[0]).steering in (Steering.ON_OFF, Steering.MONITOR)
            return
        load, boots = harness.loads[0], harness.device(harness.loads[0]).boots
        wanted_w = harness.case.middle_watts
        await driver.apply(load, harness.middle(load), harness.deadline_s)

        async def so() -> bool:
            reading = await driver.read(load, harness.deadline_s)
            found = [harness.device(load).watts]
            if driver.capability(load).measures_watts:
                found.append(reading.watts or 0.0)
            else:
                assert reading.watts is None
            # An order for power is a ceiling: it may settle below it, on the device's own steps.
            there = all(0.6 * wanted_w < watts <= 1.03 * wanted_w for watts in found)
            return there and reading.state is LoadState.ACTIVE and harness.device(load).state == "hashing"

        await eventually(harness, so, f"{wanted_w:.0f} W is set and read back")
        if not driver.capability(load).reboots_on_change:
            assert harness.device(load).boots == boots

    @pytest.mark.parametrize("fault", [Fault.BLACK_HOLE, Fault.SLOW])
    async def test_what_answers_too_late_costs_its_deadline_and_no_other_load(
        self, harness: AsicHarness, driver: Driver, fault: Fault
    ) -> None:
        load, other = harness.loads
        await driver.read(load, harness.deadline_s)
        await harness.fail(load, fault)
        await harness.clock.sleep(0.1)

        async def ask_late() -> None:
            started = harness.clock.monotonic()
            with pytest.raises(DeviceError):
                await driver.read(load, 1.0)
            assert harness.clock.monotonic() - started <= 1.0 + GRACE_S

        async def ask_other() -> None:
            for _ in range(2):
                assert (await driver.read(other, harness.deadline_s)).fault is None

        # All at once: they wait for the same deadline.
        await asyncio.gather(ask_late(), ask_other(), command_a_failing(harness, driver, load, deadline_s=1.0))

    @pytest.mark.parametrize("fault", [Fault.REBOOT, Fault.BLIP])
    async def test_a_device_that_came_back_is_seen_hashing_and_takes_orders(
        self, harness: AsicHarness, driver: Driver, fault: Fault
    ) -> None:
        load = harness.loads[0]
        if harness.commandable:
            await driver.apply(load, harness.lowering(load), harness.deadline_s)
            await eventually(harness, self._asleep(harness, driver), "it sleeps")
        await harness.fail(load, fault)

        async def hashes() -> bool:
            try:
                state = (await driver.read(load, harness.deadline_s)).state
            except DeviceError:
                return False
            return state in (LoadState.ACTIVE, LoadState.STARTING) and harness.device(load).state != "dead"

        await eventually(harness, hashes, "it is back", within_s=harness.ramp_s + 8.0)
        if harness.commandable:
            await driver.apply(load, harness.lowering(load), harness.deadline_s)
            await eventually(harness, self._asleep(harness, driver), "it sleeps again")

    async def test_readings_name_model_and_firmware_once_they_are_known(
        self, harness: AsicHarness, driver: Driver
    ) -> None:
        load = harness.loads[0]
        model = (await driver.identify(load, harness.deadline_s)).model
        told = [await driver.read(load, harness.deadline_s)]
        async with contextlib.aclosing(cast("AsyncGenerator[Telemetry, None]", driver.watch([load], 0.5))) as readings:
            told.append(await anext(readings))
        for reading in told:
            assert reading.make is not None
            assert reading.make.startswith(model.split("(")[0].strip())
            assert reading.make.endswith(f" / {harness.case.firmware}")

    @pytest.mark.parametrize("fault", [Fault.FROZEN, Fault.MISREPORT])
    async def test_what_a_liar_says_is_passed_on_as_it_is(
        self, harness: AsicHarness, driver: Driver, fault: Fault
    ) -> None:
        need_commands(harness)
        load = harness.loads[0]
        await harness.fail(load, fault)
        try:
            await driver.apply(load, harness.lowering(load), harness.deadline_s)
        except DeviceError:
            return
        await harness.clock.sleep(1.0)
        telemetry = await driver.read(load, harness.deadline_s)
        if fault is Fault.FROZEN:
            assert telemetry.state is not LoadState.ASLEEP
        else:
            assert harness.device(load).state == "hashing"

    async def test_wrong_watts_are_passed_on_as_told(self, harness: AsicHarness, driver: Driver) -> None:
        unready(harness, Fault.WATTS_WRONG)
        load = harness.loads[0]
        await harness.fail(load, Fault.WATTS_WRONG)
        watts = (await driver.read(load, harness.deadline_s)).watts
        assert watts == pytest.approx(WATTS_TOLD * harness.device(load).watts, rel=0.05)

    async def test_lost_pools_are_never_written_back_empty(self, harness: AsicHarness, driver: Driver) -> None:
        need_commands(harness)
        load = harness.loads[0]
        await harness.fail(load, Fault.POOLS_LOST)
        pools = harness.pools()
        for order in (harness.lowering(load), harness.raising(load)):
            try:
                await driver.apply(load, order, harness.deadline_s)
            except UnsafeWrite:
                assert harness.requests(load) == 0
        assert harness.pools() == pools

    async def test_a_configuration_that_cannot_be_read_is_never_written(
        self, harness: AsicHarness, driver: Driver
    ) -> None:
        unready(harness, Fault.UNREADABLE_CONFIG)
        load = harness.loads[0]
        await harness.fail(load, Fault.UNREADABLE_CONFIG)
        for order in (harness.lowering(load), harness.raising(load)):
            with pytest.raises(DeviceError):
                await driver.apply(load, order, harness.deadline_s)
        assert harness.requests(load) == 0

    async def test_a_wrong_clock_makes_no_order_happen_unseen(self, harness: AsicHarness, driver: Driver) -> None:
        unready(harness, Fault.CLOCK_WRONG)
        load = harness.loads[0]
        await harness.fail(load, Fault.CLOCK_WRONG)
        try:
            await driver.apply(load, harness.lowering(load), harness.deadline_s)
        except DeviceError:
            assert harness.device(load).state == "hashing"
            return
        await harness.clock.sleep(1.0)
        asleep = (await driver.read(load, harness.deadline_s)).state is LoadState.ASLEEP
        assert not asleep or harness.device(load).state == "asleep"

    @staticmethod
    def _asleep(harness: AsicHarness, driver: Driver) -> Callable[[], Awaitable[bool]]:
        async def asleep() -> bool:
            load = harness.loads[0]
            return (await driver.read(load, harness.deadline_s)).state is LoadState.ASLEEP

        return asleep


class TestAsicCredentials:
    """A password is given, or the vendor's is acknowledged by silence; never guessed."""

    @pytest.fixture
    async def harness(
        self, subnet: int, class_clock: Clock, count_requests: Callable[[Facility], Any], tmp_path: Path
    ) -> AsyncIterator[AsicHarness]:
        harness, truth = AsicHarness(CASES["whatsminer_v2"], subnet, 0.0, class_clock), tmp_path / "truth.jsonl"
        async with simulated_facility(scenario(harness.case), subnet, truth=truth, servers=()) as facility:
            harness.facility = facility
            harness.received = count_requests(facility).received
            yield harness
        assert require_pools_kept(truth) == {}

    @pytest.mark.parametrize("options", [{"accept_default_password": False}, {"credential": "nobody-gave-it"}])
    async def test_without_an_agreed_password_nothing_is_written(
        self, harness: AsicHarness, options: dict[str, Any]
    ) -> None:
        harness.options.update(options)
        load = harness.loads[0]
        async with opened(harness) as driver:
            assert (await driver.read(load, harness.deadline_s)).fault is None
            with pytest.raises(CredentialsRejected):
                await driver.apply(load, harness.lowering(load), harness.deadline_s)
        assert harness.requests(load) == 0
