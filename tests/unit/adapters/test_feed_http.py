"""Price, limit and hashprice feeds against servers that answer well and badly."""

import asyncio
import contextlib
import json
from typing import Any

import pytest
from adapters_kit import Hands, Web, no_secrets
from hypothesis import given
from hypothesis import strategies as st

from mullet.adapters.feeds.hashprice import HttpHashpriceFeed
from mullet.adapters.feeds.http import HttpSource, JsonFields
from mullet.adapters.feeds.limits import HttpLimitsFeed
from mullet.adapters.feeds.price import HttpPriceFeed
from mullet.domain.feeds import Cause, Curtailment, PriceCurve, PriceInterval
from mullet.ports import DriverContext, Feed, FeedError

T0 = 1_780_000_000.0  # 2026-05-28T20:26:40Z


def context(feed_id: str, secret: str | None = None, **options: Any) -> DriverContext:
    return DriverContext({feed_id: options}, (lambda name: secret) if secret else no_secrets, Hands(T0))


def price_feed(web: Web, **options: Any) -> HttpPriceFeed:
    return HttpPriceFeed(context("price", **{"url": web.url, "currency": "USD"} | options), "price")


def page(*rows: tuple[str, str, Any], **more: Any) -> str:
    intervals = [{"start": start, "end": end, "price": price} for start, end, price in rows]
    top = {"currency": "USD", "unit": "USD/MWh", "published_at": "2026-05-28T20:25:00Z", "intervals": intervals}
    return json.dumps(top | more)


FIRST = ("2026-05-28T20:25:00Z", "2026-05-28T20:30:00Z", 38.0)
SECOND = ("2026-05-28T20:30:00Z", "2026-05-28T20:35:00Z", -500)
LATER = ("2026-05-28T22:40:00+02:00", "2026-05-28T20:45:00Z", 5_000.0)
START = T0 - 100.0


