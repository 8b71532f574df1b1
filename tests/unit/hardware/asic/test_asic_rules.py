"""What may be written to an Antminer, and what answers mean."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullet.domain.command import Verb
from mullet.domain.telemetry import LoadState
from mullet.ports import DeviceGarbled, DeviceRefused, IdentityMismatch, UnsafeWrite
from mullet_hardware.asic.device import IdentityPin, first_of, message_of, number
from mullet_hardware.asic.firmware.rules import (
    LOW,
    NORMAL,
    SLEEP,
    has_pools,
    merge,
    mode_of,
    mode_to_write,
    state_by_mode,
    state_by_switch,
)

POOL = st.fixed_dictionaries({"url": st.text(max_size=20), "user": st.text(max_size=10), "pass": st.text(max_size=5)})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
CONF = st.fixed_dictionaries(
    {},
    optional={
        "pools": st.lists(POOL, max_size=4) | JSON,
        "bitmain-work-mode": st.sampled_from(["0", "1", "3", 0, 1]) | JSON,
        "bitmain-fan-ctrl": st.booleans(),
        "bitmain-fan-pwm": st.sampled_from(["100", "40"]),
        "bitmain-freq-level": st.sampled_from(["100", "80"]),
        "password": st.text(),
    },
)


@given(conf=CONF, mode=st.sampled_from([0, 1, 3]))
def test_pools_go_back_as_they_were_read_or_nothing_is_written(conf: dict[str, Any], mode: int) -> None:
    before = copy.deepcopy(conf)
    try:
        body = merge(conf, mode, "miner")
    except UnsafeWrite:
        assert not has_pools(conf.get("pools")) or "bitmain-work-mode" not in conf
        return
    assert json.dumps(body["pools"]) == json.dumps(before["pools"])
    assert any(pool["url"].strip() for pool in body["pools"] if isinstance(pool.get("url"), str))
    assert body["miner-mode"] == mode
    assert body["freq-level"] == before.get("bitmain-freq-level", "100")
    for name in ("bitmain-fan-ctrl", "bitmain-fan-pwm"):
        assert body.get(name) == before.get(name)
    assert "password" not in body


@pytest.mark.parametrize("pools", [None, [], [{}], [{"url": ""}, {"url": "  "}], "x", {"url": "a"}, [{"url": "a"}, 3]])
def test_what_is_no_pool_list_is_never_posted(pools: object) -> None:
    assert not has_pools(pools)
    with pytest.raises(UnsafeWrite):
        merge({"pools": pools, "bitmain-work-mode": "0"}, 1, "miner")


@pytest.mark.parametrize("told", [None, "", "2", "true", [], "01"])
def test_an_unknown_mode_is_no_default(told: object) -> None:
    with pytest.raises(DeviceGarbled):
        mode_of({"bitmain-work-mode": told}, "miner")


@pytest.mark.parametrize(
    ("mode", "rate", "state"),
    [
        (1, 0.0, LoadState.ASLEEP),
        (1, 5.0, LoadState.STOPPING),
        (0, 5.0, LoadState.ACTIVE),
        (3, 5.0, LoadState.ACTIVE),
        (0, 0.0, LoadState.STARTING),
        (None, 5.0, None),
        (1, None, None),
    ],
)
def test_state_of_an_antminer(mode: int | None, rate: float | None, state: LoadState | None) -> None:
    assert state_by_mode(mode, rate) is state


@pytest.mark.parametrize(
    ("verb", "point", "now", "written"),
    [
        (Verb.WAKE, "", SLEEP, NORMAL),
        (Verb.WAKE, "full", LOW, None),
        (Verb.WAKE, "full", NORMAL, None),
        (Verb.WAKE, "low", SLEEP, LOW),
        (Verb.WAKE, "low", NORMAL, LOW),
        (Verb.WAKE, "low", LOW, None),
        (Verb.POWER, "low", NORMAL, LOW),
        (Verb.POWER, "low", LOW, None),
        (Verb.POWER, "full", LOW, NORMAL),
        (Verb.POWER, "normal", LOW, NORMAL),
        (Verb.POWER, "normal", NORMAL, None),
    ],
)
def test_modes_of_an_antminer_follow_from_verb_and_point(verb: Verb, point: str, now: int, written: int | None) -> None:
    assert mode_to_write(verb, point, now, "miner") == written


@pytest.mark.parametrize(("point", "now"), [("", NORMAL), ("half", NORMAL), ("low", SLEEP), ("full", SLEEP)])
def test_power_that_is_no_mode_or_would_wake_is_refused(point: str, now: int) -> None:
    with pytest.raises(DeviceRefused):
        mode_to_write(Verb.POWER, point, now, "miner")


@pytest.mark.parametrize(
    ("off", "rate", "state"),
    [
        (True, 0.0, LoadState.ASLEEP),
        (True, None, LoadState.ASLEEP),
        (True, 5.0, LoadState.STOPPING),
        (False, 5.0, LoadState.ACTIVE),
        (None, 5.0, LoadState.ACTIVE),
        (False, 0.0, LoadState.STARTING),
        (False, None, None),
        (None, 0.0, None),
        (None, None, None),
    ],
)
def test_state_of_a_whatsminer(off: bool | None, rate: float | None, state: LoadState | None) -> None:
    assert state_by_switch(off, rate) is state


@given(JSON)
def test_a_number_is_known_absent_or_garbled(value: Any) -> None:
    try:
        found = number({"Power": value}, "Power", 2.0, 1000.0, "miner")
    except DeviceGarbled:
        return
    assert found is None or 0.0 <= found <= 1000.0


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "nan", "abc", True, [3], 501])
def test_an_impossible_number_is_garbled(value: object) -> None:
    with pytest.raises(DeviceGarbled):
        number({"Power": value}, "Power", 2.0, 1000.0, "miner")


def test_numbers_may_come_as_text_and_may_be_absent() -> None:
    assert number({"GHS 5s": "95000.5"}, "GHS 5s", 1e-3, 1e5, "miner") == pytest.approx(95.0005)
    assert number({}, "GHS 5s", 1e-3, 1e5, "miner") is None


@pytest.mark.parametrize("answer", [{"foo": 1}, {"SUMMARY": []}, {"SUMMARY": [1]}, {"SUMMARY": {"Power": 1}}])
def test_another_shape_is_garbled(answer: dict[str, Any]) -> None:
    with pytest.raises(DeviceGarbled):
        first_of(answer, "SUMMARY", "miner")
    with pytest.raises(DeviceGarbled):
        message_of({"STATUS": "S", "Msg": "API command OK"}, "miner")


@pytest.mark.parametrize("answer", [{"STATUS": "E", "Msg": "no"}, {"STATUS": [{"STATUS": "E", "Msg": "no"}]}])
def test_an_error_is_a_refusal(answer: dict[str, Any]) -> None:
    with pytest.raises(DeviceRefused):
        first_of(answer, "SUMMARY", "miner")


async def test_an_identity_is_asked_for_once_a_minute_and_again_when_it_changes() -> None:
    at, asked = 100.0, 0

    async def who() -> tuple[str, ...]:
        nonlocal asked
        asked += 1
        return ("C4:08:28:00:00:01", "HTM1")

    pin = IdentityPin("c4-08-28-00-00-01", "miner", lambda: at)
    for _ in range(3):
        await pin.ensure(who)
    assert asked == 1
    at += 59.0
    pin.saw_one("c40828000001")
    at += 59.0
    await pin.ensure(who)
    assert asked == 1
    at += 2.0
    await pin.ensure(who)
    assert asked == 2
    pin.saw_one("C4:08:28:00:00:02")
    with pytest.raises(IdentityMismatch):
        pin.check()
    await pin.ensure(who)
    assert asked == 3
    pin.pinned = "HTM2"
    with pytest.raises(IdentityMismatch):
        await pin.ensure(who)
