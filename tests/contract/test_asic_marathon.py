"""Marathon against the simulated one, beyond the contract: the mode it wakes into, and what a write leaves alone."""

from __future__ import annotations

import asyncio
import copy
import logging
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mullet.domain.command import Verb
from mullet.domain.telemetry import LoadState
from mullet.ports import DeviceGarbled, IdentityMismatch, UnsafeWrite
from mullet_hardware.asic.device import Access, Order
from mullet_simulators.miners.http import HttpReply
from mullet_simulators.testing import find_subnet, require_pools_kept, simulated_facility

_root = logging.getLogger()
_before = (list(_root.handlers), _root.level)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mullet_hardware.asic.firmware.antminer import AntminerModern
    from mullet_hardware.asic.firmware.marathon import Marathon
_root.handlers[:], _root.level = _before

pytestmark = pytest.mark.e2e

BANKS = ("marathon-s19", "antminer-s19")
SLEEP, WAKE = Order(Verb.SLEEP, 0.0), Order(Verb.WAKE, 0.0)


class Site:
    """One miner with Marathon's firmware beside a stock Antminer."""

    def __init__(self, facility: Any, subnet: int) -> None:
        self.sim: Any = facility.plant.loads["b1-001"]
        self._subnet = subnet

    def access(self, bank: int) -> Access:
        return Access(f"127.{self._subnet}.{bank}.1", 4028, 8080, "root", "root", None)

    def device(self) -> Marathon:
        return Marathon(self.access(1), None, 3250.0, asyncio.get_running_loop().time)

    def mode(self) -> str:
        return str(self.sim.truth()["work_mode"])


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    subnet = find_subnet()
    banks = [
        {"id": f"b{n}", "number": n, "circuit": "pdu", "model": model, "count": 1, "ramp_scale": 0.04}
        for n, model in enumerate(BANKS, 1)
    ]
    scenario = {
        "circuits": [{"id": "pdu", "limit_w": 20000}],
        "banks": banks,
        "price": {"base_per_mwh": 38.0},
    }
    truth = tmp_path / "truth.jsonl"
    async with simulated_facility(scenario, subnet, truth=truth, servers=()) as facility:
        here = Site(facility, subnet)
        yield here
    require_pools_kept(truth)


async def test_it_is_told_from_a_stock_antminer_in_both_directions(site: Site) -> None:
    now = asyncio.get_running_loop().time
    assert (await site.device().identify()).firmware_class == "marathon"
    with pytest.raises(IdentityMismatch):
        await Marathon(site.access(2), None, 3250.0, now).identify()
    with pytest.raises((IdentityMismatch, DeviceGarbled)):
        await AntminerModern(site.access(1), None, 3250.0, now).identify()


@pytest.mark.parametrize("mode", ["Auto", "Fixed", "Stock"])
async def test_it_wakes_into_the_mode_it_slept_from(site: Site, mode: str) -> None:
    site.sim._conf["mode"]["work-mode-selector"] = mode
    before = copy.deepcopy(site.sim._reported_conf())
    assert (await site.device().apply(SLEEP)).acked
    assert site.mode() == "Sleep"
    # Another driver, as after a restart: the device's own history tells.
    assert (await site.device().apply(WAKE)).acked
    assert site.mode() == mode
    assert site.sim._reported_conf() == before


async def test_without_a_history_the_mode_last_seen_must_do(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = type(site.sim).answer_http

    def without_history(self: Any, request: Any) -> Any:
        return HttpReply(404) if "/log?" in request.target else answer(self, request)

    monkeypatch.setattr(type(site.sim), "answer_http", without_history)
    site.sim._conf["mode"]["work-mode-selector"] = "Fixed"
    device = site.device()
    await device.apply(SLEEP)
    await device.apply(WAKE)
    assert site.mode() == "Fixed"
    await device.apply(SLEEP)
    await site.device().apply(WAKE)
    assert site.mode() == "Stock"


async def test_watts_set_while_it_sleeps_wait_for_the_wake(site: Site) -> None:
    device = site.device()
    await device.apply(SLEEP)
    assert (await device.apply(Order(Verb.POWER, 2200.0))).acked
    assert site.mode() == "Sleep"
    assert not site.sim._wanted_on
    await device.apply(WAKE)
    assert site.mode() == "Auto"
    assert site.sim.limit_w == 2200.0
    assert (await device.read()).limit_watts == 2200.0


async def test_waking_what_is_awake_writes_nothing(site: Site) -> None:
    boots = site.sim.boots
    answer = await site.device().apply(WAKE)
    assert (answer.acked, site.sim.boots) == (True, boots)
    assert "nothing was written" in answer.detail


@pytest.mark.parametrize("order", [SLEEP, Order(Verb.POWER, 2200.0)])
async def test_a_configuration_without_pools_is_never_posted(site: Site, order: Order) -> None:
    conf = copy.deepcopy(site.sim._conf)
    for pools in ([], [{"url": "", "user": "", "pass": ""}], None):
        site.sim.change_pools(pools, "fault")
        with pytest.raises(UnsafeWrite):
            await site.device().apply(order)
        assert site.sim.pools == pools
        assert site.sim._conf == conf


async def test_an_estimate_is_not_told_as_watts(site: Site) -> None:
    reading = await site.device().read()
    assert reading.watts is None
    assert reading.state is LoadState.ACTIVE


async def test_the_mode_of_what_plainly_hashes_is_asked_now_and_then(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    answer = type(site.sim).answer_http

    def count(self: Any, request: Any) -> Any:
        asked.append(request.target.rpartition("/")[2])
        return answer(self, request)

    device = site.device()
    await device.read()
    monkeypatch.setattr(type(site.sim), "answer_http", count)
    for _ in range(6):
        assert (await device.poll()).state is LoadState.ACTIVE
    assert asked.count("brief") == 6
    assert asked.count("miner_config") == 1
