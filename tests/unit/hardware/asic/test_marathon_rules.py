"""Marathon: its configuration goes back as it was read, but for the mode, or not at all."""

from __future__ import annotations

import copy
import logging
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullet.domain.command import Verb
from mullet.ports import CredentialsRejected, DeviceGarbled, DeviceRefused, UnsafeWrite
from mullet_hardware.asic.device import Access, Order
from mullet_hardware.asic.firmware.marathon_rules import (
    changes_mode_only,
    hashrate_of,
    limit_of,
    mode_before_sleep,
    selector_of,
    with_power,
    with_selector,
)

_root = logging.getLogger()
_before = (list(_root.handlers), _root.level)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mullet_hardware.asic.firmware.marathon import GuardedWeb, Marathon
_root.handlers[:], _root.level = _before

NOWHERE = Access("127.0.0.1", 1, 1, "root", "root", None)
POOLS = [{"url": "stratum+tcp://pool.example:3333", "user": "u", "pass": "x", "gid": 0}]
CONF: dict[str, Any] = {
    "mode": {
        "work-mode-selector": "Stock",
        "concorde": {"mode-select": "Hashrate", "power-target": 2600, "hash-target": 80},
        "fixed": {"frequency": "525", "voltage": 13.2},
    },
    "general-config": {"environment-profile": "AirCooling"},
    "pools": POOLS,
}


def conf(selector: str = "Stock", **changes: Any) -> dict[str, Any]:
    """A configuration in a mode, with some sections replaced."""
    made = {**copy.deepcopy(CONF), **changes}
    made["mode"]["work-mode-selector"] = selector
    return made


def test_only_the_mode_changes() -> None:
    read = conf()
    assert with_selector(read, "Sleep", "m") == conf("Sleep")
    assert read == CONF
    tuned = with_power(read, 2200.7, "m")
    assert tuned["mode"]["work-mode-selector"] == "Auto"
    assert tuned["mode"]["concorde"] == {"mode-select": "PowerTarget", "power-target": 2200, "hash-target": 80}
    assert tuned["mode"]["fixed"] == CONF["mode"]["fixed"]
    assert {name: tuned[name] for name in tuned if name != "mode"} == {
        name: CONF[name] for name in CONF if name != "mode"
    }


def test_one_that_sleeps_goes_on_sleeping_when_set_in_watts() -> None:
    tuned = with_power(conf("Sleep"), 2200.0, "m")
    assert tuned["mode"]["work-mode-selector"] == "Sleep"
    assert limit_of(tuned, "m") == 2200.0


@pytest.mark.parametrize("pools", [None, [], "x", [{}], [{"url": ""}, {"url": " "}], [1], [{"url": 3}]])
def test_without_pools_nothing_is_written(pools: object) -> None:
    for broken in (conf(pools=pools), {name: section for name, section in conf().items() if name != "pools"}):
        with pytest.raises(UnsafeWrite):
            with_selector(broken, "Sleep", "m")
        with pytest.raises(UnsafeWrite):
            with_power(broken, 2200.0, "m")
        assert not changes_mode_only(broken, broken)


@pytest.mark.parametrize("mode", [None, {}, {"work-mode-selector": "Turbo"}, {"work-mode-selector": 1}, "Stock"])
def test_an_unknown_mode_is_garbled(mode: object) -> None:
    broken = {**CONF, "mode": mode}
    with pytest.raises(DeviceGarbled):
        selector_of(broken, "m")
    with pytest.raises(DeviceGarbled):
        with_selector(broken, "Sleep", "m")


def test_watts_that_it_cannot_follow_are_refused() -> None:
    with pytest.raises(DeviceRefused):
        with_power(conf(), 0.5, "m")
    with pytest.raises(DeviceRefused):
        with_power(conf(mode={"work-mode-selector": "Stock"}), 2200.0, "m")


@pytest.mark.parametrize(
    ("selector", "tuned_by", "watts"),
    [
        ("Auto", "PowerTarget", 2600.0),
        ("Sleep", "PowerTarget", 2600.0),
        ("Stock", "PowerTarget", None),
        ("Fixed", "PowerTarget", None),
        ("Auto", "Hashrate", None),
    ],
)
def test_a_limit_is_told_where_it_tunes_itself_by_watts(selector: str, tuned_by: str, watts: float | None) -> None:
    made = conf(selector)
    made["mode"]["concorde"]["mode-select"] = tuned_by
    assert limit_of(made, "m") == watts


