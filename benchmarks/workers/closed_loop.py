"""A day lived through: a plan every five minutes with true data, its first step done, the day's money counted after."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks import prices
from benchmarks.instances import State, make_scene
from benchmarks.workers.following import first_counts
from benchmarks.workers.process import WorkerError, serve
from benchmarks.workers.statistics import percentile
from mullet.planning.commitment.build import build
from mullet.planning.commitment.certificate import Schedule, evaluate, violations
from mullet.planning.commitment.solvers import Solvers

_LIMIT_S = 120.0


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options: groups, loads, seed, grid, steps, first_day (of recorded prices; None: synthetic ones)."""
    price = None
    if options["first_day"] is not None:
        price = prices.recorded(3, options["first_day"])
        if price is None:
            return {"missing": f"{prices.RECORDED} is not in {prices.data_directory()}"}
    scene = make_scene(options["groups"], options["loads"], 3, options["seed"], price)
    state = scene.start()
    solvers = Solvers()
    seconds, counts, power, active = [], [], [], []
    for at in range(options["steps"]):
        problem = scene.problem(at, options["grid"], state)
        began = time.process_time()
        model = build(problem)
        solution, _ = solvers.solve(model.program, _LIMIT_S)
        seconds.append(time.process_time() - began)
        now = first_counts(model, solution.values)
        counts.append(now)
        power.append([float(solution.values[places[:, 0]].sum()) for places in model.segments])
        active.append([float(solution.values[places[0]]) for places in model.active])
        state = scene.advance(state, now, float(solution.values[model.import_mw[0]]))
    problem = scene.problem(0, f"u{options['steps']}", scene.start())
    schedule = _schedule(scene.start(), counts, np.array(power), np.array(active))
    broken = violations(problem, schedule, whole=False)
    if broken:
        raise WorkerError(f"{len(broken)} limits broken, the first: {broken[0]}")
    model = build(problem)
    best, _ = solvers.solve(model.program, _LIMIT_S)
    evaluation = evaluate(problem, schedule)
    return {
        "earned": evaluation.earned,
        "inference": evaluation.inference - evaluation.unserved_cost,
        "bound": model.program.objective(best.values),
        "p50_s": percentile(seconds, 0.5),
    }


def _schedule(start: State, counts: list[Any], power: Any, active: Any) -> Schedule:
    groups = range(len(start.at_least))
    at_least = tuple(np.stack([now[g] for now in counts], axis=1) for g in groups)
    starts = tuple(np.maximum(np.diff(at_least[g][0], prepend=start.at_least[g][0]), 0) for g in groups)
    return Schedule(at_least, starts, tuple(power.T), tuple(active.T))


if __name__ == "__main__":
    serve(measure)
