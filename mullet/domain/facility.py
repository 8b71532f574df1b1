"""Everything behind one grid connection: the circuit tree, its loads, services, auxiliaries and rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from mullet.domain.load import Load, LoadKind


class Mode(StrEnum):
    """How far the daemon may go, most restrictive first."""

    OBSERVE = "observe"
    ADVISE = "advise"
    AUTO = "auto"


MODE_ORDER = (Mode.OBSERVE, Mode.ADVISE, Mode.AUTO)


def most_restrictive(*modes: Mode) -> Mode:
    """Return the mode that permits least among `modes`."""
    return min(modes, key=MODE_ORDER.index)


@dataclass(frozen=True, slots=True)
class Circuit:
    """A node of the limit tree."""

    id: str
    parent: str | None
    rating_watts: float
    usable_watts: float
    """The limit that the sum of draws may never exceed: 80 % of the rating unless the policy says why not."""
    meter: str | None = None
    unmanaged_max_watts: float = 0.0
    """The most that load which nobody manages may draw here, where no meter tells."""
    meter_error: float = 0.01
    """Accuracy of the meter as a fraction of its reading."""
    switch: str | None = None
    mode: Mode = Mode.AUTO
    accepts_unleased: bool = False
    """The policy accepts by name that loads here keep their last command for ever."""
    failsafe_watts: float | None = None
    """Limit kept to once the meter has been silent for the failsafe age; None keeps the usable limit."""


@dataclass(frozen=True, slots=True)
class ThermalGate:
    """Between which values of a sensor the miners of one kind of cooling may be woken."""

    sensor: str
    """ambient, coolant or flow: the feed that tells."""
    cooling: str
    """Loads of this kind of cooling: air or liquid."""
    unit: str
    least: float | None
    most: float | None
    max_age_s: float
    """A reading older than this opens nothing."""
    stops: bool = False
    """Loads that run are stopped outside of the range too: without flow they overheat within seconds."""


STEP_PERIOD_S = 3_600.0


@dataclass(frozen=True, slots=True)
class DemandStep:
    """The largest step of a service's demand in a period is at most `watts` with `probability`."""

    probability: float
    watts: float


@dataclass(frozen=True, slots=True)
class Service:
    """An inference service: its value, its objective, how far its power may bend."""

    id: str
    value_per_mtoken: float
    """What a million tokens earn, in the facility's currency."""
    priority: int = 1
    """Lower is served first where power is short."""
    slo_ttft_s: float = 2.0
    """Time to first token that the service promises."""
    flex: float = 0.0
    """Fraction of throughput that may be given up outside emergencies (0 = never capped below need)."""
    reserve_watts: float = 0.0
    """Standing reserve: least power kept free for a step of this service's demand."""
    steps: tuple[DemandStep, ...] = ()
    """Quantiles of the steps to expect, ascending; where given, the standing reserve is chosen by expected cost."""
    step_period_s: float = STEP_PERIOD_S
    """The period that the quantiles speak of."""
    margin: float = 0.15
    """Power kept above what demand needs, as a fraction."""
    up_hold_s: float = 30.0
    """Demand must have fallen for this long before its power is given back."""


@dataclass(frozen=True, slots=True)
class Auxiliary:
    """Pumps, fans, cooling: power that follows load."""

    id: str
    circuit: str
    fixed_watts: float = 0.0
    follows: float = 0.0
    """Watts per watt of managed load beneath the circuit."""
    must_run_before_s: float = 0.0
    run_on_s: float = 0.0


class SafeAction(StrEnum):
    """What is done when an input is too old to act on."""

    NO_INCREASE = "no_increase"
    ASSUME_MAX = "assume_max"
    FAILSAFE_LIMIT = "failsafe_limit"
    LADDER = "ladder"
    HOLD_LAST = "hold_last"
    RESERVE_ONLY = "reserve_only"
    WORST_DRAW = "worst_draw"


@dataclass(frozen=True, slots=True)
class SafetyRow:
    """One line of the safety table: after `max_age_s` without a good reading of `source`, do `action`."""

    source: str
    max_age_s: float
    action: SafeAction


@dataclass(frozen=True, slots=True)
class Account:
    """Who owns the loads of a bank (own, or a hosting customer)."""

    id: str
    uptime_floor: float = 0.0


@dataclass(frozen=True, slots=True)
class Economics:
    """What energy costs and what hashing earns, where no feed says otherwise."""

    hashprice_per_ph_day: float
    pool_fee: float = 0.0
    energy_adder_per_mwh: float = 0.0
    """Everything a MWh costs on top of the market's price: wires, losses, taxes."""
    fallback_price_per_mwh: float = 100.0
    """Last rung of the price ladder; never 0."""
    price_min_per_mwh: float = -1_000.0
    price_max_per_mwh: float = 10_000.0
    """A price outside [min, max] is quarantined, never clipped."""
    deadband_per_mwh: float = 5.0


