"""What miners tell of boards, temperatures, fans and errors: captured answers, and what must not be made of others."""

from __future__ import annotations

import json
import logging
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replay_kit import captured, replaying

from mullet.ports import DeviceError, DeviceGarbled
from mullet_hardware.asic.firmware import health_rules, marathon_rules, vnish_rules
from mullet_hardware.asic.firmware.health_rules import MOST_ERROR_LETTERS, MOST_ERRORS
from mullet_hardware.asic.protocol import Health

_root = logging.getLogger()
_before = (list(_root.handlers), _root.level)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mullet_hardware.asic.firmware import avalon
    from mullet_hardware.asic.firmware.antminer import AntminerModern
    from mullet_hardware.asic.firmware.antminer_old import AntminerOld
    from mullet_hardware.asic.firmware.axeos import AxeOs
    from mullet_hardware.asic.firmware.luxos import LuxOs
    from mullet_hardware.asic.firmware.whatsminer_v2 import WhatsminerV2
    from mullet_hardware.asic.firmware.whatsminer_v3 import _errors_of as errors_of_v3
_root.handlers[:], _root.level = _before

WHO = "127.0.0.1"
FINE = {"STATUS": "S"}


async def health_of(build: Any, rpc: dict[str, bytes], web: dict[str, bytes] | None = None) -> tuple[Health, list[str]]:
    async with replaying(rpc, web) as replay:
        found: Health = await build(replay.access, None, 3000.0, lambda: 0.0).health()
        return found, replay.asked


# Captured answers; what is expected was read in the files by hand.


async def test_captured_boards_of_an_antminer() -> None:
    (stats,) = captured("asic-rs/antminer/v2020/stats.json")
    expected = Health(boards=3, celsius=78.0, fan_rpm=5040.0, boards_fitted=3)
    assert await health_of(AntminerOld, {"stats": stats}) == (expected, ["stats"])
    # The checks of its web interface were not captured: these are composed.
    checks = [{"type": "rate", "status": "s", "code": 0, "msg": ""}, {"type": "fans", "status": "e", "msg": "fan lost"}]
    page = json.dumps({"STATUS": FINE, "SUMMARY": [{"status": checks}]}).encode()
    found, asked = await health_of(AntminerModern, {"stats": stats}, {"GET /cgi-bin/summary.cgi": page})
    assert found == Health(boards=3, celsius=78.0, fan_rpm=5040.0, errors=("fans: fan lost",), boards_fitted=3)
    assert asked == ["stats", "GET /cgi-bin/summary.cgi"]


@pytest.mark.parametrize(("summary", "codes"), [("summary.json", ()), ("summary_with_errors.json", ("110", "600"))])
async def test_captured_boards_of_a_whatsminer_of_2021(summary: str, codes: tuple[str, ...]) -> None:
    devs, told = captured("asic-rs/whatsminer/v1/devs.json", f"asic-rs/whatsminer/v1/{summary}")
    found, asked = await health_of(WhatsminerV2, {"devs": devs, "summary": told})
    assert found == Health(boards=3, celsius=92.5, fan_rpm=6480.0, errors=codes, boards_fitted=3)
    assert asked == ["devs", "get_error_code", "summary"]


async def test_captured_boards_and_events_of_luxos() -> None:
    names = ("devs", "temps", "fans", "events")
    told = dict(zip(names, captured(*(f"asic-rs/luxminer/v1/{name}.json" for name in names)), strict=True))
    expected = Health(
        boards=3,
        celsius=47.0,
        fan_rpm=1920.0,
        errors=("NOPIC_PROTECTION", "REBOOT_NOT_HASHING of board 0"),
        boards_fitted=3,
    )
    assert await health_of(LuxOs, told) == (expected, ["devs+temps+fans+events"])


async def test_captured_boards_of_avalons() -> None:
    at_work, resting = captured("asic-rs/avalonminer/avalon_a_stats.json", "asic-rs/avalonminer/litestats.json")
    found, _ = await health_of(avalon.Avalon, {"stats": at_work})
    assert found == Health(boards=3, celsius=77.0, fan_rpm=5309.0, errors=(), boards_fitted=3)
    found, asked = await health_of(avalon.Avalon, {"litestats": resting})
    assert found == Health(boards=0, celsius=None, fan_rpm=0.0, errors=(), boards_fitted=1)
    assert asked == ["litestats"]


