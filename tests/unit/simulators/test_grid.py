"""The simulated grid: what its pages hold, how its feeds fail, and the prices it can publish."""

from __future__ import annotations

import gzip
import math
from collections.abc import AsyncIterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from mullet_simulators.grid import CompressedCalendar, CsvPrices, ErcotLikePrices, GridService
from mullet_simulators.plant import Plant
from mullet_simulators.scenario import load_scenario
from mullet_simulators.truth import TruthLog
from mullet_simulators.world import LimitNotice

SUBNET = 143
SCENARIO: dict[str, Any] = {
    "cycle_s": 300,
    "circuits": [{"id": "poi", "limit_w": 100_000}],
    "price": {
        "base_per_mwh": 38.0,
        "interval_s": 30,
        "published_ahead": 8,
        "spikes": [{"start_s": 100, "end_s": 160, "price_per_mwh": 900.0}],
    },
}


class Bench:
    """A grid on its socket, whose time moves by hand."""

    def __init__(self) -> None:
        self.t = 1_760_000_000.0
        scenario = load_scenario(SCENARIO)
        self.plant = Plant(scenario, lambda: self.t, TruthLog(lambda: self.t))
        self.grid = GridService(self.plant, scenario, SUBNET, port=0)
        self.client = httpx.AsyncClient(timeout=2.0, trust_env=False)

    async def get(self, feed: str) -> dict[str, Any]:
        answer = await self.client.get(self.grid.addresses()["grid"][feed])
        answer.raise_for_status()
        page = answer.json()
        assert isinstance(page, dict)
        return page


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    await bench.grid.start()
    try:
        yield bench
    finally:
        await bench.client.aclose()
        await bench.grid.stop()


def seconds(text: str) -> float:
    assert text.endswith("Z")
    return datetime.fromisoformat(text).timestamp()


async def test_the_price_page_holds_now_and_what_is_ahead_without_holes(bench: Bench) -> None:
    bench.t += 95
    page = await bench.get("price")
    assert (page["currency"], page["unit"]) == ("USD", "USD/MWh")
    assert seconds(page["published_at"]) == pytest.approx(bench.t, abs=0.002)
    intervals = page["intervals"]
    assert seconds(intervals[0]["start"]) <= bench.t < seconds(intervals[0]["end"])
    assert all(a["end"] == b["start"] for a, b in pairwise(intervals))
    assert intervals[0]["price"] == 38.0
    assert any(i["price"] == 900.0 for i in intervals)


async def test_a_limit_is_listed_from_its_announcement_to_its_end(bench: Bench) -> None:
    assert (await bench.get("limits"))["limits"] == []
    t = bench.t
    bench.plant.world.announce(LimitNotice("cut-1", "poi", 50_000.0, t, t + 10, t + 20, "demand_response"))
    (limit,) = (await bench.get("limits"))["limits"]
    assert (limit["id"], limit["circuit"], limit["limit_w"]) == ("cut-1", "poi", 50_000.0)
    assert (seconds(limit["start"]), seconds(limit["end"])) == (t + 10, t + 20)
    assert limit["cause"] == "demand_response"
    bench.t = t + 15
    assert len((await bench.get("limits"))["limits"]) == 1
    bench.t = t + 20
    assert (await bench.get("limits"))["limits"] == []


async def test_the_hashprice_page_has_its_unit(bench: Bench) -> None:
    page = await bench.get("hashprice")
    assert (page["unit"], page["hashprice"]) == ("USD/PH/day", 50.0)


async def test_each_fault_shows_on_its_own_feed_only(bench: Bench) -> None:
    url = bench.grid.addresses()["grid"]["price"]
    bench.grid.set_fault("/price", "html")
    assert "<html>" in (await bench.client.get(url)).text
    bench.grid.set_fault("/price", "500")
    assert (await bench.client.get(url)).status_code == 500
    bench.grid.set_fault("/price", "nan")
    assert all(math.isnan(i["price"]) for i in (await bench.get("price"))["intervals"])
    bench.grid.set_fault("/price", "x1000")
    assert (await bench.get("price"))["intervals"][0]["price"] == 38_000.0
    bench.grid.set_fault("/price", "gap")
    assert all(seconds(i["start"]) > bench.t for i in (await bench.get("price"))["intervals"])
    bench.grid.set_fault("/price", "hang")
    with pytest.raises(httpx.ReadTimeout):
        await bench.client.get(url, timeout=0.2)
    assert (await bench.get("hashprice"))["hashprice"] == 50.0
    bench.grid.set_fault("/price", "ok")
    assert (await bench.get("price"))["intervals"][0]["price"] == 38.0


