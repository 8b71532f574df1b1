"""Measurements to a server that takes InfluxDB's v2 writes, as line protocol, and a spool for while it is away."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import zlib
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mullet.adapters.spool import Spool
from mullet.ports import Clock

if TYPE_CHECKING:
    from influxdb_client import WriteApi
    from influxdb_client.rest import ApiException

logger = logging.getLogger(__name__)

BACKLOG = 30
"""Instants that may wait to be made into lines while a write is under way."""
BATCH_BYTES = 500_000
"""Most compressed bytes of one write."""
BACKOFF_FIRST_S = 1.0
BACKOFF_MOST_S = 60.0
CLOSE_S = 5.0
IDLE_S = 60.0
NEVER_ACCEPTED = frozenset({400, 413, 422})
"""Answers that no repetition of the same lines would change."""

Series = Mapping[str, Mapping[str, float]]

_ESCAPES = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\=", "\n": "\\ ", "\r": "\\ ", "\\": "/"})


def lines_of(at: float, series: Series, facility: str = "") -> str:
    """Return line protocol in milliseconds: `load/asic-001` becomes measurement `load` with tag `id=asic-001`.

    Values that are not finite are left out.
    """
    milliseconds = round(at * 1_000.0)
    common = f",facility={facility.translate(_ESCAPES)}" if facility else ""
    lines = []
    for key, fields in series.items():
        measurement, _, member = key.partition("/")
        values = ",".join(
            f"{name.translate(_ESCAPES)}={float(value)!r}" for name, value in fields.items() if math.isfinite(value)
        )
        if values:
            tag = f",id={member.translate(_ESCAPES)}" if member else ""
            lines.append(f"{measurement.translate(_ESCAPES)}{common}{tag} {values} {milliseconds}")
    return "\n".join(lines)


class InfluxHistorian:
    """Writes in a thread of its own (`ports.Historian`). While the server is away, lines are kept, compressed, up to
    `spool_bytes`; then the oldest are dropped and counted."""

    def __init__(
        self,
        url: str,
        token: str,
        org: str,
        bucket: str,
        clock: Clock,
        *,
        facility: str = "",
        timeout_s: float = 5.0,
        spool_bytes: int = 64_000_000,
    ) -> None:
        self._url, self._token, self._org, self._bucket = url, token, org, bucket
        self._clock = clock
        self._facility = facility
        self._timeout_s = timeout_s
        self._spool_bytes = spool_bytes
        self._raw: Spool[tuple[float, Series]] = Spool(BACKLOG)
        self._packed: deque[bytes] = deque()
        self._packed_bytes = 0
        self._dropped = 0
        self._rejected = 0
        self._written = 0
        self._singly = 0
        self._problem: str | None = None
        self._give_up_at = math.inf
        self._thread = threading.Thread(target=self._work, name="influx", daemon=True)
        self._thread.start()

    @property
    def written(self) -> int:
        """Instants that the server has taken."""
        return self._written

    @property
    def dropped(self) -> int:
        """Instants that were given up: no room in the spool, refused by the server, or left over at the end."""
        return self._raw.dropped + self._dropped + self._rejected

    @property
    def problem(self) -> str | None:
        """Why the last write failed; None if it did not."""
        return self._problem

    async def record(self, at: float, series: Series) -> None:
        """Hand over the fields per series key at one instant. Never waits for the server."""
        self._raw.put((at, series))

    async def close(self) -> None:
        """Try to send what waits, within a few seconds."""
        self._give_up_at = self._clock.monotonic() + CLOSE_S - 1.0
        self._raw.close()
        await asyncio.to_thread(self._thread.join, CLOSE_S + self._timeout_s)

    # Everything below runs in the writer's thread.

    def _work(self) -> None:
        from influxdb_client import InfluxDBClient
        from influxdb_client.client.write_api import SYNCHRONOUS

        client = InfluxDBClient(
            url=self._url,
            token=self._token,
            org=self._org,
            timeout=round(self._timeout_s * 1_000.0),
            enable_gzip=True,
            retries=False,
        )
        try:
            self._serve(client.write_api(write_options=SYNCHRONOUS))
        finally:
            client.close()
        self._dropped += len(self._packed)

    def _serve(self, api: WriteApi) -> None:
        backoff_s, retry_at = BACKOFF_FIRST_S, 0.0
        while True:
            item = self._raw.take(0.0 if self._packed else IDLE_S)
            while item is not None:
                self._pack(*item)
                item = self._raw.take(0.0)
            now = self._clock.monotonic()
            if self._raw.closed and (not self._packed or now >= self._give_up_at):
                return
            if not self._packed:
                continue
            if now < retry_at and not self._raw.closed:
                self._raw.pause(retry_at - now)
                continue
            wait_s = self._send(api)
            if wait_s is None:
                backoff_s, retry_at = BACKOFF_FIRST_S, 0.0
                continue
            retry_at = self._clock.monotonic() + max(backoff_s, min(wait_s, BACKOFF_MOST_S))
            backoff_s = min(2.0 * backoff_s, BACKOFF_MOST_S)
            if self._raw.closed:
                return

    def _pack(self, at: float, series: Series) -> None:
        lines = lines_of(at, series, self._facility)
        if not lines:
            return
        packed = zlib.compress(lines.encode(), 1)
        self._packed.append(packed)
        self._packed_bytes += len(packed)
        while self._packed_bytes > self._spool_bytes:
            self._packed_bytes -= len(self._packed.popleft())
            self._dropped += 1

    def _send(self, api: WriteApi) -> float | None:
        """Write the oldest instants; None if they are done with, else the seconds that the server asks us to wait."""
        from influxdb_client import WritePrecision
        from influxdb_client.rest import ApiException
        from urllib3.exceptions import HTTPError

        batch = self._batch()
        record = b"\n".join(zlib.decompress(packed) for packed in batch)
        try:
            api.write(bucket=self._bucket, org=self._org, record=record, write_precision=WritePrecision.MS)
        except ApiException as error:
            self._fail(f"{self._url} answered {error.status} {error.reason}")
            if error.status not in NEVER_ACCEPTED:
                return _retry_after_s(error)
            if len(batch) > 1:
                # One bad instant must not take others with it: they are offered again one by one.
                self._singly = len(batch)
                return None
            self._rejected += 1
        except (HTTPError, OSError) as error:
            self._fail(f"{self._url}: {type(error).__name__}")
            return 0.0
        else:
            self._written += len(batch)
            self._recover()
        self._packed_bytes -= sum(len(self._packed.popleft()) for _ in batch)
        self._singly = max(0, self._singly - 1)
        return None

    def _batch(self) -> list[bytes]:
        if self._singly:
            return [self._packed[0]]
        size = 0
        batch: list[bytes] = []
        for packed in self._packed:
            size += len(packed)
            if batch and size > BATCH_BYTES:
                break
            batch.append(packed)
        return batch

    def _fail(self, reason: str) -> None:
        if self._problem is None:
            logger.warning("measurements are not sent: %s", reason)
        self._problem = reason

    def _recover(self) -> None:
        if self._problem is not None:
            logger.info("measurements are sent again")
        self._problem = None


def _retry_after_s(error: ApiException) -> float:
    text = (error.headers or {}).get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0
