"""The physical facility: circuits, loads and the watts that truly flow, whatever devices report."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any, Protocol

from mullet_simulators.scenario import Scenario
from mullet_simulators.truth import TruthLog
from mullet_simulators.world import World

MINER_PHASES = 5
TRUTH_EVERY_STEPS = 5
JOULES_PER_KWH = 3.6e6


class Component(Protocol):
    """Something with sockets: constructing it registers its loads, starting it listens."""

    async def start(self) -> None:
        """Listen. Raises OSError where an address is in use."""

    async def stop(self) -> None:
        """Close every socket and await every task."""

    def addresses(self) -> dict[str, Any]:
        """Where it answers, for the ready line."""


class SimService(Protocol):
    """An inference service as the timeline sees it."""

    def power_needed_w(self, requests_per_s: float) -> float:
        """GPU watts that the service needs to serve a rate of requests."""


class SimLoad:
    """One consumer; subclasses set `watts` (true draw) in `step`."""

    def __init__(self, load_id: str, kind: str, bank: str, circuit: str, service: str | None = None) -> None:
        self.id = load_id
        self.kind = kind
        self.bank = bank
        self.circuit = circuit
        self.service = service
        self.watts = 0.0
        self.fault = "ok"
        self.powered = True

    def step(self, dt: float, now: float) -> None:
        """Advance the physics by `dt` seconds to the instant `now`."""
        raise NotImplementedError

    def set_fault(self, fault: str, now: float) -> None:
        """Begin a fault, or end it with "ok". Raises ValueError for one this load does not know."""
        if fault != "ok":
            raise ValueError(f"{self.id}: no such fault: {fault}")
        self.fault = fault

    def set_powered(self, powered: bool, now: float) -> None:
        """A contactor above opened or closed."""
        self.powered = powered

    def initial_state(self) -> str | None:
        """True state to log at the start, None where the load has none."""
        return None

    def initial_pools(self) -> dict[str, Any] | None:
        """What the truth log tells of its pool list at the start, None where the load has none."""
        return None

    def truth(self) -> dict[str, Any]:
        """What the control port tells of this load."""
        return {"watts": round(self.watts, 2), "fault": self.fault, "powered": self.powered}


class Plant:
    """Circuits with their true limits, the loads on them, and the truth log."""

    def __init__(self, scenario: Scenario, now: Callable[[], float], truth: TruthLog, lead_s: float = 0.0) -> None:
        """The scenario's own time begins `lead_s` after now; until then it stands at its beginning."""
        self.scenario = scenario
        self.now = now
        self.truth = truth
        self.started_at = now()
        self.zero = self.started_at + lead_s
        self.world = World(scenario, self.zero)
        self.loads: dict[str, SimLoad] = {}
        self.services: dict[str, SimService] = {}
        self.limits_w: dict[str, float] = {spec.id: spec.limit_w for spec in scenario.circuits}
        self.unmanaged_w: dict[str, float] = {spec.id: spec.unmanaged_w for spec in scenario.circuits}
        self._parents = {spec.id: spec.parent for spec in scenario.circuits}
        self._open: set[str] = set()
        self._energy_ws: dict[str, float] = dict.fromkeys(self.limits_w, 0.0)
        self._on_circuit: dict[str, list[SimLoad]] = {spec.id: [] for spec in scenario.circuits}
        self._noise = random.Random(f"{scenario.seed}/unmanaged")
        self._phases: list[list[SimLoad]] = [[] for _ in range(MINER_PHASES)]
        self._fast: list[SimLoad] = []
        self._phase_at = [self.started_at] * MINER_PHASES
        self._steps = 0
        self._truth_at = self.started_at

    def random(self, name: str) -> random.Random:
        """A random stream of its own for each name, the same for the same seed."""
        return random.Random(f"{self.scenario.seed}/{name}")

    def add_load(self, load: SimLoad) -> None:
        """Register a load before the start. Raises ValueError on a second of that id."""
        if load.id in self.loads:
            raise ValueError(f"load {load.id} is registered twice")
        self.loads[load.id] = load
        self._on_circuit[load.circuit].append(load)
        if load.kind == "miner":
            self._phases[len(self.loads) % MINER_PHASES].append(load)
        else:
            self._fast.append(load)

    def circuits_beneath(self, circuit_id: str) -> list[str]:
        """The circuit and all beneath it. Raises KeyError for an unknown one."""
        if circuit_id not in self._parents:
            raise KeyError(circuit_id)
        found = [circuit_id]
        for circuit in self._parents:
            if self._parents[circuit] in found:
                found.append(circuit)
        return found

    def loads_beneath(self, circuit_id: str) -> list[SimLoad]:
        """Loads on the circuit or beneath it."""
        return [load for circuit in self.circuits_beneath(circuit_id) for load in self._on_circuit[circuit]]

    def circuit_watts(self, circuit_id: str) -> float:
        """True watts through a circuit: its loads and unmanaged draw, and those of all circuits beneath."""
        return self._totals_w()[circuit_id]

    def circuit_energy_kwh(self, circuit_id: str) -> float:
        """Energy that went through a circuit since the start."""
        return self._energy_ws[circuit_id] / JOULES_PER_KWH

    def service_watts(self, service: str) -> float:
        """True watts of a service's GPUs."""
        return sum(load.watts for load in self.loads.values() if load.service == service)

    def set_limit(self, circuit_id: str, limit_w: float, announced_at: float) -> None:
        """Change the true limit of a circuit now."""
        self.limits_w[circuit_id] = limit_w
        self.truth.limit(circuit_id, limit_w, announced_at)

    def is_closed(self, circuit_id: str) -> bool:
        """Is the contactor of this circuit closed?"""
        return circuit_id not in self._open

    def set_switch(self, circuit_id: str, *, closed: bool) -> None:
        """Open or close a circuit's contactor: what lies beneath an open one has no power."""
        if closed:
            self._open.discard(circuit_id)
        else:
            self._open.add(circuit_id)
        now = self.now()
        for circuit in self.circuits_beneath(circuit_id):
            powered = self.has_power(circuit)
            for load in self._on_circuit[circuit]:
                if load.powered != powered:
                    load.set_powered(powered, now)

    def has_power(self, circuit_id: str) -> bool:
        """Are all contactors from this circuit up to the grid closed?"""
        at: str | None = circuit_id
        while at is not None:
            if at in self._open:
                return False
            at = self._parents[at]
        return True

    def set_fault(self, load_id: str, fault: str) -> None:
        """Begin a fault and log it. Raises KeyError or ValueError for an unknown load or fault."""
        self.loads[load_id].set_fault(fault, self.now())
        self.truth.event("fault", load=load_id, fault=fault)

    def begin(self) -> None:
        """Write the header and the initial states; every load is registered by now."""
        circuits = {s.id: {"parent": s.parent, "limit_w": s.limit_w} for s in self.scenario.circuits}
        loads = {
            load.id: {
                "kind": load.kind,
                "circuit": load.circuit,
                "service": load.service,
                "bank": load.bank,
                "pools": load.initial_pools(),
            }
            for load in self.loads.values()
        }
        self.truth.header(self.scenario.seed, circuits, loads)
        for load in self.loads.values():
            state = load.initial_state()
            if state is not None:
                self.truth.state(load.id, state)

    def step(self, dt: float) -> None:
        """One physics step of `dt` seconds ending now: GPUs each time, a fifth of the miners in turn."""
        now = self.now()
        for load in self._fast:
            load.step(dt, now)
        phase = self._steps % MINER_PHASES
        since_s = now - self._phase_at[phase]
        self._phase_at[phase] = now
        for load in self._phases[phase]:
            load.step(since_s, now)
        self._steps += 1
        if self._steps % TRUTH_EVERY_STEPS == 0:
            self._record(now)

    def _record(self, now: float) -> None:
        since_s = now - self._truth_at
        self._truth_at = now
        for spec in self.scenario.circuits:
            if spec.unmanaged_w:
                pull = spec.unmanaged_w - self.unmanaged_w[spec.id]
                step_w = 0.05 * pull + self._noise.gauss(0.0, 0.004 * spec.unmanaged_w)
                moved_w = self.unmanaged_w[spec.id] + step_w
                self.unmanaged_w[spec.id] = min(1.08 * spec.unmanaged_w, max(0.92 * spec.unmanaged_w, moved_w))
        for circuit, watts in self._totals_w().items():
            self._energy_ws[circuit] += watts * since_s
        self.truth.power(
            [round(load.watts, 1) for load in self.loads.values()],
            {circuit: round(self._unmanaged(circuit), 1) for circuit in self.unmanaged_w},
        )

    def _unmanaged(self, circuit: str) -> float:
        return self.unmanaged_w[circuit] if not self._open or self.has_power(circuit) else 0.0

    def _totals_w(self) -> dict[str, float]:
        totals = {
            circuit: self._unmanaged(circuit) + sum([load.watts for load in loads])
            for circuit, loads in self._on_circuit.items()
        }
        for circuit in reversed(totals):
            parent = self._parents[circuit]
            if parent is not None:
                totals[parent] += totals[circuit]
        return totals


class PlantClockwork:
    """Steps a plant in real time, at the scenario's step."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Write the header and begin to step."""
        self._plant.begin()
        self._task = asyncio.create_task(self._run(), name="plant")

    async def stop(self) -> None:
        """Stop stepping; raises what the physics raised."""
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The running task, to notice its failure."""
        return self._task

    async def _run(self) -> None:
        last = self._plant.now()
        due = last
        while True:
            due = max(due + self._plant.scenario.step_s, last)
            await asyncio.sleep(max(0.0, due - self._plant.now()))
            now = self._plant.now()
            self._plant.step(now - last)
            last = now
