"""A plant in memory for scenarios in virtual time: devices that lag, lie and die, meters that read their sum."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from mullet.control.decide import Decision, decide
from mullet.control.observe import Observatory
from mullet.control.verify import HIDDEN_FRACTION
from mullet.domain.command import Command, CommandLedger, Evidence, OutcomeKind, Receipt, Verb
from mullet.domain.facility import Facility, Mode
from mullet.domain.feeds import Curtailment, PriceCurve, PriceInterval
from mullet.domain.load import Load, LoadKind
from mullet.domain.plan import Plan
from mullet.domain.snapshot import Hold
from mullet.domain.telemetry import LoadState, MeterReading, Quality, Telemetry

START = 1_800_000_000.0
SUBSTEPS = 10


@dataclass
class Device:
    """The truth of one load."""

    load: Load
    watts: float
    target: float
    active: bool
    limit: float
    fault: str = "ok"
    due: list[tuple[float, Command]] = field(default_factory=list)
    frozen: Telemetry | None = None
    said_watts: float | None = None
    """What one that lies claims to have gone to."""
    set_watts: float | None = None
    """The point that was last set while it ran; kept over a sleep, forgotten at a reboot."""
    back_at: float | None = None
    """When a reboot is over, after which the device hashes whatever it was told."""
    make: str | None = None

    @property
    def running_watts(self) -> float:
        """What it draws while it mines."""
        return self.load.highest.watts if self.set_watts is None else self.set_watts

    def blip(self, now: float, down_s: float) -> None:
        """Take its supply away for a moment: it forgets every order, and mines again once it is back."""
        self.due.clear()
        self.set_watts = None
        self.watts, self.back_at = 0.0, now + down_s

    def step(self, now: float, dt: float, noise: Callable[[], float]) -> None:
        """Carry out what is due and move the draw toward its target."""
        if self.back_at is not None:
            if now < self.back_at:
                return
            self.back_at, self.active, self.target = None, True, self.load.highest.watts
        for at, command in [item for item in self.due if item[0] <= now]:
            self.due.remove((at, command))
            self._obey(command)
        if self.fault == "dead":
            self.watts = 0.0
            return
        if self.load.kind is LoadKind.GPU:
            self.target = self.limit
        ramp_s = max(
            0.2, self.load.capability.ramp_down_s if self.target < self.watts else self.load.capability.ramp_up_s
        )
        step = (self.load.highest.watts - self.load.lowest.watts) * dt / (0.8 * ramp_s)
        if abs(self.target - self.watts) <= step:
            self.watts = self.target * (1.0 + 0.005 * noise()) if self.load.kind is LoadKind.MINER else self.target
        else:
            self.watts += step if self.target > self.watts else -step

    def _obey(self, command: Command) -> None:
        if self.load.kind is LoadKind.GPU:
            self.limit = command.watts
            return
        if command.verb is Verb.POWER:
            # A miner keeps what it was set to, and an order for less than a running one's least wakes nothing.
            self.set_watts = command.watts
            self.target = self.set_watts if self.active else self.load.lowest.watts
            return
        self.active = command.verb is not Verb.SLEEP
        self.target = self.running_watts if self.active else self.load.lowest.watts

    def state(self) -> LoadState:
        """Return what an honest device would say of itself."""
        low = self.load.lowest.watts
        if self.active:
            return LoadState.ACTIVE if self.watts >= 0.9 * self.running_watts else LoadState.STARTING
        return LoadState.ASLEEP if self.watts <= low * 1.02 + 2.0 else LoadState.STOPPING

    def reading(self, now: float) -> Telemetry:
        """Return what the device tells."""
        if self.fault in ("silent", "dead") or self.back_at is not None:
            return Telemetry(self.load.id, now, fault="no answer")
        if self.load.kind is LoadKind.GPU:
            return Telemetry(self.load.id, now, watts=self.watts, limit_watts=self.limit, state=LoadState.ACTIVE)
        state = self.state()
        rate = self.load.point_for_watts(self.watts * 1.02).th_per_s if state is LoadState.ACTIVE else 0.0
        watts = self.watts if self.load.capability.measures_watts else None
        if self.fault == "says_stopped" and not self.active:
            state, rate = LoadState.ASLEEP, 0.0
        if self.fault == "says_lowered" and self.active and self.said_watts is not None:
            rate = self.load.point_for_watts(self.said_watts).th_per_s
        return Telemetry(self.load.id, now, watts=watts, state=state, th_per_s=rate, make=self.make)


@dataclass
class Trace:
    """What happened in a run, tick by tick."""

    decisions: list[Decision] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    sent: list[Command] = field(default_factory=list)
    lies: list[str] = field(default_factory=list)
    over_s: dict[str, float] = field(default_factory=dict)


class PlantModel:
    """All devices and meters of a facility, stepped in virtual time."""

    def __init__(self, facility: Facility, seed: int = 1, asleep: frozenset[str] = frozenset()) -> None:
        self.facility = facility
        self.random = random.Random(seed)
        self.now = START
        self.unmanaged = dict.fromkeys(facility.circuit_by_id, 0.0)
        self.meter_fault: dict[str, str] = {}
        self.devices: dict[str, Device] = {}
        self._frozen: dict[str, MeterReading] = {}
        self._beat = 0
        for load in facility.loads:
            awake = load.kind is LoadKind.GPU or load.id not in asleep
            watts = load.lowest.watts if load.kind is LoadKind.GPU or not awake else load.highest.watts
            self.devices[load.id] = Device(load, watts, watts, awake, load.lowest.watts)

    def truth(self, circuit_id: str) -> float:
        """Return the true draw at a circuit."""
        managed = sum(self.devices[load.id].watts for load in self.facility.loads_beneath[circuit_id])
        beneath = [c.id for c in self.facility.circuits if circuit_id in self.facility.path(c.id)]
        return managed + sum(self.unmanaged[node] for node in beneath)

    def step(self, dt: float) -> None:
        """Let `dt` seconds pass."""
        self.now += dt
        for device in self.devices.values():
            device.step(self.now, dt, lambda: self.random.uniform(-1.0, 1.0))

    def deliver(self, command: Command) -> Receipt | None:
        """Hand a command to its device and return what it answers, None while it says nothing."""
        device = self.devices[command.load_id]
        if device.fault in ("silent", "dead") or device.back_at is not None:
            return Receipt(command.id, command.load_id, self.now, None, "timeout", unreachable=True)
        if device.fault == "refuse":
            return Receipt(command.id, command.load_id, self.now, False, "access denied")
        if device.fault == "says_lowered" and command.verb is Verb.POWER:
            device.said_watts = command.watts
        elif device.fault not in ("ignore", "says_stopped"):
            late = 4.0 if device.fault == "late" else self.random.uniform(0.05, 0.4)
            device.due.append((self.now + late, command))
        if device.fault == "says_stopped" and command.verb is Verb.SLEEP:
            device.active = False
        return Receipt(command.id, command.load_id, self.now, True, "ok")

    def meter(self, meter_id: str, circuit_id: str) -> MeterReading:
        """Return what a circuit's meter shows."""
        fault = self.meter_fault.get(meter_id, "ok")
        if fault == "frozen" and meter_id in self._frozen:
            known = self._frozen[meter_id]
            return MeterReading(meter_id, self.now, known.watts, Quality.GOOD, known.heartbeat)
        watts = self.truth(circuit_id) * (1.0 + self.random.uniform(-0.002, 0.002))
        reading = MeterReading(meter_id, self.now, float("nan") if fault == "nan" else watts, Quality.GOOD, self._beat)
        self._frozen[meter_id] = reading
        return reading


