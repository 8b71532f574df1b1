"""A Modbus TCP gateway: one meter and one contactor per circuit, each a unit id (docs/wire.md).

Framing, function codes and exception codes follow "MODBUS Application Protocol Specification V1.1b3" and "MODBUS
Messaging on TCP/IP Implementation Guide V1.0b".
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import struct
from enum import IntEnum, StrEnum
from typing import Any

from mullet_simulators.plant import Plant
from mullet_simulators.scenario import Scenario
from mullet_simulators.sockets import StreamServer

PORT = 8704
REFRESH_S = 0.1
NOISE = 0.002
"""A meter reads within this share of the truth."""
NOISE_FLOOR_W = 1.0
CONTACTOR_S = 0.2
MOST_READ = 125


class ModbusFault(StrEnum):
    """One way in which a unit fails; `ok` is none. A meter knows all but welded, a switch welded and hang."""

    OK = "ok"
    FROZEN = "frozen"  # registers stay bit for bit what they were, heartbeat included
    NAN = "nan"  # power is NaN while status says good
    HANG = "hang"  # requests to this unit are never answered
    WELDED = "welded"  # the coil takes commands, the contact does not move


METER_FAULTS = frozenset({ModbusFault.OK, ModbusFault.FROZEN, ModbusFault.NAN, ModbusFault.HANG})
SWITCH_FAULTS = frozenset({ModbusFault.OK, ModbusFault.WELDED, ModbusFault.HANG})


class Code(IntEnum):
    """Function codes that are served."""

    READ_COILS = 1
    READ_DISCRETE_INPUTS = 2
    READ_INPUT_REGISTERS = 4
    WRITE_COIL = 5
    WRITE_COILS = 15


class Refusal(Exception):
    """A request is answered with a Modbus exception code."""

    ILLEGAL_FUNCTION = 1
    ILLEGAL_ADDRESS = 2
    ILLEGAL_VALUE = 3
    NO_SUCH_UNIT = 11


class SimMeter:
    """The registers of one circuit's meter."""

    def __init__(self, plant: Plant, circuit: str) -> None:
        self.circuit = circuit
        self.fault = ModbusFault.OK
        self._plant = plant
        self._random: random.Random = plant.random(f"meter/{circuit}")
        self._registers = (0,) * 7
        self.refresh()

    def set_fault(self, fault: str) -> None:
        """Begin a fault, or end it with "ok". Raises ValueError for one that meters do not know."""
        new = ModbusFault(fault)
        if new not in METER_FAULTS:
            raise ValueError(f"meter of {self.circuit}: no such fault: {fault}")
        self.fault = new
        self.refresh()

    def refresh(self) -> None:
        """Sample the circuit."""
        if self.fault is ModbusFault.FROZEN:
            return
        true_w = self._plant.circuit_watts(self.circuit)
        watts = true_w + self._random.uniform(-NOISE, NOISE) * max(NOISE_FLOOR_W, abs(true_w))
        if self.fault is ModbusFault.NAN:
            watts = math.nan
        beats = int(self._plant.now() - self._plant.started_at) & 0xFFFFFFFF
        packed = struct.pack(">ffIH", watts, self._plant.circuit_energy_kwh(self.circuit), beats, 0)
        self._registers = struct.unpack(">7H", packed)

    def read(self, code: int, address: int, count: int) -> bytes:
        """The answer's body after the function code. Raises Refusal."""
        if code != Code.READ_INPUT_REGISTERS:
            raise Refusal(Refusal.ILLEGAL_FUNCTION)
        if not 1 <= count <= MOST_READ:
            raise Refusal(Refusal.ILLEGAL_VALUE)
        if address + count > len(self._registers):
            raise Refusal(Refusal.ILLEGAL_ADDRESS)
        values = self._registers[address : address + count]
        return struct.pack(f">B{count}H", 2 * count, *values)


