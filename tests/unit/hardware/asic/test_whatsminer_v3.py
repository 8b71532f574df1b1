"""Whatsminer V3 over a wire of a few lines: framing, signatures, what is told of mining, what is never sent."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import warnings
from typing import Any

import pytest

from mullet.domain.command import Verb
from mullet.domain.telemetry import LoadState
from mullet.ports import (
    CredentialsRejected,
    DeviceGarbled,
    DeviceRefused,
    DeviceUnreachable,
    IdentityMismatch,
    NoPermission,
    UnsafeWrite,
)
from mullet_hardware.asic.allowed import AllowedRequest
from mullet_hardware.asic.device import Access, Order

_root = logging.getLogger()
_before = (list(_root.handlers), _root.level)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mullet_hardware.asic.firmware import whatsminer_v3
    from mullet_hardware.asic.firmware.whatsminer_v3 import GuardedRpc, WhatsminerV3, frame_is_whole, unframe
_root.handlers[:], _root.level = _before

PASSWORD = "correct horse"
ACCESS = Access("127.0.0.1", 4433, 0, "super", PASSWORD, None)
MAC = "C4:08:29:00:00:01"
SLEEP = Order(Verb.SLEEP, 0.0)


def framed(answer: dict[str, Any]) -> bytes:
    text = json.dumps(answer).encode()
    return len(text).to_bytes(4, "little") + text


class Miner:
    """Answers as the document says; what it was asked is kept."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.now = 1000.0
        self.clock = 1_700_000_000
        self.salt = "salt0001"
        self.password = PASSWORD
        self.miner: dict[str, Any] = {"working": "true", "type": "M60S_VK30", "miner-sn": "HTM1"}
        self.system: dict[str, Any] = {"api": "3.0.1", "fwversion": "20250214", "apiswitch": "1"}
        self.summary: dict[str, Any] | None = {
            "power-realtime": 3300.5,
            "power-limit": 3400,
            "hash-realtime": 180.25,
            "up-freq-finish": 1,
            "board-temperature": [60.5, 71.0, "?"],
        }
        self.refusal: tuple[int, str] | None = None

    def device(self, pinned: str | None = None) -> WhatsminerV3:
        return WhatsminerV3(ACCESS, pinned, 3400.0, lambda: self.now)

    def sent(self) -> list[dict[str, Any]]:
        return [request for request in self.asked if request["cmd"].startswith("set.")]

    async def exchange(self, host: str, port: int, request: AllowedRequest, whole: Any) -> bytes:
        asked = json.loads(request.payload[4:])
        assert int.from_bytes(request.payload[:4], "little") == len(request.payload) - 4
        self.asked.append(asked)
        answer = framed(self.answer(asked))
        assert whole(bytearray(answer))
        return answer

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        told = {"code": 0, "when": self.clock, "desc": asked["cmd"]}
        if asked["cmd"] == "get.device.info":
            message = {"network": {"mac": MAC}, "miner": self.miner, "system": self.system, "salt": self.salt}
            return {**told, "msg": message}
        if asked["cmd"] == "get.miner.status":
            assert asked["param"] == "summary"
            if self.summary is None:
                return {**told, "code": -1, "msg": "fail"}
            return {**told, "msg": {"summary": self.summary}}
        signed = f"{asked['cmd']}{self.password}{self.salt}{asked['ts']}"
        token = base64.b64encode(hashlib.sha256(signed.encode()).digest()).decode()[:8]
        if asked["token"] != token or asked["account"] != "super" or abs(asked["ts"] - self.clock) > 5:
            return {**told, "code": -4, "msg": "permission denied"}
        if self.refusal is not None:
            return {**told, "code": self.refusal[0], "msg": self.refusal[1]}
        return {**told, "msg": "ok"}


@pytest.fixture
def miner(monkeypatch: pytest.MonkeyPatch) -> Miner:
    found = Miner()
    monkeypatch.setattr(whatsminer_v3, "exchange", found.exchange)
    return found


