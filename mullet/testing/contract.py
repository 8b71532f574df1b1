"""What every driver must do, as tests: inherit `DriverContract` and provide the fixture `harness`.

A harness stands between the tests and a simulated plant: it builds drivers, tells the truth behind their backs
and makes devices fail. Faults are named here once; a harness maps those its devices know.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar, cast

import pytest

from mullet.domain.command import Command, Verb
from mullet.domain.load import Load
from mullet.domain.telemetry import LoadState, Telemetry
from mullet.ports import (
    Clock,
    CredentialsRejected,
    DeviceError,
    DeviceGarbled,
    DeviceRefused,
    DeviceUnreachable,
    Driver,
    IdentityMismatch,
    NoPermission,
)
from mullet.testing.leaks import no_leaks

GRACE_S = 0.5
"""A call may overrun its deadline by this much."""


class Fault(StrEnum):
    """Ways in which a device fails."""

    IGNORE = "ignore"
    REFUSE = "refuse"
    HANG = "hang"
    GARBAGE = "garbage"
    WRONG_SHAPE = "wrong_shape"
    TRUNCATED = "truncated"
    GONE = "gone"
    FORBIDDEN = "forbidden"
    WRONG_PASSWORD = "wrong_password"
    BLACK_HOLE = "black_hole"
    """Not even a connection is answered."""
    SLOW = "slow"
    """Every answer takes seconds."""
    REBOOT = "reboot"
    """It reboots by itself: sessions are lost, and it comes back at full."""
    BLIP = "blip"
    """Its supply fails for a moment, and it comes back at full."""
    MISREPORT = "misreport"
    """Commands change what it reports, not what it draws."""
    FROZEN = "frozen"
    """It reports the same for ever, while commands act."""
    WATTS_WRONG = "watts_wrong"
    """It reports watts that are not what it draws."""
    POOLS_LOST = "pools_lost"
    """Its pool list is empty all of a sudden."""
    CLOCK_WRONG = "clock_wrong"
    UNREADABLE_CONFIG = "unreadable_config"
    """Its configuration cannot be read."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What is physically so, whatever the device says."""

    watts: float
    setting: Any
    """What a command changes: an enforced limit, a mode. Equal before and after means that nothing was changed."""


class DriverHarness(ABC):
    """One simulated plant with at least two loads of one kind."""

    loads: Sequence[Load]
    clock: Clock
    deadline_s: float = 2.0
    """Enough for one call at this device's latency."""
    ramp_s: float = 5.0
    """Within this a command shows in readings."""
    commandable: bool = True
    """False where the device can only be watched."""
    watts_error: float = 0.1
    """How far a truthful reading may be from the truth, as a fraction: readings are means, truth is an instant."""

    @abstractmethod
    def new_driver(self) -> Driver:
        """Return a driver that is not open yet."""

    @abstractmethod
    def truth(self, load: Load) -> Truth:
        """Return the truth about a load."""

    @abstractmethod
    def requests(self, load: Load) -> int:
        """Return how many writes the device has received."""

    @abstractmethod
    def knows(self, fault: Fault) -> bool:
        """Return whether the load's device can fail like this."""

    @abstractmethod
    async def fail(self, load: Load, fault: Fault | None) -> None:
        """Begin a fault, or end it."""

    @abstractmethod
    def lowering(self, load: Load) -> Command:
        """Return a command to a much lower draw."""

    @abstractmethod
    def raising(self, load: Load) -> Command:
        """Return the command that takes `lowering` back."""

    @abstractmethod
    def shows(self, telemetry: Telemetry, command: Command) -> bool:
        """Return whether the reading shows that the command took effect."""

    @abstractmethod
    def happened(self, load: Load, command: Command) -> bool:
        """Return whether the command truly took effect."""


def unready(harness: DriverHarness, fault: Fault) -> None:
    """Skip the test where this kind of device cannot fail like that."""
    if not harness.knows(fault):
        pytest.skip(f"this kind of device has no fault {fault.value!r}")


def need_commands(harness: DriverHarness) -> None:
    """Skip the test where nothing can be asked of this kind of device."""
    if not harness.commandable:
        pytest.skip("this kind of device is only watched")


