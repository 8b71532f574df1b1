"""What a policy file says besides the plant: money, pacing, planning, safety, feeds, and where records and links go."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from mullet.domain.facility import Mode, SafeAction
from mullet.policy.plant import (
    NO_ENGINE,
    AccountSection,
    AuxiliarySection,
    BankSection,
    CircuitSection,
    MeterSection,
    Section,
    ServiceSection,
    SwitchSection,
    unenforced,
)
from mullet.policy.quantities import (
    EnergyPrice,
    Flow,
    Fraction,
    Hashprice,
    Id,
    PositiveEnergyPrice,
    PositiveSeconds,
    Ramp,
    Seconds,
    Temperature,
    Watts,
    default,
)


class FacilitySection(Section):
    """Name, money and mode of the whole."""

    id: Id
    currency: str = Field(pattern=r"^[A-Z]{3}$", description="ISO 4217 code; every price in the file is in it")
    mode: Mode = Mode.OBSERVE
    labels: dict[str, str] = Field(default_factory=dict)


class PriceBounds(Section):
    """Prices outside are quarantined, never clipped."""

    low: EnergyPrice = default("-1000 {currency}/MWh")
    high: EnergyPrice = default("10000 {currency}/MWh")


class EconomicsSection(Section):
    """What energy costs and what hashing earns, where no feed says otherwise."""

    stand_ins: ClassVar[dict[str, Any]] = {"hashprice": "1 {currency}/PH/d", "fallback_price": "1 {currency}/MWh"}

    hashprice: Hashprice
    pool_fee: Fraction = default("0 %")
    energy_adder: EnergyPrice = default("0 {currency}/MWh")
    fallback_price: PositiveEnergyPrice = Field(description="last rung of the price ladder; never 0")
    price_bounds: PriceBounds = Field(default_factory=dict, validate_default=True)
    deadband: EnergyPrice = default("5 {currency}/MWh")


class PacingSection(Section):
    """How fast and how often loads are moved for money; emergencies are exempt."""

    tick: PositiveSeconds = default("1 s")
    ramp: Ramp = default("10 %/min")
    block: Fraction = default("5 %")
    block_period: PositiveSeconds = default("10 s")
    min_on: Seconds = default("30 min")
    min_off: Seconds = default("10 min")
    command_gap: Seconds = default("60 s")
    max_cycles_per_day: int = Field(default=6, ge=1, strict=True)
    notice: Seconds = unenforced("time from the announcement of a limit to when it must be kept", "15 s")
    backoff_first: PositiveSeconds = default("1 s")
    backoff_most: PositiveSeconds = default("30 s")
    verify_margin: float = Field(default=1.5, ge=1.0, description="times the ramp time before a command has failed")


class LeasesSection(Section):
    """How long a setpoint lives without renewal."""

    duration: PositiveSeconds = default("60 s")
    renew: PositiveSeconds = default("10 s")


class PlanningStep(Section):
    """A stretch of the planning grid."""

    every: PositiveSeconds
    count: int = Field(ge=1, le=1000, strict=True)


def _default_steps() -> Any:
    return [{"every": "5 min", "count": 12}, {"every": "15 min", "count": 12}, {"every": "1 h", "count": 20}]


class PlanningSection(Section):
    """Grid of the plan, near to far, and the solver's time."""

    steps: list[PlanningStep] = Field(default_factory=_default_steps, validate_default=True, min_length=1)
    solver_limit: PositiveSeconds = default("1 s")


class SafetySection(Section):
    """After `max_age` without a good reading of `source`, do `action`."""

    source: Literal["meter", "price", "limits", "demand", "hashprice", "telemetry"]
    max_age: PositiveSeconds
    action: SafeAction


class FeedSection(Section):
    """Where a number from outside comes from."""

    driver: str
    options: dict[str, Any] = Field(default_factory=dict)
    max_age: PositiveSeconds = Field(description="a value older than this is not acted on")
    poll: PositiveSeconds
    currency: str | None = Field(default=None, pattern=r"^[A-Z]{3}$", description="where it is not the facility's")


class FxSection(Section):
    """What a foreign currency is worth in the facility's, and until when that may be believed."""

    currency: str = Field(pattern=r"^[A-Z]{3}$")
    rate: float = Field(gt=0.0, description="units of the facility's currency for one of this")
    as_of: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="date of the rate")
    max_age: PositiveSeconds


class FeedsSection(Section):
    """Feeds from outside the plant. Demand is read from the services."""

    price: FeedSection | None = None
    limits: FeedSection | None = None
    hashprice: FeedSection | None = None
    ambient: FeedSection | None = Field(default=None, description="temperature of the air that miners draw in")
    coolant: FeedSection | None = Field(default=None, description="temperature of the coolant")
    flow: FeedSection | None = Field(default=None, description="flow of the coolant")
    fx: list[FxSection] | None = unenforced("exchange rates for feeds in another currency")


