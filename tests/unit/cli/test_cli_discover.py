"""`mullet discover` over a search of a few lines: what is searched, what is printed, how it exits."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cli_kit import run

from mullet.app.discovery import addresses_of
from mullet.domain.load import Steering
from mullet.domain.telemetry import LoadState
from mullet.ports import DeviceUnreachable, DriverContext, Outcome, Sighting
from mullet.registry import Group, Registry

MINER = Sighting(
    "10.0.1.1", Outcome.FOUND, title="Whatsminer, V2 protocol", make="MicroBT", model="M50S", firmware="20230216",
    identity="02:00", options={"class": "whatsminer_v2"}, steering=Steering.CONTINUOUS, state=LoadState.ACTIVE,
    watts=3273.0, measures_watts=True, limit_watts=3276.0, th_per_s=126.0, asks_password=True,
)  # fmt: skip
POLICY = """
facility: {id: barn, currency: USD, mode: observe}
circuits: [{id: barn-1, rating: 500 kW, unmanaged_max: 0 W}]
economics: {hashprice: 50 USD/PH/d, fallback_price: 60 USD/MWh}
"""


class Searching:
    """A discoverer that sees what it was given to see."""

    sightings: ClassVar[dict[str, Sighting | Exception]] = {}
    built: ClassVar[list[DriverContext]] = []
    searched: ClassVar[list[str]] = []

    def __init__(self, context: DriverContext) -> None:
        if context.options["discover"]["ports"] == "bad":
            raise ValueError("'bad' names no port")
        self.built.append(context)

    async def search(self, addresses: Sequence[str]) -> AsyncIterator[Sighting]:
        for address in reversed(addresses):
            self.searched.append(address)
            found = self.sightings.get(address, Sighting(address, Outcome.SILENT))
            if isinstance(found, Exception):
                raise found
            yield found


@pytest.fixture(autouse=True)
def searching(monkeypatch: pytest.MonkeyPatch) -> type[Searching]:
    real = Registry.load

    def load(registry: Registry, group: Group, name: str) -> Any:
        return Searching if (group, name) == (Group.DISCOVERERS, "asic") else real(registry, group, name)

    monkeypatch.setattr(Registry, "load", load)
    monkeypatch.setattr(Searching, "sightings", {"10.0.1.1": MINER})
    monkeypatch.setattr(Searching, "built", [])
    monkeypatch.setattr(Searching, "searched", [])
    return Searching


def test_what_is_found_is_printed_with_banks_that_check_takes(tmp_path: Path) -> None:
    result = run("discover", "10.0.1.0/29", "--circuit", "barn-1")
    assert result.exit_code == 0
    assert Searching.searched == [f"10.0.1.{number}" for number in range(6, 0, -1)]
    assert "M50S" in result.stdout
    assert "1 miner found, 0 not identified, 0 other, 5 silent" in result.stderr
    policy = tmp_path / "barn.yaml"
    policy.write_text(POLICY + result.stdout[result.stdout.index("banks:") :])
    assert run("check", str(policy)).exit_code == 0


def test_json_holds_what_was_found_and_what_not(searching: type[Searching]) -> None:
    searching.sightings["10.0.1.2"] = Sighting("10.0.1.2", Outcome.UNIDENTIFIED, "brought nothing whole", model="?")
    searching.sightings["10.0.1.3"] = Sighting("10.0.1.3", Outcome.OTHER)
    result = run("discover", "10.0.1.1-4", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 1, "something that answered was not identified"
    assert [item["address"] for item in report["found"]] == ["10.0.1.1"]
    assert report["groups"][0]["full_watts"] == {
        "value": 3276.0, "basis": "limit that the devices report, one", "reported": True,
    }  # fmt: skip
    assert report["unidentified"] == [{"address": "10.0.1.2", "model": "?", "reason": "brought nothing whole"}]
    assert (report["others"], report["silent"]) == (1, 1)
    assert report["seconds"] >= 0.0
    assert report["policy"].startswith("banks:\n")


def test_nothing_found_is_a_no(searching: type[Searching]) -> None:
    searching.sightings.clear()
    result = run("discover", "10.0.1.1-4")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "0 miners found" in result.stderr


def test_a_search_that_fails_is_a_no_with_its_reason(searching: type[Searching]) -> None:
    searching.sightings["10.0.1.3"] = DeviceUnreachable("the search ended before it was done")
    result = run("discover", "10.0.1.1-4")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the search ended before it was done" in result.stderr


def test_credentials_come_from_their_folder_and_are_never_printed(tmp_path: Path) -> None:
    (tmp_path / "site").write_text("hunter2\n")
    (tmp_path / "site").chmod(0o600)
    result = run("discover", "10.0.1.1", "--credential", "vnish=site", "--credentials", str(tmp_path), "--json")
    assert result.exit_code == 0
    (context,) = Searching.built
    assert context.options["discover"]["credentials"] == ["vnish=site"]
    assert context.secret("site") == "hunter2"
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("10.0.0.0/8",), "search it in parts, such as 10.0.0.0/16"),
        (("8.8.8.0/24",), "say --public if its devices are yours"),
        (("10.0.0.1-8.8.8.8",), "runs backwards"),
        (("10.0.1.0/33",), "is no IPv4 network"),
        (("barn",), "a network is written as"),
        (("fe80::/64",), "is no IPv4 network"),
        (("10.0.0.0/16", "10.1.0.0/16"), "search them one after another"),
        (("10.0.1.1", "--ports", "bad"), "names no port"),
        (("10.0.1.1", "--driver", "toaster"), "has no 'toaster'"),
        (("10.0.1.1", "--concurrency", "0"), "--concurrency"),
        ((), "NETWORK"),
    ],
)
def test_bad_input_is_told_with_a_way_out(arguments: tuple[str, ...], words: str) -> None:
    result = run("discover", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert Searching.searched == []


def test_addresses_of_networks_and_ranges() -> None:
    assert addresses_of(["10.0.1.0/30", "10.0.1.2-4", "10.0.2.7"]) == [
        "10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.2.7",
    ]  # fmt: skip
    assert addresses_of(["10.0.1.8/31"]) == ["10.0.1.8", "10.0.1.9"]
    assert addresses_of(["10.0.1.77/32"]) == ["10.0.1.77"]
    assert len(addresses_of(["10.7.0.0/16"])) == 65_534
    assert addresses_of(["1.2.3.4"], public=True) == ["1.2.3.4"]


def test_no_bar_where_nobody_looks() -> None:
    assert "searching" not in run("discover", "10.0.1.1-4").output
