"""What every meter and every switch must do, as tests; see `mullet.testing.contract` for how they are inherited."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from mullet.domain.telemetry import MeterReading, Quality
from mullet.ports import Clock, Meter, MeterError, Switch, SwitchError
from mullet.testing.contract import GRACE_S, Fault
from mullet.testing.leaks import no_leaks


class MeterHarness(ABC):
    """One simulated plant with at least two meters."""

    meter_ids: Sequence[str]
    clock: Clock
    deadline_s: float = 1.0
    accuracy: float = 0.02

    @abstractmethod
    def new_meter(self) -> Meter:
        """Return a meter driver that is not open yet."""

    @abstractmethod
    def watts(self, meter_id: str) -> float:
        """Return the true watts at a meter."""

    @abstractmethod
    async def fail(self, meter_id: str, fault: Fault | str | None) -> None:
        """Begin a fault, or end it: HANG one meter, GARBAGE or GONE the way to all, "nan" one reading."""


class SwitchHarness(ABC):
    """One simulated plant with at least two contactors, closed at the start."""

    switch_ids: Sequence[str]
    clock: Clock
    deadline_s: float = 2.0

    @abstractmethod
    def new_switch(self) -> Switch:
        """Return a switch driver that is not open yet."""

    @abstractmethod
    def closed(self, switch_id: str) -> bool:
        """Return whether the contact is truly closed."""

    @abstractmethod
    async def fail(self, switch_id: str, fault: Fault | str | None) -> None:
        """Begin a fault, or end it: HANG one, GONE the way to all, IGNORE for a contact that is welded."""


class MeterContract:
    """Inherit this as `class TestMine(MeterContract)` and provide the async fixture `harness`."""

    async def test_a_reading_is_true_fresh_and_alive(self, harness: MeterHarness) -> None:
        async with opened_meter(harness) as meter:
            for meter_id in harness.meter_ids:
                before = harness.clock.now()
                reading = await meter.read(meter_id, harness.deadline_s)
                assert before <= reading.at <= harness.clock.now()
                assert reading.meter_id == meter_id
                assert reading.quality is Quality.GOOD
                assert reading.watts == pytest.approx(harness.watts(meter_id), rel=harness.accuracy, abs=2.0)
            first = await meter.read(harness.meter_ids[0], harness.deadline_s)
            await harness.clock.sleep(1.3)
            second = await meter.read(harness.meter_ids[0], harness.deadline_s)
            if first.heartbeat is not None:
                assert second.heartbeat is not None
                assert second.heartbeat > first.heartbeat

    async def test_no_number_is_no_reading(self, harness: MeterHarness) -> None:
        async with opened_meter(harness) as meter:
            await harness.fail(harness.meter_ids[0], "nan")
            reading = await meter.read(harness.meter_ids[0], harness.deadline_s)
            assert reading.quality is Quality.BAD
            assert reading.watts is None
            assert reading.detail

    async def test_a_meter_that_hangs_costs_its_deadline_and_no_other_meter(self, harness: MeterHarness) -> None:
        hung, other = harness.meter_ids[0], harness.meter_ids[1]
        async with opened_meter(harness) as meter:
            await meter.read(other, harness.deadline_s)
            await harness.fail(hung, Fault.HANG)

            async def ask_hung() -> None:
                started = harness.clock.monotonic()
                with pytest.raises(MeterError):
                    await meter.read(hung, harness.deadline_s)
                assert harness.clock.monotonic() - started <= harness.deadline_s + GRACE_S

            async def ask_other() -> None:
                reading = await meter.read(other, harness.deadline_s)
                assert reading.quality is Quality.GOOD

            await asyncio.gather(ask_hung(), ask_other())
            await harness.fail(hung, None)
            assert (await meter.read(hung, harness.deadline_s)).quality is Quality.GOOD

    @pytest.mark.parametrize("fault", [Fault.GARBAGE, Fault.GONE])
    async def test_a_lost_way_is_told_and_found_again(self, harness: MeterHarness, fault: Fault) -> None:
        meter_id = harness.meter_ids[0]
        async with opened_meter(harness) as meter:
            await meter.read(meter_id, harness.deadline_s)
            await harness.fail(meter_id, fault)
            for _ in range(2):
                started = harness.clock.monotonic()
                with pytest.raises(MeterError):
                    await meter.read(meter_id, harness.deadline_s)
                assert harness.clock.monotonic() - started <= harness.deadline_s + GRACE_S
            await harness.fail(meter_id, None)
            assert (await meter.read(meter_id, harness.deadline_s)).quality is Quality.GOOD

    async def test_many_readings_at_once_are_not_mixed_up(self, harness: MeterHarness) -> None:
        async with opened_meter(harness) as meter:
            wanted = [meter_id for _ in range(4) for meter_id in harness.meter_ids]
            readings = await asyncio.gather(*(meter.read(name, 5.0 * harness.deadline_s) for name in wanted))
            assert [reading.meter_id for reading in readings] == wanted
            for reading in readings:
                assert reading.watts == pytest.approx(harness.watts(reading.meter_id), rel=0.05, abs=5.0)

    async def test_an_unknown_meter_is_told(self, harness: MeterHarness) -> None:
        async with opened_meter(harness) as meter:
            with pytest.raises(MeterError):
                await meter.read("no-such-meter", harness.deadline_s)

    async def test_nothing_is_left_open_and_opening_may_be_repeated(self, harness: MeterHarness) -> None:
        async with no_leaks():
            meter = harness.new_meter()
            for _ in range(2):
                await meter.open()
                await meter.read(harness.meter_ids[0], harness.deadline_s)
                await meter.close()
                await meter.close()

    async def test_a_cancelled_reading_leaks_nothing_and_the_next_one_works(self, harness: MeterHarness) -> None:
        async with no_leaks(), opened_meter(harness) as meter:
            for wait_s in (0.0, 0.001, 0.01, 0.05):
                task = asyncio.ensure_future(meter.read(harness.meter_ids[0], harness.deadline_s))
                await asyncio.sleep(wait_s)
                task.cancel()
                outcome = (await asyncio.gather(task, return_exceptions=True))[0]
                assert isinstance(outcome, asyncio.CancelledError | MeterReading)
            assert (await meter.read(harness.meter_ids[0], harness.deadline_s)).quality is Quality.GOOD


class SwitchContract:
    """Inherit this as `class TestMine(SwitchContract)` and provide the async fixture `harness`."""

    async def test_a_contact_follows_its_command_and_no_other_moves(self, harness: SwitchHarness) -> None:
        one, two = harness.switch_ids[0], harness.switch_ids[1]
        async with opened_switch(harness) as switch:
            assert await switch.closed(one, harness.deadline_s) is True
            for wanted in (False, True):
                await switch.set_closed(one, wanted, harness.deadline_s)
                assert harness.closed(one) is wanted, "set_closed returned before the contact agreed"
                assert await switch.closed(one, harness.deadline_s) is wanted
                assert harness.closed(two) is True

    async def test_a_welded_contact_is_told(self, harness: SwitchHarness) -> None:
        one = harness.switch_ids[0]
        async with opened_switch(harness) as switch:
            await harness.fail(one, Fault.IGNORE)
            started = harness.clock.monotonic()
            with pytest.raises(SwitchError):
                await switch.set_closed(one, False, harness.deadline_s)
            assert harness.clock.monotonic() - started <= harness.deadline_s + GRACE_S
            assert await switch.closed(one, harness.deadline_s) is True

    async def test_a_switch_that_hangs_costs_its_deadline_and_no_other(self, harness: SwitchHarness) -> None:
        hung, other = harness.switch_ids[0], harness.switch_ids[1]
        async with opened_switch(harness) as switch:
            await harness.fail(hung, Fault.HANG)

            async def ask_hung() -> None:
                started = harness.clock.monotonic()
                with pytest.raises(SwitchError):
                    await switch.set_closed(hung, False, harness.deadline_s)
                assert harness.clock.monotonic() - started <= harness.deadline_s + GRACE_S

            async def ask_other() -> None:
                assert await switch.closed(other, harness.deadline_s) is True

            await asyncio.gather(ask_hung(), ask_other())

    async def test_a_lost_way_is_told_and_found_again(self, harness: SwitchHarness) -> None:
        one = harness.switch_ids[0]
        async with opened_switch(harness) as switch:
            await harness.fail(one, Fault.GONE)
            with pytest.raises(SwitchError):
                await switch.closed(one, harness.deadline_s)
            with pytest.raises(SwitchError):
                await switch.set_closed(one, False, harness.deadline_s)
            await harness.fail(one, None)
            # Whether the lost command arrived is unknown to the driver; what it tells afterwards is the truth.
            await harness.clock.sleep(0.5)
            assert await switch.closed(one, harness.deadline_s) is harness.closed(one)

    async def test_closing_the_driver_moves_no_contact_and_leaves_nothing(self, harness: SwitchHarness) -> None:
        one = harness.switch_ids[0]
        async with no_leaks():
            switch = harness.new_switch()
            for _ in range(2):
                await switch.open()
                await switch.set_closed(one, False, harness.deadline_s)
                await switch.close()
                await switch.close()
        assert harness.closed(one) is False
        assert harness.closed(harness.switch_ids[1]) is True

    async def test_an_unknown_switch_is_told(self, harness: SwitchHarness) -> None:
        async with opened_switch(harness) as switch:
            with pytest.raises(SwitchError):
                await switch.closed("no-such-switch", harness.deadline_s)


@asynccontextmanager
async def opened_meter(harness: MeterHarness) -> AsyncIterator[Meter]:
    """Open a meter driver; it is closed when the block ends."""
    meter = harness.new_meter()
    await meter.open()
    try:
        yield meter
    finally:
        await meter.close()


@asynccontextmanager
async def opened_switch(harness: SwitchHarness) -> AsyncIterator[Switch]:
    """Open a switch driver; it is closed when the block ends."""
    switch = harness.new_switch()
    await switch.open()
    try:
        yield switch
    finally:
        await switch.close()
