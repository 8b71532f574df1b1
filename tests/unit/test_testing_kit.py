"""The test kit notices what it is there to notice."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mullet.domain.load import LoadKind
from mullet.domain.plan import group_loads
from mullet.domain.telemetry import Quality
from mullet.testing.builders import START, command, facility, snapshot
from mullet.testing.leaks import Leak, no_leaked_children, no_leaked_descriptors, no_leaked_tasks, no_leaks
from mullet.testing.virtual_time import VirtualClock, in_virtual_time, run_virtual
from mullet.testing.wire import Relay, Spoil


async def test_a_task_left_running_is_noticed() -> None:
    task: asyncio.Task[None] | None = None
    with pytest.raises(Leak, match="forgotten"):
        async with no_leaked_tasks():
            task = asyncio.create_task(asyncio.sleep(60), name="forgotten")
    assert task is not None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_task_that_was_cancelled_and_is_ending_is_no_leak() -> None:
    async with no_leaked_tasks():
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        task.cancel()


def test_a_socket_left_open_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mullet.testing.leaks.LOOKS", 2)
    with pytest.raises(Leak, match="socket"), no_leaked_descriptors():
        left = socket.socket()
    left.close()


def test_a_file_left_open_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mullet.testing.leaks.LOOKS", 2)
    with pytest.raises(Leak, match=r"journal\.db"), no_leaked_descriptors():
        left = (tmp_path / "journal.db").open("w")
    left.close()


def test_a_child_left_running_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mullet.testing.leaks.LOOKS", 2)
    with pytest.raises(Leak, match="processes"), no_leaked_children():
        left = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    left.communicate(b"\n", timeout=20)


async def test_what_is_closed_in_time_is_no_leak() -> None:
    async with no_leaks():
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        server.close()
        await server.wait_closed()


def test_an_hour_of_virtual_time_takes_none() -> None:
    async def hour() -> float:
        clock = VirtualClock()
        before = clock.now()
        await clock.sleep(3600.0)
        return clock.now() - before

    assert run_virtual(hour()) == pytest.approx(3600.0)


@in_virtual_time
async def test_virtual_time_begins_at_the_given_start() -> None:
    assert VirtualClock().now() == pytest.approx(START)


def test_a_task_left_in_virtual_time_is_noticed() -> None:
    kept = []

    async def forget() -> None:
        kept.append(asyncio.create_task(asyncio.sleep(1.0), name="forgotten"))

    with pytest.raises(Leak, match="forgotten"):
        run_virtual(forget())


def test_a_built_plant_is_whole() -> None:
    plant = facility(miners=3, gpus=2)
    assert [load.id for load in plant.loads_beneath["grid"]] == [
        "miners-001",
        "miners-002",
        "miners-003",
        "gpus-001",
        "gpus-002",
    ]
    assert {group.kind for group in group_loads(plant)} == {LoadKind.MINER, LoadKind.GPU}
    assert len(plant.loads_of_service["chat"]) == 2


def test_a_built_snapshot_is_consistent() -> None:
    plant = facility(miners=2, gpus=1)
    seen = snapshot(plant, points={"miners-001": "off"}, unmanaged_watts=100.0)
    assert seen.meters["feeder-a"].watts == pytest.approx(20.0 + 3_300.0 + 100.0)
    assert seen.meters["grid"].quality is Quality.GOOD
    assert seen.telemetry["gpus-001"].limit_watts == pytest.approx(700.0)


def test_a_built_command_is_for_its_load() -> None:
    load = facility().loads[0]
    order = command(load, point="off")
    assert (order.load_id, order.watts, order.raises) == (load.id, 20.0, False)


@pytest.mark.parametrize("spoil", list(Spoil))
async def test_the_relay_spoils_answers(spoil: Spoil) -> None:
    ended = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()
        await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    async with Relay(host, port) as relay:
        relay.spoil = spoil
        reader, writer = await asyncio.open_connection(relay.host, relay.port)
        writer.write(b"hello\n")

        async def answer() -> bytes:
            async with asyncio.timeout(0.2):
                return await reader.readline()

        expected = {
            Spoil.NOTHING: b"hello\n",
            Spoil.GARBAGE: b"\x16\x03\x01\xff<html>502 Bad Gateway</html>\n",
            Spoil.WRONG_SHAPE: b'{"foo": 1}\n',
        }
        if spoil in expected:
            assert await answer() == expected[spoil]
        else:
            with pytest.raises(TimeoutError if spoil is Spoil.SILENT else ConnectionResetError):
                await answer()
        writer.close()
    await asyncio.wait_for(ended.wait(), 5.0)
    server.close()
    await server.wait_closed()
