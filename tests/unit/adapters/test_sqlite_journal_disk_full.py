"""The record on a disk that is really full, and on one that is read-only."""

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from mullet.adapters.clock import SystemClock
from mullet.adapters.journal import SqliteJournal, verify
from mullet.ports import JournalError

INCOMPRESSIBLE = 3_000


@contextlib.contextmanager
def tiny_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "mullet-test", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here; the file size limit test covers the same")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


async def fill(journal: SqliteJournal) -> tuple[int, str]:
    """Append until that fails: the last row on disk, and why there is no more."""
    last = 0
    try:
        for _ in range(2_000):
            last = await journal.append([("a", {"noise": os.urandom(INCOMPRESSIBLE).hex()})])
    except JournalError as error:
        return last, str(error)
    raise AssertionError("the disk never filled")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root; the file size limit test covers it")


@needs_root
async def test_a_full_disk_stops_the_record_and_space_brings_it_back(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(400_000))
        journal = SqliteJournal(disk / "journal.db", SystemClock())
        try:
            last, reason = await fill(journal)
            assert last > 0
            assert "full" in reason or "I/O" in reason
            for _ in range(3):
                with pytest.raises(JournalError):
                    await journal.append([("b", {"noise": os.urandom(100 * INCOMPRESSIBLE).hex()})])
            assert [row.seq for row in journal.rows(["a"])] == list(range(1, last + 1)), "reading goes on"
            ballast.unlink()
            assert await journal.append([("back", {})]) == last + 1
        finally:
            await journal.close()
        report = verify(disk / "journal.db")
        assert (report.ok, report.rows) == (True, last + 1)


@needs_root
async def test_a_read_only_disk_stops_the_record(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk") as disk:
        journal = SqliteJournal(disk / "journal.db", SystemClock())
        await journal.append([("a", {})])
        await journal.close()
        make_read_only(disk)
        assert verify(disk / "journal.db").ok, "a closed journal can be read where nothing can be written"
        with pytest.raises(JournalError, match="Read-only"):
            SqliteJournal(disk / "journal.db", SystemClock())


def test_a_file_size_limit_stops_the_record_and_its_end_brings_it_back(tmp_path: Path) -> None:
    script = """
        import asyncio, os, resource, sys
        from mullet.adapters.clock import SystemClock
        from mullet.adapters.journal import SqliteJournal, verify
        from mullet.ports import JournalError

        async def main(path):
            journal = SqliteJournal(path, SystemClock())
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
            last, reason = 0, None
            for _ in range(500):
                try:
                    last = await journal.append([("a", {"noise": os.urandom(3000).hex()})])
                except JournalError as error:
                    reason = str(error)
                    break
            assert last and reason, (last, reason)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert await journal.append([("b", {})]) == last + 1
            await journal.close()
            report = verify(path)
            assert report.ok and report.rows == last + 1, report
            print(reason)

        asyncio.run(main(sys.argv[1]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "journal.db")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "I/O" in done.stdout or "full" in done.stdout
