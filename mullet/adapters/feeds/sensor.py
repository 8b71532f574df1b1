"""What a temperature or flow sensor shows, over HTTP (docs/wire.md, GET /sensor)."""

from __future__ import annotations

from typing import Any, ClassVar

from mullet.adapters.feeds.http import HTTP_OPTIONS, HttpSource, JsonFields, read_options
from mullet.ports import DriverContext, FeedError

OLDEST_S = 5.0
"""A value that the sensor's gateway has held for longer is no reading."""


class HttpSensorFeed:
    """Reads one number with its unit (`ports.Feed`).

    Raises:
        ValueError: the options are wrong.
    """

    options_schema: ClassVar[dict[str, tuple[type, Any, str]]] = {
        **HTTP_OPTIONS,
        "unit": (str, "degC", "unit that the sensor must answer in: degC, L/min"),
        "oldest_s": (float, OLDEST_S, "an answer measured longer ago is refused, in seconds"),
    }

    def __init__(self, context: DriverContext, feed_id: str) -> None:
        options = read_options(context, feed_id, self.options_schema)
        self._feed_id = feed_id
        self._unit: str = options["unit"]
        self._oldest_s: float = options["oldest_s"]
        self._clock = context.clock
        self._source = HttpSource(context, feed_id, options, "application/json")

    async def fetch(self, deadline_s: float) -> float:
        """Return the value in the unit asked for.

        Raises:
            FeedError: no answer, another unit, no finite number, or a value that was measured too long ago.
        """
        fields = JsonFields.parse(self._source, await self._source.get(deadline_s))
        measured_at, unit = fields.instant("measured_at"), fields.text("unit")
        if unit != self._unit:
            fields.fail(f"unit {unit!r} is not {self._unit!r}")
        age_s = self._clock.now() - measured_at
        if age_s > self._oldest_s:
            raise FeedError(f"feed {self._feed_id}: measured {age_s:.0f} s ago")
        return fields.number("value")

    async def close(self) -> None:
        """Close the connection."""
        await self._source.close()