async def test_prices_come_in_order_with_gaps_and_extremes(web: Web) -> None:
    web.page(page(LATER, SECOND, FIRST))
    feed: Feed = price_feed(web)
    expected = PriceCurve(
        (
            PriceInterval(START, START + 300, 38.0),
            PriceInterval(START + 300, START + 600, -500.0),
            PriceInterval(START + 900, START + 1_200, 5_000.0),
        )
    )
    assert await feed.fetch(5.0) == expected
    assert expected.at(START + 700) is None
    web.page(page(FIRST, unit="USD/kWh"))
    assert await feed.fetch(5.0) == PriceCurve((PriceInterval(START, START + 300, 38_000.0),))
    await feed.close()
    await feed.close()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (page(FIRST, FIRST), "row 2: repeats row 1"),
        (page(FIRST, ("2026-05-28T20:29:59Z", "2026-05-28T20:35:00Z", 1.0)), "row 2: overlaps row 1"),
        (page(SECOND, LATER, ("2026-05-28T20:20:00Z", "2026-05-28T21:00:00Z", 1.0)), "row 3: overlaps row 1"),
        (page(("2026-05-28T20:25:00", "2026-05-28T20:30:00Z", 1.0)), "row 1: 'start' has no zone"),
        (page(FIRST, ("yesterday", "2026-05-28T20:30:00Z", 1.0)), "row 2: 'start' is no instant"),
        (page(("2026-05-28T20:30:00Z", "2026-05-28T20:30:00Z", 1.0)), "row 1: does not end after it starts"),
        (page(FIRST, ("2026-05-28T20:30:00Z", "2026-05-28T20:35:00Z", "38")), "row 2: 'price' must be a number"),
        (page(FIRST, ("2026-05-28T20:30:00Z", "2026-05-28T20:35:00Z", None)), "row 2: 'price' must be a number"),
        (page(FIRST, ("2026-05-28T20:30:00Z", "2026-05-28T20:35:00Z", True)), "row 2: 'price' must be a number"),
        (page(FIRST, ("2026-05-28T20:30:00Z", "2026-05-28T20:35:00Z", float("nan"))), "NaN is no number"),
        (page(FIRST).replace("38.0", "1e999"), "row 1: 'price' is not a finite number"),
        (page(FIRST).replace("38.0", "1" + "0" * 400), "row 1: 'price' is not a finite number"),
        (page(FIRST, currency="EUR"), "prices are in 'EUR', the facility reckons in USD"),
        (page(FIRST, unit="EUR/MWh"), "no unit of energy price"),
        (page(FIRST, unit="USD"), "no unit of energy price"),
        (page(FIRST, unit=None), "'unit' must be a text"),
        (page(), "no prices"),
        (page(intervals={"a": 1}), "'intervals' must be a list"),
        (page(intervals=[1]), "row 1: expected an object"),
        (page(FIRST, published_at="soon"), "'published_at' is no instant"),
        ("[]", "expected an object"),
        ("", "not JSON"),
        ("[" * 200_000, "not JSON"),
        ("\ufeff <!DOCTYPE html><html>Sign in</html>", "a web page"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
async def test_a_batch_is_good_or_refused_as_a_whole(web: Web, body: str | bytes, reason: str) -> None:
    web.page(body)
    feed = price_feed(web)
    with pytest.raises(FeedError, match=r"^feed price: ") as caught:
        await feed.fetch(5.0)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400
    await feed.close()


async def test_bad_answers_are_feed_errors_and_the_next_good_one_is_taken(web: Web) -> None:
    feed = price_feed(web)
    good = page(FIRST)
    for status, headers in [
        ("500 Internal Server Error", ()),
        ("404 Not Found", ()),
        ("204 No Content", ()),
        ("429 Too Many Requests", ("Retry-After: 60",)),
        ("200 OK", ("Content-Encoding: gzip",)),
    ]:
        web.page(good, status, *headers)
        with pytest.raises(FeedError, match=r"status|compressed"):
            await feed.fetch(5.0)
    count = len(web.requests)
    web.page("", "302 Found", f"Location: {web.url}/elsewhere")
    with pytest.raises(FeedError, match="redirect"):
        await feed.fetch(5.0)
    assert len(web.requests) == count + 1, "it is not followed"
    for answer in (b"\x16\x03\x01 garbage\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"):
        web.answer = answer.replace(b"Content-Length", b"content-length")
        with pytest.raises(FeedError):
            await feed.fetch(1.0)
    web.page(good)
    assert len((await feed.fetch(5.0)).intervals) == 1
    await feed.close()


async def test_a_too_large_answer_is_refused_before_it_is_read_to_the_end(web: Web) -> None:
    web.page(b" " * 5_000_001)
    feed = price_feed(web)
    with pytest.raises(FeedError, match="larger than 5000000"):
        await feed.fetch(5.0)
    web.page(page(FIRST) + " " * 4_000_000)
    assert len((await feed.fetch(5.0)).intervals) == 1
    await feed.close()


async def test_silence_ends_at_the_shorter_of_deadline_and_timeout(web: Web) -> None:
    web.answer = None
    loop = asyncio.get_running_loop()
    for deadline_s, timeout_s in ((0.1, 5.0), (5.0, 0.1)):
        feed = price_feed(web, timeout_s=timeout_s)
        began = loop.time()
        with pytest.raises(FeedError, match=r"no whole answer within 0\.1 s"):
            await feed.fetch(deadline_s)
        assert loop.time() - began < 2.0
        await feed.close()


async def test_nobody_there(web: Web) -> None:
    feed = HttpPriceFeed(context("price", url="http://127.0.0.1:9/price", currency="USD"), "price")
    with pytest.raises(FeedError, match="feed price"):
        await feed.fetch(2.0)
    await feed.close()


async def test_a_credential_is_sent_and_a_missing_one_is_said(web: Web) -> None:
    web.page(page(FIRST))
    with_token = context("price", "c4nary", url=web.url, currency="USD", credential="price-token")
    feed = HttpPriceFeed(with_token, "price")
    await feed.fetch(5.0)
    await feed.close()
    assert "authorization: bearer c4nary" in web.requests[-1].lower()
    count = len(web.requests)
    feed = price_feed(web, credential="price-token")
    with pytest.raises(FeedError, match="'price-token' is not there"):
        await feed.fetch(5.0)
    await feed.close()
    assert len(web.requests) == count


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"currency": "USD"}, "'url' is missing"),
        ({"url": "http://127.0.0.1/"}, "'currency' is missing"),
        ({"url": "ftp://127.0.0.1/", "currency": "USD"}, "http://"),
        ({"url": "http://127.0.0.1/", "currency": "USD", "timeout_s": "5"}, "must be float"),
        ({"url": "http://127.0.0.1/", "currency": "USD", "timeout_s": 0}, "above 0"),
        ({"url": "http://127.0.0.1/", "currency": "USD", "colour": "red"}, "unknown option 'colour'"),
    ],
)
def test_wrong_options_are_refused_when_built(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        HttpPriceFeed(context("price", **options), "price")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "limits"]), inner),
    max_leaves=8,
)


