"""The Modbus switch against its contract, over the simulated gateway, with and without 100 ms on every answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from mullet.ports import Clock, DriverContext
from mullet.testing.contract import Fault
from mullet.testing.plant_contract import SwitchContract, SwitchHarness
from mullet_hardware.switch.modbus import ModbusSwitch


class ModbusSwitchHarness(SwitchHarness):
    """Two contactors behind one gateway."""

    def __init__(self, plant: Any, clock: Clock) -> None:
        self.plant = plant
        self.clock = clock
        self.units = {"pdu-a": 101, "pdu-b": 102}
        self.switch_ids = list(self.units)
        self.deadline_s = 1.0 + 8.0 * plant.relay.delay_s

    def new_switch(self) -> ModbusSwitch:
        options = self.plant.options(pdu_a=101, pdu_b=102)
        return ModbusSwitch(DriverContext(options=options, secret=lambda name: None, clock=self.clock))

    def closed(self, switch_id: str) -> bool:
        return bool(self.plant.facility.plant.is_closed(switch_id))

    async def fail(self, switch_id: str, fault: Fault | str | None) -> None:
        await self.plant.fail(self.units[switch_id], fault)


class TestSwitchContract(SwitchContract):
    """Everything that any switch must do."""

    @pytest.fixture(params=[0.0, 0.1], ids=["no latency", "100 ms"])
    async def harness(
        self, request: pytest.FixtureRequest, modbus_plant: Any, clock: Clock
    ) -> AsyncIterator[ModbusSwitchHarness]:
        async with modbus_plant(request.param) as plant:
            yield ModbusSwitchHarness(plant, clock)