class MqttSection(Section):
    """The broker between controller and agents."""

    url: str = Field(pattern=r"^mqtts?://[^/\s@]+$", description="mqtts://host:port, or mqtt:// on loopback")
    username: str | None = None
    password: str | None = Field(default=None, description="name of a credential, never the password itself")
    ca: str | None = Field(default=None, description="name of a credential: certificates that are trusted")
    cert: str | None = Field(default=None, description="name of a credential: our certificate")
    key: str | None = Field(default=None, description="name of a credential: our key")
    signing_key: str | None = Field(default=None, description="name of a credential: key that signs commands")
    allow_plaintext: bool = Field(default=False, strict=True, description="accept mqtt:// beyond loopback")


class ApiSection(Section):
    """The daemon's own HTTP interface."""

    listen: str = Field(default="127.0.0.1:8780", description="host:port")
    token: str = Field(default="api-token", description="name of a credential, never the token itself")
    allow_remote: bool = Field(default=False, strict=True, description="accept connections from beyond this machine")


class InfluxSection(Section):
    """A historian that speaks the InfluxDB v2 line protocol."""

    url: str = Field(pattern=r"^https?://[^\s@]+$")
    token: str = Field(description="name of a credential, never the token itself")
    org: str
    bucket: str


class RecordsSection(Section):
    """Where records are kept; relative paths are below the daemon's state directory."""

    journal: str = Field(default="journal.db", min_length=1)
    telemetry: str = Field(default="telemetry.db", min_length=1)
    influx: InfluxSection | None = None


class CoincidentPeakSection(Section):
    """A transmission charge on the system's peaks."""

    peaks: int = Field(ge=1)
    months: list[int] = Field(min_length=1)
    interval: PositiveSeconds
    charge: str = Field(pattern=r"^\d+(\.\d+)? [A-Z]{3}/kW/(yr|month)$", description="such as '67 USD/kW/yr'")
    ratchet: Fraction | None = None


class DemandChargeSection(Section):
    """A charge on the facility's own peak."""

    window: PositiveSeconds
    sliding: bool = False
    charge: str = Field(pattern=r"^\d+(\.\d+)? [A-Z]{3}/kW/(yr|month)$", description="such as '9.5 USD/kW/month'")
    ratchet: Fraction | None = None


class OpenAdrSection(Section):
    """A virtual top node whose events are to be followed."""

    url: str = Field(pattern=r"^https?://[^\s@]+$")
    program: str
    token: str = Field(description="name of a credential")
    poll: PositiveSeconds = default("30 s")


class ReserveSection(Section):
    """Power sold as a reserve product."""

    id: Id
    circuit: Id
    power: Watts
    product: str


class ThermalSection(Section):
    """Gates on waking: ambient for air-cooled miners, coolant and flow for liquid-cooled ones."""

    coolant_min: Temperature | None = None
    coolant_max: Temperature | None = None
    ambient_min: Temperature | None = None
    ambient_max: Temperature | None = None
    flow_min: Flow | None = Field(default=None, description="liquid-cooled miners are stopped below it")
    heat_demand: str | None = unenforced("name of the feed that tells the heat taken")


class PolicyModel(Section):
    """A facility's policy file."""

    facility: FacilitySection
    circuits: list[CircuitSection] = Field(min_length=1)
    banks: list[BankSection] = Field(min_length=1)
    economics: EconomicsSection
    meters: list[MeterSection] = Field(default_factory=list)
    switches: list[SwitchSection] = Field(default_factory=list)
    services: list[ServiceSection] = Field(default_factory=list)
    auxiliaries: list[AuxiliarySection] = Field(default_factory=list)
    accounts: list[AccountSection] = Field(default_factory=list)
    feeds: FeedsSection = Field(default_factory=FeedsSection)
    pacing: PacingSection = Field(default_factory=PacingSection)
    leases: LeasesSection = Field(default_factory=LeasesSection)
    planning: PlanningSection = Field(default_factory=PlanningSection)
    safety: list[SafetySection] = Field(default_factory=list)
    mqtt: MqttSection | None = None
    api: ApiSection = Field(default_factory=ApiSection)
    records: RecordsSection = Field(default_factory=RecordsSection)
    coincident_peak: CoincidentPeakSection | None = unenforced("charges on the system's peaks")
    demand_charge: DemandChargeSection | None = unenforced("charges on the facility's own peak")
    openadr: OpenAdrSection | None = unenforced("demand response over OpenADR 3")
    reserves: list[ReserveSection] | None = unenforced("reserve products")
    thermal: ThermalSection | None = None


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the policy file; `x-enforced` marks what nothing enforces yet."""
    schema = PolicyModel.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "mullet policy"
    return schema


__all__ = ["NO_ENGINE", "PolicyModel", "json_schema"]
