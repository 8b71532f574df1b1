"""ePIC PowerPlay: JSON over HTTP on port 4028, where others speak cgminer's RPC.

Reading is open; each write carries the password. Fields after ePIC's API document (epic-dashboard) and pyasic 0.79's
web module; ground truth in the simulator, no hardware.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pyasic.web.epic import ePICWebAPI

from mullet.domain.command import Verb
from mullet.domain.telemetry import LoadState
from mullet.ports import CredentialsRejected, DeviceGarbled, DeviceRefused, IdentityMismatch, UnsafeWrite
from mullet_hardware.asic.allowed import Channel, allow
from mullet_hardware.asic.capability import EPIC
from mullet_hardware.asic.device import (
    MOST_TH_PER_S,
    MOST_WATTS,
    Access,
    Answer,
    Found,
    IdentityPin,
    Order,
    number,
    require_write_access,
    short,
    text_of,
)
from mullet_hardware.asic.firmware.health_rules import at_work, entries, errors_of, hottest, slowest
from mullet_hardware.asic.firmware.rules import state_by_switch
from mullet_hardware.asic.protocol import Health, Reading
from mullet_hardware.asic.transport import parse_object
from mullet_hardware.asic.web import fetch

STOP, START = "Stop", "Autostart"
IDLE, MINING = "idling", "mining"
STARTS = ("initializ", "start", "calibrat", "tun")
"""How its words for what comes before mining begin; only "Idling" and "Mining" are known for certain."""


class GuardedWeb(ePICWebAPI):  # type: ignore[misc]
    """pyasic's commands over our own connections: of the writes, stop and start of mining alone are in reach."""

    def __init__(self, access: Access) -> None:
        super().__init__(access.host)
        self.port = access.web_port
        self.pwd = access.password

    async def send_command(
        self,
        command: str,
        ignore_errors: bool = False,
        allow_warning: bool = True,
        privileged: bool = False,
        **parameters: Any,
    ) -> dict[str, Any]:
        """Return the answer to a command of the allow-list, refusals included.

        Raises:
            UnsafeWrite: a command that is not allowed, or one with another parameter than stop and start.
            CredentialsRejected: the password is wrong.
        """
        who = f"{self.ip} ({command})"
        method = "POST" if privileged or parameters else "GET"
        allow(EPIC, Channel.WEB, f"{method} /{command}")
        body = b""
        if method == "POST":
            if parameters not in ({"param": STOP}, {"param": START}):
                raise UnsafeWrite(f"{who}: this must not be written")
            body = json.dumps({**parameters, "password": self.pwd}).encode()
        answer = await fetch(EPIC, self.ip, self.port, method, f"/{command}", body)
        if answer.status in (401, 403):
            raise CredentialsRejected(f"{self.ip} does not accept the password")
        if answer.status == 404:
            raise IdentityMismatch(f"{who}: it does not know the question, as an ePIC would")
        if answer.status != 200:
            raise DeviceGarbled(f"{who} answered HTTP {answer.status}")
        found = parse_object(answer.body, who)
        if method == "POST" and found.get("result") is False and "password" in str(found.get("error")).lower():
            raise CredentialsRejected(f"{self.ip} does not accept the password")
        return found