class SimContactor:
    """The coil and the auxiliary contact of one circuit's contactor."""

    def __init__(self, plant: Plant, circuit: str) -> None:
        self.circuit = circuit
        self.fault = ModbusFault.OK
        self._plant = plant
        self._commanded = plant.is_closed(circuit)
        self._moving: asyncio.TimerHandle | None = None

    def set_fault(self, fault: str) -> None:
        """Begin a fault, or end it with "ok". Raises ValueError for one that contactors do not know."""
        new = ModbusFault(fault)
        if new not in SWITCH_FAULTS:
            raise ValueError(f"contactor of {self.circuit}: no such fault: {fault}")
        self.fault = new
        if new is ModbusFault.OK and self._commanded != self._plant.is_closed(self.circuit):
            self._move_later()

    def command(self, closed: bool) -> None:
        """Take a command; the contact follows a little later."""
        self._commanded = closed
        self._plant.truth.request(self.circuit, "close" if closed else "open", "ok")
        self._move_later()

    def cancel(self) -> None:
        """Leave the contact where it is."""
        if self._moving is not None:
            self._moving.cancel()
            self._moving = None

    def read(self, code: int, address: int, count: int) -> bytes:
        """The answer's body after the function code. Raises Refusal."""
        if code not in (Code.READ_COILS, Code.READ_DISCRETE_INPUTS):
            raise Refusal(Refusal.ILLEGAL_FUNCTION)
        if count < 1:
            raise Refusal(Refusal.ILLEGAL_VALUE)
        if address + count > 1:
            raise Refusal(Refusal.ILLEGAL_ADDRESS)
        closed = self._commanded if code == Code.READ_COILS else self._plant.is_closed(self.circuit)
        return bytes((1, int(closed)))

    def write(self, code: int, body: bytes) -> bytes:
        """Execute a write; the answer's body after the function code. Raises Refusal."""
        if len(body) < 4:
            raise Refusal(Refusal.ILLEGAL_VALUE)
        address, value = struct.unpack(">HH", body[:4])
        if code == Code.WRITE_COILS:
            if value != 1 or len(body) != 6 or body[4] != 1:
                raise Refusal(Refusal.ILLEGAL_VALUE if address == 0 else Refusal.ILLEGAL_ADDRESS)
            closed = bool(body[5] & 1)
        else:
            if value not in (0x0000, 0xFF00) or len(body) != 4:
                raise Refusal(Refusal.ILLEGAL_VALUE)
            closed = value == 0xFF00
        if address != 0:
            raise Refusal(Refusal.ILLEGAL_ADDRESS)
        self.command(closed)
        return body[:4]

    def _move_later(self) -> None:
        self.cancel()
        self._moving = asyncio.get_running_loop().call_later(CONTACTOR_S, self._move)

    def _move(self) -> None:
        self._moving = None
        if self.fault is not ModbusFault.WELDED and self._commanded != self._plant.is_closed(self.circuit):
            self._plant.set_switch(self.circuit, closed=self._commanded)


class ModbusGateway:
    """Every meter and contactor of the facility behind one address."""

    def __init__(self, plant: Plant, scenario: Scenario, subnet: int, port: int = PORT) -> None:
        self._plant = plant
        self._server = StreamServer(f"127.{subnet}.0.4", port, self._talk)
        self.meters = {c.meter_unit: SimMeter(plant, c.id) for c in scenario.circuits if c.meter_unit is not None}
        self.contactors = {
            c.switch_unit: SimContactor(plant, c.id) for c in scenario.circuits if c.switch_unit is not None
        }
        self._refresher: asyncio.Task[None] | None = None

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task that samples the meters, to notice its failure."""
        return self._refresher

    async def start(self) -> None:
        """Listen and sample. Raises OSError where the address is in use."""
        await self._server.start()
        self._refresher = asyncio.create_task(self._refresh(), name="meters")

    async def stop(self) -> None:
        """Close every connection and await every task; contacts stay where they are."""
        for contactor in self.contactors.values():
            contactor.cancel()
        await self._server.stop()
        if self._refresher is not None:
            refresher, self._refresher = self._refresher, None
            refresher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await refresher

    def addresses(self) -> dict[str, Any]:
        """Where it answers, and the unit ids by circuit."""
        return {
            "modbus": {
                "address": self._server.address,
                "meters": {meter.circuit: unit for unit, meter in self.meters.items()},
                "switches": {contactor.circuit: unit for unit, contactor in self.contactors.items()},
            }
        }

    def set_fault(self, unit: int, fault: str) -> None:
        """Begin a fault of one unit, or end it with "ok". Raises KeyError or ValueError where unknown."""
        meter = self.meters.get(unit)
        device: SimMeter | SimContactor = self.contactors[unit] if meter is None else meter
        device.set_fault(fault)

    def answer(self, unit: int, pdu: bytes) -> bytes | None:
        """The answer to one request, or None where the unit stays silent."""
        if not pdu:
            return None
        device = self.meters.get(unit) or self.contactors.get(unit)
        if device is not None and device.fault is ModbusFault.HANG:
            return None
        code = pdu[0]
        try:
            if device is None:
                raise Refusal(Refusal.NO_SUCH_UNIT)
            if isinstance(device, SimContactor) and code in (Code.WRITE_COIL, Code.WRITE_COILS):
                return bytes((code,)) + device.write(code, pdu[1:])
            if code not in (Code.READ_COILS, Code.READ_DISCRETE_INPUTS, Code.READ_INPUT_REGISTERS):
                raise Refusal(Refusal.ILLEGAL_FUNCTION)
            if len(pdu) != 5:
                raise Refusal(Refusal.ILLEGAL_VALUE)
            address, count = struct.unpack(">HH", pdu[1:])
            return bytes((code,)) + device.read(code, address, count)
        except Refusal as refusal:
            return bytes((code | 0x80, refusal.args[0]))

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            for meter in self.meters.values():
                meter.refresh()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            number, protocol, length, unit = struct.unpack(">HHHB", await reader.readexactly(7))
            if protocol != 0 or not 2 <= length <= 254:
                return
            answer = self.answer(unit, await reader.readexactly(length - 1))
            if answer is not None:
                writer.write(struct.pack(">HHHB", number, 0, len(answer) + 1, unit) + answer)
                await writer.drain()
