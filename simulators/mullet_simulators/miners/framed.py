"""JSON with its length in front (four bytes, little endian), over a connection that stays open."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Protocol, cast

from mullet_simulators.faults import Fault, distort
from mullet_simulators.miners.connections import Connections, DelayedWriter

LENGTH_BYTES = 4
MOST_REQUEST_BYTES = 65536


class FramedDevice(Protocol):
    """A device that answers framed requests."""

    fault: str

    def is_reachable(self, now: float) -> bool:
        """Does its network stack answer?"""

    def now(self) -> float:
        """Unix seconds."""

    def answer_framed(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The answer, or None where the device stays silent."""


class FramedProtocol(asyncio.Protocol):
    """One connection; requests are answered one after the other."""

    def __init__(self, device: FramedDevice, connections: Connections, latency_s: float) -> None:
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
        """Answer each whole request; an empty frame is a heartbeat."""
        self._buffer += data
        while self._transport is not None and len(self._buffer) >= LENGTH_BYTES:
            length = int.from_bytes(self._buffer[:LENGTH_BYTES], "little")
            if length > MOST_REQUEST_BYTES:
                self._transport.abort()
                return
            if len(self._buffer) < LENGTH_BYTES + length:
                return
            text = self._buffer[LENGTH_BYTES : LENGTH_BYTES + length]
            self._buffer = self._buffer[LENGTH_BYTES + length :]
            if text:
                self._answer(self._transport, text)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection and what was still to be sent."""
        self._writer.cancel()
        self._connections.discard(self._transport)
        self._transport = None

    def _answer(self, transport: asyncio.Transport, text: bytes) -> None:
        fault = Fault(self._device.fault)
        try:
            request = json.loads(text)
        except ValueError:
            request = {}
        answer = self._device.answer_framed(request if isinstance(request, dict) else {})
        if answer is None:
            return
        body = json.dumps(answer).encode()
        if fault is Fault.TRUNCATED:
            sent = distort(frame(body), fault)
        elif fault is Fault.GARBAGE:
            sent = distort(body, fault)
        else:
            sent = frame(distort(body, fault))
        self._writer.write(transport, sent, fault, 0.0, close=fault in (Fault.TRUNCATED, Fault.GARBAGE))


def frame(body: bytes) -> bytes:
    """Bytes with their length in front."""
    return len(body).to_bytes(LENGTH_BYTES, "little") + body
