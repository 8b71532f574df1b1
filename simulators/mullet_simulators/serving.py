"""An inference service: requests that come, wait, share the GPUs and leave, at the speed that power allows.

Running requests share the GPUs evenly (continuous batching), each at no more than its own stream can take, so a
service that is short of power first slows its streams and then lets its queue grow.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mullet_simulators.gpu import Gpu, Work
from mullet_simulators.plant import Plant
from mullet_simulators.scenario import ServiceSpec

STREAMS_TO_FILL_A_GPU = 16
BATCH_PER_GPU = 24
"""Running requests per GPU at most (vLLM's max_num_seqs)."""
KV_AT_FULL_BATCH = 0.9
PREFILL_TIME_SHARE = {Work.DECODE: 0.06, Work.PREFILL: 0.35}
PATIENCE_S = 120.0
"""A client that has waited so long for its turn gives up."""
MOST_WAITING = 50_000
HEADROOM = 1.05
"""Work that is paid for beyond the mean rate: at a load of exactly one a queue never empties."""
SIZE_SIGMA = 0.4


@dataclass(slots=True)
class Request:
    """One request; `size` is its work as a multiple of the mean."""

    arrived_at: float
    prompt_tokens: int
    output_tokens: int
    size: float
    started_at: float = 0.0
    first_token_at: float = 0.0


class ServingRecord(Protocol):
    """What is told of each request, as it happens."""

    def first_token(self, request: Request) -> None:
        """The prompt has been read."""

    def generated(self, tokens: float) -> None:
        """So many more tokens were written."""

    def finished(self, request: Request, now: float, reason: str) -> None:
        """The request is over: stop, length or abort."""


@dataclass(order=True, slots=True)
class _Mark:
    """A request reaches its first token, or its end, when the common progress reaches `at`."""

    at: float
    order: int
    is_end: bool = field(compare=False)
    request: Request = field(compare=False)


class SimService:
    """One service on its GPUs. Rates are requests a second, power is watts."""

    def __init__(self, plant: Plant, spec: ServiceSpec, gpus: Sequence[Gpu], record: ServingRecord) -> None:
        self.spec = spec
        self.gpus = list(gpus)
        self.record = record
        self._plant = plant
        self._random = plant.random(f"service/{spec.id}")
        self._full_rate = spec.tokens_per_s_per_gpu / spec.output_tokens_per_request
        self._least_latency_s = STREAMS_TO_FILL_A_GPU / self._full_rate
        self._batch = BATCH_PER_GPU * len(self.gpus)
        self._waiting: deque[Request] = deque()
        self._marks: list[_Mark] = []
        self._order = 0
        self._running = 0
        self._decoding_tokens = 0.0
        self._progress = 0.0
        self._next_arrival = math.inf
        self._rate = 0.0

    @property
    def running(self) -> int:
        """Requests that the GPUs work on."""
        return self._running

    @property
    def waiting(self) -> int:
        """Requests that have not begun."""
        return len(self._waiting)

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache in use, 0 to 1."""
        return KV_AT_FULL_BATCH * self._running / self._batch if self._batch else 0.0

    @property
    def requests_per_s(self) -> float:
        """Demand now."""
        return self._plant.world.requests_per_s[self.spec.id]

    def capacity_per_s(self) -> float:
        """Requests a second that the GPUs could finish at their present caps and clocks."""
        return self._full_rate * sum(gpu.speed for gpu in self.gpus)

    def power_needed_w(self, requests_per_s: float) -> float:
        """The least sum of caps at which the GPUs that live keep up with a rate, with a little headroom."""
        living = [gpu for gpu in self.gpus if not gpu.is_lost]
        if not living:
            return 0.0
        share = HEADROOM * requests_per_s / (self._full_rate * len(living))
        return sum(gpu.watts_for(share) for gpu in living)

    def restart(self) -> None:
        """The server process starts anew: what ran and waited is gone."""
        self._waiting.clear()
        self._marks.clear()
        self._running = 0
        self._decoding_tokens = 0.0

    def step(self, dt: float, now: float) -> None:
        """Advance by `dt` seconds to the instant `now`, and tell the GPUs how busy they are."""
        self._arrive(now)
        self._admit(now)
        capacity = self.capacity_per_s()
        pace = 0.0
        if self._running and capacity > 0.0:
            pace = min(1.0 / self._least_latency_s, capacity / self._running)
        duty = pace * self._running / capacity if capacity > 0.0 else 0.0
        for gpu in self.gpus:
            gpu.duty = 0.0 if gpu.is_lost else duty
        if pace == 0.0:
            return
        self.record.generated(self._decoding_tokens * pace * dt)
        self._progress += pace * dt
        self._pass_marks(now)
        self._admit(now)

    def _arrive(self, now: float) -> None:
        rate = self.requests_per_s
        if rate != self._rate:
            self._rate = rate
            self._next_arrival = self._after(now)
        while self._next_arrival <= now:
            request = self._draw(self._next_arrival)
            if len(self._waiting) < MOST_WAITING:
                self._waiting.append(request)
            else:
                self.record.finished(request, now, "abort")
            self._next_arrival = self._after(self._next_arrival)

    def _after(self, t: float) -> float:
        return t + self._random.expovariate(self._rate) if self._rate > 0.0 else math.inf

    def _draw(self, t: float) -> Request:
        def around(mean: float) -> float:
            return mean * self._random.lognormvariate(-SIZE_SIGMA * SIZE_SIGMA / 2, SIZE_SIGMA)

        prompt = max(1, round(around(self.spec.prompt_tokens_per_request)))
        output = max(1, round(around(self.spec.output_tokens_per_request)))
        prefill = PREFILL_TIME_SHARE[self._work]
        size = (
            prefill * prompt / max(1.0, self.spec.prompt_tokens_per_request)
            + (1.0 - prefill) * output / self.spec.output_tokens_per_request
        )
        return Request(t, prompt, output, size)

    @property
    def _work(self) -> Work:
        return self.gpus[0].work if self.gpus else Work.DECODE

    def _admit(self, now: float) -> None:
        while self._waiting and now - self._waiting[0].arrived_at > PATIENCE_S:
            self.record.finished(self._waiting.popleft(), now, "abort")
        while self._waiting and self._running < self._batch:
            request = self._waiting.popleft()
            request.started_at = now
            self._running += 1
            first = self._progress + PREFILL_TIME_SHARE[self._work] * request.size
            self._push(_Mark(first, self._order, False, request))
            self._push(_Mark(self._progress + request.size, self._order, True, request))

    def _push(self, mark: _Mark) -> None:
        self._order += 1
        heapq.heappush(self._marks, mark)

    def _pass_marks(self, now: float) -> None:
        while self._marks and self._marks[0].at <= self._progress:
            mark = heapq.heappop(self._marks)
            request = mark.request
            decoding = request.output_tokens / ((1.0 - PREFILL_TIME_SHARE[self._work]) * request.size)
            if not mark.is_end:
                request.first_token_at = now
                self._decoding_tokens += decoding
                self.record.first_token(request)
                continue
            self._running -= 1
            self._decoding_tokens = max(0.0, self._decoding_tokens - decoding) if self._running else 0.0
            reason = "length" if self._random.random() < 0.1 else "stop"
            self.record.finished(request, now, reason)
