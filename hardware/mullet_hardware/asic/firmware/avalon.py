"""Avalon (A12 to A15, Nano, Mini, Q): cgminer's RPC, everything in one request, orders by the maker's `ascset`.

Fields of the packed text ("Key[value] Key[value]") after captured answers and pyasic 0.79; no hardware. What differs
from pyasic: a stop is timed by the miner's own clock, and watts are no work level by thresholds of one small model.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from mullet.domain.command import Verb
from mullet.ports import DeviceGarbled, DeviceRefused, IdentityMismatch
from mullet_hardware.asic.allowed import Channel, allow
from mullet_hardware.asic.capability import AVALON
from mullet_hardware.asic.device import (
    MOST_TH_PER_S,
    MOST_WATTS,
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
from mullet_hardware.asic.firmware.health_rules import at_work, errors_of, hottest, slowest
from mullet_hardware.asic.firmware.rules import state_by_switch
from mullet_hardware.asic.protocol import Health, Reading
from mullet_hardware.asic.transport import exchange, parse_object, rpc_is_whole

LEAD_S = 5
"""An order to stop or start carries the time at which it comes due; one that is past by then may be refused."""
LATEST_WHEN = 4_000_000_000
STATS = ("litestats", "estats", "stats")
"""Commands that tell the packed text, the smallest answer first; older firmware does not know the first ones."""
OUT_INDEX, WALL_INDEX = 4, 6
"""Places of watts in `PS`: what the supply gives out, and what it draws at the wall. An A15 tells the latter as
`WALLPOWER`, too; older firmware tells the former only, which is 4 to 9 % less."""
LEVELS_OF_POINTS = MappingProxyType(
    {"eco": 0, "low": 0, "standard": 1, "medium": 1, "super": 2, "high": 2, "level-0": 0, "level-1": 1, "level-2": 2}
)
LEVEL_WATTS: Mapping[str, tuple[int, ...]] = MappingProxyType({"Q": (800, 1300, 1674), "NANO3": (65, 100, 140)})
"""Watts at the wall of each level, as the maker's data sheets have them."""
ERRORS = ("ECHU", "ECMM", "FanErr")
"""Fields of errors: of each hash unit, of the controller, of the fans; 0 is none."""
_BOARDS = re.compile(r"Hash Board: *(\d{1,3})\b")
_FAN = re.compile(r"Fan\d+")
_FIELD = re.compile(r"(\w+)\[([^\]]*)\]")


