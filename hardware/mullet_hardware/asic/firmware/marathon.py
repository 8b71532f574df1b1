"""Marathon's firmware (MaraFW, KaonSu) on Antminers: everything over /kaonsu/v1 behind digest authentication.

Fields after pyasic 0.79's web module and asic-rs, whose pause and resume its authors tried on a device; ground truth
in the simulator, no hardware.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from pyasic.web.marathon import MaraWebAPI

from mullet.domain.command import Verb
from mullet.ports import (
    CredentialsRejected,
    DeviceError,
    DeviceGarbled,
    DeviceRefused,
    IdentityMismatch,
    UnsafeWrite,
)
from mullet_hardware.asic.allowed import Channel, allow
from mullet_hardware.asic.capability import MARATHON
from mullet_hardware.asic.device import (
    UNSETTLED_S,
    Access,
    Answer,
    Found,
    IdentityPin,
    Order,
    celsius_of,
    require_write_access,
    short,
    text_of,
)
from mullet_hardware.asic.firmware.marathon_rules import (
    AUTO,
    AWAKE,
    SLEEP,
    STOCK,
    changes_mode_only,
    hashrate_of,
    health_of,
    limit_of,
    mode_before_sleep,
    selector_of,
    with_power,
    with_selector,
)
from mullet_hardware.asic.firmware.rules import state_by_switch
from mullet_hardware.asic.protocol import Health, Reading
from mullet_hardware.asic.transport import parse_object
from mullet_hardware.asic.web import WebSession

FRESH_MODE_POLLS = 5
PREFIX = "/kaonsu/v1/"
HISTORY = "log?type=miner_config_history"


class GuardedWeb(MaraWebAPI):  # type: ignore[misc]
    """pyasic's commands over our own session: one write is in reach, and only as the configuration just read."""

    def __init__(self, access: Access) -> None:
        super().__init__(access.host)
        self.port = access.web_port
        self._read: dict[str, Any] | None = None
        self._session = WebSession(MARATHON, access.host, access.web_port, access.username, access.password)

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
            UnsafeWrite: a command that is not allowed, or a write of anything but the configuration exactly as it
                was just read, pools included, with another mode.
            CredentialsRejected: the password is wrong.
        """
        found = parse_object(await self._fetch(command, parameters), f"{self.ip} ({command})")
        if command == "miner_config" and not parameters:
            self._read = copy.deepcopy(found)
        return found

    async def fetch_history(self) -> object:
        """Return the history of the configuration, whatever it holds.

        Raises:
            DeviceGarbled: it is no JSON.
        """
        try:
            return json.loads(await self._fetch(HISTORY, {}))
        except ValueError as error:
            raise DeviceGarbled(f"{self.ip} (log) answered something that is no JSON") from error

    async def _fetch(self, command: str, parameters: Mapping[str, Any]) -> bytes:
        who = f"{self.ip} ({command})"
        method = "POST" if parameters else "GET"
        allow(MARATHON, Channel.WEB, f"{method} {PREFIX}{command}")
        body = b""
        if parameters:
            # What was read is good for one write: the next one reads again.
            read, self._read = self._read, None
            if read is None or not changes_mode_only(read, parameters):
                raise UnsafeWrite(f"{who}: this must not be written")
            body = json.dumps(parameters).encode()
        answer = await self._session.fetch(method, f"{PREFIX}{command}", body)
        if answer.status == 403:
            raise CredentialsRejected(f"{who}: not permitted to this user")
        if answer.status == 404:
            raise IdentityMismatch(f"{who}: it does not know the question, as Marathon's firmware would")
        if answer.status != 200:
            raise DeviceGarbled(f"{who} answered HTTP {answer.status}")
        return answer.body


class Marathon:
    """One Antminer with Marathon's firmware."""

    def __init__(self, access: Access, pinned: str | None, full_watts: float, now: Callable[[], float]) -> None:
        self.pin = IdentityPin(pinned, access.host, now)
        self._access = access
        self._now = now
        self._web = GuardedWeb(access)
        self._ordered_at = -math.inf
        self._polls_since_mode = 0
        self._awake_mode: str | None = None
        """The mode it was last seen in while it did not sleep."""
        self._wakes_tuned = False
        """Whether it was set in watts while it slept, and so is to wake into that."""

    async def identify(self) -> Found:
        """Return who answers, after a check that it is Marathon's firmware.

        Raises:
            IdentityMismatch: it is another kind of device, or another one than is pinned.
            CredentialsRejected: the password is wrong.
        """
        host = self._access.host
        await self._brief()
        overview = await self._web.overview()
        model = text_of(overview, "model_extended") or text_of(overview, "model")
        if not model:
            raise DeviceGarbled(f"{host} (overview) answered without a model")
        identities = _identities(overview, host)
        self.pin.saw(identities)
        self.pin.check()
        return Found(MARATHON, identities, "Bitmain", model, text_of(overview, "version_firmware"))

    async def read(self) -> Reading:
        """Return a fresh reading of hashrate and mode."""
        return await self._reading(ask_mode=True)

    async def poll(self) -> Reading:
        """Return a reading; of one that plainly hashes and was left alone the mode is asked every few polls only."""
        unsettled = self._now() - self._ordered_at < UNSETTLED_S
        return await self._reading(ask_mode=unsettled or self._polls_since_mode >= FRESH_MODE_POLLS)

    async def health(self) -> Health:
        """Return boards, hottest chip and slowest fan, from two requests; of errors nothing is known."""
        await self.pin.ensure(self._who)
        return health_of(await self._web.hashboards(), await self._web.fans(), self._access.host)

    async def apply(self, order: Order) -> Answer:
        """Read, guard, change the mode, write.

        Raises:
            UnsafeWrite: what was read holds no pool list, so that a write could lose the pools.
            CredentialsRejected: the password is wrong.
        """
        host = self._access.host
        require_write_access(self._access)
        await self.pin.ensure(self._who)
        conf = await self._web.get_miner_config()
        selector = self._saw(selector_of(conf, host))
        if order.verb is Verb.POWER:
            body = with_power(conf, order.watts, host)
            self._wakes_tuned = selector == SLEEP
        elif order.verb is Verb.SLEEP:
            # A second order to sleep harms nothing and may help.
            body = with_selector(conf, SLEEP, host)
        elif selector != SLEEP:
            return Answer(True, "it is awake already; nothing was written")
        else:
            # Guarded before anything else is asked: without pools there is nothing to ask for.
            with_selector(conf, AUTO, host)
            body = with_selector(conf, await self._mode_to_wake_into(), host)
        self._ordered_at = self._now()
        said = await self._web.set_miner_config(**body)
        failed = said.get("error")
        if not isinstance(failed, bool):
            raise DeviceGarbled(f"{host} (miner_config) answered a write without its result")
        return Answer(not failed, short(said.get("msg", "")))

    async def _mode_to_wake_into(self) -> str:
        """Return the mode it was in before it slept. pyasic always sets Auto, which may be another point of work."""
        if self._wakes_tuned:
            return AUTO
        try:
            told = mode_before_sleep(await self._web.fetch_history())
        except (DeviceGarbled, DeviceRefused, IdentityMismatch):
            # Releases without a history: what was seen last must do.
            told = None
        return told or self._awake_mode or STOCK

    async def _reading(self, ask_mode: bool) -> Reading:
        await self.pin.ensure(self._who)
        who = f"{self._access.host} (brief)"
        brief = await self._brief()
        th_per_s = hashrate_of(brief, who)
        off, limit_watts = None, None
        if ask_mode or not th_per_s:
            off, limit_watts = await self._ask_mode()
            self._polls_since_mode = 0
        self._polls_since_mode += 1
        # Its `power_consumption_estimated` is no measurement, and so not told as watts.
        return Reading(
            limit_watts=limit_watts,
            state=state_by_switch(off, th_per_s),
            th_per_s=th_per_s,
            # 0 stands for boards that are switched off.
            celsius=celsius_of(brief, "temperature_max") or None,
            identity=self.pin.pinned,
        )

    async def _ask_mode(self) -> tuple[bool | None, float | None]:
        """Return whether it is to sleep, and its limit; None where the configuration cannot be read."""
        host = self._access.host
        try:
            conf = await self._web.get_miner_config()
            return self._saw(selector_of(conf, host)) == SLEEP, limit_of(conf, host)
        except (CredentialsRejected, IdentityMismatch):
            raise
        except DeviceError:
            return None, None

    async def _brief(self) -> dict[str, Any]:
        brief: dict[str, Any] = await self._web.brief()
        if "hashrate_realtime" not in brief or "status" not in brief:
            raise DeviceGarbled(f"{self._access.host} (brief) answered without hashrate and status")
        return brief

    def _saw(self, selector: str) -> str:
        if selector in AWAKE:
            self._awake_mode = selector
            self._wakes_tuned = False
        return selector

    async def _who(self) -> tuple[str, ...]:
        return _identities(await self._web.overview(), self._access.host)


def _identities(overview: Mapping[str, Any], host: str) -> tuple[str, ...]:
    mac = text_of(overview, "mac").upper()
    if not mac:
        raise DeviceGarbled(f"{host} (overview) answered without a MAC")
    return (mac,)
