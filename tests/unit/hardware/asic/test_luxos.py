"""LuxOS: captured answers, its one session, and a profile that its thermal management must not exceed.

The driver speaks to the simulated device directly, without sockets, so that every request is seen and time stands still
unless it is moved.
"""

from __future__ import annotations

import csv
import json
import logging
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replay_kit import DATA, captured, replaying

from mullet.domain.command import Verb
from mullet.domain.telemetry import LoadState
from mullet.ports import DeviceGarbled, DeviceRefused, DeviceUnreachable, IdentityMismatch, UnsafeWrite
from mullet_hardware.asic.allowed import AllowedRequest
from mullet_hardware.asic.capability import LUXOS
from mullet_hardware.asic.device import Access, Found, Order
from mullet_hardware.asic.protocol import Reading
from mullet_simulators.faults import Fault
from mullet_simulators.miners import luxos as simulated
from mullet_simulators.miners.luxos_profiles import CURVE
from mullet_simulators.miners.models import MODELS
from mullet_simulators.plant import Plant
from mullet_simulators.scenario import load_scenario
from mullet_simulators.truth import TruthLog

_root = logging.getLogger()
_before = (list(_root.handlers), _root.level)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mullet_hardware.asic.firmware import luxos
    from mullet_hardware.asic.firmware.luxos import GuardedRpc, LuxOs, highest_profile
_root.handlers[:], _root.level = _before

ACCESS = Access("127.0.0.1", 4028, 0, "", "", None)
SLEEP, WAKE = Order(Verb.SLEEP, 0.0), Order(Verb.WAKE, 0.0)
SCENARIO = {"circuits": [{"id": "pdu", "limit_w": 20000}], "price": {"base_per_mwh": 38.0}}


