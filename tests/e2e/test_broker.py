"""Controller and edge agent as two processes with a real Mosquitto between them, and each of the three killed."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import MOSQUITTO, Mosquitto
from kit import DATA, MULLET, UP_S, Daemon, Process, Simulator, run_mullet, stays, wait_until

from mullet.adapters.broker import BrokerSettings
from mullet.adapters.clock import SystemClock
from mullet.adapters.mqtt import MqttLink
from mullet.adapters.state import StateFile
from mullet.domain.command import Command, Receipt, Verb
from mullet.domain.facility import Mode
from mullet.domain.feeds import Cause

if MOSQUITTO is None:
    pytest.skip("needs the Debian package mosquitto", allow_module_level=True)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.leaves_open("the processes belong to the whole file; a test leaves another in the place of one"),
]

FACILITY, AGENT = "brokered", "gpu-node-1"
GPUS = [f"gpu-{k:03d}" for k in range(1, 5)]
LEASE_S, RENEW_S = 6.0, 2.0
FAILSAFE_W = 200.0
STALE_S = 5.0
SOME_W, MUCH_W, MOST_W = 230.0, 500.0, 640.0
"""The least cap per GPU at which the service keeps up with SOME, MUCH and MOST requests a second."""
SOME, MUCH, MOST = 7.0, 24.0, 31.0
GPU_POWER_S = 15.0
RETURN_S = 30.0
"""From the return of what was away: reconnect, heartbeat, back-off, shed, verify, raise."""
SLACK_S = 3.0
QUIET_S = 3.0


class Plant:
    """Simulated facility, broker, agent and controller, all up and in control."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = Mosquitto(folder)
        self.simulator = Simulator(DATA / "broker" / "scenario.yaml", folder)
        self.truth = self.simulator.truth
        self.agents: list[Process] = []
        self.daemons: list[Daemon] = []
        for name in ("policy.yaml", "agent.yaml"):
            text = (DATA / "broker" / name).read_text()
            text = text.replace("127.77.", f"127.{self.simulator.subnet}.").replace(":1883", f":{self.broker.port}")
            (folder / name).write_text(text)
        self.state = folder / "state"
        self.state.mkdir()
        # As an operator's order of an earlier run: the first start of a facility only observes.
        states = StateFile(self.state / "operator.json", Mode.AUTO)
        states.save(states.load())

    def start(self) -> None:
        self.broker.start()
        self.start_agent()
        self.start_daemon()
        self.daemon.wait_ready()

    @property
    def agent(self) -> Process:
        return self.agents[-1]

    @property
    def daemon(self) -> Daemon:
        return self.daemons[-1]

    def start_agent(self) -> float:
        """Start the agent and return when it was told to."""
        began = time.time()
        command: list[str | Path] = [MULLET, "agent", self.folder / "agent.yaml", "--state", self.folder / "agent"]
        self.agents.append(Process(command, self.folder / f"agent-{len(self.agents)}.log"))
        return began

    def start_daemon(self) -> None:
        log = self.folder / f"daemon-{len(self.daemons)}.log"
        self.daemons.append(Daemon(self.folder / "policy.yaml", self.state, log))

    def demand(self, requests_per_s: float) -> float:
        """Change the service's demand and return when."""
        at = time.time()
        self.simulator.ask(op="event", kind="demand_step", service="code", requests_per_s=requests_per_s)
        return at

    def caps(self) -> dict[str, float]:
        """What each GPU truly enforces."""
        return {name: float(self.simulator.ask(op="truth", load=name)["enforced_w"]) for name in GPUS}

    def powered(self, watts: float) -> bool:
        return min(self.caps().values()) >= watts

    def in_failsafe(self) -> bool:
        return set(self.caps().values()) == {FAILSAFE_W}

    def wait_failsafe(self, within_s: float) -> None:
        wait_until(self.in_failsafe, within_s, f"fail-safe: {self.caps()}", self.agent.check_alive)
        seen_at = time.time()
        wait_until(lambda: self.truth.records("power", seen_at), UP_S, "the truth log is up to date")

    def wait_powered(self, watts: float, within_s: float) -> None:
        self.daemon.wait(lambda: self.powered(watts), within_s, f"each GPU has {watts:g} W: {self.caps()}")

    def settle(self, requests_per_s: float, watts: float, below_w: float = 1_000.0) -> None:
        """Wait until each GPU has between `watts` and `below_w` and nothing is under way."""
        self.demand(requests_per_s)
        self.wait_powered(watts, RETURN_S)
        self.daemon.wait(lambda: max(self.caps().values()) < below_w, RETURN_S, f"less than {below_w:g} W")
        self.daemon.wait(self._quiet, RETURN_S, "nothing under way")

    def _quiet(self) -> bool:
        status = self.daemon.status()
        quiet = bool(status) and not status["pending"] and not status["in_flight"]
        return quiet and not self.gpu_requests(time.time() - QUIET_S)

    def gpu_requests(self, since: float, until: float | None = None) -> list[dict[str, Any]]:
        """Control requests that GPUs received."""
        requests = [record for record in self.truth.requests(since) if record["load"] in GPUS]
        return [record for record in requests if until is None or record["t"] < until]

    def cap_changes(self, since: float, until: float | None = None) -> list[dict[str, Any]]:
        records = self.truth.records("cap", since)
        return [record for record in records if until is None or record["t"] < until]

    def commands(self, since: float) -> list[dict[str, Any]]:
        """GPU commands that the controller decided on, from its journal."""
        rows = self.daemon.rows("decision")
        every = [command for row in rows for command in (*row.body["decreases"], *row.body["increases"])]
        return [one for one in every if one["load_id"] in GPUS and one["issued_at"] >= since]

    def receipts(self, since: float) -> dict[str, dict[str, Any]]:
        return {row.body["command_id"]: dict(row.body) for row in self.daemon.rows("receipt") if row.at >= since}

    def outcomes(self, since: float) -> list[dict[str, Any]]:
        rows = [row for row in self.daemon.rows("decision") if row.at >= since]
        return [outcome for row in rows for outcome in row.body["outcomes"] if outcome["load_id"] in GPUS]

    def check_fresh(self, since: float) -> None:
        """Every request that a GPU got had a command that was issued for it less than STALE_S before."""
        commands = self.commands(since - 2.0 * STALE_S)
        for request in self.gpu_requests(since):
            ages = [request["t"] - one["issued_at"] for one in commands if one["load_id"] == request["load"]]
            assert any(-0.1 <= age <= STALE_S for age in ages), f"stale or of nobody's making: {request}, {ages}"

    def lapse_at(self) -> float:
        """When the agent's leases run out by what it keeps over its restarts, as a Unix instant."""
        kept = json.loads((self.folder / "agent" / "leases.json").read_text())
        return float(kept["deadline"]) + time.time() - time.monotonic()

    def close(self) -> None:
        for process in [*(daemon.process for daemon in self.daemons), *self.agents]:
            process.close()
        try:
            self.simulator.close()
        finally:
            self.broker.kill()


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    running = Plant(tmp_path_factory.mktemp("broker"))
    try:
        running.start()
        yield running
    finally:
        running.close()


