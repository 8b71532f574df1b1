"""A TCP relay between a driver and its device that delays, cuts or spoils what the device answers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from enum import StrEnum
from types import TracebackType


class Spoil(StrEnum):
    """What the relay does to answers."""

    NOTHING = "nothing"
    SILENT = "silent"
    GARBAGE = "garbage"
    WRONG_SHAPE = "wrong_shape"
    RESET = "reset"


GARBAGE = b"\x16\x03\x01\xff<html>502 Bad Gateway</html>\n"
WRONG_SHAPE = b'{"foo": 1}\n'


class Relay:
    """Listens on a free port of 127.0.0.1 while its `async with` block lasts."""

    def __init__(self, host: str, port: int, delay_s: float = 0.0) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.delay_s = delay_s
        """Added to every answer."""
        self.spoil = Spoil.NOTHING

    @property
    def host(self) -> str:
        """Where it listens."""
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """Port on which it listens, while it does."""
        if self._server is None:
            raise RuntimeError("the relay is not started")
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def address(self) -> str:
        """Where it listens, as "host:port"."""
        return f"{self.host}:{self.port}"

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, self.host, 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            device_reader, device_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            self._tasks.discard(task)
            return
        asking = asyncio.create_task(self._ask(reader, device_writer))
        try:
            await self._answer(device_reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            # One side is gone, or the relay ends, which alone cancels; asyncio's streams log a cancelled handler.
            return
        finally:
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
            for side in (writer, device_writer):
                side.close()
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    await side.wait_closed()
            self._tasks.discard(task)

    async def _ask(self, reader: asyncio.StreamReader, device: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                device.write(data)
                await device.drain()
            device.close()

    async def _answer(self, device: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await device.read(65536):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if self.spoil is Spoil.SILENT:
                continue
            if self.spoil is Spoil.RESET:
                # Lingering for no time makes closing a reset instead of an end.
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return
            writer.write({Spoil.GARBAGE: GARBAGE, Spoil.WRONG_SHAPE: WRONG_SHAPE}.get(self.spoil, data))
            await writer.drain()
