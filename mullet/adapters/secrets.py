"""Credentials from where systemd or an operator puts them, and a log filter that lets none of them through."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_MASK = "***"

_ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


class Redactor(logging.Filter):
    """Replaces every known secret in every log record that passes. Add it to handlers: a filter on a logger does
    not see what its children log."""

    def __init__(self) -> None:
        super().__init__()
        self._spellings: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, secret: str) -> None:
        """Keep `secret`, and its spelling in URLs, JSON and Python literals, out of all logs from now on."""
        # Lines of a key file are told apart by the log, so each is a secret of its own.
        parts = {secret, *(line for line in secret.splitlines() if len(line) >= 8)}
        for part in parts:
            self._spellings |= {part, quote(part, safe=""), quote(part), json.dumps(part)[1:-1], repr(part)[1:-1]}
        self._spellings.discard("")
        longest_first = sorted(self._spellings, key=lambda text: (-len(text), text))
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def redact(self, text: str) -> str:
        """Return `text` with every secret masked."""
        return text if self._pattern is None else self._pattern.sub(_MASK, text)

    def attach(self, logger: logging.Logger) -> None:
        """Put this filter before every handler that `logger` has now."""
        for handler in logger.handlers:
            handler.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the message, the traceback, the stack and every text that was attached; the record always passes."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = f"{record.msg!r} {record.args!r}"
        record.msg, record.args = self.redact(message), None
        if record.exc_info:
            record.exc_text = record.exc_text or _format(record.exc_info)
            record.exc_info = None
        for name, value in vars(record).items():
            if isinstance(value, str):
                setattr(record, name, self.redact(value))
        return True


class Credentials:
    """Looks credentials up by name: first where systemd puts them, then in a folder of 0600 files."""

    def __init__(self, folder: Path | None, redactor: Redactor, environment: Mapping[str, str] | None = None) -> None:
        given = (os.environ if environment is None else environment).get("CREDENTIALS_DIRECTORY")
        self._system = Path(given) if given else None
        self._folder = folder
        self._redactor = redactor

    def lookup(self, name: str) -> str | None:
        """Return the text of a credential without the line end after it, or None if there is none of this name.

        Raises:
            ValueError: the name is no plain file name, or the content is no text.
            PermissionError: the file can be read or written by others than its owner, or not by us.
        """
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} is no name of a credential")
        secret = None
        if self._system is not None:
            secret = _read(self._system / name, private=False)
        if secret is None and self._folder is not None:
            secret = _read(self._folder / name, private=True)
        if secret:
            self._redactor.add(secret)
        return secret


def _read(path: Path, private: bool) -> str | None:
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if private and stat.S_IMODE(status.st_mode) & 0o077:
                raise PermissionError(
                    f"{path} can be read or written by others (mode {stat.S_IMODE(status.st_mode):04o}); chmod 0600 it"
                )
            if private and status.st_uid not in (0, os.geteuid()):
                raise PermissionError(f"{path} belongs to another user")
            content = file.read()
    except FileNotFoundError:
        return None
    try:
        return content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        # The decoder's own error would quote the secret.
        raise ValueError(f"{path} is no text") from None


def _format(exc_info: Any) -> str:
    found: _ExcInfo = exc_info
    return "".join(traceback.format_exception(*found)).rstrip("\n")
