"""Auradine: tokens, what may be posted, what is told of mining; against the simulated device, without sockets."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import pytest

from mullet.domain.command import Verb
from mullet.domain.telemetry import LoadState
from mullet.ports import CredentialsRejected, DeviceGarbled, DeviceRefused, IdentityMismatch, UnsafeWrite
from mullet_hardware.asic.allowed import AllowedRequest, Channel, allow
from mullet_hardware.asic.capability import AURADINE
from mullet_hardware.asic.device import Access, Found, Order
from mullet_hardware.asic.transport import ConnectionRefused
from mullet_hardware.asic.web import HttpAnswer
from mullet_simulators.faults import Fault
from mullet_simulators.miners import auradine as simulated
from mullet_simulators.miners.http import HttpRequest
from mullet_simulators.miners.models import MODELS
from mullet_simulators.plant import Plant
from mullet_simulators.scenario import load_scenario
from mullet_simulators.truth import TruthLog

_root = logging.getLogger()
_before = (list(_root.handlers), _root.level)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mullet_hardware.asic.firmware import auradine
    from mullet_hardware.asic.firmware.auradine import Auradine, GuardedWeb, is_order
_root.handlers[:], _root.level = _before

PASSWORD = "correct horse"
ACCESS = Access("127.0.0.1", 4028, 8080, "admin", PASSWORD, None)
SLEEP, WAKE = Order(Verb.SLEEP, 0.0), Order(Verb.WAKE, 0.0)
SCENARIO = {"circuits": [{"id": "pdu", "limit_w": 20000}], "price": {"base_per_mwh": 38.0}}


class Bench:
    """One simulated miner that hashes, and a driver that speaks to it."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.asked: list[str] = []
        self.posted: list[dict[str, Any]] = []
        self.rpc_rests = False
        self.spoilt: dict[str, tuple[int, bytes]] = {}
        plant = Plant(load_scenario(SCENARIO), lambda: self.at, TruthLog(lambda: self.at, None))
        self.miner = simulated.Auradine(plant, MODELS["auradine-at2880"], "a-1", "a", "pdu", PASSWORD, 8080)
        self.miner.begin_hashing()
        self.driver = Auradine(ACCESS, None, 4160.0, lambda: self.at)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.1)):
            self.at += 0.1
            self.miner.step(0.1, self.at)

    async def exchange(self, host: str, port: int, request: AllowedRequest, whole: Any) -> bytes:
        self.asked.append(request.command)
        if self.rpc_rests:
            raise ConnectionRefused("nothing listens")
        reply = self.miner.answer_rpc(json.loads(request.payload))
        assert reply is not None
        return reply.body

    async def fetch(
        self, firmware: str, host: str, port: int, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> HttpAnswer:
        self.asked.append(allow(firmware, Channel.WEB, f"{method} {path}").command)
        if body:
            self.posted.append(json.loads(body))
        if path in self.spoilt:
            return HttpAnswer(self.spoilt[path][0], {}, self.spoilt[path][1])
        sent = {name.lower(): value for name, value in headers.items()}
        reply = self.miner.answer_http(HttpRequest(method, path, sent, body))
        assert reply is not None
        return HttpAnswer(reply.status, reply.headers, reply.body)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    found = Bench()
    monkeypatch.setattr(auradine, "exchange", found.exchange)
    monkeypatch.setattr(auradine, "fetch", found.fetch)
    return found


async def test_who_it_is_and_what_it_tells(bench: Bench) -> None:
    found = await bench.driver.identify()
    identities = (bench.miner.mac.upper(), bench.miner.serial)
    assert found == Found(AURADINE, identities, "Auradine", "AT2880", simulated.FIRMWARE)
    bench.run(1.0)
    reading = await bench.driver.read()
    assert reading.watts == pytest.approx(bench.miner.watts, abs=0.1)
    assert reading.th_per_s == pytest.approx(260.0, rel=0.02)
    assert (reading.state, reading.limit_watts) == (LoadState.ACTIVE, None)


async def test_a_miner_that_plainly_hashes_is_asked_for_rate_and_watts_only(bench: Bench) -> None:
    await bench.driver.poll()
    bench.asked.clear()
    assert (await bench.driver.poll()).state is LoadState.ACTIVE
    assert bench.asked == ["summary", "GET /psu"]


async def test_sleep_and_wake_are_answered_and_seen(bench: Bench) -> None:
    assert (await bench.driver.apply(SLEEP)).acked
    assert (await bench.driver.poll()).state is LoadState.STOPPING
    bench.run(30.0)
    assert (await bench.driver.poll()).state is LoadState.ASLEEP
    assert (await bench.driver.apply(WAKE)).acked
    assert (await bench.driver.poll()).state is LoadState.STARTING
    assert bench.posted[1:] == [{"command": "mode", "sleep": "on"}, {"command": "mode", "sleep": "off"}]


async def test_a_miner_whose_rpc_rests_is_asleep_only_where_it_says_so(bench: Bench) -> None:
    bench.rpc_rests = True
    with pytest.raises(ConnectionRefused):
        await bench.driver.read()
    bench.miner.command_stop()
    assert (await bench.driver.read()).state is LoadState.ASLEEP


async def test_watts_are_a_ceiling_in_whole_watts(bench: Bench) -> None:
    assert (await bench.driver.apply(Order(Verb.POWER, 2800.9))).acked
    assert bench.posted[-1] == {"command": "mode", "mode": "custom", "tune": "power", "power": 2800}
    bench.run(10.0)
    reading = await bench.driver.read()
    assert reading.limit_watts == 2800.0
    assert reading.watts == pytest.approx(2800.0, rel=0.01)


async def test_an_order_that_the_device_refuses_is_no_yes(bench: Bench) -> None:
    answer = await bench.driver.apply(Order(Verb.POWER, 500.0))
    assert not answer.acked
    assert answer.detail == "Power out of range"
    bench.miner.fault = Fault.REFUSE
    assert not (await bench.driver.apply(SLEEP)).acked
    with pytest.raises(DeviceRefused):
        await bench.driver.apply(Order(Verb.POWER, 0.4))


async def test_a_token_is_asked_for_once_and_anew_after_a_reboot(bench: Bench) -> None:
    await bench.driver.prepare()
    await bench.driver.prepare()
    await bench.driver.read()
    assert bench.asked.count("POST /token") == 1
    bench.miner.forget_sessions()
    bench.asked.clear()
    assert (await bench.driver.apply(SLEEP)).acked
    assert bench.asked == ["POST /mode", "POST /token", "POST /mode"]


async def test_a_token_that_is_too_old_is_renewed(bench: Bench) -> None:
    await bench.driver.read()
    bench.at += simulated.TOKEN_LIFE_S + 1.0
    assert (await bench.driver.read()).state is LoadState.ACTIVE


async def test_a_refused_token_may_be_told_in_words(bench: Bench) -> None:
    await bench.driver.read()
    said = {"STATUS": [{"STATUS": "E", "Code": 45, "Msg": "Access denied: token expired"}]}
    bench.spoilt["/psu"] = (200, json.dumps(said).encode())
    bench.asked.clear()
    with pytest.raises(CredentialsRejected):
        await bench.driver.read()
    assert bench.asked.count("POST /token") == 1


async def test_a_wrong_password_is_told_and_never_shown(bench: Bench) -> None:
    bench.miner.fault = Fault.WRONG_PASSWORD
    for attempt in (bench.driver.read(), bench.driver.apply(SLEEP), bench.driver.prepare()):
        with pytest.raises(CredentialsRejected) as caught:
            await attempt
        assert PASSWORD not in str(caught.value)
    assert bench.miner.state == "hashing"


@pytest.mark.parametrize("token", [b'{"STATUS": [{"STATUS": "S"}], "Token": [{}]}', b'{"foo": 1}', b"<html>"])
async def test_a_token_that_is_none_is_garbled(bench: Bench, token: bytes) -> None:
    bench.spoilt["/token"] = (200, token)
    with pytest.raises(DeviceGarbled):
        await bench.driver.read()


async def test_a_token_cannot_add_headers(bench: Bench) -> None:
    forged = {"STATUS": [{"STATUS": "S"}], "Token": [{"Token": "a\r\nX: y"}]}
    bench.spoilt["/token"] = (200, json.dumps(forged).encode())
    with pytest.raises(DeviceGarbled):
        await bench.driver.read()


@pytest.mark.parametrize(
    ("told", "watts"), [("3300.5W", 3300.5), ("3300 W", 3300.0), (3300, 3300.0), ("", None), (None, None)]
)
async def test_watts_are_what_goes_into_the_power_supply(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, told: object, watts: float | None
) -> None:
    monkeypatch.setattr(bench.miner, "_psu", lambda: bench.miner._listed("PSU", [{"PowerIn": told}]))
    assert (await bench.driver.read()).watts == watts


@pytest.mark.parametrize("told", ["lots", "-5W", "nanW"])
async def test_watts_that_cannot_be_are_garbled(monkeypatch: pytest.MonkeyPatch, bench: Bench, told: str) -> None:
    monkeypatch.setattr(bench.miner, "_psu", lambda: bench.miner._listed("PSU", [{"PowerIn": told}]))
    with pytest.raises(DeviceGarbled):
        await bench.driver.read()


@pytest.mark.parametrize(
    ("sleep", "hashing", "resting"),
    [
        ("off", LoadState.ACTIVE, LoadState.STARTING),
        ("on", LoadState.STOPPING, LoadState.ASLEEP),
        ("?", LoadState.ACTIVE, None),
    ],
)
async def test_mining_is_told_by_mode_and_hashrate_together(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, sleep: str, hashing: LoadState, resting: LoadState | None
) -> None:
    monkeypatch.setattr(bench.miner, "_mode_now", lambda: bench.miner._listed("Mode", [{"Sleep": sleep}]))
    assert (await bench.driver.read()).state is hashing
    bench.miner._th_5s = 0.0
    assert (await bench.driver.read()).state is resting


async def test_another_device_is_told_and_not_written_to(bench: Bench) -> None:
    bench.driver.pin.pinned = "02:00:00:00:00:99"
    for attempt in (bench.driver.read(), bench.driver.identify(), bench.driver.apply(SLEEP)):
        with pytest.raises(IdentityMismatch):
            await attempt
    assert "POST /mode" not in bench.asked
    bench.spoilt["/ipreport"] = (404, b"<html>404 Not Found</html>")
    with pytest.raises(IdentityMismatch):
        await bench.driver.identify()


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"sleep": "maybe"},
        {"sleep": "on", "mode": "turbo"},
        {"mode": "turbo"},
        {"mode": "custom", "tune": "ths", "ths": 200},
        {"mode": "custom", "tune": "power", "power": 2500.5},
        {"mode": "custom", "tune": "power", "power": True},
        {"mode": "custom", "tune": "power", "power": -1},
        {"mode": "custom", "tune": "power", "power": 2500, "persistStandby": "on"},
    ],
)
async def test_only_sleep_and_power_can_be_set(bench: Bench, setting: dict[str, Any]) -> None:
    assert not is_order(setting)
    if setting:
        with pytest.raises(UnsafeWrite):
            await GuardedWeb(ACCESS).set_mode(**setting)
    assert bench.asked == []


async def test_pyasics_own_methods_are_bounded_too(bench: Bench) -> None:
    web = GuardedWeb(ACCESS)
    calls = (
        web.reboot(),
        web.restart_gcminer(),
        web.factory_reset(),
        web.firmware_upgrade(),
        web.set_network(ip="10.0.0.1"),
        web.password("other"),
        web.set_fan(1, 100),
        web.get_network(),
    )
    for call in calls:
        with pytest.raises(UnsafeWrite):
            await call
    assert bench.asked == []
