"""An event loop beside a planner: how long it stands still, and how soon a stuck planner is done without."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.plants import make_plant
from benchmarks.workers.process import serve
from benchmarks.workers.statistics import percentile
from mullet.adapters.planner_worker import DEFAULT_TARGET, PlannerWorker
from mullet.control.planning_cycle import PlanningCycle, build_request
from mullet.domain.feeds import Reading
from mullet.domain.load import LoadKind
from mullet.domain.plan import Plan, PlanRequest
from mullet.planning.accounting import account
from mullet.ports import PlanningError
from mullet.testing.builders import price_curve

_TICK_S = 0.001
_STUCK = "benchmarks.workers.stuck:plan"


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options: loads, seed, plans, limit_s, kills."""
    requests = _requests(options["loads"], options["seed"], options["plans"])
    return asyncio.run(_measure(requests, options))


def _requests(loads: int, seed: int, count: int) -> list[PlanRequest]:
    standing = make_plant(loads, seed, per_pdu=1_200)
    plant, now = standing.plant, standing.now
    accounts = account(plant, now)
    movable = frozenset(load.id for load in plant.loads if load.kind is LoadKind.MINER)
    draw = np.random.default_rng(seed)
    found = []
    for number in range(count):
        at = now.at + number * 300.0
        curve = price_curve((60.0 + 40.0 * draw.standard_normal(576)).tolist(), at)
        found.append(build_request(plant, replace(now, at=at, prices=Reading(curve, at)), accounts, movable))
    return found


async def _measure(requests: list[PlanRequest], options: Mapping[str, Any]) -> dict[str, Any]:
    # As the daemon does once it is up.
    gc.collect()
    gc.freeze()
    quiet = await _delays(asyncio.sleep(options["quiet_s"]))
    worker = PlannerWorker(DEFAULT_TARGET)
    await worker.open()
    answered: list[float] = []
    # With the first question the facility travels too.
    first = await _delays(_ask(worker, requests[:1], options["limit_s"], answered))
    busy = await _delays(_ask(worker, requests[1:], options["limit_s"], answered))
    await worker.close()
    limit_s = options["kill_limit_s"]
    dispatched = [await _adopt(requests, limit_s) for _ in range(options["kills"])]
    killed = [await _kill(requests[0], limit_s) for _ in range(options["kills"])]
    return {
        "quiet_max_s": max(quiet),
        "first_max_s": max(first),
        "busy_max_s": max(busy),
        "busy_p99_s": percentile(busy, 0.99),
        "answered": len(answered),
        "asked": len(requests),
        "first_answer_s": answered[0] if answered else None,
        "answer_p50_s": percentile(answered[1:], 0.5) if len(answered) > 1 else None,
        "dispatch_max_s": max(dispatched),
        "refused_max_s": max(refused for refused, _ in killed),
        "gone_max_s": max(gone for _, gone in killed),
        "kills": options["kills"],
    }


class _Asked(PlannerWorker):
    """A worker that remembers when it was asked last: its limit counts from then."""

    began = float("inf")

    async def plan(self, request: PlanRequest, limit_s: float) -> Plan:
        self.began = time.perf_counter()
        return await super().plan(request, limit_s)

    def limit_over(self, limit_s: float) -> bool:
        """Return whether more than `limit_s` passed since the question."""
        return time.perf_counter() - self.began > limit_s


async def _delays(work: Any) -> list[float]:
    """Return by how much a timer of 1 ms was late, again and again, while `work` went on."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(_TICK_S)
            late.append(time.perf_counter() - began - _TICK_S)

    ticker = asyncio.create_task(tick())
    await work
    ticker.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ticker
    return late


async def _ask(worker: PlannerWorker, requests: list[PlanRequest], limit_s: float, answered: list[float]) -> None:
    for request in requests:
        began = time.perf_counter()
        # A planner that fails is told by the count of answers.
        with contextlib.suppress(PlanningError):
            await worker.plan(request, limit_s)
            answered.append(time.perf_counter() - began)
        # As in the daemon: a plan is not asked for in the same breath as the last one came in.
        await asyncio.sleep(0.05)


async def _adopt(requests: list[PlanRequest], limit_s: float) -> float:
    """Return seconds from a stuck planner's limit until a plan of another rung is adopted."""
    worker = _Asked(_STUCK)
    await worker.open()
    cycle = PlanningCycle(worker, limit_s)
    first, later = requests[0], requests[1]
    cycle.step(first)
    adopted = None
    # The daemon takes an answer in with its next tick; here the next tick is always at hand.
    while adopted is None and not worker.limit_over(limit_s + 30.0):
        await asyncio.sleep(0)
        adopted = cycle.step(later)
    seconds = time.perf_counter() - worker.began - limit_s
    await cycle.close()
    if adopted is None:
        raise PlanningError("no plan was adopted after the planner was killed")
    return seconds


async def _kill(request: PlanRequest, limit_s: float) -> tuple[float, float]:
    """Return seconds from a stuck planner's limit until the question fails, and until the process is gone."""
    worker = PlannerWorker(_STUCK)
    await worker.open()
    pid = worker.pid
    assert pid is not None
    began = time.perf_counter()
    with contextlib.suppress(PlanningError):
        await worker.plan(request, limit_s)
    refused_s = time.perf_counter() - began - limit_s
    while _lives(pid):  # noqa: ASYNC110  another process: no event can tell
        await asyncio.sleep(0.0001)
    gone_s = time.perf_counter() - began - limit_s
    await worker.close()
    return refused_s, gone_s


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    serve(measure)
