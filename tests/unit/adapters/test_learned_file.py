"""What was learnt survives a restart, and a damaged file never stops one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from mullet.adapters.learned_file import LearnedError, LearnedFile


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    file = LearnedFile(tmp_path / "learned.json")
    assert file.load() == {}
    kept = {"makes": {"M50S / luxos": ["wm-001"]}, "banks": {"wm": [{"make": "M50S / luxos", "points": {}}]}}
    asyncio.run(file.save(kept))
    assert LearnedFile(tmp_path / "learned.json").load() == kept
    assert file.problem is None
    assert [path.name for path in tmp_path.iterdir()] == ["learned.json"]


def test_a_file_from_before_makes_holds_each_bank_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "learned.json"
    path.write_text('{"version": 1, "banks": {"wm": {"points": {}, "ramp_down": {}, "ramp_up": {"0": 1}}}}')
    file = LearnedFile(path)
    bank = {"make": None, "points": {}, "ramp_down": {}, "ramp_up": {"0": 1}}
    assert file.load() == {"makes": {}, "banks": {"wm": [bank]}}
    assert file.problem is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"version": 3, "makes": {}, "banks": {}}',
        '{"version": 2, "banks": {}}',
        '{"version": 2, "makes": {}, "banks": []}',
        '{"version": 1, "banks": []}',
        '{"version": 1, "banks": {"wm": 5}}',
    ],
)
def test_a_file_that_cannot_be_used_is_set_aside(tmp_path: Path, text: str) -> None:
    path = tmp_path / "learned.json"
    path.write_text(text)
    file = LearnedFile(path)
    assert file.load() == {}
    assert file.problem is not None
    assert "learning starts anew" in file.problem
    assert (tmp_path / "learned.json.damaged").read_text() == text
    asyncio.run(file.save({"makes": {}, "banks": {}}))
    assert json.loads(path.read_text()) == {"version": 2, "makes": {}, "banks": {}}


def test_a_folder_that_takes_no_files_is_said(tmp_path: Path) -> None:
    file = LearnedFile(tmp_path / "gone" / "learned.json")
    with pytest.raises(LearnedError, match="No such file"):
        asyncio.run(file.save({}))
