"""VNish: presets, states and what of its settings can be written at all."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullet.domain.command import Verb
from mullet.domain.telemetry import LoadState
from mullet.ports import CredentialsRejected, DeviceGarbled, DeviceRefused, UnsafeWrite
from mullet_hardware.asic.device import Access, Order
from mullet_hardware.asic.firmware.vnish_rules import choose_preset, overclock_of, preset_body, preset_watts, state_of

_root = logging.getLogger()
_before = (list(_root.handlers), _root.level)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mullet_hardware.asic.firmware.vnish import GuardedWeb, Vnish
_root.handlers[:], _root.level = _before

NOWHERE = Access("127.0.0.1", 1, 1, "", "admin", None)


def preset(watts: int, status: str = "tuned", **others: Any) -> dict[str, Any]:
    """A preset as `autotune/presets` lists it."""
    pretty = f"{watts} watt ~ {watts // 30} TH"
    return {"name": str(watts), "pretty": pretty, "status": status, "modded_psu_required": False, **others}


PRESETS = [
    {"name": "disabled", "pretty": "Disabled", "status": "tuned", "modded_psu_required": False},
    preset(1700),
    preset(2350),
    preset(2620, "untuned"),
    preset(3200),
    preset(3750, modded_psu_required=True),
]


@pytest.mark.parametrize(("watts", "name"), [(1700.0, "1700"), (2349.0, "1700"), (2700.0, "2350"), (9000.0, "3200")])
def test_the_highest_tuned_preset_at_or_below_is_taken(watts: float, name: str) -> None:
    assert choose_preset(PRESETS, {"preset": "3200"}, watts, "m").name == name


def test_another_power_supply_reaches_higher() -> None:
    assert choose_preset(PRESETS, {"modded_psu": True}, 9000.0, "m").name == "3750"


@pytest.mark.parametrize("presets", [[], PRESETS, [preset(1000, "untuned")], [{"name": "eco", "status": "tuned"}]])
def test_below_the_lowest_it_is_refused(presets: list[dict[str, Any]]) -> None:
    with pytest.raises(DeviceRefused):
        choose_preset(presets, {}, 1600.0, "m")


@pytest.mark.parametrize("top", [None, "3200", "turbo"])
def test_a_firmware_that_may_go_above_by_itself_is_refused(top: str | None) -> None:
    switcher = {"preset_switcher": {"enabled": True, "top_preset": top}}
    with pytest.raises(DeviceRefused):
        choose_preset(PRESETS, switcher, 2350.0, "m")
    kept_below = {"preset_switcher": {"enabled": True, "top_preset": "2350"}}
    assert choose_preset(PRESETS, kept_below, 2350.0, "m").name == "2350"


@given(
    st.lists(st.tuples(st.integers(1, 6000), st.sampled_from(["tuned", "untuned"])), max_size=12),
    st.floats(1.0, 7000.0),
)
def test_no_choice_is_ever_above_the_order(listed: list[tuple[int, str]], watts: float) -> None:
    presets = [preset(draws, status) for draws, status in listed]
    try:
        chosen = choose_preset(presets, {}, watts, "m")
    except DeviceRefused:
        assert not any(status == "tuned" and draws <= watts for draws, status in listed)
        return
    assert chosen.watts <= watts + 0.5
    assert (int(chosen.watts), "tuned") in listed


@pytest.mark.parametrize("presets", [[1], ["1700"], [{"pretty": "1700 watt"}]])
def test_what_is_no_preset_is_garbled(presets: list[Any]) -> None:
    with pytest.raises(DeviceGarbled):
        choose_preset(presets, {}, 3000.0, "m")


def test_watts_are_the_larger_of_name_and_description() -> None:
    assert preset_watts({"name": "1700", "pretty": "1800 watt ~ 60 TH"}) == 1800.0
    assert preset_watts({"name": "eco", "pretty": "1800 watt ~ 60 TH"}) == 1800.0
    assert preset_watts({"name": "1700"}) == 1700.0
    for unknown in ({"name": "disabled", "pretty": "Disabled"}, {"name": "0"}, {"name": "999999999"}, {}):
        assert preset_watts(unknown) is None


@pytest.mark.parametrize(
    ("told", "th_per_s", "state"),
    [
        ("mining", 90.0, LoadState.ACTIVE),
        ("auto-tuning", 40.0, LoadState.ACTIVE),
        ("mining", 0.0, LoadState.STARTING),
        ("mining", None, None),
        ("initializing", 0.0, LoadState.STARTING),
        ("restarting", 50.0, LoadState.STARTING),
        ("shutting-down", 0.0, LoadState.STOPPING),
        ("stopped", 50.0, LoadState.STOPPING),
        ("stopped", 0.0, LoadState.ASLEEP),
        ("failure", 0.0, None),
        ("", 90.0, None),
        ("something new", 90.0, None),
    ],
)
def test_a_state_is_told_by_word_and_hashrate(told: str, th_per_s: float | None, state: LoadState | None) -> None:
    assert state_of(told, th_per_s) is state


@pytest.mark.parametrize("settings", [{}, {"miner": None}, {"miner": {"overclock": {}}}, {"miner": {"overclock": 1}}])
def test_settings_without_a_preset_are_never_written(settings: dict[str, Any]) -> None:
    with pytest.raises(UnsafeWrite):
        overclock_of(settings, "m")
    assert overclock_of({"miner": {"overclock": {"preset": 1700}}}, "m")["preset"] == "1700"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"miner": {"pools": []}},
        {"miner": {"overclock": {"preset": "1700"}, "pools": [{"url": "x"}]}},
        {"miner": {"overclock": {"preset": "1700", "globals": {"freq": 700}}}},
        {"miner": {"overclock": {"preset": "9999"}}},
        {"miner": {"overclock": {"preset": "1700"}}, "network": {"dhcp": True}},
        {"password": {"current": "admin", "pw": "x"}},
    ],
)
async def test_of_the_settings_only_a_listed_preset_is_written(body: dict[str, Any]) -> None:
    web = GuardedWeb(NOWHERE)
    web._presets = frozenset({"1700"})
    with pytest.raises(UnsafeWrite):
        await web.send_command("settings", privileged=True, **body)


async def test_a_preset_that_was_not_listed_is_not_written() -> None:
    with pytest.raises(UnsafeWrite):
        await GuardedWeb(NOWHERE).send_command("settings", privileged=True, **preset_body("1700"))


async def test_pyasics_own_methods_are_bounded() -> None:
    web = GuardedWeb(NOWHERE)
    calls = (web.reboot(), web.find_miner(), web.pause_mining(), web.post_settings({"miner": {"pools": []}}))
    for call in calls:
        with pytest.raises(UnsafeWrite):
            await call
    for command in ("mining/switch-pool", "settings/factory-reset", "firmware/remove", "apikeys", "lock"):
        with pytest.raises(UnsafeWrite):
            await web.send_command(command, privileged=True)
    with pytest.raises(UnsafeWrite):
        await web.send_command("mining/stop", privileged=True, pool_id=1)


@pytest.mark.parametrize("verb", list(Verb))
async def test_a_barred_bank_is_never_written_to(verb: Verb) -> None:
    barred = Access("127.0.0.1", 1, 1, "", "admin", "the maker's default password is not acknowledged")
    with pytest.raises(CredentialsRejected):
        await Vnish(barred, None, 3200.0, lambda: 0.0).apply(Order(verb, 2000.0))
