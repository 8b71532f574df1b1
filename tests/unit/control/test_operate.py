"""What operators order: recorded, kept, honoured; by whom it may be ended; and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from control_kit import FakeDriver, FakeJournal, FakePlanner, decided

from mullet.control.loop import Controller
from mullet.control.operate import FOREVER, Desk
from mullet.control.parts import Parts, Plant
from mullet.domain.command import CommandLedger
from mullet.domain.facility import Facility, Mode
from mullet.domain.feeds import Cause
from mullet.domain.snapshot import HoldKind, OperatorState
from mullet.ports import DeviceRefused, JournalError, WriteRefused
from mullet.testing.builders import facility, snapshot
from mullet.testing.virtual_time import START, ManualClock

SITE = facility()


class Office:
    """A desk on a controller that has decided once."""

    def __init__(self, begun: bool = True, site: Facility = SITE) -> None:
        self.clock, self.journal = ManualClock(), FakeJournal()
        self.driver = FakeDriver(self.clock)
        self.saved: list[OperatorState] = []
        self.closed: list[str] = []
        self.next: Plant | Exception | None = None
        parts = Parts(
            plant=self.plant(site),
            clock=self.clock,
            planner=FakePlanner(),
            journal=self.journal,
            historian=None,
            link=None,
            operator=OperatorState(),
            save_operator=self.saved.append,
            ceiling=Mode.AUTO,
            beat=lambda _: None,
        )
        self.controller = Controller(parts, CommandLedger())
        if begun:
            self.controller.decision = decided(site, snapshot(site))
        self.desk = Desk(self.controller, self.clock, self._reload)

    def plant(self, site: Facility) -> Plant:
        async def close() -> None:
            self.closed.append(site.policy_hash[0])

        return Plant(site, {"asic": self.driver, "gpu": self.driver}, dict.fromkeys(site.banks, 1.0), close=close)

    async def _reload(self) -> tuple[Plant, dict[str, Any]]:
        if isinstance(self.next, Exception):
            raise self.next
        assert self.next is not None
        return self.next, {"changes": ["one"]}


async def test_a_hold_is_recorded_kept_and_numbered() -> None:
    office = Office()
    first = await office.desk.hold("miners-001", HoldKind.OFF, "anna", "fan replaced")
    second = await office.desk.hold("feeder-b", HoldKind.ON, "ben", "customer test")
    assert [first.id, second.id] == ["hold-1", "hold-2"]
    assert office.controller.operator.holds == office.saved[-1].holds == (first, second)
    assert [body["order"] for body in office.journal.of("operator")] == ["hold", "hold"]
    assert office.desk.recent()[1]["text"] == "anna holds miners-001 off: fan replaced"


async def test_only_its_owner_releases_a_hold() -> None:
    office = Office()
    hold = await office.desk.hold("miners-001", HoldKind.OFF, "anna", "fan replaced")
    with pytest.raises(PermissionError, match="placed by anna"):
        await office.desk.release(hold.id, "ben")
    assert office.controller.operator.holds == (hold,)
    await office.desk.release(hold.id, "anna")
    assert office.controller.operator.holds == ()
    with pytest.raises(KeyError, match="none stands"):
        await office.desk.release(hold.id, "anna")


async def test_what_cannot_be_recorded_does_not_stand() -> None:
    office = Office()
    office.journal.failing = True
    orders = (
        office.desk.hold("miners-001", HoldKind.OFF, "anna", "fan"),
        office.desk.set_mode(Mode.OBSERVE, "anna"),
        office.desk.shed(1_000.0, None, "anna"),
    )
    for order in orders:
        with pytest.raises(JournalError):
            await order
    assert office.controller.operator == OperatorState()
    assert office.saved == []


async def test_an_unknown_target_names_what_comes_near() -> None:
    office = Office()
    with pytest.raises(KeyError, match="near matches: miners-001"):
        await office.desk.hold("miner-001", HoldKind.OFF, "anna", "fan")
    with pytest.raises(KeyError, match="near matches: feeder-a"):
        office.desk.why("feader-a")
    with pytest.raises(KeyError, match="grid"):
        await office.desk.shed(1_000.0, "gird", "anna")
    with pytest.raises(KeyError) as caught:
        await office.desk.restore("nothing like it at all", "anna")
    assert "near" not in str(caught.value)


async def test_a_shed_order_is_a_ceiling_that_stands_until_it_is_released() -> None:
    office = Office()
    decision = office.controller.decision
    assert decision is not None
    before = decision.accounts["feeder-a"].sum_watts
    told = await office.desk.shed(5_000.0, "feeder-a", "anna")
    (order,) = office.controller.operator.orders
    assert (order.id, order.circuit, order.cause) == ("shed-1", "feeder-a", Cause.EMERGENCY)
    assert order.limit_watts == pytest.approx(before - 5_000.0)
    assert (order.start, order.end) == (START, FOREVER)
    assert len(told["first_loads"]) == 2
    assert (await office.desk.shed(1.0, None, "ben"))["circuit"] == "grid"
    with pytest.raises(KeyError, match="shed-1, shed-2"):
        await office.desk.release("shed-9", "anna")
    await office.desk.release("shed-1", "ben")
    assert [item.id for item in office.controller.operator.orders] == ["shed-2"]


@pytest.mark.parametrize("watts", [0.0, -1.0, float("nan")])
async def test_nothing_to_shed_is_no_order(watts: float) -> None:
    office = Office()
    with pytest.raises(ValueError, match="above 0 W"):
        await office.desk.shed(watts, None, "anna")
    assert office.controller.operator.orders == ()


async def test_more_than_there_is_leaves_a_ceiling_of_nothing() -> None:
    assert (await Office().desk.shed(1e9, None, "anna"))["ceiling_w"] == 0.0


async def test_before_control_begins_little_is_known() -> None:
    office = Office(begun=False)
    with pytest.raises(RuntimeError, match="not begun"):
        await office.desk.shed(1_000.0, None, "anna")
    assert office.desk.loads() == []
    assert office.desk.why("miners-001")["rule"] == "no tick has been finished yet"
    assert office.desk.status()["ready"] is False


async def test_the_mode_is_kept() -> None:
    office = Office()
    await office.desk.set_mode(Mode.ADVISE, "anna")
    assert office.saved[-1].mode is Mode.ADVISE
    assert office.controller.mode is Mode.ADVISE


async def test_a_reload_that_is_refused_keeps_the_old_policy_and_says_why_until_one_works() -> None:
    office = Office()
    office.next = ValueError("line 7: unknown circuit\nline 9: no unit")
    with pytest.raises(ValueError, match="line 7"):
        await office.desk.reload()
    assert office.controller.facility is SITE
    assert office.controller.alarms["policy"][0] == "reload refused, the old policy stays: line 7: unknown circuit"
    office.next = office.plant(facility(policy_hash="1" * 64))
    assert await office.desk.reload() == {"changes": ["one"]}
    assert "policy" not in office.controller.alarms
    assert office.controller.facility.policy_hash[0] == "1"
    assert office.closed == ["0"]
    await office.controller._supervisor.close()


async def test_a_reload_that_cannot_be_recorded_closes_what_it_built() -> None:
    office = Office()
    office.next = office.plant(facility(policy_hash="1" * 64))
    office.journal.failing = True
    with pytest.raises(ValueError, match="disk full"):
        await office.desk.reload()
    assert office.controller.facility is SITE
    assert office.closed == ["1"]


async def test_without_a_policy_file_there_is_nothing_to_reload() -> None:
    office = Office()
    with pytest.raises(ValueError, match="without a policy file"):
        await Desk(office.controller, office.clock, None).reload()


async def test_defaults_go_back_through_the_gate() -> None:
    office = Office()
    assert (await office.desk.restore("gpus-001", "anna"))["acked"] is True
    assert office.driver.restored == ["gpus-001"]
    await office.desk.set_mode(Mode.OBSERVE, "anna")
    with pytest.raises(WriteRefused, match="mode observe"):
        await office.desk.restore("gpus-001", "anna")
    assert office.driver.restored == ["gpus-001"]
    assert "restore/gpus-001" in office.controller.alarms


@pytest.mark.parametrize("kind", list(HoldKind))
async def test_defaults_do_not_go_back_on_a_load_that_is_held(kind: HoldKind) -> None:
    office = Office()
    await office.desk.hold("feeder-b", kind, "ben", "cable work")
    with pytest.raises(WriteRefused, match=f"held {kind.value} by ben"):
        await office.desk.restore("gpus-001", "anna")
    assert office.driver.restored == []


async def test_a_device_that_refuses_its_defaults_is_an_alarm() -> None:
    office = Office()
    office.driver.failing["gpus-001"] = DeviceRefused("no root")
    with pytest.raises(DeviceRefused):
        await office.desk.restore("gpus-001", "anna")
    assert office.controller.alarms["restore/gpus-001"][0] == "no root"


async def test_events_end_with_who_listens() -> None:
    office = Office()
    events = office.desk.events()
    waiting = asyncio.ensure_future(anext(events))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    office.controller.announcer.publish({"tick": 1})
    assert await waiting == {"tick": 1}
    await events.aclose()  # type: ignore[attr-defined]
    assert office.controller.announcer._subscribers == set()
