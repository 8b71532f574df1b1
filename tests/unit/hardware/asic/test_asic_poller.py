"""Polling: who hangs is moved aside, who answers is never delayed."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace, TracebackType
from typing import Any, cast

import pytest

from mullet.ports import DeviceGarbled
from mullet_hardware.asic import poller as poller_module
from mullet_hardware.asic.driver import worker_count
from mullet_hardware.asic.lane import Lane
from mullet_hardware.asic.poller import Followed, Poll, Poller
from mullet_hardware.asic.protocol import Health, Reading, Target


class FakeFleet:
    """Devices by address: silent, garbling, slow, or answering at once."""

    def __init__(self) -> None:
        self.silent: set[str] = set()
        self.garbling: set[str] = set()
        self.after_s = 0.0
        self.polls: dict[str, int] = {}
        self.prepared: list[str] = []
        self.under_way = 0
        self.most_under_way = 0

    def access(self, target: Target) -> Any:
        return SimpleNamespace(rpc_port=1, web_port=0)

    async def device(self, target: Target) -> Any:
        async def poll() -> Reading:
            self.polls[target.address] = self.polls.get(target.address, 0) + 1
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            try:
                if target.address in self.silent:
                    await asyncio.sleep(60.0)
                if self.after_s:
                    await asyncio.sleep(self.after_s)
            finally:
                self.under_way -= 1
            if target.address in self.garbling:
                raise DeviceGarbled("no JSON")
            return Reading(th_per_s=1.0)

        async def prepare() -> None:
            self.prepared.append(target.address)

        return SimpleNamespace(poll=poll, prepare=prepare)


Rows = dict[str, list[Any]]


def targets(count: int) -> list[Target]:
    return [Target(f"m-{k}", "b", f"127.0.0.{k}", None, 1.0) for k in range(1, count + 1)]


def into(rows: Rows) -> Callable[[list[Any]], None]:
    return lambda row: rows.setdefault(row[0], []).append(row)


@asynccontextmanager
async def running(poller: Poller) -> AsyncIterator[None]:
    task = asyncio.ensure_future(poller.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert poller.in_flight == 0


@asynccontextmanager
async def polling(fleet: FakeFleet, count: int, period_s: float, slots: int) -> AsyncIterator[Rows]:
    rows: Rows = {}
    poller = Poller(cast(Any, fleet), slots=slots)
    poller.watch(1, targets(count), period_s, into(rows))
    async with running(poller):
        yield rows


async def until(holds: Any, within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - rows have no event
            await asyncio.sleep(0.01)


async def test_the_hung_hold_no_slot_and_delay_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "SLOW_DEADLINE_S", 0.3)
    monkeypatch.setattr(poller_module, "HOLD_S", 0.05)
    fleet = FakeFleet()
    fleet.silent = {f"127.0.0.{k}" for k in range(1, 9)}
    async with polling(fleet, 12, 0.3, slots=2) as rows:
        well = [f"m-{k}" for k in range(9, 13)]
        await until(lambda: all(len(rows.get(name, [])) >= 6 for name in well))
        for name in well:
            answered = [row[1] for row in rows[name]]
            assert all(row[-1] is None for row in rows[name])
            assert max(b - a for a, b in itertools.pairwise(answered)) < 0.9
        await until(lambda: all(f"m-{k}" in rows for k in range(1, 9)))
        for k in range(1, 9):
            for row in rows[f"m-{k}"]:
                assert "DeviceUnreachable" in row[-1]
                assert row[2:8] == [None] * 6


async def test_all_are_read_once_at_the_start_and_then_spread_over_the_period() -> None:
    rows: Rows = {}
    poller = Poller(cast(Any, FakeFleet()))
    poller.watch(1, targets(10), 40.0, into(rows))
    began = min(at for at, _, _ in poller._fast.heap)
    async with running(poller):
        await until(lambda: len(rows) == 10)
        # The first of them is due again at once, the others have their places in the period ahead of them.
        ahead = {followed.target.load_id: at - began for at, _, followed in poller._fast.heap}
    assert {name: ahead[name] for name in rows if name != "m-1"} == {
        f"m-{k + 1}": pytest.approx(poller_module.FIRST_ROUND_S + 4.0 * k) for k in range(1, 10)
    }
    assert all(len(rows[f"m-{k}"]) == 1 for k in range(2, 11))


async def test_who_is_read_late_in_the_first_round_keeps_its_place_in_the_period() -> None:
    rows: Rows = {}
    poller = Poller(cast(Any, FakeFleet()))
    poller.watch(1, targets(10), 40.0, into(rows))
    began = min(at for at, _, _ in poller._fast.heap)
    late = next(followed for _, _, followed in poller._fast.heap if followed.target.load_id == "m-4")
    late.regular_at -= 80.0
    async with running(poller):
        await until(lambda: len(rows) == 10)
        ahead = {followed.target.load_id: at - began for at, _, followed in poller._fast.heap}
    assert ahead["m-4"] == pytest.approx(poller_module.FIRST_ROUND_S + 12.0)


async def test_who_was_silent_at_first_is_not_asked_twice_at_once() -> None:
    poller = Poller(cast(Any, FakeFleet()))
    poller.watch(1, targets(1), 40.0, into({}))
    followed = poller._fast.heap.pop()[2]
    poller._plan_next(followed, followed.regular_at, silent=1)
    due, _, same = poller._slow.heap.pop()
    assert same is followed
    poller._plan_next(followed, due, silent=0)
    assert [at for at, _, _ in poller._fast.heap] == [due + 40.0]


async def test_the_first_readings_of_many_watches_begin_apart_and_none_later_than_its_place_in_the_period() -> None:
    poller = Poller(cast(Any, FakeFleet()))
    began = asyncio.get_running_loop().time()
    for number in range(10):
        poller.watch(number, targets(200), 10.0, into({}))
    due = sorted(at - began for at, _, _ in poller._fast.heap)
    places = sorted(10.0 * k / 200 + 0.5 for k in range(200) for _ in range(10))
    assert len(due) == 2_000
    assert sum(at < 1.0 for at in due) <= 1.0 / poller_module.FIRST_APART_S + 200, "those beside come at their places"
    assert 3.0 < due[-1] < 6.0
    assert all(at <= place for at, place in zip(due, places, strict=True))


async def test_who_comes_back_is_read_at_its_period_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "BACKOFF_MOST_S", 0.2)
    fleet = FakeFleet()
    fleet.silent = {"127.0.0.1"}
    async with polling(fleet, 1, 0.1, slots=2) as rows:
        await until(lambda: rows.get("m-1"))
        fleet.silent = set()
        # The slow lane's long deadline is still running for the last try.
        monkeypatch.setattr(poller_module, "SLOW_DEADLINE_S", 0.2)
        await until(lambda: sum(row[-1] is None for row in rows["m-1"]) >= 3, 8.0)


async def test_who_answers_nonsense_is_told_every_period() -> None:
    fleet = FakeFleet()
    fleet.garbling = {"127.0.0.1"}
    async with polling(fleet, 1, 0.1, slots=2) as rows:
        await until(lambda: len(rows.get("m-1", [])) >= 4, 2.0)
        assert all("DeviceGarbled" in row[-1] for row in rows["m-1"])


async def test_one_schedule_serves_all_watches_and_forgets_those_that_end() -> None:
    fleet, one, other = FakeFleet(), dict[str, list[Any]](), dict[str, list[Any]]()
    poller = Poller(cast(Any, fleet))
    async with running(poller):
        poller.watch(1, targets(3), 0.1, into(one))
        poller.watch(2, targets(5)[3:], 0.1, into(other))
        await until(lambda: len(one) == 3 and len(other) == 2)
        poller.unwatch(1)
        polls = fleet.polls["127.0.0.1"]
        seen = len(other["m-4"])
        await until(lambda: len(other["m-4"]) >= seen + 4)
        assert fleet.polls["127.0.0.1"] <= polls + 1, "one may have been under way"


async def test_polls_keep_to_their_slots_and_miss_nobody() -> None:
    fleet = FakeFleet()
    fleet.after_s = 0.02
    async with polling(fleet, 40, 0.1, slots=4) as rows:
        await until(lambda: len(rows) == 40 and all(len(found) >= 2 for found in rows.values()))
    assert fleet.most_under_way == 4


async def test_orders_under_way_leave_polls_a_few_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "SLOTS_BESIDE_ORDERS", 2)
    fleet, rows = FakeFleet(), dict[str, list[Any]]()
    fleet.after_s = 0.02
    orders = Lane(1, None)
    poller = Poller(cast(Any, fleet), orders, slots=8)
    poller.watch(1, targets(16), 0.1, into(rows))
    with await orders.slot():
        async with running(poller):
            await until(lambda: len(rows) == 16)
    assert fleet.most_under_way == 2
    assert fleet.prepared == [], "what is fetched ahead waits for orders"
    assert orders.busy == 0


async def test_who_answers_late_stays_in_the_slow_lane_and_is_read_all_the_same() -> None:
    fleet = FakeFleet()
    fleet.after_s = 0.3
    async with polling(fleet, 1, 0.1, slots=1) as rows:
        await until(lambda: sum(row[-1] is None for row in rows.get("m-1", [])) >= 3, 8.0)
        good = [number for number, row in enumerate(rows["m-1"]) if row[-1] is None]
        assert good == list(range(good[0], len(rows["m-1"]))), "it does not flap between the lanes"


async def test_a_device_is_prepared_once_and_not_at_every_poll() -> None:
    fleet = FakeFleet()
    async with polling(fleet, 3, 0.1, slots=8) as rows:
        await until(lambda: len(rows) == 3 and all(len(found) >= 3 for found in rows.values()))
    assert sorted(fleet.prepared) == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]


async def test_the_slow_tier_is_asked_once_and_apart_from_polls() -> None:
    class Ailing(FakeFleet):
        async def device(self, target: Target) -> Any:
            device = await super().device(target)

            async def health() -> Health:
                if target.load_id == "m-2":
                    raise DeviceGarbled("no JSON")
                return Health(boards=2, errors=("110",))

            device.health = health
            return device

    rows, told = dict[str, list[Any]](), list[list[Any]]()
    poller = Poller(cast(Any, Ailing()), emit_health=told.append)
    poller.watch(1, targets(3), 0.1, into(rows))
    async with running(poller):
        await until(lambda: len(told) >= 2 and all(len(rows.get(f"m-{k}", [])) >= 12 for k in (1, 2, 3)))
    assert sorted(Health.unpack(row)[0] for row in told) == ["m-1", "m-3"]
    assert Health.unpack(told[0])[1] == Health(boards=2, errors=("110",))
    assert all(row[-1] is None for row in rows["m-2"]), "what fails aside is no fault of the reading"


def test_health_tells_what_became_worse_and_only_that() -> None:
    well = Health(boards=3, fan_rpm=5400.0, errors=())
    assert well.worse_than(None) == []
    assert well.worse_than(well) == []
    assert Health(boards=2, fan_rpm=0.0, errors=("110",)).worse_than(well) == [
        "reports error 110",
        "2 of 3 boards are left",
        "a fan stands still",
    ]
    assert Health(errors=("110", "218")).worse_than(Health(errors=("110",))) == ["reports error 218"]
    assert Health(boards=0, fan_rpm=0.0).worse_than(Health(boards=0, fan_rpm=0.0)) == [], "it is off"
    assert well.worse_than(Health(boards=2, errors=("110",))) == [], "it has recovered"


async def test_a_swallowed_cancellation_is_told_again_and_still_no_answer() -> None:
    class Stubborn(FakeFleet):
        async def device(self, target: Target) -> Any:
            async def poll() -> Reading:
                try:
                    await asyncio.sleep(60.0)
                except asyncio.CancelledError:
                    raise ValueError("a library does this") from None
                raise AssertionError

            return SimpleNamespace(poll=poll)

    async with polling(Stubborn(), 1, 0.1, slots=1) as rows:
        await until(lambda: rows.get("m-1"))
        assert "DeviceUnreachable" in rows["m-1"][0][-1]


async def test_a_poll_leaves_nothing_behind_whether_it_failed_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept() -> int:
        gc.collect()
        # Not handles: asyncio keeps those of cancelled timers until there are many, uvloop does not.
        kinds = (Poll, Followed, asyncio.Task, BaseException, TracebackType)
        return sum(issubclass(type(found), kinds) for found in gc.get_objects())

    squeezed = {"TICK_S": 0.001, "PROBE_S": 0.02, "SLOW_DEADLINE_S": 0.01, "BACKOFF_MOST_S": 0.01}
    for name, seconds in squeezed.items():
        monkeypatch.setattr(poller_module, name, seconds)
    fleet, last = FakeFleet(), dict[str, list[Any]]()
    fleet.silent, fleet.garbling = {"127.0.0.1", "127.0.0.2"}, {"127.0.0.3", "127.0.0.4"}
    poller = Poller(cast(Any, fleet))
    poller.watch(1, targets(6), 0.01, lambda row: last.update({row[0]: row}))

    def polled(times: int) -> bool:
        return len(fleet.polls) == 6 and all(polls >= times for polls in fleet.polls.values())

    async with running(poller):
        await until(lambda: polled(15), 20.0)
        before = kept()
        await until(lambda: polled(40), 20.0)
        assert kept() <= before + 36, "what is under way may differ; of one thing per poll there would be 150"
    assert "DeviceUnreachable" in last["m-1"][-1]
    assert "DeviceGarbled" in last["m-3"][-1]
    assert last["m-5"][-1] is None


async def test_what_is_no_devices_fault_ends_the_poller() -> None:
    def fail(row: list[Any]) -> None:
        raise RuntimeError("a bug")

    poller = Poller(cast(Any, FakeFleet()))
    poller.watch(1, targets(1), 0.1, fail)
    with pytest.raises(RuntimeError, match="a bug"):
        await asyncio.wait_for(poller.run(), 5.0)


@pytest.mark.parametrize(
    ("loads", "asked", "count"), [(10, [None], 1), (10_000, [None], 2), (10_000, [None, 1], 1), (10, [3, 2, None], 3)]
)
def test_workers_follow_the_fleet_unless_a_bank_says_how_many(
    loads: int, asked: list[int | None], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert worker_count(loads, asked) == count
