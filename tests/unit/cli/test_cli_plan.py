"""plan with its reasons, its page and what-if, on the shipped policies."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from cli_kit import run

from mullet.cli.load import load
from mullet.cli.plan import full_request
from mullet.cli.plan_page import plan_page
from mullet.cli.plan_svg import layers, nice_ticks
from mullet.cli.what_if import SettingError, changed_facility, changed_request, read_changes, settings_of
from mullet.planning.explain import conditions_of, explain
from mullet.planning.greedy import plan_merit_order
from mullet.planning.guard import guard

AT = 1_751_328_000.0


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.csv"
    hours = [f"2025-07-01T{hour:02d}:00:00Z,{300.0 if 18 <= hour < 20 else 20.0 + hour}" for hour in range(24)]
    path.write_text("\n".join(["start,price_usd_mwh", *hours]))
    return path


def answer(*arguments: str) -> dict[str, Any]:
    result = run("plan", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


class Page(HTMLParser):
    """Checks that what is opened is closed, and keeps what there is to read and what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.fetched: list[str] = []
        self.charts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        if "data-chart" in known:
            self.charts.append(known["data-chart"] or "")
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert page.fetched == []
    assert "@import" not in text
    assert "url(" not in text
    assert "NaN" not in text
    return page


def test_the_plan_says_why(prices: Path) -> None:
    arguments = ("west-texas", "--prices", str(prices), "--set", "circuits.feeder-2.limit=7MW")
    result = run("plan", *arguments)
    told = answer(*arguments)["what_if"]
    assert result.exit_code == 0
    assert re.search(r"feeder-2 binds at 7 MW Tue \d\d:\d\d-18:00, one more MW is worth \d+\.\d USD/h", result.stdout)
    for group in told["explanation"]["groups"]:
        assert f"breaks even at {group['steps'][-1]['break_even_per_mwh']:.2f} USD/MWh" in result.stdout
    assert "the plan earns" in result.stdout
    assert "no plan earns more than" in result.stdout
    assert re.search(r"next change: Tue 18:00: \d+ loads down by [0-9.]+ MW; the price is 300.00 then", result.stdout)
    assert f"{told['difference']['objective']:+,.2f} USD over the horizon" in result.stdout
    assert "planned MW under the limit" in result.stdout
    assert "█" in result.stdout
    assert "What if circuits.feeder-2.limit=7MW" in result.stdout


def test_json_has_the_explanation(prices: Path) -> None:
    told = answer("west-texas", "--prices", str(prices))
    found, first = told["explanation"], told["plan"]["intervals"][0]
    assert found["currency"] == "USD"
    assert found["certificate"]["gap"] == pytest.approx(
        found["certificate"]["bound"] - found["certificate"]["objective"]
    )
    miner = next(group for group in found["groups"] if group["key"].endswith("m60-1a"))
    # 186 TH/s at 50 per PH and day less 2 % for 3,407 W and 2 % of pumps, less what is added to the price.
    expected = 186.0 * 50.0 * 0.98 / 24_000.0 / (3_407.0 * 1.02) * 1e6 - first["adder_per_mwh"]
    assert miner["steps"][0]["break_even_per_mwh"] == pytest.approx(expected)
    assert len(found["stretches"]) == len(told["plan"]["intervals"])


def test_the_page_is_whole_and_holds_the_numbers(prices: Path, tmp_path: Path) -> None:
    target = tmp_path / "plan.html"
    told = answer("west-texas", "--prices", str(prices), "--html", str(target))
    text = target.read_text()
    page = parsed(text)
    read = " ".join(page.text)
    assert page.charts[:2] == ["price", "power"]
    for group in told["plan"]["groups"]:
        assert group["key"] in read
    assert f"{told['explanation']['certificate']['objective']:,.0f} USD" in read
    assert f"{told['explanation']['groups'][0]['steps'][0]['break_even_per_mwh']:,.2f}" in read
    steps = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])["steps"]  # type: ignore[index]
    assert [step["start"] for step in steps] == [item["start"] for item in told["plan"]["intervals"]]
    assert "price 300.00 USD/MWh" in steps[-6]["text"] + steps[-5]["text"]