class Avalon:
    """One Avalon miner."""

    def __init__(self, access: Access, pinned: str | None, full_watts: float, now: Callable[[], float]) -> None:
        self.pin = IdentityPin(pinned, access.host, now)
        self._access = access
        self._stats_by: str | None = None

    async def identify(self) -> Found:
        """Return who answers, after a check that it is an Avalon.

        Raises:
            IdentityMismatch: it is another kind of device, or another one than is pinned.
        """
        version = await self._version()
        identities = _identities(version, self._access.host)
        return Found(AVALON, identities, "Canaan", text_of(version, "PROD"), _firmware(version))

    async def read(self) -> Reading:
        """Return a fresh reading."""
        await self.pin.ensure(self._who)
        _, fields = await self._stats()
        dna = fields.get("DNA", "")
        if dna.isalnum():
            self.pin.saw_one(dna)
            self.pin.check()
        host = self._access.host
        off = off_of(fields)
        th_per_s = number(fields, "GHSspd", 1e-3, MOST_TH_PER_S, host)
        if not th_per_s and not off:
            # Some versions leave it at 0 however they hash.
            who = f"{host} (summary)"
            th_per_s = number(first_of(await self._ask("summary"), "SUMMARY", who), "MHS 5s", 1e-6, MOST_TH_PER_S, who)
        return Reading(
            watts=wall_watts(fields, host),
            limit_watts=wall_limit(fields, host),
            state=state_by_switch(off, th_per_s),
            th_per_s=th_per_s,
            celsius=board_celsius(fields),
            identity=self.pin.pinned,
        )

    async def poll(self) -> Reading:
        """Return a reading: everything is told in one answer."""
        return await self.read()

    async def health(self) -> Health:
        """Return boards, hottest chip, slowest fan and error codes, from one request."""
        await self.pin.ensure(self._who)
        _, fields = await self._stats()
        return health_of(fields, self._access.host)

    async def apply(self, order: Order) -> Answer:
        """Look who is there and how it stands, then send one order.

        Raises:
            DeviceRefused: the device does not take it, or no level is known for it.
        """
        require_write_access(self._access)
        version = await self._version()
        when, fields = await self._stats()
        model = text_of(version, "MODEL").upper()
        if order.verb is Verb.POWER:
            level = level_of(order.point, order.watts, model, self._access.host)
            return await self._set_level(level, fields, model)
        if order.verb is Verb.WAKE and order.point in LEVELS_OF_POINTS:
            # Whoever wakes it to a low point must not find it at full.
            set_level = await self._set_level(LEVELS_OF_POINTS[order.point], fields, model)
            if not set_level.acked:
                return set_level
        option = "softoff" if order.verb is Verb.SLEEP else "softon"
        # By its own clock: one that is wrong would do at another time, or never, what ours tells it to do.
        return await self._set(option, f"1:{when + LEAD_S}", f"success {option}")

    async def _set_level(self, level: int, fields: Mapping[str, str], model: str) -> Answer:
        # The Nano 3 alone keeps its level elsewhere.
        mode_field = "WORKLEVEL" if model == "NANO3" or "WORKMODE" not in fields else "WORKMODE"
        if mode_field not in fields and model not in LEVEL_WATTS:
            raise DeviceRefused(f"{self._access.host} tells no work mode, so that none is set")
        if fields.get(mode_field) == str(level):
            return Answer(True, f"it is at level {level} already; nothing was written")
        return await self._set(mode_field.lower(), f"set,{level}", "set OK")

    async def _set(self, option: str, value: str, success: str) -> Answer:
        who = f"{self._access.host} (ascset {option})"
        body = {"command": "ascset", "parameter": f"0,{option},{value}"}
        answer = await self._send(f"ascset:{option}", body)
        refuse_error(answer, who)
        message = text_of(_status(answer, who), "Msg")
        return Answer(success in message, short(message))

    async def _stats(self) -> tuple[int, dict[str, str]]:
        """Return the device's own Unix time, and the fields that it packs into one text."""
        host = self._access.host
        for command in (self._stats_by,) if self._stats_by else STATS:
            who = f"{host} ({command})"
            answer = await self._ask(command)
            try:
                refuse_error(answer, who)
            except DeviceRefused:
                self._stats_by = None
                if command == STATS[-1]:
                    raise
                continue
            fields = packed_fields(answer, who)
            when = _status(answer, who).get("When")
            if isinstance(when, bool) or not isinstance(when, int) or not 0 <= when < LATEST_WHEN:
                raise DeviceGarbled(f"{who} answered {short(when)} for its time")
            self._stats_by = command
            return when, fields
        raise DeviceRefused(f"{host} knows none of {', '.join(STATS)}")

    async def _version(self) -> dict[str, Any]:
        """Return what it says of itself, after a check that it is an Avalon, and the one that is pinned."""
        host = self._access.host
        try:
            version = first_of(await self._ask("version"), "VERSION", f"{host} (version)")
        except DeviceRefused as error:
            raise IdentityMismatch(f"{host} is no Avalon: it does not know its version") from error
        product = text_of(version, "PROD")
        if not product and not text_of(version, "CGMiner") and not text_of(version, "API"):
            raise DeviceGarbled(f"{host} (version) answered without a version")
        if "avalon" not in product.lower():
            raise IdentityMismatch(f"{host} is no Avalon but {short(product)!r}")
        self.pin.saw(_identities(version, host))
        self.pin.check()
        return version

    async def _who(self) -> tuple[str, ...]:
        return _identities(await self._version(), self._access.host)

    async def _ask(self, command: str) -> dict[str, Any]:
        return await self._send(command, {"command": command})

    async def _send(self, command: str, body: dict[str, str]) -> dict[str, Any]:
        request = allow(AVALON, Channel.RPC, command, json.dumps(body).encode())
        raw = await exchange(self._access.host, self._access.rpc_port, request, rpc_is_whole)
        return parse_object(raw, f"{self._access.host} ({command})")


def packed_fields(answer: Mapping[str, Any], who: str) -> dict[str, str]:
    """Return the fields of the first entry that packs any: "Key[value] Key[value]", whatever it is called.

    Raises:
        DeviceGarbled: there is none.
    """
    entries = answer.get("STATS")
    for entry in entries if isinstance(entries, list) else ():
        for name, text in entry.items() if isinstance(entry, dict) else ():
            if name.startswith("MM ID") and isinstance(text, str) and (fields := dict(_FIELD.findall(text))):
                return {key: value.strip() for key, value in fields.items()}
    raise DeviceGarbled(f"{who} answered without the state of its boards")


def off_of(fields: Mapping[str, str]) -> bool | None:
    """Return whether it was told to stand by: `SoftOFF` is 0 while it works, and some reason's number else."""
    told = fields.get("SoftOFF", "")
    return int(told) != 0 if told.isdigit() else None


