"""Ceilings that the grid asks for, over HTTP (docs/wire.md, GET /limits): levels that are read again, never edges."""

from __future__ import annotations

from typing import Any, ClassVar

from mullet.adapters.feeds.http import HTTP_OPTIONS, HttpSource, JsonFields, read_options
from mullet.domain.feeds import Cause, Curtailment
from mullet.ports import DriverContext, FeedError

STALE_S = 60.0
"""A page published longer ago than this no longer tells what holds now (docs/wire.md)."""


class HttpLimitsFeed:
    """Reads all ceilings that stand now or are announced (`ports.Feed`).

    The wire does not say when a ceiling was announced: it is the moment this feed first saw it with these values.
    One that already stands at the very first read is taken as announced when it began, so a restart of the daemon
    never grants its loads a second notice.

    Raises:
        ValueError: the options are wrong.
    """

    options_schema: ClassVar[dict[str, tuple[type, Any, str]]] = {
        **HTTP_OPTIONS,
        "priority": (int, 10, "priority of these ceilings; the lower number wins"),
    }

    def __init__(self, context: DriverContext, feed_id: str) -> None:
        options = read_options(context, feed_id, self.options_schema)
        self._clock = context.clock
        self._priority: int = options["priority"]
        self._source = HttpSource(context, feed_id, options, "application/json")
        self._announced: dict[tuple[str, str, float, float, Cause], float] | None = None

    async def fetch(self, deadline_s: float) -> tuple[Curtailment, ...]:
        """Return the ceilings, in the order of the answer; none is a good answer too.

        Raises:
            FeedError: no answer, or any part of it is wrong: a batch is good or refused as a whole.
        """
        fields = JsonFields.parse(self._source, await self._source.get(deadline_s))
        published, now = fields.instant("published_at"), self._clock.now()
        if now - published > STALE_S:
            raise FeedError(f"the page was published {now - published:.0f} s ago: its source stands still")
        announced: dict[tuple[str, str, float, float, Cause], float] = {}
        found: dict[str, Curtailment] = {}
        for row in fields.rows("limits"):
            limit_id, circuit, cause = row.text("id"), row.text("circuit"), self._cause(row)
            watts, start, end = row.number("limit_w"), row.instant("start"), row.instant("end")
            if limit_id in found:
                row.fail(f"repeats the id {limit_id!r:.60}")
            if watts < 0.0:
                row.fail(f"limit_w {watts:g} is below 0")
            if not start < end:
                row.fail("does not end after it starts")
            key = (limit_id, circuit, watts, start, cause)
            announced[key] = self._announced_at(key, start, now)
            found[limit_id] = Curtailment(
                id=limit_id,
                circuit=circuit,
                limit_watts=watts,
                start=start,
                end=end,
                cause=cause,
                announced_at=announced[key],
                priority=self._priority,
            )
        self._announced = announced
        return tuple(found.values())

    async def close(self) -> None:
        """Close the connection."""
        await self._source.close()

    def _announced_at(self, key: tuple[str, str, float, float, Cause], start: float, now: float) -> float:
        if self._announced is None:
            return min(start, now)
        return self._announced.get(key, now)

    @staticmethod
    def _cause(row: JsonFields) -> Cause:
        text = row.text("cause")
        try:
            return Cause(text)
        except ValueError:
            row.fail(f"unknown cause {text!r:.60}; there are {', '.join(cause.value for cause in Cause)}")
