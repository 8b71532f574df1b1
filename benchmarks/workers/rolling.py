"""Plans made anew every five minutes from a warm solver, the world moving on in between."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.instances import make_scene
from benchmarks.workers.cold import load_backends
from benchmarks.workers.following import first_counts
from benchmarks.workers.process import WorkerError, resident_mib, serve
from mullet.planning.commitment.build import build
from mullet.planning.commitment.clp import WarmClp
from mullet.planning.commitment.highs import solve_with_highs
from mullet.planning.commitment.solvers import WARM, Solvers

_LIMIT_S = 120.0


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options: groups, loads, seed, grid, days (of the scene), solves, check_every (0: never).

    A checked plan is solved again, uncounted, by HiGHS and by a CLP without a past; the largest relative differences
    of their objectives are returned. Counts in force are what the plan before wanted, in whole loads.
    """
    load_backends()
    scene = make_scene(options["groups"], options["loads"], options["days"], options["seed"])
    state = scene.start()
    solvers = Solvers()
    builds, totals, walls, objectives, digests, resident = [], [], [], [], [], []
    differences = {"highs": 0.0, "cold": 0.0}
    warm = checked = 0
    for at in range(options["solves"]):
        problem = scene.problem(at, options["grid"], state)
        began, wall = time.process_time(), time.perf_counter()
        model = build(problem)
        built = time.process_time()
        solution, by = solvers.solve(model.program, _LIMIT_S)
        totals.append(time.process_time() - began)
        walls.append(time.perf_counter() - wall)
        builds.append(built - began)
        warm += by == WARM
        objective = model.program.objective(solution.values)
        objectives.append(objective)
        digests.append(hashlib.sha256(solution.values.tobytes()).hexdigest())
        resident.append(resident_mib())
        if options["check_every"] and at % options["check_every"] == 0:
            checked += 1
            for name, solve in (("highs", solve_with_highs), ("cold", WarmClp())):
                other = solve(model.program, _LIMIT_S)
                if not other.optimal:
                    raise WorkerError(f"{name} at step {at}: {other.status}")
                apart = abs(model.program.objective(other.values) - objective) / max(1.0, abs(objective))
                differences[name] = max(differences[name], apart)
        counts = first_counts(model, solution.values)
        state = scene.advance(state, counts, float(solution.values[model.import_mw[0]]))
    return {
        "build_s": builds,
        "total_s": totals,
        "wall_s": walls,
        "objectives": objectives,
        "resident_mib": resident,
        "differences": differences,
        "checked": checked,
        "warm": warm,
        "digests": digests,
    }


if __name__ == "__main__":
    serve(measure)
