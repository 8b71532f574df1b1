"""A web server on the loopback that gives whatever bytes a test wants given."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Web:
    """Answers every request with `answer`; None never answers."""

    def __init__(self) -> None:
        self.url = ""
        self.answer: bytes | None = b""
        self.requests: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def page(self, body: bytes | str, status: str = "200 OK", *headers: str) -> None:
        """Answer with a body."""
        content = body.encode() if isinstance(body, str) else body
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", *headers, "", ""]
        self.answer = "\r\n".join(lines).encode() + content

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head.decode())
                if self.answer is None:
                    await asyncio.Event().wait()
                else:
                    writer.write(self.answer)
                    await writer.drain()
                    if b"Content-Length" not in self.answer:
                        break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def running_web() -> AsyncIterator[Web]:
    web = Web()
    server = await asyncio.start_server(web.serve, "127.0.0.1", 0)
    web.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/feed"
    try:
        yield web
    finally:
        server.close()
        await web.stop()
        await server.wait_closed()


class Hands:
    """A clock that a test sets (`ports.Clock`)."""

    def __init__(self, now: float = 1_780_000_000.0) -> None:
        self.at = now

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at - 1_000_000_000.0

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


def no_secrets(name: str) -> str | None:
    """There are no credentials."""
    return None
