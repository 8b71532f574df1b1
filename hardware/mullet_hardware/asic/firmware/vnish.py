"""VNish (AnthillOS) on Antminers: everything over its web interface, /api/v1.

Readings are open; whatever writes needs a token, which POST unlock gives for the password and a reboot forgets.
Fields after VNish's API document (1.2) and pyasic 0.79's web module; ground truth in the simulator, no hardware.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pyasic.web.vnish import VNishWebAPI

from mullet.domain.command import Verb
from mullet.ports import CredentialsRejected, DeviceGarbled, DeviceRefused, IdentityMismatch, UnsafeWrite
from mullet_hardware.asic.allowed import Channel, allow
from mullet_hardware.asic.capability import VNISH
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
    require_write_access,
    short,
    text_of,
)
from mullet_hardware.asic.firmware.vnish_rules import (
    RUNS,
    STARTS,
    STOPPED,
    STOPS,
    choose_preset,
    health_of,
    overclock_of,
    preset_body,
    preset_watts,
    state_of,
)
from mullet_hardware.asic.protocol import Health, Reading
from mullet_hardware.asic.transport import parse_object
from mullet_hardware.asic.web import HttpAnswer, fetch

NOT_ADMITTED = (401, 403)


class GuardedWeb(VNishWebAPI):  # type: ignore[misc]
    """pyasic's commands and token over our own connections: of the settings, the preset alone is in reach."""

    def __init__(self, access: Access) -> None:
        super().__init__(access.host)
        self.port = access.web_port
        self.pwd = access.password
        self._presets: frozenset[str] = frozenset()

    async def auth(self) -> str:
        """Fetch a new token.

        Raises:
            CredentialsRejected: the password is wrong.
            DeviceRefused: it takes no attempts at present.
        """
        who = f"{self.ip} (unlock)"
        self.token = None
        answer = await self._fetch("POST", "unlock", json.dumps({"pw": self.pwd}).encode())
        if answer.status in NOT_ADMITTED:
            raise CredentialsRejected(f"{self.ip} does not accept the password")
        if answer.status == 429:
            raise DeviceRefused(f"{who}: too many attempts with a wrong password; it takes none at present")
        if answer.status != 200:
            raise DeviceGarbled(f"{who} answered HTTP {answer.status}")
        token = text_of(parse_object(answer.body, who), "token")
        if not token or not (token.isascii() and token.isprintable()):
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
        """Return the answer to a command of the allow-list; a list is the field `items` of what is returned.

        Raises:
            UnsafeWrite: a command that is not allowed, or a write of any setting but a preset it listed.
            CredentialsRejected: the password is wrong.
            DeviceRefused: it answered with an error.
        """
        method = "POST" if privileged or parameters else "GET"
        allow(VNISH, Channel.WEB, f"{method} /api/v1/{command}")
        if method == "POST":
            self._guard(command, parameters)
        body = json.dumps(parameters).encode() if parameters else b""
        if method == "POST" and self.token is None:
            await self.auth()
        answer = await self._fetch(method, command, body)
        if answer.status in NOT_ADMITTED:
            # The token ran out or was lost with a reboot.
            await self.auth()
            answer = await self._fetch(method, command, body)
        if answer.status in NOT_ADMITTED:
            self.token = None
            raise CredentialsRejected(f"{self.ip} ({command}) does not accept its own token")
        return self._understood(command, answer)

    async def fetch_info(self) -> dict[str, Any]:
        """Return what the device says it is. No token and no password goes to a device that may be another.

        Raises:
            IdentityMismatch: it does not know the question, as VNish would.
        """
        answer = await fetch(VNISH, self.ip, self.port, "GET", "/api/v1/info")
        if 400 <= answer.status < 500:
            raise IdentityMismatch(f"{self.ip} is no VNish: it answers HTTP {answer.status} when asked what it is")
        return self._understood("info", answer)

    async def fetch_front(self) -> bytes:
        """Return the page at its root in lower case."""
        return (await fetch(VNISH, self.ip, self.port, "GET", "/")).body.lower()

    async def fetch_presets(self) -> list[Any]:
        """Return the list of presets.

        Raises:
            DeviceGarbled: there is none in the answer.
        """
        answer = await self.autotune_presets()
        presets = answer.get("items", answer.get("presets"))
        if not isinstance(presets, list):
            raise DeviceGarbled(f"{self.ip} (autotune/presets) answered without presets")
        self._presets = frozenset(text_of(preset, "name") for preset in presets if isinstance(preset, dict)) - {""}
        return presets

    async def hold_token(self) -> None:
        """Fetch a token where there is none, or where the device says that it does not know ours (any more).

        Raises:
            CredentialsRejected: the password is wrong.
        """
        if self.token is not None and (await self.send_command("status")).get("unlocked") is not False:
            return
        await self.auth()

    def _guard(self, command: str, parameters: Mapping[str, Any]) -> None:
        if command == "settings":
            overclock = parameters.get("miner", {}).get("overclock", {}) if len(parameters) == 1 else {}
            name = overclock.get("preset")
            if not isinstance(name, str) or name not in self._presets or parameters != preset_body(name):
                raise UnsafeWrite(f"{self.ip} (settings): this must not be written")
        elif parameters:
            raise UnsafeWrite(f"{self.ip} ({command}): nothing is sent along with it")

    async def _fetch(self, method: str, command: str, body: bytes) -> HttpAnswer:
        # "Bearer" is for system/* alone, of which nothing is on the list.
        headers = {} if self.token is None else {"Authorization": self.token}
        return await fetch(VNISH, self.ip, self.port, method, f"/api/v1/{command}", body, headers)

    def _understood(self, command: str, answer: HttpAnswer) -> dict[str, Any]:
        who = f"{self.ip} ({command})"
        if answer.status == 200 and not answer.body.strip():
            return {}
        try:
            found = json.loads(answer.body)
        except ValueError as error:
            raise DeviceGarbled(f"{who} answered HTTP {answer.status} with something that is no JSON") from error
        if isinstance(found, dict) and "err" in found:
            raise DeviceRefused(f"{who} refused: {short(found['err'])}")
        if answer.status != 200 or not isinstance(found, dict | list):
            raise DeviceGarbled(f"{who} answered HTTP {answer.status} with something unexpected")
        return {"items": found} if isinstance(found, list) else found


