"""Writes what came of the miners' contract as JSON: `hardware/SUPPORTED.md` is made of it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

_VARIANT = re.compile(r"::TestAsicContract::.*\[(?P<firmware>\w+)-(?P<latency>\d+)ms")
OUTCOMES = ("passed", "failed", "skipped")


class AsicResults:
    """Counts outcomes per firmware and latency: {date, command, results: {firmware: {latency: {outcome: count}}}}."""

    def __init__(self, path: Path, command: str) -> None:
        self._path = path
        self._command = command
        self._worst: dict[str, str] = {}

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember the worst that came of a test's set-up, call and tear-down."""
        if _VARIANT.search(report.nodeid) and (report.when == "call" or report.outcome != "passed"):
            was = self._worst.get(report.nodeid)
            self._worst[report.nodeid] = "failed" if was == "failed" else report.outcome

    @pytest.hookimpl
    def pytest_sessionfinish(self) -> None:
        """Write the file."""
        counts: dict[str, dict[str, dict[str, int]]] = {}
        for nodeid, outcome in self._worst.items():
            variant = _VARIANT.search(nodeid)
            assert variant is not None
            at = counts.setdefault(variant["firmware"], {}).setdefault(f"{variant['latency']} ms", {})
            at[outcome] = at.get(outcome, 0) + 1
        full = {
            firmware: {
                latency: {outcome: found.get(outcome, 0) for outcome in OUTCOMES}
                for latency, found in sorted(latencies.items())
            }
            for firmware, latencies in sorted(counts.items())
        }
        said = {"date": datetime.now(UTC).date().isoformat(), "command": self._command, "results": full}
        self._path.write_text(json.dumps(said, indent=2) + "\n")


def command_of(config: pytest.Config) -> str:
    """Return the command that does the same again, without what is of this machine."""
    words = ["uv run pytest tests/contract/test_asic_contract.py"]
    words += (
        ["--asic-matrix"] if config.getoption("--asic-matrix") else [f"--asic-seed {config.getoption('--asic-seed')}"]
    )
    words += [f"-k {config.option.keyword!r}"] if config.option.keyword else []
    return " ".join(words)
