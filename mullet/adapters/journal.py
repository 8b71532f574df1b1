"""The decision record in one SQLite file: hash-chained rows, on disk before `append` returns.

The chain shows any edit, deletion or reordering of rows to whoever has not rewritten everything after it; it does
not stop the owner of the file from recomputing the whole chain. That needs an anchor outside the machine.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from mullet.adapters.journal_file import (
    GENESIS,
    check_tail,
    check_whole,
    digest_of,
    pack,
    read_rows,
)
from mullet.adapters.journal_file import VerifyReport as VerifyReport
from mullet.adapters.sqlite_file import connect_read_only, reason_of
from mullet.domain.codec import canonical
from mullet.ports import ChainBroken, Clock, JournalError, JournalRow

BUSY_S = 0.25
"""How long a write waits for a foreign lock before it fails."""

_SCHEMA_VERSION = 1
_APPLICATION_ID = 0x6D756C6A
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE row (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, body NOT NULL,
    previous TEXT NOT NULL, digest TEXT NOT NULL
);
CREATE INDEX row_by_kind ON row (kind, seq);
CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, digest TEXT NOT NULL);
INSERT INTO head VALUES (1, 0, '{GENESIS}');
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_SCHEMA_VERSION};
COMMIT;
"""


class SqliteJournal:
    """The one writer of a journal file (`ports.Journal`).

    All writes happen in one thread of its own, one transaction per `append`, synced to disk at commit.

    Raises:
        JournalError: the file cannot be opened, or another process writes to it.
        ChainBroken: its last rows were changed after they were written. Nothing is repaired or cut off.
    """

    def __init__(self, path: Path | str, clock: Clock) -> None:
        self._path = Path(path)
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._inode: int | None = None
        self._closed = False
        self._lock = _take_lock(self._path)
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        try:
            self._worker.submit(self._open).result()
        except BaseException:
            self._worker.shutdown()
            self._lock.close()
            raise

    @property
    def path(self) -> Path:
        """Where the record lies."""
        return self._path

    async def append(self, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> int:
        """Write (kind, body) rows durably in one transaction and return the last sequence number.

        Raises:
            JournalError: the rows are not on disk (full, read-only, locked, not JSON); the next append tries anew.
        """
        if self._closed:
            raise JournalError(f"{self._path}: the journal is closed")
        at = self._clock.now()
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._write, at, tuple(rows))

    def rows(self, kinds: Sequence[str] | None = None, after: int = 0, limit: int | None = None) -> list[JournalRow]:
        """Return the rows of the given kinds with a sequence number above `after`, in order, at most `limit`."""
        return list(JournalReader(self._path).iterate(kinds, after, limit))

    def newest(self, kind: str) -> JournalRow | None:
        """Return the last row of one kind, or None."""
        return JournalReader(self._path).newest(kind)

    async def close(self) -> None:
        """Close the file and let another writer in."""
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._worker, self._disconnect)
        self._worker.shutdown()
        self._lock.close()

    # Everything below runs in the writer's thread.

    def _open(self) -> None:
        try:
            connection = self._connect("rwc")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                connection.executescript(_SCHEMA)
            elif connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
                raise JournalError(f"{self._path}: this SQLite file is no journal")
            elif version != _SCHEMA_VERSION:
                raise JournalError(f"{self._path}: journal version {version} is not {_SCHEMA_VERSION}")
            report = check_tail(connection)
            if report.reason:
                raise ChainBroken(f"{self._path}: row {report.first_bad_seq}: {report.reason}")
            self._inode = os.stat(self._path).st_ino
        except (sqlite3.Error, OSError) as error:
            self._disconnect()
            raise JournalError(f"{self._path}: {reason_of(error)}") from error
        except JournalError:
            self._disconnect()
            raise

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"{self._path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)
        self._connection = connection
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 33554432")
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _write(self, at: float, rows: tuple[tuple[str, Mapping[str, Any]], ...]) -> int:
        try:
            texts = [(kind, canonical(body)) for kind, body in rows]
        except (ValueError, TypeError) as error:
            raise JournalError(f"{self._path}: a row cannot be written as JSON: {error}") from error
        try:
            self._check_same_file()
            # A connection that failed once is not trusted again; it must find the file, never make a new one.
            connection = self._connection or self._connect("rw")
            connection.execute("BEGIN IMMEDIATE")
            seq, previous = connection.execute("SELECT seq, digest FROM head").fetchone()
            for kind, text in texts:
                seq += 1
                digest = digest_of(seq, at, kind, text, previous)
                values = (seq, at, kind, pack(text), previous, digest)
                connection.execute("INSERT INTO row VALUES (?, ?, ?, ?, ?, ?)", values)
                previous = digest
            connection.execute("UPDATE head SET seq = ?, digest = ?", (seq, previous))
            connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self._disconnect()
            raise JournalError(f"{self._path}: {reason_of(error)}") from error
        return int(seq)

    def _check_same_file(self) -> None:
        if os.stat(self._path).st_ino != self._inode:
            raise OSError("the file was replaced while it was open")


class JournalReader:
    """Read-only view of a journal file, also while the daemon writes to it. Every call opens and closes the file."""

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)

    def iterate(
        self, kinds: Sequence[str] | None = None, after: int = 0, limit: int | None = None
    ) -> Iterator[JournalRow]:
        """Yield the rows of the given kinds with a sequence number above `after`, in order.

        Raises:
            JournalError: the file cannot be read.
            ChainBroken: a row does not hold what was written.
        """
        where, values = ["seq > ?"], [after]
        sql = "SELECT seq, at, kind, body, previous, digest FROM row WHERE "
        if kinds is not None:
            where.append(f"kind IN ({', '.join('?' * len(kinds))})")
        sql += f"{' AND '.join(where)} ORDER BY seq LIMIT ?"
        yield from self._select(sql, (*values, *(kinds or ()), -1 if limit is None else limit))

    def newest(self, kind: str) -> JournalRow | None:
        """Return the last row of one kind, or None. Raises as `iterate`."""
        sql = "SELECT seq, at, kind, body, previous, digest FROM row WHERE kind = ? ORDER BY seq DESC LIMIT 1"
        return next(iter(self._select(sql, (kind,))), None)

    def _select(self, sql: str, values: tuple[Any, ...]) -> Iterator[JournalRow]:
        connection: sqlite3.Connection | None = None
        try:
            connection = connect_read_only(self._path)
            yield from read_rows(connection.execute(sql, values))
        except (sqlite3.Error, OSError) as error:
            raise JournalError(f"{self._path}: {reason_of(error)}") from error
        finally:
            if connection is not None:
                connection.close()


def verify(path: Path | str) -> VerifyReport:
    """Check every row of a journal file and return how many are good and the first that is not.

    Raises:
        JournalError: the file cannot be opened at all.
    """
    try:
        connection = connect_read_only(Path(path))
    except (sqlite3.Error, OSError) as error:
        raise JournalError(f"{path}: {reason_of(error)}") from error
    try:
        return check_whole(connection)
    finally:
        connection.close()


def _take_lock(path: Path) -> IO[bytes]:
    lock_path = path.with_name(path.name + ".lock")
    try:
        handle = open(lock_path, "ab")  # noqa: SIM115 - held for as long as the journal lives
    except OSError as error:
        raise JournalError(f"{lock_path}: {reason_of(error)}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise JournalError(f"{path}: another process writes to this journal") from error
    return handle
