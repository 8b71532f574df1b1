"""The worker's miners: built from a pinned class, from what was found before, or by identification."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from mullet.ports import CredentialsRejected, DeviceUnreachable, IdentityMismatch
from mullet_hardware.asic.capability import (
    ANTMINER_MODERN,
    ANTMINER_OLD,
    AURADINE,
    AVALON,
    AXEOS,
    BRAIINS,
    EPIC,
    FIRMWARES,
    LUXOS,
    MARATHON,
    MONITOR,
    VNISH,
    WHATSMINER_V2,
    WHATSMINER_V3,
)
from mullet_hardware.asic.device import Access, Device, within
from mullet_hardware.asic.evidence import Standing
from mullet_hardware.asic.firmware.monitor import MonitoredMiner
from mullet_hardware.asic.foreign import Foreigners, rebuild
from mullet_hardware.asic.identify import RPC_PORT, WEB_PORT, Identifier, Ports
from mullet_hardware.asic.options import DEFAULT_REFUSED
from mullet_hardware.asic.protocol import Target

FIRMWARE = "mullet_hardware.asic.firmware"
DEVICES = MappingProxyType(
    {
        ANTMINER_MODERN: f"{FIRMWARE}.antminer:AntminerModern",
        ANTMINER_OLD: f"{FIRMWARE}.antminer_old:AntminerOld",
        AVALON: f"{FIRMWARE}.avalon:Avalon",
        AXEOS: f"{FIRMWARE}.axeos:AxeOs",
        BRAIINS: f"{FIRMWARE}.braiins:Braiins",
        EPIC: f"{FIRMWARE}.epic:EpicPowerPlay",
        MARATHON: f"{FIRMWARE}.marathon:Marathon",
        VNISH: f"{FIRMWARE}.vnish:Vnish",
        WHATSMINER_V2: f"{FIRMWARE}.whatsminer_v2:WhatsminerV2",
        AURADINE: f"{FIRMWARE}.auradine:Auradine",
        LUXOS: f"{FIRMWARE}.luxos:LuxOs",
        WHATSMINER_V3: f"{FIRMWARE}.whatsminer_v3:WhatsminerV3",
    }
)
"""Firmware class to the device that speaks it; each is built with (access, pinned identity, full watts, clock)."""
IDENTIFY_S = 600.0
"""Each step has a limit of its own; this bounds all of them with the wait for a turn among thousands."""
DOUBTED_AGAIN_S = 60.0
"""A miner that is not what it was found to be is asked anew at most this often."""

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
        self._identifier = Identifier()
        self._foreigners = Foreigners()
        self._doubted: dict[tuple[str, str], float] = {}
        self._identifying: dict[tuple[str, str], asyncio.Task[Device]] = {}

    def access(self, target: Target) -> Access:
        """Return how to reach the target."""
        return self._access(target, self._class_of(target) or MONITOR)

    def _access(self, target: Target, firmware_class: str) -> Access:
        bank, firmware = self._banks.get(target.bank, {}), FIRMWARES[firmware_class]
        barred = bank.get("barred")
        password = bank.get("password")
        if password is None and firmware.password is not None and not bank.get("accept_default_password"):
            barred = barred or DEFAULT_REFUSED
        rpc_port, web_port = bank.get("rpc_port") or firmware.rpc_port, bank.get("web_port") or firmware.web_port
        if bank.get("class") is None:
            # Ports of a bank of mixed miners are those of the usual RPC and web interface, whichever miner has them.
            rpc_port, web_port = _ports_of(bank).of(firmware)
        return Access(
            host=target.address,
            rpc_port=rpc_port or 0,
            web_port=web_port or 0,
            username=bank.get("username") or firmware.username or "",
            password=password if password is not None else firmware.password or "",
            barred=barred,
        )

    def _class_of(self, target: Target) -> str | None:
        return self._banks.get(target.bank, {}).get("class") or self._known.get(target.address, {}).get("class")

    def _device_of(self, firmware_class: str, target: Target) -> Device:
        build = device_class(firmware_class)
        if build is None:
            raise DeviceUnreachable(f"{target.address}: there is no driver for {firmware_class}")
        return build(self._access(target, firmware_class), target.identity, target.full_watts, self._now)

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
            return rebuild(entry["pyasic"], self.access(target), target.identity, self._now)
        return None

    def doubt(self, target: Target) -> None:
        """Forget what the target was found to be, so that its next use identifies it anew; a pinned class stays."""
        key = (target.bank, target.address)
        pinned = self._banks.get(target.bank, {}).get("class")
        if pinned is None and self._now() - self._doubted.get(key, -math.inf) >= DOUBTED_AGAIN_S:
            self._doubted[key] = self._now()
            self._known.pop(target.address, None)
            self._devices.pop(key, None)

    async def name(self, target: Target, device: Device) -> bool:
        """Ask a device for its model and tell what was found; return whether the model is known by then.

        A pinned class spares the identification that would have told it, and a machine that takes another's place is
        of another model maybe. One that only watches is known by pyasic's name for it, and is not asked.

        Raises:
            DeviceError: see `mullet.ports`; where another kind of device answers, the next use identifies it anew.
        """
        if isinstance(device, MonitoredMiner):
            return True
        try:
            who = await device.identify()
        except IdentityMismatch:
            self.doubt(target)
            raise
        self._found(target.address, {"class": who.firmware_class, "model": who.model, "firmware": who.firmware})
        return bool(who.model)

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
        bank, host = self._banks.get(target.bank, {}), target.address

        def build(firmware_class: str) -> Device:
            return self._device_of(firmware_class, target)

        if bank.get("class") is None:
            verdict = await self._identifier.look(host, _ports_of(bank))
            classes = tuple(name for name in verdict.classes if name in DEVICES)
            if verdict.standing is Standing.MINER and classes == verdict.classes:
                try:
                    device, who = await self._identifier.confirm(host, verdict, build)
                except CredentialsRejected:
                    if len(classes) > 1:
                        raise
                    # It says what it is, and will say at each use that the password is wrong; nothing is remembered.
                    return build(classes[0])
                self._found(host, {"class": who.firmware_class, "model": who.model, "firmware": who.firmware})
                return device
            if verdict.standing in (Standing.OTHER, Standing.SILENT, Standing.UNDECIDED):
                raise DeviceUnreachable(f"{host} was not identified: {verdict.reason}")
        miner, named = await self._foreigners.find(self._access(target, MONITOR), target.identity, self._now)
        self._found(host, {"class": MONITOR, "model": named[1] or "", "pyasic": named})
        return miner


def device_class(firmware_class: str) -> Callable[..., Device] | None:
    """Return what builds the devices of a class from (access, pinned identity, full watts, clock); None without one."""
    if firmware_class not in DEVICES:
        return None
    module, _, name = DEVICES[firmware_class].partition(":")
    build: Callable[..., Device] = getattr(import_module(module), name)
    return build


def _ports_of(bank: Mapping[str, Any]) -> Ports:
    return Ports(rpc=bank.get("rpc_port") or RPC_PORT, web=bank.get("web_port") or WEB_PORT)


def _retrieve(task: asyncio.Task[Device]) -> None:
    """Look at the failure, so that one nobody waits for any more is not reported as lost."""
    if not task.cancelled():
        task.exception()