class Run:
    """The control loop without a process: observe, decide, deliver, once a second."""

    def __init__(self, facility: Facility, model: PlantModel, price: float = 40.0, poll_every: int = 1) -> None:
        self.facility = facility
        self.model = model
        self.price = price
        self.poll_every = poll_every
        self.observatory = Observatory(facility)
        self.ledger = CommandLedger()
        self.holds: tuple[Hold, ...] = ()
        self.limits: tuple[Curtailment, ...] = ()
        self.needs: dict[str, float | None] = {service.id: None for service in facility.services}
        self.plan: Plan | None = None
        self.mode = Mode.AUTO
        self.records_ok = True
        self.trace = Trace()
        self.allowed_watts: Callable[[str, float], float] = lambda c, _: facility.circuit_by_id[c].usable_watts
        self._ticks = 0

    def tick(self) -> Decision:
        """Let a second pass, then observe, decide and deliver."""
        for _ in range(SUBSTEPS):
            self.model.step(1.0 / SUBSTEPS)
            self._grade()
        now = self.model.now
        for number, device in enumerate(self.model.devices.values()):
            pending = self.ledger.entry(device.load.id).pending
            if pending or (self._ticks + number) % self.poll_every == 0 or self._ticks == 0:
                self.observatory.saw(device.reading(now))
        self.model._beat += 1
        for circuit in self.facility.circuits:
            if circuit.meter is not None and self.model.meter_fault.get(circuit.meter) != "away":
                self.observatory.saw_meter(self.model.meter(circuit.meter, circuit.id))
        curve = PriceCurve((PriceInterval(now - 3_600.0, now + 3_600.0, self.price),))
        self.observatory.saw_prices(curve, now)
        self.observatory.saw_hashprice(self.facility.economics.hashprice_per_ph_day, now)
        for service, need in self.needs.items():
            self.observatory.set_need(service, need)
        snapshot = self.observatory.snapshot(
            now, self.ledger, self.holds, self.mode, self.limits, self.records_ok, self._ticks >= 2
        )
        decision = decide(self.facility, snapshot, self.plan)
        self._check_claims(decision)
        self.ledger = decision.ledger
        receipts = [self.model.deliver(command) for command in decision.dispatch.commands]
        self.ledger = self.ledger.after_receipts(tuple(receipt for receipt in receipts if receipt is not None))
        self.trace.decisions.append(decision)
        self.trace.sent.extend(decision.dispatch.commands)
        self._ticks += 1
        return decision

    def run(self, ticks: int) -> Trace:
        """Run for `ticks` seconds."""
        for _ in range(ticks):
            self.tick()
        return self.trace

    def _grade(self) -> None:
        for circuit in self.facility.circuits:
            truth, allowed = self.model.truth(circuit.id), self.allowed_watts(circuit.id, self.model.now)
            if truth > allowed + 1e-6:
                self.trace.over_s[circuit.id] = self.trace.over_s.get(circuit.id, 0.0) + 1.0 / SUBSTEPS
                self.trace.violations.append(
                    f"{self.model.now - START:.1f} s {circuit.id}: {truth:.0f} > {allowed:.0f} W"
                )

    def _check_claims(self, decision: Decision) -> None:
        for outcome in decision.outcomes:
            if outcome.kind is OutcomeKind.APPLIED and outcome.most_watts is not None:
                device = self.model.devices[outcome.load_id]
                truth, slack = device.watts, 5.0
                if outcome.evidence is Evidence.BOTH:
                    # The meter's resolution bounds what a load that tells no watts may hide.
                    slack = HIDDEN_FRACTION * device.load.highest.watts
                if truth > outcome.most_watts * 1.02 + slack:
                    self.trace.lies.append(f"{outcome.load_id} claimed {outcome.most_watts:.0f} W, draws {truth:.0f} W")
