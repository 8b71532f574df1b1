"""The web side of a miner: just enough HTTP/1.1, with digest authentication (RFC 7616, MD5, qop auth)."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol, cast

from mullet_simulators.faults import Fault, distort
from mullet_simulators.miners.connections import Connections, DelayedWriter

MOST_HEAD_BYTES = 16384
MOST_BODY_BYTES = 262144
NONCES_KEPT = 64
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 500: "Internal Server Error"}
_PAIR = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]+))')


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One parsed request; header names are lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpReply:
    """Status, body and extra headers."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


class HttpDevice(Protocol):
    """A device that answers HTTP requests."""

    fault: str

    def is_reachable(self, now: float) -> bool:
        """Does its network stack answer?"""

    def now(self) -> float:
        """Unix seconds."""

    def answer_http(self, request: HttpRequest) -> HttpReply | None:
        """The answer, or None where the device stays silent."""


class DigestGuard:
    """Checks `Authorization: Digest` against a password; knows only the nonces it issued."""

    def __init__(self, realm: str, username: str) -> None:
        self._realm = realm
        self._username = username
        self._nonces: deque[str] = deque(maxlen=NONCES_KEPT)
        self._issued = 0

    def forget(self) -> None:
        """Drop all nonces, as a reboot does."""
        self._nonces.clear()

    def challenge(self, seed: str) -> HttpReply:
        """A 401 with a fresh nonce made from `seed`."""
        self._issued += 1
        nonce = _md5(f"{seed}:{self._issued}")
        self._nonces.append(nonce)
        header = f'Digest realm="{self._realm}", nonce="{nonce}", algorithm=MD5, qop="auth"'
        page = b"<html><head><title>401 Unauthorized</title></head></html>"
        return HttpReply(401, page, "text/html", {"WWW-Authenticate": header})

    def admits(self, request: HttpRequest, password: str) -> bool:
        """Is the request signed with this password under a nonce issued here?"""
        scheme, _, rest = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "digest":
            return False
        given = {key.lower(): quoted or bare for key, quoted, bare in _PAIR.findall(rest)}
        if given.get("nonce") not in self._nonces or given.get("username") != self._username:
            return False
        if given.get("uri") != request.target or given.get("realm") != self._realm:
            return False
        ha1 = _md5(f"{self._username}:{self._realm}:{password}")
        ha2 = _md5(f"{request.method}:{request.target}")
        if given.get("qop") != "auth":
            return False
        signed = ":".join((ha1, given["nonce"], given.get("nc", ""), given.get("cnonce", ""), given["qop"], ha2))
        return hmac.compare_digest(_md5(signed), given.get("response", ""))


class HttpProtocol(asyncio.Protocol):
    """One kept-alive connection; requests are answered one after the other."""

    def __init__(self, device: HttpDevice, connections: Connections, latency_s: float) -> None:
        self._device = device
        self._connections = connections
        self._writer = DelayedWriter(latency_s)
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Reset at once where the device is away."""
        # uvloop's transports have the methods of asyncio.Transport without being one.
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self._transport)
        if not self._device.is_reachable(self._device.now()):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        self._buffer += data
        while self._transport is not None and self._answer_one(self._transport):
            pass

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection and what was still to be sent."""
        self._writer.cancel()
        self._connections.discard(self._transport)
        self._transport = None

    def _answer_one(self, transport: asyncio.Transport) -> bool:
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            if len(self._buffer) > MOST_HEAD_BYTES:
                transport.abort()
            return False
        lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        length_text = headers.get("content-length", "0")
        parts = lines[0].split(" ")
        if len(parts) != 3 or not length_text.isdigit() or int(length_text) > MOST_BODY_BYTES:
            self._send(transport, HttpReply(400), keep=False)
            return False
        length = int(length_text)
        if len(rest) < length:
            return False
        self._buffer = rest[length:]
        request = HttpRequest(parts[0], parts[1], headers, rest[:length])
        reply = self._device.answer_http(request)
        if reply is None:
            return False
        self._send(transport, reply, keep=headers.get("connection", "").lower() != "close")
        return True

    def _send(self, transport: asyncio.Transport, reply: HttpReply, *, keep: bool) -> None:
        fault = Fault(self._device.fault)
        body = distort(reply.body, fault) if reply.status == 200 else reply.body
        # A truncated answer promises the whole length and then closes.
        promised = len(reply.body) if fault is Fault.TRUNCATED else len(body)
        keep = keep and promised == len(body)
        head = [
            f"HTTP/1.1 {reply.status} {REASONS.get(reply.status, 'Unknown')}",
            f"Content-Type: {reply.content_type}",
            f"Content-Length: {promised}",
            f"Connection: {'keep-alive' if keep else 'close'}",
            *(f"{name}: {value}" for name, value in reply.headers.items()),
        ]
        data = "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body
        self._writer.write(transport, data, fault, 0.0, close=not keep)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
