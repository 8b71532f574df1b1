"""SQLite files that one process writes and others read."""

from __future__ import annotations

import sqlite3
from pathlib import Path


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open a file for reading, also where this process may not write beside it.

    Raises:
        FileNotFoundError: there is no such file.
        sqlite3.Error: it cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"no such file as {path.name}")
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        # A closed WAL file cannot be opened in a directory that we may not write to, unless it is called immutable,
        # and that it is only while no write-ahead log lies beside it.
        if path.with_name(path.name + "-wal").exists():
            raise
        return sqlite3.connect(f"{uri}&immutable=1", uri=True, isolation_level=None)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def reason_of(error: sqlite3.Error | OSError) -> str:
    """Return why SQLite or the system refused, in a few words."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    name = getattr(error, "sqlite_errorname", None)
    return f"{error} ({name})" if name else str(error)
