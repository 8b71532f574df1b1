"""Stock Antminer (X19, X21): hashrate over RPC, mode and writes over its web interface.

A write posts the pool list along with the mode, and the device keeps whatever was posted: so the list is read,
guarded, and goes back exactly as it was read. Fields after pyasic 0.79's web and config modules; no hardware.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pyasic.web.antminer import AntminerModernWebAPI

from mullet.domain.command import Verb
from mullet.ports import (
    DeviceError,
    DeviceGarbled,
    DeviceRefused,
    DeviceUnreachable,
    IdentityMismatch,
    UnsafeWrite,
)
from mullet_hardware.asic.allowed import Channel, allow
from mullet_hardware.asic.capability import ANTMINER_MODERN
from mullet_hardware.asic.device import (
    MOST_TH_PER_S,
    UNSETTLED_S,
    Access,
    Answer,
    Found,
    IdentityPin,
    Order,
    first_of,
    number,
    require_write_access,
    short,
    text_of,
)
from mullet_hardware.asic.firmware.health_rules import antminer_errors, antminer_health
from mullet_hardware.asic.firmware.rules import (
    LOW,
    MODES_OF_POINTS,
    NORMAL,
    SLEEP,
    antminer_identities,
    antminer_rate,
    has_pools,
    merge,
    mode_of,
    mode_to_write,
    state_by_mode,
)
from mullet_hardware.asic.protocol import Health, Reading
from mullet_hardware.asic.transport import ConnectionRefused, exchange, parse_object, rpc_is_whole
from mullet_hardware.asic.web import WebSession

WRITABLE = frozenset({"bitmain-fan-ctrl", "bitmain-fan-pwm", "freq-level", "miner-mode", "pools"})
FRESH_MODE_POLLS = 5


class GuardedWeb(AntminerModernWebAPI):  # type: ignore[misc]
    """pyasic's web interface over our own session: one write is in reach, and only with the pools just read."""

    def __init__(self, access: Access) -> None:
        super().__init__(access.host)
        self.port = access.web_port
        self._pools_read: str | None = None
        self.session = WebSession(ANTMINER_MODERN, access.host, access.web_port, access.username, access.password)

    async def send_command(
        self,
        command: str,
        ignore_errors: bool = False,
        allow_warning: bool = True,
        privileged: bool = False,
        **parameters: Any,
    ) -> dict[str, Any]:
        """Return the answer to a command of the allow-list.

        Raises:
            UnsafeWrite: a command that is not allowed, or a write of anything but mode, fan, level and the pool list
                exactly as it was just read.
        """
        who = f"{self.ip} ({command})"
        if command == "set_miner_conf":
            pools = parameters.get("pools")
            if not WRITABLE.issuperset(parameters) or not has_pools(pools) or json.dumps(pools) != self._pools_read:
                raise UnsafeWrite(f"{who}: this must not be written")
            answer = await self.session.fetch("POST", f"/cgi-bin/{command}.cgi", json.dumps(parameters).encode())
        elif parameters or privileged:
            raise UnsafeWrite(f"{who} is not among the commands that may be sent")
        else:
            answer = await self.session.fetch("GET", f"/cgi-bin/{command}.cgi")
        if answer.status != 200:
            raise DeviceGarbled(f"{who} answered HTTP {answer.status}")
        found = parse_object(answer.body, who)
        if command == "get_miner_conf":
            self._pools_read = json.dumps(found.get("pools"))
        return found


