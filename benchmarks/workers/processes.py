"""What the system tells of processes, by id or "self": CPU time, resident memory, open descriptors. Linux."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def cpu_s(pids: Iterable[int | str]) -> float:
    """Return the CPU seconds that the threads of these processes have used, in user and system mode."""
    total = 0
    for pid in pids:
        # The scheduler's own count, in nanoseconds: the ticks of `stat` are too coarse for a few hundred requests.
        for thread in Path(f"/proc/{pid}/task").iterdir():
            total += int((thread / "schedstat").read_text(encoding="utf-8").split()[0])
    return total / 1e9


def resident_mib(pids: Iterable[int | str]) -> float:
    """Return the memory that these processes have resident; what they share counts for each."""
    total = 0.0
    for pid in pids:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        total += next(float(line.split()[1]) / 1024.0 for line in lines if line.startswith("VmRSS:"))
    return total


def descriptors(pids: Iterable[int | str]) -> int:
    """Return how many descriptors these processes have open."""
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def children(pid: int) -> list[int]:
    """Return the processes that this process has started and that still run, without their own."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(word) for word in (task / "children").read_text(encoding="utf-8").split()]
    return found
