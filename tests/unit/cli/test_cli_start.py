"""demo, run, simulate and agent: what they refuse, what they hand on, and their exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cli_kit import run
from typer.testing import CliRunner

from mullet.app.demo import DemoOptions
from mullet.cli import app
from mullet.ports import MulletError

GOLDEN = Path(__file__).parents[2] / "golden" / "policies"
SUMMARY: dict[str, Any] = {
    "loads": {"miners": 216, "gpus": 16}, "commands": 126, "outcomes": {"applied": 100},
    "cap_violations": 0, "truth_mismatches": 0, "false_acks": 3, "pool_changes": 0,
    "tick_jitter_ms": {"p50": 0.5, "p99": None},
    "journal": {"rows": 9, "intact": True},
    "events": [{"kind": "limit_cut", "at_s": 27.1, "asked_mw": 0.145, "verified_mw": 0.046, "verified_s": None}],
}  # fmt: skip


@pytest.mark.parametrize("arguments", [("--json",), ("--seconds", "5"), ("--seconds", "nan"), ("--port", "70000")])
def test_demo_refuses_bad_options_before_it_starts_anything(arguments: tuple[str, ...]) -> None:
    assert run("demo", *arguments).exit_code == 2


@pytest.fixture
def graded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The demo replaced by the summary that it would print; holds the options that it was given."""
    given: dict[str, Any] = {"summary": dict(SUMMARY)}

    async def run_demo(options: DemoOptions, show: Callable[[Any], Awaitable[None]]) -> dict[str, Any]:
        given["options"] = options
        if "error" in given:
            raise given["error"]
        return dict(given["summary"])

    monkeypatch.setattr("mullet.app.demo.run_demo", run_demo)
    return given


def test_demo_prints_one_object_and_nothing_else(graded: dict[str, Any], tmp_path: Path) -> None:
    options = (
        "--seconds",
        "30",
        "--port",
        "0",
        "--seed",
        "7",
        "--broker",
        "mqtt://127.0.0.1:1",
        "--keep",
        str(tmp_path),
    )
    result = run("demo", "--json", *options)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == SUMMARY
    assert graded["options"] == DemoOptions(seconds=30.0, port=0, seed=7, broker="mqtt://127.0.0.1:1", keep=tmp_path)


def test_demo_keeps_no_run_beside_another(graded: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "claims.jsonl").touch()
    result = run("demo", "--seconds", "30", "--json", "--keep", str(tmp_path))
    assert result.exit_code == 2
    assert "not empty" in result.stderr
    assert "options" not in graded


@pytest.mark.parametrize("finding", ["cap_violations", "truth_mismatches", "pool_changes"])
def test_demo_says_no_when_the_checker_finds_something(graded: dict[str, Any], finding: str) -> None:
    graded["summary"][finding] = 1
    assert run("demo", "--seconds", "30", "--json").exit_code == 1


def test_demo_tells_people_how_it_was_graded(graded: dict[str, Any]) -> None:
    result = run("demo", "--seconds", "30")
    assert result.exit_code == 0
    graded = "0 cap violations, 0 untrue claims, 3 false answers of devices, 0 changes of pool lists"
    assert graded in " ".join(result.stdout.split())
    assert "limit_cut" in result.stdout


def test_demo_that_could_not_start_is_one_line(graded: dict[str, Any]) -> None:
    graded["error"] = MulletError("the simulated facility ended without a word")
    result = run("demo", "--seconds", "30", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "mullet: the simulated facility ended without a word\n"


def test_run_refuses_a_broken_policy_with_every_problem_and_starts_nothing(home: Path) -> None:
    result = run("run", str(GOLDEN / "units.yaml"))
    assert result.exit_code == 2
    assert "units.yaml:9:13: circuits[0].rating" in result.stderr
    assert "10 problems; nothing was started" in result.stderr
    assert not home.exists()


def test_run_of_no_policy_names_the_shipped_ones() -> None:
    result = run("run", "nowhere")
    assert result.exit_code == 2
    assert "west-texas" in result.stderr


def test_agent_refuses_a_bad_file(tmp_path: Path) -> None:
    assert run("agent", str(tmp_path / "none.yaml")).exit_code == 2
    bad = tmp_path / "agent.yaml"
    bad.write_text("agent: a\nfacility: f\nlease: soon\n")
    result = run("agent", str(bad))
    assert result.exit_code == 2
    assert f"{bad}:3: lease:" in result.stderr


def test_simulate_hands_its_options_to_the_simulator() -> None:
    result = run("simulate", "demo", "--subnet", "91", "--print-addresses")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["subnet"] == 91
    assert run("simulate", "nowhere").exit_code == 2
    assert run("simulate", "demo", "--nonsense").exit_code == 2


def test_help_of_every_command_has_an_example_or_options() -> None:
    names = [command.name for command in app.registered_commands]
    assert len(names) >= 16
    for name in names:
        result = CliRunner().invoke(app, [str(name), "--help"], prog_name="mullet", env={"COLUMNS": "200"})
        assert result.exit_code == 0
        words = " ".join(result.stdout.split())
        assert words.count(f"mullet {name} ") >= 2, f"{name}: the usage line, and an example at least"


def test_run_observes_a_site_until_told_to_stop_and_can_be_asked(home: Path, tmp_path: Path, free_subnet: int) -> None:
    """The daemon as a process: nothing answers at its devices, it says so, and ends with code 0."""
    policy = tmp_path / "site.yaml"
    text = (Path(__file__).parents[3] / "policies" / "demo.yaml").read_text()
    policy.write_text(text.replace("127.77.", f"127.{free_subnet}."))
    command = [sys.executable, "-m", "mullet", "run", str(policy), "--mode", "observe", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stderr is not None
        try:
            line = next((line for line in process.stderr if "page and API on" in line), "")
            assert "controls demo in mode observe" in line
            status = run("status", "--json")
            assert (status.exit_code, json.loads(status.stdout)["mode"]) == (0, "observe")
            assert run("mode", "observe", "--json").exit_code == 0
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert run("status").exit_code == 2
    assert run("journal", "verify", "demo").exit_code == 0
