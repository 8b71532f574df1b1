"""Everything that a tick of the daemon does for allocation: limits, shed list aside, from a snapshot to setpoints."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.plants import make_plant
from benchmarks.workers.process import serve
from benchmarks.workers.statistics import percentile
from mullet.domain.feeds import Reading
from mullet.planning.accounting import account
from mullet.planning.allocate import allocate
from mullet.testing.builders import price_curve


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options: loads, seed, ticks. The price changes with every tick; there is no plan, so merit decides."""
    standing = make_plant(options["loads"], options["seed"])
    accounts = account(standing.plant, standing.now)
    draw = np.random.default_rng(options["seed"])
    walls = []
    for _ in range(options["ticks"] + 1):
        now = standing.now
        price = Reading(price_curve([float(draw.uniform(20.0, 120.0))] * 12, now.at), now.at)
        now = replace(now, prices=price)
        began = time.perf_counter()
        allocate(standing.plant, now, accounts, None)
        walls.append(time.perf_counter() - began)
    return {"p50_s": percentile(walls[1:], 0.5), "p99_s": percentile(walls[1:], 0.99), "first_s": walls[0]}


if __name__ == "__main__":
    serve(measure)
