"""One bounded HTTP GET: total deadline, size limit, no redirects, and every failure as one FeedError."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from mullet.ports import DriverContext, FeedError

if TYPE_CHECKING:
    import httpx

MOST_BYTES = 5_000_000

HTTP_OPTIONS: dict[str, tuple[type, Any, str]] = {
    "url": (str, ..., "address to read, http:// or https://"),
    "timeout_s": (float, 5.0, "longest wait for one answer, in seconds"),
    "credential": (str, "", "name of the credential to send as a bearer token; empty sends none"),
    "proxy": (str, "", "address of a proxy to go through; empty goes straight"),
}
"""Options of every feed that is read over HTTP: name -> (type, default or `...` if required, help)."""


def read_options(context: DriverContext, feed_id: str, schema: Mapping[str, tuple[type, Any, str]]) -> dict[str, Any]:
    """Return the options of one feed with the defaults of `schema` filled in.

    Raises:
        ValueError: an option is missing, unknown, or of another type.
    """
    given = context.options.get(feed_id, {})
    unknown = sorted(given.keys() - schema.keys())
    if unknown:
        raise ValueError(f"feed {feed_id}: unknown option {unknown[0]!r}; there are {', '.join(schema)}")
    options = {}
    for name, (kind, default, _) in schema.items():
        value = given.get(name, default)
        if value is ...:
            raise ValueError(f"feed {feed_id}: option {name!r} is missing")
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ValueError(f"feed {feed_id}: option {name!r} must be {kind.__name__}, not {value!r}")
        options[name] = value
    return options


class HttpSource:
    """What one feed reads over HTTP. The connection is kept open between reads and closed by `close`."""

    def __init__(self, context: DriverContext, feed_id: str, options: Mapping[str, Any], accept: str) -> None:
        self._feed_id = feed_id
        self._context = context
        self._accept = accept
        self._url: str = options["url"]
        self._timeout_s: float = options["timeout_s"]
        self._credential: str = options["credential"]
        self._proxy: str | None = options["proxy"] or None
        if not self._url.startswith(("http://", "https://")):
            raise ValueError(f"feed {feed_id}: url must begin with http:// or https://, not {self._url!r}")
        if not (math.isfinite(self._timeout_s) and self._timeout_s > 0.0):
            raise ValueError(f"feed {feed_id}: timeout_s must be above 0")
        # Importing httpx and reading the certificates takes a good part of a second, which no tick has.
        self._client: httpx.AsyncClient | None = self._connect()

    async def get(self, deadline_s: float) -> str:
        """Return the body as text.

        Raises:
            FeedError: not 200, redirected, an HTML page, above 5 MB, not UTF-8, or not whole within the deadline.
        """
        import httpx

        allowed_s = min(deadline_s, self._timeout_s)
        try:
            async with asyncio.timeout(allowed_s):
                return await self._read()
        except TimeoutError:
            self.fail(f"no whole answer within {allowed_s:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            self.fail(str(error) or type(error).__name__)

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def fail(self, reason: str) -> NoReturn:
        """Raise a FeedError that names this feed."""
        raise FeedError(f"feed {self._feed_id}: {reason}")

    async def _read(self) -> str:
        client = self._client = self._client or self._connect()
        async with client.stream("GET", self._url, headers=self._headers()) as response:
            if response.is_redirect:
                self.fail(f"redirected (status {response.status_code}); redirects are not followed")
            if response.status_code != 200:
                self.fail(f"answered with status {response.status_code}")
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                self.fail("answered with a compressed body that was not asked for")
            content = bytearray()
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > MOST_BYTES:
                    self.fail(f"the answer is larger than {MOST_BYTES} bytes")
        try:
            text = content.decode()
        except UnicodeDecodeError:
            self.fail("the answer is not UTF-8 text")
        if text.lstrip("\ufeff \t\r\n")[:1] == "<":
            self.fail("answered with a web page")
        return text

    def _connect(self) -> httpx.AsyncClient:
        import httpx

        # The environment is not asked for proxies: what a feed does is said in the policy alone.
        return httpx.AsyncClient(
            follow_redirects=False,
            trust_env=False,
            proxy=self._proxy,
            timeout=self._timeout_s,
            verify=self._url.startswith("https://"),
        )

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": self._accept, "Accept-Encoding": "identity"}
        if self._credential:
            token = self._context.secret(self._credential)
            if token is None:
                self.fail(f"credential {self._credential!r} is not there")
            headers["Authorization"] = f"Bearer {token}"
        return headers


class JsonFields:
    """Reads typed fields from JSON of an untrusted server; every problem is a FeedError that names the place."""

    def __init__(self, source: HttpSource, data: Any, place: str = "") -> None:
        self._source = source
        self._place = place
        if not isinstance(data, dict):
            source.fail(f"{place}expected an object, found {type(data).__name__}")
        self._data: dict[str, Any] = data

    @classmethod
    def parse(cls, source: HttpSource, text: str) -> JsonFields:
        """Return the top object of a JSON text; NaN and Infinity are no JSON."""

        def refuse(constant: str) -> NoReturn:
            raise ValueError(f"{constant} is no number")

        try:
            data = json.loads(text, parse_constant=refuse)
        except (ValueError, RecursionError) as error:
            source.fail(f"the answer is not JSON: {error or type(error).__name__}")
        return cls(source, data)

    def fail(self, reason: str) -> NoReturn:
        """Raise a FeedError that names the place."""
        self._source.fail(f"{self._place}{reason}")

    def text(self, name: str) -> str:
        """Return a text that is not empty."""
        value = self._data.get(name)
        if not isinstance(value, str) or not value:
            self.fail(f"{name!r} must be a text, not {value!r:.60}")
        return value

    def number(self, name: str) -> float:
        """Return a finite number."""
        value = self._data.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail(f"{name!r} must be a number, not {value!r:.60}")
        if not abs(value) <= 1e300:
            self.fail(f"{name!r} is not a finite number")
        return float(value)

    def instant(self, name: str) -> float:
        """Return an ISO 8601 instant with a zone, in Unix seconds."""
        text = self.text(name)
        try:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                self.fail(f"{name!r} has no zone: {text!r:.60}")
            return moment.timestamp()
        except (ValueError, OverflowError):
            self.fail(f"{name!r} is no instant: {text!r:.60}")

    def has(self, name: str) -> bool:
        """Return whether the field is there at all."""
        return name in self._data

    def rows(self, name: str) -> list[JsonFields]:
        """Return a list of objects, numbered from 1 in messages."""
        value = self._data.get(name)
        if not isinstance(value, list):
            self.fail(f"{name!r} must be a list, not {value!r:.60}")
        return [JsonFields(self._source, row, f"row {number}: ") for number, row in enumerate(value, start=1)]
