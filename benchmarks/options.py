"""What the command line asks of a benchmark."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """How large, and with which peers."""

    quick: bool = False
    """Smaller instances: ends within 45 s on 2 cores."""
    peers: str = sys.executable
    """Interpreter whose environment has the peers."""
    soak_s: float | None = None
    """How long the miners' polling goes on with faults; None for as long as the size has it."""
