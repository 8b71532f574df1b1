"""The miners' driver against its contract: Whatsminer V2 and stock Antminer, with and without 100 ms on every answer.

The driver starts a worker process, which takes seconds: one driver serves all tests of a variant, each with a plant
of its own at the same addresses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from mullet.domain.command import Command, Verb
from mullet.domain.load import Load
from mullet.domain.telemetry import LoadState, Telemetry
from mullet.ports import Clock, CredentialsRejected, Driver, DriverContext
from mullet.testing.builders import command, miner
from mullet.testing.contract import DriverContract, DriverHarness, Fault, Truth, named, opened
from mullet_hardware.asic.driver import AsicDriver
from mullet_simulators.facility import Facility
from mullet_simulators.testing import find_subnet, simulated_facility

pytestmark = pytest.mark.e2e

FAULTS = {
    Fault.IGNORE: "ignore",
    Fault.REFUSE: "refuse",
    Fault.HANG: "hang",
    Fault.GARBAGE: "garbage",
    Fault.WRONG_SHAPE: "wrong_shape",
    Fault.TRUNCATED: "truncated",
    Fault.GONE: "dead",
    Fault.WRONG_PASSWORD: "wrong_password",
}
BANKS = {
    "wm": {"number": 1, "model": "whatsminer-m50s", "class": "whatsminer_v2", "watts": 3276.0, "ramp_scale": 0.1},
    "am": {"number": 2, "model": "antminer-s19", "class": "antminer_modern", "watts": 3250.0, "ramp_scale": 0.04},
}


def scenario(bank: str) -> dict[str, Any]:
    spec = BANKS[bank]
    return {
        "circuits": [{"id": "pdu", "limit_w": 20000}],
        "banks": [
            {
                "id": bank,
                "number": spec["number"],
                "circuit": "pdu",
                "model": spec["model"],
                "count": 2,
                "ramp_scale": spec["ramp_scale"],
            }
        ],
        "price": {"base_per_mwh": 38.0},
    }


class AsicHarness(DriverHarness):
    """Two miners of one model on their real protocol."""

    def __init__(self, bank: str, subnet: int, latency_s: float, clock: Clock) -> None:
        self.bank = bank
        self.clock = clock
        self.options: dict[str, Any] = {"class": BANKS[bank]["class"], "web_port": 8080}
        self.loads = [
            replace(
                miner(f"{bank}-{k:03d}", "pdu", float(str(BANKS[bank]["watts"]))),
                address=f"127.{subnet}.{BANKS[bank]['number']}.{k}",
            )
            for k in (1, 2)
        ]
        self.deadline_s = 1.5 + 12.0 * latency_s
        self.ramp_s = 12.0 + 10.0 * latency_s
        self.facility: Facility | None = None
        self.received: Any = None

    def new_driver(self) -> AsicDriver:
        return AsicDriver(DriverContext(options={self.bank: self.options}, secret=lambda name: None, clock=self.clock))

    def device(self, load: Load) -> Any:
        assert self.facility is not None
        return self.facility.plant.loads[load.id]

    def truth(self, load: Load) -> Truth:
        device = self.device(load)
        return Truth(watts=device.watts, setting=(device._wanted_on, device.share, device.limit_w, device.boots))

    def requests(self, load: Load) -> int:
        return int(self.received[load.id])

    def knows(self, fault: Fault) -> bool:
        return fault in FAULTS

    async def fail(self, load: Load, fault: Fault | None) -> None:
        assert self.facility is not None
        self.facility.set_fault(load.id, named(FAULTS, fault))

    def lowering(self, load: Load) -> Command:
        return command(load, Verb.SLEEP, at=self.clock.now(), seq=1)

    def raising(self, load: Load) -> Command:
        return command(load, Verb.WAKE, at=self.clock.now(), seq=2)

    def shows(self, telemetry: Telemetry, command: Command) -> bool:
        return telemetry.state is (LoadState.ASLEEP if command.verb is Verb.SLEEP else LoadState.ACTIVE)

    def happened(self, load: Load, command: Command) -> bool:
        return bool(self.device(load).state == ("asleep" if command.verb is Verb.SLEEP else "hashing"))


VARIANTS = [
    pytest.param((bank, latency_s), id=f"{BANKS[bank]['class']}-{latency_s * 1000:.0f}ms")
    for bank in BANKS
    for latency_s in (0.0, 0.1)
]


@pytest.fixture(scope="class", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> tuple[str, float]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="class")
def subnet() -> int:
    return find_subnet()


@pytest_asyncio.fixture(loop_scope="class", scope="class")
async def open_driver(variant: tuple[str, float], subnet: int, class_clock: Clock) -> AsyncIterator[AsicDriver]:
    driver = AsicHarness(variant[0], subnet, variant[1], class_clock).new_driver()
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
        variant: tuple[str, float],
        subnet: int,
        class_clock: Clock,
        count_requests: Callable[[Facility], Any],
    ) -> AsyncIterator[AsicHarness]:
        bank, latency_s = variant
        harness = AsicHarness(bank, subnet, latency_s, class_clock)
        async with simulated_facility(scenario(bank), subnet, servers=(), device_latency_s=latency_s) as facility:
            harness.facility = facility
            harness.received = count_requests(facility).received
            yield harness

    @pytest_asyncio.fixture(loop_scope="class")
    async def driver(self, open_driver: AsicDriver, harness: AsicHarness) -> Driver:
        return open_driver


class TestAsicCredentials:
    """A password is given, or the vendor's is acknowledged by silence; never guessed."""

    @pytest.fixture
    async def harness(
        self, subnet: int, class_clock: Clock, count_requests: Callable[[Facility], Any]
    ) -> AsyncIterator[AsicHarness]:
        harness = AsicHarness("wm", subnet, 0.0, class_clock)
        async with simulated_facility(scenario("wm"), subnet, servers=()) as facility:
            harness.facility = facility
            harness.received = count_requests(facility).received
            yield harness

    @pytest.mark.parametrize("options", [{"refuse_default_password": True}, {"credential": "nobody-gave-it"}])
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
