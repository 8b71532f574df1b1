"""Identification of miners: few probes of one host, each bounded, then the device's own reads as the last word.

pyasic's factory is not used for it: all its requests share three seconds, so that it loses miners where many are
asked at once, and the first answer wins, so that VNish passes for stock Antminer. Here a host costs one knock of a
second if it is dead, and otherwise as many requests as its answers leave open.
"""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from mullet.ports import (
    CredentialsRejected,
    DeviceError,
    DeviceGarbled,
    DeviceRefused,
    DeviceUnreachable,
    IdentityMismatch,
)
from mullet_hardware.asic.allowed import UNKNOWN, Channel, allow
from mullet_hardware.asic.capability import BRAIINS, EPIC, Firmware
from mullet_hardware.asic.device import Device, Found, within
from mullet_hardware.asic.evidence import (
    BOSMINER,
    STOCK,
    Gap,
    Heard,
    Page,
    Standing,
    Verdict,
    decide,
    model_of,
    names_on_web,
    names_over_rpc,
)
from mullet_hardware.asic.transport import PROBE_S, ConnectionRefused, exchange, parse_object, rpc_is_whole
from mullet_hardware.asic.web import HttpAnswer, fetch

REQUEST_S = 3.0
CONFIRM_S = 10.0
KNOCKS = 256
"""Hosts knocked at once: most of a range is dead, and waits for a second."""
ASKED = 96
"""Hosts asked at once: more would only make every answer later."""
MOST_PAGE_BYTES: Final = 1 << 20
_LENGTH = struct.Struct("<I")
RPC_PORT, WEB_PORT, V3_PORT, GRPC_PORT = 4028, 80, 4433, 50051

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a site's miners listen, whatever they are; the makers' ports where nothing was moved."""

    rpc: int = RPC_PORT
    web: int = WEB_PORT
    v3: int = V3_PORT
    grpc: int = GRPC_PORT

    def of(self, firmware: Firmware) -> tuple[int, int]:
        """Return the ports (RPC, second) of a firmware at this site, 0 where it has none."""
        moved = {RPC_PORT: self.rpc, WEB_PORT: self.web, V3_PORT: self.v3, GRPC_PORT: self.grpc}
        first, second = firmware.rpc_port or 0, firmware.web_port or 0
        return moved.get(first, first), moved.get(second, second)


class Identifier:
    """Asks hosts what they are; its lanes bound what is asked at once, whoever asks."""

    def __init__(self, asked: int = ASKED, knocks: int = KNOCKS) -> None:
        self.knocks = knocks
        self._asked = asyncio.Semaphore(asked)
        self._knocking = asyncio.Semaphore(knocks)

    async def look(self, host: str, ports: Ports, patience: float = 1.0) -> Verdict:
        """Return what `host` is by what it says; never writes, asks for no password. `patience` stretches waits."""
        async with self._knocking:
            rpc, web, v3 = await asyncio.gather(*(knock(host, port) for port in (ports.rpc, ports.web, ports.v3)))
        if rpc is None and web is None and v3 is None:
            return Verdict(Standing.SILENT, (), "", "does not answer")
        async with self._asked:
            heard = await _Interview(host, ports, REQUEST_S * patience).run(bool(rpc), bool(web), bool(v3))
        # A host that refuses one port and drops what comes to another has something there, too busy to take it.
        for probe, answer in (("version", rpc), ("page", web), ("get.device.info", v3)):
            if answer is None and (probe != "get.device.info" or heard.page is None):
                heard.gaps.setdefault(probe, Gap.SILENT)
        return decide(heard)

    async def confirm(
        self, host: str, verdict: Verdict, build: Callable[[str], Device], patience: float = 1.0
    ) -> tuple[Device, Found]:
        """Return the device of the first class in the verdict whose own reads confirm it, and who it is.

        Raises:
            CredentialsRejected: one of the classes may be right, but the password is wrong.
            DeviceUnreachable: one of them may be right, but did not answer.
            IdentityMismatch: it is none of them, or not the device that it is pinned to.
        """
        doubt: DeviceError | None = None
        said = "says nothing that a known class says"
        for firmware_class in verdict.classes:
            try:
                async with self._asked:
                    device = build(firmware_class)
                    return device, await within(CONFIRM_S * patience, host, device.identify())
            except (IdentityMismatch, DeviceGarbled, DeviceRefused) as error:
                device.pin.check()
                said = str(error)
            except (CredentialsRejected, DeviceUnreachable) as error:
                # A wrong password says more than silence: some firmwares do not even listen on another's port.
                doubt = error if doubt is None or isinstance(error, CredentialsRejected) else doubt
        if doubt is not None:
            raise doubt
        raise IdentityMismatch(f"{host} is not {' or '.join(verdict.classes)}: {said}")


async def knock(host: str, port: int) -> bool | None:
    """Return whether something listens on the port; None where nothing answers within a second."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(PROBE_S):
            transport, _ = await loop.create_connection(asyncio.Protocol, host, port)
    except ConnectionRefusedError:
        return False
    except OSError:
        # Also the timeout: TimeoutError is an OSError.
        return None
    transport.abort()
    return True


