"""What miners were found to be, kept in a file so that a restart need not identify them again."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


class IdentityCache:
    """Entries by address; memory only where no file is named."""

    def __init__(self, path: str | None) -> None:
        self._path = None if path is None else Path(path)
        self.entries: dict[str, dict[str, Any]] = {}

    def load(self) -> None:
        """Read the file; one that is absent or spoilt counts as empty."""
        if self._path is None:
            return
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            log.warning("identity cache %s is not used: %s", self._path.name, type(error).__name__)
            return
        if isinstance(found, dict):
            self.entries = {str(key): entry for key, entry in found.items() if isinstance(entry, dict)}

    def put(self, address: str, entry: dict[str, Any]) -> bool:
        """Remember an entry and return whether it changed anything."""
        merged = {**self.entries.get(address, {}), **entry}
        if self.entries.get(address) == merged:
            return False
        self.entries[address] = merged
        return True

    def save(self) -> None:
        """Write the file, whole or not at all; a failure is logged, the entries stay in memory."""
        if self._path is None:
            return
        text = json.dumps(dict(self.entries), indent=1, sort_keys=True)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)
        except OSError as error:
            log.warning("identity cache %s was not written: %s", self._path.name, type(error).__name__)
