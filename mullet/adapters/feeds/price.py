"""Energy prices over HTTP: the current interval and those published ahead (docs/wire.md, GET /price)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

from mullet.adapters.feeds.http import HTTP_OPTIONS, HttpSource, JsonFields, read_options
from mullet.domain.feeds import PriceCurve, PriceInterval
from mullet.domain.units import Dimension, QuantityError, parse_quantity
from mullet.ports import DriverContext

CURRENCY_OPTION: tuple[type, Any, str] = (str, "", "currency that the feed must be in; the facility's is filled in")


def facility_currency(feed_id: str, options: Mapping[str, Any]) -> str:
    """Return the currency that a feed must be in; there is no default one.

    Raises:
        ValueError: nobody filled it in.
    """
    currency: str = options["currency"]
    if not currency:
        raise ValueError(f"feed {feed_id}: option 'currency' is missing")
    return currency


class HttpPriceFeed:
    """Reads a PriceCurve (`ports.Feed`). Bounds on the price are not applied here: what is in range is policy.

    Raises:
        ValueError: the options are wrong.
    """

    options_schema: ClassVar[dict[str, tuple[type, Any, str]]] = {**HTTP_OPTIONS, "currency": CURRENCY_OPTION}

    def __init__(self, context: DriverContext, feed_id: str) -> None:
        options = read_options(context, feed_id, self.options_schema)
        self._currency = facility_currency(feed_id, options)
        self._source = HttpSource(context, feed_id, options, "application/json")

    async def fetch(self, deadline_s: float) -> PriceCurve:
        """Return the published prices per MWh, in order of time. Gaps stay gaps.

        Raises:
            FeedError: no answer, or any part of it is wrong: a batch is good or refused as a whole.
        """
        fields = JsonFields.parse(self._source, await self._source.get(deadline_s))
        factor = self._factor(fields)
        fields.instant("published_at")
        intervals = []
        for number, row in enumerate(fields.rows("intervals"), start=1):
            start, end, price = row.instant("start"), row.instant("end"), row.number("price")
            if not start < end:
                row.fail("does not end after it starts")
            intervals.append((number, PriceInterval(start, end, price * factor)))
        if not intervals:
            fields.fail("no prices in the answer")
        return self._ordered(intervals)

    async def close(self) -> None:
        """Close the connection."""
        await self._source.close()

    def _factor(self, fields: JsonFields) -> float:
        currency, unit = fields.text("currency"), fields.text("unit")
        if currency != self._currency:
            fields.fail(f"prices are in {currency!r:.20}, the facility reckons in {self._currency}")
        try:
            return parse_quantity(f"1 {unit}", Dimension.ENERGY_PRICE, self._currency)
        except QuantityError as error:
            fields.fail(str(error))

    def _ordered(self, numbered: list[tuple[int, PriceInterval]]) -> PriceCurve:
        numbered.sort(key=lambda item: item[1].start)
        for (first_number, first), (number, second) in pairwise(numbered):
            if second.start < first.end:
                what = "repeats" if second.start == first.start else "overlaps"
                later, earlier = max(number, first_number), min(number, first_number)
                self._source.fail(f"row {later}: {what} row {earlier}")
        return PriceCurve(tuple(interval for _, interval in numbered))
