"""How a row of the record lies in its file, and how a chain of rows is checked."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mullet.adapters.sqlite_file import reason_of
from mullet.domain.codec import canonical
from mullet.ports import ChainBroken, JournalRow

GENESIS = "0" * 64
"""What the first row names as its previous digest."""

PACK_ABOVE = 2_048
"""Bodies longer than this many characters are compressed."""

TAIL_ROWS = 64
"""How many of the last rows are checked when a journal is opened."""

_COLUMNS = "seq, at, kind, body, previous, digest"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a check of the chain found."""

    rows: int
    """Rows that are good, counted up to the first bad one."""
    first_bad_seq: int | None
    """The first row that is missing, changed or out of place; None where the rows are good."""
    reason: str
    """Why; empty if nothing is wrong."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.reason


def digest_of(seq: int, at: float, kind: str, body_text: str, previous: str) -> str:
    """Return sha256 over the canonical JSON list [seq, at, kind, body, previous], the body given as canonical text."""
    text = f'[{seq},{json.dumps(at)},{json.dumps(kind)},{body_text},"{previous}"]'
    return hashlib.sha256(text.encode()).hexdigest()


def row_digest(row: JournalRow) -> str:
    """Return the digest that `row` must have, from its own values."""
    return digest_of(row.seq, row.at, row.kind, canonical(row.body), row.previous)


def pack(text: str) -> str | bytes:
    """Return `text` as it is stored: itself, or deflated and followed by a checksum of the deflated bytes.

    Deflate leaves padding bits that inflate ignores; without the checksum a flip of one of them would pass.
    """
    if len(text) <= PACK_ABOVE:
        return text
    deflated = zlib.compress(text.encode(), 1)
    return deflated + zlib.crc32(deflated).to_bytes(4, "big")


def unpack(stored: Any) -> str:
    """Return the text that `pack` stored.

    Raises:
        ValueError: it is not what `pack` stores.
    """
    if isinstance(stored, str):
        return stored
    if not isinstance(stored, bytes) or len(stored) < 5:
        raise ValueError("the body is neither text nor deflated text")
    deflated, checksum = stored[:-4], stored[-4:]
    if zlib.crc32(deflated).to_bytes(4, "big") != checksum:
        raise ValueError("the deflated body was changed")
    try:
        return zlib.decompress(deflated).decode()
    except zlib.error as error:
        raise ValueError(f"the deflated body does not inflate: {error}") from error


def read_rows(cursor: Iterable[Any]) -> Iterator[JournalRow]:
    """Yield selected columns as rows.

    Raises:
        ChainBroken: a body is not what was stored.
    """
    for seq, at, kind, stored, previous, digest in cursor:
        try:
            body = json.loads(unpack(stored))
        except ValueError as error:
            raise ChainBroken(f"row {seq}: {error}") from error
        yield JournalRow(seq, at, kind, body, previous, digest)


def check_tail(connection: sqlite3.Connection) -> VerifyReport:
    """Check the last rows and that they end where the head says."""
    last = connection.execute("SELECT max(seq) FROM row").fetchone()[0] or 0
    first = max(0, last - TAIL_ROWS)
    before = connection.execute("SELECT digest FROM row WHERE seq = ?", (first,)).fetchone()
    return _check_chain(connection, first, before[0] if before else GENESIS)


def check_whole(connection: sqlite3.Connection) -> VerifyReport:
    """Check every row, the head, and that the file's own structure is sound."""
    report = _check_chain(connection, 0, GENESIS)
    if report.reason:
        return report
    try:
        found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        found = reason_of(error)
    return report if found == "ok" else VerifyReport(report.rows, None, f"the file is damaged: {found}")


def _check_chain(connection: sqlite3.Connection, after: int, previous: Any) -> VerifyReport:
    seq, good = after, 0
    try:
        connection.execute("BEGIN")
        cursor = connection.execute(f"SELECT {_COLUMNS} FROM row WHERE seq > ? ORDER BY seq", (after,))
        for row in cursor:
            problem = _problem_of(row, seq + 1, previous)
            if problem:
                return VerifyReport(good, seq + 1, problem)
            seq, previous, good = row[0], row[5], good + 1
        head = connection.execute("SELECT seq, digest FROM head").fetchall()
        if head != [(seq, previous)]:
            return VerifyReport(good, seq + 1, f"the head names row {head[0][0] if head else None} as the last")
    except sqlite3.Error as error:
        return VerifyReport(good, seq + 1, reason_of(error))
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return VerifyReport(good, None, "")


def _problem_of(row: tuple[Any, ...], expected_seq: int, previous: Any) -> str:
    seq, at, kind, stored, named, digest = row
    if seq != expected_seq:
        return f"missing: the next row is {seq}"
    if not (isinstance(at, float) and isinstance(kind, str) and isinstance(named, str) and isinstance(digest, str)):
        return "a column has another type than was written"
    if named != previous:
        return "it does not follow the row before it"
    try:
        text = unpack(stored)
    except ValueError as error:
        return str(error)
    if digest_of(seq, at, kind, text, named) != digest:
        return "its digest does not match its content"
    return ""
