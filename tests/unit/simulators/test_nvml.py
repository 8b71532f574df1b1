"""The simulated NVML under the real pynvml, and the physics of the GPUs behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pynvml
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullet_simulators.gpu import GpuFault, Work
from mullet_simulators.nvml import HANG_S, NvmlService
from mullet_simulators.nvml_client import SimulatedNvml
from mullet_simulators.plant import Plant
from mullet_simulators.scenario import load_scenario
from mullet_simulators.truth import TruthLog

HOST = "127.141.0.2"
SCENARIO: dict[str, Any] = {
    "circuits": [{"id": "pdu", "limit_w": 40_000}],
    "services": [
        {
            "id": service,
            "circuit": "pdu",
            "bank": f"{service}-gpu",
            "gpus": 2,
            "gpu": {},
            "prompt_tokens_per_request": prompt,
            "output_tokens_per_request": 300,
            "demand": [{"requests_per_s": 1}],
        }
        for service, prompt in (("chat", 300), ("code", 1200))
    ],
    "price": {"base_per_mwh": 40},
}


class Bench:
    """A facility of four GPUs whose time moves by hand."""

    def __init__(self) -> None:
        self.t = 1_760_000_000.0
        scenario = load_scenario(SCENARIO)
        self.plant = Plant(scenario, lambda: self.t, TruthLog(lambda: self.t))
        self.service = NvmlService(self.plant, scenario, HOST, port=0)
        self.chat, _, self.code, _ = self.service.gpus
        self.worst_over = 0.0
        self.run(0.02)

    def run(self, seconds: float, dt: float = 0.02) -> None:
        for _ in range(max(1, round(seconds / dt))):
            self.t += dt
            for gpu in self.service.gpus:
                gpu.step(dt, self.t)
                self.worst_over = max(self.worst_over, gpu.watts / gpu.enforced_w - 1.0)


@pytest.fixture
def bench() -> Bench:
    return Bench()


# -- physics


def test_prefill_draws_up_to_its_cap_and_decode_does_not_reach_it(bench: Bench) -> None:
    bench.chat.duty = bench.code.duty = 1.0
    bench.run(5)
    assert bench.code.watts == pytest.approx(700, rel=0.02)
    assert bench.chat.watts == pytest.approx(300, rel=0.03)
    bench.code.set_limit(400)
    bench.chat.set_limit(400)
    bench.run(5)
    assert bench.code.watts == pytest.approx(400, rel=0.02)
    assert bench.chat.watts == pytest.approx(300, rel=0.03)
    bench.chat.set_limit(200)
    bench.run(5)
    assert bench.chat.watts == pytest.approx(200, rel=0.02)


def test_idle_gpus_draw_their_idle_watts(bench: Bench) -> None:
    bench.run(5)
    assert bench.code.watts == pytest.approx(70, rel=0.02)


def test_a_lower_limit_is_enforced_within_two_tenths_and_the_draw_is_beneath_it_by_then(bench: Bench) -> None:
    bench.code.duty = 1.0
    bench.run(5)
    bench.code.set_limit(300)
    bench.run(0.08)
    assert bench.code.enforced_w == 700
    bench.run(0.14)
    assert bench.code.enforced_w == 300
    assert bench.code.watts <= 300 * 1.02


def test_speed_is_concave_in_the_cap_and_ten_to_fifteen_percent_lower_at_600_w(bench: Bench) -> None:
    speeds = []
    for cap_w in (200, 300, 400, 500, 600, 700):
        bench.code.set_limit(cap_w)
        bench.run(1)
        speeds.append(bench.code.speed)
    steps = [after - before for before, after in pairwise(speeds)]
    assert all(step > 0 for step in steps)
    assert steps == sorted(steps, reverse=True)
    assert 0.85 <= speeds[-2] <= 0.90
    assert speeds[-1] == 1.0


def test_watts_for_a_speed_give_that_speed(bench: Bench) -> None:
    for speed in (0.4, 0.7, 0.95):
        bench.code.set_limit(bench.code.watts_for(speed))
        bench.run(1)
        assert bench.code.speed == pytest.approx(speed, abs=0.001)


def test_a_clock_lock_lowers_decode_draw_at_little_loss(bench: Bench) -> None:
    bench.chat.duty = 1.0
    bench.run(5)
    before = bench.chat.watts
    bench.chat.lock_clocks(210, 1200)
    bench.run(5)
    assert bench.chat.watts < 0.75 * before
    assert bench.chat.speed > 0.9
    bench.chat.unlock_clocks()
    assert bench.chat.speed == 1.0


def test_a_bmc_cap_enforces_less_than_was_asked(bench: Bench) -> None:
    bench.code.set_fault("bmc_cap", bench.t)
    bench.code.duty = 1.0
    bench.run(3)
    assert (bench.code.requested_w, bench.code.enforced_w) == (700, 400)
    assert bench.code.watts <= 400 * 1.02
    bench.code.set_fault("ok", bench.t)
    bench.run(3)
    assert bench.code.enforced_w == 700


def test_a_gpu_without_power_draws_nothing_and_forgets_its_limit(bench: Bench) -> None:
    bench.code.set_limit(300)
    bench.run(1)
    bench.plant.set_switch("pdu", closed=False)
    bench.run(0.1)
    assert bench.code.watts == 0
    assert bench.code.is_lost
    bench.plant.set_switch("pdu", closed=True)
    bench.run(1)
    assert bench.code.enforced_w == 700


def test_an_unknown_fault_is_refused(bench: Bench) -> None:
    with pytest.raises(ValueError, match="no such fault"):
        bench.code.set_fault("melted", bench.t)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.floats(200, 700), st.floats(0, 1), st.floats(0.02, 1.0), st.sampled_from(list(GpuFault))),
        min_size=1,
        max_size=12,
    )
)
def test_the_draw_never_exceeds_the_enforced_cap_by_more_than_two_percent(
    steps: list[tuple[float, float, float, GpuFault]],
) -> None:
    bench = Bench()
    for cap_w, duty, seconds, fault in steps:
        for gpu in bench.service.gpus:
            gpu.duty = duty
            gpu.set_fault(fault, bench.t)
            gpu.set_limit(cap_w)
        bench.run(seconds)
    assert bench.worst_over <= 0.02


# -- the wire, under the real pynvml


class Card:
    """The bench over its socket, with pynvml pointed at it."""

    def __init__(self, bench: Bench, library: SimulatedNvml) -> None:
        self.bench = bench
        self.library = library

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.to_thread(function, *arguments)

    async def handle(self, index: int) -> Any:
        return await self.call(pynvml.nvmlDeviceGetHandleByIndex, index)


def point_pynvml_at(library: SimulatedNvml | None) -> None:
    pynvml.nvmlLib = library
    pynvml._nvmlGetFunctionPointer_cache.clear()


@pytest.fixture
async def card(bench: Bench) -> AsyncIterator[Card]:
    await bench.service.start()
    library = SimulatedNvml(bench.service.addresses()["nvml"]["address"], timeout_s=1.0)
    point_pynvml_at(library)
    try:
        await asyncio.to_thread(pynvml.nvmlInit)
        yield Card(bench, library)
    finally:
        library.close()
        point_pynvml_at(None)
        await bench.service.stop()


async def test_every_reading_has_its_unit_and_type(card: Card) -> None:
    assert await card.call(pynvml.nvmlSystemGetDriverVersion) == "580.95.05"
    assert await card.call(pynvml.nvmlDeviceGetCount) == 4
    gpu = await card.handle(2)
    uuid = await card.call(pynvml.nvmlDeviceGetUUID, gpu)
    assert uuid == card.bench.code.uuid
    assert await card.call(pynvml.nvmlDeviceGetName, gpu) == "NVIDIA H100 80GB HBM3"
    assert await card.call(pynvml.nvmlDeviceGetSerial, gpu) == card.bench.code.serial
    by_uuid = await card.call(pynvml.nvmlDeviceGetHandleByUUID, uuid)
    assert await card.call(pynvml.nvmlDeviceGetIndex, by_uuid) == 2
    card.bench.code.duty = 1.0
    card.bench.run(6)
    assert await card.call(pynvml.nvmlDeviceGetPowerUsage, gpu) == pytest.approx(700_000, rel=0.02)
    assert await card.call(pynvml.nvmlDeviceGetPowerManagementLimit, gpu) == 700_000
    assert await card.call(pynvml.nvmlDeviceGetPowerManagementDefaultLimit, gpu) == 700_000
    assert await card.call(pynvml.nvmlDeviceGetPowerManagementLimitConstraints, gpu) == [200_000, 700_000]
    assert await card.call(pynvml.nvmlDeviceGetEnforcedPowerLimit, gpu) == 700_000
    energy = await card.call(pynvml.nvmlDeviceGetTotalEnergyConsumption, gpu)
    assert energy == pytest.approx(1000 * card.bench.code.energy_j, rel=0.001)
    assert await card.call(pynvml.nvmlDeviceGetTemperature, gpu, pynvml.NVML_TEMPERATURE_GPU) > 28
    assert await card.call(pynvml.nvmlDeviceGetTemperatureV, gpu, pynvml.NVML_TEMPERATURE_GPU) > 28
    rates = await card.call(pynvml.nvmlDeviceGetUtilizationRates, gpu)
    assert (rates.gpu, rates.memory) == (100, 40)
    assert await card.call(pynvml.nvmlDeviceGetClockInfo, gpu, pynvml.NVML_CLOCK_SM) == 1980
    assert await card.call(pynvml.nvmlDeviceGetMaxClockInfo, gpu, pynvml.NVML_CLOCK_MEM) == 2619
    assert await card.call(pynvml.nvmlDeviceGetPersistenceMode, gpu) == 1
    await card.call(pynvml.nvmlDeviceSetPersistenceMode, gpu, 0)
    assert await card.call(pynvml.nvmlDeviceGetPersistenceMode, gpu) == 0
    with pytest.raises(pynvml.NVMLError_NotSupported):
        await card.call(pynvml.nvmlDeviceGetMigMode, gpu)
    with pytest.raises(pynvml.NVMLError_FunctionNotFound):
        await card.call(pynvml.nvmlDeviceGetFanSpeed, gpu)


async def test_a_limit_is_set_enforced_and_outlives_its_client(card: Card) -> None:
    gpu = await card.handle(2)
    card.bench.code.duty = 1.0
    card.bench.run(3)
    await card.call(pynvml.nvmlDeviceSetPowerManagementLimit, gpu, 350_000)
    assert await card.call(pynvml.nvmlDeviceGetPowerManagementLimit, gpu) == 350_000
    card.bench.run(0.3)
    assert await card.call(pynvml.nvmlDeviceGetEnforcedPowerLimit, gpu) == 350_000
    assert await card.call(pynvml.nvmlDeviceGetCurrentClocksEventReasons, gpu) == 4
    await card.call(pynvml.nvmlShutdown)
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        await card.call(pynvml.nvmlDeviceGetCount)
    await card.call(pynvml.nvmlInit)
    assert await card.call(pynvml.nvmlDeviceGetEnforcedPowerLimit, await card.handle(2)) == 350_000


@pytest.mark.parametrize("limit", [199_999, 700_001, 0])
async def test_a_limit_out_of_range_is_an_invalid_argument(card: Card, limit: int) -> None:
    gpu = await card.handle(2)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        await card.call(pynvml.nvmlDeviceSetPowerManagementLimit, gpu, limit)
    assert card.bench.code.requested_w == 700


async def test_locked_clocks_over_the_wire(card: Card) -> None:
    gpu = await card.handle(0)
    card.bench.chat.duty = 1.0
    await card.call(pynvml.nvmlDeviceSetGpuLockedClocks, gpu, 210, 1200)
    assert await card.call(pynvml.nvmlDeviceGetClockInfo, gpu, pynvml.NVML_CLOCK_SM) == 1200
    await card.call(pynvml.nvmlDeviceResetGpuLockedClocks, gpu)
    assert await card.call(pynvml.nvmlDeviceGetClockInfo, gpu, pynvml.NVML_CLOCK_SM) == 1980
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        await card.call(pynvml.nvmlDeviceSetGpuLockedClocks, gpu, 1500, 1200)


async def test_faults_reach_pynvml_as_its_own_errors(card: Card) -> None:
    gpu = await card.handle(2)
    card.bench.code.set_fault("no_permission", card.bench.t)
    with pytest.raises(pynvml.NVMLError_NoPermission):
        await card.call(pynvml.nvmlDeviceSetPowerManagementLimit, gpu, 300_000)
    assert await card.call(pynvml.nvmlDeviceGetEnforcedPowerLimit, gpu) == 700_000
    card.bench.code.set_fault("ignore", card.bench.t)
    await card.call(pynvml.nvmlDeviceSetPowerManagementLimit, gpu, 300_000)
    card.bench.run(1)
    assert await card.call(pynvml.nvmlDeviceGetEnforcedPowerLimit, gpu) == 700_000
    assert await card.call(pynvml.nvmlDeviceGetPowerManagementLimit, gpu) == 700_000
    card.bench.code.set_fault("lost", card.bench.t)
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        await card.call(pynvml.nvmlDeviceGetPowerUsage, gpu)
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        await card.handle(2)
    assert await card.call(pynvml.nvmlDeviceGetPowerUsage, await card.handle(3)) > 0


async def test_a_hung_gpu_times_out_and_delays_no_other(card: Card) -> None:
    hung, well = await card.handle(2), await card.handle(3)
    card.bench.code.set_fault("hang", card.bench.t)
    late = asyncio.create_task(card.call(pynvml.nvmlDeviceGetPowerUsage, hung))
    async with asyncio.timeout(0.9):
        assert await card.call(pynvml.nvmlDeviceGetPowerUsage, well) > 0
    assert not late.done()
    with pytest.raises(pynvml.NVMLError_Timeout):
        await late
    assert card.library._timeout_s < HANG_S


async def test_a_service_that_goes_is_uninitialized_and_found_again_when_it_returns(card: Card) -> None:
    gpu = await card.handle(2)
    await card.call(pynvml.nvmlDeviceGetPowerUsage, gpu)
    await card.bench.service.stop()
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        await card.call(pynvml.nvmlDeviceGetPowerUsage, gpu)
    await card.bench.service.start()
    assert await card.call(pynvml.nvmlDeviceGetPowerUsage, gpu) > 0


def test_without_a_service_init_fails_as_an_nvml_error() -> None:
    point_pynvml_at(SimulatedNvml("127.141.9.9:9", timeout_s=0.5))
    try:
        with pytest.raises(pynvml.NVMLError_Uninitialized):
            pynvml.nvmlInit()
    finally:
        point_pynvml_at(None)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:x", ":80"])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        SimulatedNvml(address)


async def test_a_line_that_is_no_call_is_answered_with_an_error(card: Card) -> None:
    host, _, port = card.bench.service.addresses()["nvml"]["address"].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        for line in (b"garbage\n", b"[]\n", b'{"call": "nvmlDeviceGetPowerUsage", "args": ["x"]}\n'):
            writer.write(line)
            assert b'"ret": ' in await reader.readline()
    finally:
        writer.close()
        await writer.wait_closed()


def test_gpus_know_what_their_service_does(bench: Bench) -> None:
    assert [gpu.work for gpu in bench.service.gpus] == [Work.DECODE, Work.DECODE, Work.PREFILL, Work.PREFILL]
    assert [gpu.id for gpu in bench.service.gpus] == ["chat-gpu-001", "chat-gpu-002", "code-gpu-001", "code-gpu-002"]
