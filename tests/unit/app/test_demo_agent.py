"""The demo's policy with an edge agent in it, that agent's file, and a broker that is none."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from mullet.adapters.agent_config import parse_agent_config
from mullet.app import demo_agent
from mullet.app.build import known_names
from mullet.app.demo_agent import AGENT, BrokerUnusable, agent_file, broker_at, with_agent
from mullet.app.paths import find_policy
from mullet.app.tied import tied
from mullet.domain.facility import Mode
from mullet.domain.load import LeaseHolder, LoadKind
from mullet.policy import load_policy
from mullet.registry import Registry

URL = "mqtt://127.0.0.1:1883"
DEMO = find_policy("demo").read_text(encoding="utf-8")


def test_the_agent_holds_all_gpus_and_no_circuit_accepts_unleased_loads() -> None:
    loaded = load_policy(with_agent(DEMO, URL), "demo", known_names(Registry()))
    facility = loaded.facility
    assert facility.mode is Mode.AUTO
    assert not any(circuit.accepts_unleased for circuit in facility.circuits)
    held = {load.id for load in facility.loads if load.agent == AGENT}
    assert held == {load.id for load in facility.loads if load.kind is LoadKind.GPU}
    assert all(facility.load_by_id[load_id].capability.lease is LeaseHolder.AGENT for load_id in held)
    assert loaded.wiring.mqtt is not None
    assert (loaded.wiring.mqtt.host, loaded.wiring.mqtt.port) == ("127.0.0.1", 1883)


def test_the_agents_file_says_of_each_gpu_what_the_policy_says() -> None:
    loaded = load_policy(with_agent(DEMO, URL), "demo", known_names(Registry()))
    config = parse_agent_config(agent_file(loaded, URL), "agent.yaml")
    assert (config.agent_id, config.facility_id) == (AGENT, loaded.facility.id)
    assert config.lease_s == loaded.facility.pacing.lease_s
    assert config.telemetry_period_s == 0.5
    assert (config.broker.host, config.broker.port, config.broker.tls) == ("127.0.0.1", 1883, False)
    assert [load.id for load in config.loads] == [load.id for load in loaded.facility.loads if load.agent == AGENT]
    for load in config.loads:
        theirs = loaded.facility.load_by_id[load.id]
        assert [(point.name, point.watts) for point in load.points] == [(p.name, p.watts) for p in theirs.points]
        assert load.point(load.fail_safe).watts == theirs.point(theirs.fail_safe).watts == 200.0
        assert (load.address, load.driver) == (theirs.address, theirs.driver)
        assert (load.worst_watts, load.tolerance) == (theirs.worst_watts, theirs.tolerance)
    for bank, options in config.options["gpu"].items():
        assert options["nvml_library"] == loaded.wiring.drivers["gpu"][bank]["nvml_library"]


@pytest.mark.parametrize("url", ["127.0.0.1:1883", "http://127.0.0.1:1883", "mqtt://", "mqtt://me@127.0.0.1:1883"])
async def test_a_url_that_is_no_broker_is_refused(url: str) -> None:
    with pytest.raises(BrokerUnusable):
        async with broker_at(url, DEMO):
            pass


async def test_a_broker_that_does_not_answer_is_told_by_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_agent, "BROKER_S", 0.3)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        url = f"mqtt://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(BrokerUnusable, match=url):
            async with broker_at(url, DEMO):
                pass


def test_a_tied_command_ends_with_the_process_that_started_it() -> None:
    sleeper = tied([sys.executable, "-c", "import time; time.sleep(60)"])
    # The one between starts the sleeper in its own name, tells its number and is killed.
    starts = f"import os, subprocess; c = {sleeper!r}; c[3] = str(os.getpid()); p = subprocess.Popen(c)"
    between = subprocess.Popen(
        [sys.executable, "-c", f"{starts}; print(p.pid, flush=True); p.wait()"], stdout=subprocess.PIPE, text=True
    )
    assert between.stdout is not None
    number = int(between.stdout.readline())
    try:
        ends_at = time.monotonic() + 10.0
        while "mullet.app.tied" in _command_line(number) or not _command_line(number):
            assert time.monotonic() < ends_at
            time.sleep(0.01)
        between.kill()
        while _runs(number):
            assert time.monotonic() < ends_at
            time.sleep(0.01)
    finally:
        between.kill()
        between.stdout.close()
        between.wait()
        if _runs(number):
            os.kill(number, signal.SIGKILL)


def _command_line(number: int) -> str:
    with open(f"/proc/{number}/cmdline", "rb") as file:
        return file.read().decode()


def _runs(number: int) -> bool:
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
