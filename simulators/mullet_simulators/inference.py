"""Inference servers: `/metrics` of each service under vLLM v1's names (vllm/v1/metrics/loggers.py, v0.19)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from mullet_simulators.gpu import Gpu
from mullet_simulators.plant import Plant
from mullet_simulators.scenario import Scenario, ServiceSpec
from mullet_simulators.serving import Request, SimService
from mullet_simulators.web import ERROR_PAGE, HTML_PAGE, NOT_FOUND, Page, WebServer

FIRST_PORT = 8703
STEP_S = 0.05
LABELS = ("model_name", "engine")
ENGINE = "0"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
GARBAGE = b"\x00\x9f\x92vllm:num_requests_running{model_name=\xff 12 12 12\nvllm:num_requests_waiting NaNNaN\n"
TTFT_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160)
GAP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10)
LATENCY_BUCKETS = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480)


class ServerFault(StrEnum):
    """One way in which a metrics page fails; `ok` is none."""

    OK = "ok"
    HTML = "html"  # a captive portal's page, status 200
    HTTP500 = "500"
    GARBAGE = "garbage"  # bytes that are no exposition format
    HANG = "hang"  # accepts, never answers
    RESET = "reset"  # the server restarts: counters begin again, requests are lost; then ok


class ServiceMetrics:
    """The metrics of one engine; series appear with the first request, as in the real one."""

    def __init__(self, model_name: str) -> None:
        self._labels = (model_name, ENGINE)
        self.forget()

    def forget(self) -> None:
        """Begin again, as a restarted process does."""
        registry = CollectorRegistry()
        self._registry = registry
        self._any = False
        self._fraction = 0.0

        def gauge(name: str, text: str, *more: str) -> Gauge:
            return Gauge(f"vllm:{name}", text, (*LABELS, *more), registry=registry)

        def counter(name: str, text: str, *more: str) -> Counter:
            return Counter(f"vllm:{name}", text, (*LABELS, *more), registry=registry)

        def histogram(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"vllm:{name}", text, LABELS, registry=registry, buckets=buckets)

        self._running = gauge("num_requests_running", "Number of requests in model execution batches.")
        self._waiting = gauge("num_requests_waiting", "Number of requests waiting to be processed.")
        self._by_reason = gauge("num_requests_waiting_by_reason", "Number of waiting requests by reason.", "reason")
        self._kv = gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.")
        self._prompt = counter("prompt_tokens", "Number of prefill tokens processed.")
        self._generated = counter("generation_tokens", "Number of generation tokens processed.")
        self._success = counter("request_success", "Count of successfully processed requests.", "finished_reason")
        self._preemptions = counter("num_preemptions", "Cumulative number of preemption from the engine.")
        self._ttft = histogram("time_to_first_token_seconds", "Time to first token in seconds.", TTFT_BUCKETS)
        self._gap = histogram("inter_token_latency_seconds", "Inter-token latency in seconds.", GAP_BUCKETS)
        self._e2e = histogram("e2e_request_latency_seconds", "e2e request latency in seconds.", LATENCY_BUCKETS)
        self._queued = histogram("request_queue_time_seconds", "Time spent in WAITING phase.", LATENCY_BUCKETS)

    def first_token(self, request: Request) -> None:
        """The prompt has been read."""
        self._prompt.labels(*self._labels).inc(request.prompt_tokens)
        self._ttft.labels(*self._labels).observe(request.first_token_at - request.arrived_at)

    def generated(self, tokens: float) -> None:
        """Whole tokens are counted; the rest waits for the next step."""
        self._fraction += tokens
        whole = int(self._fraction)
        if whole:
            self._fraction -= whole
            self._generated.labels(*self._labels).inc(whole)

    def finished(self, request: Request, now: float, reason: str) -> None:
        """The request is over."""
        self._success.labels(*self._labels, reason).inc()
        if reason == "abort":
            return
        self._e2e.labels(*self._labels).observe(now - request.arrived_at)
        self._queued.labels(*self._labels).observe(request.started_at - request.arrived_at)
        self._gap.labels(*self._labels).observe((now - request.first_token_at) / max(1, request.output_tokens - 1))

    def page(self, service: SimService) -> bytes:
        """The exposition text now."""
        self._any = self._any or service.running > 0 or service.waiting > 0
        if self._any:
            self._running.labels(*self._labels).set(service.running)
            self._waiting.labels(*self._labels).set(service.waiting)
            self._by_reason.labels(*self._labels, "capacity").set(service.waiting)
            self._by_reason.labels(*self._labels, "deferred").set(0)
            self._kv.labels(*self._labels).set(service.kv_usage)
            self._preemptions.labels(*self._labels)
        return generate_latest(self._registry)


class InferenceServer:
    """One service and its metrics page."""

    def __init__(self, plant: Plant, spec: ServiceSpec, host: str, port: int) -> None:
        self.metrics = ServiceMetrics(f"sim/{spec.id}")
        gpus = [load for load in plant.loads.values() if isinstance(load, Gpu) and load.service == spec.id]
        self.service = SimService(plant, spec, gpus, self.metrics)
        self.web = WebServer(host, port, self._answer)
        self.fault = ServerFault.OK

    def set_fault(self, fault: str) -> None:
        """Begin a fault, or end it with "ok". Raises ValueError for an unknown one."""
        new = ServerFault(fault)
        if new is ServerFault.RESET:
            self.service.restart()
            self.metrics.forget()
            new = ServerFault.OK
        self.fault = new

    def _answer(self, path: str) -> Page | None:
        if path == "/health":
            return Page(b"", "text/plain")
        if path != "/metrics":
            return NOT_FOUND
        if self.fault is ServerFault.HTML:
            return HTML_PAGE
        if self.fault is ServerFault.HTTP500:
            return ERROR_PAGE
        if self.fault is ServerFault.GARBAGE:
            return Page(GARBAGE, CONTENT_TYPE)
        if self.fault is ServerFault.HANG:
            return None
        return Page(self.metrics.page(self.service), CONTENT_TYPE)


class InferenceServers:
    """Every inference server of the facility; server i listens on port 8703 + i."""

    def __init__(self, plant: Plant, scenario: Scenario, subnet: int, first_port: int = FIRST_PORT) -> None:
        """Build it after the NVML service, which registers the GPUs. Registers each service with the plant."""
        self._plant = plant
        self.servers: dict[str, InferenceServer] = {}
        for i, spec in enumerate(scenario.services):
            port = first_port + i if first_port else 0
            server = InferenceServer(plant, spec, f"127.{subnet}.0.3", port)
            self.servers[spec.id] = server
            plant.services[spec.id] = server.service
        self._task: asyncio.Task[None] | None = None

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task that moves the requests, to notice its failure."""
        return self._task

    async def start(self) -> None:
        """Listen, and let requests come. Raises OSError where an address is in use."""
        for server in self.servers.values():
            await server.web.start()
        self._task = asyncio.create_task(self._run(), name="inference")

    async def stop(self) -> None:
        """Close every socket and await every task; raises what the service's physics raised."""
        for server in self.servers.values():
            await server.web.stop()
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def addresses(self) -> dict[str, Any]:
        """The metrics page of each service."""
        return {"inference": {name: f"http://{s.web.address}/metrics" for name, s in self.servers.items()}}

    def set_fault(self, service: str, fault: str) -> None:
        """Begin a fault of one server. Raises KeyError or ValueError where it is unknown."""
        self.servers[service].set_fault(fault)

    def step(self, dt: float, now: float) -> None:
        """Move every service on by `dt` seconds to the instant `now`."""
        for server in self.servers.values():
            server.service.step(dt, now)

    async def _run(self) -> None:
        last = self._plant.now()
        while True:
            await asyncio.sleep(STEP_S)
            now = self._plant.now()
            self.step(now - last, now)
            last = now
