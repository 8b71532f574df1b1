"""Whom to ask for a plan and what to fall back to: every rung, by failing the one above it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from control_kit import NO_PLAN, FakePlanner

from mullet.control.planning_cycle import Adopted, PlanningCycle, build_request
from mullet.domain.command import CommandLedger, Verb
from mullet.domain.facility import Facility
from mullet.domain.feeds import Cause, Curtailment
from mullet.domain.load import LoadKind
from mullet.domain.plan import Plan, PlanRequest, Rung
from mullet.domain.snapshot import Snapshot
from mullet.planning.accounting import account
from mullet.planning.greedy import plan_merit_order
from mullet.testing.builders import command, facility, price_curve, snapshot
from mullet.testing.virtual_time import START, VirtualClock, in_virtual_time

SITE = facility()
LIMIT_S = 1.0


def request(at: float = START, price: float = 40.0, site: Facility = SITE, **fields: Any) -> PlanRequest:
    seen: Snapshot = snapshot(site, at, **fields)
    curve = price_curve([price] * 300, START - 3_600.0)
    seen = replace(seen, prices=replace(seen.prices, value=curve) if seen.prices is not None else None)
    return build_request(site, seen, account(site, seen), frozenset(site.load_by_id))


def optimal(asked: PlanRequest) -> Plan:
    return replace(plan_merit_order(asked), id=f"optimal-{asked.at:.0f}", rung=Rung.OPTIMAL)


def broken(asked: PlanRequest) -> Plan:
    """Return a plan that promises more loads than there are."""
    made = optimal(asked)
    first = made.intervals[0]
    counts: Mapping[str, tuple[int, ...]] = {key: tuple(n + 9 for n in row) for key, row in first.counts.items()}
    return replace(made, intervals=(replace(first, counts=counts), *made.intervals[1:]))


def expired(asked: PlanRequest) -> Plan:
    return replace(optimal(asked), made_at=asked.at - 10.0, valid_until=asked.at - 1.0)


async def turn(cycle: PlanningCycle, asked: PlanRequest) -> Adopted | None:
    """Take one step, then let the worker answer."""
    found = cycle.step(asked)
    for _ in range(5):
        await asyncio.sleep(0)
    return found


async def test_until_the_first_answer_is_there_merit_order_stands_in() -> None:
    cycle = PlanningCycle(FakePlanner(make=optimal), LIMIT_S)
    first = await turn(cycle, request())
    assert first is not None
    assert (first.plan.rung, first.passed_over[0]) == (Rung.MERIT_ORDER, "no plan yet")
    second = await turn(cycle, request(START + 1.0))
    assert second is not None
    assert (second.plan.rung, second.passed_over, second.request.at) == (Rung.OPTIMAL, (), START)
    assert cycle.current is second.plan
    await cycle.close()


async def planned(planner: FakePlanner) -> PlanningCycle:
    """Return a cycle that runs by an optimal plan made at START."""
    cycle = PlanningCycle(planner, LIMIT_S)
    await turn(cycle, request())
    await turn(cycle, request(START + 1.0))
    assert cycle.current is not None
    assert cycle.current.rung is Rung.OPTIMAL
    return cycle


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ({"error": NO_PLAN}, "the worker was killed after 1.0 s"),
        ({"error": RuntimeError("pipe broke")}, "RuntimeError: pipe broke"),
        ({"make": broken}, "guard refused the worker's plan"),
        ({"make": expired}, "guard refused the worker's plan: expired"),
    ],
    ids=["error", "surprise", "refused", "expired"],
)
async def test_where_the_worker_fails_the_last_plan_is_moved_on(failure: dict[str, Any], words: str) -> None:
    planner = FakePlanner(make=optimal)
    cycle = await planned(planner)
    planner.error, planner.make = failure.get("error"), failure.get("make", optimal)
    assert await turn(cycle, request(START + 2.0, price=90.0)) is None
    found = await turn(cycle, request(START + 3.0, price=90.0))
    assert found is not None
    assert found.plan.rung is Rung.SHIFTED
    assert found.passed_over[0].startswith(words)
    assert found.plan.made_at == START + 3.0
    await cycle.close()


async def test_where_the_last_plan_no_longer_fits_merit_order_is_next() -> None:
    planner = FakePlanner(make=optimal)
    cycle = await planned(planner)
    planner.error = NO_PLAN
    # Most of the limit is gone, so that the old counts do not fit.
    order = Curtailment("dr-1", "grid", 5_000.0, START, START + 900.0, Cause.DEMAND_RESPONSE, START)
    await turn(cycle, request(START + 2.0, curtailments=(order,)))
    found = await turn(cycle, request(START + 3.0, curtailments=(order,)))
    assert found is not None
    assert found.plan.rung is Rung.MERIT_ORDER
    assert found.passed_over[1].startswith("shifted: interval at +0 s: grid is given")
    await cycle.close()


async def test_where_merit_order_fails_too_the_safe_caps_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mullet.control.planning_cycle.plan_merit_order", broken)
    cycle = PlanningCycle(FakePlanner(error=NO_PLAN), LIMIT_S)
    found = cycle.step(request())
    assert found is not None
    assert found.plan.rung is Rung.SAFE_CAPS
    assert found.passed_over[0] == "no plan yet"
    assert found.passed_over[1] == "shifted: the old plan does not reach this far"
    assert found.passed_over[2].startswith("merit order: interval at +0 s")
    groups = {group.key: group for group in found.plan.groups}
    mining = {key: counts for key, counts in found.plan.intervals[0].counts.items() if "miners" in groups[key].key}
    assert mining
    assert all(counts[0] == sum(counts) for counts in mining.values())
    await cycle.close()


async def test_a_plan_whose_horizon_has_passed_is_not_moved_on() -> None:
    planner = FakePlanner(make=optimal)
    cycle = await planned(planner)
    planner.error = NO_PLAN
    late = START + 10.0 * 86_400.0
    found = await turn(cycle, request(late))
    assert found is not None
    assert found.passed_over[:2] == ("the plan's lease is over", "shifted: the old plan does not reach this far")
    await cycle.close()


async def test_nothing_due_asks_nobody() -> None:
    planner = FakePlanner(make=optimal)
    cycle = await planned(planner)
    for second in range(2, 20):
        assert await turn(cycle, request(START + second)) is None
    assert len(planner.asked) == 1
    await cycle.close()


@pytest.mark.parametrize(
    "change", [{"price": 90.0}, {"needs": {"chat": 900.0}}, {"site": replace(SITE, policy_hash="1" * 64)}]
)
async def test_what_changes_asks_anew_and_the_old_plan_stands_meanwhile(change: dict[str, Any]) -> None:
    planner = FakePlanner(make=optimal)
    cycle = await planned(planner)
    before = cycle.current
    assert cycle.step(request(START + 2.0, **change)) is None
    assert cycle.current is before
    await asyncio.sleep(0)
    assert len(planner.asked) == 2
    await cycle.close()


async def test_half_a_lease_gone_asks_anew() -> None:
    planner = FakePlanner(make=optimal)
    cycle = await planned(planner)
    assert cycle.current is not None
    half = (cycle.current.valid_until - START) / 2.0
    await turn(cycle, request(START + half - 1.0))
    assert len(planner.asked) == 1
    await turn(cycle, request(START + half))
    assert len(planner.asked) == 2
    await cycle.close()


async def test_after_a_failure_the_worker_is_left_in_peace_for_a_while() -> None:
    planner = FakePlanner(error=NO_PLAN)
    cycle = PlanningCycle(planner, LIMIT_S)
    await turn(cycle, request())
    await turn(cycle, request(START + 1.0))
    for second in (1.5, 2.0, 2.9):
        await turn(cycle, request(START + second, price=90.0))
    assert len(planner.asked) == 1
    await turn(cycle, request(START + 3.0, price=90.0))
    assert len(planner.asked) == 2
    await cycle.close()


@in_virtual_time
async def test_a_late_answer_never_blocks_and_is_asked_once() -> None:
    clock = VirtualClock()
    planner = FakePlanner(clock, takes_s=30.0, make=optimal)
    cycle = PlanningCycle(planner, LIMIT_S)
    rungs = []
    for second in range(32):
        found = cycle.step(request(START + second))
        rungs.append(found.plan.rung if found is not None else None)
        await clock.sleep(1.0)
    assert rungs[0] is Rung.MERIT_ORDER
    assert set(rungs[1:30]) == {None}
    assert Rung.OPTIMAL in rungs[30:]
    assert len(planner.asked) == 1
    await cycle.close()


@in_virtual_time
async def test_closing_ends_the_question_and_the_worker() -> None:
    clock = VirtualClock()
    planner = FakePlanner(clock, takes_s=30.0, make=optimal)
    cycle = PlanningCycle(planner, LIMIT_S)
    cycle.step(request())
    await clock.sleep(0.1)
    await cycle.close()
    assert planner.closed
    assert len(asyncio.all_tasks()) == 1


async def test_a_plan_for_a_policy_that_is_gone_is_dropped_and_asked_anew() -> None:
    planner = FakePlanner(make=optimal)
    cycle = PlanningCycle(planner, LIMIT_S)
    await turn(cycle, request())
    cycle.current = None
    other = replace(facility(miners=2), policy_hash="1" * 64)
    found = await turn(cycle, request(START + 1.0, site=other))
    assert found is not None
    assert found.request.facility is other
    assert found.plan.rung is Rung.MERIT_ORDER
    last = await turn(cycle, request(START + 2.0, site=other))
    assert last is not None
    assert (last.plan.rung, last.request.facility) == (Rung.OPTIMAL, other)
    await cycle.close()


def test_a_service_whose_need_is_unknown_keeps_its_power_in_the_plan() -> None:
    (service,) = SITE.services
    gpus = SITE.loads_of_service[service.id]
    known = request(needs={service.id: 1_234.0})
    assert known.forecast.needs_watts == {service.id: 1_234.0}
    unknown = request(needs={})
    given = sum(snapshot(SITE, START).telemetry[load.id].limit_watts or 0.0 for load in gpus)
    assert given > sum(load.lowest.watts for load in gpus)
    assert unknown.forecast.needs_watts == {service.id: pytest.approx(given)}


def test_what_is_under_way_counts_as_arrived_and_waits_for_its_minimum_time() -> None:
    """A miner told to sleep is no longer one that runs, however its telemetry lags; and so the other way round."""
    off, on, still, _ = SITE.of_kind(LoadKind.MINER)
    ledger = CommandLedger().after_commands(
        (
            command(off, Verb.SLEEP, at=START - 2.0, seq=1),
            command(on, Verb.WAKE, at=START - 3.0, seq=2, most_before_watts=0.0),
        )
    )
    asked = request(ledger=ledger)
    assert off.id not in asked.running
    assert {on.id, still.id} <= asked.running
    pacing = SITE.pacing
    assert asked.settled_at == {off.id: START - 2.0 + pacing.min_off_s, on.id: START - 3.0 + pacing.min_on_s}
    assert asked.cycles_today == {off.id: 1}
