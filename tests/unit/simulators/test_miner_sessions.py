"""How the simulated Whatsminer V3, LuxOS and Auradine refuse: signatures, the one session, tokens."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from mullet_simulators.miners import auradine, luxos, whatsminer_v3
from mullet_simulators.miners.http import HttpReply, HttpRequest
from mullet_simulators.miners.models import MODELS
from mullet_simulators.miners.physics import SimMiner
from mullet_simulators.plant import Plant
from mullet_simulators.scenario import load_scenario
from mullet_simulators.truth import TruthLog

SCENARIO: dict[str, Any] = {"circuits": [{"id": "pdu", "limit_w": 20000}], "price": {"base_per_mwh": 38.0}}
PASSWORD = "secret"
M = TypeVar("M", bound=SimMiner)


class Hand:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.t = 1_700_000_000.0

    def __call__(self) -> float:
        return self.t


def hashing(kind: Callable[..., M], model: str, now: Hand) -> M:
    plant = Plant(load_scenario(SCENARIO), now, TruthLog(now, None))
    miner = kind(plant, MODELS[model], "a-1", "a", "pdu", PASSWORD, 8080)
    miner.begin_hashing()
    return miner


class V3:
    """A Whatsminer V3 and somebody who signs for it."""

    def __init__(self) -> None:
        self.now = Hand()
        self.miner = hashing(whatsminer_v3.WhatsminerV3, "whatsminer-m60s-v3", self.now)

    def salt(self) -> str:
        answer = self.miner.answer_framed({"cmd": "get.device.info", "param": "salt"})
        assert answer is not None
        return str(answer["msg"]["salt"])

    def order(self, salt: str, password: str = PASSWORD, age_s: float = 0.0, **changes: Any) -> int:
        at = int(self.now() - age_s)
        digest = hashlib.sha256(f"set.miner.service{password}{salt}{at}".encode()).digest()
        signed = {"ts": at, "account": "super", "token": base64.b64encode(digest).decode()[:8]}
        answer = self.miner.answer_framed({"cmd": "set.miner.service", "param": "stop", **signed, **changes})
        assert answer is not None
        return int(answer["code"])


def test_v3_takes_what_is_signed_for_now() -> None:
    v3 = V3()
    assert v3.order(v3.salt()) == whatsminer_v3.OK
    assert v3.miner.state == "stopping"


@pytest.mark.parametrize("age_s", [61.0, -62.0, 3600.0])
def test_v3_refuses_another_time(age_s: float) -> None:
    v3 = V3()
    assert v3.order(v3.salt(), age_s=age_s) == whatsminer_v3.DENIED
    assert v3.miner.state == "hashing"


@pytest.mark.parametrize("changes", [{"token": "AAAAAAAA"}, {"account": "admin"}, {"ts": "now"}, {"token": None}])
def test_v3_refuses_a_bad_signature(changes: dict[str, Any]) -> None:
    v3 = V3()
    assert v3.order(v3.salt(), **changes) == whatsminer_v3.DENIED
    assert v3.order(v3.salt(), password="guess") == whatsminer_v3.DENIED
    assert v3.miner.state == "hashing"


def test_v3_forgets_its_salt_with_a_reboot() -> None:
    v3 = V3()
    salt = v3.salt()
    v3.miner.command_reboot()
    assert v3.order(salt) == whatsminer_v3.DENIED
    assert v3.order(v3.salt()) == whatsminer_v3.OK


def test_v3_takes_no_orders_before_that_is_switched_on() -> None:
    v3 = V3()
    v3.miner.takes_orders = False
    assert v3.order(v3.salt()) == whatsminer_v3.DENIED


class Lux:
    """A LuxOS miner and what it says."""

    def __init__(self) -> None:
        self.now = Hand()
        self.miner = hashing(luxos.LuxOs, "antminer-s19kpro-luxos", self.now)

    def ask(self, command: str, parameter: str | None = None) -> dict[str, Any]:
        asked = {"command": command} if parameter is None else {"command": command, "parameter": parameter}
        reply = self.miner.answer_rpc(asked)
        assert reply is not None
        answer: dict[str, Any] = json.loads(reply.body.rstrip(b"\0"))
        return answer

    def code(self, command: str, parameter: str | None = None) -> int:
        return int(self.ask(command, parameter)["STATUS"][0]["Code"])

    def logon(self) -> str:
        return str(self.ask("logon")["SESSION"][0]["SessionID"])


def test_luxos_grants_one_session_at_a_time() -> None:
    lux = Lux()
    session = lux.logon()
    assert lux.code("logon") == luxos.TAKEN
    assert lux.ask("session")["SESSION"][0]["SessionID"] == session
    assert lux.code("curtail", "another,sleep") == luxos.LOST_SESSION
    assert lux.miner.state == "hashing"
    assert lux.code("curtail", f"{session},sleep") == 335
    assert lux.code("logoff", session) == 317
    assert lux.code("curtail", f"{session},wakeup") == luxos.LOST_SESSION
    assert lux.logon() != session


def test_a_luxos_session_ends_a_minute_after_its_last_use_and_with_a_reboot() -> None:
    lux = Lux()
    session = lux.logon()
    lux.now.t += 59.0
    assert lux.code("curtail", f"{session},sleep") == 335
    lux.now.t += 59.0
    assert lux.code("logon") == luxos.TAKEN
    lux.now.t += 2.0
    session = lux.logon()
    lux.miner.command_reboot()
    assert lux.code("curtail", f"{session},sleep") == luxos.LOST_SESSION


def test_luxos_changes_no_profile_while_its_thermal_management_is_on() -> None:
    lux = Lux()
    session = lux.logon()
    assert lux.code("profileset", f"{session},490MHz") == luxos.BAD_ARGUMENT
    assert lux.code("atmset", f"{session},enabled=false") == 340
    assert lux.code("profileset", f"{session},490MHz") == 321
    assert lux.miner.target_w == pytest.approx(2192.0)


def test_luxos_joins_reads_but_no_orders() -> None:
    lux = Lux()
    joined = lux.ask("summary+power")
    assert joined["summary"][0]["SUMMARY"]
    assert joined["power"][0]["POWER"]
    assert lux.code("summary+curtail", "x,sleep") == luxos.BAD_ARGUMENT
    assert lux.ask("summary+curtail")["curtail"][0]["STATUS"][0]["STATUS"] == "E"
    assert lux.miner.state == "hashing"


class Aura:
    """An Auradine and what its web interface says."""

    def __init__(self) -> None:
        self.now = Hand()
        self.miner = hashing(auradine.Auradine, "auradine-at2880", self.now)

    def ask(self, method: str, path: str, token: str = "", body: dict[str, Any] | None = None) -> HttpReply:
        sent = b"" if body is None else json.dumps(body).encode()
        reply = self.miner.answer_http(HttpRequest(method, path, {"token": token}, sent))
        assert reply is not None
        return reply

    def token(self, password: str = PASSWORD) -> HttpReply:
        return self.ask("POST", "/token", body={"command": "token", "user": "admin", "password": password})


def test_auradine_says_nothing_and_does_nothing_without_a_token() -> None:
    aura = Aura()
    for method, path in (("GET", "/mode"), ("GET", "/psu"), ("GET", "/ipreport"), ("POST", "/mode")):
        for token in ("", "guess"):
            assert aura.ask(method, path, token, {"command": "mode", "sleep": "on"}).status == 401
    assert aura.token("guess").status == 401
    assert aura.miner.state == "hashing"


def test_auradine_forgets_its_tokens_with_a_reboot_and_in_time() -> None:
    aura = Aura()

    def fresh() -> str:
        return str(json.loads(aura.token().body)["Token"][0]["Token"])

    token = fresh()
    assert aura.ask("GET", "/mode", token).status == 200
    aura.miner.command_reboot()
    assert aura.ask("GET", "/mode", token).status == 401
    token = fresh()
    aura.now.t += auradine.TOKEN_LIFE_S + 1.0
    assert aura.ask("GET", "/mode", token).status == 401
