"""Controller's link and edge agent with a real Mosquitto between them, which is killed, stopped and lied to."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiomqtt
import pytest

from mullet.adapters.broker import BrokerSettings
from mullet.adapters.clock import SystemClock
from mullet.adapters.mqtt import MqttAgentTransport, MqttLink, jittered_backoff
from mullet.adapters.mqtt_session import BrokerRefused, NotDelivered
from mullet.agent.agent import Agent, AgentSettings
from mullet.agent.lease import LeaseState
from mullet.control.gate import Permit, WriteGate
from mullet.domain.command import Command, Receipt
from mullet.domain.facility import Mode
from mullet.domain.load import Capability, Load
from mullet.domain.message import command_payload
from mullet.domain.telemetry import Telemetry
from mullet.ports import Identity, LinkError
from mullet.testing.builders import command, gpu, telemetry
from mullet.testing.leaks import no_leaks

pytestmark = pytest.mark.e2e

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")
if MOSQUITTO is None:
    pytest.skip("needs the Debian package mosquitto", allow_module_level=True)

FACILITY = "demo"
AGENT = "node-1"
GPU = gpu("gpus-001", fail_safe="300W")
KEY = b"a secret that both sides hold"
COMMAND_TOPIC = f"mullet/{FACILITY}/agents/{AGENT}/command/{GPU.id}"
ROOMY_S = 8.0


class Broker:
    """A Mosquitto of our own on a free port of 127.0.0.1."""

    def __init__(self, folder: Path, *settings: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._config = folder / "mosquitto.conf"
        # Started by root it would become another user, who cannot read this folder.
        lines = ["user root", f"listener {self.port} 127.0.0.1", "allow_anonymous true", *settings]
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        ends_at = time.monotonic() + ROOMY_S
        while time.monotonic() < ends_at:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._process.poll() is None, "mosquitto ended at once"
            time.sleep(0.02)
        raise AssertionError("mosquitto does not listen")

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def settings(self) -> BrokerSettings:
        return BrokerSettings("127.0.0.1", self.port)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    one = Broker(tmp_path)
    one.start()
    yield one
    one.kill()


@dataclass
class Devices:
    """GPUs in memory that do what they are told, and remember it."""

    clock: SystemClock
    standing: dict[str, Telemetry]
    applied: list[Command] = field(default_factory=list)

    async def open(self, loads: Sequence[Load]) -> None: ...

    async def close(self) -> None: ...

    def capability(self, load: Load) -> Capability:
        return load.capability

    async def identify(self, load: Load, deadline_s: float) -> Identity:
        return Identity(None, "", "", "")

    async def read(self, load: Load, deadline_s: float) -> Telemetry:
        return replace(self.standing[load.id], at=self.clock.now())

    async def watch(self, loads: Sequence[Load], period_s: float) -> AsyncIterator[Telemetry]:
        while True:
            for load in loads:
                yield await self.read(load, 1.0)
            await self.clock.sleep(period_s)

    async def apply(self, load: Load, command: Command, deadline_s: float) -> Receipt:
        self.applied.append(command)
        self.standing[load.id] = replace(self.standing[load.id], limit_watts=command.watts, watts=command.watts)
        return Receipt(command.id, load.id, self.clock.now(), True, "set")

    async def restore_defaults(self, load: Load, deadline_s: float) -> Receipt:
        raise AssertionError("only ever called by an operator's command")


@dataclass
class Bench:
    clock: SystemClock
    devices: Devices
    link: MqttLink
    transport: MqttAgentTransport
    agent: Agent
    seq: int = 0

    def order(self, watts: float) -> Command:
        self.seq += 1
        return command(GPU, watts=watts, at=self.clock.now(), seq=self.seq)

    async def send(self, watts: float, deadline_s: float = 5.0) -> Receipt:
        return await self.link.send(AGENT, self.order(watts), deadline_s)

    @property
    def limit(self) -> float | None:
        return self.devices.standing[GPU.id].limit_watts

    @property
    def executed(self) -> list[float]:
        return [order.watts for order in self.devices.applied]


@asynccontextmanager
async def bench(settings: BrokerSettings, lease_s: float = 60.0, key: bytes | None = KEY) -> AsyncIterator[Bench]:
    clock = SystemClock()
    devices = Devices(clock, {GPU.id: telemetry(GPU)})
    link = MqttLink(FACILITY, settings, clock, lambda: 1, key=key, backoff_s=jittered_backoff(0.05, 0.3, seed=1))
    transport = MqttAgentTransport(FACILITY, AGENT, settings, clock, backoff_s=jittered_backoff(0.05, 0.3, seed=2))
    gate = WriteGate({"gpu": devices}, None, lambda load: Permit(Mode.AUTO, None), clock.now)
    named = AgentSettings(
        AGENT, FACILITY, (GPU,), lease_s=lease_s, telemetry_period_s=0.1, lease_check_s=0.1, signing_key=key
    )
    agent = Agent(named, {"gpu": devices}, gate, clock, transport)
    async with no_leaks():
        task = asyncio.create_task(agent.run())
        await link.open()
        try:
            yield Bench(clock, devices, link, transport, agent)
        finally:
            await link.close()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def until(true: Callable[[], bool], within_s: float = ROOMY_S) -> None:
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110 - what is waited for is another process's doing
            await asyncio.sleep(0.02)


async def both_up(b: Bench) -> None:
    await until(lambda: b.transport.connected and b.link.alive(AGENT))


async def test_a_command_goes_there_and_its_answer_and_readback_come_back(broker: Broker) -> None:
    async with bench(broker.settings()) as b:
        await both_up(b)
        readings = b.link.telemetry(AGENT)
        receipt = await b.send(500.0)
        assert (receipt.acked, receipt.detail) == (True, "set")
        assert b.limit == 500.0
        async with asyncio.timeout(2.0):
            async for reading in readings:
                if reading.limit_watts == 500.0:
                    break
        assert abs(reading.at - b.clock.now()) < 2.0


async def test_an_agent_that_left_is_known_to_be_away_and_nothing_waits_for_it(broker: Broker) -> None:
    async with bench(broker.settings()) as b:
        await both_up(b)
        await b.transport.close()
        await until(lambda: not b.link.alive(AGENT))
        with pytest.raises(NotDelivered, match="nobody listens"):
            await b.send(500.0)


async def test_an_agent_that_vanished_is_told_away_by_the_broker_and_comes_back(broker: Broker) -> None:
    async with bench(broker.settings()) as b:
        await both_up(b)
        vanished = b.transport._session._client
        assert vanished is not None
        vanished.drop()
        await until(lambda: not b.link.alive(AGENT))
        await both_up(b)
        assert (await b.send(500.0)).acked is True


async def test_a_broker_killed_and_restarted_executes_nothing_stale_while_leases_act(broker: Broker) -> None:
    async with bench(broker.settings(), lease_s=2.0) as b:
        await both_up(b)
        await b.link.renew(AGENT, 2.0)
        assert (await b.send(650.0)).acked is True
        broker.kill()
        await until(lambda: not b.link.connected and not b.transport.connected)
        assert not b.link.alive(AGENT)
        for watts in (610.0, 620.0, 630.0):
            with pytest.raises(LinkError):
                await b.send(watts, deadline_s=0.3)
        await b.link.renew(AGENT, 2.0)
        await until(lambda: b.limit == 300.0)
        broker.start()
        await both_up(b)
        with pytest.raises(asyncio.TimeoutError):
            await until(lambda: b.limit != 300.0, within_s=1.0)
        assert (await b.send(640.0)).acked is False
        await b.link.renew(AGENT, 2.0)
        assert (await b.send(660.0)).acked is True
        assert b.executed == [650.0, 300.0, 660.0]


@pytest.mark.slow
async def test_a_broker_that_hangs_is_noticed_and_what_it_held_never_executes(broker: Broker) -> None:
    async with bench(broker.settings()) as b:
        await both_up(b)
        assert (await b.send(650.0)).acked is True
        broker.send(signal.SIGSTOP)
        stopped_at = b.clock.monotonic()
        await until(lambda: not b.link.connected and not b.transport.connected, within_s=10.0)
        assert b.clock.monotonic() - stopped_at <= 10.0
        broker.send(signal.SIGCONT)
        await both_up(b)

        broker.send(signal.SIGSTOP)
        began = b.clock.monotonic()
        with pytest.raises(LinkError):
            await b.send(610.0, deadline_s=1.0)
        assert b.clock.monotonic() - began < 2.0
        broker.send(signal.SIGCONT)
        await both_up(b)
        assert (await b.send(660.0)).acked is True
        assert b.executed == [650.0, 660.0]


async def test_retained_commands_are_dropped_whenever_they_come(broker: Broker) -> None:
    clock = SystemClock()
    async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as stranger:
        waiting = command_payload(FACILITY, command(GPU, watts=610.0, at=clock.now()), KEY)
        await stranger.publish(COMMAND_TOPIC, waiting, qos=1, retain=True)
        async with bench(broker.settings()) as b:
            await both_up(b)
            live = command_payload(FACILITY, command(GPU, watts=620.0, at=clock.now(), seq=2), KEY)
            await stranger.publish(COMMAND_TOPIC, live, qos=1, retain=True)
            await until(lambda: b.agent.state().rejected == {"retained": 2})
            b.seq = 10
            assert (await b.send(500.0)).acked is True
            assert b.executed == [500.0]


async def test_fifty_old_commands_and_forgeries_execute_nothing(broker: Broker) -> None:
    async with bench(broker.settings()) as b:
        await both_up(b)
        async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as stranger:
            for n in range(50):
                old = command(GPU, watts=200.0 + n, at=b.clock.now() - 30.0, seq=n + 1)
                await stranger.publish(COMMAND_TOPIC, command_payload(FACILITY, old, KEY), qos=1)
            await stranger.publish(COMMAND_TOPIC, command_payload(FACILITY, b.order(400.0)), qos=1)
            changed = json.loads(command_payload(FACILITY, b.order(400.0), KEY))
            await stranger.publish(COMMAND_TOPIC, json.dumps({**changed, "watts": 700.0}), qos=1)
            await stranger.publish(COMMAND_TOPIC, b"\x00", qos=1)
        # Started before its agent, some of the fifty count as older than it; either way they are stale.
        await until(lambda: b.agent.state().rejected == {"stale": 50, "forged": 2, "garbled": 1})
        assert b.executed == []


async def test_what_the_broker_refuses_is_an_error(tmp_path: Path) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic read #\ntopic write mullet/demo/agents/+/status\n")
    guarded = Broker(tmp_path, f"acl_file {rules}")
    guarded.start()
    try:
        async with bench(guarded.settings()) as b:
            await both_up(b)
            with pytest.raises(BrokerRefused, match="Not authorized"):
                await b.send(500.0)
            assert b.link.connected
            await b.link.renew(AGENT, 60.0)
            assert b.link.lost_heartbeats == 1
            assert b.executed == []
    finally:
        guarded.kill()


async def test_many_commands_at_once_are_all_answered(broker: Broker) -> None:
    async with bench(broker.settings()) as b:
        await both_up(b)
        orders = [b.order(200.0 + n) for n in range(100)]
        receipts = await asyncio.gather(*(b.link.send(AGENT, order, 10.0) for order in orders))
        assert [one.command_id for one in receipts] == [order.id for order in orders]
        assert b.limit == 299.0


async def test_lease_states_are_told(broker: Broker) -> None:
    async with bench(broker.settings(), lease_s=0.5) as b:
        await until(lambda: b.agent.state().leases == {GPU.id: LeaseState.LAPSED})
        await until(lambda: b.agent.state().settled == {GPU.id})


OPENSSL = shutil.which("openssl")


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A folder with a certificate authority and what it signed for a server and a client."""
    if OPENSSL is None:
        pytest.skip("needs the Debian package openssl")

    def run(*words: str) -> None:
        subprocess.run([str(OPENSSL), *words], cwd=tmp_path, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    extensions = (
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
    )
    run("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test", "-days", "1", *extensions)
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        run("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1", "-extfile", "names")
        run("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *signed)
    return tmp_path


async def test_both_sides_prove_who_they_are_over_tls(authority: Path) -> None:
    secured = Broker(
        authority,
        f"cafile {authority / 'ca.crt'}",
        f"certfile {authority / 'server.crt'}",
        f"keyfile {authority / 'server.key'}",
        "require_certificate true",
        "tls_version tlsv1.2",
    )
    secured.start()
    known = replace(
        secured.settings(),
        tls=True,
        ca_pem=(authority / "ca.crt").read_text(),
        cert_pem=(authority / "client.crt").read_text(),
        key_pem=(authority / "client.key").read_text(),
    )
    try:
        async with bench(known) as b:
            await both_up(b)
            assert (await b.send(500.0)).acked is True
        stranger = replace(known, cert_pem=None, key_pem=None)
        with pytest.raises((ssl.SSLError, aiomqtt.MqttError)):
            async with aiomqtt.Client(
                "127.0.0.1",
                secured.port,
                protocol=aiomqtt.ProtocolVersion.V5,
                timeout=2.0,
                tls_context=stranger.tls_context(),
            ):
                pass
    finally:
        secured.kill()
