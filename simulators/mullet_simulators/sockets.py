"""A TCP server that owns its conversations: stopping it ends and awaits every one of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class StreamServer:
    """Listens on one address and runs `converse` for each client; port 0 lets the system choose."""

    def __init__(self, host: str, port: int, converse: Converse, most_bytes: int = 65536) -> None:
        self.host = host
        self.port = port
        self._converse = converse
        self._most_bytes = most_bytes
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """`host:port` that it listens on."""
        return f"{self.host}:{self.port}"

    async def start(self) -> None:
        """Listen. Raises OSError where the address is in use."""
        self._server = await asyncio.start_server(self._serve, self.host, self.port, limit=self._most_bytes)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close every connection and await every task."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # The client has gone, or speaks another protocol: there is nobody to answer.
            return
        except asyncio.CancelledError:
            # Only stop() cancels; asyncio's streams log a handler that ends cancelled as an error (Python 3.11).
            return
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
