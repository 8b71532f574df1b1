"""`mullet demo --broker`: as good with an edge agent and a real Mosquitto between the controller and its GPUs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import MOSQUITTO, Mosquitto
from kit import run_mullet

from mullet.adapters.journal import JournalReader

if MOSQUITTO is None:
    pytest.skip("needs the Debian package mosquitto", allow_module_level=True)

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

SECONDS = 30
GPU_POWER_S = 15.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    one = Mosquitto(tmp_path)
    one.start()
    yield one
    one.kill()


def commands_before(kept: Path, at_s: float) -> list[str]:
    """What had been asked of the loads on the GPUs' circuit when the demand stepped up."""
    began = json.loads((kept / "truth.jsonl").read_text().partition("\n")[0])["t"]
    claims = [json.loads(line) for line in (kept / "claims.jsonl").read_text().splitlines()]
    return [
        f"{claim['t'] - began:.1f} s: {claim['cause']} {claim['verb']} {claim['load']} to {claim['to_w']:.0f} W"
        for claim in claims
        if claim["type"] == "command"
        and claim["t"] - began < at_s
        and claim["load"].startswith(("wm-ai", "code", "chat"))
    ]


def test_the_demo_is_as_good_through_a_broker(broker: Mosquitto, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    arguments = ["demo", "--seconds", str(SECONDS), "--json", "--port", "0", "--keep", str(kept)]
    code, out, errors = run_mullet(*arguments, "--broker", f"mqtt://127.0.0.1:{broker.port}", within_s=SECONDS + 120.0)
    assert code == 0, errors
    summary = json.loads(out)
    assert summary["agents"] == ["gpu-node-1"]
    assert (summary["cap_violations"], summary["truth_mismatches"], summary["pool_changes"]) == (0, 0, 0)
    step = summary["demand_step"]
    assert step["exceeds_room"], (step, commands_before(kept, step["at_s"]))
    assert step["gpu_power_s"] <= GPU_POWER_S
    assert all(step["mining_shed_first"].values())

    log = (kept / "agent.log").read_text()
    assert "connected to 127.0.0.1" in log
    assert "lapsed" not in log
    (facility,) = JournalReader(kept / "state" / "journal.db").iterate(["facility"])
    held = {load["agent"] for load in facility.body["facility"]["loads"] if load["kind"] == "gpu"}
    assert held == {"gpu-node-1"}
