"""The Modbus meter against its contract, over the simulated gateway, with and without 100 ms on every answer."""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mullet.domain.telemetry import MeterReading, Quality
from mullet.ports import Clock, DriverContext, MeterError
from mullet.testing.contract import Fault
from mullet.testing.plant_contract import MeterContract, MeterHarness
from mullet_hardware.meter.modbus import ModbusMeter


class ModbusMeterHarness(MeterHarness):
    """Three meters behind one gateway."""

    def __init__(self, plant: Any, clock: Clock) -> None:
        self.plant = plant
        self.clock = clock
        self.units = {"poi": 1, "pdu-a": 2, "pdu-b": 3}
        self.meter_ids = list(self.units)
        self.deadline_s = 0.5 + 5.0 * plant.relay.delay_s

    def new_meter(self) -> ModbusMeter:
        options = self.plant.options(poi=1, pdu_a=2, pdu_b=3)
        return ModbusMeter(DriverContext(options=options, secret=lambda name: None, clock=self.clock))

    def watts(self, meter_id: str) -> float:
        return float(self.plant.facility.plant.circuit_watts(meter_id))

    async def fail(self, meter_id: str, fault: Fault | str | None) -> None:
        await self.plant.fail(self.units[meter_id], fault)


class TestMeterContract(MeterContract):
    """Everything that any meter must do."""

    @pytest.fixture(params=[0.0, 0.1], ids=["no latency", "100 ms"])
    async def harness(
        self, request: pytest.FixtureRequest, modbus_plant: Any, clock: Clock
    ) -> AsyncIterator[ModbusMeterHarness]:
        async with modbus_plant(request.param) as plant:
            yield ModbusMeterHarness(plant, clock)


@asynccontextmanager
async def meter_with(registers: Mapping[int, int]) -> AsyncIterator[int]:
    """Serve input registers on a port of 127.0.0.1, each request answered from the mapping."""
    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readexactly(12)
                number, _, _, unit, code, start, count = struct.unpack(">HHHBBHH", head)
                words = [registers.get(start + k, 0) for k in range(count)]
                body = struct.pack(f">BBB{count}H", unit, code, 2 * count, *words)
                writer.write(struct.pack(">HHH", number, 0, len(body)) + body)
        except asyncio.IncompleteReadError:
            writer.close()
            await writer.wait_closed()
            ended.set()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
        await asyncio.wait_for(ended.wait(), 5.0)
    finally:
        server.close()
        await server.wait_closed()


def words(value: float, at: int = 0) -> dict[int, int]:
    high, low = struct.unpack(">HH", struct.pack(">f", value))
    return {at: high, at + 1: low}


class TestWhatIsBelieved:
    """Which registers make a reading, and which readings are believed."""

    async def read(self, clock: Clock, registers: Mapping[int, int], **options: Any) -> MeterReading:
        async with meter_with(registers) as port:
            own = {"host": "127.0.0.1", "port": port, "unit": 7, **options}
            meter = ModbusMeter(DriverContext(options={"m": own}, secret=lambda name: None, clock=clock))
            try:
                return await meter.read("m", 2.0)
            finally:
                await meter.close()

    async def test_the_layout_of_the_wire_page_is_the_default(self, clock: Clock) -> None:
        reading = await self.read(clock, {**words(1234.5), **words(9.0, 2), 4: 1, 5: 2, 6: 0})
        assert (reading.watts, reading.quality, reading.heartbeat) == (1234.5, Quality.GOOD, 65538)

    async def test_another_layout_is_followed(self, clock: Clock) -> None:
        high, low = struct.unpack(">HH", struct.pack(">f", 12.5))
        reading = await self.read(
            clock,
            {3000: low, 3001: high},
            power_register=3000,
            word_order="little",
            scale=1000.0,
            heartbeat_register=None,
            status_register=None,
        )
        assert (reading.watts, reading.heartbeat) == (12500.0, None)

    @pytest.mark.parametrize(
        ("watts", "status"),
        [(math.nan, 0), (math.inf, 0), (-math.inf, 0), (-50.0, 0), (5001.0, 0), (1000.0, 3)],
    )
    async def test_what_cannot_be_is_bad_and_says_why(self, clock: Clock, watts: float, status: int) -> None:
        reading = await self.read(clock, {**words(watts), 6: status}, max_watts=5000.0)
        assert (reading.watts, reading.quality) == (None, Quality.BAD)
        assert reading.detail

    async def test_noise_below_zero_is_zero(self, clock: Clock) -> None:
        reading = await self.read(clock, words(-2.0))
        assert (reading.watts, reading.quality) == (0.0, Quality.GOOD)

    async def test_a_refused_connection_is_a_meter_error_at_once(self, clock: Clock) -> None:
        async with meter_with({}) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
        own = {"host": "127.0.0.1", "port": port, "unit": 1}
        meter = ModbusMeter(DriverContext(options={"m": own}, secret=lambda name: None, clock=clock))
        started = clock.monotonic()
        with pytest.raises(MeterError):
            await meter.read("m", 5.0)
        assert clock.monotonic() - started < 1.0
        await meter.close()
