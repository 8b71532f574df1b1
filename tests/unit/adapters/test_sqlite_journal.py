import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mullet.adapters.clock import SystemClock
from mullet.adapters.journal import JournalReader, SqliteJournal, verify
from mullet.adapters.journal_file import PACK_ABOVE, pack, row_digest, unpack
from mullet.ports import ChainBroken, Journal, JournalError

LARGE = {"text": "watts " * PACK_ABOVE}


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[SqliteJournal]:
    opened = SqliteJournal(tmp_path / "journal.db", SystemClock())
    yield opened
    await opened.close()


async def written(path: Path, rows: int = 20) -> Path:
    """A closed journal with `rows` rows, every fifth of them large."""
    journal = SqliteJournal(path, SystemClock())
    for number in range(1, rows + 1):
        body = LARGE | {"n": number} if number % 5 == 0 else {"n": number, "watts": 0.1 * number, "load": "asic-001"}
        await journal.append([("kind-a" if number % 2 else "kind-b", body)])
    await journal.close()
    return path


async def test_rows_come_back_in_order_with_their_digests(journal: SqliteJournal) -> None:
    port: Journal = journal
    assert await port.append([("snapshot", {"watts": 1.5, "none": None}), ("dispatch", LARGE)]) == 2
    assert await port.append([("snapshot", {"é": [1, True, "ü"]})]) == 3
    rows = port.rows()
    assert [(row.seq, row.kind) for row in rows] == [(1, "snapshot"), (2, "dispatch"), (3, "snapshot")]
    assert rows[0].body == {"watts": 1.5, "none": None}
    assert rows[1].body == LARGE
    assert rows[2].body == {"é": [1, True, "ü"]}
    assert [row.digest for row in rows] == [row_digest(row) for row in rows]
    assert [row.previous for row in rows[1:]] == [row.digest for row in rows[:-1]]
    assert [row.seq for row in port.rows(["snapshot"], after=1)] == [3]
    assert port.rows([]) == []
    newest = journal.newest("snapshot")
    assert newest is not None
    assert newest.seq == 3
    assert journal.newest("nothing") is None
    assert verify(journal.path).rows == 3


async def test_a_second_writer_is_refused_and_a_reader_is_not(journal: SqliteJournal) -> None:
    with pytest.raises(JournalError, match="another process"):
        SqliteJournal(journal.path, SystemClock())
    await journal.append([("a", {})])
    assert [row.kind for row in JournalReader(journal.path).iterate()] == ["a"]
    await journal.close()
    await journal.close()
    with pytest.raises(JournalError, match="closed"):
        await journal.append([("b", {})])
    again = SqliteJournal(journal.path, SystemClock())
    assert await again.append([("b", {})]) == 2
    await again.close()


async def test_concurrent_appends_are_all_chained(journal: SqliteJournal) -> None:
    numbers = await asyncio.gather(*(journal.append([("a", {"n": n}), ("b", {"n": n})]) for n in range(25)))
    assert sorted(numbers) == list(range(2, 51, 2))
    assert verify(journal.path).ok
    bodies = [row.body["n"] for row in journal.rows()]
    assert bodies[0::2] == bodies[1::2], "the rows of one append lie together"


async def test_what_is_not_json_is_refused_and_nothing_of_the_append_is_written(journal: SqliteJournal) -> None:
    for body in ({"watts": float("nan")}, {"thing": object()}):
        with pytest.raises(JournalError, match="JSON"):
            await journal.append([("good", {}), ("bad", body)])
    assert journal.rows() == []
    assert await journal.append([("good", {})]) == 1


async def test_a_foreign_lock_fails_in_time_and_passes(journal: SqliteJournal) -> None:
    other = sqlite3.connect(journal.path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="locked"):
            await asyncio.wait_for(journal.append([("a", {})]), 5.0)
        other.execute("ROLLBACK")
    finally:
        other.close()
    assert await journal.append([("a", {})]) == 1


async def test_a_removed_file_is_not_silently_written_on(journal: SqliteJournal) -> None:
    await journal.append([("a", {})])
    journal.path.unlink()
    for _ in range(2):
        with pytest.raises(JournalError, match="No such file"):
            await journal.append([("b", {})])
    assert not journal.path.exists()


