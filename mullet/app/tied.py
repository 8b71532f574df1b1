"""`python -m mullet.app.tied PARENT COMMAND...`: become a command that is told to end when the process PARENT does."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1


def tied(command: Sequence[str]) -> list[str]:
    """Return what to start, with a Python of ours, so that `command` never outlives this process (Linux only)."""
    return [sys.executable, "-m", "mullet.app.tied", str(os.getpid()), *command]


def main(arguments: Sequence[str]) -> None:
    """Replace this process by the command; both keep what they were told to do when the parent dies."""
    parent, *command = arguments
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != int(parent):
            return
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
