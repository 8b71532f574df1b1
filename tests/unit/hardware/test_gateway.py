"""One request at a time to a Modbus gateway; one that is told to end does end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mullet_hardware.meter.gateway import Gateway


class Answer:
    """A whole answer."""

    def isError(self) -> bool:  # noqa: N802 - the library's name
        return False


async def test_a_cancellation_that_comes_with_the_answer_is_not_lost() -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        left.set()

    server = await asyncio.start_server(keep_silent, "127.0.0.1", 0)
    gateway = Gateway("127.0.0.1", server.sockets[0].getsockname()[1])
    response: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    async def ask(client: Any) -> Answer:
        asked.set()
        # As pymodbus waits for its answer.
        return await asyncio.wait_for(response, 1.0)

    task = asyncio.create_task(gateway.request(ask, 2.0))
    try:
        await asked.wait()
        response.set_result(Answer())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        gateway.close()
        await left.wait()
        server.close()
        await server.wait_closed()
