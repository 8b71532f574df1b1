"""What is intended: forecasts and obligations in, a plan per group and interval out, then one setpoint per load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mullet.domain.facility import Facility
from mullet.domain.feeds import Cause, Curtailment, PriceCurve
from mullet.domain.load import Load, LoadKind, OperatingPoint


@dataclass(frozen=True, slots=True)
class Group:
    """Loads planned together: same kind, operating points, planning circuit, account and service."""

    key: str
    kind: LoadKind
    circuit: str
    points: tuple[OperatingPoint, ...]
    load_ids: tuple[str, ...]
    service: str | None
    most_watts: tuple[float, ...]
    """The most one load may draw at each point."""
    start_up_s: float
    min_on_s: float
    min_off_s: float


def group_loads(facility: Facility) -> tuple[Group, ...]:
    """Derive the groups of a facility, in the policy's order."""
    members: dict[tuple[object, ...], list[Load]] = {}
    for load in facility.loads:
        key = (load.kind, load.circuit, load.account, load.service, load.points, load.capability, load.tolerance)
        members.setdefault(key, []).append(load)
    groups = []
    for number, loads in enumerate(members.values(), start=1):
        first = loads[0]
        groups.append(
            Group(
                key=f"g{number:03d}:{first.bank}",
                kind=first.kind,
                circuit=first.circuit,
                points=first.points,
                load_ids=tuple(load.id for load in loads),
                service=first.service,
                most_watts=tuple(first.most_at(point) for point in first.points),
                start_up_s=first.capability.ramp_up_s,
                min_on_s=max(facility.pacing.min_on_s, first.capability.min_dwell_s),
                min_off_s=max(facility.pacing.min_off_s, first.capability.min_dwell_s),
            )
        )
    return tuple(groups)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected over the horizon. Scenarios for price and demand may be added here later."""

    prices: PriceCurve
    """Without gaps over the horizon: the price ladder has filled them."""
    hashprice_per_ph_day: float
    needs_watts: Mapping[str, float]
    """GPU watts each service is expected to need over the horizon."""
    ambient_celsius: float | None = None
    price_rung: str = "feed"
    """Which rung of the price ladder answered for the present interval."""


@dataclass(frozen=True, slots=True)
class PeakCharge:
    """A charge on the facility's highest draw within [start, end) above a floor: the peak so far, or the ratchet."""

    start: float
    end: float
    per_mw: float
    floor_watts: float


@dataclass(frozen=True, slots=True)
class PowerBlock:
    """Power bought ahead for [start, end); what is not used is sold at `sell_per_mwh`, or lost where that is None."""

    start: float
    end: float
    watts: float
    sell_per_mwh: float | None


@dataclass(frozen=True, slots=True)
class AccountBudget:
    """Most energy that may be held back of an account's mining within [start, end)."""

    account: str
    start: float
    end: float
    mwh: float


@dataclass(frozen=True, slots=True)
class Obligations:
    """What the grid's programs and contracts ask of a plan."""

    curtailments: tuple[Curtailment, ...] = ()
    price_adders: PriceCurve | None = None
    coincident_peak: PriceCurve | None = None
    """Expected cost of drawing a MWh because the interval may be a system peak: probability times charge."""
    reserve_watts: Mapping[str, float] = field(default_factory=dict)
    """Power to be kept droppable per circuit."""
    peaks: tuple[PeakCharge, ...] = ()
    blocks: tuple[PowerBlock, ...] = ()
    budgets: tuple[AccountBudget, ...] = ()
    limit_slack_per_mwh: Mapping[str, float] = field(default_factory=dict)
    """Per circuit whose limit may give: what a MWh above it costs. All other limits are never for sale."""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """All that a planner may look at."""

    facility: Facility
    at: float
    forecast: Forecast
    obligations: Obligations
    available: frozenset[str]
    """Loads that may be commanded; all others stand where they stand."""
    fixed_watts: Mapping[str, float]
    """Per circuit: what must be counted besides the available loads (all beneath it)."""
    running: frozenset[str]
    """Available loads that are producing now."""
    settled_at: Mapping[str, float] = field(default_factory=dict)
    """Per load changed lately: when its minimum time on or off is over."""
    cycles_today: Mapping[str, int] = field(default_factory=dict)
    """Per load stopped for money within the last day: how often."""


class Rung(StrEnum):
    """Who made a plan, best first."""

    OPTIMAL = "optimal"
    SECOND = "second_backend"
    SHIFTED = "shifted"
    MERIT_ORDER = "merit_order"
    SAFE_CAPS = "safe_caps"


@dataclass(frozen=True, slots=True)
class PlanInterval:
    """One interval of a plan, [start, end)."""

    start: float
    end: float
    price_per_mwh: float
    counts: Mapping[str, tuple[int, ...]]
    """Per group: number of loads at each operating point."""
    budget_watts: Mapping[str, float]
    """Per circuit: power that the plan gives to the loads beneath it."""
    shadow_price_per_mwh: Mapping[str, float] = field(default_factory=dict)
    """Per circuit: what one more MWh of limit would be worth; absent where the limit does not bind."""
    program_price_per_mwh: Mapping[str, float] = field(default_factory=dict)
    """Per rule that binds here: what easing it by a MWh would be worth, at least 0; absent where it does not bind.

    Keys: "ramp:<circuit>", "award:<circuit>", "peak:<position of the demand charge>", "curtailment:<account>" (per MWh
    of budget), "uptime:<account>" (per MWh that its loads draw because of it).
    """
    armed_watts: Mapping[str, float] = field(default_factory=dict)
    """Per service: standing reserve that the plan keeps free for a step of its demand."""
    adder_per_mwh: float | None = None
    """Everything that a MWh costs here on top of the price: adders, programs, coincident peak. None: not told."""
    group_watts: Mapping[str, float] = field(default_factory=dict)
    """Per group: the most that its loads together may draw; counts do not tell where GPUs stand between two points."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What each group does in each interval, how long it may be relied on, and who made it."""

    id: str
    made_at: float
    valid_until: float
    rung: Rung
    groups: tuple[Group, ...]
    intervals: tuple[PlanInterval, ...]
    objective: float
    bound: float | None = None
    detail: str = ""

    def interval_at(self, instant: float) -> PlanInterval | None:
        """Return the interval that holds `instant`, or None outside the horizon."""
        for interval in self.intervals:
            if interval.start <= instant < interval.end:
                return interval
        return None


@dataclass(frozen=True, slots=True)
class Setpoint:
    """Where one load shall stand, why, and what bound it."""

    load_id: str
    point: str
    """Operating point, or "" for a continuous limit."""
    watts: float
    cause: Cause
    rule: str
    """One line that a person can read: the rule and the number that decided."""
    binding: str | None = None
    """The circuit whose limit bound, if one did."""


@dataclass(frozen=True, slots=True)
class Desired:
    """One setpoint for every load that may be commanded."""

    at: float
    plan_id: str
    setpoints: Mapping[str, Setpoint]
    armed_watts: Mapping[str, float] = field(default_factory=dict)
    """Per service: standing reserve that increases of mining leave free."""
