"""The file that keeps an agent's leases over its restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from mullet.adapters.lease_file import LeaseFile, boot_id


def test_nothing_is_known_before_the_first_lease(tmp_path: Path) -> None:
    assert LeaseFile(tmp_path / "leases", "boot-1").recall(5.0) is None


def test_a_restart_finds_what_is_left(tmp_path: Path) -> None:
    LeaseFile(tmp_path / "leases", "boot-1").remember(100.0)
    assert LeaseFile(tmp_path / "leases", "boot-1").recall(70.0) == 30.0
    assert LeaseFile(tmp_path / "leases", "boot-1").recall(101.0) == 0.0


def test_after_a_reboot_nothing_is_left(tmp_path: Path) -> None:
    LeaseFile(tmp_path / "leases", "boot-1").remember(100.0)
    assert LeaseFile(tmp_path / "leases", "boot-2").recall(1.0) == 0.0


def test_a_later_deadline_replaces_an_earlier_one(tmp_path: Path) -> None:
    file = LeaseFile(tmp_path / "leases", "boot-1")
    for deadline in (100.0, 100.5, 130.0):
        file.remember(deadline)
    assert file.recall(100.0) == 30.0
    assert [path.name for path in tmp_path.iterdir()] == ["leases"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"boot": "boot-1", "deadline": "x"}', "\x00"])
def test_a_damaged_file_tells_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "leases").write_text(content)
    assert LeaseFile(tmp_path / "leases", "boot-1").recall(1.0) is None


def test_a_folder_that_is_gone_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = LeaseFile(tmp_path / "gone" / "leases", "boot-1")
    file.remember(1.0)
    file.remember(10.0)
    assert [record.levelname for record in caplog.records if record.levelname == "WARNING"] == ["WARNING"]


def test_the_kernel_names_this_run_of_the_machine() -> None:
    assert len(boot_id()) == 36
