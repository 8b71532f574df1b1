"""The daemon's HTTP interface and the operator's page; it reaches control through `ports.Operations` only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal, Protocol

from fastapi import APIRouter, Depends, FastAPI, Query, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from mullet.adapters.api_guard import LEAST_TOKEN_LENGTH, Guard
from mullet.adapters.api_loads import SORTS, LoadFilter, LoadTable
from mullet.adapters.api_models import HoldOrder, ModeOrder, RestoreOrder, ShedOrder
from mullet.adapters.api_pages import add_pages
from mullet.adapters.api_problems import (
    Problem,
    as_problems,
    on_bug,
    on_http_error,
    on_invalid,
    on_problem,
)
from mullet.adapters.clock import SystemClock
from mullet.adapters.live import HEARTBEAT_S, Live, to_json, with_recent
from mullet.adapters.metrics import MEDIA_TYPE as METRICS_TYPE
from mullet.adapters.metrics import metrics_text
from mullet.adapters.trail import MOST_POINTS, SeriesReader, Trail
from mullet.domain.codec import encode
from mullet.ports import Clock, Operations

HEALTHY_S = 10.0
"""A status older than this means that control stands still."""

Kind = Literal["", "miner", "gpu"]
State = Literal["", "active", "asleep", "starting", "stopping", "fault", "unknown"]


class FacilityDesk(Operations, Protocol):
    """Operations that also tell of each load. `recent()` is used too where it is there."""

    def loads(self) -> Sequence[Mapping[str, Any]]:
        """Return one row per load."""


def build_api(
    facility_id: str,
    operations: FacilityDesk,
    token: str | None,
    history: SeriesReader | None = None,
    *,
    clock: Clock | None = None,
    open_loopback_reads: bool = True,
    heartbeat_s: float = HEARTBEAT_S,
) -> FastAPI:
    """Return the app. `app.state.live` follows the events while the app's lifespan (or `ApiServer`) runs.

    Without a token nothing can be written. `open_loopback_reads` lets this machine read without one. `history` adds
    what is older than the app to the charts.

    Raises:
        ValueError: the token is too short to protect anything.
    """
    if token is not None and len(token) < LEAST_TOKEN_LENGTH:
        raise ValueError(f"the API token needs {LEAST_TOKEN_LENGTH} characters at least")
    time = clock or SystemClock()
    trail = Trail(history)
    live = Live(operations, time, trail, heartbeat_s)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        live.start()
        try:
            yield
        finally:
            await live.close()

    app = FastAPI(
        title="mullet",
        description="Status of a mullet data center and orders to it. Power in W, times in Unix seconds.",
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.live = live
    for kind, handler in (
        (Problem, on_problem),
        (RequestValidationError, on_invalid),
        (HTTPException, on_http_error),
        (Exception, on_bug),
    ):
        app.add_exception_handler(kind, handler)
    app.include_router(_health(operations, time))
    app.include_router(_reads(facility_id, operations, live, trail, time))
    app.include_router(_orders(facility_id, operations))
    add_pages(app, facility_id)
    app.add_middleware(_guarded, token=token, open_reads=open_loopback_reads)
    return app


def _guarded(app: ASGIApp, token: str | None, open_reads: bool) -> ASGIApp:
    return Guard(app, token, open_reads)


def _scoped(facility_id: str) -> APIRouter:
    """Return a router of /v1/facilities/<id> that knows one facility."""

    def known(facility: str) -> None:
        if facility != facility_id:
            raise Problem(404, f"this daemon controls {facility_id!r}, not {facility!r}", [("facility", "unknown")])

    bearer = HTTPBearer(auto_error=False, description="checked before the request is read")
    return APIRouter(prefix="/v1/facilities/{facility}", dependencies=[Depends(known), Depends(bearer)])


def _health(operations: FacilityDesk, clock: Clock) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> Response:
        """Answer 200 while control runs: its latest tick is recent."""
        status = operations.status()
        age_s = clock.now() - status["at"]
        ready = bool(status.get("ready"))
        good = ready and age_s <= HEALTHY_S
        return _json({"ok": good, "ready": ready, "age_s": round(age_s, 3)}, 200 if good else 503)

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Answer with Prometheus text."""
        return Response(metrics_text(operations.status(), clock.now()), media_type=METRICS_TYPE)

    return router


