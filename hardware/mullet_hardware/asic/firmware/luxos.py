"""LuxOS: everything over the RPC; orders need the one session that the device grants at a time.

Commands and fields after Luxor's API documentation (docs.luxor.tech), luxos-tooling and pyasic 0.79, reads also after
captured answers of one S19k Pro (LuxOS 2025.4.8); no hardware.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from pyasic.rpc.luxminer import LUXMinerRPCAPI

from mullet.domain.command import Verb
from mullet.ports import DeviceError, DeviceGarbled, DeviceRefused, IdentityMismatch, UnsafeWrite
from mullet_hardware.asic.allowed import Channel, allow
from mullet_hardware.asic.capability import LUXOS
from mullet_hardware.asic.device import (
    MOST_TH_PER_S,
    MOST_WATTS,
    Access,
    Answer,
    Found,
    IdentityPin,
    Order,
    celsius_of,
    first_of,
    number,
    require_write_access,
    short,
    text_of,
)
from mullet_hardware.asic.firmware.health_rules import luxos_health
from mullet_hardware.asic.firmware.rules import state_by_switch
from mullet_hardware.asic.protocol import Health, Reading
from mullet_hardware.asic.transport import exchange, parse_object, rpc_is_whole

SESSION_TAKEN = 402
SESSION_LIFE_S = 60.0
"""A session that is not used for this long has ended."""
FAST = "summary+power+config"
SLOW = "devs+temps+fans+events"


class GuardedRpc(LUXMinerRPCAPI):  # type: ignore[misc]
    """pyasic's commands over our own connections: nothing leaves that the allow-list does not name.

    pyasic uses whatever session the device says is open, be it somebody else's, and keeps it for ever. Here a session
    is opened for an order and closed after it; one that is lost is renewed, one that another holds is left alone.
    """

    def __init__(self, access: Access, now: Callable[[], float]) -> None:
        super().__init__("0.0.0.0", access.rpc_port)
        self.ip = access.host
        self.session_token: str | None = None
        self._now = now
        self._asked_at: float | None = None

    async def send_command(self, command: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the answer to a reading command, or to several joined by "+", errors of the device included."""
        if args or kwargs or allow(LUXOS, Channel.RPC, command).writes:
            raise UnsafeWrite(f"{self.ip}: {command} must not be sent like this")
        return await self._ask(command, command, None)

    async def send_privileged_command(self, command: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the answer to an order, sent with our session; a lost session is renewed and the order sent once more.

        Raises:
            UnsafeWrite: the order, with the argument that decides what it does, is not on the allow-list.
            DeviceRefused: another session is open.
        """
        what = f"{command}:{args[0]}" if command == "curtail" and args else command
        given = [str(arg) for arg in args]
        if kwargs or not allow(LUXOS, Channel.RPC, what).writes or any("," in arg for arg in given):
            raise UnsafeWrite(f"{self.ip}: {what} must not be sent")
        for fresh in (False, True):
            if self.session_token is None:
                await self._open_session()
                fresh = True
            answer = await self._ask(what, command, ",".join((str(self.session_token), *given)))
            if not _is_lost_session(answer):
                return answer
            self.session_token = None
            if fresh:
                raise DeviceRefused(f"{self.ip} does not know the session that it has just opened")
        raise AssertionError("unreachable")

    async def auth(self) -> str | None:
        """Raise UnsafeWrite: pyasic's way of taking any open session is not ours."""
        raise UnsafeWrite(f"{self.ip}: sessions are not taken from others")

    async def close_session(self) -> None:
        """Give the session back, so that others can work with the device; what fails here is not worth an error."""
        token = self.session_token
        if token is None:
            return
        try:
            await self._ask("logoff", "logoff", token)
        except DeviceError:
            # It may be open still: the next order tries it first, and the device ends it by itself.
            return
        self.session_token = None

    async def _open_session(self) -> None:
        unanswered, self._asked_at = self._asked_at, self._now()
        answer = await self._ask("logon", "logon", None)
        self._asked_at = None
        if _code_of(answer) == SESSION_TAKEN:
            # An earlier request of ours may have opened it and its answer been lost: then nobody else knows of it, and
            # orders would have to wait until it ends by itself.
            if unanswered is None or self._now() - unanswered > SESSION_LIFE_S:
                raise DeviceRefused(f"{self.ip}: another session is open")
            answer = await self._ask("session", "session", None)
        token = text_of(first_of(answer, "SESSION", f"{self.ip} (logon)"), "SessionID")
        if not token:
            raise DeviceGarbled(f"{self.ip} opened no session")
        self.session_token = token

    async def _ask(self, what: str, command: str, parameter: str | None) -> dict[str, Any]:
        asked = {"command": command} if parameter is None else {"command": command, "parameter": parameter}
        request = allow(LUXOS, Channel.RPC, what, json.dumps(asked).encode())
        return parse_object(await exchange(self.ip, self.port, request, rpc_is_whole), f"{self.ip} ({command})")

    async def _send_bytes(self, data: bytes, **kwargs: Any) -> bytes:
        raise UnsafeWrite(f"{self.ip}: bytes of which it is not known what they ask are not sent")


class LuxOs:
    """One miner with LuxOS."""

    def __init__(self, access: Access, pinned: str | None, full_watts: float, now: Callable[[], float]) -> None:
        self.pin = IdentityPin(pinned, access.host, now)
        self._access = access
        self._rpc = GuardedRpc(access, now)
        self._ordering = asyncio.Lock()
        self._profiles: dict[str, float] = {}
        self._owes_thermal_management = False

    async def identify(self) -> Found:
        """Return who answers, after a check that it runs LuxOS.

        Raises:
            IdentityMismatch: it is another kind of device, or another one than is pinned.
        """
        host = self._access.host
        try:
            answer = await self._rpc.send_command("version+config")
            version = _part(answer, "version", "VERSION", host)
            config = _part(answer, "config", "CONFIG", host)
        except DeviceRefused as error:
            raise IdentityMismatch(f"{host} does not run LuxOS") from error
        release = text_of(version, "LUXminer")
        if not release:
            raise IdentityMismatch(f"{host} does not run LuxOS: it is no LUXminer")
        identities = _identities(config, host)
        self.pin.saw(identities)
        self.pin.check()
        model = text_of(config, "Model") or text_of(version, "Type")
        if not model:
            raise DeviceGarbled(f"{host} tells no model")
        return Found(LUXOS, identities, "Bitmain", model, release)

    async def read(self) -> Reading:
        """Return a fresh reading, temperatures and profiles included."""
        return await self._read(f"{FAST}+temps+profiles")

    async def poll(self) -> Reading:
        """Return a reading with one request."""
        return await self._read(FAST if self._profiles else f"{FAST}+profiles")

    async def health(self) -> Health:
        """Return boards, hottest sensor, slowest fan and events, from one request."""
        await self.pin.ensure(self._who)
        return luxos_health(await self._rpc.send_command(SLOW), self._access.host)

    async def apply(self, order: Order) -> Answer:
        """Send one order within a session of its own.

        Raises:
            DeviceRefused: another session is open, or no profile is that low.
        """
        require_write_access(self._access)
        async with self._ordering:
            await self.pin.ensure(self._who)
            if order.verb is Verb.POWER:
                answer = await self._set_profile(order.watts)
            else:
                await self._restore_thermal_management()
                # pyasic's `curtail` is "sleep", whatever it is called with.
                answer = _answer_of(await (self._rpc.sleep() if order.verb is Verb.SLEEP else self._rpc.wakeup()))
            await self._rpc.close_session()
            return answer

    async def _set_profile(self, watts: float) -> Answer:
        """Choose the highest profile at or below `watts` and keep the thermal management from exceeding it.

        The device changes no profile while its thermal management (ATM) runs, and ATM goes up to its own highest
        profile as soon as it is cool: so it is switched off for the change, and on again with this one as its highest.
        """
        host = self._access.host
        listed = await self._rpc.send_command("profiles+atm+config")
        self._profiles = _profiles(_entries(listed, "profiles", "PROFILES", host), host)
        wanted = highest_profile(self._profiles, watts)
        if wanted is None:
            raise DeviceRefused(f"{host} has no profile at or below {watts:.0f} W")
        atm = _part(listed, "atm", "ATM", host)
        if not isinstance(atm.get("Enabled"), bool):
            raise DeviceGarbled(f"{host} does not tell whether its thermal management is on")
        managed = atm["Enabled"] or self._owes_thermal_management
        here = text_of(_part(listed, "config", "CONFIG", host), "Profile") == wanted
        if here and (not managed or (atm["Enabled"] and text_of(atm, "MaxProfile") == wanted)):
            return Answer(True, f"it runs profile {short(wanted)} already; nothing was written")
        if not here:
            if atm["Enabled"]:
                off = _answer_of(await self._rpc.atmset(enabled=False))
                if not off.acked:
                    return off
                self._owes_thermal_management = True
            changed = _answer_of(await self._rpc.profileset(wanted))
            if not changed.acked:
                await self._restore_thermal_management()
                return changed
        if not managed:
            return Answer(True, f"profile {short(wanted)}")
        bounded = _answer_of(await self._rpc.atmset(enabled=True, max_profile=wanted))
        if bounded.acked:
            self._owes_thermal_management = False
            return Answer(True, f"profile {short(wanted)}, the highest for its thermal management, too")
        await self._restore_thermal_management()
        return Answer(False, f"profile {short(wanted)} is no bound for its thermal management: {bounded.detail}")

    async def _restore_thermal_management(self) -> None:
        """Switch on again what an order switched off that did not come to its end."""
        if self._owes_thermal_management and _answer_of(await self._rpc.atmset(enabled=True)).acked:
            self._owes_thermal_management = False

    async def _read(self, sections: str) -> Reading:
        host = self._access.host
        answer = await self._rpc.send_command(sections)
        config = _part(answer, "config", "CONFIG", host)
        identities = _identities(config, host)
        self.pin.saw(identities)
        self.pin.check()
        if "profiles" in sections:
            self._profiles = _profiles(_known_entries(answer, "profiles", "PROFILES", host), host)
        # pyasic takes it for mining whatever it says.
        off = {"none": False, "sleep": True}.get(text_of(config, "CurtailMode").lower())
        summary = _known(answer, "summary", "SUMMARY", host)
        th_per_s = number(summary, "GHS 5s", 1e-3, MOST_TH_PER_S, f"{host} (summary)")
        temps = _known_entries(answer, "temps", "TEMPS", host) if "temps" in sections else []
        return Reading(
            watts=_measured_watts(_known(answer, "power", "POWER", host), host),
            limit_watts=self._profiles.get(text_of(config, "Profile")),
            state=state_by_switch(off, th_per_s),
            th_per_s=th_per_s,
            celsius=_hottest(temps),
            identity=self.pin.pinned or identities[0],
        )

    async def _who(self) -> tuple[str, ...]:
        host = self._access.host
        return _identities(first_of(await self._rpc.send_command("config"), "CONFIG", host), host)


def highest_profile(profiles: Mapping[str, float], watts: float) -> str | None:
    """Return the name of the profile with the most watts at or below `watts`, None where all have more."""
    fitting = [(power, name) for name, power in profiles.items() if power <= watts]
    return max(fitting)[1] if fitting else None


def _measured_watts(power: Mapping[str, Any], who: str) -> float | None:
    """Return the watts that the power supply measures; what the firmware merely estimates is no reading."""
    return number(power, "Watts", 1.0, MOST_WATTS, who) if power.get("PSU") is True else None


def _profiles(entries: list[dict[str, Any]], who: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for entry in entries:
        name, watts = text_of(entry, "Profile Name"), number(entry, "Watts", 1.0, MOST_WATTS, who)
        # A comma would part the arguments of a command, and a plain number is taken for a board.
        if name and watts and "," not in name and not name.isdigit():
            found[name] = watts
    return found


def _hottest(boards: list[dict[str, Any]]) -> float | None:
    sensors = ("TopLeft", "TopRight", "BottomLeft", "BottomRight")
    told = [celsius_of(board, sensor) for board in boards for sensor in sensors]
    return max((celsius for celsius in told if celsius is not None), default=None)


def _identities(config: Mapping[str, Any], who: str) -> tuple[str, ...]:
    found = tuple(text for name in ("MACAddr", "SerialNumber") if (text := text_of(config, name).upper()))
    if not found:
        raise DeviceGarbled(f"{who} (config) answered without MAC and serial")
    return found


def _entries(answer: Mapping[str, Any], command: str, section: str, who: str) -> list[dict[str, Any]]:
    """Return a section of one of several answers that came joined.

    Raises:
        DeviceRefused: the device answered this one with an error.
        DeviceGarbled: there is no such section.
    """
    part = answer.get(command)
    part = part[0] if isinstance(part, list) and part else answer
    if not isinstance(part, dict):
        raise DeviceGarbled(f"{who} answered without {command}")
    first_of(part, section, f"{who} ({command})")
    return [entry for entry in part[section] if isinstance(entry, dict)]


def _part(answer: Mapping[str, Any], command: str, section: str, who: str) -> dict[str, Any]:
    return _entries(answer, command, section, who)[0]


def _known_entries(answer: Mapping[str, Any], command: str, section: str, who: str) -> list[dict[str, Any]]:
    """Return a section, empty where the device does not give this one at present."""
    try:
        return _entries(answer, command, section, who)
    except DeviceRefused:
        return []


def _known(answer: Mapping[str, Any], command: str, section: str, who: str) -> dict[str, Any]:
    found = _known_entries(answer, command, section, who)
    return found[0] if found else {}


def _status(answer: Mapping[str, Any]) -> dict[str, Any]:
    status = answer.get("STATUS")
    found = status[0] if isinstance(status, list) and status else status
    if not isinstance(found, dict) or not isinstance(found.get("STATUS"), str):
        raise DeviceGarbled("a LuxOS miner answered without a status")
    return found


def _code_of(answer: Mapping[str, Any]) -> int | None:
    code = _status(answer).get("Code")
    return code if isinstance(code, int) else None


def _is_lost_session(answer: Mapping[str, Any]) -> bool:
    """Return whether an order was refused for its session; with which code is not documented, the words are plain."""
    status = _status(answer)
    return status["STATUS"] in ("E", "F") and "session" in text_of(status, "Msg").lower()


def _answer_of(answer: Mapping[str, Any]) -> Answer:
    status = _status(answer)
    return Answer(status["STATUS"] == "S", short(text_of(status, "Msg")))