def test_the_page_of_a_change_shows_both_and_what_binds(prices: Path, tmp_path: Path) -> None:
    target = tmp_path / "plan.html"
    arguments = ("--prices", str(prices), "--set", "circuits.feeder-2.limit=7MW", "--html", str(target))
    told = answer("west-texas", *arguments)["what_if"]
    page = parsed(target.read_text())
    read = " ".join(page.text)
    assert page.charts == ["price", "power", "binding"]
    assert "circuits.feeder-2.limit = 7MW" in read
    assert f"{told['difference']['objective']:+,.2f} USD" in read
    assert 'class="before"' in target.read_text()


def test_a_page_that_cannot_be_written_is_an_error(prices: Path, tmp_path: Path) -> None:
    result = run("plan", "west-texas", "--prices", str(prices), "--html", str(tmp_path / "none" / "plan.html"))
    assert result.exit_code == 2
    assert "No such file" in result.stderr


def test_what_stands_in_the_policy_cannot_break_the_page() -> None:
    facility = load("west-texas").facility
    request = full_request(facility, None, AT)
    why = replace(explain(plan_merit_order(request), facility, conditions_of(request)), facility="</script><b>&")
    assert "</script><b>" not in plan_page(why, why, None, ("</style><i>",))
    parsed(plan_page(why))


def test_what_if_is_one_plan_less_the_other(prices: Path) -> None:
    told = answer("west-texas", "--prices", str(prices), "--set", "prices.adder=25", "--set", "circuits.poi.limit=12MW")
    changed = told["what_if"]
    difference = changed["difference"]
    assert difference["objective"] == pytest.approx(changed["plan"]["objective"] - told["plan"]["objective"])
    assert difference["objective"] < 0.0
    assert [(change["name"], change["value"]) for change in changed["changes"]] == [
        ("prices.adder", 25.0),
        ("circuits.poi.limit", 12e6),
    ]

    def mean(explanation: dict[str, Any]) -> float:
        parts = [(s["drawn_watts"] * (s["end"] - s["start"]), s["end"] - s["start"]) for s in explanation["stretches"]]
        return sum(watts for watts, _ in parts) / sum(seconds for _, seconds in parts)

    assert max(stretch["drawn_watts"] for stretch in changed["explanation"]["stretches"]) <= 12e6 + 1.0
    assert max(stretch["drawn_watts"] for stretch in told["explanation"]["stretches"]) > 12e6
    assert difference["mean_watts"] == pytest.approx(mean(changed["explanation"]) - mean(told["explanation"]))
    # What groups draw less of, and what follows them, is what the connection draws less.
    assert sum(difference["groups"].values()) == pytest.approx(difference["mean_watts"], rel=0.03)


def test_a_change_of_price_moves_the_price_that_mining_stops_at(prices: Path) -> None:
    def lowest(*changes: str) -> tuple[float, float]:
        told = answer("west-texas", "--prices", str(prices), *changes)
        told = told.get("what_if", told)
        least = min(step["break_even_per_mwh"] for group in told["explanation"]["groups"] for step in group["steps"])
        return least, told["plan"]["intervals"][0]["adder_per_mwh"]

    usual, adder = lowest()
    assert lowest("--set", "prices.adder=19") == pytest.approx((usual - 10.0, adder + 10.0))
    assert lowest("--set", "hashprice=25")[0] == pytest.approx((usual + adder) / 2.0 - adder)
    shifted = answer("west-texas", "--prices", str(prices), "--set", "prices.shift=-10", "--set", "prices.scale=2")
    before, after = (item["plan"]["intervals"][0]["price_per_mwh"] for item in (shifted, shifted["what_if"]))
    assert after == pytest.approx((before - 10.0) * 2.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("circuits.poi.limt=18MW", ("circuits.poi.limt", "circuits.poi.limit")),
        ("circuits.feeder1.limit=18MW", ("circuits.feeder1.limit", "circuits.feeder-1.limit")),
        ("price.adder=5", ("price.adder", "prices.adder")),
        ("qqq=5", ("qqq", "--set help")),
        ("circuits.poi.limit=18", ("circuits.poi.limit=18", "has no unit")),
        ("circuits.poi.limit=18GWh", ("circuits.poi.limit=18GWh", "'GWh' is no unit of power", "MW")),
        ("circuits.poi.limit=-1MW", ("circuits.poi.limit=-1MW", "too low")),
        ("prices.adder=5EUR/MWh", ("prices.adder=5EUR/MWh", "USD/MWh")),
        ("prices.scale=much", ("prices.scale=much", "no number")),
        ("prices.adder=nan", ("prices.adder=nan",)),
        ("economics.pool_fee=120%", ("economics.pool_fee=120%", "too high")),
        ("banks.m60-1a.available=1201", ("banks.m60-1a.available=1201", "too high", "1200")),
        ("banks.m60-1a.available=1.5", ("banks.m60-1a.available=1.5", "whole number")),
        ("prices.adder", ("prices.adder", "NAME=VALUE")),
    ],
)
def test_a_change_that_cannot_be_is_named(change: str, words: tuple[str, ...]) -> None:
    result = run("plan", "west-texas", "--set", change)
    assert result.exit_code == 2
    for word in words:
        assert word in result.stderr
    assert result.stdout == ""


