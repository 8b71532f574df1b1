"""The door of the HTTP API: who may come in, how much they may bring, and what browsers are told to forbid."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mullet.adapters.api_problems import Problem, problem_response

MOST_BODY_BYTES = 65_536
LEAST_TOKEN_LENGTH = 16
_GUARDED = ("/v1/", "/metrics", "/openapi.json")
_READS = ("GET", "HEAD")

_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Guard:
    """Wraps an ASGI app. Every write needs the bearer token; so does every read unless it comes from this machine.

    A browser never adds an Authorization header by itself, so a foreign page cannot write (no cookies are used). A read
    without a token must also name this machine in its Host header: a foreign name that was made to resolve to
    the loopback address gets nothing.
    """

    def __init__(self, app: ASGIApp, token: str | None, open_reads: bool) -> None:
        """`open_reads` lets requests from this machine read without a token."""
        self._app = app
        self._token = None if token is None else token.encode()
        self._open_reads = open_reads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _with_headers(send)
        problem = self._problem(scope)
        if problem is not None:
            headers = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else {}
            await problem_response(problem, headers)(scope, receive, answer)
            return
        await self._app(scope, _bounded(receive), answer)

    def _problem(self, scope: Scope) -> Problem | None:
        headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        length = _header(headers, b"content-length")
        if length is not None and not (length.isdigit() and int(length) <= MOST_BODY_BYTES):
            return Problem(413, f"a body may have {MOST_BODY_BYTES} bytes at most")
        path, reads = scope["path"], scope["method"] in _READS
        if reads and not path.startswith(_GUARDED):
            return None
        given = _header(headers, b"authorization")
        if given is not None:
            return None if self._fits(given) else Problem(401, "the token is not the facility's")
        if reads and self._open_reads and _is_local(scope, headers):
            return None
        if self._token is None:
            return Problem(403, "no token is configured: this interface only answers reads from its own machine")
        return Problem(401, "needs the header Authorization: Bearer <token>")

    def _fits(self, given: bytes) -> bool:
        scheme, _, token = given.partition(b" ")
        return (
            self._token is not None and scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)
        )


def _header(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    return next((value for key, value in headers if key.lower() == name), None)


def _is_local(scope: Scope, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    client = scope.get("client")
    host = (_header(headers, b"host") or b"").decode("latin-1")
    name = host[1 : host.index("]")] if host.startswith("[") and "]" in host else host.partition(":")[0]
    return client is not None and _is_loopback(client[0]) and (name.lower() == "localhost" or _is_loopback(name))


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _with_headers(send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
        await send(message)

    return answer


def _bounded(receive: Receive) -> Receive:
    """Bound bodies that do not say their length in advance."""
    got = 0

    async def take() -> Message:
        nonlocal got
        message = await receive()
        if message["type"] == "http.request":
            got += len(message.get("body", b""))
            if got > MOST_BODY_BYTES:
                raise Problem(413, f"a body may have {MOST_BODY_BYTES} bytes at most")
        return message

    return take
