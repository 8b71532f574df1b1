"""The gRPC side of a miner: unary calls over HTTP/2, each answered after the device's latency, faults included.

Imported by the first connection only, because it brings an HTTP/2 library that other miners have no use for.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Protocol, cast
from urllib.parse import quote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import H2Error

from mullet_simulators.faults import GARBAGE_BYTES, SLOW_S, Fault
from mullet_simulators.miners.connections import Connections
from mullet_simulators.miners.protobuf import encode

OK, INVALID_ARGUMENT, FAILED_PRECONDITION, UNIMPLEMENTED, UNAUTHENTICATED = 0, 3, 9, 12, 16
MOST_REQUEST_BYTES = 65536
WRONG_SHAPE_MESSAGE = encode([(1000, 1)])
"""Valid, and without one field that anybody knows."""


@dataclass(frozen=True, slots=True)
class GrpcReply:
    """The answer to one call: a message, or a status other than OK with its text."""

    message: bytes = b""
    status: int = OK
    text: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


class GrpcDevice(Protocol):
    """A device that answers gRPC calls."""

    fault: str

    def is_reachable(self, now: float) -> bool:
        """Does its network stack answer?"""

    def now(self) -> float:
        """Unix seconds."""

    def answer_grpc(self, path: str, metadata: dict[str, str], message: bytes) -> GrpcReply | None:
        """The answer, or None where the device stays silent."""


@dataclass(slots=True)
class _Call:
    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)


class GrpcProtocol(asyncio.Protocol):
    """One connection; its calls are answered as they come."""

    def __init__(self, device: GrpcDevice, connections: Connections, latency_s: float) -> None:
        self._device = device
        self._connections = connections
        self._latency_s = latency_s
        self._transport: asyncio.Transport | None = None
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._calls: dict[int, _Call] = {}
        self._delayed: set[asyncio.TimerHandle] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Reset at once where the device is away."""
        # uvloop's transports have the methods of asyncio.Transport without being one.
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self._transport)
        if not self._device.is_reachable(self._device.now()):
            self._transport.abort()
            return
        self._h2.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Answer each call that is whole."""
        if self._transport is None:
            return
        try:
            events = self._h2.receive_data(data)
        except (H2Error, UnicodeError):
            self._transport.abort()
            return
        for event in events:
            self._handle(event)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection and what was still to be sent."""
        for handle in self._delayed:
            handle.cancel()
        self._delayed.clear()
        self._connections.discard(self._transport)
        self._transport = None

    def _handle(self, event: Any) -> None:
        if isinstance(event, RequestReceived):
            self._calls[event.stream_id] = _Call({str(name): str(value) for name, value in event.headers})
        elif isinstance(event, DataReceived) and event.stream_id in self._calls:
            call = self._calls[event.stream_id]
            call.body += event.data
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if len(call.body) > MOST_REQUEST_BYTES:
                del self._calls[event.stream_id]
        elif isinstance(event, StreamReset):
            self._calls.pop(event.stream_id, None)
        elif isinstance(event, StreamEnded) and event.stream_id in self._calls:
            self._answer(event.stream_id, self._calls.pop(event.stream_id))

    def _answer(self, stream: int, call: _Call) -> None:
        length = int.from_bytes(call.body[1:5], "big")
        message = bytes(call.body[5:])
        if len(call.body) < 5 or call.body[0] != 0 or len(message) != length:
            reply: GrpcReply | None = GrpcReply(status=INVALID_ARGUMENT, text="not one plain message")
        else:
            reply = self._device.answer_grpc(call.headers.get(":path", ""), call.headers, message)
        if reply is None:
            return
        fault = Fault(self._device.fault)
        after_s = self._latency_s + (SLOW_S if fault is Fault.SLOW else 0.0)
        if after_s <= 0.0:
            self._send(stream, reply, fault)
            return

        def send() -> None:
            self._delayed.discard(handle)
            self._send(stream, reply, fault)

        handle = asyncio.get_running_loop().call_later(after_s, send)
        self._delayed.add(handle)

    def _send(self, stream: int, reply: GrpcReply, fault: Fault) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if fault is Fault.GARBAGE:
            transport.write(GARBAGE_BYTES)
            transport.close()
            return
        try:
            self._frame(stream, reply, fault)
        except H2Error:
            # The caller has ended the stream meanwhile.
            return
        if fault is Fault.TRUNCATED:
            data = self._h2.data_to_send()
            transport.write(data[: len(data) // 2])
            transport.close()
            return
        self._flush()

    def _frame(self, stream: int, reply: GrpcReply, fault: Fault) -> None:
        headers = [(":status", "200"), ("content-type", "application/grpc")]
        status = [("grpc-status", str(reply.status))]
        if reply.text:
            status.append(("grpc-message", quote(reply.text)))
        if reply.status != OK:
            self._h2.send_headers(stream, headers + status, end_stream=True)
            return
        wrong = fault is Fault.WRONG_SHAPE
        message = WRONG_SHAPE_MESSAGE if wrong else reply.message
        self._h2.send_headers(stream, headers + ([] if wrong else list(reply.metadata.items())))
        self._h2.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message)
        self._h2.send_headers(stream, status, end_stream=True)

    def _flush(self) -> None:
        """Send what the library has ready; a hanging device sends not even its settings."""
        data = self._h2.data_to_send()
        if data and self._transport is not None and self._device.fault != Fault.HANG:
            self._transport.write(data)
