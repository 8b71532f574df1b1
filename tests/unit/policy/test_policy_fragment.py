"""From sightings to banks: how they are grouped, what their figures rest on, and that a policy takes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_kit import KNOWN, load
from ruamel.yaml import YAML

from mullet.domain.load import Steering
from mullet.domain.telemetry import LoadState
from mullet.policy import load_policy
from mullet.policy.fragment import Bank, banks_of, fold, fragment
from mullet.policy.quantities import expand_range
from mullet.ports import Outcome, Sighting

WHATSMINER = Sighting(
    "10.0.1.1", Outcome.FOUND, title="Whatsminer, V2 protocol", make="MicroBT", model="M50S_VH50", firmware="20230216",
    identity="02:00", options={"class": "whatsminer_v2"}, steering=Steering.CONTINUOUS, state=LoadState.ACTIVE,
    watts=3273.0, measures_watts=True, limit_watts=3276.0, th_per_s=126.04, asks_password=True,
)  # fmt: skip
ANTMINER = Sighting(
    "10.0.2.1", Outcome.FOUND, title="Antminer, stock firmware", make="Bitmain", model="Antminer S19",
    options={"class": "antminer_modern", "web_port": 8080}, steering=Steering.ON_OFF, state=LoadState.ACTIVE,
    th_per_s=95.2, nameplate_watts=3250.0, nameplate_th_per_s=95.0, default_password=True, asks_password=True,
)  # fmt: skip
POLICY = """
facility: {id: barn, currency: USD, mode: observe}
circuits: [{id: poi, rating: 500 kW, unmanaged_max: 0 W}]
economics: {hashprice: 50 USD/PH/d, fallback_price: 60 USD/MWh}
"""


def at(sighting: Sighting, first: int, count: int, **changes: Any) -> list[Sighting]:
    stem = sighting.address.rpartition(".")[0]
    return [replace(sighting, address=f"{stem}.{number}", **changes) for number in range(first, first + count)]


def only(sightings: list[Sighting]) -> Bank:
    (bank,) = banks_of(sightings)
    return bank


def test_devices_of_one_model_firmware_and_access_make_a_bank() -> None:
    locked = at(ANTMINER, 31, 2, default_password=False, th_per_s=None, state=None)
    banks = banks_of([*at(WHATSMINER, 1, 3), *at(ANTMINER, 1, 4), *locked, *at(WHATSMINER, 5, 1, firmware="20230803")])
    assert [(bank.id, bank.count, bank.running, bank.addresses) for bank in banks] == [
        ("antminer-s19", 2, 0, ("10.0.2.31-32",)),
        ("antminer-s19-antminer-modern", 4, 4, ("10.0.2.1-4",)),
        ("m50s-vh50", 4, 4, ("10.0.1.1-3", "10.0.1.5")),
    ]
    assert banks[2].firmwares == ("20230216", "20230803")


def test_devices_that_are_reached_in_different_ways_stand_apart() -> None:
    moved = at(ANTMINER, 9, 1, options={"class": "antminer_modern", "web_port": 80})
    banks = banks_of([*at(ANTMINER, 1, 2), *moved])
    assert {(bank.options["web_port"], bank.addresses) for bank in banks} == {
        (8080, ("10.0.2.1-2",)),
        (80, ("10.0.2.9",)),
    }


def test_what_devices_report_comes_before_estimates_and_says_so() -> None:
    bank = only([*at(WHATSMINER, 1, 2), *at(WHATSMINER, 3, 1, state=LoadState.ASLEEP, watts=14.2, th_per_s=0.0)])
    assert bank.full_watts is not None
    assert (bank.full_watts.value, bank.full_watts.reported) == (3276.0, True)
    assert "limit that the devices report, median of 3" in bank.full_watts.basis
    assert bank.off_watts is not None
    assert (bank.off_watts.value, bank.off_watts.basis) == (14.2, "measured by the devices while asleep, one")
    assert bank.th_per_s is not None
    assert bank.th_per_s.value == 126.0
    measured = only(at(WHATSMINER, 1, 3, limit_watts=None)).full_watts
    assert measured is not None
    assert (measured.value, measured.basis) == (3273.0, "measured by the devices while running, median of 3")
    told = only(at(WHATSMINER, 1, 3, limit_watts=None, measures_watts=False)).full_watts
    assert told is not None
    assert (told.reported, told.basis.startswith("estimated")) == (False, True)


def test_where_nothing_is_measured_the_data_sheet_stands_and_is_called_an_estimate() -> None:
    bank = only(at(ANTMINER, 1, 2))
    assert bank.full_watts is not None
    assert bank.off_watts is not None
    assert (bank.full_watts.value, bank.full_watts.reported, bank.off_watts.reported) == (3250.0, False, False)
    text = fragment([bank], "asic", "poi")
    for line in text.splitlines():
        if "W}" in line or "worst" in line:
            assert "# estimated" in line
    assert bank.worst_watts is not None
    assert bank.worst_watts == pytest.approx(3250.0 * 1.07, rel=0.01)
    assert bank.worst_watts >= 3250.0 * 1.07


def test_asleep_devices_never_make_a_full_point() -> None:
    bank = only(at(WHATSMINER, 1, 2, state=LoadState.ASLEEP, watts=15.0, limit_watts=None, th_per_s=0.0))
    assert (bank.full_watts, bank.worst_watts) == (None, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"default_password": True}, "accepts its maker's default password; read-only until the policy says"),
        ({"default_password": False}, "read-only until a credential is named"),
        ({"default_password": None}, "read-only until a credential is named, or the policy says"),
        ({"default_password": False, "options": {"class": "antminer_modern", "credential": "site"}}, ""),
        ({"default_password": None, "asks_password": False}, ""),
        ({"steering": Steering.MONITOR}, "only watched"),
    ],
)
def test_what_keeps_a_bank_from_being_written_to_is_said(changes: dict[str, Any], words: str) -> None:
    bank = only([replace(ANTMINER, **changes)])
    assert words in bank.access
    assert bool(words) is bool(bank.access)
    assert (bank.access in fragment([bank], "asic", "poi")) or not words


def test_a_policy_takes_the_fragment() -> None:
    many = [replace(WHATSMINER, address=f"10.0.3.{number}") for number in range(1, 60, 2)]
    sightings = [
        *many,
        *at(ANTMINER, 1, 4),
        replace(ANTMINER, address="10.0.9.1", model="S\n# 9: [ü]", firmware="x: {"),
    ]
    loaded = load_policy(POLICY + fragment(banks_of(sightings), "asic", "poi"), "p.yaml", KNOWN)
    assert {bank: len(loads) for bank, loads in loaded.facility.banks.items()} == {
        "m50s-vh50": 30, "antminer-s19": 4, "s-9": 1,
    }  # fmt: skip
    whatsminer = loaded.facility.banks["m50s-vh50"][0]
    assert (whatsminer.address, whatsminer.highest.watts, whatsminer.highest.th_per_s) == ("10.0.3.1", 3276.0, 126.0)
    assert whatsminer.worst_watts >= 3276.0
    assert loaded.wiring.drivers["asic"]["antminer-s19"]["web_port"] == 8080


def test_a_bank_of_which_nobody_knows_the_watts_is_left_to_be_filled_in() -> None:
    unknown = replace(ANTMINER, nameplate_watts=None)
    text = fragment(banks_of([unknown]), "asic", "poi")
    assert YAML(typ="safe").load(text) == {"banks": []}
    assert "nobody told its watts" in text
    filled = text.replace("banks: []", "banks:").replace("? W", "1 W", 1).replace("? W", "3 kW")
    uncommented = "\n".join(
        line.replace("  # ", "  ", 1) if line.strip().startswith(("# -", "#   ")) else line
        for line in filled.splitlines()
    )
    assert load_policy(POLICY + uncommented, "p.yaml", KNOWN).facility.banks
    assert fragment([], "asic", "poi") == "banks: []\n"


def test_small_devices_keep_their_digits() -> None:
    bank = only([replace(WHATSMINER, model="BM1370", limit_watts=None, watts=17.075, th_per_s=1.2)])
    assert bank.full_watts is not None
    assert bank.off_watts is not None
    assert (bank.full_watts.value, bank.off_watts.value, bank.worst_watts) == (17.07, 1.0, 18.3)


@given(st.sets(st.integers(0, 2000), min_size=1))
def test_folded_addresses_are_the_same_addresses(offsets: set[int]) -> None:
    addresses = [f"10.1.{offset // 256}.{offset % 256}" for offset in offsets]
    expanded = [address for part in fold(addresses) for address in expand_range(part)]
    assert set(expanded) == set(addresses)
    assert len(expanded) == len(addresses)


def test_ids_are_unique_and_usable() -> None:
    models = ["Antminer S21+", "Antminer S21 plus", "", "+++", "x" * 100]
    banks = banks_of([replace(ANTMINER, address=f"10.0.4.{n}", model=model) for n, model in enumerate(models, 1)])
    assert len({bank.id for bank in banks}) == len(models)
    assert load(POLICY + fragment(banks, "asic", "poi")).facility.banks.keys() == {bank.id for bank in banks}
