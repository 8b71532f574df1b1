"""The worker process: the only place where pyasic runs. It ends when its driver does.

Started as `python -m mullet_hardware.asic.worker FD PARENT`, where FD is one end of a socket pair.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from mullet.domain.command import Verb
from mullet.ports import DeviceError, IdentityMismatch
from mullet_hardware.asic.protocol import BEAT_S, Frame, Target, encode, kind_of, receive

if TYPE_CHECKING:
    from mullet_hardware.asic.device import Device
    from mullet_hardware.asic.lane import Lane
    from mullet_hardware.asic.poller import Poller
    from mullet_hardware.asic.registry import Registry

PR_SET_PDEATHSIG = 1
MOST_LOG_LINES = 200
ROWS_WAIT_S = 0.05
"""How long a reading waits for others, so that one frame carries them all."""


class Outbox:
    """Frames to the driver: answers in order, readings newest first replaced, so that a slow reader costs no memory."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._frames: deque[Frame] = deque()
        self._flush: asyncio.TimerHandle | None = None
        self._rows: dict[int, dict[str, list[Any]]] = {}
        self._logs: deque[Frame] = deque(maxlen=MOST_LOG_LINES)
        self._filled = asyncio.Event()

    def put(self, frame: Frame) -> None:
        """Queue a frame that must arrive."""
        self._frames.append(frame)
        self._filled.set()

    def put_row(self, watch: int, row: list[Any]) -> None:
        """Queue a reading, to leave with others a moment later; a newer one of the same load takes its place."""
        rows = self._rows.get(watch)
        if rows is None:
            rows = self._rows[watch] = {}
        rows[row[0]] = row
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(ROWS_WAIT_S, self._filled.set)

    def put_log(self, record: logging.LogRecord) -> None:
        """Queue a log line; the oldest go where there are too many."""
        message = record.getMessage()[:300]
        self._logs.append({"t": "log", "level": record.levelno, "name": record.name, "message": message})
        self._filled.set()

    async def run(self) -> None:
        """Write what is queued until the driver is gone."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            if self._flush is not None:
                self._flush.cancel()
                self._flush = None
            frames = [*self._frames, *self._logs]
            rows, self._rows = self._rows, {}
            self._frames.clear()
            self._logs.clear()
            frames += ({"t": "readings", "id": watch, "rows": list(found.values())} for watch, found in rows.items())
            self._writer.write(b"".join(encode(frame) for frame in frames))
            await self._writer.drain()


class FrameHandler(logging.Handler):
    """Passes log records on to the driver."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(logging.WARNING)
        self._outbox = outbox

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record."""
        self._outbox.put_log(record)


class Server:
    """Carries out what the driver asks."""

    def __init__(self, registry: Registry, poller: Poller, orders: Lane, questions: Lane, outbox: Outbox) -> None:
        self._registry = registry
        self._poller = poller
        self._orders, self._questions = orders, questions
        self._outbox = outbox
        self._calls: dict[int, asyncio.Task[None]] = {}

    def handle(self, frame: Frame) -> None:
        """Start what a frame asks for."""
        kind, number = frame["t"], frame["id"]
        if kind == "call":
            task = asyncio.create_task(self._call(number, frame), name=f"call {number}")
            self._calls[number] = task
            task.add_done_callback(lambda _: self._calls.pop(number, None))
        elif kind == "cancel" and number in self._calls:
            self._calls[number].cancel()
        elif kind == "watch":
            targets = [Target.unpack(row) for row in frame["targets"]]
            self._poller.watch(number, targets, frame["period_s"], partial(self._outbox.put_row, number))
        elif kind == "unwatch":
            self._poller.unwatch(number)

    async def close(self) -> None:
        """End all calls."""
        tasks = list(self._calls.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._registry.close()

    async def _call(self, number: int, frame: Frame) -> None:
        from mullet_hardware.asic.device import within

        target = Target.unpack(frame["target"])
        try:
            value = await within(frame["deadline_s"], target.address, self._perform(target, frame))
        except DeviceError as error:
            self._outbox.put({"t": "error", "id": number, "kind": kind_of(error), "message": str(error)})
        else:
            self._outbox.put({"t": "result", "id": number, "value": value})

    async def _perform(self, target: Target, frame: Frame) -> Any:
        lane = self._orders if frame["op"] == "apply" else self._questions
        with await lane.slot():
            device = await self._registry.device(target)
            try:
                return await self._ask(device, target, frame)
            except IdentityMismatch:
                self._registry.doubt(target)
                raise

    async def _ask(self, device: Device, target: Target, frame: Frame) -> Any:
        from mullet_hardware.asic.device import Order

        if frame["op"] == "identify":
            found = await device.identify()
            return [found.firmware_class, list(found.identities), found.make, found.model, found.firmware]
        if frame["op"] == "read":
            reading = await device.read()
            return reading.pack(target.load_id, asyncio.get_running_loop().time())
        verb, watts, point = frame["order"]
        answer = await device.apply(Order(Verb(verb), watts, point))
        return [answer.acked, answer.detail]


async def serve(connection: socket.socket) -> None:
    """Serve the driver at the other end of `connection` until it closes."""
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    opening = await receive(reader)
    if opening is None:
        return
    outbox = Outbox(writer)
    server, poller = _build_server(opening, outbox)
    outbox.put({"t": "ready"})
    polling = asyncio.create_task(poller.run(), name="poller")
    polling.add_done_callback(_end_with)
    tasks = [
        asyncio.create_task(outbox.run(), name="outbox"),
        asyncio.create_task(_beat(outbox), name="beat"),
        polling,
    ]
    try:
        while (frame := await receive(reader)) is not None:
            server.handle(frame)
    finally:
        await server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()


def _build_server(opening: Frame, outbox: Outbox) -> tuple[Server, Poller]:
    """Import pyasic (seconds of CPU), undo what that does to logging, and build what serves."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    from mullet_hardware.asic.lane import Lane
    from mullet_hardware.asic.poller import CALL_SLOTS, HOLD_S, ORDER_SLOTS, Poller
    from mullet_hardware.asic.registry import Registry

    root.handlers[:] = [*handlers, FrameHandler(outbox)]
    root.setLevel(level)
    logging.getLogger("asyncssh").setLevel(logging.NOTSET)
    gc.collect()
    gc.freeze()
    orders, questions = Lane(ORDER_SLOTS, HOLD_S), Lane(CALL_SLOTS, HOLD_S)

    def found(address: str, entry: dict[str, Any]) -> None:
        outbox.put({"t": "found", "address": address, "entry": entry})

    registry = Registry(opening["banks"], opening["known"], found, asyncio.get_running_loop().time)
    poller = Poller(
        registry, orders, emit_health=lambda row: outbox.put({"t": "health", "row": row}), name=registry.name
    )
    return Server(registry, poller, orders, questions, outbox), poller


def _end_with(task: asyncio.Task[None]) -> None:
    """End the process where polling has failed: a rebuilt worker polls again, a silent one would never tell."""
    if not task.cancelled() and (error := task.exception()) is not None:
        sys.excepthook(type(error), error, error.__traceback__)
        os._exit(1)


async def _beat(outbox: Outbox) -> None:
    while True:
        outbox.put({"t": "beat"})
        await asyncio.sleep(BEAT_S)


def die_with(parent: int) -> None:
    """End when the process `parent` does, also where it is killed. Linux only; elsewhere the socket's end says it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(0)


def raise_descriptor_limit() -> None:
    """Allow as many descriptors as the system lets this process have: each request under way is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(arguments: list[str]) -> None:
    """Serve over the socket whose descriptor is the first argument."""
    die_with(int(arguments[1]))
    raise_descriptor_limit()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=int(arguments[0]))
    connection.setblocking(False)
    factory = None
    if sys.platform == "linux":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(connection))
    # A thousand modules take their time to be torn down, and nothing is left that would need it.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
