"""The decision table of identification: what a host said, and what it is by that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mullet_hardware.asic.capability import (
    ANTMINER_MODERN,
    ANTMINER_OLD,
    AURADINE,
    AVALON,
    AXEOS,
    BRAIINS,
    EPIC,
    LUXOS,
    MARATHON,
    VNISH,
    WHATSMINER_V2,
    WHATSMINER_V3,
)
from mullet_hardware.asic.evidence import Gap, Heard, Page, Standing, antminer_class, decide, model_of

CAPTURES = Path(__file__).parents[5] / "shared" / "data" / "miners" / "asic-rs"
STOCK_PAGE = Page(401, 'Digest realm="antMiner Configuration", nonce="1", qop="auth"', "", "<title>401</title>")


def listed(section: str, **fields: Any) -> str:
    return json.dumps({"STATUS": [{"STATUS": "S", "Code": 22}], section: [fields], "id": 1})


def refused() -> str:
    return json.dumps({"STATUS": "E", "Code": 14, "Msg": "invalid cmd", "Description": ""})


def page(text: str, status: int = 200) -> Page:
    return Page(status, "", "", text)


STOCK_VERSION = listed("VERSION", BMMiner="1.0.0", API="3.1", Miner="49.0.1.3", Type="Antminer S19")
STOCK_STATS = listed("STATS", BMMiner="1.0.0", Type="Antminer S19")
VNISH_STATS = listed("STATS", BMMiner="1.0.0", Type="Antminer S19 (Vnish 1.2.6)")
WM_DETAILS = listed("DEVDETAILS", Driver="bitmicro", Model="M50S_VH50")
NAMED = {
    LUXOS: Heard({"version": listed("VERSION", LUXminer="2025.4.8", Type="Antminer S19k Pro")}, page("<html>")),
    BRAIINS: Heard({"version": listed("VERSION", BOSer="boser-openwrt 0.1.0")}, page("<title>Braiins OS</title>")),
    AVALON: Heard({"version": listed("VERSION", CGMiner="4.11.1", PROD="AvalonMiner 1246", MODEL="1246-N")}),
    AURADINE: Heard({"version": refused(), "devdetails": listed("DEVDETAILS", Driver="gcminer", Model="AT1500")}),
    EPIC: Heard({}, page("<title>Miner Web Dashboard</title>"), capabilities={"Model": "ANTMINER S19 Pro"}),
    AXEOS: Heard({}, page("<title>AxeOS</title>")),
    MARATHON: Heard({"version": listed("VERSION", kaonsu="1.0.0", Type="Antminer S21")}, STOCK_PAGE),
    VNISH: Heard({"version": STOCK_VERSION, "stats": VNISH_STATS}, page("<title>AnthillOS</title>")),
    WHATSMINER_V2: Heard(
        {
            "version": refused(),
            "devdetails": WM_DETAILS,
            "get_version": json.dumps({"STATUS": "S", "Code": 131, "Msg": {"fw_ver": "20230803.11.REL"}}),
        }
    ),
    WHATSMINER_V3: Heard({}, device_info={"miner": {"type": "M60S_VK30"}, "system": {"fwversion": "20250214.16.Rel"}}),
    ANTMINER_MODERN: Heard({"version": STOCK_VERSION, "stats": STOCK_STATS}, STOCK_PAGE),
    ANTMINER_OLD: Heard(
        {
            "version": listed("VERSION", BMMiner="2.0.0", Type="Antminer S9"),
            "stats": listed("STATS", Type="Antminer S9"),
        },
        STOCK_PAGE,
    ),
}


@pytest.mark.parametrize("firmware_class", NAMED)
def test_every_class_is_known_by_what_it_says(firmware_class: str) -> None:
    verdict = decide(NAMED[firmware_class])
    assert (verdict.standing, verdict.classes) == (Standing.MINER, (firmware_class,))


@pytest.mark.parametrize(
    "heard",
    [
        Heard({"version": STOCK_VERSION, "stats": VNISH_STATS}, STOCK_PAGE),
        Heard({"version": STOCK_VERSION, "stats": STOCK_STATS}, page("<title>AnthillOS</title>")),
        Heard({"version": STOCK_VERSION}, page("<title>AnthillOS</title>"), gaps={"stats": Gap.SILENT}),
    ],
)
def test_one_word_of_vnish_on_either_side_outweighs_the_makers_header(heard: Heard) -> None:
    assert decide(heard).classes == (VNISH,)


@pytest.mark.parametrize(
    "heard",
    [
        Heard({"version": STOCK_VERSION, "stats": STOCK_STATS}, None, gaps={"page": Gap.SILENT}),
        Heard({"version": STOCK_VERSION, "stats": STOCK_STATS}, None, gaps={"page": Gap.GARBLED}),
        Heard({"version": STOCK_VERSION, "stats": STOCK_STATS}, None),
        Heard({"version": STOCK_VERSION}, STOCK_PAGE, gaps={"stats": Gap.SILENT}),
        Heard({}, STOCK_PAGE, gaps={"version": Gap.SILENT}),
        Heard({}, STOCK_PAGE, gaps={"version": Gap.GARBLED}),
    ],
)
def test_stock_is_never_concluded_from_one_side_alone(heard: Heard) -> None:
    """So it is how others take VNish for stock: whichever side answers first decides."""
    assert decide(heard).standing is Standing.UNDECIDED


def test_a_sleeping_antminer_whose_rpc_is_closed_is_asked_with_its_password() -> None:
    verdict = decide(Heard({}, STOCK_PAGE, gaps={"version": Gap.CLOSED}))
    assert (verdict.standing, verdict.classes) == (Standing.MINER, (MARATHON, ANTMINER_MODERN))


def test_a_sleeping_whatsminer_is_known_by_its_version_alone() -> None:
    told = json.dumps({"STATUS": "S", "Code": 131, "Msg": {"api_ver": "2.0.5", "fw_ver": "20230803.11.REL"}})
    heard = Heard({"version": refused(), "devdetails": refused(), "get_version": told})
    assert decide(heard).classes == (WHATSMINER_V2,)
    later = told.replace("20230803", "20250214")
    assert decide(Heard({"version": refused(), "get_version": later})).classes == (WHATSMINER_V3,)
    assert decide(Heard({"version": refused(), "devdetails": WM_DETAILS})).classes == (WHATSMINER_V2, WHATSMINER_V3)


def test_two_names_are_a_contradiction_and_not_a_choice() -> None:
    heard = Heard({"version": listed("VERSION", LUXminer="2025.4.8", Type="Antminer S19")}, page("<title>AnthillOS"))
    verdict = decide(heard)
    assert verdict.standing is Standing.UNDECIDED
    assert "luxos and as vnish" in verdict.reason


@pytest.mark.parametrize(
    "heard",
    [
        Heard({"version": listed("VERSION", BMMiner="1.0", Type="Antminer S19 Hiveon")}, STOCK_PAGE),
        Heard({"version": listed("VERSION", BOSminer="0.9")}, page("<title>Braiins OS</title>"), grpc=False),
        Heard({"version": listed("VERSION", API="3.7", sgminer="5.0")}),
        Heard({}, page("<title>cloud-box</title>")),
        Heard({}, system_info={"minerModel": "LV08"}),
        Heard({}, Page(401, 'Digest realm="blackMiner Configuration"', "", "")),
    ],
)
def test_miners_without_a_class_of_ours_are_only_watched(heard: Heard) -> None:
    assert decide(heard).standing is Standing.WATCHED


def test_grpc_tells_the_newer_braiins_from_the_older() -> None:
    heard = Heard({"version": listed("VERSION", BOSminer="0.9")}, page("<title>Braiins OS</title>"), grpc=True)
    assert decide(heard).classes == (BRAIINS,)


def test_what_is_no_miner_is_said_to_be_none_only_where_everything_was_heard() -> None:
    router = page("<title>Router</title>")
    assert decide(Heard({}, router, gaps={"version": Gap.CLOSED})).standing is Standing.OTHER
    assert decide(Heard({}, router, gaps={"version": Gap.SILENT})).standing is Standing.UNDECIDED
    assert decide(Heard({}, None, gaps={"version": Gap.GARBLED, "page": Gap.SILENT})).standing is Standing.UNDECIDED


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("Antminer S19j Pro", ANTMINER_MODERN),
        ("Antminer T21", ANTMINER_MODERN),
        ("Antminer S17+", ANTMINER_OLD),
        ("Antminer S9i", ANTMINER_OLD),
        ("Antminer L7", ANTMINER_MODERN),
        ("Antminer L3+", ANTMINER_OLD),
        ("Antminer KS5", ANTMINER_MODERN),
        ("Antminer E3", None),
        ("something", None),
    ],
)
def test_generations_of_antminers(model: str, expected: str | None) -> None:
    assert antminer_class(model) == expected


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="what others captured of miners is kept outside the project")
@pytest.mark.parametrize(
    ("rpc", "served", "expected", "model"),
    [
        ({"version": "luxminer/v1/version.json"}, None, LUXOS, "Antminer S19k Pro"),
        ({"version": "avalonminer/version.json"}, None, AVALON, "Avalon Q"),
        ({"version": "antminer/v2020/version.json"}, STOCK_PAGE, ANTMINER_MODERN, "Antminer S19 Pro"),
        ({"get_version": "whatsminer/v1/get_version.json"}, None, WHATSMINER_V2, ""),
        ({"get_version": "whatsminer/v2/get_version.json"}, None, WHATSMINER_V2, ""),
        ({"version": "braiins/v21_09/version.json"}, None, BRAIINS, ""),
    ],
)
def test_captured_answers_are_recognised(rpc: dict[str, str], served: Page | None, expected: str, model: str) -> None:
    heard = Heard({command: (CAPTURES / file).read_text() for command, file in rpc.items()}, served)
    assert decide(heard).classes == (expected,)
    assert model_of(heard) == model


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="what others captured of miners is kept outside the project")
def test_a_captured_bitaxe_is_recognised() -> None:
    info = json.loads((CAPTURES / "bitaxe/v2_0_0/system_info.json").read_text())
    assert decide(Heard({}, page("<html>"), system_info=info)).classes == (AXEOS,)
