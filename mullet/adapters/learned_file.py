"""What was learnt of the fleet, in one small file: any crash leaves the old one or the new one."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mullet.ports import MulletError

VERSION = 2
WITHOUT_MAKES = 1
"""The version in which banks were not told apart by make."""


class LearnedError(MulletError):
    """What was learnt cannot be kept."""


class LearnedFile:
    """Reads and replaces the file as a whole. A file that cannot be used is set aside: learning starts anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problem: str | None = None
        """Why the file that was found is not used; None if it is, or there was none."""

    def load(self) -> Mapping[str, Any]:
        """Return what was kept; empty at a first start and where the file cannot be used. Never raises.

        A file that does not tell makes apart holds each bank as a whole: make None, and of no load the make is known.
        """
        self.problem = None
        try:
            return _kept(json.loads(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            self.refuse(str(error))
            return {}

    def refuse(self, why: str) -> None:
        """Set the file aside as `<name>.damaged`, because of `why`."""
        self.problem = f"{self._path.name} cannot be used ({why}): learning starts anew"
        try:
            os.replace(self._path, self._path.with_name(f"{self._path.name}.damaged"))
        except OSError as error:
            self.problem += f"; it cannot be set aside either ({error.strerror})"

    async def save(self, kept: Mapping[str, Any]) -> None:
        """Put `kept` on disk, beside the event loop.

        Raises:
            LearnedError: it is not on disk; the old one still is.
        """
        await asyncio.to_thread(self._write, kept)

    def _write(self, kept: Mapping[str, Any]) -> None:
        beside = self._path.with_name(f".{self._path.name}.new")
        try:
            with open(beside, "w", encoding="utf-8") as file:
                json.dump({"version": VERSION, **kept}, file, separators=(",", ":"), allow_nan=False)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, self._path)
        except OSError as error:
            raise LearnedError(f"{self._path}: {error.strerror or error}") from error


def _kept(data: Any) -> Mapping[str, Any]:
    """Return what a file's content keeps, in the present shape.

    Raises:
        ValueError: it is no version of it.
    """
    if not isinstance(data, dict) or not isinstance(data.get("banks"), dict):
        raise ValueError("it is not what was learnt")
    if data.get("version") == VERSION and isinstance(data.get("makes"), dict):
        return {"makes": data["makes"], "banks": data["banks"]}
    if data.get("version") != WITHOUT_MAKES or not all(isinstance(body, dict) for body in data["banks"].values()):
        raise ValueError(f"it is not version {VERSION} of what was learnt")
    return {"makes": {}, "banks": {bank: [{"make": None, **body}] for bank, body in data["banks"].items()}}