class Vnish:
    """One Antminer with VNish."""

    def __init__(self, access: Access, pinned: str | None, full_watts: float, now: Callable[[], float]) -> None:
        self.pin = IdentityPin(pinned, access.host, now)
        self._access = access
        self._web = GuardedWeb(access)

    async def identify(self) -> Found:
        """Return who answers, after a check that it is VNish.

        Raises:
            IdentityMismatch: it is another kind of device, or another one than is pinned.
        """
        host = self._access.host
        info = await self._web.fetch_info()
        firmware, version = text_of(info, "fw_name"), text_of(info, "fw_version")
        model = text_of(info, "miner")
        if not model or not version:
            raise DeviceGarbled(f"{host} (info) answered without model and firmware")
        # Resellers give the firmware names of their own; its page tells it all the same.
        if "vnish" not in firmware.lower() and b"anthillos" not in await self._web.fetch_front():
            raise IdentityMismatch(f"{host} is no VNish but {short(firmware)!r}")
        identities = _identities(info, host)
        self.pin.saw(identities)
        self.pin.check()
        return Found(VNISH, identities, "Bitmain", model, f"{firmware} {version}".strip())

    async def read(self) -> Reading:
        """Return a fresh reading, with the preset's watts as its limit."""
        reading, _ = await self._read()
        performance = await self._web.perf_summary()
        preset = performance.get("current_preset")
        return Reading(
            watts=reading.watts,
            limit_watts=preset_watts(preset) if isinstance(preset, dict) else None,
            state=reading.state,
            th_per_s=reading.th_per_s,
            celsius=reading.celsius,
            identity=reading.identity,
        )

    async def poll(self) -> Reading:
        """Return a reading of one request, without the limit."""
        return (await self._read())[0]

    async def prepare(self) -> None:
        """Hold a token that the device still knows, so that an order need not unlock it first."""
        if self._access.barred is not None:
            return
        await self.pin.ensure(self._who)
        await self._web.hold_token()

    async def health(self) -> Health:
        """Return boards, hottest chip, slowest fan and failures, from one request that needs no token."""
        await self.pin.ensure(self._who)
        return health_of(await self._summary(), f"{self._access.host} (summary)")

    async def apply(self, order: Order) -> Answer:
        """Send an order; a preset is read back.

        Raises:
            CredentialsRejected: the password is wrong.
            DeviceRefused: it said no, or has no preset for these watts.
        """
        require_write_access(self._access)
        await self.pin.ensure(self._who)
        if order.verb is Verb.POWER:
            return await self._set_power(order.watts)
        if order.verb is Verb.WAKE:
            return await self._wake()
        try:
            await self._web.stop_mining()
        except DeviceRefused:
            # It refuses to stop what is stopped.
            if (await self._read())[1] not in (STOPPED, STOPS):
                raise
            return Answer(True, "it is stopped already")
        return Answer(True, "stopping")

    async def _wake(self) -> Answer:
        _, told = await self._read()
        if told in RUNS or told in STARTS:
            return Answer(True, "it is awake already; nothing was written")
        # pyasic resumes instead, which is the counterpart of pause; what was stopped is started.
        await self._web.start_mining()
        return Answer(True, "starting")

    async def _set_power(self, watts: float) -> Answer:
        """Choose, set and read back a preset.

        pyasic's own way never works in 0.79 (its issue 430): it compares the text of the preset's watts with a
        number. And it posts all of `overclock` as it was read; VNish takes the preset alone.
        """
        who = self._access.host
        overclock = overclock_of(await self._web.settings(), who)
        preset = choose_preset(await self._web.fetch_presets(), overclock, watts, who)
        if overclock["preset"] == preset.name:
            return Answer(True, f"preset {preset.name} is set already; nothing was written")
        said = await self._web.send_command("settings", privileged=True, **preset_body(preset.name))
        kept = overclock_of(await self._web.settings(), who)["preset"]
        if kept != preset.name:
            return Answer(False, f"it said it saved preset {preset.name} and keeps {short(kept)}")
        if said.get("reboot_required"):
            return Answer(False, f"preset {preset.name} is saved and works after a reboot only, which is not done")
        if said.get("restart_required") and (await self._read())[1] in (RUNS | STARTS):
            await self._web.restart_vnish()
        return Answer(True, f"preset {preset.name}")

    async def _read(self) -> tuple[Reading, str]:
        """Return what the summary tells, and its word for the state."""
        await self.pin.ensure(self._who)
        who = f"{self._access.host} (summary)"
        miner = await self._summary()
        told = text_of(miner["miner_status"], "miner_state")
        th_per_s = number(miner, "hr_realtime", 1e-3, MOST_TH_PER_S, who)
        watts = number(miner, "power_consumption", 1.0, MOST_WATTS, who)
        if watts is None:
            # Its name in older releases.
            watts = number(miner, "power_usage", 1.0, MOST_WATTS, who)
        boards = miner.get("pcb_temp")
        reading = Reading(
            watts=watts,
            state=state_of(told, th_per_s),
            th_per_s=th_per_s,
            # 0 stands for boards that are switched off.
            celsius=(celsius_of(boards, "max") or None) if isinstance(boards, dict) else None,
            identity=self.pin.pinned,
        )
        return reading, told

    async def _summary(self) -> dict[str, Any]:
        """Return what the summary tells of the miner, its state for certain."""
        miner = (await self._web.summary()).get("miner")
        if not isinstance(miner, dict) or not isinstance(miner.get("miner_status"), dict):
            raise DeviceGarbled(f"{self._access.host} (summary) answered without the miner's state")
        return miner

    async def _who(self) -> tuple[str, ...]:
        return _identities(await self._web.fetch_info(), self._access.host)


def _identities(info: Mapping[str, Any], host: str) -> tuple[str, ...]:
    system = info.get("system")
    network = system.get("network_status") if isinstance(system, dict) else None
    mac = text_of(network, "mac").upper() if isinstance(network, dict) else ""
    serial = text_of(info, "serial").upper()
    found = tuple(text for text in (mac, serial) if text and text != "N/A")
    if not found:
        raise DeviceGarbled(f"{host} (info) answered without MAC and serial")
    return found