class AntminerModern:
    """One Antminer with its maker's firmware."""

    def __init__(self, access: Access, pinned: str | None, full_watts: float, now: Callable[[], float]) -> None:
        self.pin = IdentityPin(pinned, access.host, now)
        self._access = access
        self._now = now
        self._web = GuardedWeb(access)
        self._ordered_at = -math.inf
        self._mode: int | None = None
        self._polls_since_mode = 0

    async def identify(self) -> Found:
        """Return who answers, after a check that it is an Antminer with its maker's firmware.

        Raises:
            IdentityMismatch: it is another kind of device, or another one than is pinned.
            CredentialsRejected: the password is wrong.
        """
        host = self._access.host
        front = await self._web.session.fetch_open("/")
        page = front.body.lower() + front.headers.get("www-authenticate", "").encode().lower()
        if b"anthillos" in page or b"vnish" in page:
            raise IdentityMismatch(f"{host} runs VNish, not its maker's firmware")
        info = await self._web.get_system_info()
        kind = text_of(info, "minertype")
        if not kind:
            raise DeviceGarbled(f"{host} (get_system_info) answered without its type")
        if "antminer" not in kind.lower() or "vnish" in kind.lower():
            raise IdentityMismatch(f"{host} is no Antminer with its maker's firmware but {short(kind)!r}")
        identities = antminer_identities(info, host)
        self.pin.saw(identities)
        self.pin.check()
        return Found(ANTMINER_MODERN, identities, "Bitmain", kind, text_of(info, "system_filesystem_version"))

    async def read(self) -> Reading:
        """Return a fresh reading of hashrate and mode."""
        return await self._read(ask_mode=True)

    async def poll(self) -> Reading:
        """Return a reading; of one that plainly hashes and was left alone the mode is asked every few polls only."""
        settled = self._mode in (NORMAL, LOW) and self._now() - self._ordered_at > UNSETTLED_S
        return await self._read(ask_mode=not settled or self._polls_since_mode >= FRESH_MODE_POLLS)

    async def apply(self, order: Order) -> Answer:
        """Read, guard, merge, write. An order for power is one for the mode that its point's name stands for.

        Raises:
            UnsafeWrite: what was read holds no pool list or no mode, so that a write could lose the pools.
            DeviceRefused: power for a point that is no mode, or for a miner that sleeps.
        """
        host = self._access.host
        require_write_access(self._access)
        if order.verb is Verb.POWER and order.point not in MODES_OF_POINTS:
            raise DeviceRefused(f"{host} cannot be set in watts, only to a point named {' or '.join(MODES_OF_POINTS)}")
        await self.pin.ensure(self._who)
        conf = await self._web.get_miner_conf()
        # First of all: a configuration without pools is written under no order.
        merge(conf, NORMAL, host)
        # Whatever mode it is in, known here or not, it may be put to sleep.
        asleep = order.verb is Verb.SLEEP
        wanted = SLEEP if asleep else mode_to_write(order.verb, order.point, mode_of(conf, host), host)
        self._mode = None
        self._ordered_at = self._now()
        if wanted is None:
            return Answer(True, "it is in that mode already; nothing was written")
        said = await self._web.set_miner_conf(merge(conf, wanted, host))
        code = text_of(said, "code")
        if not code and text_of(said, "stats") not in ("success", "error"):
            raise DeviceGarbled(f"{host} (set_miner_conf) answered without a code")
        return Answer(code == "M000", f"{code} {short(said.get('msg', ''))}".strip())

    async def health(self) -> Health:
        """Return boards, hottest sensor and slowest fan from the RPC, and the checks that its web interface shows."""
        await self.pin.ensure(self._who)
        host = self._access.host
        told = antminer_health(await self._rpc("stats"), f"{host} (rpc stats)")
        who = f"{host} (web summary)"
        return replace(told, errors=antminer_errors(first_of(await self._web.summary(), "SUMMARY", who), who))

    async def _read(self, ask_mode: bool) -> Reading:
        await self.pin.ensure(self._who)
        th_per_s, refused = None, None
        try:
            th_per_s = await self._rate_by_rpc()
        except ConnectionRefused as error:
            # The mining process rests in sleep mode, and may take the RPC with it.
            refused = error
        if refused is not None or not th_per_s or ask_mode:
            self._mode = await self._ask_mode(refused)
            self._polls_since_mode = 0
        self._polls_since_mode += 1
        if refused is not None:
            th_per_s = await self._rate_by_web()
        return Reading(state=state_by_mode(self._mode, th_per_s), th_per_s=th_per_s, identity=self.pin.pinned)

    async def _rate_by_rpc(self) -> float | None:
        who = f"{self._access.host} (rpc summary)"
        return antminer_rate(first_of(await self._rpc("summary"), "SUMMARY", who), who)

    async def _rpc(self, command: str) -> dict[str, Any]:
        request = allow(ANTMINER_MODERN, Channel.RPC, command, f'{{"command": "{command}"}}'.encode())
        raw = await exchange(self._access.host, self._access.rpc_port, request, rpc_is_whole)
        return parse_object(raw, f"{self._access.host} (rpc {command})")

    async def _rate_by_web(self) -> float | None:
        who = f"{self._access.host} (web summary)"
        summary = first_of(await self._web.summary(), "SUMMARY", who)
        scale = {"TH/s": 1.0, "GH/s": 1e-3, "MH/s": 1e-6}.get(text_of(summary, "rate_unit"))
        return None if scale is None else number(summary, "rate_5s", scale, MOST_TH_PER_S, who)

    async def _ask_mode(self, refused: DeviceError | None) -> int | None:
        """Return the mode, None where the hashrate is known but the configuration cannot be read."""
        try:
            return mode_of(await self._web.get_miner_conf(), self._access.host)
        except (DeviceGarbled, DeviceRefused, DeviceUnreachable):
            if refused is not None:
                raise
            return None

    async def _who(self) -> tuple[str, ...]:
        return antminer_identities(await self._web.get_system_info(), self._access.host)
