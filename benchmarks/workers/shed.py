"""The shed list of one plant: how long it takes to build and to ask."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.plants import make_plant
from benchmarks.workers.process import resident_mib, serve
from benchmarks.workers.statistics import percentile
from mullet.planning.accounting import account
from mullet.planning.shed import shed_list


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options: loads, seed, builds, queries. Times are wall seconds of this one thread."""
    standing = make_plant(options["loads"], options["seed"])
    accounts = account(standing.plant, standing.now)
    before = resident_mib()
    builds = []
    for _ in range(options["builds"] + 1):
        began = time.perf_counter()
        found = shed_list(standing.plant, standing.now, accounts)
        builds.append(time.perf_counter() - began)
    draw = np.random.default_rng(options["seed"])
    nodes = [circuit.id for circuit in standing.plant.circuits]
    queries, linear, wrong = [], [], 0
    for number in range(options["queries"]):
        # Every other question is about the whole connection, where the list is longest.
        node = nodes[0] if number % 2 else nodes[int(draw.integers(0, len(nodes)))]
        watts = float(draw.uniform(0.0, 1.05)) * found.total_watts(node)
        began = time.perf_counter()
        dropped = found.query(node, watts)
        queries.append(time.perf_counter() - began)
        freed = found.freed_watts(node, len(dropped))
        enough = freed >= min(watts, found.total_watts(node)) - 1.0
        shortest = len(dropped) == 0 or found.freed_watts(node, len(dropped) - 1) < watts
        wrong += not (enough and shortest)
        if number % 2 and number < 2 * options["scans"]:
            began = time.perf_counter()
            _scan(found, node, watts)
            linear.append(time.perf_counter() - began)
    return {
        "first_build_s": builds[0],
        "build_p50_s": percentile(builds[1:], 0.5),
        "build_p99_s": percentile(builds[1:], 0.99),
        "query_p50_s": percentile(queries, 0.5),
        "query_p99_s": percentile(queries, 0.99),
        "query_max_s": max(queries),
        "scan_p50_s": percentile(linear, 0.5),
        "wrong": wrong,
        "standing_mib": before,
    }


def _scan(found: Any, node: str, watts: float) -> int:
    """Answer the same question from the top of the list on, as one would without sums kept ready."""
    total = found.total_watts(node)
    count = 0
    while found.freed_watts(node, count) < min(watts, total) - 1e-6:
        count += 1
    return count


if __name__ == "__main__":
    serve(measure)