class EpicPowerPlay:
    """One miner with ePIC's firmware, on ePIC's own or an Antminer's control board."""

    def __init__(self, access: Access, pinned: str | None, full_watts: float, now: Callable[[], float]) -> None:
        self.pin = IdentityPin(pinned, access.host, now)
        self._access = access
        self._web = GuardedWeb(access)

    async def identify(self) -> Found:
        """Return who answers, after a check that it is ePIC's firmware.

        Raises:
            IdentityMismatch: it is another kind of device, or another one than is pinned.
        """
        host = self._access.host
        software = text_of(await self._summary(), "Software")
        capabilities = await self._web.capabilities()
        model = text_of(capabilities, "Model")
        if not software or not model:
            raise DeviceGarbled(f"{host} (summary, capabilities) answered without model and software")
        identities = await self._who()
        self.pin.saw(identities)
        self.pin.check()
        return Found(EPIC, identities, "ePIC", model, software)

    async def read(self) -> Reading:
        """Return a fresh reading."""
        await self.pin.ensure(self._who)
        return self._reading(await self._summary())

    async def poll(self) -> Reading:
        """Return a reading: one request tells everything."""
        return await self.read()

    async def apply(self, order: Order) -> Answer:
        """Send an order.

        Raises:
            CredentialsRejected: the password is wrong.
            DeviceRefused: it cannot be set in watts.
        """
        require_write_access(self._access)
        host = self._access.host
        if order.verb is Verb.POWER:
            raise DeviceRefused(f"{host} cannot be set in watts")
        await self.pin.ensure(self._who)
        if order.verb is Verb.SLEEP:
            said = await self._web.stop_mining()
        elif self._reading(await self._summary()).state in (LoadState.ACTIVE, LoadState.STARTING):
            # Starting what runs might start it anew.
            return Answer(True, "it is awake already; nothing was written")
        else:
            said = await self._web.start_mining()
        done = said.get("result")
        if not isinstance(done, bool):
            raise DeviceGarbled(f"{host} (miner) answered without a result")
        return Answer(done, short(said.get("error") or ""))

    async def health(self) -> Health:
        """Return boards, hottest board, slowest fan and the last error, from one request.

        Of boards that are switched off nothing is told.
        """
        await self.pin.ensure(self._who)
        who = f"{self._access.host} (summary)"
        summary = await self._summary()
        boards, fans, error = _boards_of(summary, who), summary.get("Fans Rpm"), summary["Status"].get("Last Error")
        return Health(
            boards=at_work([_rate_of(board, who) for board in boards]),
            boards_fitted=len(boards) if boards else None,
            celsius=hottest(board.get("Temperature") for board in boards),
            fan_rpm=slowest(fans.values(), who) if isinstance(fans, dict) else None,
            errors=errors_of(() if error is None else (error,)),
        )

    def _reading(self, summary: Mapping[str, Any]) -> Reading:
        who = f"{self._access.host} (summary)"
        supply = summary.get("Power Supply Stats")
        th_per_s, celsius = _boards(summary, who)
        return Reading(
            watts=number(supply, "Input Power", 1.0, MOST_WATTS, who) if isinstance(supply, dict) else None,
            state=_state(text_of(summary["Status"], "Operating State").lower(), th_per_s),
            th_per_s=th_per_s,
            celsius=celsius,
            identity=self.pin.pinned,
        )

    async def _summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = await self._web.summary()
        status = summary.get("Status")
        if not isinstance(status, dict) or not text_of(status, "Operating State"):
            raise DeviceGarbled(f"{self._access.host} (summary) answered without its operating state")
        return summary

    async def _who(self) -> tuple[str, ...]:
        network = await self._web.network()
        ports = (port for port in network.values() if isinstance(port, dict))
        found = tuple(dict.fromkeys(mac for port in ports if (mac := text_of(port, "mac_address").upper())))
        if not found:
            raise DeviceGarbled(f"{self._access.host} (network) answered without a MAC")
        return found


def _state(told: str, th_per_s: float | None) -> LoadState | None:
    """Return the state that its word and fresh hashrate tell together; None where they do not tell.

    While it idles there may be no boards to ask, and with them no hashrate.
    """
    if told == IDLE:
        return state_by_switch(True, th_per_s)
    if told == MINING:
        return state_by_switch(False, th_per_s)
    if told.startswith(STARTS):
        return LoadState.STARTING
    return LoadState.STOPPING if told == "stopping" else None


def _boards(summary: Mapping[str, Any], who: str) -> tuple[float | None, float | None]:
    """Return the hashrate of all boards and the temperature of the hottest; None where no board tells it.

    Raises:
        DeviceGarbled: a board tells something that is no hashrate.
    """
    boards = _boards_of(summary, who)
    known = [rate for board in boards if (rate := _rate_of(board, who)) is not None]
    return sum(known) if known else None, hottest(board.get("Temperature") for board in boards)


def _boards_of(summary: Mapping[str, Any], who: str) -> list[dict[str, Any]]:
    """Return the boards, none where they are switched off.

    Raises:
        DeviceGarbled: they are something else.
    """
    return entries(summary.get("HBs") or [], "boards", who)


def _rate_of(board: Mapping[str, Any], who: str) -> float | None:
    """Return the hashrate of a board in TH/s; the first of several numbers is what is measured."""
    measured = board.get("Hashrate")
    if not isinstance(measured, list) or not measured:
        return None
    return number({"Hashrate": measured[0]}, "Hashrate", 1e-6, MOST_TH_PER_S, who)
