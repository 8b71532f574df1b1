"""The worker's miners: built from a pinned class, from what was found before, or by pyasic's identification."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from types import MappingProxyType
from typing import Any

from pyasic import settings
from pyasic.miners.backends.antminer import AntminerModern
from pyasic.miners.backends.btminer import BTMinerV2, BTMinerV3
from pyasic.miners.factory import MINER_CLASSES, MinerTypes, miner_factory

from mullet.ports import DeviceUnreachable, IdentityMismatch
from mullet_hardware.asic.capability import ANTMINER_MODERN, FIRMWARES, MONITOR, WHATSMINER_V2
from mullet_hardware.asic.device import Access, Device, within
from mullet_hardware.asic.firmware.monitor import MonitoredMiner
from mullet_hardware.asic.protocol import Target

FIRMWARE = "mullet_hardware.asic.firmware"
DEVICES = MappingProxyType(
    {
        ANTMINER_MODERN: f"{FIRMWARE}.antminer:AntminerModern",
        WHATSMINER_V2: f"{FIRMWARE}.whatsminer_v2:WhatsminerV2",
    }
)
"""Firmware class to the device that speaks it; each is built with (access, pinned identity, full watts, clock)."""
MOST_IDENTIFICATIONS = 16
FACTORY_S = 10
IDENTIFY_S = 60.0
V3_VERSION = "20250101"
"""Any version from which pyasic takes its V3 class."""

Entry = dict[str, Any]


class Registry:
    """Gives the device of a target; `found` is told what was identified, to be remembered."""

    def __init__(
        self,
        banks: dict[str, dict[str, Any]],
        known: dict[str, Entry],
        found: Callable[[str, Entry], None],
        now: Callable[[], float],
    ) -> None:
        self._banks = banks
        self._known = known
        self._found = found
        self._now = now
        self._devices: dict[tuple[str, str], Device] = {}
        self._slots = asyncio.Semaphore(MOST_IDENTIFICATIONS)
        self._identifying: dict[tuple[str, str], asyncio.Task[Device]] = {}
        settings.update("factory_get_timeout", FACTORY_S)
        settings.update("factory_get_retries", 2)

    def access(self, target: Target) -> Access:
        """Return how to reach the target."""
        return self._access(target, self._class_of(target) or MONITOR)

    def _access(self, target: Target, firmware_class: str) -> Access:
        bank, firmware = self._banks.get(target.bank, {}), FIRMWARES[firmware_class]
        barred = bank.get("barred")
        password = bank.get("password")
        if password is None and firmware.password is not None and not bank.get("accept_default_password"):
            barred = barred or "only the maker's default password is known, and the policy does not accept it"
        return Access(
            host=target.address,
            rpc_port=bank.get("rpc_port") or firmware.rpc_port or 0,
            web_port=bank.get("web_port") or firmware.web_port or 0,
            username=bank.get("username") or firmware.username or "",
            password=password if password is not None else firmware.password or "",
            barred=barred,
        )

    def _class_of(self, target: Target) -> str | None:
        return self._banks.get(target.bank, {}).get("class") or self._known.get(target.address, {}).get("class")

    def _device_of(self, firmware_class: str, target: Target) -> Device:
        module, _, name = DEVICES[firmware_class].partition(":")
        build = getattr(import_module(module), name)
        device: Device = build(self._access(target, firmware_class), target.identity, target.full_watts, self._now)
        return device

    async def device(self, target: Target) -> Device:
        """Return the device of `target`, identifying it where its class is not known.

        Raises:
            DeviceUnreachable: it could not be identified.
        """
        key = (target.bank, target.address)
        device = self._devices.get(key)
        if device is None:
            device = self._build(target) or await self._identified_once(key, target)
            self._devices[key] = device
        if device.pin.pinned != target.identity:
            device.pin.pinned = target.identity
        return device

    def _build(self, target: Target) -> Device | None:
        """Return the device where its class is pinned or remembered; touches no network."""
        entry = self._known.get(target.address, {})
        firmware_class = self._class_of(target)
        if firmware_class is not None and firmware_class in DEVICES:
            return self._device_of(firmware_class, target)
        if firmware_class == MONITOR and "pyasic" in entry:
            kind, model, version = entry["pyasic"]
            classes = MINER_CLASSES.get(MinerTypes[kind], {}) if kind in MinerTypes.__members__ else {}
            if model in classes:
                miner = classes[model](target.address, version)
                return MonitoredMiner(miner, self.access(target), target.identity, self._now)
        return None

    async def close(self) -> None:
        """End identifications under way."""
        tasks = list(self._identifying.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _identified_once(self, key: tuple[str, str], target: Target) -> Device:
        """Identify in a task of its own: it outlives the deadline of whoever asked first."""
        task = self._identifying.get(key)
        if task is None or task.done():
            call = within(IDENTIFY_S, target.address, self._identified(target))
            task = self._identifying[key] = asyncio.create_task(call, name=f"identify {target.address}")
            task.add_done_callback(_retrieve)
        device = await asyncio.shield(task)
        self._identifying.pop(key, None)
        return device

    async def _identified(self, target: Target) -> Device:
        async with self._slots:
            miner = await miner_factory.get_miner(target.address)
        if miner is None:
            raise DeviceUnreachable(f"{target.address} was not identified")
        pinned = self._banks.get(target.bank, {}).get("class")
        candidates: list[Device] = []
        if pinned is None and isinstance(miner, BTMinerV2):
            candidates.append(self._device_of(WHATSMINER_V2, target))
        elif pinned is None and isinstance(miner, AntminerModern):
            candidates.append(self._device_of(ANTMINER_MODERN, target))
        for device in candidates:
            try:
                who = await device.identify()
            except IdentityMismatch:
                device.pin.check()
                continue
            self._found(target.address, {"class": who.firmware_class, "model": who.model, "firmware": who.firmware})
            return device
        named = _name_of(miner)
        if named is None:
            raise DeviceUnreachable(f"{target.address}: {miner.model} is not a model that pyasic knows")
        self._found(target.address, {"class": MONITOR, "model": named[1] or "", "pyasic": named})
        return MonitoredMiner(miner, self._access(target, MONITOR), target.identity, self._now)


def _retrieve(task: asyncio.Task[Device]) -> None:
    """Look at the failure, so that one nobody waits for any more is not reported as lost."""
    if not task.cancelled():
        task.exception()


def _name_of(miner: Any) -> list[Any] | None:
    """Return (type, model, version) from which the same class can be built; None for a model that is not known."""
    version = V3_VERSION if isinstance(miner, BTMinerV3) else None
    name = type(miner).__name__
    for kind, classes in MINER_CLASSES.items():
        for model, candidate in classes.items():
            if model is not None and candidate.__name__ == name:
                return [kind.name, model, version]
    return None
