"""Identification against fake hosts of a few lines: what is asked, what it costs, what is never concluded."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from mullet.ports import CredentialsRejected, DeviceUnreachable, IdentityMismatch
from mullet.testing.leaks import no_leaks
from mullet_hardware.asic.capability import (
    ANTMINER_MODERN,
    AXEOS,
    EPIC,
    FIRMWARES,
    LUXOS,
    MARATHON,
    VNISH,
    WHATSMINER_V3,
)
from mullet_hardware.asic.device import Found, IdentityPin
from mullet_hardware.asic.evidence import Standing, Verdict
from mullet_hardware.asic.identify import Identifier, Ports, knock

HOST = "127.0.0.1"
Answers = Callable[[bytes], bytes | None]


class Port:
    """One port of a fake host: answers the first bytes of a connection and closes; silent where it answers None."""

    def __init__(self, answer: Answers) -> None:
        self.asked: list[bytes] = []
        self.connections = 0
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            said = await reader.read(65536)
            if not said:
                return
            self.asked.append(said)
            answer = self._answer(said)
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()


@asynccontextmanager
async def host(**ports: Port) -> AsyncIterator[Ports]:
    """A host on ports of its own; those not given refuse connections."""
    numbers: dict[str, int] = {}
    servers: list[asyncio.Server] = []
    async with AsyncExitStack() as stack:
        for name in ("rpc", "web", "v3", "grpc"):
            server = await asyncio.start_server(ports[name].serve if name in ports else _close, HOST, 0)
            numbers[name] = server.sockets[0].getsockname()[1]
            if name in ports:
                servers.append(await stack.enter_async_context(server))
            else:
                server.close()
                await server.wait_closed()
        yield Ports(**numbers)
        for server in servers:
            server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=2.0)


async def _close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def rpc(answers: Mapping[str, Any]) -> Port:
    """An RPC that knows these commands."""

    def answer(said: bytes) -> bytes:
        command = json.loads(said)["command"]
        unknown = {"STATUS": [{"STATUS": "E", "Code": 14, "Msg": "Invalid command"}]}
        return json.dumps(answers.get(command, unknown)).encode() + b"\0"

    return Port(answer)


def listed(section: str, **fields: Any) -> dict[str, Any]:
    return {"STATUS": [{"STATUS": "S"}], section: [fields]}


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def web(pages: Mapping[str, bytes]) -> Port:
    """A web interface that has these pages."""

    def answer(said: bytes) -> bytes:
        path = said.split(b" ", 2)[1].decode()
        return pages.get(path, http(b"", "404 Not Found"))

    return Port(answer)


STOCK_FRONT = http(b"", "401 Unauthorized", 'WWW-Authenticate: Digest realm="antMiner Configuration", nonce="1"')
STOCK = {
    "version": listed("VERSION", BMMiner="1.0.0", Type="Antminer S19"),
    "stats": listed("STATS", BMMiner="1.0.0", Type="Antminer S19"),
}


async def test_a_miner_that_names_itself_is_asked_two_things() -> None:
    api, front = rpc({"version": listed("VERSION", LUXminer="2025.4.8", Type="Antminer S19")}), web({})
    async with host(rpc=api, web=front) as ports, no_leaks():
        verdict = await Identifier().look(HOST, ports)
    assert verdict.classes == (LUXOS,)
    assert (len(api.asked), len(front.asked)) == (1, 1)


async def test_stock_antminer_is_concluded_from_three_answers_and_vnish_from_any_one() -> None:
    for stats, front, expected in (
        (STOCK["stats"], STOCK_FRONT, ANTMINER_MODERN),
        (listed("STATS", Type="Antminer S19 (Vnish 1.2.6)"), STOCK_FRONT, VNISH),
        (STOCK["stats"], http(b"<title>AnthillOS</title>"), VNISH),
    ):
        async with host(rpc=rpc({**STOCK, "stats": stats}), web=web({"/": front})) as ports:
            assert (await Identifier().look(HOST, ports)).classes == (expected,)


async def test_a_web_interface_that_hangs_leaves_vnish_and_stock_undecided() -> None:
    async with host(rpc=rpc(STOCK), web=Port(lambda _: None)) as ports, no_leaks():
        verdict = await Identifier().look(HOST, ports, patience=0.1)
    assert (verdict.standing, verdict.classes) == (Standing.UNDECIDED, ())


@pytest.mark.parametrize(
    "said",
    [
        b'{"STATUS":[{"STATUS":"S","Description":"LUXminer 2025"}],"VERS',
        b"\x16\x03\x01LUXMINER",
        b'{"foo": "LUXMINER"}\0',
        b'["LUXMINER"]\0',
        b"",
    ],
)
async def test_half_an_answer_names_nothing(said: bytes) -> None:
    async with host(rpc=Port(lambda _: said)) as ports:
        verdict = await Identifier().look(HOST, ports, patience=0.1)
    assert verdict.standing is Standing.UNDECIDED


async def test_a_compressed_page_that_nobody_asked_for_is_read() -> None:
    packed = http(gzip.compress(b"<html><title>AxeOS</title>"), "200 OK", "Content-Encoding: gzip")
    async with host(web=web({"/": packed})) as ports:
        assert (await Identifier().look(HOST, ports)).classes == (AXEOS,)
    spoilt = http(b"no gzip at all", "200 OK", "Content-Encoding: gzip")
    info = http(b'{"ASICModel": "BM1370"}')
    async with host(web=web({"/": spoilt, "/api/system/info": info})) as ports:
        assert (await Identifier().look(HOST, ports)).classes == (AXEOS,)


async def test_epic_answers_http_where_others_speak_rpc() -> None:
    def answer(said: bytes) -> bytes | None:
        return http(b'{"Model": "ANTMINER S19"}') if said.startswith(b"GET /capabilities") else None

    async with host(rpc=Port(answer), web=web({"/": http(b"<title>Miner Web Dashboard")})) as ports, no_leaks():
        began = time.monotonic()
        assert (await Identifier().look(HOST, ports)).classes == (EPIC,)
        assert time.monotonic() - began < 1.0
    async with host(rpc=Port(answer)) as ports:
        assert (await Identifier().look(HOST, ports, patience=0.1)).classes == (EPIC,)


async def test_a_whatsminer_without_the_old_rpc_is_found_on_its_new_port() -> None:
    body = json.dumps(
        {"code": 0, "msg": {"miner": {"type": "M60S_VK30"}, "system": {"fwversion": "20250214"}}}
    ).encode()
    async with host(v3=Port(lambda _: len(body).to_bytes(4, "little") + body)) as ports:
        verdict = await Identifier().look(HOST, ports)
    assert (verdict.classes, verdict.model) == ((WHATSMINER_V3,), "M60S_VK30")


async def test_a_host_that_refuses_everything_is_no_miner_and_costs_no_time() -> None:
    async with host() as ports:
        began = time.monotonic()
        assert (await Identifier().look(HOST, ports)).standing is Standing.OTHER
        assert time.monotonic() - began < 0.5
        assert await knock(HOST, ports.rpc) is False


async def test_a_host_that_takes_connections_and_never_answers_is_given_up() -> None:
    silent = Port(lambda _: None)
    async with host(rpc=silent, web=silent) as ports, no_leaks():
        began = time.monotonic()
        verdict = await Identifier().look(HOST, ports, patience=0.05)
        assert time.monotonic() - began < 2.0
    assert verdict.standing is Standing.UNDECIDED
    assert "silent" in verdict.reason


async def test_no_more_hosts_are_asked_at_once_than_allowed() -> None:
    under_way, most = 0, 0

    class Slow(Port):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal under_way, most
            said = await reader.read(65536)
            if said:
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(0.02)
                under_way -= 1
                writer.write(json.dumps(listed("VERSION", LUXminer="1")).encode() + b"\0")
            writer.close()

    async with host(rpc=Slow(lambda _: None)) as ports:
        identifier = Identifier(asked=3)
        verdicts = await asyncio.gather(*(identifier.look(HOST, ports) for _ in range(20)))
    assert {verdict.classes for verdict in verdicts} == {(LUXOS,)}
    assert most == 3


class Device:
    """Confirms, or raises."""

    def __init__(self, outcome: Found | Exception) -> None:
        self.pin = IdentityPin(None, HOST, time.monotonic)
        self._outcome = outcome

    async def identify(self) -> Found:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


async def test_the_devices_own_reads_have_the_last_word() -> None:
    found = Found(ANTMINER_MODERN, ("02:00",), "Bitmain", "Antminer S19", "1")
    verdict = Verdict(Standing.MINER, (MARATHON, ANTMINER_MODERN))

    async def confirm(marathon: Exception, stock: Found | Exception) -> Found:
        devices = {MARATHON: Device(marathon), ANTMINER_MODERN: Device(stock)}
        return (await Identifier().confirm(HOST, verdict, devices.__getitem__))[1]  # type: ignore[arg-type]

    no, wrong, silent = IdentityMismatch("no"), CredentialsRejected("password"), DeviceUnreachable("silent")
    assert await confirm(no, found) is found
    assert await confirm(silent, found) is found
    for marathon, stock, expected in (
        (no, no, IdentityMismatch),
        (no, wrong, CredentialsRejected),
        (wrong, silent, CredentialsRejected),
        (silent, wrong, CredentialsRejected),
        (silent, no, DeviceUnreachable),
    ):
        with pytest.raises(expected):
            await confirm(marathon, stock)


def test_moved_ports_are_those_of_the_usual_services_only() -> None:
    ports = Ports(rpc=14028, web=8081, v3=14433, grpc=15051)
    told = {name: ports.of(FIRMWARES[name]) for name in ("whatsminer_v2", "whatsminer_v3", "vnish", "braiins", "epic")}
    assert told == {
        "whatsminer_v2": (14028, 0),
        "whatsminer_v3": (14433, 0),
        "vnish": (14028, 8081),
        "braiins": (14028, 15051),
        "epic": (0, 14028),
    }
    assert ports.of(FIRMWARES["auradine"]) == (14028, 8080)