def need_watching(harness: DriverHarness) -> None:
    """Skip the test where this kind of device takes orders."""
    if harness.commandable:
        pytest.skip("this kind of device takes orders")


async def command_a_failing(
    harness: DriverHarness, driver: Driver, load: Load, expected: Any = DeviceError, deadline_s: float | None = None
) -> None:
    """Send an order to a device that fails in some way, within its deadline; one that is only watched refuses any."""
    deadline_s = harness.deadline_s if deadline_s is None else deadline_s
    started = harness.clock.monotonic()
    with pytest.raises(expected if harness.commandable else DeviceRefused):
        await driver.apply(load, harness.lowering(load), deadline_s)
    assert harness.clock.monotonic() - started <= deadline_s + GRACE_S


class DriverContract:
    """Inherit this as `class TestMine(DriverContract)` and provide the async fixture `harness`."""

    tells_none: ClassVar[tuple[str, ...]] = ()
    """Fields of Telemetry that this kind of device never tells."""

    @pytest.fixture
    async def driver(self, harness: DriverHarness) -> AsyncIterator[Driver]:
        """An open driver, closed after the test."""
        async with opened(harness) as driver:
            yield driver

    async def test_identity_is_stable_and_asking_writes_nothing(self, harness: DriverHarness, driver: Driver) -> None:
        before = [(harness.truth(load).setting, harness.requests(load)) for load in harness.loads]
        first = [await driver.identify(load, harness.deadline_s) for load in harness.loads]
        again = [await driver.identify(load, harness.deadline_s) for load in harness.loads]
        assert first == again
        assert len({identity.identity for identity in first}) == len(first)
        assert all(identity.make and identity.model for identity in first)
        assert [(harness.truth(load).setting, harness.requests(load)) for load in harness.loads] == before

    async def test_a_reading_is_fresh_and_says_only_what_is_known(self, harness: DriverHarness, driver: Driver) -> None:
        for load in harness.loads:
            before = harness.clock.now()
            telemetry = await driver.read(load, harness.deadline_s)
            assert before <= telemetry.at <= harness.clock.now()
            assert telemetry.load_id == load.id
            assert telemetry.fault is None
            assert isinstance(telemetry.state, LoadState)
            for name in ("watts", "limit_watts", "th_per_s", "tokens_per_s", "celsius"):
                value = getattr(telemetry, name)
                assert value is None or (math.isfinite(value) and value >= 0.0), name
                if name in self.tells_none:
                    assert value is None, f"{name} cannot be known"
            identity = await driver.identify(load, harness.deadline_s)
            assert telemetry.identity in (None, identity.identity)
            make = (await driver.read(load, harness.deadline_s)).make
            assert make is None or identity.model.split("(")[0].strip() in make, "it tells another model"

    async def test_measured_watts_are_true(self, harness: DriverHarness, driver: Driver) -> None:
        load = harness.loads[0]
        if not driver.capability(load).measures_watts:
            telemetry = await driver.read(load, harness.deadline_s)
            assert telemetry.watts is None or telemetry.watts >= 0.0
            return

        async def agrees() -> bool:
            watts = (await driver.read(load, harness.deadline_s)).watts
            assert watts is not None
            true = harness.truth(load).watts
            return abs(watts - true) <= max(5.0, harness.watts_error * true)

        await eventually(harness, agrees, "the reading agrees with the truth")

    async def test_a_command_shows_within_the_ramp_time_and_back(self, harness: DriverHarness, driver: Driver) -> None:
        need_commands(harness)
        load = harness.loads[0]
        for command in (harness.lowering(load), harness.raising(load)):
            receipt = await driver.apply(load, command, harness.deadline_s)
            assert (receipt.command_id, receipt.load_id) == (command.id, load.id)
            assert receipt.acked is not False

            async def shown(command: Command = command) -> bool:
                return harness.shows(await driver.read(load, harness.deadline_s), command)

            await eventually(harness, shown, f"{command.verb.value} {command.watts:g} W is read back")

            async def true(command: Command = command) -> bool:
                return harness.happened(load, command)

            await eventually(harness, true, f"{command.verb.value} {command.watts:g} W is so")

    async def test_a_command_moves_its_own_load_alone(self, harness: DriverHarness, driver: Driver) -> None:
        need_commands(harness)
        load, *others = harness.loads
        before = [(harness.truth(other).setting, harness.requests(other)) for other in others]
        await driver.apply(load, harness.lowering(load), harness.deadline_s)
        assert [(harness.truth(other).setting, harness.requests(other)) for other in others] == before

    async def test_an_acknowledgement_without_effect_is_seen_through(
        self, harness: DriverHarness, driver: Driver
    ) -> None:
        need_commands(harness)
        unready(harness, Fault.IGNORE)
        load, command = harness.loads[0], harness.lowering(harness.loads[0])
        await harness.fail(load, Fault.IGNORE)
        receipt = await driver.apply(load, command, harness.deadline_s)
        assert harness.requests(load) > 0
        assert receipt.acked is not None
        await harness.clock.sleep(min(1.0, harness.ramp_s))
        assert not harness.shows(await driver.read(load, harness.deadline_s), command)

    async def test_a_refusal_is_told(self, harness: DriverHarness, driver: Driver) -> None:
        need_commands(harness)
        unready(harness, Fault.REFUSE)
        load, command = harness.loads[0], harness.lowering(harness.loads[0])
        await harness.fail(load, Fault.REFUSE)
        try:
            receipt = await driver.apply(load, command, harness.deadline_s)
        except DeviceRefused:
            return
        assert receipt.acked is False

    async def test_lack_of_permission_is_told_and_reading_goes_on(self, harness: DriverHarness, driver: Driver) -> None:
        need_commands(harness)
        unready(harness, Fault.FORBIDDEN)
        load = harness.loads[0]
        before = harness.truth(load).setting
        await harness.fail(load, Fault.FORBIDDEN)
        with pytest.raises(NoPermission):
            await driver.apply(load, harness.lowering(load), harness.deadline_s)
        assert (await driver.read(load, harness.deadline_s)).fault is None
        assert harness.truth(load).setting == before

    async def test_a_device_that_hangs_costs_its_deadline_and_no_other_load(
        self, harness: DriverHarness, driver: Driver
    ) -> None:
        unready(harness, Fault.HANG)
        hung, other = harness.loads[0], harness.loads[1]
        for load in (hung, other):
            await driver.read(load, harness.deadline_s)
        await harness.fail(hung, Fault.HANG)

        async def ask_hung() -> None:
            for deadline_s in (harness.deadline_s, min(0.5, harness.deadline_s)):
                started = harness.clock.monotonic()
                with pytest.raises(DeviceUnreachable):
                    await driver.read(hung, deadline_s)
                assert harness.clock.monotonic() - started <= deadline_s + GRACE_S

        async def ask_other() -> None:
            for _ in range(3):
                assert (await driver.read(other, harness.deadline_s)).fault is None

        # Both at once: they wait for the same deadline.
        await asyncio.gather(ask_hung(), ask_other(), command_a_failing(harness, driver, hung))

    async def test_a_device_that_hung_is_reached_again(self, harness: DriverHarness, driver: Driver) -> None:
        unready(harness, Fault.HANG)
        load = harness.loads[0]
        await harness.fail(load, Fault.HANG)
        with pytest.raises(DeviceUnreachable):
            await driver.read(load, 0.3)
        await harness.fail(load, None)

        async def answers() -> bool:
            try:
                await driver.read(load, harness.deadline_s)
            except DeviceError:
                return False
            return True

        await eventually(harness, answers, "the load is read again", within_s=20.0)

    @pytest.mark.parametrize("fault", [Fault.GARBAGE, Fault.WRONG_SHAPE])
    async def test_an_answer_of_another_protocol_is_told(
        self, harness: DriverHarness, driver: Driver, fault: Fault
    ) -> None:
        unready(harness, fault)
        load = harness.loads[0]
        await harness.fail(load, fault)
        with pytest.raises(DeviceGarbled):
            await driver.read(load, harness.deadline_s)
        await command_a_failing(harness, driver, load)

    @pytest.mark.parametrize("fault", [Fault.TRUNCATED, Fault.GONE])
    async def test_half_an_answer_and_none_are_device_errors(
        self, harness: DriverHarness, driver: Driver, fault: Fault
    ) -> None:
        unready(harness, fault)
        load, other = harness.loads[0], harness.loads[1]
        await harness.fail(load, fault)
        expected = DeviceUnreachable if fault is Fault.GONE else (DeviceGarbled, DeviceUnreachable)
        for attempt in (driver.read(load, harness.deadline_s), driver.identify(load, harness.deadline_s)):
            started = harness.clock.monotonic()
            with pytest.raises(expected):
                await attempt
            assert harness.clock.monotonic() - started <= harness.deadline_s + GRACE_S
        await command_a_failing(harness, driver, load, expected)
        assert (await driver.read(other, harness.deadline_s)).fault is None

    async def test_a_wrong_password_is_told(self, harness: DriverHarness, driver: Driver) -> None:
        unready(harness, Fault.WRONG_PASSWORD)
        load = harness.loads[0]
        before = harness.truth(load).setting
        await harness.fail(load, Fault.WRONG_PASSWORD)
        order = driver.apply(load, harness.lowering(load), harness.deadline_s) if harness.commandable else None
        with pytest.raises(CredentialsRejected):
            await (order or driver.identify(load, harness.deadline_s))
        assert harness.truth(load).setting == before

    async def test_a_device_that_is_only_watched_refuses_every_order(
        self, harness: DriverHarness, driver: Driver
    ) -> None:
        need_watching(harness)
        load = harness.loads[0]
        before = (harness.truth(load).setting, harness.requests(load))
        for order in (harness.lowering(load), harness.raising(load), replace(harness.lowering(load), verb=Verb.POWER)):
            with pytest.raises(DeviceError):
                await driver.apply(load, order, harness.deadline_s)
        assert (harness.truth(load).setting, harness.requests(load)) == before
        assert (await driver.read(load, harness.deadline_s)).fault is None

    async def test_watching_yields_every_load_and_reports_faults(self, harness: DriverHarness, driver: Driver) -> None:
        period_s = max(0.5, harness.deadline_s / 2.0)
        sick = harness.loads[0] if harness.knows(Fault.HANG) else None
        watched = aclosing(cast(Any, driver.watch(harness.loads, period_s)))
        async with watched as readings:
            started = harness.clock.monotonic()
            seen: dict[str, Telemetry] = {}
            async for telemetry in readings:
                seen[telemetry.load_id] = telemetry
                if len(seen) == len(harness.loads):
                    break
            assert harness.clock.monotonic() - started <= 2.0 * period_s + GRACE_S
            assert all(telemetry.fault is None for telemetry in seen.values())
            if sick is None:
                return
            await harness.fail(sick, Fault.HANG)
            well: dict[str, int] = {}
            async with asyncio.timeout(6.0 * period_s + harness.deadline_s + 2.0):
                async for telemetry in readings:
                    if telemetry.load_id == sick.id and telemetry.fault is not None:
                        assert telemetry.watts is None
                        assert telemetry.state is None
                        break
                    well[telemetry.load_id] = well.get(telemetry.load_id, 0) + 1
            assert all(well.get(load.id, 0) >= 1 for load in harness.loads[1:]), "healthy loads stalled"

    async def test_only_the_verbs_of_the_list_can_be_asked(self, harness: DriverHarness, driver: Driver) -> None:
        need_commands(harness)
        load = harness.loads[0]
        before = (harness.truth(load).setting, harness.requests(load))
        with pytest.raises(ValueError):
            Verb("reboot")
        forged = replace(harness.lowering(load), verb=cast(Verb, "reboot"))
        with pytest.raises(DeviceError):
            await driver.apply(load, forged, harness.deadline_s)
        assert (harness.truth(load).setting, harness.requests(load)) == before

    @pytest.mark.parametrize("watts", [-1e4, 1e9, math.nan, math.inf])
    async def test_a_command_never_leaves_the_range_of_the_load(
        self, harness: DriverHarness, driver: Driver, watts: float
    ) -> None:
        need_commands(harness)
        load = harness.loads[0]
        odd = replace(harness.lowering(load), verb=Verb.POWER, point="", watts=watts)
        try:
            await driver.apply(load, odd, harness.deadline_s)
        except DeviceError:
            return
        await harness.clock.sleep(0.5)
        telemetry = await driver.read(load, harness.deadline_s)
        if telemetry.limit_watts is not None:
            assert 0.0 <= telemetry.limit_watts <= load.worst_watts
        assert harness.truth(load).watts <= load.worst_watts * 1.02

    async def test_another_device_at_the_address_is_never_written_to(
        self, harness: DriverHarness, driver: Driver
    ) -> None:
        load = replace(harness.loads[0], identity="02:00:00:00:00:99")
        before = harness.requests(load)
        order = driver.apply(load, harness.lowering(load), harness.deadline_s) if harness.commandable else None
        with pytest.raises(IdentityMismatch):
            await (order or driver.read(load, harness.deadline_s))
        assert harness.requests(load) == before

    async def test_closing_changes_no_device_and_leaves_nothing_open(self, harness: DriverHarness) -> None:
        async with no_leaks():
            async with opened(harness) as driver:
                for load in harness.loads:
                    await driver.read(load, harness.deadline_s)
                if harness.commandable:
                    await driver.apply(harness.loads[0], harness.lowering(harness.loads[0]), harness.deadline_s)
                    await harness.clock.sleep(0.5)
                before = [(harness.truth(load).setting, harness.requests(load)) for load in harness.loads]
            assert [(harness.truth(load).setting, harness.requests(load)) for load in harness.loads] == before

    async def test_open_and_close_may_be_repeated(self, harness: DriverHarness) -> None:
        async with no_leaks():
            driver = harness.new_driver()
            for _ in range(2):
                await driver.open(harness.loads)
                assert (await driver.read(harness.loads[0], harness.deadline_s)).fault is None
                await driver.close()
                await driver.close()

    async def test_opening_towards_dead_devices_changes_and_leaves_nothing(self, harness: DriverHarness) -> None:
        unready(harness, Fault.GONE)
        for load in harness.loads:
            await harness.fail(load, Fault.GONE)
        async with no_leaks(), opened(harness) as driver:
            with pytest.raises(DeviceUnreachable):
                await driver.read(harness.loads[0], harness.deadline_s)

    async def test_a_cancelled_call_leaks_nothing_and_the_next_one_works(self, harness: DriverHarness) -> None:
        load = harness.loads[0]
        async with no_leaks(), opened(harness) as driver:
            await driver.read(load, harness.deadline_s)
            for wait_s in (0.0, 0.001, 0.01, 0.05):
                task = asyncio.ensure_future(driver.read(load, harness.deadline_s))
                await asyncio.sleep(wait_s)
                task.cancel()
                outcome = (await asyncio.gather(task, return_exceptions=True))[0]
                assert isinstance(outcome, asyncio.CancelledError | Telemetry)
            assert (await driver.read(load, 2.0 * harness.deadline_s)).fault is None


@asynccontextmanager
async def opened(harness: DriverHarness) -> AsyncIterator[Driver]:
    """Open a driver for the loads of `harness`; it is closed when the block ends."""
    driver = harness.new_driver()
    await driver.open(harness.loads)
    try:
        yield driver
    finally:
        await driver.close()


async def eventually(harness: DriverHarness, holds: Any, what: str, within_s: float | None = None) -> None:
    """Return once `await holds()` is true, failing with `what` after the ramp time."""
    limit_s = harness.ramp_s if within_s is None else within_s
    ends_at = harness.clock.monotonic() + limit_s
    while not await holds():
        if harness.clock.monotonic() > ends_at:
            pytest.fail(f"not within {limit_s:g} s: {what}")
        await harness.clock.sleep(0.05)


def named(faults: Mapping[Fault, str], fault: Fault | None) -> str:
    """Return a simulator's own name of a fault; "ok" ends one."""
    return "ok" if fault is None else faults[fault]
