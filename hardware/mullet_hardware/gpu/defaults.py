"""What was found on each GPU at first contact, kept in a small file so that it can be put back."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mullet.ports import UnsafeWrite


@dataclass(frozen=True, slots=True)
class FoundDefaults:
    """The power limit that a GPU had before anything was written to it, and when that was seen (Unix seconds)."""

    limit_watts: float
    found_at: float


class DefaultsFile:
    """Remembers per UUID; what is once written is never overwritten. Without a path it remembers in memory only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, FoundDefaults] = {}
        self._lock = threading.Lock()

    def get(self, uuid: str) -> FoundDefaults | None:
        """Return what was found on the GPU, or None before `remember`."""
        return self._known.get(uuid)

    def remember(self, uuid: str, found: FoundDefaults) -> FoundDefaults:
        """Return what is remembered of the GPU: `found`, unless an earlier process found something else.

        Raises:
            UnsafeWrite: the file cannot be read or written, so what was found could be lost.
        """
        with self._lock:
            if uuid in self._known:
                return self._known[uuid]
            if self._path is None:
                self._known[uuid] = found
                return found
            on_file = self._read(self._path)
            if uuid not in on_file:
                on_file[uuid] = found
                self._write(self._path, on_file)
            self._known[uuid] = on_file[uuid]
            return on_file[uuid]

    def _read(self, path: Path) -> dict[str, FoundDefaults]:
        try:
            data: Any = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise UnsafeWrite(f"remembered defaults in {path} cannot be read: {error}") from None
        if not isinstance(data, dict) or not isinstance(data.get("gpus"), dict):
            raise UnsafeWrite(f"remembered defaults in {path} have an unknown shape")
        try:
            return {str(uuid): _decoded(item) for uuid, item in data["gpus"].items()}
        except (KeyError, TypeError, ValueError) as error:
            raise UnsafeWrite(f"remembered defaults in {path} have an unknown shape: {error}") from None

    def _write(self, path: Path, known: Mapping[str, FoundDefaults]) -> None:
        text = json.dumps({"gpus": {uuid: asdict(found) for uuid, found in known.items()}}, indent=1, sort_keys=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with beside.open("w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise UnsafeWrite(f"remembered defaults cannot be written to {path}: {error}") from None


def _decoded(item: Mapping[str, Any]) -> FoundDefaults:
    return FoundDefaults(limit_watts=float(item["limit_watts"]), found_at=float(item["found_at"]))