def test_a_frame_is_whole_with_its_last_byte() -> None:
    answer = framed({"a": 1})
    for length in range(len(answer)):
        assert not frame_is_whole(bytearray(answer[:length]))
    assert frame_is_whole(bytearray(answer))
    assert unframe(answer, "miner") == b'{"a": 1}'


def test_heartbeats_are_no_answers() -> None:
    beats = bytes(8)
    assert not frame_is_whole(bytearray(beats))
    assert unframe(beats + framed({"a": 1}), "miner") == b'{"a": 1}'


@pytest.mark.parametrize("raw", [b"\x16\x03\x01\xff<html>", b"\x05", framed({"a": 1})[:-1]])
def test_what_is_no_frame_is_garbled(raw: bytes) -> None:
    with pytest.raises(DeviceGarbled):
        unframe(raw, "miner")


def test_an_absurd_length_is_not_waited_for() -> None:
    assert frame_is_whole(bytearray(b"\x16\x03\x01\xff<html>"))


@pytest.mark.parametrize("raw", [b"", bytes(4)])
def test_no_answer_is_unreachable(raw: bytes) -> None:
    with pytest.raises(DeviceUnreachable):
        unframe(raw, "miner")


async def test_who_it_is_and_what_it_tells(miner: Miner) -> None:
    device = miner.device()
    found = await device.identify()
    assert (found.make, found.model, found.firmware) == ("MicroBT", "M60S_VK30", "20250214")
    assert found.identities == (MAC, "HTM1")
    reading = await device.read()
    assert (reading.watts, reading.limit_watts, reading.th_per_s) == (3300.5, 3400.0, 180.25)
    assert (reading.state, reading.celsius, reading.identity) == (LoadState.ACTIVE, 71.0, MAC)


async def test_a_miner_that_plainly_hashes_costs_one_request_a_poll(miner: Miner) -> None:
    device = miner.device(MAC)
    await device.poll()
    miner.asked.clear()
    for _ in range(5):
        miner.now += 5.0
        assert (await device.poll()).state is LoadState.ACTIVE
    assert [request["cmd"] for request in miner.asked] == ["get.miner.status"] * 5


@pytest.mark.parametrize(
    ("working", "rate", "state"),
    [
        ("false", 0.0, LoadState.ASLEEP),
        ("false", 90.0, LoadState.STOPPING),
        ("true", 0.0, LoadState.STARTING),
        ("true", 90.0, LoadState.ACTIVE),
        (False, 0.0, LoadState.ASLEEP),
        ("", 0.0, None),
        (None, 0.0, None),
        ("false", None, LoadState.ASLEEP),
        ("true", None, None),
    ],
)
async def test_mining_is_told_by_working_and_hashrate_together(
    miner: Miner, working: object, rate: float | None, state: LoadState | None
) -> None:
    assert miner.summary is not None
    miner.miner["working"], miner.summary["hash-realtime"] = working, rate
    assert (await miner.device().read()).state is state


async def test_a_miner_without_a_summary_is_asleep_where_it_says_so_and_its_watts_unknown(miner: Miner) -> None:
    miner.summary, miner.miner["working"] = None, "false"
    reading = await miner.device().poll()
    assert (reading.state, reading.watts, reading.th_per_s) == (LoadState.ASLEEP, None, None)


@pytest.mark.parametrize("spoilt", [{"power-realtime": -5}, {"hash-realtime": "fast"}, {"power-limit": 1e9}])
async def test_numbers_that_cannot_be_are_garbled(miner: Miner, spoilt: dict[str, Any]) -> None:
    assert miner.summary is not None
    miner.summary |= spoilt
    with pytest.raises(DeviceGarbled):
        await miner.device().poll()


async def test_an_order_is_signed_with_the_miners_own_clock(miner: Miner) -> None:
    miner.clock = 3521
    device = miner.device(MAC)
    assert (await device.apply(SLEEP)).acked
    miner.now += 40.0
    miner.clock += 40
    assert (await device.apply(Order(Verb.WAKE, 0.0))).acked
    assert [(request["param"], request["ts"]) for request in miner.sent()] == [("stop", 3521), ("start", 3561)]