def _reads(facility_id: str, operations: FacilityDesk, live: Live, trail: Trail, clock: Clock) -> APIRouter:
    router = _scoped(facility_id)
    table = LoadTable(operations.loads, lambda: live.version)

    @router.get("/status")
    async def status() -> Response:
        """Mode, power, circuits, services, plan, holds, ceilings, alarms."""
        return _json(with_recent(operations, operations.status()))

    @router.get("/loads")
    async def loads(
        q: Annotated[str, Query(max_length=100, description="text in id, bank, circuit, rule, cause or fault")] = "",
        kind: Kind = "",
        state: State = "",
        circuit: Annotated[str, Query(max_length=200)] = "",
        sort: Annotated[str, Query(pattern=f"^(-?({'|'.join(SORTS)}))?$")] = "",
        limit: Annotated[int, Query(ge=1, le=20_000)] = 200,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        """One row per load: state, watts, setpoint, cause and rule."""
        return _json(table.page(LoadFilter(q, kind, state, circuit, sort, limit, offset)))

    @router.get("/learned")
    async def learned() -> Response:
        """Per bank of miners: watts, rates and ramps as measured and by nameplate; who is far from its group."""
        return _json(operations.learned())

    @router.get("/why/{target:path}")
    async def why(target: str) -> Response:
        """The inputs, the binding limit and the rule behind a load's setpoint, or what binds a circuit."""
        with as_problems():
            return _json(operations.why(target))

    @router.get("/history")
    async def history(
        start: Annotated[float | None, Query(description="Unix seconds; the last hour if left out")] = None,
        end: float | None = None,
        points: Annotated[int, Query(ge=2, le=MOST_POINTS)] = 600,
    ) -> Response:
        """Columns for the charts: `at` in Unix seconds, powers in W, price per MWh."""
        until = clock.now() + 1.0 if end is None else end
        since = until - 3_600.0 if start is None else start
        if not since < until:
            raise Problem(422, "start must be before end", [("start", "not before end")])
        return _json(await trail.columns(since, until, points))

    @router.get("/events")
    async def events() -> Response:
        """Server-sent events: `status` after each tick (a slow reader skips to the newest), comments as heartbeat."""
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(live.stream(), media_type="text/event-stream", headers=headers)

    return router


def _orders(facility_id: str, operations: FacilityDesk) -> APIRouter:
    router = _scoped(facility_id)

    @router.post("/holds", status_code=201)
    async def hold(order: HoldOrder) -> Response:
        """Lock a load or circuit."""
        with as_problems():
            return _json(encode(await operations.hold(order.target, order.kind, order.owner, order.reason)), 201)

    @router.delete("/holds/{hold_id}", status_code=204)
    async def release(hold_id: str, owner: Annotated[str, Query(min_length=1, max_length=64)]) -> Response:
        """End a hold (its owner only) or a shed order."""
        with as_problems():
            await operations.release(hold_id, owner.strip())
        return Response(status_code=204)

    @router.put("/mode")
    async def mode(order: ModeOrder) -> Response:
        """Set the operator's mode; policy and command line may restrict it further."""
        with as_problems():
            await operations.set_mode(order.mode, order.owner)
        return _json({"asked": order.mode.value, "mode": operations.status()["mode"]})

    @router.post("/shed")
    async def shed(order: ShedOrder) -> Response:
        """Drop at least this much mining at once; it stays off until the order is released."""
        with as_problems():
            return _json(await operations.shed(order.watts, order.circuit, order.owner))

    @router.post("/reload")
    async def reload() -> Response:
        """Read the policy file again; a bad one changes nothing and every problem is told."""
        with as_problems():
            return _json(await operations.reload())

    @router.post("/restore")
    async def restore(order: RestoreOrder) -> Response:
        """Put the defaults found at first contact back on a load."""
        with as_problems():
            return _json(await operations.restore(order.target, order.owner))

    return router


def _json(value: Any, status: int = 200) -> Response:
    return Response(to_json(value), status, headers={"Cache-Control": "no-store"}, media_type="application/json")
