"""The least of HTTP/1.1 that feeds and metrics need: GET, kept-alive connections, and silence on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from mullet_simulators.sockets import StreamServer

MOST_HEAD_BYTES = 16384
MOST_BODY_BYTES = 65536
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
}


@dataclass(frozen=True, slots=True)
class Page:
    """Status and body of an answer."""

    body: bytes
    content_type: str = "application/json"
    status: int = 200


NOT_FOUND = Page(b'{"error": "not found"}', status=404)
ERROR_PAGE = Page(b"<html><body><h1>500 Internal Server Error</h1></body></html>", "text/html", 500)
HTML_PAGE = Page(b"<!doctype html><html><body>Please log in to the guest network</body></html>", "text/html")


class WebServer(StreamServer):
    """Serves one address; `answer(path)` gives the page, or None where the server is to stay silent."""

    def __init__(self, host: str, port: int, answer: Callable[[str], Page | None]) -> None:
        super().__init__(host, port, self._talk, MOST_HEAD_BYTES)
        self._answer = answer

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await self._serve_one(reader, writer):
            pass

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {}
        for line in head[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        parts = head[0].split(" ")
        length = headers.get("content-length", "0")
        if len(parts) != 3 or not length.isdigit() or int(length) > MOST_BODY_BYTES:
            await self._send(writer, Page(b"", "text/plain", 400), keep=False, body=True)
            return False
        if int(length):
            await reader.readexactly(int(length))
        method, target, version = parts
        page: Page | None = Page(b"", "text/plain", 405)
        if method in ("GET", "HEAD"):
            page = self._answer(target.partition("?")[0])
        if page is None:
            # Silent until the client gives up.
            await reader.read(1)
            return False
        keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        await self._send(writer, page, keep=keep, body=method != "HEAD")
        return keep

    async def _send(self, writer: asyncio.StreamWriter, page: Page, *, keep: bool, body: bool) -> None:
        head = (
            f"HTTP/1.1 {page.status} {REASONS.get(page.status, 'Unknown')}\r\n"
            f"Content-Type: {page.content_type}\r\n"
            f"Content-Length: {len(page.body)}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
        )
        writer.write(head.encode("latin-1") + (page.body if body else b""))
        await writer.drain()