@given(value=json_values, name=st.sampled_from(["a", "b", "limits"]))
def test_any_json_gives_values_or_a_feed_error(value: Any, name: str) -> None:
    source = HttpSource(
        context("f"), "f", {"url": "http://x", "timeout_s": 1.0, "credential": "", "proxy": ""}, "application/json"
    )
    for read in (JsonFields.text, JsonFields.number, JsonFields.instant, JsonFields.rows):
        with contextlib.suppress(FeedError):
            read(JsonFields.parse(source, json.dumps(value)), name)


async def test_hashprice(web: Web) -> None:
    feed = HttpHashpriceFeed(context("hashprice", url=web.url, currency="USD"), "hashprice")
    good = {"unit": "USD/PH/day", "published_at": "2026-05-28T20:25:00Z", "hashprice": 50}
    web.page(json.dumps(good))
    assert await feed.fetch(5.0) == 50.0
    web.page(json.dumps(good | {"unit": "USD/TH/d", "hashprice": 0.05}))
    assert await feed.fetch(5.0) == pytest.approx(50.0)
    for wrong in (
        {"hashprice": 0},
        {"hashprice": -1},
        {"hashprice": "50"},
        {"unit": "BTC/PH/day"},
        {"unit": "USD/MWh"},
    ):
        web.page(json.dumps(good | wrong))
        with pytest.raises(FeedError, match="feed hashprice"):
            await feed.fetch(5.0)
    await feed.close()


CUT = {
    "id": "cut-1",
    "circuit": "feeder-b",
    "limit_w": 230_000,
    "start": "2026-05-28T20:30:00Z",
    "end": "2026-05-28T21:30:00Z",
    "cause": "demand_response",
}


def limits(*rows: dict[str, Any]) -> str:
    return json.dumps({"published_at": "2026-05-28T20:28:40Z", "limits": rows})


async def test_limits_keep_the_moment_they_were_first_seen(web: Web) -> None:
    feeds = context("limits", url=web.url, priority=5)
    clock = feeds.clock
    assert isinstance(clock, Hands)
    feed = HttpLimitsFeed(feeds, "limits")
    standing = CUT | {"id": "old", "start": "2026-05-28T20:00:00Z"}
    web.page(limits(standing))
    (old,) = await feed.fetch(5.0)
    assert old.announced_at == old.start, "it stood before this process: it was announced when it began"
    clock.at += 60.0
    web.page(limits(standing, CUT))
    again, cut = await feed.fetch(5.0)
    assert again == old
    assert cut == Curtailment(
        "cut-1", "feeder-b", 230_000.0, START + 300, START + 3_900, Cause.DEMAND_RESPONSE, T0 + 60.0, 5
    )
    clock.at += 60.0
    web.page(limits(CUT | {"end": "2026-05-28T22:30:00Z"}))
    (longer,) = await feed.fetch(5.0)
    assert longer.announced_at == T0 + 60.0
    web.page(limits(CUT | {"limit_w": 100_000.0}))
    (deeper,) = await feed.fetch(5.0)
    assert deeper.announced_at == T0 + 120.0, "a deeper cut is news"
    web.page(limits())
    assert await feed.fetch(5.0) == ()
    clock.at += 61.0
    with pytest.raises(FeedError, match="its source stands still"):
        await feed.fetch(5.0)
    await feed.close()


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([CUT, CUT], "row 2: repeats the id 'cut-1'"),
        ([CUT | {"cause": "fun"}], "row 1: unknown cause 'fun'"),
        ([CUT | {"limit_w": -1}], "row 1: limit_w -1 is below 0"),
        ([CUT | {"limit_w": None}], "row 1: 'limit_w' must be a number"),
        ([CUT | {"end": CUT["start"]}], "row 1: does not end after"),
        ([CUT | {"start": "2026-05-28T20:30:00"}], "row 1: 'start' has no zone"),
        ([CUT | {"circuit": ""}], "row 1: 'circuit' must be a text"),
    ],
)
async def test_wrong_limits_are_refused(web: Web, rows: list[dict[str, Any]], reason: str) -> None:
    web.page(limits(*rows))
    feed = HttpLimitsFeed(context("limits", url=web.url), "limits")
    with pytest.raises(FeedError) as caught:
        await feed.fetch(5.0)
    assert reason in str(caught.value)
    await feed.close()
