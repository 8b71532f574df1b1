"""Makes: model and firmware, told with each reading and asked for apart from polls."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from mullet.domain.telemetry import LoadState
from mullet.ports import CredentialsRejected, DeviceGarbled, DriverContext, IdentityMismatch
from mullet.testing.builders import miner
from mullet_hardware.asic import driver as driver_module
from mullet_hardware.asic import poller as poller_module
from mullet_hardware.asic.cache import IdentityCache
from mullet_hardware.asic.device import Found
from mullet_hardware.asic.driver import AsicDriver
from mullet_hardware.asic.makes import MOST_MODEL, Makes, make_of
from mullet_hardware.asic.poller import Poller
from mullet_hardware.asic.protocol import Reading, Target, fault_row, telemetry_of

_root = logging.getLogger()
_before = (list(_root.handlers), _root.level)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mullet_hardware.asic.firmware.monitor import MonitoredMiner
    from mullet_hardware.asic.registry import Registry
_root.handlers[:], _root.level = _before

HOST = "127.0.0.1"


@pytest.mark.parametrize(
    ("firmware_class", "entry", "make"),
    [
        ("luxos", {"class": "luxos", "model": "Antminer S19j Pro"}, "Antminer S19j Pro / luxos"),
        ("vnish", {"class": "vnish", "model": " Antminer  S19 Pro (Vnish 1.2.6) "}, "Antminer S19 Pro / vnish"),
        ("luxos", {"class": "luxos", "model": "x" * 500}, f"{'x' * MOST_MODEL} / luxos"),
        ("luxos", {"class": "luxos", "model": ""}, None),
        ("luxos", {"class": "luxos"}, None),
        ("luxos", {"class": "vnish", "model": "Antminer S19 Pro"}, None),
        (None, {"model": "Antminer S19 Pro"}, None),
    ],
)
def test_a_make_is_model_and_firmware_or_not_known(
    firmware_class: str | None, entry: dict[str, Any], make: str | None
) -> None:
    assert make_of(firmware_class, entry) == make


def test_makes_follow_what_is_found_and_alike_loads_share_one_text() -> None:
    cache = IdentityCache(None)
    makes = Makes(lambda: cache.entries, lambda bank, entry: "luxos" if bank == "pinned" else entry.get("class"))
    assert makes.of("pinned", HOST) is None
    for address in (HOST, "127.0.0.2"):
        cache.put(address, {"class": "luxos", "model": "Antminer S19"})
    assert makes.of("pinned", HOST) == "Antminer S19 / luxos"
    assert makes.of("pinned", HOST) is makes.of("mixed", "127.0.0.2")
    cache.put(HOST, {"class": "vnish", "model": "Antminer S21"})
    assert makes.of("mixed", HOST) == "Antminer S21 / vnish"
    assert makes.of("pinned", HOST) is None, "it is not what its bank says"


def test_a_reading_is_told_with_its_make_and_a_fault_without() -> None:
    row = Reading(watts=3_200.0, state=LoadState.ACTIVE).pack("wm-001", 5.0)
    assert telemetry_of(row, 9.0, "M50S / luxos").make == "M50S / luxos"
    assert telemetry_of(fault_row("wm-001", 5.0, "gone"), 9.0, "M50S / luxos").make is None
    assert "M50S" not in json.dumps(row)


# What the driver keeps


class Ticking:
    def __init__(self) -> None:
        self.at = 1_000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


def driver_with(cache: Path) -> AsicDriver:
    options = {"wm": {"class": "whatsminer_v2", "identity_cache": str(cache)}}
    return AsicDriver(DriverContext(options, lambda name: None, Ticking()))


async def test_a_sleeping_miner_that_names_no_model_keeps_its_own(tmp_path: Path) -> None:
    driver, load = driver_with(tmp_path / "known.json"), miner("wm-001")
    driver._found(load.address, {"class": "whatsminer_v2", "model": "M50S", "firmware": "2022"})
    driver._found(load.address, {"class": "whatsminer_v2", "model": "", "firmware": "2023"})
    assert driver._makes.of("wm", load.address) == "M50S / whatsminer_v2"
    driver._found(load.address, {"class": "luxos", "model": "", "firmware": "2023"})
    assert driver._makes.of("wm", load.address) is None
    await driver.close()


async def test_what_is_found_one_by_one_is_written_together_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "SAVE_AFTER_S", 0.01)
    monkeypatch.setattr(driver_module, "SAVE_AGAIN_S", 600.0)
    file = tmp_path / "known.json"
    driver = driver_with(file)
    driver._found(HOST, {"class": "whatsminer_v2", "model": "M50S"})
    async with asyncio.timeout(5.0):
        while not file.exists():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.01)
    for number in range(2, 20):
        driver._found(f"127.0.0.{number}", {"class": "whatsminer_v2", "model": "M50S"})
        await asyncio.sleep(0.005)
    assert set(json.loads(file.read_text())) == {HOST}
    await driver.close()
    assert len(json.loads(file.read_text())) == 19


# What the worker asks


class Named:
    """A device that says what it is."""

    def __init__(self, model: str = "M50S", error: Exception | None = None) -> None:
        self._model = model
        self._error = error
        self.asked = 0

    async def poll(self) -> Reading:
        return Reading(th_per_s=1.0)

    async def identify(self) -> Found:
        self.asked += 1
        if self._error is not None:
            raise self._error
        return Found("luxos", (), "Bitmain", self._model, "1.0")


def registry(told: list[tuple[str, dict[str, Any]]], bank: dict[str, Any]) -> Registry:
    return Registry(
        {"b": bank}, {HOST: {"class": "luxos"}}, lambda host, entry: told.append((host, entry)), lambda: 1e6
    )


async def test_a_device_is_asked_for_its_model() -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    known, target = registry(told, {"class": "luxos"}), Target("m-1", "b", HOST, None, 1.0)
    assert await known.name(target, cast(Any, Named()))
    assert told == [(HOST, {"class": "luxos", "model": "M50S", "firmware": "1.0"})]
    assert not await known.name(target, cast(Any, Named(model="")))
    with pytest.raises(DeviceGarbled):
        await known.name(target, cast(Any, Named(error=DeviceGarbled("no JSON"))))
    await known.close()


async def test_what_turns_out_to_be_another_device_is_identified_anew() -> None:
    target, answer = Target("m-1", "b", HOST, None, 1.0), IdentityMismatch("it is no LuxOS")
    for bank, forgotten in (({}, True), ({"class": "luxos"}, False)):
        known = registry([], bank)
        device = await known.device(target)
        with pytest.raises(IdentityMismatch):
            await known.name(target, cast(Any, Named(error=answer)))
        assert (known._devices.get(("b", HOST)) is not device) is forgotten
        await known.close()


async def test_what_is_only_watched_is_not_asked() -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    assert await registry(told, {}).name(Target("m-1", "b", HOST, None, 1.0), object.__new__(MonitoredMiner))
    assert told == []


class Fleet:
    """One device says what it is, one does not yet, one wants another password."""

    def __init__(self) -> None:
        rejected = Named(error=CredentialsRejected("wrong password"))
        self.devices = {"m-1": Named(), "m-2": Named(model=""), "m-3": rejected}

    async def device(self, target: Target) -> Any:
        return self.devices[target.load_id]

    async def name(self, target: Target, device: Any) -> bool:
        return bool((await device.identify()).model)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5.0):
        while not holds():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


async def test_models_are_asked_for_apart_from_polls_until_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "NAME_FIRST_S", 0.2)
    monkeypatch.setattr(poller_module, "NAME_AGAIN_S", 0.1)
    fleet, rows = Fleet(), list[list[Any]]()
    poller = Poller(cast(Any, fleet), name=fleet.name)
    poller.watch(1, [Target(name, "b", HOST, None, 1.0) for name in fleet.devices], 0.05, rows.append)
    task = asyncio.ensure_future(poller.run())
    try:
        await until(lambda: len(rows) >= 3)
        assert [device.asked for device in fleet.devices.values()] == [0, 0, 0], "the first readings come first"
        await until(lambda: fleet.devices["m-2"].asked >= 3 and fleet.devices["m-3"].asked > 0)
        assert fleet.devices["m-1"].asked == 1
        assert fleet.devices["m-3"].asked == 1, "a password that is tried over and over locks everybody out"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_all_watches_of_a_worker_take_turns_at_being_named() -> None:
    fleet = Fleet()
    poller = Poller(cast(Any, fleet), name=fleet.name)
    for number in (1, 2):
        poller.watch(number, [Target("m-1", "b", HOST, None, 1.0)] * 20, 10.0, lambda row: None)
    due = sorted(item.name_at for items in poller._watches.values() for item in items)
    assert due[0] >= asyncio.get_running_loop().time() + poller_module.NAME_FIRST_S - 1.0
    assert min(later - one for one, later in itertools.pairwise(due)) >= 0.99 * poller_module.NAME_APART_S
