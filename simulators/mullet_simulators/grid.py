"""The grid's side over HTTP: price, limits and hashprice as levels (docs/wire.md), and feeds that go wrong."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from mullet_simulators.plant import Plant
from mullet_simulators.prices import CompressedCalendar, CsvPrices, ErcotLikePrices, PriceSource
from mullet_simulators.scenario import Scenario
from mullet_simulators.web import ERROR_PAGE, HTML_PAGE, NOT_FOUND, Page, WebServer

__all__ = ["CompressedCalendar", "CsvPrices", "ErcotLikePrices", "FeedFault", "GridService"]

PORT = 8701


class FeedFault(StrEnum):
    """One way in which a feed fails; `ok` is none."""

    OK = "ok"
    HTML = "html"  # a captive portal's page, status 200
    HTTP500 = "500"
    NAN = "nan"  # every value is NaN
    X1000 = "x1000"  # every value a thousand times too high, the unit unchanged
    GAP = "gap"  # the interval that holds now is missing; other feeds miss their value
    STALE = "stale"  # the page as it was when the fault began, for ever
    HANG = "hang"  # accepts, never answers


class GridService:
    """Serves what the plant's world publishes; a price source of its own may stand in for the scripted prices.

    The timeline moves limits and logs events; this only shows them.
    """

    def __init__(
        self, plant: Plant, scenario: Scenario, subnet: int, port: int = PORT, prices: PriceSource | None = None
    ) -> None:
        self._plant = plant
        self._world = plant.world
        self._prices: PriceSource = prices or plant.world
        self._web = WebServer(f"127.{subnet}.0.1", port, self._answer)
        self._pages = {"/price": self._price, "/limits": self._limits, "/hashprice": self._hashprice}
        self._faults = dict.fromkeys(self._pages, FeedFault.OK)
        self._kept: dict[str, bytes] = {}

    async def start(self) -> None:
        """Listen. Raises OSError where the address is in use."""
        await self._web.start()

    async def stop(self) -> None:
        """Close every connection and await every task."""
        await self._web.stop()

    def addresses(self) -> dict[str, Any]:
        """Address of each feed."""
        return {"grid": {path[1:]: f"http://{self._web.address}{path}" for path in self._pages}}

    def set_fault(self, path: str, fault: str) -> None:
        """Begin a fault of one feed ("/price"), or end it with "ok". Raises KeyError or ValueError if unknown."""
        if path not in self._pages:
            raise KeyError(path)
        new = FeedFault(fault)
        self._kept.pop(path, None)
        if new is FeedFault.STALE:
            self._kept[path] = self._render(path, FeedFault.OK)
        self._faults[path] = new

    def _answer(self, path: str) -> Page | None:
        if path not in self._pages:
            return NOT_FOUND
        fault = self._faults[path]
        if fault is FeedFault.HANG:
            return None
        if fault is FeedFault.HTML:
            return HTML_PAGE
        if fault is FeedFault.HTTP500:
            return ERROR_PAGE
        return Page(self._kept.get(path) or self._render(path, fault))

    def _render(self, path: str, fault: FeedFault) -> bytes:
        return json.dumps(self._pages[path](self._plant.now(), fault)).encode()

    def _price(self, now: float, fault: FeedFault) -> dict[str, Any]:
        intervals = self._prices.price_intervals(now)
        if fault is FeedFault.GAP:
            intervals = [i for i in intervals if not i.start <= now < i.end]
        return {
            "currency": "USD",
            "unit": "USD/MWh",
            "published_at": _iso(now),
            "intervals": [
                {"start": _iso(i.start), "end": _iso(i.end), "price": _spoil(i.price_per_mwh, fault)} for i in intervals
            ],
        }

    def _limits(self, now: float, fault: FeedFault) -> dict[str, Any]:
        page: dict[str, Any] = {
            "published_at": _iso(now),
            "limits": [
                {
                    "id": notice.id,
                    "circuit": notice.circuit,
                    "limit_w": _spoil(notice.limit_w, fault),
                    "start": _iso(notice.start),
                    "end": _iso(notice.end),
                    "cause": notice.cause,
                }
                for notice in self._world.limit_notices(now)
            ],
        }
        if fault is FeedFault.GAP:
            del page["limits"]
        return page

    def _hashprice(self, now: float, fault: FeedFault) -> dict[str, Any]:
        page: dict[str, Any] = {
            "unit": "USD/PH/day",
            "published_at": _iso(now),
            "hashprice": _spoil(self._world.hashprice_per_ph_day, fault),
        }
        if fault is FeedFault.GAP:
            del page["hashprice"]
        return page


def _spoil(value: float, fault: FeedFault) -> float:
    if fault is FeedFault.NAN:
        return math.nan
    return value * 1000.0 if fault is FeedFault.X1000 else value


def _iso(t: float) -> str:
    return datetime.fromtimestamp(t, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
