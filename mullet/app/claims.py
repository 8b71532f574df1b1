"""What the journal claims, exported for the independent checker (docs/wire.md)."""

from __future__ import annotations

import json
from pathlib import Path

from mullet.adapters.journal import JournalReader
from mullet.control import record


def write_claims(journal: Path, claims: Path) -> int:
    """Export what the journal claims, for the independent checker; returns the number of lines."""
    count = 0
    with open(claims, "w", encoding="utf-8") as file:
        for line in record.claims(JournalReader(journal).iterate([record.DECISION], 0, None)):
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
            count += 1
    return count
