"""HTTP/1.1 with digest authentication (RFC 7616, MD5, qop auth), one connection per request."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mullet.ports import CredentialsRejected, DeviceGarbled, DeviceUnreachable
from mullet_hardware.asic.allowed import Channel, allow
from mullet_hardware.asic.transport import exchange

_PAIR = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]+))')


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status, headers (lower case) and body."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class _Challenge:
    realm: str
    nonce: str
    opaque: str | None
    quality: bool
    uses: int = 0


async def fetch(
    firmware: str,
    host: str,
    port: int,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] = MappingProxyType({}),
) -> HttpAnswer:
    """Return the answer to one request, whatever its status; over a connection of its own.

    Raises:
        UnsafeWrite: the request is not on the allow-list of `firmware`.
        DeviceError: no answer, or none that is HTTP.
    """
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}:{port}", "Connection: close", "Accept: */*"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    elif method != "GET":
        lines.append("Content-Length: 0")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    payload = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
    request = allow(firmware, Channel.WEB, f"{method} {path}", payload)
    return _parse(await exchange(host, port, request, _is_whole), host)


class WebSession:
    """The web interface of one device; remembers the challenge, so that one request suffices as long as it holds."""

    def __init__(self, firmware: str, host: str, port: int, username: str, password: str) -> None:
        self._firmware = firmware
        self._host = host
        self._port = port
        self._username = username
        self._password = password
        self._challenge: _Challenge | None = None

    async def fetch_open(self, path: str) -> HttpAnswer:
        """Return the answer to an unauthenticated GET, whatever its status.

        Raises:
            DeviceError: no answer, or none that is HTTP.
        """
        return await self._send("GET", path, b"", None)

    async def fetch(self, method: str, path: str, body: bytes = b"") -> HttpAnswer:
        """Return the answer to an authenticated request, whatever its status but 401.

        Raises:
            CredentialsRejected: the device does not accept the password.
            DeviceError: no answer, or none that is HTTP.
        """
        held = self._challenge
        answer = await self._send(method, path, body, self._sign(method, path, held))
        if answer.status != 401:
            return answer
        held = self._challenge = _challenge(answer.headers.get("www-authenticate", ""))
        if held is None:
            raise DeviceGarbled(f"{self._host} asks for a kind of authentication that is not digest")
        answer = await self._send(method, path, body, self._sign(method, path, held))
        if answer.status == 401:
            self._challenge = None
            raise CredentialsRejected(f"{self._host} does not accept the password of user {self._username!r}")
        return answer

    async def _send(self, method: str, path: str, body: bytes, signed: str | None) -> HttpAnswer:
        headers = {} if signed is None else {"Authorization": signed}
        return await fetch(self._firmware, self._host, self._port, method, path, body, headers)

    def _sign(self, method: str, path: str, held: _Challenge | None) -> str | None:
        if held is None:
            return None
        held.uses += 1
        count, own = f"{held.uses:08x}", secrets.token_hex(8)
        key = _md5(f"{self._username}:{held.realm}:{self._password}")
        what = _md5(f"{method}:{path}")
        fields = f'Digest username="{self._username}", realm="{held.realm}", nonce="{held.nonce}", uri="{path}"'
        if held.quality:
            fields += f', qop=auth, nc={count}, cnonce="{own}"'
            fields += f', response="{_md5(f"{key}:{held.nonce}:{count}:{own}:auth:{what}")}"'
        else:
            fields += f', response="{_md5(f"{key}:{held.nonce}:{what}")}"'
        return fields if held.opaque is None else f'{fields}, opaque="{held.opaque}"'


def _challenge(header: str) -> _Challenge | None:
    scheme, _, rest = header.partition(" ")
    given = {key.lower(): quoted or bare for key, quoted, bare in _PAIR.findall(rest)}
    if scheme.lower() != "digest" or "nonce" not in given or given.get("algorithm", "MD5").upper() != "MD5":
        return None
    return _Challenge(given.get("realm", ""), given["nonce"], given.get("opaque"), "qop" in given)


def _headers(head: bytes | bytearray) -> dict[str, str]:
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _is_whole(answer: bytearray) -> bool:
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return False
    headers = _headers(head)
    length = headers.get("content-length", "")
    if length.isdigit():
        return len(body) >= int(length)
    return headers.get("transfer-encoding", "").lower() == "chunked" and body.endswith(b"0\r\n\r\n")


def _parse(raw: bytes, who: str) -> HttpAnswer:
    if not raw:
        raise DeviceUnreachable(f"{who} closed the connection without an answer")
    head, separator, body = raw.partition(b"\r\n\r\n")
    parts = head.split(b"\r\n", 1)[0].split(b" ", 2)
    if not separator or len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
        raise DeviceGarbled(f"{who} answered something that is no HTTP")
    headers = _headers(head)
    length = headers.get("content-length", "")
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = _unchunk(body, who)
    elif length.isdigit():
        if len(body) < int(length):
            raise DeviceGarbled(f"{who} answered {len(body)} of {length} bytes")
        body = body[: int(length)]
    return HttpAnswer(int(parts[1]), headers, body)


def _unchunk(body: bytes, who: str) -> bytes:
    found = b""
    while True:
        size_text, separator, rest = body.partition(b"\r\n")
        try:
            size = int(size_text.split(b";")[0], 16)
        except ValueError as error:
            raise DeviceGarbled(f"{who} answered broken chunks") from error
        if not separator or len(rest) < size:
            raise DeviceGarbled(f"{who} answered broken chunks")
        if size == 0:
            return found
        found += rest[:size]
        body = rest[size + 2 :]


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
