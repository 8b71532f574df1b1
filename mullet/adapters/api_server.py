"""The HTTP server as an owned task: it says when it listens, and it ends within two seconds whoever still watches."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from mullet.adapters.api import FacilityDesk, build_api
from mullet.adapters.live import Live
from mullet.adapters.trail import SeriesReader
from mullet.ports import Clock

START_S = 5.0
GRACE_S = 0.9
"""How long requests may take to end by themselves, and again once their connections are gone."""
MOST_CONNECTIONS = 200

logger = logging.getLogger(__name__)


class ApiServer:
    """The API of one facility on one address; the daemon starts and closes it."""

    def __init__(
        self,
        facility_id: str,
        operations: FacilityDesk,
        token: str | None,
        history: SeriesReader | None,
        host: str,
        port: int,
        *,
        clock: Clock | None = None,
        open_loopback_reads: bool = True,
    ) -> None:
        """Port 0 takes any free one. See `build_api` for the rest."""
        self._app = build_api(
            facility_id, operations, token, history, clock=clock, open_loopback_reads=open_loopback_reads
        )
        self._address = (host, port)
        self._running: contextlib.AsyncExitStack | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """Where the page is, with a slash at the end; empty before the start."""
        return self._url

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be had; the message names it.
        """
        stack = contextlib.AsyncExitStack()
        self._url = await stack.enter_async_context(serve_api(self._app, *self._address))
        self._running = stack

    async def close(self) -> None:
        """End every stream and stop listening, within two seconds."""
        stack, self._running = self._running, None
        if stack is not None:
            await stack.aclose()


@asynccontextmanager
async def serve_api(app: FastAPI, host: str, port: int) -> AsyncIterator[str]:
    """Serve `app` (of `build_api`) within the block; yields its URL once it listens. Installs no signal handlers.

    Raises:
        OSError: the address cannot be had; the message names it.
    """
    listener = _listen(host, port)
    live: Live = app.state.live
    server = _Server(
        uvicorn.Config(
            app,
            # The lifespan would end after the open streams, which end with it: `live` is started and closed here.
            lifespan="off",
            http="h11",
            ws="none",
            loop="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS,
        )
    )
    live.start()
    task = asyncio.create_task(server.serve([listener]), name="api server")
    try:
        await _until_started(server, task)
        yield _url(host, listener)
    finally:
        server.should_exit = True
        await live.close()
        await _ended(server, task)
        listener.close()


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: signals belong to the daemon."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def _url(host: str, listener: socket.socket) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{listener.getsockname()[1]}/"


async def _until_started(server: _Server, task: asyncio.Task[None]) -> None:
    try:
        async with asyncio.timeout(START_S):
            while not server.started:
                if task.done():
                    await task
                    raise OSError("the HTTP server ended before it listened")
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise OSError(f"the HTTP server did not listen within {START_S:.0f} s") from None


async def _ended(server: _Server, task: asyncio.Task[None]) -> None:
    """Wait for the end: first gladly, then without the connections, then without the requests."""
    await asyncio.wait({task}, timeout=GRACE_S)
    # What is still open belongs to someone who does not read: its request ends with its connection.
    for connection in tuple(server.server_state.connections):
        if connection.transport is not None:
            connection.transport.abort()
    await asyncio.wait({task}, timeout=GRACE_S)
    requests = tuple(server.server_state.tasks)
    for pending in (task, *requests):
        pending.cancel()
    results = await asyncio.gather(task, *requests, return_exceptions=True)
    if isinstance(results[0], Exception):
        logger.warning("the HTTP server failed: %s", results[0])
