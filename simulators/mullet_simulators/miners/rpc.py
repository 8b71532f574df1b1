"""The cgminer-like RPC transport: one JSON object in, one answer out, then the device closes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Protocol, cast

from mullet_simulators.faults import SLOW_S, Fault, distort

MOST_REQUEST_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer and how long the device takes for it."""

    body: bytes
    after_s: float = 0.0


class RpcDevice(Protocol):
    """A device that answers RPC requests."""

    fault: str

    def is_reachable(self, now: float) -> bool:
        """Does its network stack answer?"""

    def now(self) -> float:
        """Unix seconds."""

    def answer_rpc(self, request: dict[str, Any]) -> Reply | None:
        """The answer, or None where the device stays silent."""


class Connections:
    """The open connections of one device, so that a dead one can drop them all."""

    def __init__(self) -> None:
        self._open: set[asyncio.Transport] = set()

    def add(self, transport: asyncio.Transport) -> None:
        """Remember a connection."""
        self._open.add(transport)

    def discard(self, transport: asyncio.Transport | None) -> None:
        """Forget a closed one."""
        if transport is not None:
            self._open.discard(transport)

    def abort(self) -> None:
        """Reset all."""
        for transport in list(self._open):
            transport.abort()


class DelayedWriter:
    """Writes an answer after the latency of network and device; cancelled with the connection."""

    def __init__(self, device_latency_s: float) -> None:
        self._latency_s = device_latency_s
        self._handle: asyncio.TimerHandle | None = None

    def write(self, transport: asyncio.Transport, body: bytes, fault: Fault, after_s: float, *, close: bool) -> None:
        """Send `body` after all delays, then close where asked."""
        after_s += self._latency_s + (SLOW_S if fault is Fault.SLOW else 0.0)
        if after_s <= 0.0:
            self._send(transport, body, close)
        else:
            loop = asyncio.get_running_loop()
            self._handle = loop.call_later(after_s, self._send, transport, body, close)

    def cancel(self) -> None:
        """The connection is gone."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _send(self, transport: asyncio.Transport, body: bytes, close: bool) -> None:
        self._handle = None
        if transport.is_closing():
            return
        transport.write(body)
        if close:
            transport.close()


class RpcProtocol(asyncio.Protocol):
    """One connection to port 4028."""

    def __init__(self, device: RpcDevice, connections: Connections, latency_s: float) -> None:
        self._device = device
        self._connections = connections
        self._writer = DelayedWriter(latency_s)
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Reset at once where the device is away."""
        # uvloop's transports have the methods of asyncio.Transport without being one.
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self._transport)
        if not self._device.is_reachable(self._device.now()):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Answer as soon as the bytes are a whole JSON object."""
        if self._answered or self._transport is None:
            return
        self._buffer += data
        if len(self._buffer) > MOST_REQUEST_BYTES:
            self._transport.abort()
            return
        text = self._buffer.strip(b"\0\r\n \t")
        if not text.endswith(b"}"):
            return
        try:
            request = json.loads(text)
        except ValueError:
            return
        self._answered = True
        fault = Fault(self._device.fault)
        reply = self._device.answer_rpc(request) if isinstance(request, dict) else None
        if reply is not None:
            body = distort(reply.body, fault)
            self._writer.write(self._transport, body, fault, reply.after_s, close=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection and what was still to be sent."""
        self._writer.cancel()
        self._connections.discard(self._transport)
        self._transport = None


def encode_rpc(answer: dict[str, Any]) -> bytes:
    """An answer as cgminer writes it: JSON and a zero byte."""
    return json.dumps(answer).encode() + b"\0"