class Bench:
    """One simulated miner that hashes, and a driver that speaks to it."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.asked: list[str] = []
        self.lost: str | None = None
        plant = Plant(load_scenario(SCENARIO), lambda: self.at, TruthLog(lambda: self.at, None))
        self.miner = simulated.LuxOs(plant, MODELS["antminer-s19kpro-luxos"], "a-1", "a", "pdu", "")
        self.miner.begin_hashing()
        self.driver = LuxOs(ACCESS, None, 2794.0, lambda: self.at)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.1)):
            self.at += 0.1
            self.miner.step(0.1, self.at)

    async def exchange(self, host: str, port: int, request: AllowedRequest, whole: Any) -> bytes:
        asked = json.loads(request.payload)
        arguments = str(asked.get("parameter", "")).split(",")
        self.asked.append(" ".join([asked["command"], *arguments[1:]]))
        reply = self.miner.answer_rpc(asked)
        if asked["command"] == self.lost:
            self.lost = None
            raise DeviceUnreachable("its answer was lost")
        assert reply is not None
        return reply.body


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    found = Bench()
    monkeypatch.setattr(luxos, "exchange", found.exchange)
    return found


async def test_captured_answers_of_an_s19k_pro() -> None:
    names = ("version", "summary", "power", "config", "temps", "profiles")
    answers = captured(*(f"asic-rs/luxminer/v1/{name}.json" for name in names))
    async with replaying(dict(zip(names, answers, strict=True))) as replay:
        driver = LuxOs(replay.access, "62f7-5eb7-1046", 2794.0, lambda: 0.0)
        identities = ("62:F7:5E:B7:10:46", "JYZZB0UBDJABF06RB")
        release = "2025.4.8.220305-57b389c7"
        assert await driver.identify() == Found(LUXOS, identities, "Bitmain", "Antminer S19k Pro", release)
        # This power supply tells no watts ("PSU": false): the 1051 W of the capture are the firmware's estimate.
        assert await driver.read() == Reading(
            watts=None,
            limit_watts=1188.0,
            state=LoadState.ACTIVE,
            th_per_s=pytest.approx(59.75606),
            celsius=47.0,
            identity="62f7-5eb7-1046",
        )
        replay.asked.clear()
        assert (await driver.poll()).state is LoadState.ACTIVE
        assert replay.asked == ["summary+power+config"]


def test_the_simulated_curve_is_the_captured_one() -> None:
    path = DATA / "s19kpro_luxos_profiles_curve.csv"
    if not path.is_file():
        pytest.skip("the profile curve, captured by others, is kept outside the project")
    with path.open() as rows:
        real = [(row["profile"], float(row["hashrate_th_s"]), float(row["power_w"])) for row in csv.DictReader(rows)]
    assert [(profile.name, profile.th_per_s, profile.watts) for profile in CURVE] == real


@given(st.dictionaries(st.text("abc", min_size=1), st.floats(1.0, 5000.0), max_size=12), st.floats(0.0, 6000.0))
def test_the_profile_chosen_is_the_highest_that_fits(profiles: dict[str, float], watts: float) -> None:
    chosen = highest_profile(profiles, watts)
    fitting = [power for power in profiles.values() if power <= watts]
    assert (chosen is None) == (not fitting)
    assert chosen is None or profiles[chosen] == max(fitting)


async def test_every_poll_is_one_request_whatever_its_state(bench: Bench) -> None:
    await bench.driver.poll()
    bench.asked.clear()
    assert (await bench.driver.poll()).state is LoadState.ACTIVE
    await bench.driver.apply(SLEEP)
    assert (await bench.driver.poll()).state is LoadState.STOPPING
    bench.run(30.0)
    assert (await bench.driver.poll()).state is LoadState.ASLEEP
    assert [asked for asked in bench.asked if "+" in asked] == ["summary+power+config"] * 3


async def test_an_order_opens_a_session_and_gives_it_back(bench: Bench) -> None:
    assert (await bench.driver.apply(SLEEP)).acked
    assert bench.asked == ["logon", "curtail sleep", "logoff"]
    assert (await bench.driver.apply(WAKE)).acked
    assert bench.miner.open_session()


async def test_a_session_that_another_holds_is_left_to_it(bench: Bench) -> None:
    held = bench.miner.open_session()
    with pytest.raises(DeviceRefused):
        await bench.driver.apply(SLEEP)
    assert bench.miner._holds(held)
    assert bench.miner.state == "hashing"
    assert "session" not in bench.asked


async def test_a_session_of_ours_whose_opening_was_not_answered_is_found_again(bench: Bench) -> None:
    bench.lost = "logon"
    with pytest.raises(DeviceUnreachable):
        await bench.driver.apply(SLEEP)
    bench.at += 5.0
    assert (await bench.driver.apply(SLEEP)).acked
    assert bench.asked == ["logon", "logon", "session", "curtail sleep", "logoff"]


async def test_a_session_from_before_a_reboot_is_opened_anew(bench: Bench) -> None:
    bench.lost = "curtail"
    with pytest.raises(DeviceUnreachable):
        await bench.driver.apply(SLEEP)
    bench.miner.forget_sessions()
    bench.asked.clear()
    assert (await bench.driver.apply(WAKE)).acked
    assert bench.asked == ["curtail wakeup", "logon", "curtail wakeup", "logoff"]


async def test_a_session_whose_end_was_not_answered_is_no_failure(bench: Bench) -> None:
    bench.lost = "logoff"
    assert (await bench.driver.apply(SLEEP)).acked
    assert (await bench.driver.apply(WAKE)).acked


async def test_a_refusal_is_no_yes(bench: Bench) -> None:
    bench.miner.fault = Fault.REFUSE
    answer = await bench.driver.apply(SLEEP)
    assert not answer.acked
    assert answer.detail == "Not permitted"


async def test_watts_are_a_ceiling_for_profile_and_thermal_management(bench: Bench) -> None:
    assert (await bench.driver.apply(Order(Verb.POWER, 2200.0))).acked
    bench.run(20.0)
    assert bench.miner.watts == pytest.approx(2192.0, rel=0.01)
    assert bench.miner.truth()["atm"] is True
    assert bench.miner.truth()["atm_max"] == "490MHz"
    assert (await bench.driver.read()).limit_watts == 2192.0
    assert (await bench.driver.apply(Order(Verb.POWER, 2794.0))).acked
    bench.run(20.0)
    assert bench.miner.watts == pytest.approx(2794.0, rel=0.01)


async def test_a_profile_that_runs_already_is_not_written_again(bench: Bench) -> None:
    await bench.driver.apply(Order(Verb.POWER, 2200.0))
    bench.asked.clear()
    assert (await bench.driver.apply(Order(Verb.POWER, 2250.0))).acked
    assert bench.asked == ["profiles+atm+config"]


async def test_without_thermal_management_it_stays_off(bench: Bench) -> None:
    bench.miner.atm_enabled = False
    assert (await bench.driver.apply(Order(Verb.POWER, 2200.0))).acked
    assert bench.asked[1:] == ["logon", "profileset 490MHz", "logoff"]
    assert not bench.miner.atm_enabled


async def test_thermal_management_that_an_order_left_off_is_on_again_after_the_next(bench: Bench) -> None:
    bench.lost = "profileset"
    with pytest.raises(DeviceUnreachable):
        await bench.driver.apply(Order(Verb.POWER, 2200.0))
    assert not bench.miner.atm_enabled
    assert (await bench.driver.apply(SLEEP)).acked
    assert bench.miner.atm_enabled
    bench.asked.clear()
    await bench.driver.apply(WAKE)
    assert not any(asked.startswith("atmset") for asked in bench.asked)


async def test_below_the_lowest_profile_nothing_is_sent(bench: Bench) -> None:
    with pytest.raises(DeviceRefused):
        await bench.driver.apply(Order(Verb.POWER, 700.0))
    assert bench.asked[-1] == "profiles+atm+config"


async def test_estimated_watts_are_no_reading(bench: Bench) -> None:
    assert (await bench.driver.read()).watts is not None
    bench.miner.psu_measures = False
    assert (await bench.driver.read()).watts is None


@pytest.mark.parametrize(
    ("mode", "rate", "state"),
    [
        ("None", 50_000.0, LoadState.ACTIVE),
        ("None", 0.0, LoadState.STARTING),
        ("Sleep", 0.0, LoadState.ASLEEP),
        ("Sleep", 900.0, LoadState.STOPPING),
        ("Idle", 0.0, None),
        (None, 0.0, None),
        ("None", None, None),
    ],
)
async def test_mining_is_told_by_curtailment_and_hashrate_together(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, mode: str | None, rate: float | None, state: LoadState | None
) -> None:
    def spoilt(section: str, name: str, value: object) -> None:
        real = getattr(bench.miner, f"_{section.lower()}")

        def reader() -> dict[str, Any]:
            answer: dict[str, Any] = real()
            answer[section][0][name] = value
            return answer

        monkeypatch.setattr(bench.miner, f"_{section.lower()}", reader)

    spoilt("CONFIG", "CurtailMode", mode)
    spoilt("SUMMARY", "GHS 5s", rate)
    assert (await bench.driver.read()).state is state


async def test_a_section_that_is_not_given_leaves_its_facts_unknown(
    monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    for section in ("power", "temps", "profiles"):
        refused = bench.miner._refused(14, "not now")
        name = "_profile_list" if section == "profiles" else f"_{section}"
        monkeypatch.setattr(bench.miner, name, lambda refused=refused: refused)
    reading = await bench.driver.read()
    assert (reading.watts, reading.celsius, reading.limit_watts) == (None, None, None)
    assert reading.state is LoadState.ACTIVE


async def test_another_device_is_told(bench: Bench) -> None:
    bench.driver.pin.pinned = "02:00:00:00:00:99"
    for attempt in (bench.driver.read(), bench.driver.poll(), bench.driver.identify(), bench.driver.apply(SLEEP)):
        with pytest.raises(IdentityMismatch):
            await attempt
    assert "logon" not in bench.asked


async def test_what_is_no_luxos_is_told() -> None:
    plain = json.dumps({"STATUS": [{"STATUS": "S"}], "VERSION": [{"API": "3.1", "Type": "Antminer S19"}]}).encode()
    config = json.dumps({"STATUS": [{"STATUS": "S"}], "CONFIG": [{"ASC Count": 3, "MACAddr": "02:1C:0F:1:2:3"}]})
    async with replaying({"version": plain, "config": config.encode()}) as replay:
        with pytest.raises(IdentityMismatch):
            await LuxOs(replay.access, None, 2794.0, lambda: 0.0).identify()
    async with replaying() as replay:
        with pytest.raises(IdentityMismatch):
            await LuxOs(replay.access, None, 2794.0, lambda: 0.0).identify()
    async with replaying({"summary+power+config+profiles": b'{"foo": 1}'}) as replay:
        with pytest.raises(DeviceGarbled):
            await LuxOs(replay.access, None, 2794.0, lambda: 0.0).poll()


@pytest.mark.parametrize(
    "order",
    [
        ("curtail",),
        ("curtail", "reboot"),
        ("rebootdevice",),
        ("resetminer",),
        ("profileset", "490MHz,x"),
        ("frequencyset", 0, 500),
        ("voltageset", 0, 12),
        ("netset",),
        ("updaterun",),
    ],
)
async def test_nothing_else_is_ever_sent(bench: Bench, order: tuple[Any, ...]) -> None:
    rpc = GuardedRpc(ACCESS, lambda: 0.0)
    with pytest.raises(UnsafeWrite):
        await rpc.send_privileged_command(*order)
    with pytest.raises(UnsafeWrite):
        await rpc.send_command(*order)
    assert bench.asked == []


async def test_pyasics_own_methods_are_bounded_too(bench: Bench) -> None:
    rpc = GuardedRpc(ACCESS, lambda: 0.0)
    calls = (
        rpc.addpool("a", "b"),
        rpc.removepool(0),
        rpc.switchpool(1),
        rpc.updaterun(),
        rpc.rebootdevice(),
        rpc.kill(),
        rpc.auth(),
        rpc.logon(),
    )
    for call in calls:
        with pytest.raises(UnsafeWrite):
            await call
    assert bench.asked == []
