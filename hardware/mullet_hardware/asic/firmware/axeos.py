"""Bitaxe and NerdAxe (AxeOS): one page over HTTP tells all of it. Only watched.

It has no stop but a change of its clock, which whoever reaches it may make: there is no password. Fields after pyasic
0.79's espminer backend and a published capture; no hardware.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mullet.domain.telemetry import LoadState
from mullet.ports import DeviceGarbled, DeviceRefused, IdentityMismatch
from mullet_hardware.asic.capability import AXEOS
from mullet_hardware.asic.device import (
    MOST_TH_PER_S,
    MOST_WATTS,
    Access,
    Answer,
    Found,
    IdentityPin,
    Order,
    celsius_of,
    number,
    text_of,
)
from mullet_hardware.asic.firmware.health_rules import at_work, hottest, slowest
from mullet_hardware.asic.protocol import Health, Reading
from mullet_hardware.asic.transport import parse_object
from mullet_hardware.asic.web import fetch

SYSTEM_INFO = "/api/system/info"
NO_SENSOR = -1.0
"""What it tells as the temperature where its sensor does not answer."""


class AxeOs:
    """One Bitaxe or NerdAxe."""

    def __init__(self, access: Access, pinned: str | None, full_watts: float, now: Callable[[], float]) -> None:
        self.pin = IdentityPin(pinned, access.host, now)
        self._access = access

    async def identify(self) -> Found:
        """Return who answers, after a check that it runs AxeOS.

        Raises:
            IdentityMismatch: it is another kind of device, or another one than is pinned.
        """
        host = self._access.host
        info = await self._info()
        version = text_of(info, "version")
        identities = self._saw(info)
        if not identities or not version:
            raise DeviceGarbled(f"{host} ({SYSTEM_INFO}) answered without MAC or version")
        model = text_of(info, "deviceModel")
        # Only its forks tell a model of their own; a Bitaxe is told by its chip.
        return Found(AXEOS, identities, "NerdAxe" if model else "Bitaxe", model or text_of(info, "ASICModel"), version)

    async def read(self) -> Reading:
        """Return a fresh reading."""
        info = await self._seen_info()
        who = f"{self._access.host} ({SYSTEM_INFO})"
        th_per_s = number(info, "hashRate", 1e-3, MOST_TH_PER_S, who)
        celsius = celsius_of(info, "temp")
        return Reading(
            watts=number(info, "power", 1.0, MOST_WATTS, who),
            # Without a hashrate it may boot, be too hot, or have no pool.
            state=LoadState.ACTIVE if th_per_s else None,
            th_per_s=th_per_s,
            celsius=None if celsius == NO_SENSOR else celsius,
            identity=self.pin.pinned or text_of(info, "macAddr").upper() or None,
        )

    async def poll(self) -> Reading:
        """Return a fresh reading: one request either way."""
        return await self.read()

    async def apply(self, order: Order) -> Answer:
        """Raise DeviceRefused: this firmware is only watched."""
        raise DeviceRefused(f"{self._access.host} is only watched: AxeOS has no stop")

    async def health(self) -> Health:
        """Return its one board, the chip's temperature, the fan, and whether it was too hot; one request tells all."""
        info = await self._seen_info()
        who = f"{self._access.host} ({SYSTEM_INFO})"
        too_hot = info.get("overheat_mode")
        return Health(
            boards=at_work([number(info, "hashRate", 1e-3, MOST_TH_PER_S, who)]),
            boards_fitted=1,
            celsius=hottest(() if info.get("temp") == NO_SENSOR else (info.get("temp"),)),
            fan_rpm=slowest((info.get("fanrpm"),), who),
            errors=None if too_hot is None else ("overheat",) if too_hot else (),
        )

    async def _seen_info(self) -> dict[str, Any]:
        info = await self._info()
        if not self._saw(info) and self.pin.pinned is not None:
            raise DeviceGarbled(f"{self._access.host} ({SYSTEM_INFO}) answered without MAC")
        return info

    def _saw(self, info: Mapping[str, Any]) -> tuple[str, ...]:
        """Return who answered, checked against the pin; empty where it does not tell."""
        mac = text_of(info, "macAddr").upper()
        if not mac:
            return ()
        self.pin.saw((mac,))
        self.pin.check()
        return (mac,)

    async def _info(self) -> dict[str, Any]:
        who = f"{self._access.host} ({SYSTEM_INFO})"
        answer = await fetch(AXEOS, self._access.host, self._access.web_port, "GET", SYSTEM_INFO)
        if answer.status in (401, 403, 404):
            raise IdentityMismatch(f"{self._access.host} does not run AxeOS: {SYSTEM_INFO} is HTTP {answer.status}")
        if answer.status != 200:
            raise DeviceGarbled(f"{who} answered HTTP {answer.status}")
        info = parse_object(answer.body, who)
        if not text_of(info, "ASICModel"):
            raise DeviceGarbled(f"{who} answered without its kind of chip")
        return info
