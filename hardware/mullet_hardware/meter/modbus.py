"""Circuit meters over Modbus TCP: float32 active power in input registers, as most panel meters serve it."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from types import EllipsisType
from typing import Any, ClassVar

from pymodbus.client import AsyncModbusTcpClient

from mullet.domain.telemetry import MeterReading, Quality
from mullet.ports import DriverContext, MeterError
from mullet_hardware.meter.gateway import GatewayError, Gateways

NOISE_WATTS = 5.0
"""A reading so little below zero is noise around nothing, and counts as 0 W."""


class ModbusMeter:
    """Reads all meters that name it, one connection per gateway. Frozen readings are for control to notice."""

    options_schema: ClassVar[Mapping[str, tuple[Any, Any | EllipsisType, str]]] = {
        "host": (str, ..., "address of the gateway"),
        "port": (int, 502, "TCP port of the gateway"),
        "unit": (int, ..., "Modbus unit id of the meter"),
        "power_register": (int, 0, "input register of the active power, float32 in two registers"),
        "word_order": (str, "big", 'order of the two registers: "big" (high word first) or "little"'),
        "scale": (float, 1.0, "watts per unit of the register (1000 for a meter that serves kW)"),
        "heartbeat_register": (
            int,
            4,
            "input register of a count that rises while it lives, uint32; null: none",
        ),
        "status_register": (int, 6, "input register that is 0 while the reading is good, uint16; null: none"),
        "max_watts": (float, None, "a reading above this is not believed"),
    }

    def __init__(self, context: DriverContext) -> None:
        self._context = context
        self._gateways = Gateways()

    async def open(self) -> None:
        """Do nothing: connections are made by the first reading."""

    async def close(self) -> None:
        """Drop all connections."""
        self._gateways.close()

    async def read(self, meter_id: str, deadline_s: float) -> MeterReading:
        """Return a reading in W; one that cannot be believed has quality BAD and says why in `detail`.

        Raises:
            MeterError: no answer in time, or the meter has no options.
        """
        options = self._context.options.get(meter_id)
        if options is None:
            raise MeterError(f"meter {meter_id}: no options are given for it")
        blocks = _Blocks(options)

        async def ask(client: AsyncModbusTcpClient) -> Any:
            return await client.read_input_registers(blocks.first, count=blocks.count, device_id=int(options["unit"]))

        try:
            gateway = self._gateways.at(str(options["host"]), int(options.get("port", 502)))
            answer = await gateway.request(ask, deadline_s)
        except GatewayError as error:
            raise MeterError(f"meter {meter_id}: {error}") from None
        registers = list(answer.registers)
        if len(registers) < blocks.count:
            raise MeterError(f"meter {meter_id}: {len(registers)} registers instead of {blocks.count}")
        return self._judged(meter_id, options, blocks, registers)

    def _judged(
        self, meter_id: str, options: Mapping[str, Any], blocks: _Blocks, registers: Sequence[int]
    ) -> MeterReading:
        raw = blocks.power(registers) * float(options.get("scale", 1.0))
        heartbeat, status = blocks.heartbeat(registers), blocks.status(registers)
        most = options.get("max_watts")
        detail = ""
        if status:
            detail = f"the meter reports status {status}"
        elif not math.isfinite(raw):
            detail = "the reading is not a number"
        elif raw < -NOISE_WATTS:
            detail = f"the reading is negative: {raw:g} W"
        elif most is not None and raw > float(most):
            detail = f"the reading {raw:g} W is above the most believed, {float(most):g} W"
        return MeterReading(
            meter_id=meter_id,
            at=self._context.clock.now(),
            watts=max(0.0, raw) if not detail else None,
            quality=Quality.BAD if detail else Quality.GOOD,
            heartbeat=heartbeat,
            detail=detail,
        )


class _Blocks:
    """Where the values of one meter lie in the one block of registers that is read."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._power = int(options.get("power_register", 0))
        self._heartbeat = _optional(options, "heartbeat_register", 4)
        self._status = _optional(options, "status_register", 6)
        self._little = str(options.get("word_order", "big")) == "little"
        starts = [(self._power, 2)]
        if self._heartbeat is not None:
            starts.append((self._heartbeat, 2))
        if self._status is not None:
            starts.append((self._status, 1))
        self.first = min(start for start, _ in starts)
        self.count = max(start + words for start, words in starts) - self.first

    def power(self, registers: Sequence[int]) -> float:
        """Return the active power in the register's own unit."""
        return float(struct.unpack(">f", struct.pack(">HH", *self._pair(registers, self._power)))[0])

    def heartbeat(self, registers: Sequence[int]) -> int | None:
        """Return the heartbeat count, None where the meter has none."""
        if self._heartbeat is None:
            return None
        return int(struct.unpack(">I", struct.pack(">HH", *self._pair(registers, self._heartbeat)))[0])

    def status(self, registers: Sequence[int]) -> int:
        """Return the status word, 0 where the meter has none."""
        return 0 if self._status is None else int(registers[self._status - self.first])

    def _pair(self, registers: Sequence[int], start: int) -> tuple[int, int]:
        one, two = registers[start - self.first], registers[start - self.first + 1]
        return (two, one) if self._little else (one, two)


def _optional(options: Mapping[str, Any], name: str, default: int) -> int | None:
    value = options.get(name, default)
    return None if value is None else int(value)
