"""mullet's program built and solved once from nothing: seconds of CPU, size, objective."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from benchmarks.instances import instance
from benchmarks.workers.process import WorkerError, serve
from mullet.planning.commitment.build import build
from mullet.planning.commitment.clp import WarmClp
from mullet.planning.commitment.highs import solve_with_highs
from mullet.planning.commitment.linear import Solve

_LIMIT_S = 120.0


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options: those of `instance`, and backend (clp or highs). Imports and making the instance are not counted."""
    load_backends()
    solve: Solve = WarmClp() if options["backend"] == "clp" else solve_with_highs
    problem = instance(options)
    began = time.process_time()
    program = build(problem).program
    built = time.process_time()
    solution = solve(program, _LIMIT_S)
    ended = time.process_time()
    if not solution.optimal:
        raise WorkerError(solution.status)
    return {
        "objective": program.objective(solution.values),
        "build_s": built - began,
        "solve_s": ended - built,
        "variables": len(program.gain),
        "rows": len(program.row_low),
        "coefficients": len(program.coefficients),
    }


def load_backends() -> None:
    """Solve a small instance with both backends, so that no import is counted as their time."""
    program = build(instance({"groups": 2, "loads": 20, "seed": 0, "grid": "nu64"})).program
    for solve in (WarmClp(), solve_with_highs):
        if not solve(program, _LIMIT_S).optimal:
            raise WorkerError("a backend cannot solve a small instance")


if __name__ == "__main__":
    serve(measure)
