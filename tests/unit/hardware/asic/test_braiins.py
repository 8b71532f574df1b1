"""Braiins OS: what is asked when, what may leave at all, and what a message's 0 and its absence mean."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from replay_kit import HOST, captured, replaying

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
from mullet.testing.leaks import no_leaks
from mullet_hardware.asic import grpc as calls
from mullet_hardware.asic.capability import BRAIINS
from mullet_hardware.asic.device import Access, Found, Order, within
from mullet_hardware.asic.protocol import Reading
from mullet_simulators.faults import Fault
from mullet_simulators.miners.connections import Connections
from mullet_simulators.miners.grpc import GrpcProtocol, GrpcReply
from mullet_simulators.miners.protobuf import encode

_root = logging.getLogger()
_before = (list(_root.handlers), _root.level)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pyasic.web.braiins_os.boser import BOSMinerGRPCStub
    from pyasic.web.braiins_os.proto.braiins.bos.v1 import (
        GetMinerDetailsResponse,
        GetMinerStatsResponse,
        GetTunerStateResponse,
        SetPowerTargetRequest,
    )

    from mullet_hardware.asic.firmware.braiins import LOGIN, Braiins, GuardedWeb
_root.handlers[:], _root.level = _before

SERVICE = "/braiins.bos.v1."
DETAILS = f"{SERVICE}MinerService/GetMinerDetails"
STATS = f"{SERVICE}MinerService/GetMinerStats"
TUNER = f"{SERVICE}PerformanceService/GetTunerState"
PAUSE = f"{SERVICE}ActionsService/PauseMining"
TARGET = f"{SERVICE}PerformanceService/SetPowerTarget"
MAC = "02:EE:DA:00:00:01"
PASSWORD = "correct horse battery staple"
ACCESS = Access(HOST, 0, 0, "root", PASSWORD, None)
NORMAL, PAUSED = 2, 3


def details(status: int, mac: str = MAC) -> bytes:
    return encode([(2, encode([(1, 1), (3, "Antminer S19 XP")])), (5, encode([(1, "25.07")])), (7, mac), (12, status)])


@dataclass
class Boser:
    """A gRPC device of a few answers; every call but the login needs the last token given out."""

    answers: dict[str, bytes | GrpcReply] = field(default_factory=dict)
    life_s: int = 3600
    fault: str = Fault.OK
    token: str = ""
    logins: int = 0
    called: list[str] = field(default_factory=list)
    said: list[bytes] = field(default_factory=list)
    silent: bool = False

    def is_reachable(self, now: float) -> bool:
        return True

    def now(self) -> float:
        return 0.0

    def answer_grpc(self, path: str, metadata: dict[str, str], message: bytes) -> GrpcReply | None:
        self.called.append(path.rpartition("/")[2])
        self.said.append(message)
        if self.silent:
            return None
        if path == LOGIN:
            if message != encode([(1, "root"), (2, PASSWORD)]):
                return GrpcReply(status=16, text="wrong")
            self.logins += 1
            self.token = f"token-{self.logins}"
            return GrpcReply(encode([(2, self.life_s)]), metadata={"authorization": self.token})
        if metadata.get("authorization") != self.token:
            return GrpcReply(status=16, text="who are you?")
        answer = self.answers.get(path, GrpcReply(status=12, text="no such method"))
        return answer if isinstance(answer, GrpcReply) else GrpcReply(answer)


@asynccontextmanager
async def serving(boser: Boser, latency_s: float = 0.0) -> AsyncIterator[int]:
    """The device at a port of its own."""
    connections, loop = Connections(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: GrpcProtocol(boser, connections, latency_s), HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        connections.abort()
        await server.wait_closed()


class Bench:
    """A driver between a replayed RPC and a gRPC device; `at` is its clock."""

    def __init__(self, boser: Boser, braiins: Braiins, asked: list[str]) -> None:
        self.boser = boser
        self.braiins = braiins
        self.asked = asked
        self.at = 0.0


@asynccontextmanager
async def bench(
    rpc: dict[str, Any], answers: dict[str, bytes | GrpcReply], password: str = PASSWORD, **boser: Any
) -> AsyncIterator[Bench]:
    device = Boser(answers, **boser)
    said = {name: value if isinstance(value, bytes) else json.dumps(value).encode() for name, value in rpc.items()}
    async with serving(device) as port, replaying(said) as replay:
        made: list[Bench] = []
        access = replace(replay.access, web_port=port, password=password)
        braiins = Braiins(access, None, 3000.0, lambda: made[0].at)
        made.append(Bench(device, braiins, replay.asked))
        yield made[0]


def rpc(th_per_s: float = 140.0, **tuner: Any) -> dict[str, Any]:
    ok = [{"STATUS": "S"}]
    told = {"ApproximateMinerPowerConsumption": 3000, "PowerLimit": 3010} | tuner
    return {
        "summary": {"STATUS": ok, "SUMMARY": [{"MHS 5s": th_per_s * 1e6}]},
        "tunerstatus": {"STATUS": ok, "TUNERSTATUS": [told]},
        "temps": {"STATUS": ok, "TEMPS": [{"Board": 61.0, "Chip": 75.0}, {"Board": 63.5, "Chip": 80.0}]},
        "version": {"STATUS": ok, "VERSION": [{"API": "3.7", "BOSer": "boser 1"}]},
    }


HASHING = Reading(watts=3000.0, limit_watts=3010.0, state=LoadState.ACTIVE, th_per_s=140.0, celsius=63.5)


async def test_no_method_of_pyasic_is_in_reach_but_those_of_the_list() -> None:
    boser = Boser()
    async with serving(boser) as port:
        web = GuardedWeb(replace(ACCESS, web_port=port), lambda: 0.0)
        passed = set()
        for name, method in inspect.getmembers(BOSMinerGRPCStub, inspect.isfunction):
            if name.startswith("_"):
                continue
            boser.called.clear()
            # A method with many answers is an asynchronous generator, which nobody here runs.
            request = list(inspect.signature(method).parameters.values())[1].annotation
            kind = getattr(inspect.getmodule(method), str(request).strip("'\""))
            try:
                await web.ask(name, kind())
            except (UnsafeWrite, TypeError):
                assert not boser.called, f"{name} was refused after something was sent"
            except (DeviceRefused, CredentialsRejected):
                passed.add(name)
    assert passed == {
        "get_miner_details",
        "get_miner_stats",
        "get_tuner_state",
        "login",
        "pause_mining",
        "resume_mining",
        "set_power_target",
    }


@pytest.mark.parametrize(
    "ask",
    [
        lambda web: web.set_password("x"),
        lambda web: web.reboot(),
        lambda web: web.restart(),
        lambda web: web.set_default_power_target(),
        lambda web: web.set_immersion_mode(True),
        lambda web: web.get_pool_groups(),
    ],
)
async def test_pyasics_own_methods_are_refused_before_anything_is_sent(ask: Callable[[Any], Any]) -> None:
    boser = Boser()
    async with serving(boser) as port:
        with pytest.raises(UnsafeWrite):
            await ask(GuardedWeb(replace(ACCESS, web_port=port), lambda: 0.0))
    assert not boser.called


async def test_a_settled_miner_costs_one_request_and_no_call() -> None:
    async with bench(rpc(), {DETAILS: details(NORMAL)}) as it:
        assert await it.braiins.poll() == HASHING
        assert it.asked == ["summary+tunerstatus+temps"]
        assert not it.boser.called


async def test_after_an_order_the_state_is_asked_for_a_while() -> None:
    async with bench(rpc(), {DETAILS: details(PAUSED), PAUSE: b""}) as it:
        assert (await it.braiins.apply(Order(Verb.SLEEP, 0.0))).acked
        assert it.boser.called == ["Login", "GetMinerDetails", "PauseMining"]
        assert (await it.braiins.poll()).state is LoadState.STOPPING
        assert it.boser.called[3:] == ["GetMinerDetails"]
        it.at = 100.0
        assert (await it.braiins.poll()).state is LoadState.ACTIVE
        assert len(it.boser.called) == 4


@pytest.mark.parametrize(
    ("status", "th_per_s", "state"),
    [
        (PAUSED, 0.0, LoadState.ASLEEP),
        (PAUSED, 5.0, LoadState.STOPPING),
        (NORMAL, 0.0, LoadState.STARTING),
        (NORMAL, 140.0, LoadState.ACTIVE),
        (5, 0.0, LoadState.STARTING),
        (0, 0.0, None),
        (1, 0.0, None),
        (4, 0.0, None),
        (9, 0.0, None),
    ],
)
async def test_state_is_told_by_status_and_rate_together(status: int, th_per_s: float, state: LoadState | None) -> None:
    async with bench(rpc(th_per_s), {DETAILS: details(status)}) as it:
        assert (await it.braiins.read()).state is state


async def test_zero_watts_are_zero_and_absent_ones_unknown() -> None:
    nothing = {"ApproximateMinerPowerConsumption": None, "PowerLimit": None}
    zero = encode([(3, encode([(1, b"")]))])
    target = encode([(1, 2), (2, encode([(2, encode([(1, 2500)]))]))])
    answers = {DETAILS: details(PAUSED), STATS: zero, TUNER: target}
    async with bench(rpc(0.0, **nothing), answers) as it:
        reading = await it.braiins.read()
        assert (reading.watts, reading.limit_watts) == (0.0, 2500.0)
        it.boser.answers |= {STATS: b"", TUNER: encode([(1, 2), (3, encode([(2, b"")]))])}
        reading = await it.braiins.read()
        assert (reading.watts, reading.limit_watts) == (None, None)
    async with bench(rpc(0.0, ApproximateMinerPowerConsumption=0), {DETAILS: details(PAUSED)}) as it:
        assert (await it.braiins.read()).watts == 0.0


async def test_without_tunerstatus_watts_and_limit_come_over_grpc() -> None:
    old = rpc()
    old["tunerstatus"] = {"STATUS": [{"STATUS": "E", "Code": 14, "Msg": "Invalid command"}]}
    old["temps"] = old["tunerstatus"]
    stats = encode([(3, encode([(1, encode([(1, 2950)]))]))])
    answers: dict[str, bytes | GrpcReply] = {STATS: stats, TUNER: encode([(2, encode([(2, encode([(1, 3010)]))]))])}
    async with bench(old, answers) as it:
        assert await it.braiins.poll() == replace(HASHING, watts=2950.0, celsius=None)
        assert it.boser.called == ["Login", "GetMinerStats", "GetTunerState"]


async def test_a_token_is_kept_as_long_as_it_is_in_force() -> None:
    async with bench(rpc(), {DETAILS: details(NORMAL)}, life_s=600) as it:
        for it.at, logins in ((0.0, 1), (500.0, 1), (541.0, 2)):
            await it.braiins.read()
            assert it.boser.logins == logins
        it.boser.token = "lost in a reboot"
        await it.braiins.read()
        assert it.boser.logins == 3
        assert it.boser.called[-3:] == ["GetMinerDetails", "Login", "GetMinerDetails"]


async def test_a_wrong_password_is_told_without_telling_it() -> None:
    async with bench(rpc(), {DETAILS: details(NORMAL)}, "a guess") as it:
        with pytest.raises(CredentialsRejected) as caught:
            await it.braiins.apply(Order(Verb.SLEEP, 0.0))
        assert "guess" not in str(caught.value)
        assert it.boser.called == ["Login"]
        # What is told without a password is read on.
        assert await it.braiins.poll() == HASHING


async def test_a_power_target_is_a_ceiling_in_whole_watts() -> None:
    async with bench(rpc(), {DETAILS: details(NORMAL), TARGET: encode([(1, encode([(1, 2499)]))])}) as it:
        assert (await it.braiins.apply(Order(Verb.POWER, 2499.9))).acked
        request = SetPowerTargetRequest().parse(it.boser.said[-1])
        assert (int(request.save_action), request.power_target.watt) == (3, 2499)
        it.boser.answers[TARGET] = encode([(1, encode([(1, 2600)]))])
        assert not (await it.braiins.apply(Order(Verb.POWER, 2499.9))).acked
        it.boser.answers[TARGET] = b""
        assert not (await it.braiins.apply(Order(Verb.POWER, 2499.9))).acked
        it.boser.called.clear()
        with pytest.raises(DeviceRefused):
            await it.braiins.apply(Order(Verb.POWER, 0.5))
        assert "SetPowerTarget" not in it.boser.called


@pytest.mark.parametrize(
    ("status", "error"),
    [(3, DeviceRefused), (7, NoPermission), (9, DeviceRefused), (14, DeviceUnreachable), (16, CredentialsRejected)],
)
async def test_every_status_is_told_as_what_it_is(status: int, error: type[Exception]) -> None:
    answers: dict[str, bytes | GrpcReply] = {DETAILS: details(NORMAL), PAUSE: GrpcReply(status=status, text="no, nö")}
    async with bench(rpc(), answers) as it:
        with pytest.raises(error):
            await it.braiins.apply(Order(Verb.SLEEP, 0.0))


async def test_another_device_is_never_written_to() -> None:
    async with bench(rpc(), {DETAILS: details(NORMAL, "02:EE:DA:00:00:02"), PAUSE: b""}) as it:
        it.braiins.pin.pinned = MAC
        with pytest.raises(IdentityMismatch):
            await it.braiins.apply(Order(Verb.SLEEP, 0.0))
        assert "PauseMining" not in it.boser.called


@pytest.mark.parametrize("message", [b"\x3a\x05ab", b"", encode([(1000, 1)])])
async def test_details_that_cannot_be_read_are_garbled(message: bytes) -> None:
    async with bench(rpc(), {DETAILS: message}) as it:
        with pytest.raises(DeviceGarbled):
            await it.braiins.read()


async def test_other_firmware_is_told_apart() -> None:
    other = rpc() | {"version": {"STATUS": [{"STATUS": "S"}], "VERSION": [{"API": "3.7", "LUXminer": "2024"}]}}
    async with bench(other, {DETAILS: details(NORMAL)}) as it:
        with pytest.raises(IdentityMismatch):
            await it.braiins.identify()
        assert not it.boser.called


@pytest.mark.parametrize("fault", [Fault.GARBAGE, Fault.TRUNCATED])
async def test_what_is_no_grpc_is_told(fault: Fault) -> None:
    async with serving(Boser(fault=fault)) as port:
        with pytest.raises((DeviceGarbled, DeviceUnreachable)):
            await calls.call(BRAIINS, HOST, port, LOGIN, b"", {})
    with pytest.raises(DeviceUnreachable):
        await calls.call(BRAIINS, HOST, port, LOGIN, b"", {})


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", DeviceGarbled),
        (b"HTTP", DeviceGarbled),
        (b"", DeviceUnreachable),
        (b"\0\0\0\4\0\0\0\0\0", DeviceUnreachable),
        (b"\0\0\0\4\0\0\0\0\0" + b"\0\0\1\1\4\0\0\0\1\xff", DeviceGarbled),
    ],
)
async def test_whatever_else_is_said_is_an_error(said: bytes, error: type[Exception]) -> None:
    class Says(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(said)
            self.transport.close()

    server = await asyncio.get_running_loop().create_server(Says, HOST, 0)
    try:
        with pytest.raises(error):
            await calls.call(BRAIINS, HOST, server.sockets[0].getsockname()[1], LOGIN, b"", {})
    finally:
        server.close()
        await server.wait_closed()


async def test_latency_and_slowness_act_on_calls() -> None:
    loop = asyncio.get_running_loop()
    boser = Boser()
    async with serving(boser, 0.05) as port, no_leaks():
        began = loop.time()
        answer = await calls.call(BRAIINS, HOST, port, LOGIN, encode([(1, "root"), (2, PASSWORD)]), {})
        assert answer.metadata["authorization"] == "token-1"
        assert loop.time() - began >= 0.05
        boser.fault = Fault.SLOW
        with pytest.raises(DeviceUnreachable):
            await within(0.2, HOST, calls.call(BRAIINS, HOST, port, LOGIN, b"", {}))
        boser.fault = Fault.HANG
        with pytest.raises(DeviceUnreachable):
            await within(0.2, HOST, calls.call(BRAIINS, HOST, port, LOGIN, b"", {}))


async def test_an_answer_of_another_shape_is_garbled() -> None:
    async with bench(rpc(), {DETAILS: details(NORMAL)}) as it:
        await it.braiins.read()
        it.boser.fault = Fault.WRONG_SHAPE
        with pytest.raises(DeviceGarbled):
            await it.braiins.apply(Order(Verb.SLEEP, 0.0))
        assert "PauseMining" not in it.boser.called


async def test_a_cancelled_call_leaves_no_socket() -> None:
    async with serving(Boser(silent=True)) as port, no_leaks():
        with pytest.raises(DeviceUnreachable):
            await within(0.1, HOST, calls.call(BRAIINS, HOST, port, LOGIN, b"", {}))
        for wait_s in (0.0, 0.001, 0.01):
            task = asyncio.ensure_future(calls.call(BRAIINS, HOST, port, LOGIN, b"", {}))
            await asyncio.sleep(wait_s)
            task.cancel()
            assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)


async def test_captured_answers_mean_what_we_take_them_for() -> None:
    """Captured over the REST interface of 25.07, which tells the same messages as JSON."""
    folder = "asic-rs/braiins"
    version, told, stats, tuner = captured(
        f"{folder}/v25_05/version.json",
        *(f"{folder}/v25_07/{name}.json" for name in ("miner_details", "miner_stats", "performance_tuner_state")),
    )
    mode = json.loads(tuner)["mode_state"]["powertargetmodestate"]
    known = json.loads(told)
    del known["system_uptime"], known["miner_identity"]["model"]  # deprecated, which pyasic's classes warn of
    answers: dict[str, bytes | GrpcReply] = {
        DETAILS: bytes(GetMinerDetailsResponse().from_dict(known)),
        STATS: bytes(GetMinerStatsResponse().from_dict({"power_stats": json.loads(stats)["power_stats"]})),
        TUNER: bytes(
            GetTunerStateResponse().from_dict({"power_target_mode_state": {"current_target": mode["current_target"]}})
        ),
    }
    silent = rpc(141.46, ApproximateMinerPowerConsumption=None, PowerLimit=None)
    async with bench(silent | {"version": version}, answers) as it:
        assert await it.braiins.identify() == Found(
            BRAIINS,
            ("02:EE:DA:A9:B6:4A", "UUTHH0M8ZU3DAAK8"),
            "Bitmain",
            "Antminer S19 XP",
            "2025-08-06-0-3881c51d-25.07-plus",
        )
        reading = await it.braiins.read()
        assert (reading.watts, reading.limit_watts, reading.state) == (3137.0, 3031.0, LoadState.ACTIVE)
