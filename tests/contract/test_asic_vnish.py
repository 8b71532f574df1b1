"""VNish against the simulated one, beyond the contract: tokens, presets that need a restart, and who is who."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mullet.domain.command import Verb
from mullet.ports import DeviceGarbled, DeviceRefused, IdentityMismatch
from mullet_hardware.asic.device import Access, Device, Order
from mullet_simulators.testing import find_subnet, require_pools_kept, simulated_facility

_root = logging.getLogger()
_before = (list(_root.handlers), _root.level)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mullet_hardware.asic.firmware.antminer import AntminerModern
    from mullet_hardware.asic.firmware.vnish import Vnish
_root.handlers[:], _root.level = _before

pytestmark = pytest.mark.e2e

BANKS = ("vnish-s19", "antminer-s19")


class Site:
    """One VNish and one stock Antminer, and what was truly done to them."""

    def __init__(self, facility: Any, subnet: int) -> None:
        self._facility = facility
        self._subnet = subnet

    def access(self, bank: int, password: str) -> Access:
        return Access(f"127.{self._subnet}.{bank}.1", 4028, 8080, "root", password, None)

    def vnish(self) -> Vnish:
        return Vnish(self.access(1, "admin"), None, 3200.0, asyncio.get_running_loop().time)

    def simulated(self) -> Any:
        return self._facility.plant.loads["b1-001"]


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
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
    with tempfile.TemporaryDirectory() as folder:
        truth = Path(folder, "truth.jsonl")
        async with simulated_facility(scenario, subnet, truth=truth, servers=()) as facility:
            yield Site(facility, subnet)
        assert require_pools_kept(truth) == {}


async def until(holds: Callable[[], bool]) -> None:
    now = asyncio.get_running_loop().time
    ends_at = now() + 10.0
    while not holds():
        assert now() < ends_at, "not within 10 s"
        await asyncio.sleep(0.02)


async def test_vnish_and_stock_are_told_apart_in_both_directions() -> None:
    async with site() as here:
        now = asyncio.get_running_loop().time
        found = await here.vnish().identify()
        assert (found.firmware_class, found.model, found.firmware) == ("vnish", "Antminer S19", "Vnish 1.2.6")
        wrong: tuple[Device, ...] = (
            AntminerModern(here.access(1, "root"), None, 3250.0, now),
            Vnish(here.access(2, "admin"), None, 3200.0, now),
        )
        for device in wrong:
            with pytest.raises(IdentityMismatch):
                await device.identify()


async def test_a_reseller_s_name_is_told_by_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as here:
        device = here.simulated()
        monkeypatch.setattr(device, "_info", lambda: {**type(device)._info(device), "fw_name": "HashCore"})
        assert (await here.vnish().identify()).firmware == "HashCore 1.2.6"
        monkeypatch.setattr("mullet_simulators.miners.vnish.PAGE", b"<html>another</html>")
        with pytest.raises(IdentityMismatch):
            await here.vnish().identify()


async def test_a_lost_token_is_renewed_within_the_same_order() -> None:
    async with site() as here:
        device = here.vnish()
        assert (await device.apply(Order(Verb.POWER, 2400.0))).acked
        assert here.simulated().truth()["preset"] == "2350"
        here.simulated().forget_sessions()
        assert (await device.apply(Order(Verb.POWER, 3000.0))).acked
        assert here.simulated().truth()["preset"] == "2950"


async def test_a_preset_that_is_set_already_is_not_written() -> None:
    async with site() as here:
        device = here.vnish()
        await device.apply(Order(Verb.POWER, 2400.0))
        boots = here.simulated().boots
        answer = await device.apply(Order(Verb.POWER, 2400.0))
        assert answer.acked
        assert "nothing was written" in answer.detail
        assert here.simulated().boots == boots


async def test_below_the_lowest_preset_nothing_is_written() -> None:
    async with site() as here:
        with pytest.raises(DeviceRefused):
            await here.vnish().apply(Order(Verb.POWER, 1000.0))
        assert here.simulated().truth()["preset"] == "3200"


async def test_mining_is_restarted_only_where_the_miner_asks_and_runs() -> None:
    async with site() as here:
        device, sim = here.vnish(), here.simulated()
        sim.asks_for_restart = True
        assert (await device.apply(Order(Verb.POWER, 2400.0))).acked
        assert sim.limit_w == 2350.0
        await until(lambda: bool(sim.state == "hashing"))
        await device.apply(Order(Verb.SLEEP, 0.0))
        await until(lambda: bool(sim.state == "asleep"))
        boots = sim.boots
        assert (await device.apply(Order(Verb.POWER, 3000.0))).acked
        assert (sim.state, sim.boots, sim.limit_w) == ("asleep", boots, 2950.0)


async def test_a_preset_that_is_said_to_be_saved_and_is_not_is_seen_through() -> None:
    async with site() as here:
        here.simulated().set_fault("ignore", 0.0)
        answer = await here.vnish().apply(Order(Verb.POWER, 2400.0))
        assert answer.acked is False


async def test_stopping_what_is_stopped_is_no_failure() -> None:
    async with site() as here:
        device, sim = here.vnish(), here.simulated()
        assert (await device.apply(Order(Verb.SLEEP, 0.0))).acked
        await until(lambda: bool(sim.state == "asleep"))
        answer = await device.apply(Order(Verb.SLEEP, 0.0))
        assert (answer.acked, answer.detail) == (True, "it is stopped already")
        assert (await device.read()).celsius is None


async def test_poll_is_one_request_and_reads_the_limit_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as here:
        device, asked = here.vnish(), 0
        answer = type(here.simulated()).answer_http

        def count(self: Any, request: Any) -> Any:
            nonlocal asked
            asked += 1
            return answer(self, request)

        monkeypatch.setattr(type(here.simulated()), "answer_http", count)
        assert (await device.poll()).limit_watts is None
        assert asked == 1
        assert (await device.read()).limit_watts == 3200.0
        assert asked == 3


async def test_an_answer_without_presets_is_garbled(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as here:
        monkeypatch.setattr(here.simulated(), "_presets", lambda: {"presets": 3})
        with pytest.raises(DeviceGarbled):
            await here.vnish().apply(Order(Verb.POWER, 2400.0))
