"""What a policy file says of the plant: circuits, meters, switches, banks, services, auxiliaries, accounts."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mullet.domain.facility import Mode
from mullet.policy.quantities import (
    Addresses,
    Fraction,
    Hashrate,
    Id,
    PositiveSeconds,
    PositiveWatts,
    PowerLimits,
    Seconds,
    TokenPrice,
    TokenRate,
    Watts,
    default,
    refused,
)

NO_ENGINE = "no engine in this version"


def unenforced(help_text: str, default_text: str | None = None) -> Any:
    """Return an optional field that the schema knows and nothing enforces yet; mode auto refuses it by name."""
    marked: Any = {"x-enforced": NO_ENGINE}
    if default_text is None:
        return Field(default=None, description=help_text, json_schema_extra=marked)
    return Field(default=default_text, validate_default=True, description=help_text, json_schema_extra=marked)


class Section(BaseModel):
    """Base of everything in a policy file: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    stand_ins: ClassVar[dict[str, Any]] = {}
    """Harmless values for required fields, for checking the others when these have the wrong shape."""


class CircuitSection(Section):
    """A node of the limit tree."""

    stand_ins: ClassVar[dict[str, Any]] = {"id": "unknown", "rating": "1000 GW"}

    id: Id
    parent: Id | None = Field(default=None, description="the circuit that feeds this one; the grid connection has none")
    rating: PositiveWatts = Field(description="continuous rating of the weakest part")
    limit: PositiveWatts | None = Field(default=None, description="usable limit; 80 % of the rating where not given")
    limit_reason: str | None = Field(default=None, description="why more than 80 % of the rating may be used")
    meter: Id | None = None
    meter_error: Fraction = default("1 %")
    switch: Id | None = None
    unmanaged_max: Watts | None = Field(
        default=None, description="the most that unmanaged load connected right here may draw"
    )
    failsafe_limit: Watts | None = Field(default=None, description="limit kept to once the meter is silent for long")
    mode: Mode = Mode.AUTO
    accept_unleased: bool = Field(
        default=False, strict=True, description="accept by name that loads here keep their last command for ever"
    )


class MeterSection(Section):
    """A power meter; the circuit that names it is where it measures."""

    stand_ins: ClassVar[dict[str, Any]] = {"id": "unknown", "driver": ""}

    id: Id
    driver: str
    options: dict[str, Any] = Field(default_factory=dict)
    poll: PositiveSeconds = default("1 s")


class SwitchSection(Section):
    """A contactor or an outlet; the circuit that names it is what it opens."""

    stand_ins: ClassVar[dict[str, Any]] = {"id": "unknown", "driver": ""}

    id: Id
    driver: str
    options: dict[str, Any] = Field(default_factory=dict)


class MinerPoint(Section):
    """Where a miner may stand."""

    name: Id
    power: Watts
    hashrate: Hashrate = default("0 TH/s")


class CurvePoint(Section):
    """What a GPU produces at a power limit."""

    power: PositiveWatts
    tokens: TokenRate


def _learnable(value: Any) -> Any:
    if value == "learn":
        raise refused("'learn' has no engine in this version", "list the operating points")
    return value


class BankSection(Section):
    """Loads of one kind on one circuit."""

    stand_ins: ClassVar[dict[str, Any]] = {"id": "unknown", "driver": "", "addresses": "0.0.0.0", "circuit": "unknown"}
    kind_fields: ClassVar[dict[str, tuple[str, ...]]] = {
        "miner": ("points",),
        "gpu": ("service", "limits", "curve"),
    }

    id: Id
    kind: Literal["miner", "gpu"]
    driver: str
    options: dict[str, Any] = Field(default_factory=dict)
    addresses: Addresses
    circuit: Id
    account: Id = "own"
    points: Annotated[list[MinerPoint] | None, BeforeValidator(_learnable)] = Field(
        default=None, description="miners: operating points, lowest power first"
    )
    limits: PowerLimits | None = Field(default=None, description="GPUs: range of the power limit")
    curve: list[CurvePoint] | None = Field(default=None, description="GPUs: tokens/s over power, continuous between")
    worst: PositiveWatts | None = Field(default=None, description="the most one load can draw whatever it was told")
    tolerance: Fraction = default("5 %")
    fail_safe: str | None = Field(default=None, description="point of a lapsed lease; the lowest where not given")
    service: Id | None = None
    agent: Id | None = Field(default=None, description="edge agent that holds the leases and passes commands on")
    poll: PositiveSeconds = default("2 s")
    ramp_down: Seconds | None = Field(default=None, description="measured here; overrides the driver's figure")
    ramp_up: Seconds | None = None
    min_dwell: Seconds | None = None
    cooling: Literal["air", "liquid"] = Field(default="air", description="which thermal gates its miners stand behind")
    learn: bool = Field(
        default=True, strict=True, description="miners: plan with what was measured here instead of the nameplate"
    )
    max_starts: int | None = unenforced("starts per day of one load")


class MetricsSection(Section):
    """Where a service's demand is read."""

    driver: str
    options: dict[str, Any] = Field(default_factory=dict)
    max_age: PositiveSeconds = Field(description="a reading older than this is not acted on")
    poll: PositiveSeconds = default("1 s")


class DemandQuantile(Section):
    """One quantile of the largest step of demand in a period."""

    probability: Fraction
    power: Watts


class DemandSteps(Section):
    """The steps of demand to expect: the standing reserve is chosen from them by expected cost."""

    period: PositiveSeconds = default("1 h")
    quantiles: list[DemandQuantile] = Field(min_length=1)

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        for earlier, later in itertools.pairwise(self.quantiles):
            if later.probability <= earlier.probability or later.power < earlier.power:
                raise refused(
                    f"{later.probability:.0%} at {later.power:g} W follows {earlier.probability:.0%} at "
                    f"{earlier.power:g} W",
                    "list quantiles ascending in both",
                )
        return self


class ServiceSection(Section):
    """An inference service."""

    id: Id
    value: TokenPrice
    priority: int = Field(default=1, ge=0, strict=True, description="lower is served first")
    slo: PositiveSeconds = unenforced("time to first token that the service promises", "2 s")
    flex: Fraction = Field(
        default="0 %", validate_default=True, description="share of throughput that may yield where it earns too little"
    )
    reserve: Watts = default("0 W")
    steps: DemandSteps | None = Field(default=None, description="steps of demand to expect, beside the least reserve")
    margin: Fraction = default("15 %")
    up_hold: Seconds = default("30 s")
    metrics: MetricsSection


class AuxiliarySection(Section):
    """Pumps, fans, cooling."""

    stand_ins: ClassVar[dict[str, Any]] = {"id": "unknown", "circuit": "unknown"}

    id: Id
    circuit: Id
    fixed: Watts = default("0 W")
    follows: Fraction = default("0 %")
    must_run_before: Seconds = unenforced("runs so long before its loads do", "0 s")
    run_on: Seconds = unenforced("runs so long after its loads", "0 s")


class AccountSection(Section):
    """Who owns the loads of a bank."""

    id: Id
    uptime_floor: Fraction | None = unenforced("share of time for which the account's loads must run")
