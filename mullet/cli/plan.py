"""`mullet plan`: one plan from a policy and prices, with every load at hand and none running."""

from __future__ import annotations

import asyncio
import math
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mullet.cli.load import load
from mullet.cli.say import NO, AsJson, fail, instant, note, number, power, refusals, say, say_json, table

if TYPE_CHECKING:
    from mullet.domain.facility import Facility
    from mullet.domain.feeds import PriceCurve
    from mullet.domain.plan import Plan, PlanInterval, PlanRequest

SOLVER_LIMIT_S = 10.0
FEED = "prices"

_PLAN = """Make one plan over the horizon and print it: price, loads per operating point and power for each interval.

Every load is taken as available and none as running; services are taken to need all their GPUs. Prices come from a
CSV file (first column the UTC start of the interval, then price_usd_mwh or the like), else from the policy's fallback.

Example: mullet plan west-texas --prices day-ahead.csv --at 2025-07-01T00:00Z"""


def register(app: typer.Typer) -> None:
    """Offer the command of this module."""
    app.command("plan", help=_PLAN)(plan)


def plan(
    policy: Annotated[str, typer.Argument(help="Policy file, or the name of a shipped one.")],
    prices: Annotated[Path | None, typer.Option("--prices", help="CSV file of prices.")] = None,
    column: Annotated[str, typer.Option("--column", help="Which column of the CSV, where there are several.")] = "",
    at: Annotated[str | None, typer.Option("--at", help="UTC instant; else the file's first row, else now.")] = None,
    as_json: AsJson = False,
) -> None:
    from mullet.domain.codec import encode
    from mullet.planning.greedy import plan_merit_order
    from mullet.planning.guard import guard
    from mullet.planning.horizon import plan_horizon
    from mullet.ports import MulletError, PlanningError

    facility = load(policy).facility
    with refusals(MulletError, ValueError):
        instant_s = _instant(at, prices, column)
        curve = _read_prices(facility, prices, column, instant_s) if prices is not None else None
    request = full_request(facility, curve, instant_s)
    try:
        made = plan_horizon(request, SOLVER_LIMIT_S)
    except PlanningError as error:
        note(f"mullet: {error}; this is the merit order instead")
        made = plan_merit_order(request)
    problems = guard(made, request)
    if as_json:
        say_json({"plan": encode(made), "price_rung": request.forecast.price_rung, "problems": list(problems)})
    else:
        _show(facility, request, made)
    if problems:
        for problem in problems:
            note(problem)
        fail("the guard refuses this plan", NO)


def full_request(facility: Facility, curve: PriceCurve | None, at: float) -> PlanRequest:
    """Return what a planner would be asked if everything were at hand, nothing ran and demand were at its highest."""
    from mullet.domain.feeds import Reading
    from mullet.domain.plan import Obligations, PlanRequest
    from mullet.domain.snapshot import Snapshot
    from mullet.policy.loaded import besides_loads_watts
    from mullet.programs.prices import forecast_prices

    needs = {
        service.id: sum(load.highest.watts for load in facility.loads_of_service[service.id])
        for service in facility.services
    }
    snapshot = Snapshot(facility.id, at, prices=None if curve is None else Reading(curve, at), needs=needs)
    return PlanRequest(
        facility=facility,
        at=at,
        forecast=forecast_prices(facility, snapshot, snapshot.needs),
        obligations=Obligations(),
        available=frozenset(facility.load_by_id),
        fixed_watts={circuit.id: besides_loads_watts(facility, circuit, 0.0) for circuit in facility.circuits},
        running=frozenset(),
    )


def _instant(text: str | None, prices: Path | None, column: str) -> float:
    from mullet.adapters.clock import SystemClock
    from mullet.adapters.feeds.csv import read_series

    if text is None:
        return SystemClock().now() if prices is None else read_series(prices, column).points[0][0]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--at {text!r} is no instant; write it as 2025-07-01T00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"--at {text!r} has no zone; write it as {text}Z if it is UTC")
    return moment.timestamp()


def _read_prices(facility: Facility, path: Path, column: str, at: float) -> PriceCurve:
    from mullet.adapters.feeds.csv import CsvPriceFeed
    from mullet.ports import DriverContext

    horizon_s = sum(length * (count + 2) for length, count in facility.grid_steps)
    options = {"path": str(path), "column": column, "currency": facility.currency, "ahead_s": horizon_s}
    feed = CsvPriceFeed(DriverContext({FEED: options}, lambda name: None, _Standing(at)), FEED)
    return asyncio.run(feed.fetch(30.0))


class _Standing:
    """A clock that stands still at one instant (`ports.Clock`)."""

    def __init__(self, at: float) -> None:
        self._at = at

    def now(self) -> float:
        return self._at

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _show(facility: Facility, request: PlanRequest, made: Plan) -> None:
    earned = f"{number(made.objective, 2)} {facility.currency}"
    gap = "" if made.bound is None else f", at most {number(made.bound, 2)} could be"
    say(f"{facility.id}: plan of {instant(made.made_at)} by {made.rung.value}; mining earns {earned}{gap}")
    say(f"Prices from {request.forecast.price_rung}" + (f"; {made.detail}" if made.detail else ""))
    root = facility.root.id
    table(
        ("from", "minutes", "price", "planned", "limit", *(group.key for group in made.groups)),
        [
            (
                instant(interval.start),
                number((interval.end - interval.start) / 60.0, 0),
                number(interval.price_per_mwh, 2),
                power(interval.budget_watts[root]),
                power(facility.root.usable_watts),
                *_counts(made, interval),
            )
            for interval in _merged(made)
        ],
        right=("minutes", "price", "planned", "limit"),
    )


def _counts(made: Plan, interval: PlanInterval) -> list[str]:
    """Return how many loads of each group stand at which point."""
    cells = []
    for group in made.groups:
        pairs = zip(interval.counts[group.key], group.points, strict=True)
        cells.append(" ".join(f"{count} {point.name}" for count, point in reversed(list(pairs)) if count) or "none")
    return cells


def _merged(made: Plan) -> list[PlanInterval]:
    """Return the intervals with equal neighbours joined, so that a flat night is one line."""
    from dataclasses import replace

    found: list[PlanInterval] = []
    for interval in made.intervals:
        last = found[-1] if found else None
        if (
            last is not None
            and last.counts == interval.counts
            and last.budget_watts == interval.budget_watts
            and math.isclose(last.price_per_mwh, interval.price_per_mwh, abs_tol=0.005)
        ):
            found[-1] = replace(last, end=interval.end)
        else:
            found.append(interval)
    return found
