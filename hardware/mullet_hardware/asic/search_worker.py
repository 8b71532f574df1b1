"""The process of a search: a job as one line of JSON on stdin, sightings as lines on stdout.

Started as `python -m mullet_hardware.asic.search_worker PARENT`; it ends with its parent, and with its input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from typing import Any

from mullet.ports import Sighting
from mullet_hardware.asic.worker import die_with

MOST_JOB_BYTES = 1 << 24


class Lines:
    """Lines to stdout, written whole and in order, without holding up who puts them."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._waiting: deque[dict[str, Any]] = deque()
        self._filled = asyncio.Event()

    def put(self, row: dict[str, Any]) -> None:
        """Queue a line."""
        self._waiting.append(row)
        self._filled.set()

    async def run(self) -> None:
        """Write what is queued until cancelled."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write what is queued now."""
        rows = [self._waiting.popleft() for _ in range(len(self._waiting))]
        self._writer.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        await self._writer.drain()


async def serve() -> None:
    """Carry out the job on stdin."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MOST_JOB_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    pipe, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
    # A drained writer has nothing left in it: the process ends right after the last line.
    pipe.set_write_buffer_limits(high=0)
    lines = Lines(asyncio.StreamWriter(pipe, protocol, None, loop))
    job = json.loads(await reader.readline())
    searching = asyncio.create_task(_search(job, lines), name="search")
    gone = asyncio.create_task(reader.read(), name="input")
    writing = asyncio.create_task(lines.run(), name="lines")
    await asyncio.wait({searching, gone, writing}, return_when=asyncio.FIRST_COMPLETED)
    for task in (gone, writing):
        task.cancel()
    await asyncio.gather(gone, writing, return_exceptions=True)
    if searching.done():
        error = searching.exception()
        lines.put({"end": True} if error is None else {"failed": type(error).__name__})
        with contextlib.suppress(ConnectionError):
            await lines.flush()
    else:
        searching.cancel()
        await asyncio.gather(searching, return_exceptions=True)
    pipe.close()


async def _search(job: dict[str, Any], lines: Lines) -> None:
    from mullet_hardware.asic.discover import pack
    from mullet_hardware.asic.identify import Ports
    from mullet_hardware.asic.search import Search, Settings

    def emit(sighting: Sighting) -> None:
        lines.put(pack(sighting))

    settings = Settings(Ports(**job["ports"]), job["concurrency"], job["passwords"])
    await Search(settings, emit, asyncio.get_running_loop().time).run(job["hosts"])


def main(arguments: list[str]) -> None:
    """Search, and end without tearing a thousand modules down."""
    die_with(int(arguments[0]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    factory = None
    if sys.platform == "linux":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve())
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