async def test_captured_board_of_a_bitaxe() -> None:
    (info,) = captured("asic-rs/bitaxe/v2_0_0/system_info.json")
    found, _ = await health_of(AxeOs, {}, {"GET /api/system/info": info})
    assert found == Health(boards=1, celsius=59.875, fan_rpm=3517.0, errors=(), boards_fitted=1)


# Rules, on answers composed for the purpose


def antminer(**fields: Any) -> Health:
    return health_rules.antminer_health({"STATUS": [FINE], "STATS": [{"Type": "x"}, fields]}, WHO)


def test_a_board_without_a_rate_is_not_at_work_and_one_without_chips_is_not_there() -> None:
    assert antminer(chain_acn1=63, chain_rate1="4500.1", chain_acn2=63, chain_rate2="0.00", chain_acn3=0) == Health(
        boards=1, boards_fitted=2
    )
    assert antminer(chain_acn1=63, chain_acn2=63, chain_rate2="1.0").boards is None, "one does not tell"
    assert antminer(fan1=5400) == Health(fan_rpm=5400.0), "of boards nothing is told"


def test_places_without_a_fan_are_not_standing_fans() -> None:
    assert antminer(fan_num=2, fan1=0, fan5=5400, fan6=5280).fan_rpm == 5280.0
    assert antminer(fan_num=2, fan1=0, fan5=5400, fan6=0).fan_rpm == 0.0
    assert antminer(fan1=0, fan2=5400).fan_rpm == 0.0, "how many there are is not told"
    assert antminer(fan_num=4).fan_rpm is None


def test_an_absent_sensor_is_not_freezing() -> None:
    assert antminer(temp6=0, temp2_6=0, temp_chip1="0-0-0-0", temp_max=99, temp_num=3).celsius is None
    assert antminer(temp6=61, temp2_6=74, temp_chip1="70-71-0-72").celsius == 74.0
    assert health_rules.hottest([None, "75", True, 500, float("nan"), -1.5]) == -1.5


@pytest.mark.parametrize("told", [{"fan1": "fast"}, {"fan1": -5}, {"chain_acn1": "x"}, {"fan1": 1e9}])
def test_what_is_no_number_is_garbled(told: dict[str, Any]) -> None:
    with pytest.raises(DeviceGarbled):
        antminer(**told)


@given(st.lists(st.text(max_size=200), max_size=50))
def test_errors_fit_a_line_and_are_not_too_many(told: list[str]) -> None:
    errors = health_rules.errors_of(told)
    assert len(errors) <= MOST_ERRORS
    assert len(set(errors)) == len(errors)
    assert all(0 < len(text) <= MOST_ERROR_LETTERS and text.isprintable() for text in errors)
    if any(text.strip() and text.strip().isprintable() for text in told):
        assert errors


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = [
    *("chain_acn1", "chain_rate1", "fan1", "fan_num", "temp1", "temp_chip1"),
    *("status", "type", "msg", "asic_num", "hashrate_average", "current_speed", "temperature_chip"),
    *("hashrate_rt", "chip_temp", "rpm", "id", "state", "description"),
    *("MHS 5s", "RPM", "Status", "TopLeft", "Chip", "Code", "Target", "ID"),
]
ENTRY = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6)
LIST = JSON | st.lists(ENTRY, max_size=3)


@given(LIST, LIST, JSON)
def test_no_answer_raises_anything_but_what_a_device_may(first: Any, second: Any, third: Any) -> None:
    joined = {
        name: [{"STATUS": [FINE], section: told}]
        for name, section, told in (
            ("devs", "DEVS", first),
            ("temps", "TEMPS", second),
            ("fans", "FANS", first),
            ("events", "EVENTS", second),
            ("tunerstatus", "TUNERSTATUS", [{"TunerChainStatus": first}]),
        )
    }
    for call in (
        lambda: health_rules.antminer_health({"STATS": first}, WHO),
        lambda: health_rules.antminer_errors({"status": second}, WHO),
        lambda: health_rules.braiins_health(joined, WHO),
        lambda: health_rules.luxos_health(joined, WHO),
        lambda: health_rules.luxos_health({"devs": first, "temps": second, "fans": third}, WHO),
        lambda: marathon_rules.health_of({"hashboards": first}, {"fans": second}, WHO),
        lambda: vnish_rules.health_of({"miner_status": {}, "chains": first, "cooling": {"fans": second}}, WHO),
        lambda: vnish_rules.health_of({"miner_status": {"miner_state": third}, "cooling": third}, WHO),
        lambda: errors_of_v3(first),
    ):
        try:
            found = call()
        except DeviceError:
            continue
        assert found is None or isinstance(found, Health | tuple)


