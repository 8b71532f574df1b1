"""The cgminer-like RPC transport: one JSON object in, one answer out, then the device closes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Protocol, cast

from mullet_simulators.faults import Fault, distort
from mullet_simulators.miners.connections import Connections, DelayedWriter

RPC_PORT = 4028
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
