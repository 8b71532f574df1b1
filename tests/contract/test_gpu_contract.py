"""The GPU driver against its contract, over the simulated NVML, with and without 100 ms on every call."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mullet.domain.command import Command, Verb
from mullet.domain.load import Load
from mullet.domain.telemetry import Telemetry
from mullet.ports import Clock, DeviceRefused, DeviceUnreachable, DriverContext, NoPermission, UnsafeWrite
from mullet.testing.builders import command, gpu
from mullet.testing.contract import DriverContract, DriverHarness, Fault, Truth, opened
from mullet.testing.wire import Relay, Spoil
from mullet_hardware.gpu.driver import GpuDriver
from mullet_simulators.facility import Facility
from mullet_simulators.testing import simulated_facility

SCENARIO: dict[str, Any] = {
    "circuits": [{"id": "pdu", "limit_w": 20000}],
    "services": [
        {
            "id": "chat",
            "circuit": "pdu",
            "bank": "gpus",
            "gpus": 3,
            "gpu": {"idle_w": 70, "min_cap_w": 200, "max_cap_w": 700},
            "demand": [{"at": 0.0, "requests_per_s": 10}],
        }
    ],
    "price": {"base_per_mwh": 38.0},
}
FAULTS = {
    Fault.IGNORE: "ignore",
    Fault.REFUSE: "no_permission",
    Fault.FORBIDDEN: "no_permission",
    Fault.HANG: "hang",
    Fault.GONE: "lost",
}
SPOILS = {Fault.GARBAGE: Spoil.GARBAGE, Fault.WRONG_SHAPE: Spoil.WRONG_SHAPE}


class GpuHarness(DriverHarness):
    """Three GPUs behind one NVML service, reached through a relay that can delay and spoil."""

    def __init__(self, facility: Facility, relay: Relay, clock: Clock, received: Any, tmp_path: Path) -> None:
        self.facility = facility
        self.relay = relay
        self.clock = clock
        self.tmp_path = tmp_path
        self._received = received
        self.loads: Sequence[Load] = [gpu(f"gpus-{k:03d}", "pdu") for k in (1, 2, 3)]
        self.options: dict[str, Any] = {"nvml_library": f"simulated:{relay.address}"}
        self.deadline_s = 1.0 + 10.0 * relay.delay_s
        self.ramp_s = 3.0 + 10.0 * relay.delay_s
        self.watts_error = 0.15

    def new_driver(self) -> GpuDriver:
        return GpuDriver(DriverContext(options={"gpus": self.options}, secret=lambda name: None, clock=self.clock))

    def device(self, load: Load) -> Any:
        return self.facility.plant.loads[load.id]

    def truth(self, load: Load) -> Truth:
        device = self.device(load)
        return Truth(watts=device.watts, setting=device.requested_w)

    def requests(self, load: Load) -> int:
        return int(self._received[load.id])

    def knows(self, fault: Fault) -> bool:
        return fault in FAULTS or fault in SPOILS

    async def fail(self, load: Load, fault: Fault | None) -> None:
        if fault in SPOILS:
            self.relay.spoil = SPOILS[fault]
            return
        self.relay.spoil = Spoil.NOTHING
        self.facility.set_fault(load.id, "ok" if fault is None else FAULTS[fault])

    def lowering(self, load: Load) -> Command:
        return command(load, watts=300.0, at=self.clock.now(), seq=1)

    def raising(self, load: Load) -> Command:
        return command(load, watts=650.0, at=self.clock.now(), seq=2)

    def shows(self, telemetry: Telemetry, command: Command) -> bool:
        return telemetry.limit_watts is not None and abs(telemetry.limit_watts - command.watts) <= 1.0

    def happened(self, load: Load, command: Command) -> bool:
        device = self.device(load)
        return bool(abs(device.enforced_w - command.watts) <= 1.0 and device.watts <= command.watts * 1.02)


Plants = Callable[[float], AbstractAsyncContextManager[GpuHarness]]


@pytest.fixture
def plant(clock: Clock, count_requests: Callable[[Facility], Any], tmp_path: Path) -> Plants:
    @asynccontextmanager
    async def run(latency_s: float) -> AsyncIterator[GpuHarness]:
        async with simulated_facility(SCENARIO, servers=("nvml",)) as facility:
            host, _, port = str(facility.addresses()["nvml"]["address"]).rpartition(":")
            async with Relay(host, int(port), latency_s) as relay:
                yield GpuHarness(facility, relay, clock, count_requests(facility).received, tmp_path)

    return run


class TestGpuContract(DriverContract):
    """Everything that any driver must do."""

    tells_none = ("th_per_s", "tokens_per_s")

    @pytest.fixture(params=[0.0, 0.1], ids=["no latency", "100 ms"])
    async def harness(self, request: pytest.FixtureRequest, plant: Plants) -> AsyncIterator[GpuHarness]:
        async with plant(request.param) as harness:
            yield harness


class TestGpuLimits:
    """What only a GPU does."""

    @pytest.fixture
    async def harness(self, plant: Plants) -> AsyncIterator[GpuHarness]:
        async with plant(0.0) as harness:
            yield harness

    async def test_the_receipt_tells_what_is_enforced(self, harness: GpuHarness) -> None:
        load = harness.loads[0]
        async with opened(harness) as driver:
            receipt = await driver.apply(load, harness.lowering(load), harness.deadline_s)
        assert receipt.acked is True
        assert "enforces 300 W" in receipt.detail

    async def test_a_limit_held_lower_by_the_board_is_read_and_told(self, harness: GpuHarness) -> None:
        load = harness.loads[0]
        async with opened(harness) as driver:
            harness.facility.set_fault(load.id, "bmc_cap")
            receipt = await driver.apply(load, harness.raising(load), 3.0)
            telemetry = await driver.read(load, 3.0)
        assert "enforces 400 W" in receipt.detail
        assert telemetry.limit_watts == pytest.approx(400.0)

    async def test_sleep_is_the_lowest_limit_and_wake_is_refused(self, harness: GpuHarness) -> None:
        load = harness.loads[0]
        async with opened(harness) as driver:
            await driver.apply(load, command(load, Verb.SLEEP), 3.0)
            assert (await driver.read(load, 3.0)).limit_watts == pytest.approx(200.0)
            with pytest.raises(DeviceRefused):
                await driver.apply(load, command(load, Verb.WAKE), 3.0)
        assert harness.requests(load) == 1

    @pytest.mark.parametrize(("asked", "kept"), [(1e9, 500.0), (600.0, 500.0), (50.0, 200.0), (-1e4, 200.0)])
    async def test_a_limit_is_clamped_to_the_load_and_the_gpu_and_that_is_told(
        self, harness: GpuHarness, asked: float, kept: float
    ) -> None:
        load = gpu("gpus-001", "pdu", high_watts=500.0)
        async with opened(harness) as driver:
            receipt = await driver.apply(load, command(load, watts=asked), 3.0)
            assert (await driver.read(load, 3.0)).limit_watts == pytest.approx(kept)
        assert receipt.acked is True
        assert "asked" in receipt.detail

    async def test_closing_ends_every_thread(self, harness: GpuHarness) -> None:
        async with opened(harness) as driver:
            await driver.read(harness.loads[0], 3.0)
            assert any(thread.name.startswith("GPU ") for thread in threading.enumerate())
        assert not any(thread.name.startswith(("GPU ", "NVML ")) for thread in threading.enumerate())

    async def test_a_gpu_is_found_by_its_uuid(self, harness: GpuHarness) -> None:
        by_uuid = replace(harness.loads[1], address=harness.device(harness.loads[1]).uuid)
        harness.loads = [by_uuid]
        async with opened(harness) as driver:
            await driver.apply(by_uuid, harness.lowering(by_uuid), 3.0)
        assert harness.device(by_uuid).requested_w == pytest.approx(300.0)

    async def test_an_unknown_gpu_is_unreachable(self, harness: GpuHarness) -> None:
        harness.loads = [replace(harness.loads[0], address="17")]
        async with opened(harness) as driver:
            with pytest.raises(DeviceUnreachable):
                await driver.read(harness.loads[0], 3.0)

    async def test_a_library_that_nobody_installed_is_named(self, harness: GpuHarness) -> None:
        harness.options = {"nvml_library": "imaginary:127.0.0.1:1"}
        driver = harness.new_driver()
        with pytest.raises(ValueError, match="imaginary"):
            await driver.open(harness.loads)
        await driver.close()

    async def test_a_service_that_is_away_is_unreachable_and_comes_back(self, harness: GpuHarness) -> None:
        load = harness.loads[0]
        harness.relay.spoil = Spoil.RESET
        async with opened(harness) as driver:
            with pytest.raises(DeviceUnreachable):
                await driver.read(load, 1.0)
            harness.relay.spoil = Spoil.NOTHING
            assert (await driver.read(load, 3.0)).fault is None

    async def test_defaults_are_remembered_once_and_restored_on_request(self, harness: GpuHarness) -> None:
        load = harness.loads[0]
        state_file = harness.tmp_path / "gpu-defaults.json"
        harness.options["state_file"] = str(state_file)
        async with opened(harness) as driver:
            await driver.apply(load, harness.lowering(load), 3.0)
        remembered = state_file.read_text()
        uuid = harness.device(load).uuid
        assert json.loads(remembered)["gpus"][uuid]["limit_watts"] == pytest.approx(700.0)
        assert harness.device(load).requested_w == pytest.approx(300.0), "an exit changes no device"
        async with opened(harness) as driver:
            assert state_file.read_text() == remembered, "what was found first stays"
            receipt = await driver.restore_defaults(load, 3.0)
        assert receipt.acked is True
        assert harness.device(load).requested_w == pytest.approx(700.0)
        assert [path.name for path in harness.tmp_path.iterdir()] == ["gpu-defaults.json"]

    @pytest.mark.parametrize("damage", ["not json", "[]", '{"gpus": {"GPU-x": {"limit": 1}}}'])
    async def test_nothing_is_written_while_defaults_cannot_be_kept(self, harness: GpuHarness, damage: str) -> None:
        load = harness.loads[0]
        state_file = harness.tmp_path / "gpu-defaults.json"
        state_file.write_text(damage)
        harness.options["state_file"] = str(state_file)
        async with opened(harness) as driver:
            assert isinstance(driver, GpuDriver)
            assert (await driver.read(load, 3.0)).watts is not None
            with pytest.raises(UnsafeWrite):
                await driver.apply(load, harness.lowering(load), 3.0)
            assert "gpu-defaults" in driver.ailments()[load.id]
        assert state_file.read_text() == damage
        assert harness.requests(load) == 0

    async def test_persistence_mode_off_is_warned_about(self, harness: GpuHarness) -> None:
        harness.device(harness.loads[0]).persistence = False
        async with opened(harness) as driver:
            assert isinstance(driver, GpuDriver)
            assert list(driver.ailments()) == [harness.loads[0].id]
            assert "persistence" in driver.ailments()[harness.loads[0].id]

    async def test_clocks_follow_the_limit_where_the_policy_says_so(self, harness: GpuHarness) -> None:
        load = harness.loads[0]
        harness.options["lock_clocks_mhz"] = {300: 1100, 500: 1500}
        async with opened(harness) as driver:
            await driver.apply(load, command(load, watts=250.0), 3.0)
            assert harness.device(load)._locked_mhz == (1100, 1100)
            await driver.apply(load, command(load, watts=400.0), 3.0)
            assert harness.device(load)._locked_mhz == (1500, 1500)
            await driver.apply(load, command(load, watts=700.0), 3.0)
            assert harness.device(load)._locked_mhz is None
            await driver.apply(load, command(load, watts=250.0), 3.0)
            await driver.restore_defaults(load, 3.0)
            assert harness.device(load)._locked_mhz is None

    async def test_a_command_for_another_load_is_not_written(self, harness: GpuHarness) -> None:
        one, two = harness.loads[0], harness.loads[1]
        async with opened(harness) as driver:
            with pytest.raises(UnsafeWrite):
                await driver.apply(one, harness.lowering(two), 3.0)
        assert harness.requests(one) + harness.requests(two) == 0

    async def test_restoring_needs_permission_too(self, harness: GpuHarness) -> None:
        load = harness.loads[0]
        async with opened(harness) as driver:
            await harness.fail(load, Fault.FORBIDDEN)
            with pytest.raises(NoPermission):
                await driver.restore_defaults(load, 3.0)
