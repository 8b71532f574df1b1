"""The graders can fail: broken on purpose, the same run that passes whole is caught by the independent checker."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit import Process, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

WITHIN_S = 150.0


class Graded:
    """Runs side by side, each with another part broken, and their graded summaries."""

    def __init__(self, folder: Path) -> None:
        self._runs: dict[str, Process] = {}
        for what in ("none", "guard", "verify", "pools"):
            (folder / what).mkdir()
            script = Path(__file__).with_name("broken.py")
            self._runs[what] = Process([sys.executable, script, what, folder / what], folder / f"{what}.log")

    def summary(self, what: str) -> dict[str, Any]:
        """The summary of one run, once it has ended."""
        run = self._runs[what]
        wait_until(lambda: not run.family(), WITHIN_S, f"run with {what} broken is over")
        assert run.end() == 0, run.said()[-3000:]
        found: dict[str, Any] = json.loads(run.said().splitlines()[-1])
        return found

    def close(self) -> None:
        """End whatever still runs."""
        for run in self._runs.values():
            run.close()


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graded]:
    runs = Graded(tmp_path_factory.mktemp("graded"))
    try:
        yield runs
    finally:
        runs.close()


def test_nothing_broken_passes(graded: Graded) -> None:
    summary = graded.summary("none")
    assert summary["cap_violations"] == 0, summary["cap_violation_list"]
    assert summary["truth_mismatches"] == 0, summary["mismatch_list"]
    assert summary["false_acks"] >= 2
    assert summary["uncaught_false_acks"] == 0
    assert summary["pool_changes"] == 0, summary["pool_change_list"]
    assert summary["demand_step"]["exceeds_room"] is True, summary["demand_step"]
    assert all(summary["demand_step"]["mining_shed_first"].values())


def test_broken_guard_is_seen_as_cap_violations(graded: Graded) -> None:
    summary = graded.summary("guard")
    assert summary["cap_violations"] > 0
    assert "hall-b" in {violation["circuit"] for violation in summary["cap_violation_list"]}
    assert summary["worst_over_percent"] > 2.0


def test_missing_verification_is_seen_as_truth_mismatches(graded: Graded) -> None:
    summary = graded.summary("verify")
    assert summary["truth_mismatches"] > 0
    liars = {mismatch["load"] for mismatch in summary["mismatch_list"]}
    assert {"wm-b-003", "am-b-002"} <= liars
    assert summary["uncaught_false_acks"] >= 2


def test_a_forgetful_driver_is_seen_as_pool_changes(graded: Graded) -> None:
    summary = graded.summary("pools")
    assert summary["pool_changes"] == len(summary["pool_change_list"]) > 0
    assert summary["pool_changes_by_cause"] == {"request": summary["pool_changes"]}
    assert {change["load"].rpartition("-")[0] for change in summary["pool_change_list"]} == {"am-b"}
    assert {change["count"] for change in summary["pool_change_list"]} == {1}
    assert summary["truth_mismatches"] == 0, "what it claims of power is true all the same"
