"""Whatsminer with V3 firmware (from 2024-11): JSON with a length in front on port 4433, writes signed one by one.

Commands, codes and fields after MicroBT's API document 3.0 (apidoc.whatsminer.com) and pyasic 0.79; no hardware.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pyasic.rpc.btminer import BTMinerV3RPCAPI

from mullet.domain.command import Verb
from mullet.ports import (
    CredentialsRejected,
    DeviceGarbled,
    DeviceRefused,
    DeviceUnreachable,
    IdentityMismatch,
    NoPermission,
    UnsafeWrite,
)
from mullet_hardware.asic.allowed import Channel, allow
from mullet_hardware.asic.capability import WHATSMINER_V3
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
    number,
    require_write_access,
    short,
    text_of,
)
from mullet_hardware.asic.firmware.health_rules import at_work, entries, errors_of, hottest, slowest
from mullet_hardware.asic.firmware.rules import state_by_switch
from mullet_hardware.asic.protocol import Health, Reading
from mullet_hardware.asic.transport import MOST_ANSWER_BYTES, exchange, parse_object

LENGTH_BYTES = 4
OK, INVALID_COMMAND, DENIED = 0, -2, -4
FANS = ("fan-speed-in", "fan-speed-out")
STATUS_OF_BOARDS = "summary+edevs"
ACCESS_WORDS = ("token", "password", "permission")
"""A refused signature is told by code -4 or, in some firmware, by a plain failure whose text says so."""


@dataclass(frozen=True, slots=True)
class _Info:
    """What `get.device.info` told: who it is, whether it works, and what signing takes."""

    model: str
    firmware: str
    api: str
    identities: tuple[str, ...]
    mac: str
    working: bool | None
    may_write: bool | None
    errors: tuple[str, ...] | None


class GuardedRpc(BTMinerV3RPCAPI):  # type: ignore[misc]
    """pyasic's V3 commands over our own connections: nothing leaves that the allow-list does not name.

    pyasic signs with this machine's clock, a hard-coded account and a salt that it never renews. Here the account is
    the policy's, the salt is dropped when it is refused, and the time is the miner's own, as it last told it: a miner
    whose clock is off takes no other.
    """

    def __init__(self, access: Access, now: Callable[[], float]) -> None:
        super().__init__("0.0.0.0", access.rpc_port)
        self.ip = access.host
        self.pwd = access.password
        self.salt: str | None = None
        self._account = access.username
        self._now = now
        self._clock_ahead_s = 0.0

    def learn(self, salt: str, when: float | None) -> None:
        """Remember what signing takes; `when` is the miner's clock just now, in seconds."""
        self.salt = salt
        if when is not None:
            self._clock_ahead_s = when - self._now()

    async def send_command(
        self,
        command: str,
        parameters: Any | None = None,
        ignore_errors: bool = False,
        allow_warning: bool = True,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the answer to a command, whatever its code.

        Raises:
            UnsafeWrite: the command, with the argument that decides what it does, is not on the allow-list.
        """
        what = f"{command}:{parameters}" if isinstance(parameters, str) else command
        asked: dict[str, Any] = {"cmd": command}
        if parameters is not None:
            asked["param"] = parameters
        if kwargs:
            raise UnsafeWrite(f"{self.ip}: {command} must not be sent like this")
        if allow(WHATSMINER_V3, Channel.RPC, what).writes:
            asked |= self._signature(command)
        text = json.dumps(asked).encode()
        request = allow(WHATSMINER_V3, Channel.RPC, what, len(text).to_bytes(LENGTH_BYTES, "little") + text)
        who = f"{self.ip} ({command})"
        return parse_object(unframe(await exchange(self.ip, self.port, request, frame_is_whole), who), who)

    def _signature(self, command: str) -> dict[str, Any]:
        if self.salt is None:
            raise UnsafeWrite(f"{self.ip}: {command} cannot be signed before the miner told its salt")
        at = int(self._now() + self._clock_ahead_s)
        digest = hashlib.sha256(f"{command}{self.pwd}{self.salt}{at}".encode()).digest()
        return {"ts": at, "account": self._account, "token": base64.b64encode(digest).decode()[:8]}

    async def _send_bytes(self, data: bytes, **kwargs: Any) -> bytes:
        raise UnsafeWrite(f"{self.ip}: bytes of which it is not known what they ask are not sent")


class WhatsminerV3:
    """One Whatsminer V3."""

    def __init__(self, access: Access, pinned: str | None, full_watts: float, now: Callable[[], float]) -> None:
        self.pin = IdentityPin(pinned, access.host, now)
        self._access = access
        self._full_watts = full_watts
        self._now = now
        self._rpc = GuardedRpc(access, now)
        self._mac: str | None = None
        self._ordered_at = -math.inf

    async def prepare(self) -> None:
        """Hold the salt, so that an order needs no request before it."""
        if self._rpc.salt is None:
            await self._ask_info()

    async def identify(self) -> Found:
        """Return who answers, after a check that it is a Whatsminer with V3 firmware.

        Raises:
            IdentityMismatch: it is another kind of device, or another one than is pinned.
        """
        info = await self._ask_info()
        if not info.api.startswith("3"):
            raise IdentityMismatch(f"{self._access.host} speaks API {short(info.api)!r}, which is not V3")
        if not info.model:
            raise DeviceGarbled(f"{self._access.host} tells no model")
        self.pin.check()
        return Found(WHATSMINER_V3, info.identities, "MicroBT", info.model, info.firmware)

    async def read(self) -> Reading:
        """Return a fresh reading from summary and device info."""
        return await self._read(always_info=True)

    async def poll(self) -> Reading:
        """Return a reading; one that plainly hashes and was left alone is asked for its summary only."""
        return await self._read(always_info=self._now() - self._ordered_at < UNSETTLED_S)

    async def apply(self, order: Order) -> Answer:
        """Send an order; a refused signature is made anew and the order sent once more.

        Raises:
            CredentialsRejected: the password is wrong.
            NoPermission: writing is switched off in the miner.
            DeviceRefused: it cannot follow, or not now.
        """
        require_write_access(self._access)
        await self.pin.ensure(self._who)
        command, parameters = await self._command(order)
        for last in (False, True):
            if self._rpc.salt is None:
                info = await self._ask_info()
                self.pin.check()
                if info.may_write is False:
                    raise NoPermission(f"{self._access.host}: its API takes no orders until that is switched on")
            self._ordered_at = self._now()
            answer = await self._rpc.send_command(command, parameters)
            code, text = _code_of(answer, f"{self._access.host} ({command})"), text_of(answer, "msg")
            if code == OK:
                return Answer(True, short(text))
            if code != DENIED and not any(word in text.lower() for word in ACCESS_WORDS):
                return Answer(False, short(f"{text} ({code})"))
            self._rpc.salt = None
            if last:
                raise CredentialsRejected(f"{self._access.host} does not accept the signature of its account")
        raise AssertionError("unreachable")

    async def health(self) -> Health:
        """Return boards, hottest chip, slowest fan and error codes; of a miner that is off it tells little."""
        info = await self._ask_info()
        self.pin.check()
        host = self._access.host
        who = f"{host} ({STATUS_OF_BOARDS})"
        answer = await self._rpc.send_command("get.miner.status", STATUS_OF_BOARDS)
        if _code_of(answer, who) != OK:
            return Health(errors=info.errors)
        message = answer.get("msg")
        told = message if isinstance(message, dict) else {}
        boards, summary = entries(told.get("edevs"), "boards", who), told.get("summary")
        if not isinstance(summary, dict):
            raise DeviceGarbled(f"{who} answered without a summary")
        return Health(
            boards=at_work([number(board, "hash-average", 1.0, MOST_TH_PER_S, who) for board in boards]),
            celsius=hottest(board.get("chip-temp-max") for board in boards),
            fan_rpm=slowest((summary.get(name) for name in FANS), who),
            errors=info.errors,
            boards_fitted=len(boards),
        )

    async def _command(self, order: Order) -> tuple[str, Any]:
        if order.verb is Verb.SLEEP:
            return "set.miner.service", "stop"
        if order.verb is Verb.WAKE:
            return "set.miner.service", "start"
        summary = await self._ask_summary()
        who = f"{self._access.host} (summary)"
        if number(summary, "up-freq-finish", 1.0, 1.0, who) == 0.0:
            # It would say yes, and nothing would come of it.
            raise DeviceRefused(f"{self._access.host} is tuning: it follows a percentage only once that has ended")
        base_watts = number(summary, "power-limit", 1.0, MOST_WATTS, who) or self._full_watts
        percent = min(100, math.floor(100.0 * order.watts / base_watts + 1e-6))
        if percent < 1:
            raise DeviceRefused(f"{self._access.host} cannot be set to {order.watts:.0f} W")
        # `set.miner.power_limit` would restart the miner and `set.miner.power` outlive it; the percentage does neither.
        # "fast" takes a second, "normal" minutes. The number goes as a string: firmware reads nothing else, whatever
        # the document says.
        return "set.miner.power_percent", {"percent": str(percent), "mode": "fast"}

    async def _read(self, always_info: bool) -> Reading:
        info = await self._ask_info() if always_info else None
        await self.pin.ensure(self._who)
        who = f"{self._access.host} (summary)"
        summary = await self._ask_summary()
        watts = number(summary, "power-realtime", 1.0, MOST_WATTS, who)
        limit_watts = number(summary, "power-limit", 1.0, MOST_WATTS, who)
        th_per_s = number(summary, "hash-realtime", 1.0, MOST_TH_PER_S, who)
        if info is None and not th_per_s:
            info = await self._ask_info()
            self.pin.check()
        # pyasic takes it for mining whatever it says.
        off = None if info is None or info.working is None else not info.working
        return Reading(
            watts=watts,
            limit_watts=limit_watts,
            state=state_by_switch(off, th_per_s),
            th_per_s=th_per_s,
            celsius=_hottest(summary),
            identity=self.pin.pinned or self._mac,
        )

    async def _ask_summary(self) -> Mapping[str, Any]:
        """Return the summary, empty where the miner has none: its miner process rests while it is off."""
        who = f"{self._access.host} (summary)"
        answer = await self._rpc.get_miner_status_summary()
        if _code_of(answer, who) != OK:
            return {}
        message = answer.get("msg")
        summary = message.get("summary") if isinstance(message, dict) else None
        if not isinstance(summary, dict):
            raise DeviceGarbled(f"{who} answered without a summary")
        return summary

    async def _ask_info(self) -> _Info:
        who = f"{self._access.host} (get.device.info)"
        answer = await self._rpc.get_device_info()
        code, message = _code_of(answer, who), answer.get("msg")
        if code == INVALID_COMMAND:
            raise IdentityMismatch(f"{self._access.host} does not tell who it is, as a Whatsminer would")
        if code != OK:
            raise DeviceRefused(f"{who} refused: {short(message)}")
        parts = message if isinstance(message, dict) else {}
        network, miner, system = (
            part if isinstance(part := parts.get(name), dict) else {} for name in ("network", "miner", "system")
        )
        mac = text_of(network, "mac").upper()
        identities = tuple(text for text in (mac, text_of(miner, "miner-sn").upper()) if text)
        if not identities:
            raise DeviceGarbled(f"{who} answered without MAC and serial")
        self.pin.saw(identities)
        self._mac = identities[0]
        salt, when = text_of(parts, "salt"), answer.get("when")
        if salt:
            self._rpc.learn(salt, float(when) if isinstance(when, int) and not isinstance(when, bool) else None)
        return _Info(
            model=text_of(miner, "type"),
            firmware=text_of(system, "fwversion"),
            api=text_of(system, "api"),
            identities=identities,
            mac=mac,
            working=_switch(miner.get("working")),
            may_write=_switch(system.get("apiswitch")),
            errors=_errors_of(parts.get("error-code")),
        )

    async def _who(self) -> tuple[str, ...]:
        return (await self._ask_info()).identities


def frame_is_whole(answer: bytearray) -> bool:
    """Return whether a whole frame is there, or a length that no answer has."""
    body = _without_heartbeats(answer)
    if len(body) < LENGTH_BYTES:
        return False
    length = int.from_bytes(body[:LENGTH_BYTES], "little")
    return length > MOST_ANSWER_BYTES or len(body) >= LENGTH_BYTES + length


def unframe(raw: bytes, who: str) -> bytes:
    """Return what the first frame holds.

    Raises:
        DeviceUnreachable: nothing was answered.
        DeviceGarbled: it is not a whole frame.
    """
    body = _without_heartbeats(raw)
    if not body:
        raise DeviceUnreachable(f"{who} closed the connection without an answer")
    length = int.from_bytes(body[:LENGTH_BYTES], "little")
    if not 0 < length <= len(body) - LENGTH_BYTES:
        raise DeviceGarbled(f"{who} answered {len(body)} bytes that are not a whole frame")
    return bytes(body[LENGTH_BYTES : LENGTH_BYTES + length])


def _without_heartbeats(answer: bytes | bytearray) -> bytes | bytearray:
    """Return the answer without the empty frames that keep a connection alive."""
    while answer[:LENGTH_BYTES] == bytes(LENGTH_BYTES):
        answer = answer[LENGTH_BYTES:]
    return answer


def _code_of(answer: Mapping[str, Any], who: str) -> int:
    code = answer.get("code")
    if not isinstance(code, int) or isinstance(code, bool):
        raise DeviceGarbled(f"{who} answered without a code")
    return code


def _switch(told: object) -> bool | None:
    return {"true": True, "1": True, "false": False, "0": False}.get(str(told).strip().lower())


def _hottest(summary: Mapping[str, Any]) -> float | None:
    boards = summary.get("board-temperature")
    told = [celsius_of({"board": value}, "board") for value in boards] if isinstance(boards, list) else []
    return max((celsius for celsius in told if celsius is not None), default=None)


def _errors_of(told: object) -> tuple[str, ...] | None:
    """Return the codes, None where none are told. Each entry is one, or an object of codes and when they began."""
    if not isinstance(told, list):
        return None
    codes = (code for entry in told for code in (entry if isinstance(entry, dict) else (entry,)))
    return errors_of(code for code in codes if str(code).lower() != "reason")
