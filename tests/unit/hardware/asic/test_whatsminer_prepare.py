"""Tokens fetched ahead: the first order of a shed takes one request, and a token is not fetched at every poll."""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import replace
from typing import Any

import pytest
from replay_kit import captured, replaying

from mullet.domain.command import Verb
from mullet_hardware.asic.device import Access, Order
from mullet_hardware.asic.protocol import Health

# Importing pyasic warns of its own dependencies, and changes the root logger.
_root = logging.getLogger()
_before = (list(_root.handlers), _root.level)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mullet_hardware.asic.firmware import whatsminer_v2
    from mullet_hardware.asic.firmware.whatsminer_v2 import FRESH_TOKEN_S, WhatsminerV2
_root.handlers[:], _root.level = _before

# passlib's own way of calling itself, in pyasic's key derivation.
pytestmark = pytest.mark.filterwarnings("ignore:passing settings to:DeprecationWarning")

ACCESS = Access(host="127.0.0.1", rpc_port=4028, web_port=0, username="", password="admin", barred=None)
TOKEN = {"time": "1234", "salt": "BQ5hoXV9", "newsalt": "abcdefgh"}


class Wire:
    """Answers every request, and remembers what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.now = 0.0
        monkeypatch.setattr(whatsminer_v2, "exchange", self.exchange)

    async def exchange(self, host: str, port: int, request: Any, whole: Any) -> bytes:
        self.asked.append(request.command)
        if request.command == "get_token":
            return json.dumps({"STATUS": "S", "Code": 134, "Msg": TOKEN}).encode()
        return json.dumps({"STATUS": "S", "Code": 131, "Msg": "API command OK"}).encode()

    def device(self, access: Access = ACCESS) -> WhatsminerV2:
        return WhatsminerV2(access, None, 3276.0, lambda: self.now)


async def test_an_order_after_preparation_is_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch)
    miner = wire.device()
    await miner.prepare()
    assert wire.asked == ["get_token"]
    assert (await miner.apply(Order(Verb.SLEEP, 0.0))).acked
    assert wire.asked == ["get_token", "power_off"]


async def test_a_fresh_token_is_kept_and_an_old_one_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch)
    miner = wire.device()
    for now, tokens in ((0.0, 1), (FRESH_TOKEN_S - 1.0, 1), (FRESH_TOKEN_S + 1.0, 2), (FRESH_TOKEN_S + 2.0, 2)):
        wire.now = now
        await miner.prepare()
        assert len(wire.asked) == tokens


async def test_nothing_is_fetched_for_a_miner_that_may_not_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch)
    await wire.device(replace(ACCESS, barred="no password")).prepare()
    assert wire.asked == []


async def test_captured_boards_and_errors_are_its_health(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = "asic-rs/whatsminer/v2"
    devs, well, ill = captured(
        *(f"{folder}/{name}.json" for name in ("devs", "get_error_code", "get_error_code_with_errors"))
    )
    for errors, codes in ((well, ()), (ill, ("218", "110"))):
        async with replaying(rpc={"devs": devs, "get_error_code": errors}) as replay:
            health = await WhatsminerV2(replay.access, None, 3276.0, lambda: 0.0).health()
        assert health == Health(boards=3, celsius=81.0, fan_rpm=5280.0, errors=codes, boards_fitted=3)


def test_a_request_is_made_once() -> None:
    assert whatsminer_v2._question("summary") is whatsminer_v2._question("summary")
