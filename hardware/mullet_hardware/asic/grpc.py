"""One unary gRPC call over one HTTP/2 connection, aborted whatever happens, so that nothing leaks with a deadline.

pyasic's own way (grpclib) has no timeouts and leaves its channel to the collector where a call is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error

from mullet.ports import DeviceGarbled, DeviceUnreachable
from mullet_hardware.asic.allowed import AllowedRequest, Channel, allow
from mullet_hardware.asic.transport import MOST_ANSWER_BYTES, converse

OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, PERMISSION_DENIED, UNAVAILABLE, UNAUTHENTICATED = 0, 3, 4, 7, 14, 16
_STREAM = 1
_PREFIX_BYTES = 5
_FRAME_HEAD_BYTES = 9
_SETTINGS_HEAD = b"\4\0\0\0\0\0"
"""How HTTP/2 begins, after the length: a frame of settings, of no stream."""


@dataclass(frozen=True, slots=True)
class GrpcAnswer:
    """Status (0 is OK) with its text, the answer's headers in lower case, and the message; empty unless OK."""

    status: int
    text: str
    metadata: Mapping[str, str]
    message: bytes


async def call(
    firmware: str, host: str, port: int, path: str, message: bytes, metadata: Mapping[str, str]
) -> GrpcAnswer:
    """Return the answer to one call, whatever its status.

    Raises:
        UnsafeWrite: the method is not on the allow-list of `firmware`.
        DeviceError: no answer, or none that is gRPC.
    """
    framed = b"\0" + len(message).to_bytes(4, "big") + message
    request = allow(firmware, Channel.GRPC, path, framed)
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", f"{host}:{port}"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *metadata.items(),
    ]
    return await converse(host, port, lambda done: _Call(request, headers, f"{host} ({path})", done))


class _Call(asyncio.Protocol):
    """Sends the call at once, as HTTP/2 allows, and gathers its answer."""

    def __init__(
        self, request: AllowedRequest, headers: list[tuple[str, str]], who: str, done: asyncio.Future[GrpcAnswer]
    ) -> None:
        self._request = request
        self._headers = headers
        self._who = who
        self._done = done
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._told: dict[str, str] = {}
        self._body = bytearray()
        self._opening = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._h2.initiate_connection()
        self._h2.send_headers(_STREAM, self._headers)
        self._h2.send_data(_STREAM, self._request.payload, end_stream=True)
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self._done.done():
            return
        # The library would wait for the rest of whatever it takes for a frame.
        if len(self._opening) < _FRAME_HEAD_BYTES:
            self._opening = (self._opening + data)[:_FRAME_HEAD_BYTES]
            if len(self._opening) == _FRAME_HEAD_BYTES and self._opening[3:] != _SETTINGS_HEAD:
                self._fail(DeviceGarbled(f"{self._who} answered something that is no gRPC"))
                return
        try:
            for event in self._h2.receive_data(data):
                self._handle(event)
            self._flush()
        except (H2Error, UnicodeError, ValueError):
            self._fail(DeviceGarbled(f"{self._who} answered something that is no gRPC"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._body or self._told or 0 < len(self._opening) < _FRAME_HEAD_BYTES:
            self._fail(DeviceGarbled(f"{self._who} closed amid its answer"))
        else:
            self._fail(DeviceUnreachable(f"{self._who} closed the connection without an answer"))

    def _handle(self, event: Any) -> None:
        if isinstance(event, (ResponseReceived, TrailersReceived)):
            self._told.update((str(name), str(value)) for name, value in event.headers)
        elif isinstance(event, DataReceived):
            self._body += event.data
            self._h2.acknowledge_received_data(event.flow_controlled_length, _STREAM)
            if len(self._body) > MOST_ANSWER_BYTES:
                self._fail(DeviceGarbled(f"{self._who} answers without end"))
        elif isinstance(event, StreamEnded):
            self._finish()
        elif isinstance(event, (StreamReset, ConnectionTerminated)):
            self._fail(DeviceUnreachable(f"{self._who} broke the call off"))

    def _finish(self) -> None:
        told, status = self._told, self._told.get("grpc-status", "")
        kind = told.get("content-type", "")
        if told.get(":status") != "200" or not kind.startswith("application/grpc") or not status.isdigit():
            self._fail(DeviceGarbled(f"{self._who} answered something that is no gRPC"))
            return
        message = bytes(self._body[_PREFIX_BYTES:])
        whole = self._body[:1] == b"\0" and int.from_bytes(self._body[1:_PREFIX_BYTES], "big") == len(message)
        if int(status) == OK and not whole:
            self._fail(DeviceGarbled(f"{self._who} answered no whole message"))
            return
        if not self._done.done():
            text = unquote(told.get("grpc-message", ""))
            self._done.set_result(GrpcAnswer(int(status), text, told, message if int(status) == OK else b""))

    def _fail(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
