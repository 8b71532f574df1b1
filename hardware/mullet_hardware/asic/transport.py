"""One request over one TCP connection, aborted whatever happens, so that nothing leaks when a deadline strikes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, TypeVar, cast

from mullet.ports import DeviceGarbled, DeviceUnreachable
from mullet_hardware.asic.allowed import AllowedRequest

MOST_ANSWER_BYTES = 4 << 20
PROBE_S = 1.0

T = TypeVar("T")


class ConnectionRefused(DeviceUnreachable):
    """The host answered that nothing listens on the port."""


class _Exchange(asyncio.Protocol):
    """Sends the request and gathers the answer until it is whole or the device closes."""

    def __init__(self, request: bytes, whole: Callable[[bytearray], bool], done: asyncio.Future[bytes]) -> None:
        self._request = request
        self._whole = whole
        self._done = done
        self._answer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.WriteTransport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if self._done.done():
            return
        if len(self._answer) > MOST_ANSWER_BYTES:
            self._done.set_exception(DeviceGarbled("an answer without end"))
        elif self._whole(self._answer):
            self._done.set_result(bytes(self._answer))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done.done():
            return
        if exc is not None and not self._answer:
            self._done.set_exception(DeviceUnreachable(f"connection lost: {type(exc).__name__}"))
        else:
            self._done.set_result(bytes(self._answer))


async def exchange(host: str, port: int, request: AllowedRequest, whole: Callable[[bytearray], bool]) -> bytes:
    """Return what the device answers to `request`, up to where `whole` holds or it closes.

    Raises:
        DeviceUnreachable: no connection, or it was reset before an answer.
        DeviceGarbled: an answer without end.
    """
    return await converse(host, port, lambda done: _Exchange(request.payload, whole, done))


async def converse(host: str, port: int, protocol: Callable[[asyncio.Future[T]], asyncio.Protocol]) -> T:
    """Return what a protocol over one connection sets its future to; the connection is aborted whatever happens.

    Raises:
        DeviceUnreachable: no connection.
        DeviceError: what the protocol sets.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    try:
        transport, _ = await loop.create_connection(lambda: protocol(done), host, port)
    except ConnectionRefusedError as error:
        raise ConnectionRefused(f"{host}:{port} refuses connections") from error
    except OSError as error:
        raise DeviceUnreachable(f"{host}:{port}: {error.strerror or type(error).__name__}") from error
    try:
        return await done
    finally:
        transport.abort()
        if done.done() and not done.cancelled():
            done.exception()


async def probe(host: str, port: int) -> None:
    """Return once a connection was made or refused: either way the host is there.

    Raises:
        DeviceUnreachable: not within a second.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(PROBE_S):
            transport, _ = await loop.create_connection(asyncio.Protocol, host, port)
    except TimeoutError as error:
        raise DeviceUnreachable(f"{host}:{port} does not answer") from error
    except ConnectionRefusedError:
        return
    except OSError as error:
        raise DeviceUnreachable(f"{host}:{port}: {error.strerror or type(error).__name__}") from error
    transport.abort()


def rpc_is_whole(answer: bytearray) -> bool:
    """Return whether a cgminer-like answer has its closing zero byte."""
    return answer.endswith(b"\0")


def parse_object(raw: bytes, who: str) -> dict[str, Any]:
    """Return the JSON object in `raw`.

    Raises:
        DeviceUnreachable: nothing was answered.
        DeviceGarbled: it is no JSON object.
    """
    text = raw.strip(b"\0\r\n \t")
    if not text:
        raise DeviceUnreachable(f"{who} closed the connection without an answer")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DeviceGarbled(f"{who} answered something that is no JSON") from error
    if not isinstance(found, dict):
        raise DeviceGarbled(f"{who} answered JSON that is no object")
    return found
