"""The small RPC and HTTP clients against fake devices of a few lines."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from mullet.ports import CredentialsRejected, DeviceGarbled, DeviceUnreachable
from mullet.testing.leaks import no_leaks
from mullet_hardware.asic.allowed import UNKNOWN, Channel, allow
from mullet_hardware.asic.capability import ANTMINER_MODERN
from mullet_hardware.asic.device import within
from mullet_hardware.asic.transport import ConnectionRefused, exchange, parse_object, probe, rpc_is_whole
from mullet_hardware.asic.web import WebSession

HOST = "127.0.0.1"
QUESTION = allow(UNKNOWN, Channel.RPC, "version", b"{}")


@asynccontextmanager
async def device(answer: Callable[[bytes], bytes | None]) -> AsyncIterator[int]:
    """A device that answers each connection's first bytes once and closes, or stays silent where `answer` is None."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            said = answer(await reader.read(65536))
            if said is None:
                await reader.read()
            else:
                writer.write(said)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=2.0)


async def test_an_answer_ends_with_its_zero_byte_or_with_the_connection() -> None:
    for said in (b'{"a": 1}\0', b'{"a": 1}'):
        async with device(lambda _, said=said: said) as port:  # type: ignore[misc]
            raw = await exchange(HOST, port, QUESTION, rpc_is_whole)
            assert parse_object(raw, "miner") == {"a": 1}


@pytest.mark.parametrize("said", [b'{"a": 1', b"\x16\x03\x01", b"[1]\0", b'"x"\0', b"\xff\xfe\0"])
async def test_what_is_no_object_is_garbled(said: bytes) -> None:
    async with device(lambda _: said) as port:
        with pytest.raises(DeviceGarbled):
            parse_object(await exchange(HOST, port, QUESTION, rpc_is_whole), "miner")


async def test_no_answer_is_unreachable() -> None:
    async with device(lambda _: b"") as port:
        with pytest.raises(DeviceUnreachable):
            parse_object(await exchange(HOST, port, QUESTION, rpc_is_whole), "miner")
    with pytest.raises(ConnectionRefused):
        await exchange(HOST, port, QUESTION, rpc_is_whole)
    await probe(HOST, port)


async def test_a_deadline_ends_a_call_and_leaves_no_socket() -> None:
    async with device(lambda _: None) as port, no_leaks():
        began = time.monotonic()
        with pytest.raises(DeviceUnreachable):
            await within(0.2, "miner", exchange(HOST, port, QUESTION, rpc_is_whole))
        assert time.monotonic() - began < 0.5


async def test_whatever_a_library_raises_is_a_device_error_without_its_text() -> None:
    async def fail(error: BaseException) -> None:
        raise error

    for error in (TypeError("secret"), KeyError("secret"), AssertionError("secret")):
        with pytest.raises(DeviceGarbled) as caught:
            await within(1.0, "miner", fail(error))
        assert "secret" not in str(caught.value)
    with pytest.raises(DeviceUnreachable):
        await within(1.0, "miner", fail(OSError("x")))

    async def swallow_cancellation() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            raise ValueError("pyasic does this") from None

    with pytest.raises(DeviceUnreachable):
        await within(0.05, "miner", swallow_cancellation())


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


class DigestDevice:
    """Admits user root with password root under its present nonce."""

    def __init__(self, body: bytes = b'{"ok": true}') -> None:
        self.nonce = "n1"
        self.requests = 0
        self._body = body

    def answer(self, request: bytes) -> bytes:
        self.requests += 1
        head = request.decode("latin-1")
        method, path, _ = head.split(" ", 2)
        fields = dict(re.findall(r'(\w+)="?([^",\r]+)"?', head.partition("Authorization: Digest ")[2]))
        signed = ":".join(
            (
                md5("root:realm of miners:root"),
                self.nonce,
                fields.get("nc", ""),
                fields.get("cnonce", ""),
                "auth",
                md5(f"{method}:{path}"),
            )
        )
        if fields.get("nonce") == self.nonce and fields.get("response") == md5(signed):
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(self._body), self._body)
        challenge = f'WWW-Authenticate: Digest realm="realm of miners", nonce="{self.nonce}", qop="auth"\r\n'
        return b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n" + challenge.encode() + b"\r\n"


async def test_a_digest_challenge_is_kept_and_renewed() -> None:
    fake = DigestDevice()
    async with device(fake.answer) as port:
        session = WebSession(ANTMINER_MODERN, HOST, port, "root", "root")
        assert (await session.fetch("GET", "/cgi-bin/summary.cgi")).body == b'{"ok": true}'
        assert fake.requests == 2
        assert (await session.fetch("POST", "/cgi-bin/set_miner_conf.cgi", b'{"x": 1}')).status == 200
        assert fake.requests == 3
        fake.nonce = "n2"
        assert (await session.fetch("GET", "/cgi-bin/summary.cgi")).status == 200
        assert fake.requests == 5


async def test_a_wrong_password_is_told_and_never_shown() -> None:
    async with device(DigestDevice().answer) as port:
        with pytest.raises(CredentialsRejected) as caught:
            await WebSession(ANTMINER_MODERN, HOST, port, "root", "hunter2").fetch("GET", "/cgi-bin/summary.cgi")
    assert "hunter2" not in str(caught.value)


async def test_chunks_are_joined() -> None:
    said = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\n4\r\n: 1}\r\n0\r\n\r\n'
    async with device(lambda _: said) as port:
        assert (await WebSession(ANTMINER_MODERN, HOST, port, "u", "p").fetch("GET", "/")).body == b'{"a": 1}'


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"\x16\x03\x01\xff",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_broken_http_is_garbled(said: bytes) -> None:
    async with device(lambda _: said) as port:
        with pytest.raises(DeviceGarbled):
            await WebSession(ANTMINER_MODERN, HOST, port, "u", "p").fetch("GET", "/")