def wall_watts(fields: Mapping[str, str], who: str) -> float | None:
    """Return the watts at the wall, None where only what the supply gives out is told.

    Raises:
        DeviceGarbled: they are no watts.
    """
    if "WALLPOWER" in fields:
        return number(fields, "WALLPOWER", 1.0, MOST_WATTS, who)
    supply = fields.get("PS", "").split()
    return number({"PS": supply[WALL_INDEX]}, "PS", 1.0, MOST_WATTS, who) if len(supply) > WALL_INDEX else None


def wall_limit(fields: Mapping[str, str], who: str) -> float | None:
    """Return the limit at the wall, None where it cannot be told: `MPO` bounds what the supply gives out.

    What the supply loses on the way is what it loses at present; the captured ones come out at their nameplates.

    Raises:
        DeviceGarbled: they are no watts.
    """
    most = number(fields, "MPO", 1.0, MOST_WATTS, who)
    supply = fields.get("PS", "").split()
    if most is None or len(supply) <= WALL_INDEX:
        return None
    places = {"out": supply[OUT_INDEX], "wall": supply[WALL_INDEX]}
    out, wall = (number(places, place, 1.0, MOST_WATTS, who) for place in ("out", "wall"))
    return most * wall / out if out and wall and out <= wall else None


def board_celsius(fields: Mapping[str, str]) -> float | None:
    """Return the mean temperature of the chips, or of the board's outlet where none is hot enough to be told."""
    for name in ("TAvg", "HBOTemp", "Temp", "ITemp"):
        try:
            told = float(fields.get(name, ""))
        except ValueError:
            continue
        # 0 and -273 stand for a sensor that tells nothing.
        if told and -60.0 < told < 200.0:
            return told
    return None


def health_of(fields: Mapping[str, str], who: str) -> Health:
    """Return boards at work, hottest chip, slowest fan, and what stands in the fields of errors other than 0.

    Raises:
        DeviceGarbled: a field holds something else than its numbers.
    """
    rates = [number({"MGHS": told}, "MGHS", 1e-3, MOST_TH_PER_S, who) for told in fields.get("MGHS", "").split()]
    found = _BOARDS.search(fields.get("SYSTEMSTATU", ""))
    chips = [*fields.get("MTmax", "").split(), fields.get("TMax", "")]
    codes = ((name, place, code) for name in ERRORS for place, code in enumerate(fields.get(name, "").split()))
    return Health(
        # The rates are means, and so tell nothing of a board that rests.
        boards=0 if off_of(fields) else at_work(rates),
        boards_fitted=int(found[1]) if found else None,
        # 0 and -273 stand for a sensor that tells nothing.
        celsius=hottest(float(told) for told in chips if told.isdigit()),
        fan_rpm=slowest((told for name, told in fields.items() if _FAN.fullmatch(name)), who),
        errors=errors_of(f"{name}{place} {code}" for name, place, code in codes if code != "0")
        if any(name in fields for name in ERRORS)
        else None,
    )


def level_of(point: str, watts: float, model: str, who: str) -> int:
    """Return the work level that a point's name stands for, else the highest that draws no more than `watts`.

    Raises:
        DeviceRefused: none does, or the levels of this model are not known.
    """
    if point in LEVELS_OF_POINTS:
        return LEVELS_OF_POINTS[point]
    known = LEVEL_WATTS.get(model)
    if known is None:
        raise DeviceRefused(
            f"{who}: what an Avalon {model} draws at its levels is not known; name points eco, standard, super"
        )
    fitting = [level for level, most in enumerate(known) if most <= watts + 0.5]
    if not fitting or not math.isfinite(watts):
        raise DeviceRefused(f"{who} draws {known[0]} W at its lowest level, which is more than {watts:.0f} W")
    return max(fitting)


def _status(answer: Mapping[str, Any], who: str) -> dict[str, Any]:
    status = answer.get("STATUS")
    if not isinstance(status, list) or not status or not isinstance(status[0], dict):
        raise DeviceGarbled(f"{who} answered without a status")
    return status[0]


def _firmware(version: Mapping[str, Any]) -> str:
    return text_of(version, "LVERSION") or text_of(version, "VERSION") or text_of(version, "CGVERSION")


def _identities(version: Mapping[str, Any], host: str) -> tuple[str, ...]:
    mac = text_of(version, "MAC").upper()
    if re.fullmatch("[0-9A-F]{12}", mac):
        mac = ":".join(mac[at : at + 2] for at in range(0, 12, 2))
    found = tuple(text for text in (mac, text_of(version, "DNA").upper()) if text)
    if not found:
        raise DeviceGarbled(f"{host} (version) answered without MAC and DNA")
    return found
