"""The script of a scenario: price spikes, demand steps, limit cuts and faults, at their instants."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Callable

from mullet_simulators.faults import draw_faults
from mullet_simulators.plant import Plant
from mullet_simulators.scenario import LimitCutSpec, PriceSpikeSpec, Scenario
from mullet_simulators.world import LimitNotice, PriceInterval


class Timeline:
    """Plays the script and whatever the control port adds to it."""

    def __init__(self, plant: Plant, scenario: Scenario) -> None:
        self._plant = plant
        self._scenario = scenario
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._added = 0
        self._cuts = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Lay out the first cycle and begin."""
        self._lay_out_faults()
        self._lay_out_cycle(0)
        self._task = asyncio.create_task(self._run(), name="timeline")

    async def stop(self) -> None:
        """End the script; raises what a step of it raised."""
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The running task, to notice its failure."""
        return self._task

    def price_spike(self, price_per_mwh: float, seconds: float) -> None:
        """Publish another price from now on for `seconds`, and log it."""
        now = self._plant.now()
        was = self._plant.world.price_at(now)
        self._plant.world.add_price(PriceInterval(now, now + seconds, price_per_mwh))
        self._plant.truth.event("price_spike", **{"from": was, "to": price_per_mwh, "until": now + seconds})

    def demand_step(self, service: str, requests_per_s: float) -> None:
        """Change a service's demand from now on, and log the watts it needs. Raises KeyError if unknown."""
        plant = self._plant
        if service not in plant.world.requests_per_s:
            raise KeyError(service)
        spec = next(spec for spec in self._scenario.services if spec.id == service)
        sim = plant.services.get(service)
        need_w = 0.0
        if sim is not None:
            need_w = max(0.0, sim.power_needed_w(requests_per_s) - plant.service_watts(service))
        before = plant.world.requests_per_s[service]
        plant.world.requests_per_s[service] = requests_per_s
        plant.truth.event(
            "demand_step",
            service=service,
            circuit=spec.circuit,
            need_w=round(need_w, 1),
            from_requests_per_s=before,
            to_requests_per_s=requests_per_s,
        )

    def limit_cut(
        self, circuit: str, limit_w: float, notice_s: float, seconds: float, cause: str = "demand_response"
    ) -> str:
        """Announce a lowered limit: its id. Raises KeyError for an unknown circuit."""
        if circuit not in self._plant.limits_w:
            raise KeyError(circuit)
        self._cuts += 1
        notice = f"cut-x{self._cuts}"
        start = self._plant.now() + notice_s
        self._announce(notice, circuit, limit_w, start, start + seconds, cause)
        return notice

    def _announce(self, notice_id: str, circuit: str, limit_w: float, start: float, end: float, cause: str) -> None:
        plant = self._plant
        now = plant.now()
        usual_w = next(spec.limit_w for spec in self._scenario.circuits if spec.id == circuit)
        plant.world.announce(LimitNotice(notice_id, circuit, limit_w, now, start, end, cause))
        plant.truth.event("limit_cut", circuit=circuit, limit_w=limit_w, start=start, end=end, id=notice_id)
        self._at(start, lambda: plant.set_limit(circuit, limit_w, now))
        self._at(end, lambda: plant.set_limit(circuit, usual_w, now))

    def _lay_out_cycle(self, number: int) -> None:
        scenario = self._scenario
        zero = self._plant.zero + number * scenario.cycle_s
        for spike in scenario.price.spikes:
            self._at(zero + spike.start_s, self._spike_logger(spike, zero))
        for service in scenario.services:
            for index, point in enumerate(service.demand):
                if index or number:
                    self._at(zero + point.at_s, self._stepper(service.id, point.requests_per_s))
        for cut in scenario.limit_cuts:
            self._at(zero + cut.announced_s, self._cutter(cut, zero, number))
        if scenario.repeats:
            self._at(zero + scenario.cycle_s, lambda: self._lay_out_cycle(number + 1))

    def _lay_out_faults(self) -> None:
        plant, scenario = self._plant, self._scenario
        zero = plant.zero
        for fault in scenario.faults:
            self._at(zero + fault.at_s, self._faulter(fault.load, fault.fault))
        miners = [load.id for load in plant.loads.values() if load.kind == "miner"]
        horizon_s = scenario.cycle_s if not scenario.repeats else 86400.0
        source = plant.random("faults")
        for drawn in draw_faults(miners, scenario.random_faults_per_hour, horizon_s, source):
            self._at(zero + drawn.at_s, self._faulter(drawn.load, drawn.fault))

    def _spike_logger(self, spike: PriceSpikeSpec, zero: float) -> Callable[[], None]:
        def log() -> None:
            self._plant.truth.event(
                "price_spike",
                **{
                    "from": self._scenario.price.base_per_mwh,
                    "to": spike.price_per_mwh,
                    "until": zero + spike.end_s,
                },
            )

        return log

    def _stepper(self, service: str, requests_per_s: float) -> Callable[[], None]:
        def step() -> None:
            if self._plant.world.requests_per_s[service] != requests_per_s:
                self.demand_step(service, requests_per_s)

        return step

    def _cutter(self, cut: LimitCutSpec, zero: float, number: int) -> Callable[[], None]:
        name = cut.id if number == 0 else f"{cut.id}-{number + 1}"
        return lambda: self._announce(name, cut.circuit, cut.limit_w, zero + cut.start_s, zero + cut.end_s, cut.cause)

    def _faulter(self, load: str, fault: str) -> Callable[[], None]:
        return lambda: self._plant.set_fault(load, fault)

    def _at(self, instant: float, action: Callable[[], None]) -> None:
        self._added += 1
        heapq.heappush(self._queue, (instant, self._added, action))
        self._wake.set()

    async def _run(self) -> None:
        while True:
            now = self._plant.now()
            while self._queue and self._queue[0][0] <= now:
                heapq.heappop(self._queue)[2]()
            self._wake.clear()
            wait_s = self._queue[0][0] - now if self._queue else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
