"""The planner in a process of its own: asked over pipes, killed at its time limit, rebuilt in the background.

Frames are an 8-byte length and a pickle, both ways over stdin and stdout of a child that runs this module. The
facility travels only when it changes (`planner_frames` has the pieces). The child ends when its stdin does, whatever it
is doing then.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import pickle
import queue
import signal
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from mullet.adapters.planner_frames import (
    facility_pieces,
    join_facility,
    join_plan,
    join_request,
    plan_pieces,
    request_pieces,
)
from mullet.domain.facility import Facility
from mullet.domain.load import Load
from mullet.domain.plan import Plan, PlanInterval, PlanRequest
from mullet.ports import PlanningError

DEFAULT_TARGET = "mullet.planning.horizon:HorizonPlanner"
START_LIMIT_S = 30.0

# Solvers overshoot their limits by up to a half; the rest of the time is for the answer to travel.
_SOLVER_SHARE = 0.6
_LENGTH = struct.Struct(">Q")
_WORDS_LIMIT = 500

Target = Callable[[PlanRequest, float], Plan]


class _Child:
    """One worker process and the task that reads its answers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answers: dict[int, asyncio.Future[Plan]] = {}
        self.intervals: list[PlanInterval] = []
        self.facility: Facility | None = None
        self._doomed = False
        self.reader = asyncio.create_task(self._read(), name="planner answers")

    @property
    def alive(self) -> bool:
        return not self._doomed and self.process.returncode is None and not self.reader.done()

    async def _read(self) -> None:
        stdout = self.process.stdout
        assert stdout is not None
        reason = "the planner's process ended"
        try:
            while True:
                header = await stdout.readexactly(_LENGTH.size)
                kind, number, body = pickle.loads(await stdout.readexactly(_LENGTH.unpack(header)[0]))
                if kind == "ready":
                    self.ready.set_result(None)
                    continue
                if kind == "interval":
                    self.intervals.append(body)
                    # What lies in the buffer already is read without a pause; others have a turn in between.
                    await asyncio.sleep(0)
                    continue
                intervals, self.intervals = self.intervals, []
                future = self.answers.pop(number, None)
                if future is None or future.done():
                    continue
                if kind != "plan":
                    future.set_exception(PlanningError(body))
                    continue
                assert self.facility is not None
                try:
                    future.set_result(join_plan(self.facility, intervals, body))
                except PlanningError as error:
                    future.set_exception(error)
        except asyncio.IncompleteReadError:
            code = await self.process.wait()
            reason = f"the planner's process ended with code {code}"
        except (pickle.UnpicklingError, ValueError, TypeError, struct.error) as error:
            reason = f"the planner's process sent what is no answer: {error}"
        finally:
            unanswered: list[asyncio.Future[Any]] = [self.ready, *self.answers.values()]
            for waiting in unanswered:
                if not waiting.done():
                    waiting.set_exception(PlanningError(reason))
                    # Marks it as seen: whoever asked may have given up.
                    waiting.exception()
            self.answers.clear()

    def send(self, *frame: Any) -> None:
        stdin = self.process.stdin
        assert stdin is not None
        body = pickle.dumps(frame, protocol=pickle.HIGHEST_PROTOCOL)
        stdin.write(_LENGTH.pack(len(body)) + body)

    def kill(self) -> None:
        """Kill the process, whatever it is doing."""
        self._doomed = True
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()

    async def end(self) -> None:
        """Kill the process and wait until it and its reader are gone."""
        self.kill()
        if self.process.stdin is not None:
            self.process.stdin.close()
        await self.process.wait()
        # The pipe may still hold an answer; nobody waits for it any more.
        await asyncio.gather(self.reader, return_exceptions=True)


