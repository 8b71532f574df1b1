"""A miner that answers what it is given, over real sockets, so that a driver reads it as it reads a device."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mullet_hardware.asic.device import Access

HOST = "127.0.0.1"
DATA = Path(os.environ.get("MULLET_DATA", Path(__file__).parents[5] / "shared" / "data")) / "miners"


def captured(*names: str) -> list[bytes]:
    """Captured payloads by their path below `miners`; skips the test where one of them is absent."""
    for name in names:
        if not (DATA / name).is_file():
            pytest.skip(f"{name}, captured by others, is kept outside the project")
    return [(DATA / name).read_bytes() for name in names]


@dataclass
class Replay:
    """What is answered to each command and page (method and path), and what was asked."""

    rpc: Mapping[str, bytes] = field(default_factory=dict)
    web: Mapping[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    access: Access = field(default_factory=lambda: Access(HOST, 0, 0, "root", "root", None))

    async def _serve_rpc(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = json.loads((await reader.read(65536)).strip(b"\0\n "))
        command = str(request.get("command", request.get("cmd", "")))
        self.asked.append(command)
        refusal = {"STATUS": [{"STATUS": "E", "When": 0, "Code": 14, "Msg": "Invalid command", "Description": ""}]}
        answer = self.rpc.get(command)
        if answer is None and "+" in command and all(part in self.rpc for part in command.split("+")):
            answer = json.dumps({part: [json.loads(self.rpc[part])] for part in command.split("+")}).encode()
        writer.write((json.dumps(refusal).encode() if answer is None else answer) + b"\0")
        await _end(writer)

    async def _serve_web(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        page = b" ".join(head.split(b" ", 2)[:2]).decode()
        self.asked.append(page)
        body = self.web.get(page)
        status = b"404 Not Found" if body is None else b"200 OK"
        body = b"" if body is None else body
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
        await _end(writer)


async def _end(writer: asyncio.StreamWriter) -> None:
    try:
        await writer.drain()
    except ConnectionError:
        return
    finally:
        writer.close()


@asynccontextmanager
async def replaying(
    rpc: Mapping[str, bytes] | None = None, web: Mapping[str, bytes] | None = None
) -> AsyncIterator[Replay]:
    """A device that gives these answers until the block ends."""
    replay = Replay(rpc or {}, web or {})
    servers = [await asyncio.start_server(serve, HOST, 0) for serve in (replay._serve_rpc, replay._serve_web)]
    rpc_port, web_port = (server.sockets[0].getsockname()[1] for server in servers)
    replay.access = Access(HOST, rpc_port, web_port, "root", "root", None)
    try:
        yield replay
    finally:
        for server in servers:
            server.close()
            await server.wait_closed()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=2.0)
