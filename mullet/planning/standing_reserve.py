"""How much power to keep armed for a step of an inference service's demand.

When demand steps up, GPUs may take at once what is kept free (the standing reserve); the rest waits until mining has
been shed and that was verified. Keeping a MW free costs what mining would have earned with it all period long; a MW
short costs what inference loses until the power is there. For a step of X MW in a period of H hours, a reserve of R,
a mining margin of m per MWh, a loss of l per MWh and s seconds until mining is shed, the expected cost of a period is

    C(R) = m H R + l (s / 3600) E[max(0, X - R)],

the newsvendor's (Arrow, Harris & Marschak 1951). Its slope is m H - l (s / 3600) P(X > R), which rises with R, so the
cheapest R is the smallest for which

    P(X > R) <= m H / (l s / 3600),

and for a step known by its quantiles that is 0 or one of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mullet.ports import PlanningError

_WATTS_PER_MW = 1e6
_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class StepQuantile:
    """The largest step of a period is at most `watts` with `probability`."""

    probability: float
    watts: float


@dataclass(frozen=True, slots=True)
class ArmedPower:
    """One reserve that could be kept, and what it is expected to cost in a period."""

    watts: float
    holding_cost: float
    """Mining margin given up."""
    expected_loss: float
    """What inference loses on average while mining is shed."""
    shortfall_probability: float
    """How likely a step is to exceed it."""

    @property
    def expected_cost(self) -> float:
        """Both together."""
        return self.holding_cost + self.expected_loss


@dataclass(frozen=True, slots=True)
class StandingReserve:
    """The cheapest reserve among its alternatives, ascending, itself included."""

    chosen: ArmedPower
    alternatives: tuple[ArmedPower, ...]

    @property
    def watts(self) -> float:
        """Power to keep armed."""
        return self.chosen.watts


def choose_standing_reserve(
    quantiles: Sequence[StepQuantile],
    *,
    loss_per_mwh: float,
    shed_s: float,
    margin_per_mwh: float,
    period_hours: float,
    most_watts: float = math.inf,
) -> StandingReserve:
    """Choose the standing reserve with the least expected cost; of equals the smallest.

    Args:
        quantiles: of the largest step in a period, ascending in both; probability that lies between two counts at the
            upper one, what lies above the last counts at the last. None: no step is expected.
        loss_per_mwh: what inference loses for a MWh that it asks for and does not get.
        shed_s: seconds until mining is shed and that was verified.
        margin_per_mwh: what mining earns with a MWh, energy paid; below 0 it would not run, and room is free.
        period_hours: hours that the quantiles speak of, and for which the reserve is kept.
        most_watts: what can be kept, or used by the GPUs, at all.

    Raises:
        PlanningError: a number is not finite, out of range, or the quantiles are out of order.
    """
    masses = _masses(quantiles)
    for name, value, least in (
        ("loss_per_mwh", loss_per_mwh, 0.0),
        ("shed_s", shed_s, 0.0),
        ("margin_per_mwh", margin_per_mwh, -math.inf),
        ("period_hours", period_hours, 0.0),
    ):
        if not math.isfinite(value) or value < least:
            raise PlanningError(f"standing reserve: {name} is {value}")
    if math.isnan(most_watts) or most_watts < 0.0:
        raise PlanningError(f"standing reserve: most_watts is {most_watts}")
    holding = max(0.0, margin_per_mwh) * period_hours / _WATTS_PER_MW
    loss = loss_per_mwh * shed_s / _SECONDS_PER_HOUR / _WATTS_PER_MW
    amounts = sorted({0.0, *(min(step.watts, most_watts) for step in quantiles)})
    alternatives = tuple(
        ArmedPower(
            watts=amount,
            holding_cost=holding * amount,
            expected_loss=loss * math.fsum(mass * max(0.0, watts - amount) for mass, watts in masses),
            shortfall_probability=math.fsum(mass for mass, watts in masses if watts > amount),
        )
        for amount in amounts
    )
    return StandingReserve(min(alternatives, key=lambda armed: armed.expected_cost), alternatives)


def _masses(quantiles: Sequence[StepQuantile]) -> list[tuple[float, float]]:
    """Return (probability, watts) of each outcome."""
    masses: list[tuple[float, float]] = []
    below = StepQuantile(0.0, 0.0)
    for step in quantiles:
        if not (math.isfinite(step.watts) and below.watts <= step.watts):
            raise PlanningError(f"standing reserve: a step of {step.watts} W follows one of {below.watts} W")
        if not below.probability <= step.probability <= 1.0:
            raise PlanningError(f"standing reserve: probability {step.probability} follows {below.probability}")
        masses.append((step.probability - below.probability, step.watts))
        below = step
    if masses and below.probability < 1.0:
        masses.append((1.0 - below.probability, below.watts))
    return masses
