"""Until when an edge agent's leases run, kept over its restarts so that a crash never lengthens them."""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path

logger = logging.getLogger(__name__)

WRITE_EVERY_S = 1.0
"""A deadline that moved by less is not written again."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id(path: Path = BOOT_ID) -> str:
    """Return what names this run of the machine; its monotonic clock means nothing to another run.

    Raises:
        OSError: the kernel does not tell.
    """
    return path.read_text(encoding="ascii").strip()


class LeaseFile:
    """One small file; fits `mullet.agent.transport.LeaseMemory`. Must outlive a reboot to tell a cold boot."""

    def __init__(self, path: Path, boot: str) -> None:
        self._path = path
        self._boot = boot
        self._written = -math.inf
        self._failed = False

    def recall(self, now: float) -> float | None:
        """Return how many seconds the leases still run; 0 after a cold boot or a lapse; None if nothing is known."""
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            boot, deadline = kept["boot"], float(kept["deadline"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s tells nothing about leases: %s", self._path, error)
            return None
        if boot != self._boot or not math.isfinite(deadline):
            return 0.0
        return max(0.0, deadline - now)

    def remember(self, deadline: float) -> None:
        """Keep the instant (monotonic seconds) at which the last lease lapses unless it is renewed."""
        if deadline - self._written < WRITE_EVERY_S:
            return
        beside = self._path.with_name(f".{self._path.name}.new")
        try:
            beside.write_text(json.dumps({"boot": self._boot, "deadline": deadline}), encoding="utf-8")
            os.replace(beside, self._path)
        except OSError as error:
            # The leases themselves do not depend on the file: without it a restart only cannot know their age.
            logger.log(logging.DEBUG if self._failed else logging.WARNING, "leases are not kept: %s", error)
            self._failed = True
            return
        self._failed = False
        self._written = deadline
