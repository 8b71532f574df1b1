"""The slow tier and tokens fetched ahead: they delay no poll, and no rejected password is tried over and over."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, cast

import pytest
from test_asic_poller import FakeFleet, into, running, targets, until

from mullet.ports import CredentialsRejected, DriverContext
from mullet.testing.virtual_time import ManualClock
from mullet_hardware.asic import poller as poller_module
from mullet_hardware.asic.driver import AsicDriver
from mullet_hardware.asic.poller import Poller
from mullet_hardware.asic.protocol import Health, Target, ailment_of


class Tended(FakeFleet):
    """Devices with a slow tier that hangs, and a password that is rejected while `rejecting`."""

    def __init__(self) -> None:
        super().__init__()
        self.rejecting = True
        self.looks: list[str] = []
        self.looking = 0
        self.most_looking = 0

    async def device(self, target: Target) -> Any:
        device = await super().device(target)

        async def health() -> Health:
            self.looks.append(target.load_id)
            self.looking += 1
            self.most_looking = max(self.most_looking, self.looking)
            try:
                await asyncio.sleep(60.0)
            finally:
                self.looking -= 1
            raise AssertionError

        async def prepare() -> None:
            self.prepared.append(target.load_id)
            if self.rejecting:
                raise CredentialsRejected("no")

        device.health, device.prepare = health, prepare
        return device


async def test_a_slow_tier_that_hangs_delays_no_poll_and_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "ASIDE_SLOTS", 2)
    monkeypatch.setattr(poller_module, "HEALTH_APART_S", 0.0)
    monkeypatch.setattr(poller_module, "POLL_DEADLINE_S", 0.4)
    fleet, rows, told = Tended(), dict[str, list[Any]](), list[list[Any]]()
    poller = Poller(cast(Any, fleet), slots=4, emit_health=told.append)
    poller.watch(1, targets(6), 0.1, into(rows))
    async with running(poller):
        await until(lambda: len(set(fleet.looks)) >= 4 and all(len(rows.get(f"m-{k}", [])) >= 10 for k in range(1, 7)))
    assert fleet.most_looking <= 2
    assert told == []
    for found in rows.values():
        answered = [row[1] for row in found]
        assert all(row[-1] is None for row in found), "a look that ends at its deadline is no fault of the reading"
        assert max(b - a for a, b in itertools.pairwise(answered)) < 0.4


async def test_each_load_has_a_time_of_its_own_for_its_slow_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "HEALTH_EVERY_S", 0.5)
    monkeypatch.setattr(poller_module, "POLL_DEADLINE_S", 0.2)
    fleet, rows = Tended(), dict[str, list[Any]]()
    poller = Poller(cast(Any, fleet))
    poller.watch(1, targets(2), 0.1, into(rows))
    async with running(poller):
        began = asyncio.get_running_loop().time()
        await until(lambda: all(fleet.looks.count(f"m-{k}") >= 3 for k in (1, 2)))
        assert asyncio.get_running_loop().time() - began >= 1.0, "no sooner than its period"
    assert all(len(rows[f"m-{k}"]) >= 2 * fleet.looks.count(f"m-{k}") for k in (1, 2))


async def test_looks_are_spread_over_their_period(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "HEALTH_EVERY_S", 1.5)
    fleet, rows = Tended(), dict[str, list[Any]]()
    poller = Poller(cast(Any, fleet))
    poller.watch(1, targets(5), 0.05, into(rows))
    looked_at = []
    async with running(poller):
        for count in range(1, 6):
            await until(lambda count=count: len(fleet.looks) >= count)
            looked_at.append(asyncio.get_running_loop().time())
    assert fleet.looks[:5] == [f"m-{k}" for k in range(1, 6)]
    assert looked_at[-1] - looked_at[0] >= 0.8, "none together with another, and all within the period"


async def test_a_rejected_password_is_tried_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "PREPARE_EVERY_S", 0.1)
    fleet, rows = Tended(), dict[str, list[Any]]()
    poller = Poller(cast(Any, fleet))
    poller.watch(1, targets(1), 0.05, into(rows))
    async with running(poller):
        tried_at = []
        for count in range(1, 5):
            await until(lambda count=count: len(fleet.prepared) == count)
            tried_at.append(asyncio.get_running_loop().time())
        apart = [b - a for a, b in itertools.pairwise(tried_at)]
        assert all(gap >= 0.9 * 0.1 * 2.0**n for n, gap in enumerate(apart, 1)), apart
        fleet.rejecting = False
        await until(lambda: len(fleet.prepared) >= 6)
        fleet.rejecting = True
        again_at = asyncio.get_running_loop().time()
        await until(lambda: len(fleet.prepared) >= 9)
        assert asyncio.get_running_loop().time() - again_at < 1.6, "once accepted, patience begins anew"


def test_what_a_miner_at_rest_cannot_tell_is_compared_with_what_it_told_before() -> None:
    well = Health(boards=3, fan_rpm=5400.0, errors=(), boards_fitted=3)
    at_rest = Health(boards=0, fan_rpm=0.0, errors=("110",), boards_fitted=0)
    assert at_rest.worse_than(well) == ["reports error 110"]
    compared = at_rest.after(well)
    assert compared == Health(boards=3, fan_rpm=5400.0, errors=("110",), boards_fitted=3)
    woken = Health(boards=2, fan_rpm=5400.0, errors=None, boards_fitted=3)
    assert woken.worse_than(compared) == ["2 of 3 boards are left"]
    assert woken.worse_than(woken.after(compared)) == [], "it is told once"
    assert woken.worse_than(None) == ["2 of 3 boards work"], "at first sight the miner itself is what to compare with"
    assert Health.unpack(at_rest.pack("m-1")) == ("m-1", at_rest)


@pytest.mark.parametrize(
    ("health", "most_boards", "words"),
    [
        (Health(boards=3, fan_rpm=5400.0, errors=(), boards_fitted=3), 3, None),
        (Health(), 0, None),
        (Health(boards=0, fan_rpm=0.0, boards_fitted=3), 3, None),
        (Health(boards=2, boards_fitted=3), 0, "2 of 3 boards work"),
        (Health(boards=2, boards_fitted=2), 3, "2 of 3 boards work"),
        (Health(boards=3, fan_rpm=0.0, errors=("110", "218")), 3, "a fan stands still; reports error 110, 218"),
    ],
    ids=["well", "nothing told", "at rest", "a board does not work", "a board is found no more", "fan and errors"],
)
def test_what_is_amiss_is_told_as_long_as_it_is(health: Health, most_boards: int, words: str | None) -> None:
    assert ailment_of(health, most_boards) == words


def test_a_driver_tells_what_is_amiss_until_it_is_mended() -> None:
    driver = AsicDriver(DriverContext({}, lambda name: None, ManualClock()))
    driver._healthy(Health(boards=3, errors=()).pack("m-1"))
    assert driver.ailments() == {}
    driver._healthy(Health(boards=2, errors=("110",)).pack("m-1"))
    assert driver.ailments() == {"m-1": "2 of 3 boards work; reports error 110"}
    driver._healthy(Health(boards=0, errors=()).pack("m-1"))
    assert driver.ailments() == {"m-1": "2 of 3 boards work"}, "a rest mends no board"
    driver._healthy(Health(boards=3, errors=()).pack("m-1"))
    assert driver.ailments() == {}
