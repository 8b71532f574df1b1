"""When to plan, whom to ask, and what to fall back to: the solver is never in the safety path."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mullet.domain.facility import Facility
from mullet.domain.load import LoadKind
from mullet.domain.plan import Obligations, Plan, PlanRequest
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import LoadState
from mullet.planning.accounting import CircuitAccount
from mullet.planning.greedy import plan_merit_order
from mullet.planning.guard import guard
from mullet.planning.inference import power_kept
from mullet.planning.ladder import safe_plan, shift_plan
from mullet.planning.positions import cycles_within_day, fixed_watts
from mullet.planning.stance import came_back
from mullet.ports import Planner, PlanningError
from mullet.programs.prices import forecast_prices


@dataclass(frozen=True)
class Adopted:
    """A plan that passed the guard, what it was made from, and why better rungs were passed over."""

    plan: Plan
    request: PlanRequest
    passed_over: tuple[str, ...]


def build_request(
    facility: Facility,
    snapshot: Snapshot,
    accounts: Mapping[str, CircuitAccount],
    controllable: frozenset[str],
) -> PlanRequest:
    """Return what a planner may look at, from what is known now."""
    running = frozenset(load_id for load_id in controllable if _runs(facility, snapshot, load_id))
    return PlanRequest(
        facility=facility,
        at=snapshot.at,
        forecast=forecast_prices(facility, snapshot, _needs(facility, snapshot)),
        obligations=Obligations(curtailments=snapshot.curtailments),
        available=controllable,
        fixed_watts=fixed_watts(facility, snapshot, accounts, controllable),
        running=running,
        settled_at=_settled_at(facility, snapshot, controllable, running),
        cycles_today={
            load_id: used
            for load_id in controllable
            if (used := cycles_within_day(snapshot.ledger.entries.get(load_id), snapshot.at))
        },
    )


def _runs(facility: Facility, snapshot: Snapshot, load_id: str) -> bool:
    """Return whether the load runs, or goes to by a command under way."""
    entry = snapshot.ledger.entries.get(load_id)
    if entry is not None and entry.pending and entry.command is not None:
        return entry.command.point != facility.load_by_id[load_id].lowest.name
    reading = snapshot.telemetry.get(load_id)
    if came_back(facility.load_by_id[load_id].lowest.name, entry, reading):
        return False
    return reading is not None and reading.state in (LoadState.ACTIVE, LoadState.STARTING)


def _settled_at(
    facility: Facility, snapshot: Snapshot, controllable: frozenset[str], running: frozenset[str]
) -> dict[str, float]:
    """Return, per miner changed lately, when its minimum time on or off is over."""
    pacing = facility.pacing
    found = {}
    for load_id in controllable:
        load, entry = facility.load_by_id[load_id], snapshot.ledger.entries.get(load_id)
        if load.kind is not LoadKind.MINER or entry is None or entry.turned_at is None:
            continue
        least_s = pacing.min_on_s if load_id in running else pacing.min_off_s
        settled = entry.turned_at + max(least_s, load.capability.min_dwell_s)
        if settled > snapshot.at:
            found[load_id] = settled
    return found


def _needs(facility: Facility, snapshot: Snapshot) -> dict[str, float]:
    """Return what each service needs, and what it keeps where that is unknown."""
    return {
        service.id: snapshot.needs[service.id]
        if service.id in snapshot.needs
        else power_kept(facility.loads_of_service[service.id], snapshot.telemetry, snapshot.ledger)
        for service in facility.services
    }


def signature(request: PlanRequest) -> tuple[object, ...]:
    """Return what, when it changes, calls for a new plan: price, demand, limits, loads."""
    price = request.forecast.prices.at(request.at)
    return (
        price,
        request.forecast.price_rung,
        round(request.forecast.hashprice_per_ph_day, 2),
        tuple(sorted((service, round(watts, -2)) for service, watts in request.forecast.needs_watts.items())),
        tuple(sorted((c.id, c.limit_watts, c.start, c.end) for c in request.obligations.curtailments)),
        sum(1 for load in request.facility.loads if load.kind is LoadKind.MINER and load.id in request.available),
        request.facility.policy_hash,
    )


class PlanningCycle:
    """Keeps a guarded plan: asks the worker when something changed, and walks down the ladder when it fails."""

    def __init__(self, planner: Planner, limit_s: float) -> None:
        self._planner = planner
        self._limit_s = limit_s
        self._task: asyncio.Task[Plan] | None = None
        self._request: PlanRequest | None = None
        self._asked: tuple[object, ...] | None = None
        self._retry_at = 0.0
        self.current: Plan | None = None

    def step(self, request: PlanRequest) -> Adopted | None:
        """Ask for a plan if one is due, take in an answer if one is there; never waits.

        Returns what was adopted in this step, or None. Until a new plan is there the old one stands.
        """
        adopted = self._collect(request)
        if self._task is None and self._due(request):
            self._asked = signature(request)
            self._request = request
            self._task = asyncio.create_task(self._planner.plan(request, self._limit_s), name="plan")
        if adopted is None and (self.current is None or request.at >= self.current.valid_until):
            adopted = self._fall_back(request, ("no plan yet" if self.current is None else "the plan's lease is over",))
        return adopted

    def _due(self, request: PlanRequest) -> bool:
        if request.at < self._retry_at:
            return False
        plan = self.current
        if plan is None or self._asked != signature(request):
            return True
        return request.at >= plan.made_at + (plan.valid_until - plan.made_at) / 2.0

    def _collect(self, request: PlanRequest) -> Adopted | None:
        if self._task is None or not self._task.done() or self._request is None:
            return None
        task, asked, self._task = self._task, self._request, None
        error = task.exception()
        if asked.facility.policy_hash != request.facility.policy_hash:
            # Asked before a reload: whatever the answer, it is about a facility that is gone.
            return None
        if error is None:
            plan = task.result()
            problems = guard(plan, asked)
            if not problems:
                self.current = plan
                return Adopted(plan, asked, ())
            reason = f"guard refused the worker's plan: {problems[0]}"
        elif isinstance(error, PlanningError):
            reason = str(error)
        else:
            reason = f"{type(error).__name__}: {error}"
        self._retry_at = request.at + self._limit_s * 2.0
        return self._fall_back(request, (reason,))

    def _fall_back(self, request: PlanRequest, reasons: tuple[str, ...]) -> Adopted:
        """Walk down: the last plan shifted, merit order, safe caps; the guard checks each."""
        passed = list(reasons)
        rungs: tuple[tuple[str, Callable[[], Plan | None]], ...] = (
            ("shifted", lambda: shift_plan(self.current, request.at) if self.current is not None else None),
            ("merit order", lambda: plan_merit_order(request)),
        )
        for name, make in rungs:
            candidate = make()
            if candidate is None:
                passed.append(f"{name}: the old plan does not reach this far")
                continue
            problems = guard(candidate, request)
            if not problems:
                self.current = candidate
                return Adopted(candidate, request, tuple(passed))
            passed.append(f"{name}: {problems[0]}")
        self.current = safe_plan(request)
        return Adopted(self.current, request, tuple(passed))

    async def close(self) -> None:
        """Drop the question under way and end the worker."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._planner.close()