class PlannerWorker:
    """A `ports.Planner` whose solver cannot block or bring down the event loop."""

    def __init__(self, target: str = DEFAULT_TARGET, start_limit_s: float = START_LIMIT_S) -> None:
        """`target` is "module:name" of what plans: a function (request, limit in seconds) -> Plan, or a class of it."""
        self._target = target
        self._start_limit_s = start_limit_s
        self._child: _Child | None = None
        self._starting: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._closed = False
        self._numbers = 0

    async def open(self) -> None:
        """Start the worker and wait until it is warm.

        Raises:
            PlanningError: it did not come up.
        """
        await asyncio.shield(self._start())

    @property
    def pid(self) -> int | None:
        """The worker's process id, None while there is none."""
        return self._child.process.pid if self._child is not None and self._child.alive else None

    async def plan(self, request: PlanRequest, limit_s: float) -> Plan:
        """Return a plan, unguarded.

        Raises:
            PlanningError: none within `limit_s` (the worker is then killed and rebuilt), or the model failed.
        """
        if self._closed:
            raise PlanningError("the planner is closed")
        asked: _Child | None = None
        try:
            async with asyncio.timeout(limit_s), self._turn:
                if self._child is None or not self._child.alive or not self._child.ready.done():
                    # A worker that is still starting goes on doing so when this request has given up.
                    await asyncio.shield(self._start())
                asked = self._child
                if asked is None:
                    raise PlanningError("the planner has no process")
                return await self._ask(asked, request, limit_s)
        except TimeoutError:
            if asked is None:
                raise PlanningError(f"the planner's process was not ready within {limit_s:.2f} s") from None
            asked.kill()
            raise PlanningError(f"no plan within {limit_s:.2f} s; the planner was killed") from None
        except ConnectionError as error:
            raise PlanningError(f"the planner's process is gone: {error}") from error
        except asyncio.CancelledError:
            # Nobody wants the answer any more, and the next question must not queue behind it.
            if asked is not None and asked.answers:
                asked.kill()
            raise
        finally:
            if asked is not None and not asked.alive:
                self._start_again()

    async def _ask(self, child: _Child, request: PlanRequest, limit_s: float) -> Plan:
        if child.facility is not request.facility:
            for piece in facility_pieces(request.facility):
                child.send("loads" if isinstance(piece, tuple) else "facility", 0, piece)
                await asyncio.sleep(0)
            child.facility = request.facility
        self._numbers += 1
        number = self._numbers
        future: asyncio.Future[Plan] = asyncio.get_running_loop().create_future()
        child.answers[number] = future
        fields: dict[str, Any] = {}
        for part in request_pieces(request):
            fields = part
            await asyncio.sleep(0)
        child.send("plan", number, (fields, limit_s * _SOLVER_SHARE))
        return await future

    def _start(self) -> asyncio.Task[None]:
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._bring_up(), name="planner start")
            self._starting.add_done_callback(_take_exception)
        return self._starting

    async def _bring_up(self) -> None:
        if self._child is not None:
            await self._child.end()
        # The parent's import path, so that the child finds the same code wherever it was installed.
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            # The planner has one core: threads of the linear algebra would only wait for each other.
            "OPENBLAS_NUM_THREADS": "1",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "mullet.adapters.planner_worker",
            self._target,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        child = self._child = _Child(process)
        if self._closed:
            child.kill()
        try:
            async with asyncio.timeout(self._start_limit_s):
                await child.ready
        except TimeoutError:
            await child.end()
            raise PlanningError(f"the planner's process was not up within {self._start_limit_s:.0f} s") from None
        except asyncio.CancelledError:
            await child.end()
            raise

    def _start_again(self) -> None:
        if not self._closed:
            self._start()

    async def close(self) -> None:
        """End the worker."""
        self._closed = True
        if self._child is not None:
            self._child.kill()
        if self._starting is not None:
            # Not cancelled: a process that is half made can only be ended once it is whole, and it is killed then.
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._child is not None:
            await self._child.end()
            self._child = None


def _take_exception(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


def _load(target: str) -> Target:
    module_name, _, function = target.partition(":")
    module = importlib.import_module(module_name)
    warm_up = getattr(module, "warm_up", None)
    if warm_up is not None:
        warm_up()
    found = getattr(module, function)
    # A class keeps what it learned from one request for the next.
    plan: Target = found() if isinstance(found, type) else found
    return plan


def _serve(target: str) -> None:
    """Answer frames until stdin ends; the worker's main function."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever a solver prints goes to stderr: stdout carries frames only.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    frames: queue.SimpleQueue[tuple[str, int, Any]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, frames), daemon=True).start()
    plan = _load(target)
    _answer(answers, "ready", 0, None)
    bare: Facility | None = None
    loads: list[Load] = []
    facility: Facility | None = None
    while True:
        kind, number, body = frames.get()
        if kind == "facility":
            bare, loads, facility = body, [], None
            continue
        if kind == "loads":
            loads.extend(body)
            continue
        fields, limit_s = body
        assert bare is not None
        facility = facility or join_facility(bare, loads)
        try:
            *intervals, last = plan_pieces(plan(join_request(facility, fields), limit_s))
            for interval in intervals:
                _answer(answers, "interval", number, interval)
            _answer(answers, "plan", number, last)
        except BrokenPipeError:
            return
        except Exception as error:  # noqa: BLE001  a model that fails is an answer, whatever it raised
            words = str(error) if isinstance(error, PlanningError) else f"{type(error).__name__}: {error}"
            _answer(answers, "error", number, words[:_WORDS_LIMIT])


def _receive(source: BinaryIO, frames: queue.SimpleQueue[tuple[str, int, Any]]) -> None:
    while True:
        header = source.read(_LENGTH.size)
        body = source.read(_LENGTH.unpack(header)[0]) if len(header) == _LENGTH.size else b""
        if not body:
            # The parent is gone: end at once, even in the middle of a plan.
            os._exit(0)
        frames.put(pickle.loads(body))


def _answer(sink: BinaryIO, kind: str, number: int, body: Any) -> None:
    data = pickle.dumps((kind, number, body), protocol=pickle.HIGHEST_PROTOCOL)
    sink.write(_LENGTH.pack(len(data)) + data)
    sink.flush()


if __name__ == "__main__":
    _serve(sys.argv[1])