def test_a_demand_step_gets_its_power_through_the_agent_and_keeps_it(plant: Plant) -> None:
    plant.settle(SOME, SOME_W, below_w=MUCH_W)
    said = len(plant.agent.said())
    at = plant.demand(MUCH)
    plant.wait_powered(MUCH_W, GPU_POWER_S)
    plant.daemon.wait(
        lambda: {one["load_id"] for one in plant.outcomes(at) if one["kind"] == "applied"} == set(GPUS),
        GPU_POWER_S,
        "every raise verified",
    )
    applied = [one for one in plant.outcomes(at) if one["kind"] == "applied"]
    assert {one["evidence"] for one in applied} <= {"readback", "both"}
    # Setpoints are not repeated: only heartbeats keep the GPUs there for longer than a lease.
    stays(lambda: plant.powered(MUCH_W), 1.5 * LEASE_S, "powered")
    assert "lapsed" not in plant.agent.said()[said:]
    plant.check_fresh(at)


def test_a_broker_that_is_killed_and_restarted_executes_nothing_stale(plant: Plant) -> None:
    plant.settle(SOME, SOME_W, below_w=MUCH_W)
    killed_at = time.time()
    plant.broker.kill()
    # What the controller now wants to say must never be heard.
    plant.demand(MOST)
    plant.wait_failsafe(LEASE_S + SLACK_S)
    time.sleep(max(0.0, killed_at + 1.5 * LEASE_S - time.time()))
    assert plant.in_failsafe()
    back_at = time.time()
    plant.broker.start()

    heard = plant.gpu_requests(killed_at, back_at)
    assert min(request["t"] for request in heard) >= killed_at + LEASE_S - RENEW_S - 1.0
    changes = plant.cap_changes(killed_at, back_at)
    assert sorted(change["load"] for change in changes) == GPUS
    assert {change["cap_w"] for change in changes} == {FAILSAFE_W}

    plant.wait_powered(MOST_W, RETURN_S)
    plant.check_fresh(back_at)
    unheard = [one["id"] for one in plant.commands(killed_at) if one["issued_at"] < back_at]
    assert unheard, "the controller wanted nothing while the broker was away"
    receipts = plant.receipts(killed_at)
    assert all(receipts[command]["acked"] is None and receipts[command]["unreachable"] for command in unheard)


