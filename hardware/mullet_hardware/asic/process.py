"""The driver's side of one worker process: started, fed, watched over, and rebuilt from scratch when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mullet.ports import DeviceUnreachable
from mullet_hardware.asic.protocol import BEAT_S, Frame, Target, encode, error_of, receive

READY_S = 60.0
SILENT_BEATS = 10
"""So many heartbeats missed in a row, and the worker counts as hung."""
END_S = 2.0
BACKOFF_FIRST_S = 0.2
BACKOFF_MOST_S = 30.0

log = logging.getLogger(__name__)

Sink = Callable[[list[list[Any]]], None]


@dataclass(slots=True)
class Watch:
    """What a worker is to poll, and where its rows go."""

    targets: list[Target]
    period_s: float
    sink: Sink
    lost: Callable[[str], None]


class WorkerProcess:
    """One worker; its calls fail while it is away, its watches resume once it is back."""

    def __init__(
        self,
        index: int,
        opening: Callable[[], Frame],
        found: Callable[[str, dict[str, Any]], None],
        health: Callable[[list[Any]], None] = lambda row: None,
    ) -> None:
        self._index = index
        self._opening = opening
        self._found = found
        self._health = health
        self._ids = itertools.count(1)
        self._ready = asyncio.Event()
        self._heard = False
        self._writer: asyncio.StreamWriter | None = None
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._watches: dict[int, Watch] = {}
        self._task: asyncio.Task[None] | None = None
        self.pid: int | None = None

    async def start(self) -> None:
        """Start the process and return once it is ready.

        Raises:
            DeviceUnreachable: it was not ready within a minute; it is tried again in the background.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._supervise(), name=f"asic worker {self._index}")
        try:
            async with asyncio.timeout(READY_S):
                await self._ready.wait()
        except TimeoutError:
            raise DeviceUnreachable(f"asic worker {self._index} did not start within {READY_S:.0f} s") from None

    async def close(self) -> None:
        """End the process; what is pending fails."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._fail_pending("the driver was closed")

    async def call(self, op: str, target: Target, deadline_s: float, order: list[Any] | None = None) -> Any:
        """Return what the worker answers.

        Raises:
            DeviceError: as the worker said, or DeviceUnreachable where it does not answer in time.
        """
        loop = asyncio.get_running_loop()
        number = next(self._ids)
        answer: asyncio.Future[Any] = loop.create_future()
        until = loop.time() + deadline_s
        try:
            async with asyncio.timeout_at(until):
                await self._ready.wait()
                self._pending[number] = answer
                left_s = until - loop.time()
                # The worker's own deadline comes first: its message says more.
                inner_s = max(0.05, left_s - min(0.1, 0.2 * left_s))
                frame = {"t": "call", "id": number, "op": op, "target": target.pack(), "deadline_s": inner_s}
                self._send({**frame, "order": order})
                return await answer
        except TimeoutError:
            raise DeviceUnreachable(f"{target.address} did not answer within {deadline_s:.1f} s") from None
        finally:
            self._pending.pop(number, None)
            if not answer.done():
                answer.cancel()
            if answer.cancelled():
                self._send({"t": "cancel", "id": number})

    def watch(self, watch: Watch) -> int:
        """Begin a watch and return its number."""
        number = next(self._ids)
        self._watches[number] = watch
        if self._ready.is_set():
            self._send_watch(number, watch)
        return number

    def unwatch(self, number: int) -> None:
        """End a watch."""
        if self._watches.pop(number, None) is not None:
            self._send({"t": "unwatch", "id": number})

    async def _supervise(self) -> None:
        wait_s = BACKOFF_FIRST_S
        while True:
            try:
                reason, was_ready = await self._run_once()
            except OSError as error:
                reason, was_ready = f"could not be started: {error.strerror or type(error).__name__}", False
            wait_s = BACKOFF_FIRST_S if was_ready else min(BACKOFF_MOST_S, 2.0 * wait_s)
            log.warning("asic worker %d %s; rebuilding it in %.1f s", self._index, reason, wait_s)
            self._fail_pending(f"the worker {reason}")
            for watch in list(self._watches.values()):
                watch.lost(f"DeviceUnreachable: the worker {reason}")
            await asyncio.sleep(wait_s)

    async def _run_once(self) -> tuple[str, bool]:
        """Run one process to its end and return why it ended and whether it had become ready."""
        ours, theirs = socket.socketpair()
        process: asyncio.subprocess.Process | None = None
        writer: asyncio.StreamWriter | None = None
        was_ready = False
        try:
            ours.setblocking(False)
            command = ("-P", "-m", "mullet_hardware.asic.worker", str(theirs.fileno()), str(os.getpid()))
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
            self.pid = process.pid
            theirs.close()
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            self._writer = writer
            writer.write(encode(self._opening()))
            reading = asyncio.create_task(self._read(reader), name=f"asic worker {self._index} reader")
            try:
                reason = await self._watch_over(reading)
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
        finally:
            was_ready = self._ready.is_set()
            self._ready.clear()
            self._writer = None
            self.pid = None
            await asyncio.shield(_end(process, writer, (ours, theirs), patient=was_ready))
        return reason, was_ready

    async def _watch_over(self, reading: asyncio.Task[str]) -> str:
        """Return why the worker is of no more use."""
        patience = int(READY_S / BEAT_S)
        missed = 0
        while True:
            done, _ = await asyncio.wait({reading}, timeout=BEAT_S)
            if done:
                return reading.result()
            # Counted in wake-ups and not in seconds: a stall of our own loop is not the worker's fault.
            missed = 0 if self._heard else missed + 1
            self._heard = False
            if self._ready.is_set():
                patience = SILENT_BEATS
            if missed >= patience:
                return "does not answer"

    async def _read(self, reader: asyncio.StreamReader) -> str:
        while True:
            try:
                frame = await receive(reader)
                if frame is None:
                    return "ended"
                self._heard = True
                self._handle(frame)
            except (ValueError, LookupError, TypeError):
                return "sent something that is no frame"

    def _handle(self, frame: Frame) -> None:
        kind = frame["t"]
        if kind == "readings":
            watch = self._watches.get(frame["id"])
            if watch is not None:
                watch.sink(frame["rows"])
        elif kind in ("result", "error"):
            answer = self._pending.get(frame["id"])
            if answer is not None and not answer.done():
                if kind == "result":
                    answer.set_result(frame["value"])
                else:
                    answer.set_exception(error_of(frame["kind"], frame["message"]))
        elif kind == "ready":
            self._ready.set()
            for number, watch in self._watches.items():
                self._send_watch(number, watch)
        elif kind == "health":
            self._health(frame["row"])
        elif kind == "found":
            self._found(frame["address"], frame["entry"])
        elif kind == "log":
            log.log(frame["level"], "worker %d, %s: %s", self._index, frame["name"], frame["message"])

    def _send_watch(self, number: int, watch: Watch) -> None:
        rows = [target.pack() for target in watch.targets]
        self._send({"t": "watch", "id": number, "targets": rows, "period_s": watch.period_s})

    def _send(self, frame: Frame) -> None:
        if self._writer is not None and self._ready.is_set():
            self._writer.write(encode(frame))

    def _fail_pending(self, reason: str) -> None:
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(DeviceUnreachable(reason))


async def _end(
    process: asyncio.subprocess.Process | None,
    writer: asyncio.StreamWriter | None,
    sockets: tuple[socket.socket, socket.socket],
    patient: bool,
) -> None:
    """Close the socket, by which the worker knows to end, and kill it where it does not."""
    if writer is not None:
        writer.transport.abort()
    for end in sockets:
        end.close()
    if process is None:
        return
    try:
        if patient:
            async with asyncio.timeout(END_S):
                await process.wait()
    except TimeoutError:
        log.warning("a worker did not end by itself and is killed")
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
