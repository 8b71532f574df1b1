"""The planner's process: quick when it can be, killed when it must be, never in the way of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import textwrap
import time
from pathlib import Path

import pytest

from mullet.adapters.planner_worker import PlannerWorker
from mullet.domain.facility import Circuit, Economics, Facility, Mode, Pacing
from mullet.domain.feeds import PriceCurve, PriceInterval
from mullet.domain.load import Capability, Load, LoadKind, OperatingPoint, Steering
from mullet.domain.plan import Forecast, Obligations, PlanRequest, Rung
from mullet.planning.guard import guard
from mullet.ports import PlanningError

AT = 1_700_000_000.0
POINTS = (OperatingPoint("off", 15.0), OperatingPoint("on", 3_250.0, th_per_s=110.0))
CAPABILITY = Capability(Steering.MODES, True, False, 3.0, 60.0)

BROKEN_SOLVERS = """
import os
import time

from mullet.planning.greedy import plan_merit_order
from mullet.ports import PlanningError


def behave(request, limit_s):
    mood = next(iter(request.forecast.needs_watts), "")
    if mood == "hang":
        while True:
            time.sleep(0.01)
    if mood == "crash":
        os._exit(7)
    if mood == "raise":
        raise ZeroDivisionError("the model is wrong")
    if mood == "infeasible":
        raise PlanningError("the solver ended infeasible")
    if mood == "noise":
        os.write(1, b"a banner that no one asked for")
        print("and another", flush=True)
    return plan_merit_order(request)
