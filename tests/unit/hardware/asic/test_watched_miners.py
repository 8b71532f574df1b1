"""Antminers of old and AxeOS: what they tell, what they do not, and that nothing is asked of them."""

from __future__ import annotations

import json
import logging
import warnings
from typing import Any

import pytest
from replay_kit import Replay, replaying

from mullet.domain.command import Verb
from mullet.domain.telemetry import LoadState
from mullet.ports import DeviceGarbled, DeviceRefused, IdentityMismatch
from mullet_hardware.asic.device import Order
from mullet_hardware.asic.firmware.axeos import AxeOs
from mullet_hardware.asic.protocol import Reading

_root = logging.getLogger()
_before = (list(_root.handlers), _root.level)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mullet_hardware.asic.firmware.antminer_old import AntminerOld
_root.handlers[:], _root.level = _before

PAGE = "GET /cgi-bin/get_system_info.cgi"
INFO = {"minertype": "Antminer S9", "macaddr": "02:0a:5e:00:00:01", "bmminer_version": "2.0.0"}
STATS = b'{"STATUS": [{"STATUS": "S"}], "STATS": [{"Type": "Antminer S9"}{"temp5": 0, "temp6": 61, "temp7": 64}]}'


def summary(rate: object) -> bytes:
    return json.dumps({"STATUS": [{"STATUS": "S"}], "SUMMARY": [{"GHS 5s": rate}]}).encode()


def old(replay: Replay, pinned: str | None = None) -> AntminerOld:
    return AntminerOld(replay.access, pinned, 1323.0, lambda: 0.0)


def axe(replay: Replay, pinned: str | None = None) -> AxeOs:
    return AxeOs(replay.access, pinned, 72.0, lambda: 0.0)


def axe_page(**fields: Any) -> dict[str, bytes]:
    info = {"ASICModel": "BM1370", "macAddr": "02:a8:e0:00:00:01", "version": "v2.9.0", "hashRate": 1180.4} | fields
    return {"GET /api/system/info": json.dumps(info).encode()}


async def test_rates_as_text_and_a_missing_comma_are_read() -> None:
    async with replaying({"summary": summary("13498.71"), "stats": STATS}) as replay:
        assert await old(replay).read() == Reading(
            state=LoadState.ACTIVE, th_per_s=pytest.approx(13.49871), celsius=64.0
        )
        replay.asked.clear()
        assert (await old(replay).poll()).th_per_s == pytest.approx(13.49871)
        assert replay.asked == ["summary"]


@pytest.mark.parametrize("rate", ["0.00", 0, None, ""])
async def test_without_a_hashrate_the_state_of_an_old_antminer_is_not_known(rate: object) -> None:
    async with replaying({"summary": summary(rate)}) as replay:
        reading = await old(replay).read()
        assert reading.state is None
        assert reading.th_per_s in (None, 0.0)
        assert reading.celsius is None


@pytest.mark.parametrize(
    ("info", "error"),
    [
        ({"minertype": "Antminer S19"}, IdentityMismatch),
        ({"minertype": "Antminer S9 (vnish 3.9.0)", "bmminer_version": "2.0.0"}, IdentityMismatch),
        ({"minertype": "Whatsminer", "bmminer_version": "2.0.0"}, IdentityMismatch),
        ({}, DeviceGarbled),
        ({"minertype": "Antminer S9", "bmminer_version": "2.0.0"}, DeviceGarbled),
    ],
)
async def test_another_device_is_no_old_antminer(info: dict[str, str], error: type[Exception]) -> None:
    async with replaying(web={PAGE: json.dumps(info).encode()}) as replay:
        with pytest.raises(error):
            await old(replay).identify()
    async with replaying() as replay:
        with pytest.raises(IdentityMismatch):
            await old(replay).identify()


async def test_an_old_antminer_of_another_mac_is_not_read() -> None:
    async with replaying({"summary": summary(1.0)}, {PAGE: json.dumps(INFO).encode()}) as replay:
        assert (await old(replay, "020A5E000001").poll()).identity == "020A5E000001"
        with pytest.raises(IdentityMismatch):
            await old(replay, "020A5E000002").poll()


@pytest.mark.parametrize("verb", list(Verb))
async def test_what_is_only_watched_refuses_and_asks_nothing(verb: Verb) -> None:
    async with replaying() as replay:
        for device in (old(replay), axe(replay)):
            with pytest.raises(DeviceRefused):
                await device.apply(Order(verb, 50.0, "low"))
        assert replay.asked == []


async def test_a_nerdaxe_tells_its_own_model() -> None:
    async with replaying(web=axe_page(deviceModel="NerdQAxe++")) as replay:
        found = await axe(replay).identify()
        assert (found.make, found.model) == ("NerdAxe", "NerdQAxe++")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"power": 17.2, "temp": 58.25}, Reading(17.2, None, LoadState.ACTIVE, pytest.approx(1.1804), 58.25)),
        ({"temp": -1}, Reading(state=LoadState.ACTIVE, th_per_s=pytest.approx(1.1804))),
        ({"hashRate": 0, "power": 4.0}, Reading(watts=4.0, th_per_s=0.0)),
        ({"hashRate": None}, Reading()),
    ],
)
async def test_what_axeos_does_not_tell_is_not_known(fields: dict[str, Any], expected: Reading) -> None:
    async with replaying(web=axe_page(**fields)) as replay:
        reading = await axe(replay).read()
        assert reading.identity == "02:A8:E0:00:00:01"
        assert Reading(*(getattr(reading, name) for name in reading.__slots__[:5])) == expected
        assert replay.asked == ["GET /api/system/info"]


async def test_axeos_that_is_not_who_it_should_be_is_not_read() -> None:
    async with replaying(web=axe_page()) as replay:
        with pytest.raises(IdentityMismatch):
            await axe(replay, "02A8E0000002").read()
    async with replaying(web=axe_page(macAddr="")) as replay:
        for call in (axe(replay, "02A8E0000002").read(), axe(replay).identify()):
            with pytest.raises(DeviceGarbled):
                await call
    async with replaying(web=axe_page(ASICModel="")) as replay:
        with pytest.raises(DeviceGarbled):
            await axe(replay).read()
    async with replaying() as replay:
        with pytest.raises(IdentityMismatch):
            await axe(replay).identify()