async def test_a_signature_from_before_a_reboot_is_made_anew(miner: Miner) -> None:
    device = miner.device(MAC)
    await device.read()
    miner.salt = "salt0002"
    assert (await device.apply(SLEEP)).acked
    assert len(miner.sent()) == 2


async def test_an_order_that_was_prepared_costs_one_request(miner: Miner) -> None:
    device = miner.device()
    await device.prepare()
    await device.prepare()
    assert len(miner.asked) == 1
    assert (await device.apply(SLEEP)).acked
    assert len(miner.asked) == 2


async def test_a_wrong_password_is_told_after_one_more_try(miner: Miner) -> None:
    miner.password = "another"
    with pytest.raises(CredentialsRejected) as caught:
        await miner.device(MAC).apply(SLEEP)
    assert PASSWORD not in str(caught.value)
    assert len(miner.sent()) == 2


async def test_write_access_that_is_switched_off_is_told_as_such(miner: Miner) -> None:
    device = miner.device(MAC)
    await device.read()
    miner.password, miner.system["apiswitch"] = "another", "0"
    with pytest.raises(NoPermission):
        await device.apply(SLEEP)


async def test_a_failure_is_no_yes_and_not_tried_again(miner: Miner) -> None:
    miner.refusal = (-1, "fail")
    answer = await miner.device(MAC).apply(SLEEP)
    assert not answer.acked
    assert "fail" in answer.detail
    assert len(miner.sent()) == 1


@pytest.mark.parametrize(("watts", "percent"), [(3400.0, "100"), (9000.0, "100"), (2300.0, "67"), (34.0, "1")])
async def test_watts_become_a_percentage_that_never_exceeds_them(miner: Miner, watts: float, percent: str) -> None:
    assert (await miner.device(MAC).apply(Order(Verb.POWER, watts))).acked
    [sent] = miner.sent()
    assert (sent["cmd"], sent["param"]) == ("set.miner.power_percent", {"percent": percent, "mode": "fast"})


async def test_watts_below_one_percent_or_while_it_tunes_are_refused(miner: Miner) -> None:
    device = miner.device(MAC)
    with pytest.raises(DeviceRefused):
        await device.apply(Order(Verb.POWER, 20.0))
    assert miner.summary is not None
    miner.summary["up-freq-finish"] = 0
    with pytest.raises(DeviceRefused):
        await device.apply(Order(Verb.POWER, 2300.0))
    assert miner.sent() == []


async def test_another_device_and_another_protocol_are_told(miner: Miner) -> None:
    with pytest.raises(IdentityMismatch):
        await miner.device("02:00:00:00:00:99").apply(SLEEP)
    assert miner.sent() == []
    miner.system["api"] = "2.0.5"
    with pytest.raises(IdentityMismatch):
        await miner.device().identify()


@pytest.mark.parametrize(
    ("command", "argument"),
    [
        ("set.miner.pools", []),
        ("set.miner.power_limit", 3000),
        ("set.miner.power", 3000),
        ("set.miner.service", "disable"),
        ("set.miner.service", None),
        ("set.system.reboot", None),
        ("set.system.net_config", "dhcp"),
        ("set.user.change_passwd", {}),
        ("get.log.download", None),
    ],
)
async def test_nothing_else_is_ever_sent(miner: Miner, command: str, argument: object) -> None:
    rpc = GuardedRpc(ACCESS, lambda: 0.0)
    rpc.learn("salt0001", None)
    with pytest.raises(UnsafeWrite):
        await rpc.send_command(command, argument)
    assert miner.asked == []


async def test_pyasics_own_methods_are_bounded_too(miner: Miner) -> None:
    rpc = GuardedRpc(ACCESS, lambda: 0.0)
    rpc.learn("salt0001", None)
    for call in (rpc.set_miner_power_limit(3000), rpc.set_system_reboot(), rpc.set_miner_service("restart")):
        with pytest.raises(UnsafeWrite):
            await call
    assert miner.asked == []
