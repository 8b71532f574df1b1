"""Starts a reader for everything that a plant can tell, each under the supervisor."""

from __future__ import annotations

from functools import partial

from mullet.control.intake import Intake
from mullet.control.observe import Observatory
from mullet.control.parts import Plant
from mullet.control.pollers import read_feed, read_meter, renew_leases, watch_agent, watch_loads
from mullet.control.supervise import Supervisor
from mullet.ports import Clock, Link


def start_readers(
    plant: Plant, link: Link | None, clock: Clock, supervisor: Supervisor, observatory: Observatory, intake: Intake
) -> None:
    """Start watching loads, agents, meters and feeds, and renewing the leases that agents hold."""
    facility, start = plant.facility, supervisor.start
    for bank, loads in facility.banks.items():
        direct = [load for load in loads if load.agent is None]
        if direct:
            driver = plant.drivers[direct[0].driver]
            start(f"watch/{bank}", partial(watch_loads, driver, direct, plant.periods_s[bank], observatory.saw))
    agents = sorted({load.agent for load in facility.loads if load.agent is not None})
    if link is not None and agents:
        for agent in agents:
            start(f"agent/{agent}", partial(watch_agent, link, agent, observatory.saw))
        pacing = facility.pacing
        start("leases", partial(renew_leases, link, agents, pacing.lease_s, pacing.renew_s, clock))
    for meter_id, meter in plant.meters.items():
        reader = partial(read_meter, meter, meter_id, plant.meter_period_s, clock, observatory.saw_meter)
        start(f"meter/{meter_id}", reader)
    for part in plant.feeds:
        start(f"feed/{part.name}", partial(read_feed, part, clock, intake.taker(part), intake.alarm))
