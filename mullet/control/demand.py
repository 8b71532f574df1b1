"""Keeps what GPU power each service needs: rises at once, falls only after its hold-up."""

from __future__ import annotations

from mullet.control.observe import Observatory
from mullet.domain.command import CommandLedger
from mullet.domain.facility import Facility, SafeAction
from mullet.planning.inference import power_kept
from mullet.programs.demand import hold_up, needed_watts

DEMAND_SOURCE = "demand"
DEMAND_AGE_S = 10.0


class NeedKeeper:
    """Turns demand readings into needs, tick by tick."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[float, float]] = {}

    def update(self, facility: Facility, observatory: Observatory, ledger: CommandLedger, now: float) -> None:
        """Set the need of every service whose demand is known; an unknown one is left unset.

        The first need known falls no sooner than any other: what stood before a restart is held up as well.
        """
        hold_s = facility.safety_age_s(DEMAND_SOURCE, SafeAction.RESERVE_ONLY, DEMAND_AGE_S)
        for service in facility.services:
            demand = observatory.demand.get(service.id)
            loads = facility.loads_of_service[service.id]
            need = needed_watts(service, loads, demand, now, hold_s)
            if need is None:
                observatory.set_need(service.id, None)
                continue
            held = self._held.get(service.id) or (power_kept(loads, observatory.telemetry, ledger), now)
            watts, since = hold_up(held, need, now, service.up_hold_s)
            self._held[service.id] = (watts, since)
            observatory.set_need(service.id, watts)
