"""The simulated Modbus gateway under the real pymodbus client."""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusIOException

from mullet_simulators.modbus import ModbusGateway
from mullet_simulators.plant import Plant, SimLoad
from mullet_simulators.scenario import load_scenario
from mullet_simulators.truth import TruthLog

SUBNET = 144
SCENARIO: dict[str, Any] = {
    "circuits": [
        {"id": "poi", "limit_w": 100_000, "meter_unit": 1},
        {"id": "pdu", "parent": "poi", "limit_w": 50_000, "meter_unit": 2, "switch_unit": 101},
        {"id": "bare", "parent": "poi", "limit_w": 50_000, "unmanaged_w": 1000},
    ],
    "price": {"base_per_mwh": 40},
}


class Heater(SimLoad):
    """A load of constant draw while it has power."""

    def step(self, dt: float, now: float) -> None:
        """Draw 20 kW, or nothing."""
        self.watts = 20_000.0 if self.powered else 0.0


class Bench:
    """A gateway on its socket over a plant whose time moves by hand."""

    def __init__(self) -> None:
        self.t = 1_760_000_000.0
        scenario = load_scenario(SCENARIO)
        self.plant = Plant(scenario, lambda: self.t, TruthLog(lambda: self.t))
        self.plant.add_load(Heater("h-001", "miner", "h", "pdu"))
        self.run(1.0)
        self.gateway = ModbusGateway(self.plant, scenario, SUBNET, port=0)
        self.client: AsyncModbusTcpClient

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.02)):
            self.t += 0.02
            self.plant.step(0.02)

    async def read(self, unit: int) -> Reading:
        answer = await self.client.read_input_registers(0, count=7, device_id=unit)
        assert not answer.isError()
        watts, kwh, beats, status = struct.unpack(">ffIH", struct.pack(">7H", *answer.registers))
        return watts, kwh, beats, status

    async def contact(self) -> bool:
        answer = await self.client.read_discrete_inputs(0, count=1, device_id=101)
        assert not answer.isError()
        return bool(answer.bits[0])

    async def coil(self) -> bool:
        return bool((await self.client.read_coils(0, count=1, device_id=101)).bits[0])


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    await bench.gateway.start()
    host, _, port = bench.gateway.addresses()["modbus"]["address"].rpartition(":")
    bench.client = AsyncModbusTcpClient(host, port=int(port), timeout=0.5, retries=0, reconnect_delay=0)
    try:
        assert await bench.client.connect()
        yield bench
    finally:
        bench.client.close()
        await bench.gateway.stop()


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(3):
        while not holds():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.01)


Reading = tuple[float, float, int, int]


async def matching(bench: Bench, unit: int, wanted: Callable[[Reading], bool]) -> Reading:
    async with asyncio.timeout(3):
        while not wanted(reading := await bench.read(unit)):  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.02)
    return reading


async def test_meters_read_the_truth_of_their_circuit_within_their_error(bench: Bench) -> None:
    watts, kwh, _, status = await bench.read(2)
    assert watts == pytest.approx(20_000, rel=0.0021)
    assert status == 0
    total, _, _, _ = await bench.read(1)
    assert total == pytest.approx(bench.plant.circuit_watts("poi"), rel=0.0025)
    assert 20_900 < total < 21_200
    bench.run(36)
    _, later, _, _ = await matching(bench, 2, lambda reading: reading[1] > kwh)
    assert later == pytest.approx(bench.plant.circuit_energy_kwh("pdu"), rel=1e-6)
    assert later - kwh == pytest.approx(0.2, rel=0.02)


async def test_the_noise_moves_and_the_heartbeat_counts_seconds(bench: Bench) -> None:
    first = await bench.read(2)
    second = await matching(bench, 2, lambda reading: reading != first)
    assert second[0] != first[0]
    assert second[2] == first[2]
    bench.run(3)
    await matching(bench, 2, lambda reading: reading[2] == first[2] + 3)


