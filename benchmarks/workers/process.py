"""How a measurement runs in a process of its own: options in as JSON, what was measured out as JSON."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.figures import ROOT

NOT_INSTALLED = 3
"""Exit status of a peer whose packages are not there."""

# One thread for everything that has pools of them, so that CPU seconds are those of one thread.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")

Measure = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class WorkerError(Exception):
    """A worker ended without an answer."""


class PeerMissing(Exception):
    """A peer's packages are not installed."""


def run_worker(module: str, options: Mapping[str, Any], limit_s: float, python: str = sys.executable) -> dict[str, Any]:
    """Run `benchmarks.workers.<module>` in a new process and return what it measured.

    Raises:
        PeerMissing: the packages it needs are not installed.
        WorkerError: it failed, or took longer than `limit_s`.
    """
    sys.stderr.write(f"  {module} {json.dumps(dict(options))}\n")
    began = time.monotonic()
    try:
        done = subprocess.run(
            [python, "-m", f"benchmarks.workers.{module}", json.dumps(dict(options))],
            cwd=ROOT,
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": _search_path()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WorkerError(f"{module} took longer than {limit_s:.0f} s") from None
    sys.stderr.write(f"    {time.monotonic() - began:.1f} s\n")
    if done.returncode == NOT_INSTALLED:
        raise PeerMissing(module)
    if done.returncode != 0:
        raise WorkerError(f"{module} ended with status {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _search_path() -> str:
    return os.pathsep.join(str(ROOT / part) for part in (".", "hardware", "simulators"))


def serve(measure: Measure) -> None:
    """Answer the options on the command line with what `measure` finds, and the peak of resident memory."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Whatever a solver prints goes to stderr: stdout carries the answer only.
    os.dup2(2, 1)
    try:
        found = measure(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})
    except ModuleNotFoundError as error:
        sys.stderr.write(f"    {error}\n")
        sys.exit(NOT_INSTALLED)
    json.dump({**found, "peak_mib": peak_mib()}, answers, allow_nan=False)
    answers.close()


def peak_mib() -> float:
    """Return the most memory that this process had resident."""
    # Not getrusage first: its maximum outlives exec and would count the parent's memory.
    found = _status_mib("VmHWM:")
    return found if found is not None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def resident_mib() -> float:
    """Return the memory that this process has resident now, or its peak where the system does not say."""
    found = _status_mib("VmRSS:")
    return found if found is not None else peak_mib()


def _status_mib(name: str) -> float | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) / 1024.0 for line in lines if line.startswith(name)), None)
