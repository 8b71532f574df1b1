"""The least a reading can cost: one cgminer `summary` over a new connection, by asyncio and uvloop, nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from benchmarks.farms import read_banks
from benchmarks.workers.process import serve

QUESTION = b'{"command": "summary"}'
AT_ONCE = 50

Ask = Callable[[str, int], Awaitable[bytes]]


async def by_streams(host: str, port: int) -> bytes:
    """Return the answer, read with asyncio's streams."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(QUESTION)
    answer = await reader.read(-1)
    writer.close()
    return answer


class _Once(asyncio.Protocol):
    def __init__(self, done: asyncio.Future[bytes]) -> None:
        self._done = done
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.WriteTransport, transport).write(QUESTION)

    def data_received(self, data: bytes) -> None:
        self._answer += data

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(self._answer)


async def by_protocol(host: str, port: int) -> bytes:
    """Return the answer, gathered by a protocol."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()
    await loop.create_connection(lambda: _Once(done), host, port)
    return await done


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options: fleet (file), requests. Answers are CPU seconds per request, user and system mode."""
    import uvloop

    hosts = [host for bank in read_banks(options["fleet"]) for host in bank.hosts]
    found = {}
    for name, ask, factory in (
        ("streams", by_streams, None),
        ("protocol", by_protocol, None),
        ("uvloop_protocol", by_protocol, uvloop.new_event_loop),
    ):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_ask_all(hosts, 4028, ask, min(200, options["requests"])))
            began = time.process_time()
            size = runner.run(_ask_all(hosts, 4028, ask, options["requests"]))
            found[f"{name}_s"] = (time.process_time() - began) / options["requests"]
        found["answer_bytes"] = size
    return found


async def _ask_all(hosts: list[str], port: int, ask: Ask, requests: int) -> float:
    """Return the mean size of the answers."""
    left = iter(range(requests))
    sizes: list[int] = []

    async def some() -> None:
        for number in left:
            sizes.append(len(await ask(hosts[number % len(hosts)], port)))

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())
    return sum(sizes) / requests


if __name__ == "__main__":
    serve(measure)