CHANGED: list[dict[str, Any]] = [
    {"pools": []},
    {"pools": [{**POOLS[0], "user": "another"}]},
    {"pools": [*POOLS, *POOLS]},
    {"general-config": {"environment-profile": "OilImmersionCooling"}},
    {"password": "x"},
    {"mode": {**CONF["mode"], "fixed": {"frequency": "700", "voltage": 13.2}}},
    {"mode": {**CONF["mode"], "concorde": {**CONF["mode"]["concorde"], "hash-target": 99}}},
    {"mode": None},
]


@pytest.mark.parametrize("changes", CHANGED)
async def test_what_differs_in_more_than_the_mode_is_not_posted(changes: dict[str, Any]) -> None:
    posted = {**copy.deepcopy(CONF), **changes}
    assert not changes_mode_only(CONF, posted)
    web = GuardedWeb(NOWHERE)
    web._read = copy.deepcopy(CONF)
    with pytest.raises(UnsafeWrite):
        await web.set_miner_config(**posted)


def test_what_differs_in_the_mode_may_be_posted() -> None:
    for posted in (conf("Sleep"), with_power(conf("Fixed"), 2200.0, "m"), conf()):
        assert changes_mode_only(CONF, posted)


async def test_a_configuration_that_was_not_just_read_is_not_posted() -> None:
    with pytest.raises(UnsafeWrite):
        await GuardedWeb(NOWHERE).set_miner_config(**conf("Sleep"))


async def test_pyasics_own_methods_are_bounded() -> None:
    web = GuardedWeb(NOWHERE)
    calls = (
        web.reboot(),
        web.reset(),
        web.reload(),
        web.set_password("x"),
        web.set_network_config(dhcp=True),
        web.get_network_config(),
        web.set_locate_miner(True),
    )
    for call in calls:
        with pytest.raises(UnsafeWrite):
            await call


def change(source: str, target: str, *path: str) -> dict[str, Any]:
    """One change of the history."""
    return {"type": "update", "path": list(path or ("Mode", "WorkModeSelector")), "from": source, "to": target}


@pytest.mark.parametrize(
    ("history", "mode"),
    [
        ([{"1": [change("Auto", "Sleep")]}], "Auto"),
        (
            [{"1": [change("Auto", "Sleep")]}, {"2": [change("Sleep", "Fixed")]}, {"3": [change("Fixed", "Sleep")]}],
            "Fixed",
        ),
        ([{"1": [change("Stock", "Sleep")]}, {"2": [change("10", "20", "Pools", "0")]}], "Stock"),
        ([{"1": [change("Auto", "Sleep")]}, {"2": [change("Sleep", "Sleep")]}], "Auto"),
        ([{"1": [change("Auto", "Sleep", "Other", "Path")]}], None),
        ([{"1": [change("Sleep", "Auto")]}], None),
        ([{"1": [change("Turbo", "Sleep")]}], None),
        ([], None),
        ({}, None),
        ([1, {"1": 2}, {"3": [4]}], None),
        ({"foo": 1}, None),
    ],
)
def test_the_mode_before_sleep_is_the_newest(history: object, mode: str | None) -> None:
    assert mode_before_sleep(history) == mode


@given(
    st.recursive(st.none() | st.text(max_size=8) | st.integers(), lambda s: st.lists(s) | st.dictionaries(st.text(), s))
)
def test_no_history_breaks_it(history: object) -> None:
    assert mode_before_sleep(history) in (None, "Auto", "Fixed", "Stock")


@pytest.mark.parametrize(
    ("brief", "th_per_s"),
    [
        ({"hashrate_realtime": 95.2}, 95.2),
        ({"hashrate_realtime": 95_200.0, "hashrate_unit": "GH/s"}, 95.2),
        ({"hashrate_realtime": 0.1, "hashrate_unit": "GH/s", "hashrate_realtime_unit": "PH/s"}, 100.0),
        ({"hashrate_realtime": 95.2, "hashrate_unit": "Sol/s"}, None),
        ({"hashrate_realtime": 95.2, "hashrate_unit": 7}, None),
        ({}, None),
    ],
)
def test_a_hashrate_has_a_unit(brief: dict[str, Any], th_per_s: float | None) -> None:
    found = hashrate_of(brief, "m")
    assert found == (None if th_per_s is None else pytest.approx(th_per_s))


@pytest.mark.parametrize("verb", list(Verb))
async def test_a_barred_bank_is_never_written_to(verb: Verb) -> None:
    barred = Access("127.0.0.1", 1, 1, "root", "root", "the maker's default password is not acknowledged")
    with pytest.raises(CredentialsRejected):
        await Marathon(barred, None, 3250.0, lambda: 0.0).apply(Order(verb, 2000.0))
