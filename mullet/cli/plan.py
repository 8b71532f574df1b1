"""`mullet plan`: one plan from a policy and prices, with every load at hand and none running, and why it is so."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mullet.cli.load import load
from mullet.cli.say import NO, AsJson, fail, note, refusals, say_json, table

if TYPE_CHECKING:
    from mullet.cli.what_if import Change
    from mullet.domain.facility import Facility
    from mullet.domain.feeds import PriceCurve
    from mullet.domain.plan import Plan, PlanRequest
    from mullet.planning.difference import Difference
    from mullet.planning.explain import Explanation

SOLVER_LIMIT_S = 10.0
FEED = "prices"

_PLAN = """Make one plan over the horizon, print it, and say why it is so.

It prints price, loads per operating point and power for each interval, charts of both, what binds and what one more MW
there is worth, and for each group its break-even, its next change and what would flip its next load.

Every load is taken as available and none as running; services are taken to need all their GPUs. Prices come from a
CSV file (first column the UTC start of the interval, then price_usd_mwh or the like), else from the policy's fallback.

--set asks what if: the plan is made with and without, and the difference printed in money and MW. It may be given
several times: prices.adder, prices.shift, prices.scale, hashprice (or economics.hashprice), economics.pool_fee,
economics.deadband, circuits.ID.limit, circuits.ID.unmanaged, services.ID.need, services.ID.value,
services.ID.flex, services.ID.reserve, banks.ID.available, pacing.ramp, pacing.min_on, pacing.min_off.
`--set help` lists all that the policy has.

Example: mullet plan west-texas --prices day-ahead.csv --at 2025-07-01T00:00Z --html plan.html

Example: mullet plan west-texas --set prices.adder=5 --set circuits.poi.limit=18MW"""


def register(app: typer.Typer) -> None:
    """Offer the command of this module."""
    app.command("plan", help=_PLAN)(plan)


def plan(
    policy: Annotated[str, typer.Argument(help="Policy file, or the name of a shipped one.")],
    prices: Annotated[Path | None, typer.Option("--prices", help="CSV file of prices.")] = None,
    column: Annotated[str, typer.Option("--column", help="Which column of the CSV, where there are several.")] = "",
    at: Annotated[str | None, typer.Option("--at", help="UTC instant; else the file's first row, else now.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="What if: again and again; or help.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with charts to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    from mullet.cli.what_if import SettingError, changed_facility, changed_request, read_changes
    from mullet.planning.difference import difference
    from mullet.ports import MulletError

    facility = load(policy).facility
    if changes == ["help"]:
        _list_settings(facility)
        return
    with refusals(MulletError, ValueError):
        asked = read_changes(facility, changes or ())
        instant_s = _instant(at, prices, column)
        curve = _read_prices(facility, prices, column, instant_s) if prices is not None else None
    made = _make(facility, full_request(facility, curve, instant_s))
    other = None
    if asked:
        changed = changed_facility(facility, asked)
        with refusals(SettingError):
            request = changed_request(full_request(changed, curve, instant_s), asked)
        other = _make(changed, request)
    contrast = None if other is None else difference(made.why, other.why)
    if html is not None:
        from mullet.cli.plan_page import plan_page

        texts = tuple(f"{change.setting.key} = {change.text}" for change in asked)
        with refusals(OSError):
            html.write_text(
                plan_page(made.why, None if other is None else other.why, contrast, texts), encoding="utf-8"
            )
    if as_json:
        say_json(_plain(made, other, contrast, asked))
    else:
        from mullet.cli.plan_text import show_difference, show_plan

        shown = made if other is None else other
        show_plan(shown.request.facility, shown.request, shown.plan, shown.why)
        if contrast is not None:
            show_difference(contrast, shown.why, tuple(f"{change.setting.key}={change.text}" for change in asked))
    if html is not None and not as_json:
        note(f"mullet: wrote {html}")
    problems = [*made.problems, *(other.problems if other is not None else ())]
    if problems:
        for problem in problems:
            note(problem)
        fail("the guard refuses this plan", NO)


@dataclass(frozen=True, slots=True)
class _Made:
    request: PlanRequest
    plan: Plan
    why: Explanation
    problems: tuple[str, ...]


def _make(facility: Facility, request: PlanRequest) -> _Made:
    """Return the plan for the request, or the merit order where the solver has none, with its reasons."""
    from mullet.planning.explain import conditions_of, explain
    from mullet.planning.greedy import plan_merit_order
    from mullet.planning.guard import guard
    from mullet.planning.horizon import plan_horizon
    from mullet.ports import PlanningError

    try:
        made = plan_horizon(request, SOLVER_LIMIT_S)
    except PlanningError as error:
        note(f"mullet: {error}; this is the merit order instead")
        made = plan_merit_order(request)
    return _Made(request, made, explain(made, facility, conditions_of(request)), guard(made, request))


def _plain(made: _Made, other: _Made | None, contrast: Difference | None, asked: tuple[Change, ...]) -> dict[str, Any]:
    """Return all of it as plain data; with `--set`, the plan without the changes comes first, as without `--set`."""
    from mullet.domain.codec import encode

    def one(item: _Made) -> dict[str, Any]:
        return {
            "plan": encode(item.plan),
            "price_rung": item.request.forecast.price_rung,
            "problems": list(item.problems),
            "explanation": encode(item.why),
        }

    answer = one(made)
    if other is not None and contrast is not None:
        changes = [{"name": change.setting.key, "text": change.text, "value": change.value} for change in asked]
        answer["what_if"] = {"changes": changes, **one(other), "difference": encode(contrast)}
    return answer


def _list_settings(facility: Facility) -> None:
    from mullet.cli.what_if import settings_of

    rows = [(setting.key, setting.takes, setting.help) for setting in settings_of(facility)]
    table(("name", "for example", "what it is"), rows)


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
