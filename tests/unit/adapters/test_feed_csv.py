import gzip
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from adapters_kit import Hands, no_secrets

from mullet.adapters.feeds.csv import CsvPriceFeed, read_series
from mullet.domain.feeds import PriceInterval
from mullet.ports import DriverContext, Feed, FeedError

T0 = 1_780_000_200.0  # 2026-05-28T20:30:00Z
HOURS = "ts_utc,hub_usd_mwh\n2026-05-28T19:30:00Z,10\n2026-05-28T20:30:00Z,-20.5\n2026-05-28T22:30:00Z,30\n"


def feed_of(path: Path, clock: Hands | None = None, **options: Any) -> CsvPriceFeed:
    full = {"path": str(path), "currency": "USD"} | options
    return CsvPriceFeed(DriverContext({"price": full}, no_secrets, clock or Hands(T0)), "price")


async def test_a_gap_stays_a_gap_and_the_last_value_holds_one_step(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(HOURS)
    feed: Feed = feed_of(path)
    curve = await feed.fetch(5.0)
    await feed.close()
    assert curve.intervals == (
        PriceInterval(T0 - 3_600, T0, 10.0),
        PriceInterval(T0, T0 + 3_600, -20.5),
        PriceInterval(T0 + 7_200, T0 + 10_800, 30.0),
    )
    assert curve.at(T0 + 5_000) is None


async def test_a_column_is_chosen_by_name_and_its_unit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("t,load_mw,price_eur_kwh\n2026-05-28T22:30:00+02:00,7,\n2026-05-28T20:35:00Z,7,0.1\n")
    curve = await feed_of(path, column="price_eur_kwh", currency="EUR").fetch(5.0)
    assert curve.intervals == (PriceInterval(T0 + 300, T0 + 600, 100.0),)
    with pytest.raises(FeedError, match="several columns"):
        await feed_of(path).fetch(5.0)
    with pytest.raises(FeedError, match="no column 'x'; there are load_mw, price_eur_kwh"):
        await feed_of(path, column="x").fetch(5.0)
    with pytest.raises(FeedError, match="does not name its unit"):
        await feed_of(path, column="load_mw").fetch(5.0)
    with pytest.raises(FeedError, match="prices are in EUR, the facility reckons in USD"):
        await feed_of(path, column="price_eur_kwh").fetch(5.0)


async def test_a_replay_lays_the_past_on_now_and_moves_on(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("t,p_usd_mwh\n" + "".join(f"2024-01-01T{hour:02d}:00:00Z,{hour}\n" for hour in range(24)))
    clock = Hands(T0 + 0.25)
    feed = feed_of(path, clock, replay_from="2024-01-01T10:30:00Z", ahead_s=7_200.0)
    curve = await feed.fetch(5.0)
    assert curve.at(clock.at) == 10.0
    assert curve.at(clock.at + 1_900.0) == 11.0
    assert curve.intervals[-1].price_per_mwh == 12.0
    clock.at += 3_600.0
    assert (await feed.fetch(5.0)).at(clock.at) == 11.0
    clock.at += 86_400.0
    with pytest.raises(FeedError, match="no price around now"):
        await feed.fetch(5.0)


async def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(HOURS)
    feed = feed_of(path)
    assert (await feed.fetch(5.0)).at(T0) == -20.5
    path.write_text(HOURS.replace("-20.5", "99.25"))
    assert (await feed.fetch(5.0)).at(T0) == 99.25
    path.unlink()
    with pytest.raises(FeedError, match="No such file"):
        await feed.fetch(5.0)


def test_intervals_that_jitter_by_seconds_leave_no_gap(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("t,p_usd_mwh\n" + "".join(f"2026-05-28T20:{m:02d}:{m % 7:02d}Z,{m}\n" for m in range(0, 60, 5)))
    intervals = list(read_series(path).intervals())
    assert all(first[1] == second[0] for first, second in pairwise(intervals))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the header needs"),
        ("t\n2026-05-28T20:30:00Z\n", "the header needs"),
        ("t,p_usd_mwh\n", "no values"),
        ("t,p_usd_mwh\n2026-05-28T20:30:00Z,\n", "no values"),
        ("t,p_usd_mwh\n2026-05-28T20:30:00,1\n", "row 1: '2026-05-28T20:30:00' has no zone"),
        ("t,p_usd_mwh\n2026-05-28T20:30:00Z,1\nsoon,1\n", "row 2: 'soon' is no instant"),
        ("t,p_usd_mwh\n2026-05-28T20:30:00Z,1\n2026-05-28T20:30:00Z,1\n", "row 2: repeats"),
        ("t,p_usd_mwh\n2026-05-28T20:30:00Z,1\n2026-05-28T20:00:00Z,1\n", "row 2: lies before"),
        ("t,p_usd_mwh\n2026-05-28T20:30:00Z,nan\n", "row 1: 'nan' is not finite"),
        ("t,p_usd_mwh\n2026-05-28T20:30:00Z,1e999\n", "row 1: '1e999' is not finite"),
        ('t,p_usd_mwh\n2026-05-28T20:30:00Z,"1,5"\n', "row 1: '1,5' is no number"),
        ("t,p_usd_mwh\n2026-05-28T20:30:00Z,1,2\n", "row 1: 3 cells"),
        ("<html>\n</html>\n", "the header needs"),
    ],
)
def test_a_wrong_file_is_refused_with_its_row(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(text)
    with pytest.raises(FeedError) as caught:
        read_series(path)
    assert reason in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x1f\x8b not gzip", b't,p\n"unclosed'])
def test_bytes_that_are_no_text_are_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("prices.csv", "prices.csv.gz"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(FeedError, match="prices"):
            read_series(path)
