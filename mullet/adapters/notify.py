"""What the daemon tells systemd: ready, alive, reloading, stopping (sd_notify(3), over its socket)."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

logger = logging.getLogger(__name__)


class Notifier:
    """Speaks to the service manager, or to nobody where there is none. Never blocks and never raises."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        found = os.environ if environment is None else environment
        address = found.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the null byte of an abstract socket.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_s = _watchdog_s(found)

    @property
    def watchdog_s(self) -> float | None:
        """Seconds within which `watchdog` must be called again, or None if nobody waits for it."""
        return self._watchdog_s

    def ready(self, status: str = "") -> bool:
        """Say that the start is complete."""
        return self._send("READY=1", *([f"STATUS={_one_line(status)}"] if status else []))

    def status(self, text: str) -> bool:
        """Say in one line what goes on."""
        return self._send(f"STATUS={_one_line(text)}")

    def watchdog(self) -> bool:
        """Say that the loop turns."""
        return self._send("WATCHDOG=1")

    def reloading(self, monotonic_s: float) -> bool:
        """Say that the policy is being read again; `ready` ends it. `monotonic_s` is CLOCK_MONOTONIC now."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={round(monotonic_s * 1e6)}")

    def stopping(self, status: str = "") -> bool:
        """Say that the end has begun."""
        return self._send("STOPPING=1", *([f"STATUS={_one_line(status)}"] if status else []))

    def _send(self, *lines: str) -> bool:
        """Return whether the manager took the message."""
        if not self._address:
            return False
        try:
            with socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            ) as sender:
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            logger.warning("systemd was not told %s: %s", lines[0], error)
            return False
        return True


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    period = environment.get("WATCHDOG_USEC", "")
    return int(period) / 1e6 if period.isdigit() and int(period) > 0 else None