"""


def miner(name: str) -> Load:
    return Load(name, LoadKind.MINER, "b", "asic", name, "grid", "own", POINTS, "off", 3_600.0, 0.05, CAPABILITY)


PLANT = Facility(
    id="f",
    currency="USD",
    circuits=(Circuit("grid", None, 1e6, 8e5),),
    loads=tuple(miner(f"m{n}") for n in range(20)),
    services=(),
    auxiliaries=(),
    accounts=(),
    economics=Economics(50.0),
    pacing=Pacing(),
    safety=(),
    mode=Mode.AUTO,
    policy_hash="h",
)


def request(mood: str = "", plant: Facility = PLANT) -> PlanRequest:
    prices = PriceCurve((PriceInterval(AT - 1.0, AT + 200_000.0, 40.0),))
    ids = frozenset(load.id for load in plant.loads)
    needs = {mood: 0.0} if mood else {}
    return PlanRequest(plant, AT, Forecast(prices, 50.0, needs), Obligations(), ids, {}, frozenset())


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "broken_solvers.py").write_text(BROKEN_SOLVERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "broken_solvers:behave"


@contextlib.asynccontextmanager
async def opened(target: str | None = None):
    worker = PlannerWorker(target) if target else PlannerWorker()
    try:
        await worker.open()
        yield worker
    finally:
        await worker.close()


async def test_a_plan_comes_back_whole_and_passes_the_guard():
    async with opened() as worker:
        plan = await worker.plan(request(), 5.0)
        assert plan.rung is Rung.OPTIMAL
        assert guard(plan, request()) == ()
        assert sum(plan.intervals[0].counts[plan.groups[0].key]) == 20
        again = await worker.plan(request(), 5.0)
        assert again == plan


async def test_a_stuck_solver_is_killed_in_time_and_replaced(broken: str):
    async with opened(broken) as worker:
        first = worker.pid
        begun = time.monotonic()
        with pytest.raises(PlanningError, match="no plan within"):
            await worker.plan(request("hang"), 0.3)
        assert time.monotonic() - begun < 2.0
        assert first is not None
        plan = await worker.plan(request(), 20.0)
        assert plan.rung is Rung.MERIT_ORDER
        assert worker.pid != first
        assert not alive(first)


async def test_a_crash_is_an_error_and_the_next_plan_comes(broken: str):
    async with opened(broken) as worker:
        with pytest.raises(PlanningError, match="ended with code 7"):
            await worker.plan(request("crash"), 5.0)
        assert (await worker.plan(request(), 20.0)).rung is Rung.MERIT_ORDER


async def test_what_the_model_raises_comes_back_in_words(broken: str):
    async with opened(broken) as worker:
        pid = worker.pid
        with pytest.raises(PlanningError, match="ZeroDivisionError: the model is wrong"):
            await worker.plan(request("raise"), 5.0)
        with pytest.raises(PlanningError, match="infeasible"):
            await worker.plan(request("infeasible"), 5.0)
        assert worker.pid == pid, "an answer is no reason to kill"


async def test_what_a_solver_prints_disturbs_nothing(broken: str):
    async with opened(broken) as worker:
        assert (await worker.plan(request("noise"), 5.0)).rung is Rung.MERIT_ORDER
        assert (await worker.plan(request(), 5.0)).rung is Rung.MERIT_ORDER


async def test_a_reloaded_facility_is_planned_with():
    async with opened() as worker:
        await worker.plan(request(), 5.0)
        other = Facility(**{**fields(PLANT), "loads": PLANT.loads[:5], "policy_hash": "i"})
        plan = await worker.plan(request(plant=other), 5.0)
        assert plan.groups[0].load_ids == tuple(load.id for load in other.loads)


def fields(plant: Facility) -> dict[str, object]:
    return {name: getattr(plant, name) for name in Facility.__dataclass_fields__}


async def test_the_event_loop_never_waits(broken: str):
    gaps = []

    async def beat() -> None:
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            await asyncio.sleep(0.01)
            gaps.append(loop.time() - begun)

    async with opened(broken) as worker:
        heart = asyncio.create_task(beat())
        with pytest.raises(PlanningError):
            await worker.plan(request("hang"), 0.5)
        heart.cancel()
        await asyncio.gather(heart, return_exceptions=True)
    assert max(gaps) < 0.4


async def test_a_planner_that_is_not_up_yet_says_so_and_comes_up_meanwhile():
    worker = PlannerWorker()
    try:
        with pytest.raises(PlanningError, match="not ready within"):
            await worker.plan(request(), 0.01)
        async with asyncio.timeout(30.0):
            await worker.open()
        assert (await worker.plan(request(), 5.0)).rung is Rung.OPTIMAL
    finally:
        await worker.close()


async def test_a_target_that_does_not_exist_is_an_error_not_a_hang():
    worker = PlannerWorker("mullet.planning.horizon:no_such_function")
    try:
        with pytest.raises(PlanningError, match="ended with code"):
            await worker.open()
    finally:
        await worker.close()


async def test_a_cancelled_question_leaves_the_planner_usable(broken: str):
    async with opened(broken) as worker:
        task = asyncio.create_task(worker.plan(request("hang"), 30.0))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await worker.plan(request(), 20.0)).rung is Rung.MERIT_ORDER


async def test_closed_is_closed():
    worker = PlannerWorker()
    await worker.close()
    with pytest.raises(PlanningError, match="closed"):
        await worker.plan(request(), 1.0)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_the_worker_dies_with_its_parent_even_in_the_middle_of_a_plan(broken: str, tmp_path: Path):
    script = textwrap.dedent(
        f"""
        import asyncio, os, sys
        sys.path[:0] = {[str(tmp_path), str(Path(__file__).parent)]!r}
        import test_planner_worker as t
        from mullet.adapters.planner_worker import PlannerWorker

        async def main():
            worker = PlannerWorker({broken!r})
            await worker.open()
            asking = asyncio.create_task(worker.plan(t.request("hang"), 60.0))
            await asyncio.sleep(0.2)
            print(worker.pid, flush=True)
            os._exit(9)

        asyncio.run(main())
        """
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    output, _ = await asyncio.wait_for(parent.communicate(), 60.0)
    pid = int(output)
    deadline = time.monotonic() + 10.0
    while alive(pid) and not zombie(pid):
        assert time.monotonic() < deadline, "the worker outlived its parent"
        await asyncio.sleep(0.02)


def zombie(pid: int) -> bool:
    """Whether the process has ended and only waits for its new parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