def test_an_agent_that_is_killed_and_restarted_changes_nothing_before_its_leases_lapse(plant: Plant) -> None:
    plant.settle(MUCH, MUCH_W)
    # With a controller that lives, the leases are renewed in time and nothing happens at all.
    at = time.time()
    plant.agent.end(signal.SIGKILL)
    plant.start_agent()
    stays(lambda: plant.powered(MUCH_W), LEASE_S + 2.0, "powered")
    plant.check_fresh(at)
    assert "lapsed" not in plant.agent.said()

    # With one that hangs, they lapse when they would have without the restart.
    plant.settle(MUCH, MUCH_W)
    plant.daemon.process.send(signal.SIGSTOP)
    try:
        at = time.time()
        plant.agent.end(signal.SIGKILL)
        lapse_at = plant.lapse_at()
        assert at + LEASE_S - RENEW_S - SLACK_S < lapse_at <= at + LEASE_S
        plant.start_agent()
        plant.wait_failsafe(lapse_at - time.time() + SLACK_S)
        changes = plant.cap_changes(at)
        assert sorted(change["load"] for change in changes) == GPUS
        assert {change["cap_w"] for change in changes} == {FAILSAFE_W}
        assert min(request["t"] for request in plant.gpu_requests(at)) >= lapse_at - 0.1
    finally:
        plant.daemon.process.send(signal.SIGCONT)
    back_at = time.time()
    plant.wait_powered(MUCH_W, RETURN_S)
    plant.check_fresh(back_at)


def test_a_controller_that_is_killed_leaves_the_gpus_in_failsafe_until_it_is_back(plant: Plant) -> None:
    plant.settle(MUCH, MUCH_W)
    at = time.time()
    plant.daemon.end(signal.SIGKILL)
    plant.wait_failsafe(LEASE_S + SLACK_S)
    assert min(request["t"] for request in plant.gpu_requests(at)) >= at + LEASE_S - RENEW_S - 1.0

    # Neither time, nor a setpoint without a heartbeat, nor a heartbeat without a setpoint leads out of it.
    lapsed_at = time.time()
    refused = asyncio.run(stray_controller(plant.broker.port))
    assert refused.acked is False
    assert "no heartbeat since the lease lapsed" in refused.detail
    stays(plant.in_failsafe, 2.0, "fail-safe")
    assert plant.gpu_requests(lapsed_at) == []

    plant.start_daemon()
    plant.wait_powered(MUCH_W, UP_S + RETURN_S)
    plant.check_fresh(lapsed_at)


def test_the_checker_finds_nothing_wrong_with_all_that(plant: Plant) -> None:
    plant.daemon.end()
    plant.agent.end()
    plant.simulator.process.end()
    claims = plant.folder / "claims.jsonl"
    code, _, errors = run_mullet("journal", "export", plant.state, "--what", "claims", "--out", claims)
    assert code == 0, errors
    arguments = ["--truth", str(plant.truth.path), "--claims", str(claims)]
    checked = subprocess.run(
        [sys.executable, "-m", "mullet_simulators.checker", *arguments], capture_output=True, check=False
    )
    report = json.loads(checked.stdout)
    assert report["cap_violations"] == 0, report["cap_violation_list"]
    assert report["truth_mismatches"] == 0, report["mismatch_list"]


async def stray_controller(port: int) -> Receipt:
    """Send a fresh setpoint, then a heartbeat, as a controller would that knows only half of the rule."""
    clock = SystemClock()
    link = MqttLink(FACILITY, BrokerSettings("127.0.0.1", port), clock, lambda: 1)
    await link.open()
    try:
        async with asyncio.timeout(10.0):
            await link.wait_connected()
            while not link.alive(AGENT):
                await clock.sleep(0.05)
        now = clock.now()
        order = Command(
            id="stray-1",
            seq=1_000_000,
            epoch=1,
            load_id=GPUS[0],
            verb=Verb.POWER,
            point="",
            watts=MUCH_W,
            most_before_watts=FAILSAFE_W,
            most_after_watts=MUCH_W,
            cause=Cause.ECONOMIC,
            plan_id="",
            policy_hash="",
            issued_at=now,
            not_after=now + STALE_S,
            lease_s=LEASE_S,
        )
        receipt = await link.send(AGENT, order, STALE_S)
        await link.renew(AGENT, LEASE_S)
        assert link.lost_heartbeats == 0
        return receipt
    finally:
        await link.close()