def test_chains_of_braiins_os_that_fail_are_told_and_those_that_tune_are_not() -> None:
    def errors(*statuses: str) -> tuple[str, ...] | None:
        chains = [{"HashchainIndex": n, "Status": status} for n, status in enumerate(statuses, 6)]
        tuner = [{"STATUS": [FINE], "TUNERSTATUS": [{"TunerChainStatus": chains}]}]
        empty = {name: [{"STATUS": [FINE], name.upper(): []}] for name in ("devs", "temps", "fans")}
        return health_rules.braiins_health({**empty, "tunerstatus": tuner}, WHO).errors

    assert errors("Stable", "Tuning individual chips", "Testing performance profile") == ()
    assert errors("Stable", "Failed to start {code: 7}") == ("board 7: Failed to start",)
    assert errors() is None, "of no chain nothing is known"


def test_what_luxos_refuses_is_not_known() -> None:
    refused = [{"STATUS": [{"STATUS": "E", "Code": 14, "Msg": "Invalid command"}]}]
    told: dict[str, Any] = dict.fromkeys(("devs", "temps", "fans", "events"), refused)
    assert health_rules.luxos_health(told, WHO) == Health()
    with pytest.raises(DeviceError):
        health_rules.luxos_health({"STATUS": [{"STATUS": "E"}]}, WHO)


def test_failures_of_vnish_are_told_with_their_place() -> None:
    chains = [
        {"id": 1, "status": {"state": "mining"}, "hashrate_rt": 34000.0, "chip_temp": {"min": 40, "max": 71}},
        {"id": 2, "status": {"state": "failure", "description": "low chips"}, "hashrate_rt": 0.0, "chip_temp": None},
        {"id": 3, "status": {"state": "disconnected"}},
    ]
    fans = [{"id": 0, "rpm": 5400, "status": "ok"}, {"id": 1, "rpm": 0, "status": "lost"}]
    status = {"miner_state": "failure", "failure_code": 12, "description": "too hot"}
    miner = {"miner_status": status, "chains": chains, "cooling": {"fans": fans}, "chip_temp": {"max": 70}}
    assert vnish_rules.health_of(miner, WHO) == Health(
        boards=1,
        celsius=71.0,
        fan_rpm=0.0,
        errors=("12 too hot", "board 2: low chips", "fan 1: lost"),
        boards_fitted=2,
    )
    assert vnish_rules.health_of({"miner_status": {"miner_state": "stopped"}}, WHO) == Health(errors=())


@pytest.mark.parametrize(
    ("told", "codes"),
    [
        ([], ()),
        ([{"110": "2026-01-01 10:00:00", "reason": "fan"}, {"218": ""}], ("110", "218")),
        ([5070, "206"], ("5070", "206")),
        (None, None),
        ("", None),
    ],
)
def test_codes_of_a_whatsminer_v3_come_in_several_shapes(told: object, codes: tuple[str, ...] | None) -> None:
    assert errors_of_v3(told) == codes


def test_fields_of_errors_of_an_avalon_are_told_where_they_are_not_0() -> None:
    fields = {
        "ECHU": "0 516 0",
        "ECMM": "1",
        "FanErr": "0",
        "MGHS": "27000 0 27000",
        "SoftOFF": "0",
        "MTmax": "77 -273 70",
    }
    assert avalon.health_of(fields, WHO) == Health(boards=2, celsius=77.0, errors=("ECHU1 516", "ECMM0 1"))
    assert avalon.health_of({}, WHO) == Health()
    with pytest.raises(DeviceGarbled):
        avalon.health_of({"MGHS": "a"}, WHO)
