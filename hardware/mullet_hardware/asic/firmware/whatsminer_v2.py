"""Whatsminer with V2 firmware (up to 2024-10): reads over plain RPC, writes through pyasic's encrypted commands.

Codes and fields after MicroBT's API document 2.0.5 and pyasic 0.79; ground truth in the simulator, no hardware.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from pyasic.rpc.btminer import BTMinerRPCAPI, create_privileged_cmd, parse_btminer_priviledge_data

from mullet.domain.command import Verb
from mullet.ports import CredentialsRejected, DeviceGarbled, DeviceRefused, IdentityMismatch, UnsafeWrite
from mullet_hardware.asic.allowed import AllowedRequest, Channel, allow
from mullet_hardware.asic.capability import WHATSMINER_V2
from mullet_hardware.asic.device import (
    MOST_TH_PER_S,
    MOST_WATTS,
    UNSETTLED_S,
    Access,
    Answer,
    Found,
    IdentityPin,
    Order,
    celsius_of,
    first_of,
    message_of,
    number,
    refuse_error,
    require_write_access,
    short,
    text_of,
)
from mullet_hardware.asic.evidence import FIRST_V3
from mullet_hardware.asic.firmware.health_rules import at_work, entries, errors_of, hottest, slowest
from mullet_hardware.asic.firmware.rules import state_by_switch
from mullet_hardware.asic.protocol import Health, Reading
from mullet_hardware.asic.transport import exchange, parse_object, rpc_is_whole

OK = 131
TOKEN_PROBLEMS = frozenset({23, 135, 137})
"""Invalid JSON after decryption, token error, base64 error: a stale token or a wrong password."""
FANS = ("Fan Speed In", "Fan Speed Out")
MOST_CODES = 100.0
FRESH_TOKEN_S = 900.0
"""Half of a token's life: one that is younger is good for the next order whenever that comes."""


@lru_cache(maxsize=32)
def _question(command: str) -> AllowedRequest:
    """Return the request of a plain command, made and checked once: it is asked of thousands every second."""
    return allow(WHATSMINER_V2, Channel.RPC, command, json.dumps({"command": command}).encode())


