"""hardware/SUPPORTED.md says what the table of firmwares says, and counts what the contract showed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mullet_hardware.asic.capability import FIRMWARES
from mullet_hardware.asic.supported import RESULTS, RESULTS_HEADING, capabilities, contract, document, main

SUPPORTED = Path(__file__).parents[4] / "hardware" / "SUPPORTED.md"
AGAIN = "write it anew: uv run python -m mullet_hardware.asic.supported > hardware/SUPPORTED.md"


def test_the_table_of_firmwares_is_as_it_was_written() -> None:
    written, _, _ = SUPPORTED.read_text().partition(RESULTS_HEADING)
    assert written.rstrip() == capabilities().rstrip(), f"hardware/SUPPORTED.md is stale; {AGAIN}"


def test_what_the_contract_showed_is_as_it_was_written() -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else None
    assert SUPPORTED.read_text().partition(RESULTS_HEADING)[2] == contract(results).partition(RESULTS_HEADING)[2], AGAIN


def test_every_firmware_says_what_it_rests_on() -> None:
    text = capabilities()
    assert "Nothing here was run on hardware" in text
    for firmware in FIRMWARES.values():
        rows = [line for line in text.splitlines() if line.startswith("|") and f"`{firmware.name}`" in line]
        assert len(rows) == 2
        assert str(firmware.grade_of_reads) in rows[1]
        assert firmware.sources in rows[1]


def test_failures_and_what_was_not_run_are_told() -> None:
    counts = {"passed": 3, "failed": 1, "skipped": 2}
    said = contract({"date": "2026-01-02", "command": "pytest x", "results": {"luxos": {"0 ms": counts}}})
    assert "| `luxos` | **1 failed**, 3 passed, 2 skipped |" in said
    assert "| `vnish` | not run |" in said
    assert "on 2026-01-02 by `pytest x`" in said
    assert "not recorded" in contract(None)


def test_the_command_prints_it_without_pyasic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = {"date": "2026-01-02", "command": "pytest x", "results": {}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert main(["--results", str(tmp_path / "results.json")]) == 0
    assert capsys.readouterr().out == document(results)
    code = "import sys, mullet_hardware.asic.supported; sys.exit('pyasic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
