"""A whole simulated facility in one process: plant, components, and their common start and stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mullet_simulators.clock import SteadyClock
from mullet_simulators.control_port import ControlPort
from mullet_simulators.miners.farm import MinerFarm
from mullet_simulators.plant import Component, Plant, PlantClockwork
from mullet_simulators.scenario import Scenario
from mullet_simulators.timeline import Timeline
from mullet_simulators.truth import TruthLog

DEFAULT_SUBNET = 77
SERVERS = ("nvml", "inference", "grid", "modbus")


class AddressInUse(OSError):
    """A socket could not be bound; the message names its address."""


class Facility:
    """Everything that the scenario describes, on `127.N.0.0/16`.

    `servers` names the servers to run besides the miners, out of SERVERS.
    Raises OSError where the truth log cannot be opened.
    """

    def __init__(
        self,
        scenario: Scenario,
        subnet: int = DEFAULT_SUBNET,
        truth_path: Path | None = None,
        device_latency_s: float = 0.0,
        servers: Sequence[str] = SERVERS,
        now: Callable[[], float] | None = None,
        lead_s: float = 0.0,
    ) -> None:
        clock = now or SteadyClock()
        self.scenario = scenario
        self.subnet = subnet
        self.truth = TruthLog(clock, truth_path)
        self.plant = Plant(scenario, clock, self.truth, lead_s)
        self.timeline = Timeline(self.plant, scenario)
        self.farm = MinerFarm(self.plant, scenario, subnet, device_latency_s)
        self._clockwork = PlantClockwork(self.plant)
        self.components: list[Component] = [self.farm]
        by_name: dict[str, Any] = {name: _server(name, self.plant, scenario, subnet) for name in servers}
        self.components += by_name.values()
        faulty = {name: part.set_fault for name, part in by_name.items() if hasattr(part, "set_fault")}
        self.components.append(ControlPort(self.plant, self.timeline, f"127.{subnet}.0.5", faulty))
        self._started: list[Component | PlantClockwork | Timeline] = []

    async def start(self) -> None:
        """Listen everywhere, then let time run. Raises AddressInUse; nothing is left open then."""
        try:
            for component in self.components:
                self._started.append(component)
                await component.start()
            for late in (self._clockwork, self.timeline):
                self._started.append(late)
                await late.start()
        except OSError as error:
            failed = self._started[-1]
            await self.stop(clean=False)
            part = type(failed).__name__
            raise AddressInUse(f"{part} cannot listen: {error.strerror or error}") from error
        except BaseException:
            await self.stop(clean=False)
            raise

    async def stop(self, *, clean: bool = True) -> None:
        """Close every socket and end the truth log, with its footer when clean."""
        failures: list[Exception] = []
        while self._started:
            part = self._started.pop()
            try:
                await part.stop()
            except Exception as error:  # noqa: BLE001 - every other part must still be closed
                failures.append(error)
        if clean and not failures:
            self.truth.footer()
        else:
            self.truth.close()
        if failures:
            raise failures[0]

    async def fail(self) -> None:
        """Return when a task of the facility has ended, which none should; stop() then says why."""
        parts = (self._clockwork, self.timeline, *self.components)
        tasks = [task for task in (getattr(part, "task", None) for part in parts) if task is not None]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    def addresses(self) -> dict[str, Any]:
        """The ready line: where everything answers."""
        found: dict[str, Any] = {"ready": True, "subnet": self.subnet, "scenario": self.scenario.name}
        for component in self.components:
            found.update(component.addresses())
        return found

    def host(self, load_id: str) -> str:
        """Address of a miner. Raises KeyError for any other load."""
        bank_id, _, index = load_id.rpartition("-")
        for bank in self.scenario.banks:
            if bank.id == bank_id and load_id in self.plant.loads:
                return self.farm.host(bank.number, int(index))
        raise KeyError(load_id)

    def set_fault(self, load_id: str, fault: str) -> None:
        """Begin a fault, or end it with "ok"."""
        self.plant.set_fault(load_id, fault)


def _server(name: str, plant: Plant, scenario: Scenario, subnet: int) -> Component:
    """Only what runs is imported: a test of miners needs no Modbus library."""
    module = import_module(f"mullet_simulators.{name}")
    component: Component
    if name == "nvml":
        component = module.NvmlService(plant, scenario, f"127.{subnet}.0.2")
    elif name == "inference":
        component = module.InferenceServers(plant, scenario, subnet)
    elif name == "grid":
        component = module.GridService(plant, scenario, subnet)
    else:
        component = module.ModbusGateway(plant, scenario, subnet)
    return component