class GuardedRpc(BTMinerRPCAPI):  # type: ignore[misc]
    """pyasic's tokens and encryption over our own connections: nothing leaves that the allow-list does not name."""

    def __init__(self, host: str, port: int, password: str) -> None:
        super().__init__("0.0.0.0", port)
        self.ip = host
        self.pwd = password

    async def send_command(
        self,
        command: str,
        parameters: str | int | bool | None = None,
        ignore_errors: bool = False,
        allow_warning: bool = True,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the answer to a reading command, errors of the device included."""
        request = _question(command)
        if request.writes or parameters is not None or kwargs:
            raise UnsafeWrite(f"{self.ip}: {command} must not be sent like this")
        return parse_object(await exchange(self.ip, self.port, request, rpc_is_whole), f"{self.ip} ({command})")

    async def send_privileged_command(
        self,
        command: str,
        ignore_errors: bool = False,
        timeout: int = 10,  # noqa: ASYNC109 (the signature is pyasic's; deadlines are kept outside)
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the decrypted answer to a writing command, errors of the device included."""
        if not allow(WHATSMINER_V2, Channel.RPC, command).writes:
            raise UnsafeWrite(f"{self.ip}: {command} is not sent encrypted")
        who = f"{self.ip} ({command})"
        token = await self.get_token()
        sealed = create_privileged_cmd(token, {"cmd": command, **kwargs})
        request = allow(WHATSMINER_V2, Channel.RPC, command, sealed)
        answer = parse_object(await exchange(self.ip, self.port, request, rpc_is_whole), who)
        if "enc" not in answer:
            return answer
        try:
            return dict(parse_btminer_priviledge_data(token, answer))
        except (ValueError, TypeError) as error:
            raise DeviceGarbled(f"{who} answered something that cannot be decrypted") from error

    async def _send_bytes(self, data: bytes, **kwargs: Any) -> bytes:
        raise UnsafeWrite(f"{self.ip}: bytes of which it is not known what they ask are not sent")


class WhatsminerV2:
    """One Whatsminer V2."""

    def __init__(self, access: Access, pinned: str | None, full_watts: float, now: Callable[[], float]) -> None:
        self.pin = IdentityPin(pinned, access.host, now)
        self._access = access
        self._full_watts = full_watts
        self._now = now
        self._rpc = GuardedRpc(access.host, access.rpc_port, access.password)
        self._limit_watts: float | None = None
        self._ordered_at = -math.inf
        self._prepared_at = -math.inf

    async def identify(self) -> Found:
        """Return who answers, after a check that it is a Whatsminer with V2 firmware.

        Raises:
            IdentityMismatch: it is another kind of device, or another one than is pinned.
        """
        host = self._access.host
        try:
            version = message_of(await self._rpc.send_command("get_version"), f"{host} (get_version)")
        except DeviceRefused as error:
            raise IdentityMismatch(f"{host} is no Whatsminer: it does not know get_version") from error
        firmware = text_of(version, "fw_ver")
        if not firmware:
            raise DeviceGarbled(f"{host} tells no firmware version")
        if firmware[:8].isdigit() and int(firmware[:8]) >= FIRST_V3:
            raise IdentityMismatch(f"{host} has firmware {short(firmware)}, whose protocol is V3")
        model = ""
        try:
            details = first_of(await self._rpc.send_command("devdetails"), "DEVDETAILS", f"{host} (devdetails)")
        except DeviceRefused:
            # Its miner process rests while it is off, and with it this command.
            details = {}
        if details:
            model = text_of(details, "Model")
            driver = text_of(details, "Driver").lower()
            if driver not in ("bitmicro", "btminer"):
                raise IdentityMismatch(f"{host} is no Whatsminer: its boards are driven by {short(driver)!r}")
        identities = await self._who()
        self.pin.saw(identities)
        self.pin.check()
        return Found(WHATSMINER_V2, identities, "MicroBT", model, firmware)

    async def read(self) -> Reading:
        """Return a fresh reading from `summary` and `status`."""
        await self.pin.ensure(self._who)
        return await self._read(always_status=True)

    async def poll(self) -> Reading:
        """Return a reading; one that plainly hashes and was left alone is asked for its summary only."""
        await self.pin.ensure(self._who)
        return await self._read(always_status=self._now() - self._ordered_at < UNSETTLED_S)

    async def apply(self, order: Order) -> Answer:
        """Send an order; a refused token is dropped and the order sent once more.

        Raises:
            CredentialsRejected: the password is wrong.
        """
        require_write_access(self._access)
        await self.pin.ensure(self._who)
        command, fields = await self._command(order)
        for last in (False, True):
            self._ordered_at = self._now()
            answer = await self._rpc.send_privileged_command(command, **fields)
            code = answer.get("Code")
            if not isinstance(code, int):
                raise DeviceGarbled(f"{self._access.host} ({command}) answered without a code")
            if code not in TOKEN_PROBLEMS:
                return Answer(code == OK and answer.get("STATUS") == "S", short(answer.get("Msg", "")))
            self._rpc.token = None
            if last:
                raise CredentialsRejected(f"{self._access.host} does not accept the password or its token")
        raise AssertionError("unreachable")

    async def prepare(self) -> None:
        """Fetch a token ahead of need, so that the first order of a shed takes one request and not two."""
        fresh = self._rpc.token is not None and self._now() - self._prepared_at < FRESH_TOKEN_S
        if fresh or self._access.barred is not None:
            return
        await self.pin.ensure(self._who)
        self._rpc.token = None
        await self._rpc.get_token()
        self._prepared_at = self._now()

    async def health(self) -> Health:
        """Return boards, hottest chip, slowest fan and error codes; of a miner that is off it tells little."""
        await self.pin.ensure(self._who)
        who = f"{self._access.host} (devs)"
        devs = await self._rpc.send_command("devs")
        refuse_error(devs, who)
        boards = entries(devs.get("DEVS"), "boards", who)
        return Health(
            boards=at_work([_rate_of(board, who) for board in boards]),
            celsius=hottest(board.get("Chip Temp Max") for board in boards),
            fan_rpm=slowest((board.get(name) for board in boards for name in FANS), who),
            errors=await self._errors(),
            boards_fitted=len(boards),
        )

    async def _errors(self) -> tuple[str, ...] | None:
        who = f"{self._access.host} (get_error_code)"
        try:
            codes = message_of(await self._rpc.send_command("get_error_code"), who).get("error_code")
        except DeviceRefused:
            # Firmware of old does not know the command; its summary tells them.
            return await self._errors_by_summary()
        if not isinstance(codes, list):
            raise DeviceGarbled(f"{who} answered without a list of codes")
        # Each entry is an object whose key is the code and whose value is when it began.
        return errors_of(code for entry in codes for code in (entry if isinstance(entry, dict) else (entry,)))

    async def _errors_by_summary(self) -> tuple[str, ...] | None:
        who = f"{self._access.host} (summary)"
        summary = first_of(await self._rpc.send_command("summary"), "SUMMARY", who)
        count = number(summary, "Error Code Count", 1.0, MOST_CODES, who)
        if count is None:
            return None
        return errors_of(summary[name] for place in range(int(count)) if (name := f"Error Code {place}") in summary)

    async def _command(self, order: Order) -> tuple[str, dict[str, Any]]:
        if order.verb is Verb.SLEEP:
            return "power_off", {"respbefore": "true"}
        if order.verb is Verb.WAKE:
            return "power_on", {}
        if self._limit_watts is None:
            self._limit_watts = (await self._read(always_status=False)).limit_watts
        base_watts = self._limit_watts or self._full_watts
        percent = min(100, math.floor(100.0 * order.watts / base_watts + 1e-6))
        if percent < 1:
            raise DeviceRefused(f"{self._access.host} cannot be set to {order.watts:.0f} W")
        return "set_power_pct", {"percent": str(percent)}

    async def _read(self, always_status: bool) -> Reading:
        who = f"{self._access.host} (summary)"
        try:
            summary = first_of(await self._rpc.send_command("summary"), "SUMMARY", who)
        except DeviceRefused:
            # As with devdetails: while it is off, `status` alone may answer.
            summary = {}
        watts = number(summary, "Power", 1.0, MOST_WATTS, who)
        limit_watts = number(summary, "Power Limit", 1.0, MOST_WATTS, who)
        th_per_s = number(summary, "MHS 5s", 1e-6, MOST_TH_PER_S, who)
        if th_per_s is None:
            th_per_s = number(summary, "HS RT", 1e-6, MOST_TH_PER_S, who)
        if limit_watts:
            self._limit_watts = limit_watts
        mac = text_of(summary, "MAC")
        if mac:
            self.pin.saw_one(mac)
            self.pin.check()
        off = await self._off() if always_status or not th_per_s else None
        return Reading(
            watts=watts,
            limit_watts=limit_watts,
            state=state_by_switch(off, th_per_s),
            th_per_s=th_per_s,
            celsius=celsius_of(summary, "Temperature"),
            identity=self.pin.pinned or mac or None,
        )

    async def _off(self) -> bool | None:
        who = f"{self._access.host} (status)"
        message: Mapping[str, Any] = message_of(await self._rpc.send_command("status"), who)
        told = text_of(message, "mineroff").lower() or text_of(message, "btmineroff").lower()
        return {"true": True, "false": False}.get(told)

    async def _who(self) -> tuple[str, ...]:
        who = f"{self._access.host} (get_miner_info)"
        try:
            info = message_of(await self._rpc.send_command("get_miner_info"), who)
        except DeviceRefused:
            # Firmware of 2021 does not know the command; of others' summaries none tells a MAC.
            info = await self._who_by_summary()
        found = tuple(text for name in ("mac", "minersn") if (text := text_of(info, name).upper()))
        if not found:
            raise DeviceGarbled(f"{who} answered without MAC and serial")
        return found

    async def _who_by_summary(self) -> dict[str, str]:
        who = f"{self._access.host} (summary)"
        try:
            mac = text_of(first_of(await self._rpc.send_command("summary"), "SUMMARY", who), "MAC")
        except DeviceRefused:
            mac = ""
        if not mac:
            raise IdentityMismatch(f"{self._access.host} does not tell who it is, as a Whatsminer would")
        return {"mac": mac}


def _rate_of(board: Mapping[str, Any], who: str) -> float | None:
    """Return the hashrate of a board in TH/s, 0 for one that is not alive; the mean where no recent one is told."""
    if text_of(board, "Status") != "Alive":
        return 0.0
    told = (number(board, name, 1e-6, MOST_TH_PER_S, who) for name in ("MHS 5s", "MHS 1m", "MHS av"))
    return next((rate for rate in told if rate is not None), None)