async def test_foreign_files_are_refused_untouched(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"certainly not a database " * 100)
    with pytest.raises(JournalError, match="not a database"):
        SqliteJournal(garbage, SystemClock())
    assert garbage.read_bytes() == b"certainly not a database " * 100
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(JournalError, match="no journal"):
        SqliteJournal(other, SystemClock())
    with pytest.raises(JournalError):
        SqliteJournal(tmp_path / "no-such-folder" / "journal.db", SystemClock())
    with pytest.raises(JournalError, match="no such file"):
        verify(tmp_path / "absent.db")
    with pytest.raises(JournalError):
        verify(garbage)


def sql(statement: str) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: connection.execute(statement)


def swap(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE row SET seq = 1000 WHERE seq = 7")
    connection.execute("UPDATE row SET seq = 7 WHERE seq = 8")
    connection.execute("UPDATE row SET seq = 8 WHERE seq = 1000")


@pytest.mark.parametrize(
    ("edit", "first_bad"),
    [
        (sql("UPDATE row SET body = replace(body, '0.7', '0.8') WHERE seq = 7"), 7),
        (sql("UPDATE row SET body = CAST(body AS BLOB) WHERE seq = 7"), 7),
        (sql("UPDATE row SET kind = 'kind-b' WHERE seq = 7"), 7),
        (sql("UPDATE row SET at = at + 1e-6 WHERE seq = 7"), 7),
        (sql("UPDATE row SET digest = substr(digest, 2) || 'a' WHERE seq = 7"), 7),
        (sql("UPDATE row SET previous = digest WHERE seq = 7"), 7),
        (sql("UPDATE row SET body = body || x'00' WHERE seq = 10"), 10),
        (sql("DELETE FROM row WHERE seq = 7"), 7),
        (sql("DELETE FROM row WHERE seq = 1"), 1),
        (sql("DELETE FROM row WHERE seq = 20"), 20),
        (sql("DELETE FROM row"), 1),
        (sql("UPDATE head SET seq = 19"), 21),
        (sql("DELETE FROM head"), 21),
        (sql("INSERT INTO row SELECT 21, at, kind, body, previous, digest FROM row WHERE seq = 20"), 21),
        (swap, 7),
    ],
)
async def test_edits_deletions_and_reordering_are_found(
    tmp_path: Path, edit: Callable[[sqlite3.Connection], object], first_bad: int
) -> None:
    path = await written(tmp_path / "journal.db")
    assert verify(path).ok
    connection = sqlite3.connect(path)
    edit(connection)
    connection.commit()
    connection.close()
    before = path.read_bytes()
    report = verify(path)
    assert (report.first_bad_seq, report.ok, report.rows) == (first_bad, False, first_bad - 1)
    with pytest.raises(ChainBroken, match=f"row {first_bad}"):
        SqliteJournal(path, SystemClock())
    assert path.read_bytes() == before, "opening repairs and cuts nothing"


async def test_any_flipped_bit_of_a_row_is_found(tmp_path: Path) -> None:
    path = await written(tmp_path / "journal.db", rows=4)
    content = bytearray(path.read_bytes())
    # A cell: 2 + 1 bytes of length and row id, 9 of types, 8 of `at`, the kind, the body, two digests.
    body = content.index(b'{"load":"asic-001","n":2,')
    start, end = body - len("kind-b") - 20, content.index(b"}", body) + 1 + 2 * 64
    for position in range(start, end):
        for bit in range(8):
            if position == start + 4 and bit in (0, 3):
                continue  # the stored type of the row id, which SQLite never reads: the record stays what it was
            content[position] ^= 1 << bit
            path.write_bytes(content)
            # A file that does not open any more is found as well.
            with contextlib.suppress(JournalError):
                assert not verify(path).ok, (position - start, bit)
            content[position] ^= 1 << bit


def test_any_flipped_bit_of_a_packed_body_is_found() -> None:
    packed = pack("watts " * PACK_ABOVE)
    assert isinstance(packed, bytes)
    assert unpack(packed) == "watts " * PACK_ABOVE
    for position in range(len(packed)):
        for bit in range(8):
            flipped = bytearray(packed)
            flipped[position] ^= 1 << bit
            with pytest.raises(ValueError):
                unpack(bytes(flipped))


async def test_damage_to_the_index_is_found(tmp_path: Path) -> None:
    path = await written(tmp_path / "journal.db")
    content = path.read_bytes()
    connection = sqlite3.connect(path)
    root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'row_by_kind'").fetchone()[0]
    connection.close()
    page = content[(root - 1) * 4096 : root * 4096]
    path.write_bytes(content.replace(page, page.replace(b"kind-b", b"kind-c", 1)))
    report = verify(path)
    assert not report.ok
    assert "damaged" in report.reason
