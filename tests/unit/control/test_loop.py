"""The whole loop over fakes in virtual time: what waits, what is journalled first, what survives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from control_kit import FakeDriver, FakeJournal, FakeMeter, FakePlanner, Story, entry_of, ledger_of

from mullet.control import loop
from mullet.control.decide import decide
from mullet.control.loop import FIRST_READING_S, Controller
from mullet.control.parts import Parts, Plant
from mullet.domain.command import CommandLedger, Verb
from mullet.domain.facility import Economics, Facility, Mode, Pacing
from mullet.domain.snapshot import OperatorState
from mullet.ports import HistorianError, JournalError
from mullet.testing.builders import command, facility
from mullet.testing.virtual_time import VirtualClock, in_virtual_time

QUICK = Pacing(min_on_s=0.0, min_off_s=0.0, command_gap_s=0.0, economic_ramp_per_s=1.0, block_fraction=1.0)
DEAR, CHEAP = 100.0, 20.0


def site(price: float = DEAR, miners: int = 4, policy: str = "0", **fields: Any) -> Facility:
    """Return a plant whose mining pays below 69 per MWh."""
    market = Economics(hashprice_per_ph_day=50.0, fallback_price_per_mwh=price)
    return facility(miners=miners, economics=market, pacing=QUICK, policy_hash=policy * 64, **fields)


class House:
    """A controller and everything fake around it."""

    def __init__(self, plant: Facility | None = None, ceiling: Mode = Mode.AUTO, historian: Any = None) -> None:
        self.clock = VirtualClock()
        self.story: Story = []
        self.driver = FakeDriver(self.clock, story=self.story)
        self.journal = FakeJournal(self.story)
        self.planner = FakePlanner(self.clock)
        self.meter = FakeMeter(self.clock, lambda: self.controller.facility, self.driver)
        self.saved: list[OperatorState] = []
        self.beats: list[float] = []
        self.ended: list[str] = []
        self.ceiling, self.historian, self.ledger = ceiling, historian, CommandLedger()
        self.first = self.plant(plant or site())

    def plant(self, what: Facility) -> Plant:
        async def close() -> None:
            self.ended.append(what.policy_hash[0])

        return Plant(
            facility=what,
            drivers={"asic": self.driver, "gpu": self.driver},
            periods_s=dict.fromkeys(what.banks, 1.0),
            meters={node.meter: self.meter for node in what.circuits if node.meter is not None},
            close=close,
        )

    def parts(self) -> Parts:
        return Parts(
            plant=self.first,
            clock=self.clock,
            planner=self.planner,
            journal=self.journal,
            historian=self.historian,
            link=None,
            operator=OperatorState(),
            save_operator=self.saved.append,
            ceiling=self.ceiling,
            beat=lambda _: self.beats.append(self.clock.now()),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Controller]:
        """Run the controller until the block ends, then stop it as the daemon does."""
        self.controller = Controller(self.parts(), self.ledger)
        stop = asyncio.Event()
        task = asyncio.create_task(self.controller.run(stop))
        try:
            await asyncio.sleep(0)
            yield self.controller
        finally:
            stop.set()
            await task

    async def until(self, true: Callable[[], object], within_s: float = 30.0) -> None:
        """Wait for a condition."""
        last = self.clock.monotonic() + within_s
        while not true():
            assert self.clock.monotonic() < last, "it did not come about"
            await self.clock.sleep(0.1)

    def asleep(self) -> list[str]:
        return sorted(name for name, point in self.driver.points.items() if point == "off")


@in_virtual_time
async def test_dear_power_puts_mining_to_sleep_and_every_tick_beats() -> None:
    house = House()
    async with house.running() as controller:
        await house.until(lambda: len(house.asleep()) == 4)
        await house.until(lambda: controller.status()["pending"] == 0)
        await house.clock.sleep(5.0)
        assert controller.ready
        assert len(house.beats) == controller.ticks >= 6
        assert controller.status()["mode"] == "auto"
    assert max(controller.jitter_s) < 0.01


@in_virtual_time
async def test_nothing_is_sent_or_planned_before_every_load_was_read() -> None:
    house = House()
    house.driver.mute = True
    async with house.running() as controller:
        await house.clock.sleep(FIRST_READING_S - 1.0)
        assert not controller.ready
        assert controller.ticks > 0
        assert (house.driver.applied, house.planner.asked) == ([], [])
        assert controller.alarms == {}
        house.driver.mute = False
        await house.until(lambda: house.driver.applied)


@in_virtual_time
async def test_a_load_that_is_never_read_does_not_keep_control_from_beginning() -> None:
    house = House()
    house.driver.mute = True
    async with house.running() as controller:
        await house.clock.sleep(FIRST_READING_S + 2.5)
        assert controller.ready
        assert house.driver.applied == []


@in_virtual_time
async def test_every_command_is_on_disk_before_it_is_sent_and_every_answer_afterwards() -> None:
    house = House()
    async with house.running():
        await house.until(lambda: len(house.asleep()) == 4)
        await house.clock.sleep(3.0)
    sent = [name for kind, name in house.story if kind == "apply"]
    assert len(sent) >= 4
    for name in sent:
        assert house.story.index(("journal", name)) < house.story.index(("apply", name))
    assert {body["command_id"] for body in house.journal.of("receipt")} == set(sent)
    kinds = house.journal.kinds()
    assert (kinds[:2], kinds[-1]) == (["start", "facility"], "stop")


@in_virtual_time
async def test_while_the_journal_writes_nothing_has_left() -> None:
    house = House()
    async with house.running() as controller:
        await house.until(lambda: controller.ticks >= 1)
        house.journal.held = asyncio.Event()
        await house.clock.sleep(5.0)
        assert house.driver.story == []
        house.journal.held.set()
        await house.until(lambda: house.driver.applied)


@in_virtual_time
async def test_what_cannot_be_recorded_only_goes_down_and_is_recorded_once_it_can_be() -> None:
    house = House(site(CHEAP))
    house.driver.points = {"miners-001": "off"}
    async with house.running() as controller:
        await house.until(lambda: controller.ticks >= 1)
        house.journal.failing = True
        await house.until(lambda: len(house.asleep()) == 4)
        assert {order.verb for order in house.driver.applied if order.load_id.startswith("miners")} == {Verb.SLEEP}
        assert "journal" in controller.alarms
        house.journal.failing = False
        await house.until(lambda: "journal" not in controller.alarms)
        recorded = {item["id"] for body in house.journal.of("decision") for item in body["decreases"]}
        assert {order.id for order in house.driver.applied if order.verb is Verb.SLEEP} <= recorded


@in_virtual_time
async def test_a_start_on_a_full_disk_takes_mining_down_and_is_recorded_once_it_can_be() -> None:
    house = House(site(CHEAP))
    house.journal.failing = True
    async with house.running() as controller:
        await house.until(lambda: len(house.asleep()) == 4)
        assert "journal" in controller.alarms
        house.journal.failing = False
        await house.until(lambda: "journal" not in controller.alarms)
        assert house.journal.kinds()[:2] == ["start", "facility"]


@in_virtual_time
async def test_a_tick_that_cannot_decide_still_sheds_what_the_meters_show(monkeypatch: pytest.MonkeyPatch) -> None:
    broken: list[bool] = []

    def sometimes(*given: Any, **named: Any) -> Any:
        if broken:
            raise ZeroDivisionError("price of nothing")
        return decide(*given, **named)

    monkeypatch.setattr(loop, "decide", sometimes)
    house = House(site(CHEAP))
    async with house.running() as controller:
        await house.until(lambda: controller.ready and controller.ticks >= 4)
        assert house.asleep() == []
        broken.append(True)
        await house.until(lambda: "decide" in controller.alarms)
        assert "ZeroDivisionError" in controller.alarms["decide"][0]
        await house.clock.sleep(3.0)
        assert house.asleep() == []
        ticks = controller.ticks
        # Something that nobody manages takes what was free and 3 kW more: one miner has to go, then a second.
        house.meter.extra = 20_000.0 - 14_600.0 + 3_000.0
        await house.until(lambda: len(house.asleep()) >= 1)
        await house.clock.sleep(5.0)
        first = house.asleep()
        assert 1 <= len(first) < 4
        house.meter.extra += 3_000.0
        await house.until(lambda: len(house.asleep()) > len(first))
        assert controller.ticks == ticks
        assert house.journal.of("protection")
        house.meter.extra = 0.0
        broken.clear()
        await house.until(lambda: "decide" not in controller.alarms)


class Historian:
    """Stores nothing, in the way it is told."""

    def __init__(self) -> None:
        self.hangs = asyncio.Event()
        self.error: HistorianError | None = None
        self.records = 0

    async def record(self, at: float, series: Mapping[str, Mapping[str, float]]) -> None:
        self.records += 1
        if self.error is not None:
            raise self.error
        await self.hangs.wait()

    async def close(self) -> None:
        """Nothing to flush."""


@in_virtual_time
async def test_a_hung_historian_stops_nothing() -> None:
    house = House(historian=Historian())
    async with house.running() as controller:
        await house.until(lambda: len(house.asleep()) == 4)
        await house.clock.sleep(5.0)
        assert controller.ticks >= 6
        assert "historian" in controller.alarms
        house.historian.hangs.set()
        await house.until(lambda: "historian" not in controller.alarms)
        await house.until(lambda: house.historian.records >= 2)


@in_virtual_time
async def test_a_historian_that_fails_is_an_alarm_and_no_more() -> None:
    house = House(historian=Historian())
    house.historian.error = HistorianError("no route to the database")
    async with house.running() as controller:
        await house.until(lambda: len(house.asleep()) == 4)
        assert controller.alarms["historian"][0] == "no route to the database"


@in_virtual_time
async def test_stopping_changes_no_device_and_leaves_nothing() -> None:
    house = House(site(CHEAP))
    async with house.running() as controller:
        await house.until(lambda: controller.ready and controller.ticks >= 4)
        before, sent = dict(house.driver.points), len(house.driver.applied)
    assert (house.driver.points, len(house.driver.applied), house.driver.restored) == (before, sent, [])
    assert house.planner.closed
    assert house.ended == ["0"]
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("ceiling", [Mode.ADVISE, Mode.OBSERVE])
def test_below_auto_nothing_is_sent_and_advice_is_recorded_once(ceiling: Mode) -> None:
    @in_virtual_time
    async def run() -> House:
        house = House(ceiling=ceiling)
        async with house.running() as controller:
            await house.clock.sleep(12.0)
            assert controller.mode is ceiling
        return house

    house = run()
    assert house.driver.story == []
    assert house.journal.of("decision") == []
    advice = house.journal.of("advice")
    assert len(advice) == (1 if ceiling is Mode.ADVISE else 0)
    for body in advice:
        assert {item["load_id"] for item in body["decreases"]} >= {f"miners-{k:03d}" for k in range(1, 5)}


@in_virtual_time
async def test_an_operator_s_mode_holds_within_a_tick_and_is_kept() -> None:
    house = House(site(CHEAP))
    async with house.running() as controller:
        await house.until(lambda: controller.ready)
        before = controller.ticks
        controller.set_operator(replace(controller.operator, mode=Mode.OBSERVE))
        await house.clock.sleep(0.01)
        assert controller.ticks == before + 1
        assert controller.mode is Mode.OBSERVE
        assert house.saved[-1].mode is Mode.OBSERVE


@in_virtual_time
async def test_what_an_earlier_run_sent_is_verified_and_not_sent_again() -> None:
    house = House(site(CHEAP, miners=1))
    load = house.first.facility.load_by_id["miners-001"]
    order = command(load, Verb.WAKE, at=house.clock.now() - 5.0, most_before_watts=20.0, seq=7)
    house.ledger = ledger_of(entry_of(order))
    async with house.running() as controller:
        await house.until(lambda: controller.ready and not controller._ledger.entry(load.id).pending)
        assert controller._ledger.entry(load.id).confirmed_point == "normal"
        assert [item for item in house.driver.applied if item.load_id == load.id] == []


# Reload


@in_virtual_time
async def test_a_swap_amid_a_tick_waits_for_its_end() -> None:
    house = House()
    async with house.running() as controller:
        await house.until(lambda: controller.ticks >= 1)
        house.journal.held = asyncio.Event()
        await house.clock.sleep(4.0)
        # A decision about four miners is being written; the new policy has but one.
        swapping = asyncio.create_task(controller.swap(house.plant(site(miners=1, policy="1")), {}))
        await house.clock.sleep(0.5)
        house.journal.held.set()
        await swapping
        assert controller.facility.policy_hash[0] == "1"
        await house.until(lambda: "miners-001" in house.asleep())
        ticks = controller.ticks
        await house.until(lambda: controller.ticks > ticks + 2)
        assert set(controller._ledger.entries) <= set(controller.facility.load_by_id)
    assert house.ended == ["0", "1"]


@in_virtual_time
async def test_a_swap_that_cannot_be_recorded_does_not_happen() -> None:
    house = House(site(CHEAP))
    async with house.running() as controller:
        await house.until(lambda: controller.ready)
        house.journal.failing = True
        with pytest.raises(JournalError):
            await controller.swap(house.plant(site(CHEAP, policy="1")), {})
        assert controller.facility.policy_hash[0] == "0"
        assert house.ended == []
        house.journal.failing = False


@in_virtual_time
async def test_after_a_swap_the_new_policy_is_planned_for_and_alarms_of_the_old_are_gone() -> None:
    house = House(site(CHEAP))
    async with house.running() as controller:
        await house.until(lambda: controller.ready and set(controller.alarms) <= {"price"})
        controller.alarm("feed/price", "price: no answer")
        controller.alarm("meter/old", "meter old silent for 9 s")
        controller.alarm("policy", "reload refused")
        await controller.swap(house.plant(site(DEAR, policy="1")), {"changes": ["economics"]})
        assert set(controller.alarms) - {"price"} == {"policy"}
        await house.until(lambda: len(house.asleep()) == 4)
        kinds = house.journal.kinds()
        assert kinds[kinds.index("reload") + 1] == "facility"
        assert house.planner.asked[-1].facility.policy_hash[0] == "1"
        assert house.ended == ["0"]
