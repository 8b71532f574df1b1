"""A relaxed plan made whole: what the schedule earns, judged from the problem alone, against the bound."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from benchmarks.instances import instance
from benchmarks.workers.cold import load_backends
from benchmarks.workers.process import WorkerError, serve
from mullet.planning.commitment.build import build
from mullet.planning.commitment.certificate import evaluate, violations
from mullet.planning.commitment.clp import WarmClp
from mullet.planning.commitment.mip import blocks_of, solve_whole
from mullet.planning.commitment.schedule import hint_of, round_schedule, schedule_of

_LIMIT_S = 120.0


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options: those of `instance`, limit_s, searched_loads (facilities up to this size are searched as well)."""
    load_backends()
    problem = instance(options)
    solve = WarmClp()
    began = time.perf_counter()
    model = build(problem)
    relaxed = solve(model.program, _LIMIT_S)
    if not relaxed.optimal:
        raise WorkerError(relaxed.status)
    solved = time.perf_counter()
    bound = model.program.objective(relaxed.values)
    schedule = round_schedule(model, relaxed.values)
    by = "rounded"
    rounded_s = time.perf_counter() - solved
    earned = evaluate(problem, schedule).earned
    rounded_gap = (bound - earned) / abs(bound)
    if options["loads"] <= options["searched_loads"]:
        hint = None if violations(problem, schedule) else hint_of(model, schedule, solve)
        # A search that ends at its limit still has to be read, judged and polished.
        left_s = 0.9 * (options["limit_s"] - (time.perf_counter() - began))
        whole = solve_whole(model.program, left_s, hint, blocks_of(model))
        if whole.optimal:
            bound = bound if whole.bound is None else min(bound, whole.bound)
            searched = schedule_of(model, whole.values)
            found = evaluate(problem, searched).earned
            if not violations(problem, searched) and (found > earned or violations(problem, schedule)):
                schedule, earned, by = searched, found, "rounded, then searched"
    return {
        "bound": bound,
        "earned": earned,
        "gap": (bound - earned) / abs(bound),
        "rounded_gap": rounded_gap,
        "broken": len(violations(problem, schedule)),
        "by": by,
        "relaxed_s": solved - began,
        "rounded_s": rounded_s,
        "total_s": time.perf_counter() - began,
    }


if __name__ == "__main__":
    serve(measure)
