"""The standing reserve of each service at a market: what the policy says, or what its demand's steps make cheapest."""

from __future__ import annotations

from mullet.domain.facility import Facility, Service
from mullet.domain.load import LoadKind
from mullet.domain.units import SECONDS_PER_HOUR
from mullet.planning.index import index_of
from mullet.planning.merit import Market, mining_steps
from mullet.planning.standing_reserve import StandingReserve, StepQuantile, choose_standing_reserve


def armed_watts(facility: Facility, market: Market) -> dict[str, float]:
    """Return the power kept free per service, for those that keep any; what their GPUs cannot use is not taken off."""
    armed = {}
    for service in facility.services:
        watts = service.reserve_watts
        if service.steps:
            watts = max(watts, reserve_of(facility, service, market).watts)
        if watts > 0.0:
            armed[service.id] = watts
    return armed


def reserve_of(facility: Facility, service: Service, market: Market) -> StandingReserve:
    """Choose the reserve for the steps of demand that the policy expects, with all alternatives.

    A MWh short loses what its tokens would have earned until the slowest load has been shed and that was verified.
    A MWh kept free costs what the least mining that still pays would have earned with it.
    """
    return choose_standing_reserve(
        [StepQuantile(step.probability, step.watts) for step in service.steps],
        loss_per_mwh=value_per_mwh(facility, service),
        shed_s=index_of(facility).lead_s[facility.root.id],
        margin_per_mwh=mining_margin_per_mwh(facility, market),
        period_hours=service.step_period_s / SECONDS_PER_HOUR,
        most_watts=sum(load.highest.watts - load.lowest.watts for load in facility.loads_of_service[service.id]),
    )


def value_per_mwh(facility: Facility, service: Service) -> float:
    """Return what a MWh above the lowest points earns in tokens, over the whole curve of the service's GPUs."""
    loads = facility.loads_of_service[service.id]
    watts = sum(load.highest.watts - load.lowest.watts for load in loads)
    tokens = sum(load.highest.tokens_per_s - load.lowest.tokens_per_s for load in loads)
    # tokens/s per W are Mtoken per MWh and second.
    return max(0.0, tokens / watts * SECONDS_PER_HOUR * service.value_per_mtoken) if watts > 0.0 else 0.0


def mining_margin_per_mwh(facility: Facility, market: Market) -> float:
    """Return what the least profitable step of mining that pays at all earns per MWh; 0 where none does."""
    groups = tuple(item for item in index_of(facility).groups if item.group.kind is LoadKind.MINER)
    steps = mining_steps(groups, market)
    margins = [step.break_even_per_mwh - market.cost_per_mwh * step.group.factors[-1] for step in steps]
    return min((margin for margin in margins if margin > 0.0), default=0.0)
