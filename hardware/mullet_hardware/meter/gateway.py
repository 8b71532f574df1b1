"""One Modbus TCP gateway: one connection, one request at a time, every request with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException

from mullet.tasks import honour_cancellation

REQUEST_SHARE = 0.5
"""A request may use this share of its caller's deadline, so that one dead unit leaves time for the next."""


class GatewayError(Exception):
    """The gateway or the unit behind it gave no usable answer."""


class Gateway:
    """A connection that is opened when needed and dropped after any request that went wrong.

    Dropping it keeps a late answer from being taken for the answer to a later request.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._client: AsyncModbusTcpClient | None = None
        self._lock = asyncio.Lock()
        self._closed = False

    async def request(self, ask: Callable[[AsyncModbusTcpClient], Awaitable[Any]], deadline_s: float) -> Any:
        """Return the answer to one request.

        Raises:
            GatewayError: no connection, no answer in time, or the unit answered with an exception.
        """
        try:
            async with asyncio.timeout(deadline_s), self._lock:
                return await self._exchange(ask, REQUEST_SHARE * deadline_s)
        except TimeoutError:
            raise GatewayError(f"{self._host}:{self._port}: no answer within {deadline_s:g} s") from None

    def close(self) -> None:
        """Drop the connection for good."""
        self._closed = True
        self._drop()

    async def _exchange(self, ask: Callable[[AsyncModbusTcpClient], Awaitable[Any]], limit_s: float) -> Any:
        finished = False
        try:
            async with asyncio.timeout(limit_s):
                client = await self._connected(limit_s)
                answer = await ask(client)
            # An exception answer is a whole answer: the connection stays good.
            finished = True
            # A reader that is never told to end would read for ever.
            honour_cancellation()
        except TimeoutError:
            raise GatewayError(f"{self._host}:{self._port}: no answer within {limit_s:g} s") from None
        except (ModbusException, OSError, ValueError) as error:
            raise GatewayError(f"{self._host}:{self._port}: {error}") from None
        finally:
            if not finished:
                self._drop()
        if answer.isError():
            raise GatewayError(f"{self._host}:{self._port}: the unit answered {answer}")
        return answer

    async def _connected(self, limit_s: float) -> AsyncModbusTcpClient:
        if self._closed:
            raise GatewayError(f"{self._host}:{self._port}: closed")
        if self._client is not None and not self._client.connected:
            self._drop()
        if self._client is None:
            # Reconnecting and repeating are ours: the library would go on after the deadline.
            self._client = AsyncModbusTcpClient(
                self._host, port=self._port, timeout=limit_s, retries=0, reconnect_delay=0, name="mullet"
            )
            if not await self._client.connect():
                raise GatewayError(f"{self._host}:{self._port}: no connection")
        self._client.comm_params.timeout_connect = limit_s
        self._client.ctx.comm_params.timeout_connect = limit_s
        return self._client

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


class Gateways:
    """The gateways of one driver, each found by host and port."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Gateway] = {}

    def at(self, host: str, port: int) -> Gateway:
        """Return the one gateway at this address."""
        if (host, port) not in self._known:
            self._known[(host, port)] = Gateway(host, port)
        return self._known[(host, port)]

    def close(self) -> None:
        """Drop all connections."""
        known, self._known = self._known, {}
        for gateway in known.values():
            gateway.close()
