"""Demand on an inference service, from vLLM's Prometheus page.

Names as of vllm/v1/metrics/loggers.py (evidence: library source). A series that is absent has had no request yet:
that is unknown, not 0. Engines are summed; latency is that of the slowest.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

from mullet.adapters.feeds.arrivals import LONG_WINDOW_S, ArrivalEstimate, Totals
from mullet.adapters.feeds.exposition import Labels, NotMetrics, Page, load_parser, read_page
from mullet.adapters.feeds.http import HTTP_OPTIONS, HttpSource, read_options
from mullet.domain.feeds import ServiceDemand
from mullet.ports import DriverContext

logger = logging.getLogger(__name__)


def _aliases(name: str) -> tuple[str, ...]:
    # Collectors on the way may have replaced the colon.
    return (f"vllm:{name}", f"vllm_{name}")


VLLM_NAMES: dict[str, tuple[str, ...]] = {
    "running": _aliases("num_requests_running"),
    "waiting": _aliases("num_requests_waiting"),
    "waiting_by_reason": _aliases("num_requests_waiting_by_reason"),
    "prompt_tokens": (*_aliases("prompt_tokens_total"), *_aliases("prompt_tokens")),
    "generation_tokens": (*_aliases("generation_tokens_total"), *_aliases("generation_tokens")),
    "finished": (*_aliases("request_success_total"), *_aliases("request_success")),
    "ttft_sum": _aliases("time_to_first_token_seconds_sum"),
    "ttft_count": _aliases("time_to_first_token_seconds_count"),
}
"""Quantity -> names of its samples, the present one first."""

COUNTERS = ("prompt_tokens", "generation_tokens", "finished", "ttft_sum", "ttft_count")
OPTIONAL = frozenset({"waiting_by_reason"})


class VllmDemandFeed:
    """Reads ServiceDemand (`ports.Feed`). Rates need two scrapes and are None before that.

    Raises:
        ValueError: the options are wrong.
    """

    options_schema: ClassVar[dict[str, tuple[type, Any, str]]] = {
        **HTTP_OPTIONS,
        "timeout_s": (float, 1.0, "longest wait for one scrape, in seconds"),
        "service": (
            str,
            "",
            "inference service whose demand this is; empty takes it from the feed's id, demand-<service>",
        ),
        "model": (str, "", "model_name label to count alone, where one server has several models; empty counts all"),
    }

    def __init__(self, context: DriverContext, feed_id: str) -> None:
        options = read_options(context, feed_id, self.options_schema)
        self._feed_id = feed_id
        self._clock = context.clock
        self._service: str = options["service"] or feed_id.removeprefix("demand-")
        self._model: str = options["model"]
        self._source = HttpSource(context, feed_id, options, "text/plain")
        load_parser()
        self._estimate = ArrivalEstimate()
        self._last: dict[str, Mapping[Labels, float]] = {}
        self._totals = dict.fromkeys(COUNTERS, 0.0)
        self._missing: frozenset[str] = frozenset()
        self._latencies: deque[tuple[float, Mapping[Labels, float], Mapping[Labels, float]]] = deque()

    async def fetch(self, deadline_s: float) -> ServiceDemand:
        """Scrape once.

        Raises:
            FeedError: no answer within the deadline, not a page of vLLM metrics, or labels that are not vLLM's.
        """
        text = await self._source.get(deadline_s)
        try:
            page = read_page(text, VLLM_NAMES)
        except NotMetrics as error:
            self._source.fail(str(error))
        self._tell_missing(page)
        series = {quantity: self._of_model(quantity, page.values[quantity]) for quantity in VLLM_NAMES}
        self._count(series)
        return self._demand(series)

    async def close(self) -> None:
        """Close the connection."""
        await self._source.close()

    def _of_model(self, quantity: str, series: Mapping[Labels, float]) -> dict[Labels, float]:
        chosen, others = {}, set()
        for labels, value in series.items():
            model = dict(labels).get("model_name")
            if model is None:
                self._wrong_labels(f"{VLLM_NAMES[quantity][0]} has no label model_name")
            if self._model in ("", model):
                chosen[labels] = value
            else:
                others.add(model)
        if others and not chosen:
            self._wrong_labels(f"no series of model {self._model!r}; there are {', '.join(sorted(others))[:200]}")
        return chosen

    def _wrong_labels(self, reason: str) -> NoReturn:
        self._source.fail(reason)

    def _tell_missing(self, page: Page) -> None:
        missing = frozenset(VLLM_NAMES) - page.known - OPTIONAL
        if missing != self._missing:
            self._missing = missing
            names = ", ".join(VLLM_NAMES[quantity][0] for quantity in sorted(missing))
            logger.warning("feed %s: metrics that are not there (any more): %s", self._feed_id, names or "none")

    def _count(self, series: Mapping[str, Mapping[Labels, float]]) -> None:
        counters = {quantity: series[quantity] for quantity in COUNTERS}
        reset = any(
            value < self._last.get(name, {}).get(labels, 0.0)
            for name in COUNTERS
            for labels, value in counters[name].items()
        )
        for name in COUNTERS:
            before = self._last.get(name, {})
            for labels, value in counters[name].items():
                if labels in before and value >= before[labels]:
                    value -= before[labels]
                self._totals[name] += value
        if reset or self._engines(counters) != self._engines(self._last):
            self._estimate.restart()
            self._latencies.clear()
        self._last = counters

    @staticmethod
    def _engines(counters: Mapping[str, Mapping[Labels, float]]) -> set[Labels]:
        return set(counters.get("generation_tokens", {}))

    def _demand(self, series: Mapping[str, Mapping[Labels, float]]) -> ServiceDemand:
        running, waiting = _sum(series["running"]), _sum(series["waiting"])
        counted = bool(series["prompt_tokens"] and series["generation_tokens"])
        if counted:
            # Until the first request has finished, its counter is absent while the others are there: that is none.
            known = "finished" not in self._missing
            self._estimate.add(
                Totals(
                    at=self._clock.monotonic(),
                    tokens=self._totals["prompt_tokens"] + self._totals["generation_tokens"],
                    finished=self._totals["finished"] if known else None,
                    running=running,
                    waiting=waiting,
                )
            )
        tokens_per_s = self._estimate.tokens_per_s() if counted else None
        return ServiceDemand(
            service=self._service,
            at=self._clock.now(),
            running=running,
            waiting=_waiting_for_capacity(series["waiting"], series["waiting_by_reason"]),
            tokens_per_s=tokens_per_s,
            offered_tokens_per_s=self._offered(tokens_per_s, waiting),
            ttft_s=self._time_to_first_token(series),
            watched_s=self._estimate.watched_s(),
        )

    def _offered(self, tokens_per_s: float | None, waiting: float | None) -> float | None:
        if tokens_per_s is None:
            return None
        arrivals, size = self._estimate.requests_per_s(), self._estimate.tokens_per_request()
        if arrivals is not None and size is not None:
            return arrivals * size
        # Where nothing waits, what is served is what is asked for.
        return tokens_per_s if waiting == 0.0 else None

    def _time_to_first_token(self, series: Mapping[str, Mapping[Labels, float]]) -> float | None:
        now = self._clock.monotonic()
        self._latencies.append((now, series["ttft_sum"], series["ttft_count"]))
        while len(self._latencies) > 2 and self._latencies[1][0] <= now - LONG_WINDOW_S:
            self._latencies.popleft()
        _, sums, counts = self._latencies[0]
        slowest: float | None = None
        for labels, count in series["ttft_count"].items():
            grown = count - counts.get(labels, 0.0)
            if grown > 0.0:
                mean = (series["ttft_sum"].get(labels, 0.0) - sums.get(labels, 0.0)) / grown
                slowest = max(slowest or 0.0, mean)
        return slowest


def _sum(series: Mapping[Labels, float]) -> float | None:
    return sum(series.values()) if series else None


def _waiting_for_capacity(waiting: Mapping[Labels, float], by_reason: Mapping[Labels, float]) -> float | None:
    """Return the requests that wait for room, per engine: those by reason where it tells, all of them where not."""
    if not waiting and not by_reason:
        return None
    capacity: dict[Labels, float] = {}
    for labels, value in by_reason.items():
        engine = frozenset(label for label in labels if label[0] != "reason")
        capacity.setdefault(engine, 0.0)
        if ("reason", "capacity") in labels:
            capacity[engine] += value
    return sum(capacity.values()) + sum(value for labels, value in waiting.items() if labels not in capacity)