class _Interview:
    """The probes of one host, in an order in which each answer spares further ones."""

    def __init__(self, host: str, ports: Ports, request_s: float) -> None:
        self._host = host
        self._ports = ports
        self._request_s = request_s
        self._heard = Heard()

    async def run(self, rpc: bool, web: bool, v3: bool) -> Heard:
        """Return what was heard; `rpc`, `web` and `v3` tell which ports are open."""
        heard = self._heard
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(self._version()) if rpc else None
            if web:
                await self._page()
            if asking is not None and EPIC in names_on_web(heard):
                # Its web interface sits on the RPC's port, where JSON without HTTP is never answered.
                asking.cancel()
        if not heard.rpc:
            # Nothing yet: these two wait side by side, for a hung host lets each run out of time.
            async with asyncio.TaskGroup() as group:
                if rpc and heard.gaps.get("version") is not Gap.GARBLED:
                    group.create_task(self._capabilities())
                if v3:
                    group.create_task(self._device_info())
        hung = heard.gaps.get("version") is Gap.SILENT and heard.gaps.get("/capabilities") is Gap.SILENT
        if rpc and heard.capabilities is None and not hung and not names_over_rpc(heard):
            await asyncio.gather(self._rpc("devdetails"), self._rpc("get_version"))
        elif heard.rpc and not model_of(heard):
            await self._rpc("devdetails")
        if v3 and heard.rpc and not names_over_rpc(heard) - {STOCK}:
            await self._device_info()
        if heard.rpc and STOCK in names_over_rpc(heard) | names_on_web(heard):
            await self._rpc("stats")
        if heard.page is not None and not (names_over_rpc(heard) | names_on_web(heard)):
            await self._system_info()
        names = names_over_rpc(heard) | names_on_web(heard)
        if BOSMINER in names or (BRAIINS in names and BRAIINS not in names_over_rpc(heard)):
            heard.grpc = bool(await knock(self._host, self._ports.grpc))
        return heard

    async def _version(self) -> None:
        await self._rpc("version")

    async def _rpc(self, command: str) -> None:
        payload = json.dumps({"command": command}).encode()
        raw = await self._asked(command, self._exchange(command, payload, self._ports.rpc, rpc_is_whole))
        if raw is None:
            return
        text = raw.decode("utf-8", "replace").strip("\0\r\n \t")
        # Half an answer names half a firmware: only what is whole, and is the RPC's, counts.
        if '"STATUS"' in text and (raw.endswith(b"\0") or _is_object(text)):
            self._heard.rpc[command] = text
        elif not text.startswith("HTTP/"):
            self._heard.gaps[command] = Gap.GARBLED

    async def _device_info(self) -> None:
        body = json.dumps({"cmd": "get.device.info"}).encode()
        payload = _LENGTH.pack(len(body)) + body
        name = "get.device.info"
        raw = await self._asked(name, self._exchange(name, payload, self._ports.v3, _length_is_met))
        if raw is None:
            return
        try:
            message = parse_object(raw[_LENGTH.size :], self._host).get("msg")
        except DeviceError:
            message = None
        if isinstance(message, dict):
            self._heard.device_info = message
        else:
            self._heard.gaps[name] = Gap.GARBLED

    async def _page(self) -> None:
        answer = await self._asked("page", self._get("/", self._ports.web))
        if answer is not None:
            headers = answer.headers
            text = _inflated(answer).decode("utf-8", "replace")
            self._heard.page = Page(
                answer.status, headers.get("www-authenticate", ""), headers.get("location", ""), text
            )

    async def _capabilities(self) -> None:
        found = await self._json("/capabilities", self._ports.rpc)
        if found is not None and "Model" in found:
            self._heard.capabilities = found
            self._heard.gaps.pop("version", None)

    async def _system_info(self) -> None:
        found = await self._json("/api/system/info", self._ports.web)
        if found is not None and ("ASICModel" in found or "minerModel" in found):
            self._heard.system_info = found

    async def _json(self, path: str, port: int) -> dict[str, Any] | None:
        """Return the object behind a path; None where there is none, which is no gap: other devices lack the path."""
        answer = await self._asked(path, self._get(path, port))
        if answer is None or answer.status != 200:
            return None
        try:
            return parse_object(_inflated(answer), self._host)
        except DeviceError:
            return None

    def _get(self, path: str, port: int) -> Awaitable[HttpAnswer]:
        return fetch(UNKNOWN, self._host, port, "GET", path)

    def _exchange(
        self, command: str, payload: bytes, port: int, whole: Callable[[bytearray], bool]
    ) -> Awaitable[bytes]:
        return exchange(self._host, port, allow(UNKNOWN, Channel.RPC, command, payload), whole)

    async def _asked(self, probe: str, call: Awaitable[T]) -> T | None:
        try:
            return await within(self._request_s, self._host, call)
        except ConnectionRefused:
            self._heard.gaps[probe] = Gap.CLOSED
        except DeviceUnreachable:
            self._heard.gaps[probe] = Gap.SILENT
        except DeviceError:
            self._heard.gaps[probe] = Gap.GARBLED
        return None


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _length_is_met(answer: bytearray) -> bool:
    if len(answer) < _LENGTH.size:
        return False
    size: int = _LENGTH.unpack_from(answer)[0]
    return len(answer) >= _LENGTH.size + size


def _inflated(answer: HttpAnswer) -> bytes:
    """Return the body as plain bytes: small devices keep their pages compressed and send them so, unasked."""
    if answer.headers.get("content-encoding", "").lower() != "gzip":
        return answer.body
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(answer.body, MOST_PAGE_BYTES)
    except zlib.error:
        return b""
