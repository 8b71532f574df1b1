"""What the composition root needs besides the Facility: who drives, measures, feeds, records and listens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mullet.domain.load import Capability
from mullet.ports import BankNotes

OptionsSchema = Mapping[str, tuple[Any, Any, str]]
"""Per option: its Python type or a union of types, its default (`...` where it must be given), a line of help."""


@dataclass(frozen=True, slots=True)
class KnownNames:
    """The drivers, meters, switches and feeds that this installation has, and what they can do."""

    drivers: Mapping[str, OptionsSchema]
    meters: Mapping[str, OptionsSchema]
    switches: Mapping[str, OptionsSchema]
    feeds: Mapping[str, OptionsSchema]
    capability_of: Callable[[str, Mapping[str, Any]], Capability]
    """Returns what a driver can do with the loads of a bank, from the bank's options; ValueError where it cannot."""
    notes_of: Callable[[str, Mapping[str, Any]], BankNotes] = lambda driver, options: BankNotes()
    """Returns what a driver says of a bank's options."""


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A meter or a switch and the circuit it stands on."""

    driver: str
    options: Mapping[str, Any]
    circuit: str
    poll_s: float = 0.0
    """Seconds between two readings of a meter."""


@dataclass(frozen=True, slots=True)
class FeedSpec:
    """A feed. `kind` is "price", "limits", "hashprice", "demand:<service>" or "sensor:<name>"."""

    kind: str
    driver: str
    options: Mapping[str, Any]
    max_age_s: float
    poll_s: float
    currency: str


@dataclass(frozen=True, slots=True)
class FxRate:
    """What one unit of `currency` is worth in the facility's currency."""

    currency: str
    rate: float
    as_of: str
    max_age_s: float


@dataclass(frozen=True, slots=True)
class MqttSpec:
    """The broker. Fields other than url, username and tls are names of credentials."""

    host: str
    port: int
    tls: bool
    username: str | None = None
    password: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    signing_key: str | None = None


@dataclass(frozen=True, slots=True)
class ApiSpec:
    """Where the daemon listens; `token` is the name of a credential."""

    host: str
    port: int
    token: str


@dataclass(frozen=True, slots=True)
class InfluxSpec:
    """A line-protocol historian; `token` is the name of a credential."""

    url: str
    token: str
    org: str
    bucket: str


@dataclass(frozen=True, slots=True)
class RecordsSpec:
    """Paths of the record files, relative to the state directory unless absolute."""

    journal: str
    telemetry: str
    influx: InfluxSpec | None = None


@dataclass(frozen=True, slots=True)
class Wiring:
    """Everything that `app` builds adapters from."""

    drivers: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """Per driver name: options by bank id, defaults filled in."""
    poll_s: Mapping[str, float]
    """Seconds between two readings of a load, by bank id."""
    meters: Mapping[str, DeviceSpec]
    switches: Mapping[str, DeviceSpec]
    feeds: Mapping[str, FeedSpec]
    """By feed id: price, limits, hashprice, ambient, coolant, flow, and demand-<service>."""
    agents: Mapping[str, tuple[str, ...]]
    """Loads by the agent that holds their leases."""
    mqtt: MqttSpec | None
    api: ApiSpec
    records: RecordsSpec
    fx: Mapping[str, FxRate] = field(default_factory=dict)
    nameplate_banks: frozenset[str] = frozenset()
    """Banks that are planned by their nameplates whatever was measured."""

    def options_of(self, kind: str, driver: str) -> dict[str, Mapping[str, Any]]:
        """Return what a `DriverContext` takes: options by id, for "meters", "switches" or "feeds"."""
        specs: Mapping[str, DeviceSpec] | Mapping[str, FeedSpec] = getattr(self, kind)
        return {name: spec.options for name, spec in specs.items() if spec.driver == driver}
