"""The operator's page as it is shipped: a few files, read once at start and served from memory."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files

from fastapi import FastAPI, Request, Response

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    media_type: str
    tag: str


def read_pages(facility_id: str) -> dict[str, _File]:
    """Return the files of the page by name; the page itself is told which facility it shows."""
    found = {}
    for entry in files("mullet.adapters").joinpath("web").iterdir():
        suffix = "." + entry.name.rpartition(".")[2]
        if suffix in _TYPES:
            body = entry.read_bytes()
            if entry.name == "index.html":
                body = body.replace(b"{{facility}}", html.escape(facility_id).encode())
            found[entry.name] = _File(body, _TYPES[suffix], f'"{hashlib.sha256(body).hexdigest()[:24]}"')
    return found


def add_pages(app: FastAPI, facility_id: str) -> None:
    """Serve the page at / and its files beside it."""
    for name, file in read_pages(facility_id).items():
        path = "/" if name == "index.html" else f"/{name}"
        app.add_api_route(path, _serving(file), methods=["GET", "HEAD"], include_in_schema=False)


def _serving(file: _File) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        # Browsers ask again each time, so a newer version of mullet never runs with an older page.
        headers = {"ETag": file.tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        return Response(file.body, media_type=file.media_type, headers=headers)

    return serve