async def test_a_frozen_meter_is_identical_bit_for_bit_while_the_others_move(bench: Bench) -> None:
    bench.gateway.set_fault(2, "frozen")
    frozen, moving = await bench.read(2), await bench.read(1)
    bench.run(5)
    await matching(bench, 1, lambda reading: reading != moving)
    assert await bench.read(2) == frozen
    bench.gateway.set_fault(2, "ok")
    assert (await bench.read(2))[2] == frozen[2] + 5


async def test_a_nan_meter_says_that_it_is_well(bench: Bench) -> None:
    bench.gateway.set_fault(2, "nan")
    watts, _, _, status = await bench.read(2)
    assert math.isnan(watts)
    assert status == 0


async def test_a_hung_unit_is_silent_and_the_others_answer(bench: Bench) -> None:
    bench.gateway.set_fault(2, "hang")
    with pytest.raises(ModbusIOException):
        await bench.read(2)
    assert bench.client.connected or await bench.client.connect()
    assert (await bench.read(1))[0] > 0


async def test_an_opened_contactor_takes_the_power_from_all_beneath(bench: Bench) -> None:
    assert await bench.contact()
    answer = await bench.client.write_coil(0, False, device_id=101)
    assert not answer.isError()
    assert not await bench.coil()
    assert await bench.contact()
    await until(lambda: not bench.plant.is_closed("pdu"))
    assert not await bench.contact()
    assert not bench.plant.loads["h-001"].powered
    bench.run(0.2)
    await until(lambda: bench.plant.circuit_watts("pdu") == 0)
    await bench.client.write_coils(0, [True], device_id=101)
    await until(lambda: bench.plant.is_closed("pdu"))
    assert await bench.contact()
    assert bench.plant.loads["h-001"].powered


async def test_a_welded_contactor_takes_the_command_and_does_not_move(bench: Bench) -> None:
    bench.gateway.set_fault(101, "welded")
    await bench.client.write_coil(0, False, device_id=101)
    await asyncio.sleep(0.35)
    assert not await bench.coil()
    assert await bench.contact()
    bench.gateway.set_fault(101, "ok")
    await until(lambda: not bench.plant.is_closed("pdu"))


async def test_a_command_taken_back_in_time_moves_nothing(bench: Bench) -> None:
    await bench.client.write_coil(0, False, device_id=101)
    await bench.client.write_coil(0, True, device_id=101)
    await asyncio.sleep(0.35)
    assert await bench.contact()


async def test_what_a_unit_does_not_serve_is_refused_with_its_exception_code(bench: Bench) -> None:
    client = bench.client
    assert (await client.read_holding_registers(0, count=1, device_id=1)).exception_code == 1
    assert (await client.read_coils(0, count=1, device_id=1)).exception_code == 1
    assert (await client.write_coil(0, False, device_id=1)).exception_code == 1
    assert (await client.read_input_registers(6, count=2, device_id=1)).exception_code == 2
    assert (await client.write_coil(1, False, device_id=101)).exception_code == 2
    assert (await client.read_input_registers(0, count=1, device_id=77)).exception_code == 11
    assert bench.plant.is_closed("pdu")


@pytest.mark.parametrize(("unit", "fault"), [(1, "welded"), (101, "nan"), (1, "melted")])
async def test_faults_that_a_unit_cannot_have_are_refused(bench: Bench, unit: int, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        bench.gateway.set_fault(unit, fault)


@pytest.mark.parametrize("pdu", ["05", "0500", "050000ff", "0500001234", "0f00000001", "04", "63", "040000ffff"])
async def test_malformed_requests_are_refused_and_do_nothing(bench: Bench, pdu: str) -> None:
    for unit in (1, 101):
        answer = bench.gateway.answer(unit, bytes.fromhex(pdu))
        assert answer is not None
        assert answer[0] & 0x80
    assert bench.gateway.answer(1, b"") is None
    assert bench.plant.is_closed("pdu")


async def test_a_stranger_to_the_protocol_is_hung_up_on(bench: Bench) -> None:
    host, _, port = bench.gateway.addresses()["modbus"]["address"].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(2):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
