"""What hashing earns, over HTTP (docs/wire.md, GET /hashprice)."""

from __future__ import annotations

from typing import Any, ClassVar

from mullet.adapters.feeds.http import HTTP_OPTIONS, HttpSource, JsonFields, read_options
from mullet.adapters.feeds.price import CURRENCY_OPTION, facility_currency
from mullet.domain.units import Dimension, QuantityError, parse_quantity
from mullet.ports import DriverContext


class HttpHashpriceFeed:
    """Reads the hashprice per PH/s and day, in the facility's currency (`ports.Feed`).

    Raises:
        ValueError: the options are wrong.
    """

    options_schema: ClassVar[dict[str, tuple[type, Any, str]]] = {**HTTP_OPTIONS, "currency": CURRENCY_OPTION}

    def __init__(self, context: DriverContext, feed_id: str) -> None:
        options = read_options(context, feed_id, self.options_schema)
        self._currency = facility_currency(feed_id, options)
        self._source = HttpSource(context, feed_id, options, "application/json")

    async def fetch(self, deadline_s: float) -> float:
        """Return the hashprice.

        Raises:
            FeedError: no answer, another unit or currency, or a hashprice that is not above 0.
        """
        fields = JsonFields.parse(self._source, await self._source.get(deadline_s))
        fields.instant("published_at")
        unit = fields.text("unit")
        try:
            factor = parse_quantity(f"1 {unit}", Dimension.HASHPRICE, self._currency)
        except QuantityError as error:
            fields.fail(str(error))
        hashprice = fields.number("hashprice") * factor
        if hashprice <= 0.0:
            fields.fail(f"hashprice {hashprice:g} is not above 0")
        return hashprice

    async def close(self) -> None:
        """Close the connection."""
        await self._source.close()
