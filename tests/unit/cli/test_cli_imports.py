"""The command line comes up at once: nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "aiomqtt", "fastapi", "httpx", "influxdb_client", "numpy", "ortools", "pandas", "pyasic", "pydantic", "pymodbus",
    "pynvml", "rich", "ruamel", "starlette", "uvicorn", "mullet.app", "mullet.adapters", "mullet.control",
    "mullet.policy", "mullet.planning", "mullet_hardware", "mullet_simulators",
}  # fmt: skip
# From 0.29 on typer itself converts a command's arguments with pydantic, whatever the command.
TYPERS_OWN = {"pydantic"}
LIMIT_S = 0.3


def imported_by(*command: str) -> set[str]:
    """Return the names of all modules that a Python process imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=False, timeout=60
    )
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def test_import_brings_in_nothing_heavy() -> None:
    code = "import sys, json, mullet.cli; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert HEAVY & set(json.loads(done.stdout)) == set()


@pytest.mark.parametrize(
    "command", [("--version",), ("status",), ("shed", "1"), ("hold", "x", "--on", "--reason", "y")]
)
def test_commands_to_the_daemon_import_nothing_heavy(command: tuple[str, ...], home: Path) -> None:
    found = imported_by("-m", "mullet", *command)
    assert "mullet.cli.operate" in found
    assert (HEAVY - TYPERS_OWN) & found == set()


def cpu_s(code: str) -> float:
    """Return the processor time of a Python process: waiting for a busy machine does not count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_import_takes_less_than_0_3_s() -> None:
    bare = min(cpu_s("pass") for _ in range(5))
    core = min(cpu_s("import mullet.cli") for _ in range(5))
    assert core - bare < LIMIT_S