async def test_a_stale_feed_keeps_its_last_page(bench: Bench) -> None:
    bench.grid.set_fault("/price", "stale")
    before = await bench.get("price")
    bench.t += 120
    assert await bench.get("price") == before
    bench.grid.set_fault("/price", "ok")
    assert (await bench.get("price"))["intervals"][0]["price"] == 900.0


async def test_gaps_and_nonsense_on_the_other_feeds(bench: Bench) -> None:
    bench.grid.set_fault("/hashprice", "gap")
    assert "hashprice" not in await bench.get("hashprice")
    bench.grid.set_fault("/hashprice", "x1000")
    assert (await bench.get("hashprice"))["hashprice"] == 50_000.0
    bench.grid.set_fault("/limits", "gap")
    assert "limits" not in await bench.get("limits")


async def test_unknown_feeds_and_faults_are_refused(bench: Bench) -> None:
    with pytest.raises(KeyError):
        bench.grid.set_fault("/weather", "html")
    with pytest.raises(ValueError, match="melted"):
        bench.grid.set_fault("/price", "melted")


# -- series


def test_ercot_like_prices_have_spikes_negative_hours_and_a_sober_median() -> None:
    series = ErcotLikePrices(7)
    prices = sorted(series.price(k) for k in range(288 * 365))
    assert 15 < prices[len(prices) // 2] < 40
    assert 0.02 < sum(p < 0 for p in prices) / len(prices) < 0.15
    assert prices[0] > -251
    assert 1000 < prices[-1] <= 5000
    assert sum(p > 1000 for p in prices) / len(prices) < 0.01


def test_the_same_seed_gives_the_same_prices_however_they_are_asked_for() -> None:
    one, other = ErcotLikePrices(3), ErcotLikePrices(3)
    late = one.price(500)
    assert [one.price(k) for k in range(10)] == [other.price(k) for k in range(10)]
    assert other.price(500) == late
    assert ErcotLikePrices(4).price(500) != late
    with pytest.raises(IndexError):
        one.price(-1)


def test_a_compressed_calendar_runs_faster_and_leaves_no_holes() -> None:
    calendar = CompressedCalendar(ErcotLikePrices(1), started_at=1000.0, epoch=0.0, factor=60.0, published_ahead=5)
    intervals = calendar.price_intervals(1007.0)
    assert len(intervals) == 6
    assert intervals[0].start <= 1007.0 < intervals[0].end
    assert all(i.end - i.start == pytest.approx(5.0) for i in intervals)
    assert all(a.end == pytest.approx(b.start) for a, b in pairwise(intervals))


CSV = (
    "ts_utc,price_usd_mwh\n2024-05-08T00:00:00Z,20.5\n2024-05-08T00:15:00Z,-3\n"
    "2024-05-08T00:30:00Z,\n2024-05-08T00:45:00Z,4964.84\n2024-05-08T01:00:00Z,21\n"
)


@pytest.mark.parametrize("packed", [False, True])
def test_a_recorded_series_is_replayed_and_its_gaps_stay_gaps(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("prices.csv.gz" if packed else "prices.csv")
    path.write_bytes(gzip.compress(CSV.encode()) if packed else CSV.encode())
    prices = CsvPrices(path)
    found = prices.between(prices.start, prices.start + 3600)
    assert [i.price_per_mwh for i in found] == [20.5, -3.0, 4964.84]
    assert found[2].start - found[1].end == 900.0
    assert [i.price_per_mwh for i in prices.between(prices.start + 1000, prices.start + 1200)] == [-3.0]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("ts_utc,load_mw\n2024-05-08T00:00:00Z,20\n", "no column"),
        (CSV.replace("-3", "abc"), "prices.csv:3"),
        (CSV.replace("-3", "nan"), "prices.csv:3"),
        (CSV.replace("T00:15", "T00:00"), "prices.csv:3"),
        ("ts_utc,price_usd_mwh\n2024-05-08T00:00:00Z,20\n", "fewer than two"),
    ],
)
def test_a_recording_that_is_wrong_is_refused_with_its_line(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=match):
        CsvPrices(path)
