"""Everything known at one instant, frozen; the only thing that deciding code may look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mullet.domain.command import CommandLedger
from mullet.domain.facility import Facility, Mode, most_restrictive
from mullet.domain.feeds import Curtailment, PriceCurve, Reading, ServiceDemand
from mullet.domain.telemetry import MeterReading, Residual, Telemetry


class HoldKind(StrEnum):
    """On: the load stays as it is and is not curtailed for money; off: nothing may energise it."""

    ON = "on"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Hold:
    """An operator's lock on a load or circuit; only its owner's release ends it."""

    id: str
    target: str
    """Load id or circuit id."""
    kind: HoldKind
    owner: str
    reason: str
    placed_at: float


@dataclass(frozen=True, slots=True)
class ShedOrder:
    """An operator's or signal's order to keep a circuit's load under a ceiling until released."""

    circuit: str
    shed_watts: float
    placed_at: float


@dataclass(frozen=True, slots=True)
class OperatorState:
    """What operators decided; it survives restarts."""

    mode: Mode = Mode.AUTO
    holds: tuple[Hold, ...] = ()
    orders: tuple[Curtailment, ...] = ()
    """Shed orders, as ceilings that stand until released."""


@dataclass(frozen=True)
class Snapshot:
    """Everything at one instant. Mappings are never changed after construction."""

    facility_id: str
    at: float
    telemetry: Mapping[str, Telemetry] = field(default_factory=dict)
    meters: Mapping[str, MeterReading] = field(default_factory=dict)
    residuals: Mapping[str, Residual] = field(default_factory=dict)
    """By circuit id."""
    prices: Reading[PriceCurve] | None = None
    hashprice: Reading[float] | None = None
    demand: Mapping[str, ServiceDemand] = field(default_factory=dict)
    """The last good reading per service, with its own `at`."""
    sensors: Mapping[str, Reading[float]] = field(default_factory=dict)
    """Temperatures in degC and flows in L/min, by the sensor's name."""
    needs: Mapping[str, float] = field(default_factory=dict)
    """GPU watts that each service needs now, after hold-up (see `programs.demand`)."""
    curtailments: tuple[Curtailment, ...] = ()
    holds: tuple[Hold, ...] = ()
    operator_mode: Mode = Mode.AUTO
    """The persisted mode set by an operator (or the command line), most restrictive of the two."""
    ledger: CommandLedger = field(default_factory=CommandLedger)
    records_ok: bool = True
    """Whether the journal takes writes; if not, nothing may increase."""
    first_reading_done: bool = True
    """Whether every load was asked once since start; before that nothing is commanded."""
    barred: frozenset[str] = frozenset()
    """Loads to which their driver would write nothing, for want of a password say: nobody can move them."""

    def held(self, facility: Facility, load_id: str) -> Hold | None:
        """Return the hold that lies on the load or on a circuit above it; off outranks on."""
        load = facility.load_by_id[load_id]
        targets = {load_id, *facility.path(load.circuit)}
        found = [hold for hold in self.holds if hold.target in targets]
        if not found:
            return None
        return min(found, key=lambda hold: (hold.kind is not HoldKind.OFF, hold.placed_at, hold.id))

    def mode_of(self, facility: Facility, circuit_id: str) -> Mode:
        """Return the effective mode along the circuit path."""
        return most_restrictive(self.operator_mode, facility.mode_of(circuit_id))
