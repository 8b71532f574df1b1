"""Stock Antminer of old (S9, X17): watched over RPC, its identity read from its web interface. Never written to.

Its interface has no stop. Fields after pyasic 0.79's antminer and bmminer backends and published answers; no capture
of such a device and no hardware.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from mullet.domain.telemetry import LoadState
from mullet.ports import DeviceGarbled, DeviceRefused, IdentityMismatch
from mullet_hardware.asic.allowed import Channel, allow
from mullet_hardware.asic.capability import ANTMINER_OLD
from mullet_hardware.asic.device import (
    Access,
    Answer,
    Found,
    IdentityPin,
    Order,
    celsius_of,
    first_of,
    refuse_error,
    short,
    text_of,
)
from mullet_hardware.asic.firmware.health_rules import antminer_health
from mullet_hardware.asic.firmware.rules import antminer_identities, antminer_rate
from mullet_hardware.asic.protocol import Health, Reading
from mullet_hardware.asic.transport import exchange, parse_object, rpc_is_whole
from mullet_hardware.asic.web import WebSession

OLD_MARKS = ("bmminer_version", "cgminer_version")
"""What its system page tells and that of X19 and later does not."""
SYSTEM_INFO = "/cgi-bin/get_system_info.cgi"
_BOARD = re.compile(r"temp\d+")


class AntminerOld:
    """One S9 or X17 with its maker's firmware."""

    def __init__(self, access: Access, pinned: str | None, full_watts: float, now: Callable[[], float]) -> None:
        self.pin = IdentityPin(pinned, access.host, now)
        self._access = access
        self._web = WebSession(ANTMINER_OLD, access.host, access.web_port, access.username, access.password)

    async def identify(self) -> Found:
        """Return who answers, after a check that it is an old Antminer with its maker's firmware.

        Raises:
            IdentityMismatch: it is another kind of device, or another one than is pinned.
            CredentialsRejected: the password is wrong.
        """
        host = self._access.host
        info = await self._system_info()
        kind = text_of(info, "minertype")
        if not kind:
            raise DeviceGarbled(f"{host} (get_system_info) answered without its type")
        if "antminer" not in kind.lower() or "vnish" in kind.lower():
            raise IdentityMismatch(f"{host} is no Antminer with its maker's firmware but {short(kind)!r}")
        if not any(mark in info for mark in OLD_MARKS):
            raise IdentityMismatch(f"{host} is an Antminer with its maker's later firmware")
        identities = antminer_identities(info, host)
        self.pin.saw(identities)
        self.pin.check()
        return Found(ANTMINER_OLD, identities, "Bitmain", kind, text_of(info, "system_filesystem_version"))

    async def read(self) -> Reading:
        """Return a fresh reading of hashrate and temperature."""
        return await self._read(ask_celsius=True)

    async def poll(self) -> Reading:
        """Return a fresh reading of the hashrate, by one request."""
        return await self._read(ask_celsius=False)

    async def apply(self, order: Order) -> Answer:
        """Raise DeviceRefused: nothing in this firmware's interface stops it."""
        raise DeviceRefused(f"{self._access.host} is only watched: its firmware cannot be stopped")

    async def health(self) -> Health:
        """Return boards, hottest sensor and slowest fan, from one request; of errors this firmware tells nothing."""
        await self.pin.ensure(self._who)
        return antminer_health(await self._rpc("stats"), f"{self._access.host} (rpc stats)")

    async def _read(self, ask_celsius: bool) -> Reading:
        await self.pin.ensure(self._who)
        who = f"{self._access.host} (rpc summary)"
        th_per_s = antminer_rate(first_of(await self._rpc("summary"), "SUMMARY", who), who)
        return Reading(
            # Without a hashrate it may boot, or wait for a pool: its firmware does not tell which.
            state=LoadState.ACTIVE if th_per_s else None,
            th_per_s=th_per_s,
            celsius=await self._celsius() if ask_celsius else None,
            identity=self.pin.pinned,
        )

    async def _celsius(self) -> float | None:
        """Return the temperature of the hottest board, None where this firmware does not tell it."""
        try:
            answer = await self._rpc("stats")
            refuse_error(answer, self._access.host)
        except (DeviceGarbled, DeviceRefused):
            return None
        stats = answer.get("STATS")
        fields: dict[str, Any] = {}
        for entry in stats if isinstance(stats, list) else []:
            fields.update(entry if isinstance(entry, dict) else {})
        found = [celsius_of(fields, name) or 0.0 for name in fields if _BOARD.fullmatch(name)]
        # A place without a board shows 0.
        return max(found, default=0.0) or None

    async def _rpc(self, command: str) -> dict[str, Any]:
        request = allow(ANTMINER_OLD, Channel.RPC, command, f'{{"command": "{command}"}}'.encode())
        raw = await exchange(self._access.host, self._access.rpc_port, request, rpc_is_whole)
        # This firmware leaves out the comma between the entries of `stats`.
        return parse_object(raw.replace(b"}{", b"},{"), f"{self._access.host} (rpc {command})")

    async def _system_info(self) -> dict[str, Any]:
        who = f"{self._access.host} (get_system_info)"
        answer = await self._web.fetch("GET", SYSTEM_INFO)
        if answer.status == 404:
            raise IdentityMismatch(f"{self._access.host} is no Antminer: it has no page {SYSTEM_INFO}")
        if answer.status != 200:
            raise DeviceGarbled(f"{who} answered HTTP {answer.status}")
        return parse_object(answer.body, who)

    async def _who(self) -> tuple[str, ...]:
        return antminer_identities(await self._system_info(), self._access.host)
