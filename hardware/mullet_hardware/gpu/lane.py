"""A thread for the blocking calls of one device, so that a call that never returns costs that device alone."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from mullet.ports import Clock, DeviceUnreachable

T = TypeVar("T")

REBUILD_FIRST_S = 5.0
REBUILD_MOST_S = 60.0
ABANDONED_MOST = 3
"""Threads that may be left hanging in one lane before no further one is started."""

Alive = Callable[[], bool]


class Job(Generic[T]):
    """One call on its way through the thread."""

    def __init__(self, function: Callable[[Alive], T], loop: asyncio.AbstractEventLoop) -> None:
        self._function = function
        self._loop = loop
        self.future: asyncio.Future[T] = loop.create_future()
        self.abandoned = False
        self.ended = False

    def run(self) -> None:
        """Run in the thread and hand the result to the event loop."""
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = self._function(lambda: not self.abandoned)
        except BaseException as error:  # noqa: BLE001 - whatever it is belongs to the caller, who awaits it
            failure = error
        self.ended = True
        # The loop may be closed by the time a hung call returns; then nobody waits any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._deliver, result, failure)

    def _deliver(self, result: Any, failure: BaseException | None) -> None:
        if self.future.done():
            return
        if failure is None:
            self.future.set_result(result)
        elif not self.abandoned:
            self.future.set_exception(failure)
        else:
            self.future.cancel()


class _Worker:
    """A daemon thread and its queue: it must not keep the process from ending while a call hangs."""

    def __init__(self, name: str) -> None:
        self.queue: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self.current: Job[Any] | None = None
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return self.current is not None and not self.current.ended

    def _run(self) -> None:
        while (job := self.queue.get()) is not None:
            if not job.abandoned:
                self.current = job
                job.run()
                self.current = None


class Lane:
    """Runs blocking calls one after the other in a thread of its own, each with a deadline.

    After a call has overrun its deadline, further calls fail at once until it returns; if it does not, a fresh
    thread takes over after a while (5 s, doubling up to 60 s).
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._worker: _Worker | None = None
        self._hung = False
        self._rebuild_at = 0.0
        self._rebuild_after_s = REBUILD_FIRST_S
        self._left_hanging: list[_Worker] = []

    async def call(self, function: Callable[[Alive], T], deadline_s: float) -> T:
        """Return what `function` returns. It is given a test whether anybody still waits, to ask before it writes.

        Raises:
            DeviceUnreachable: no result within `deadline_s`, or an earlier call still hangs.
        """
        worker = self._ready_worker()
        job = Job(function, asyncio.get_running_loop())
        worker.queue.put(job)
        try:
            async with asyncio.timeout(deadline_s):
                result = await job.future
        except TimeoutError:
            if job.ended:
                raise DeviceUnreachable(f"{self._name}: no answer within {deadline_s:g} s") from None
            self._note_hang(worker)
            raise DeviceUnreachable(f"{self._name}: no answer within {deadline_s:g} s, the call hangs") from None
        finally:
            job.abandoned = True
        self._rebuild_after_s = REBUILD_FIRST_S
        return result

    def close(self) -> bool:
        """End the thread once its queue is empty, and return whether none is left; one that hangs ends by itself."""
        threads = [worker.thread for worker in self._left_hanging]
        if self._worker is not None:
            self._worker.queue.put(None)
            threads.append(self._worker.thread)
            if not self._worker.busy:
                self._worker.thread.join(timeout=0.5)
            self._worker = None
        self._hung = False
        return not any(thread.is_alive() for thread in threads)

    def _ready_worker(self) -> _Worker:
        if self._worker is None:
            self._worker = _Worker(self._name)
        if self._hung and not self._worker.busy:
            self._hung = False
        if self._hung:
            self._rebuild()
        return self._worker

    def _rebuild(self) -> None:
        self._left_hanging = [worker for worker in self._left_hanging if worker.busy]
        now = self._clock.monotonic()
        if now < self._rebuild_at or len(self._left_hanging) >= ABANDONED_MOST:
            raise DeviceUnreachable(f"{self._name}: an earlier call still hangs")
        if self._worker is not None:
            self._worker.queue.put(None)
            self._left_hanging.append(self._worker)
        self._worker = _Worker(self._name)
        self._hung = False
        self._rebuild_after_s = min(REBUILD_MOST_S, 2.0 * self._rebuild_after_s)

    def _note_hang(self, worker: _Worker) -> None:
        if worker is self._worker and not self._hung:
            self._hung = True
            self._rebuild_at = self._clock.monotonic() + self._rebuild_after_s
