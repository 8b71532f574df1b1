"""The sample of the miners' contract is fair, and what came of it is counted as it was."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from asic_results import AsicResults
from asic_sampling import SHARE, draw
from hypothesis import given
from hypothesis import strategies as st

FIRMWARES = tuple("abcdefghijklm")


@given(
    st.dictionaries(
        st.integers(0, 60).map(str), st.sets(st.sampled_from(FIRMWARES), min_size=1).map(sorted), min_size=1
    ),
    st.integers(0, 5),
)
def test_each_test_and_each_firmware_has_at_least_its_share(applies: dict[str, list[str]], seed: int) -> None:
    drawn = draw(applies, seed)
    assert drawn == draw(dict(reversed(applies.items())), seed)
    assert all(firmware in applies[test] for test, firmware in drawn)
    for test, firmwares in applies.items():
        assert sum(found == test for found, _ in drawn) >= math.ceil(len(firmwares) / SHARE)
    for firmware in FIRMWARES:
        owed = sum(firmware in firmwares for firmwares in applies.values())
        assert sum(found == firmware for _, found in drawn) >= math.ceil(owed / SHARE)


def test_a_sample_is_about_a_third_and_another_seed_draws_another() -> None:
    applies = {str(number): list(FIRMWARES[:12]) for number in range(40)}
    drawn = draw(applies, 0)
    assert len(drawn) <= 1.1 * 40 * 12 / SHARE
    assert drawn != draw(applies, 1)


def test_outcomes_are_counted_once_each_and_a_failure_is_never_hidden(tmp_path: Path) -> None:
    results = AsicResults(tmp_path / "results.json", "the command")

    def report(test: str, when: str, outcome: str) -> None:
        nodeid = f"tests/contract/test_asic_contract.py::TestAsicContract::{test}"
        results.pytest_runtest_logreport(pytest.TestReport(nodeid, ("", 0, ""), {}, outcome, None, when))  # type: ignore[arg-type]

    for test, call, teardown in (("a[x-0ms]", "passed", "passed"), ("b[x-0ms-hang]", "passed", "failed")):
        report(test, "setup", "passed")
        report(test, "call", call)
        report(test, "teardown", teardown)
    report("c[x-100ms]", "setup", "skipped")
    report("c[x-100ms]", "teardown", "passed")
    report("elsewhere", "call", "passed")
    results.pytest_sessionfinish()
    said = json.loads((tmp_path / "results.json").read_text())
    assert said["command"] == "the command"
    assert said["results"] == {
        "x": {"0 ms": {"passed": 1, "failed": 1, "skipped": 0}, "100 ms": {"passed": 0, "failed": 0, "skipped": 1}}
    }
