"""What the contract tests share: the simulated plant seen from behind the devices."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from asic_results import AsicResults, command_of

from mullet.testing.contract import Fault
from mullet.testing.wire import Relay, Spoil

if TYPE_CHECKING:
    from mullet_simulators.facility import Facility


class RealClock:
    """The Clock port over the machine's clock, as the daemon's own adapter has it."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def now(self) -> float:
        return self._offset_s + time.monotonic()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class RequestCounter:
    """Counts the writes that reach the devices of a facility."""

    def __init__(self, facility: Facility) -> None:
        self.received: Counter[str] = Counter()
        self._log = facility.truth.request
        facility.truth.request = self._count  # type: ignore[method-assign]

    def _count(self, load: str, verb: str, answer: str) -> None:
        self.received[load] += 1
        self._log(load, verb, answer)


def pytest_configure(config: pytest.Config) -> None:
    """Count what comes of the miners' contract, where that is asked for."""
    path = config.getoption("--asic-results")
    if path is not None:
        config.pluginmanager.register(AsicResults(Path(path), command_of(config)), "asic-results")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sample the miners' contract, unless all of it is asked for."""
    variants = [item for item in items if "variant" in getattr(item, "fixturenames", ())]
    if not variants or config.getoption("--asic-matrix"):
        return
    # Imported here: the tests of a real card run where the simulators' libraries are not installed.
    from asic_sampling import keep

    left_out = set(variants) - keep(variants, config.getoption("--asic-seed"))
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def clock() -> RealClock:
    return RealClock()


@pytest.fixture(scope="class")
def class_clock() -> RealClock:
    return RealClock()


@pytest.fixture
def count_requests() -> Callable[[Facility], RequestCounter]:
    return RequestCounter


@pytest.fixture
def no_secrets() -> Callable[[str], Any]:
    return lambda name: None


MODBUS_SCENARIO: dict[str, Any] = {
    "circuits": [
        {"id": "poi", "limit_w": 20000, "unmanaged_w": 1500, "meter_unit": 1},
        {"id": "pdu-a", "parent": "poi", "limit_w": 9000, "unmanaged_w": 600, "meter_unit": 2, "switch_unit": 101},
        {"id": "pdu-b", "parent": "poi", "limit_w": 9000, "unmanaged_w": 250, "meter_unit": 3, "switch_unit": 102},
    ],
    "price": {"base_per_mwh": 38.0},
}


class ModbusPlant:
    """The simulated gateway, reached through a relay; some faults are of a unit, some of the way to it."""

    UNIT_FAULTS: ClassVar = {Fault.HANG: "hang", Fault.IGNORE: "welded", "nan": "nan"}
    WAY_FAULTS: ClassVar = {Fault.GARBAGE: Spoil.GARBAGE, Fault.GONE: Spoil.RESET}

    def __init__(self, facility: Facility, relay: Relay) -> None:
        self.facility = facility
        self.relay = relay
        self.gateway: Any = next(part for part in facility.components if type(part).__name__ == "ModbusGateway")

    def options(self, **units: int) -> dict[str, dict[str, Any]]:
        """Options of meters or switches by id."""
        return {
            name.replace("_", "-"): {"host": self.relay.host, "port": self.relay.port, "unit": unit}
            for name, unit in units.items()
        }

    async def fail(self, unit: int, fault: Fault | str | None) -> None:
        """Begin a fault, or end it."""
        if fault in self.WAY_FAULTS:
            self.relay.spoil = self.WAY_FAULTS[fault]
            return
        self.relay.spoil = Spoil.NOTHING
        self.gateway.set_fault(unit, "ok" if fault is None else self.UNIT_FAULTS[fault])


@pytest.fixture
def modbus_plant() -> Callable[[float], AbstractAsyncContextManager[ModbusPlant]]:
    # Imported here: the tests of a real card run where the simulators' libraries are not installed.
    from mullet_simulators.testing import simulated_facility

    @asynccontextmanager
    async def run(latency_s: float) -> AsyncIterator[ModbusPlant]:
        async with simulated_facility(MODBUS_SCENARIO, servers=("modbus",)) as facility:
            host, _, port = str(facility.addresses()["modbus"]["address"]).rpartition(":")
            async with Relay(host, int(port), latency_s) as relay:
                yield ModbusPlant(facility, relay)

    return run