@dataclass(frozen=True, slots=True)
class Pacing:
    """How fast and how often loads may be moved for money; emergencies are exempt."""

    tick_s: float = 1.0
    economic_ramp_per_s: float = 0.10 / 60.0
    """Fraction of a circuit's usable limit per second, both ways."""
    block_fraction: float = 0.05
    """Most of a feeder's usable limit that is woken in one block."""
    block_period_s: float = 10.0
    min_on_s: float = 1_800.0
    min_off_s: float = 600.0
    command_gap_s: float = 60.0
    """Least time between two economic commands to one load."""
    max_cycles_per_day: int = 6
    notice_s: float = 15.0
    """Time from the announcement of a limit to the moment it must be kept, if the announcement says none."""
    lease_s: float = 60.0
    renew_s: float = 10.0
    backoff_first_s: float = 1.0
    backoff_most_s: float = 30.0
    verify_margin: float = 1.5
    """A command has its ramp time times this before it counts as failed."""
    solver_limit_s: float = 1.0


@dataclass(frozen=True)
class Facility:
    """Everything behind one grid connection."""

    id: str
    currency: str
    circuits: tuple[Circuit, ...]
    loads: tuple[Load, ...]
    services: tuple[Service, ...]
    auxiliaries: tuple[Auxiliary, ...]
    accounts: tuple[Account, ...]
    economics: Economics
    pacing: Pacing
    safety: tuple[SafetyRow, ...]
    mode: Mode
    policy_hash: str
    grid_steps: tuple[tuple[float, int], ...] = ((300.0, 12), (900.0, 12), (3_600.0, 20))
    """Planning grid as (length in seconds, count) pairs, near to far."""
    labels: Mapping[str, str] = field(default_factory=dict)
    gates: tuple[ThermalGate, ...] = ()

    @cached_property
    def circuit_by_id(self) -> dict[str, Circuit]:
        """Circuits by id."""
        return {circuit.id: circuit for circuit in self.circuits}

    @cached_property
    def load_by_id(self) -> dict[str, Load]:
        """Loads by id."""
        return {load.id: load for load in self.loads}

    @cached_property
    def service_by_id(self) -> dict[str, Service]:
        """Services by id."""
        return {service.id: service for service in self.services}

    @cached_property
    def root(self) -> Circuit:
        """The grid connection."""
        return next(circuit for circuit in self.circuits if circuit.parent is None)

    @cached_property
    def _paths(self) -> dict[str, tuple[str, ...]]:
        paths: dict[str, tuple[str, ...]] = {}
        for circuit in self.circuits:
            path, node = [], circuit
            while True:
                path.append(node.id)
                if node.parent is None:
                    break
                node = self.circuit_by_id[node.parent]
            paths[circuit.id] = tuple(path)
        return paths

    def path(self, circuit_id: str) -> tuple[str, ...]:
        """Return the ids from `circuit_id` up to the grid connection, both included."""
        return self._paths[circuit_id]

    @cached_property
    def loads_beneath(self) -> dict[str, tuple[Load, ...]]:
        """All loads at or beneath each circuit."""
        beneath: dict[str, list[Load]] = {circuit.id: [] for circuit in self.circuits}
        for load in self.loads:
            for circuit_id in self.path(load.circuit):
                beneath[circuit_id].append(load)
        return {circuit_id: tuple(loads) for circuit_id, loads in beneath.items()}

    @cached_property
    def auxiliaries_beneath(self) -> dict[str, tuple[Auxiliary, ...]]:
        """All auxiliaries at or beneath each circuit."""
        beneath: dict[str, list[Auxiliary]] = {circuit.id: [] for circuit in self.circuits}
        for auxiliary in self.auxiliaries:
            for circuit_id in self.path(auxiliary.circuit):
                beneath[circuit_id].append(auxiliary)
        return {circuit_id: tuple(items) for circuit_id, items in beneath.items()}

    @cached_property
    def loads_of_service(self) -> dict[str, tuple[Load, ...]]:
        """The GPUs of each service."""
        return {
            service.id: tuple(load for load in self.loads if load.service == service.id) for service in self.services
        }

    @cached_property
    def banks(self) -> dict[str, tuple[Load, ...]]:
        """Loads by bank, in the policy's order."""
        banks: dict[str, list[Load]] = {}
        for load in self.loads:
            banks.setdefault(load.bank, []).append(load)
        return {bank: tuple(loads) for bank, loads in banks.items()}

    def of_kind(self, kind: LoadKind) -> tuple[Load, ...]:
        """Return the loads of one kind."""
        return tuple(load for load in self.loads if load.kind is kind)

    def safety_age_s(self, source: str, action: SafeAction, default_s: float) -> float:
        """Return the age after which `action` is due for `source`."""
        for row in self.safety:
            if row.source == source and row.action is action:
                return row.max_age_s
        return default_s

    def mode_of(self, circuit_id: str) -> Mode:
        """Return the policy's mode along the circuit path."""
        return most_restrictive(self.mode, *(self.circuit_by_id[node].mode for node in self.path(circuit_id)))