def test_a_change_twice_is_an_error() -> None:
    result = run("plan", "west-texas", "--set", "hashprice=40", "--set", "hashprice=41")
    assert (result.exit_code, "given twice" in result.stderr) == (2, True)


@pytest.mark.parametrize("name", ["demo", "west-texas", "nordic"])
def test_everything_that_may_be_set_can_be_and_makes_a_plan(name: str) -> None:
    facility = load(name).facility
    known = settings_of(facility)
    assert len({setting.key for setting in known}) == len(known)
    listed = run("plan", name, "--set", "help").stdout
    text = run("plan", "--help").stdout
    ids = {*facility.circuit_by_id, *facility.service_by_id, *facility.banks}
    for setting in known:
        assert setting.key in listed
        parts = setting.key.split(".")
        general = ".".join("ID" if part in ids and number == 1 else part for number, part in enumerate(parts))
        assert general in text
        assert read_changes(facility, [f"{setting.key}={setting.takes}"])
        # No shipped policy has a 3 there.
        value = re.sub(r"-?[0-9.]+", "3", setting.takes)
        (change,) = read_changes(facility, [f"{setting.key}={value}"])
        changed = changed_facility(facility, [change])
        request = changed_request(full_request(changed, None, AT), [change])
        assert (changed, request) != (facility, full_request(facility, None, AT))
        if setting.on_request is not None or setting.key.startswith(("economics", "prices")):
            assert guard(plan_merit_order(request), request) == ()


def test_fewer_loads_at_hand_are_planned() -> None:
    facility = load("west-texas").facility
    (change,) = read_changes(facility, ["banks.m60-1a.available=7"])
    request = changed_request(full_request(facility, None, AT), [change])
    plan = plan_merit_order(request)
    assert {sum(interval.counts["g001:m60-1a"]) for interval in plan.intervals} == {7}


def test_a_change_without_a_name_is_refused_in_code_too() -> None:
    with pytest.raises(SettingError, match="NAME=VALUE"):
        read_changes(load("demo").facility, [""])


def test_axes_have_round_numbers_that_cover() -> None:
    assert nice_ticks(0.0, 20.0, 5) == [0.0, 5.0, 10.0, 15.0, 20.0]
    assert nice_ticks(-33.0, 262.0, 5) == [-100.0, 0.0, 100.0, 200.0, 300.0]
    assert len(set(nice_ticks(0.0, 0.0, 5))) > 1


def test_the_stack_adds_up_to_what_is_planned() -> None:
    facility = load("demo").facility
    request = full_request(facility, None, AT)
    why = explain(plan_merit_order(request), facility, conditions_of(request))
    for number, stretch in enumerate(why.stretches):
        assert sum(layer.watts[number] for layer in layers(why)) == pytest.approx(stretch.drawn_watts)
