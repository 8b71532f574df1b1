"""Auradine (FluxOS): hashrate over RPC, watts, mode and orders over its web interface behind a token.

Commands and fields after pyasic 0.79 (web/auradine.py); neither document nor capture nor hardware.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from pyasic.web.auradine import AuradineWebAPI

from mullet.domain.command import Verb
from mullet.ports import (
    CredentialsRejected,
    DeviceGarbled,
    DeviceRefused,
    DeviceUnreachable,
    IdentityMismatch,
    UnsafeWrite,
)
from mullet_hardware.asic.allowed import Channel, allow
from mullet_hardware.asic.capability import AURADINE
from mullet_hardware.asic.device import (
    MOST_TH_PER_S,
    MOST_WATTS,
    UNSETTLED_S,
    Access,
    Answer,
    Found,
    IdentityPin,
    Order,
    first_of,
    number,
    refuse_error,
    require_write_access,
    short,
    text_of,
)
from mullet_hardware.asic.firmware.health_rules import at_work, entries, hottest, slowest
from mullet_hardware.asic.firmware.rules import state_by_switch
from mullet_hardware.asic.protocol import Health, Reading
from mullet_hardware.asic.transport import ConnectionRefused, exchange, parse_object, rpc_is_whole
from mullet_hardware.asic.web import HttpAnswer, fetch

REFUSED_STATUS = frozenset({401, 403})
ACCESS_WORDS = ("token", "auth", "login", "permission")
"""How a refused token is told is not documented: by the HTTP status, or by a plain error whose text says so."""
FRESH_MODE_POLLS = 5


class GuardedWeb(AuradineWebAPI):  # type: ignore[misc]
    """pyasic's web commands over our own connections: nothing leaves that the allow-list does not name.

    pyasic renews a refused token only where it was told to retry, and takes any answer to an order for a yes. Here a
    refused token is renewed once, and answers are handed on, errors of the device included.
    """

    def __init__(self, access: Access) -> None:
        super().__init__(access.host)
        self.port = access.web_port
        self.username = access.username
        self.pwd = access.password
        self.token: str | None = None

    async def auth(self) -> str:
        """Return a new token.

        Raises:
            CredentialsRejected: the device does not accept the password.
        """
        who = f"{self.ip} (token)"
        asked = {"command": "token", "user": self.username, "password": self.pwd}
        answer = await self._fetch("POST", "token", asked, {})
        refused = CredentialsRejected(f"{self.ip} does not accept the password of user {self.username!r}")
        if answer.status in REFUSED_STATUS:
            raise refused
        try:
            token = text_of(first_of(_object(answer, who), "Token", who), "Token")
        except DeviceRefused:
            raise refused from None
        # It becomes a header: nothing in it may end the line.
        if not token or not token.isprintable():
            raise DeviceGarbled(f"{who} answered without a token")
        self.token = token
        return token

    async def send_command(
        self,
        command: str,
        ignore_errors: bool = False,
        allow_warning: bool = True,
        privileged: bool = False,
        **parameters: Any,
    ) -> dict[str, Any]:
        """Return the answer to a command; a refused token is dropped and the command sent once more.

        Raises:
            UnsafeWrite: a command that is not allowed, or another setting than sleep and power.
            CredentialsRejected: the device does not accept the password.
        """
        if privileged or (parameters and not is_order(parameters)):
            raise UnsafeWrite(f"{self.ip}: {command} must not be sent like this")
        method = "POST" if parameters else "GET"
        asked = {"command": command, **parameters} if parameters else None
        allow(AURADINE, Channel.WEB, f"{method} /{command}")
        fresh = self.token is None
        while True:
            answer = await self._fetch(method, command, asked, {"Token": self.token or await self.auth()})
            if not _is_refused_token(answer):
                return _object(answer, f"{self.ip} ({command})")
            self.token = None
            if fresh:
                raise CredentialsRejected(f"{self.ip} does not accept the token that it has just given")
            fresh = True

    async def _fetch(
        self, method: str, command: str, asked: dict[str, Any] | None, headers: dict[str, str]
    ) -> HttpAnswer:
        body = b"" if asked is None else json.dumps(asked).encode()
        return await fetch(AURADINE, self.ip, self.port, method, f"/{command}", body, headers)


class Auradine:
    """One Auradine miner."""

    def __init__(self, access: Access, pinned: str | None, full_watts: float, now: Callable[[], float]) -> None:
        self.pin = IdentityPin(pinned, access.host, now)
        self._access = access
        self._now = now
        self._web = GuardedWeb(access)
        self._ordered_at = -math.inf
        self._asleep: bool | None = None
        self._limit_watts: float | None = None
        self._polls_since_mode = 0

    async def prepare(self) -> None:
        """Hold a token, so that an order needs no request before it; polls renew one that was lost."""
        if self._web.token is None and self._access.barred is None:
            await self._web.auth()

    async def health(self) -> Health:
        """Return boards and the hottest from the RPC, the slowest fan from the web; of errors nothing is known."""
        await self.pin.ensure(self._who)
        host = self._access.host
        who = f"{host} (rpc devs)"
        devs = await self._rpc("devs")
        refuse_error(devs, who)
        boards = entries(devs.get("DEVS"), "boards", who)
        fans = await self._web.get_fan()
        refuse_error(fans, f"{host} (fan)")
        return Health(
            boards=at_work([_rate_of(board, who) for board in boards]),
            boards_fitted=len(boards),
            celsius=hottest(board.get("Temperature") for board in boards),
            fan_rpm=slowest((fan.get("Speed") for fan in entries(fans.get("Fan"), "fans", host)), f"{host} (fan)"),
        )

    async def identify(self) -> Found:
        """Return who answers, after a check that it is an Auradine.

        Raises:
            IdentityMismatch: it is another kind of device, or another one than is pinned.
            CredentialsRejected: the password is wrong.
        """
        report = await self._ask_report()
        model = text_of(report, "model")
        if not model:
            raise DeviceGarbled(f"{self._access.host} tells no model")
        identities = _identities(report, self._access.host)
        self.pin.saw(identities)
        self.pin.check()
        return Found(AURADINE, identities, "Auradine", model, text_of(report, "version"))

    async def read(self) -> Reading:
        """Return a fresh reading of hashrate, watts and mode."""
        return await self._read(ask_mode=True)

    async def poll(self) -> Reading:
        """Return a reading; of one that plainly hashes and was left alone the mode is asked every few polls only."""
        settled = self._asleep is False and self._now() - self._ordered_at > UNSETTLED_S
        return await self._read(ask_mode=not settled or self._polls_since_mode >= FRESH_MODE_POLLS)

    async def apply(self, order: Order) -> Answer:
        """Send one order.

        Raises:
            CredentialsRejected: the password is wrong.
            DeviceRefused: it cannot be set that low.
        """
        require_write_access(self._access)
        await self.pin.ensure(self._who)
        setting = _setting_of(order)
        if setting is None:
            raise DeviceRefused(f"{self._access.host} cannot be set to {order.watts:.0f} W")
        self._ordered_at = self._now()
        self._asleep = None
        answer = await self._web.set_mode(**setting)
        status = answer.get("STATUS")
        status = status[0] if isinstance(status, list) and status else status
        if not isinstance(status, dict) or not isinstance(status.get("STATUS"), str):
            raise DeviceGarbled(f"{self._access.host} (mode) answered without a status")
        return Answer(status["STATUS"] == "S", short(text_of(status, "Msg")))

    async def _read(self, ask_mode: bool) -> Reading:
        await self.pin.ensure(self._who)
        th_per_s, refused = None, None
        try:
            th_per_s = await self._ask_rate()
        except ConnectionRefused as error:
            # The mining process may rest while it sleeps, and with it the RPC.
            refused = error
        if ask_mode or not th_per_s:
            await self._ask_mode()
        self._polls_since_mode += 1
        if refused is not None and not self._asleep:
            raise refused
        return Reading(
            watts=await self._ask_watts(),
            limit_watts=self._limit_watts,
            state=state_by_switch(self._asleep, th_per_s),
            th_per_s=th_per_s,
            identity=self.pin.pinned,
        )

    async def _ask_rate(self) -> float | None:
        who = f"{self._access.host} (rpc summary)"
        return number(first_of(await self._rpc("summary"), "SUMMARY", who), "MHS 5s", 1e-6, MOST_TH_PER_S, who)

    async def _rpc(self, command: str) -> dict[str, Any]:
        request = allow(AURADINE, Channel.RPC, command, f'{{"command": "{command}"}}'.encode())
        raw = await exchange(self._access.host, self._access.rpc_port, request, rpc_is_whole)
        return parse_object(raw, f"{self._access.host} (rpc {command})")

    async def _ask_mode(self) -> None:
        who = f"{self._access.host} (mode)"
        mode = first_of(await self._web.get_mode(), "Mode", who)
        self._asleep = {"on": True, "off": False}.get(text_of(mode, "Sleep").lower())
        by_power = text_of(mode, "Mode").lower() == "custom" and text_of(mode, "Tune").lower() == "power"
        self._limit_watts = number(mode, "Power", 1.0, MOST_WATTS, who) if by_power else None
        self._polls_since_mode = 0

    async def _ask_watts(self) -> float | None:
        who = f"{self._access.host} (psu)"
        psu = dict(first_of(await self._web.get_psu(), "PSU", who))
        told = text_of(psu, "PowerIn")
        if told:
            psu["PowerIn"] = told.removesuffix("W").strip()
        return number(psu, "PowerIn", 1.0, MOST_WATTS, who)

    async def _ask_report(self) -> dict[str, Any]:
        who = f"{self._access.host} (ipreport)"
        try:
            return first_of(await self._web.ipreport(), "IPReport", who)
        except DeviceRefused as error:
            raise IdentityMismatch(f"{self._access.host} does not tell who it is, as an Auradine would") from error

    async def _who(self) -> tuple[str, ...]:
        return _identities(await self._ask_report(), self._access.host)


def is_order(parameters: Mapping[str, Any]) -> bool:
    """Return whether these settings of the mode are sleep, or power in whole watts, and nothing else."""
    if set(parameters) == {"sleep"}:
        return parameters["sleep"] in ("on", "off")
    if set(parameters) != {"mode", "tune", "power"}:
        return False
    watts = parameters["power"]
    whole = isinstance(watts, int) and not isinstance(watts, bool) and 0 < watts <= MOST_WATTS
    return whole and parameters["mode"] == "custom" and parameters["tune"] == "power"


def _setting_of(order: Order) -> dict[str, Any] | None:
    """Return what is to be set for an order, None for watts that are none."""
    if order.verb is Verb.POWER:
        setting = {"mode": "custom", "tune": "power", "power": math.floor(order.watts)}
        return setting if is_order(setting) else None
    return {"sleep": "on" if order.verb is Verb.SLEEP else "off"}


def _object(answer: HttpAnswer, who: str) -> dict[str, Any]:
    if answer.status == 404:
        raise IdentityMismatch(f"{who} is not known there, as it would be to an Auradine")
    if not answer.body.strip():
        raise DeviceUnreachable(f"{who} answered HTTP {answer.status} and nothing else")
    found = parse_object(answer.body, who)
    if answer.status != 200 and "STATUS" not in found:
        raise DeviceGarbled(f"{who} answered HTTP {answer.status}")
    return found


def _is_refused_token(answer: HttpAnswer) -> bool:
    if answer.status in REFUSED_STATUS:
        return True
    try:
        status = parse_object(answer.body, "").get("STATUS")
    except (DeviceGarbled, DeviceUnreachable):
        return False
    status = status[0] if isinstance(status, list) and status else status
    if not isinstance(status, dict) or status.get("STATUS") not in ("E", "F"):
        return False
    return any(word in text_of(status, "Msg").lower() for word in ACCESS_WORDS)


def _rate_of(board: Mapping[str, Any], who: str) -> float | None:
    """Return the hashrate of a board in TH/s, 0 for one that is not alive."""
    return number(board, "MHS 5s", 1e-6, MOST_TH_PER_S, who) if text_of(board, "Status") == "Alive" else 0.0


def _identities(report: Mapping[str, Any], host: str) -> tuple[str, ...]:
    found = tuple(text for name in ("mac", "SerialNo") if (text := text_of(report, name).upper()))
    if not found:
        raise DeviceGarbled(f"{host} (ipreport) answered without MAC and serial")
    return found
