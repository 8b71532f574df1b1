"""What a service needs, tick by tick: from what stands, up at once, down after the hold-up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mullet.control.demand import NeedKeeper
from mullet.control.observe import Observatory
from mullet.domain.command import CommandLedger
from mullet.domain.feeds import ServiceDemand
from mullet.testing.builders import facility, snapshot
from mullet.testing.virtual_time import START

SITE = facility()
(SERVICE,) = SITE.services
GPUS = SITE.loads_of_service[SERVICE.id]
LOWEST_W = sum(load.lowest.watts for load in GPUS)
STANDING_W = 400.0 * len(GPUS)
IDLE = ServiceDemand(SERVICE.id, START, 0.0, 0.0, 0.0, 0.0)


class Turn:
    """A keeper over an observatory in which every GPU was found at 400 W."""

    def __init__(self) -> None:
        self.keeper = NeedKeeper()
        self.seen = Observatory(SITE)
        found = snapshot(SITE, START).telemetry
        for load in GPUS:
            self.seen.saw(replace(found[load.id], limit_watts=400.0))

    def need(self, demand: ServiceDemand, at: float) -> float | None:
        self.seen.saw_demand(replace(demand, at=at))
        self.keeper.update(SITE, self.seen, CommandLedger(), at)
        return self.seen.needs.get(SERVICE.id)


def test_what_stands_at_the_first_look_is_given_back_no_sooner_than_anything_else() -> None:
    turn = Turn()
    assert turn.need(IDLE, START) == STANDING_W
    assert turn.need(IDLE, START + SERVICE.up_hold_s - 0.1) == STANDING_W
    assert turn.need(IDLE, START + SERVICE.up_hold_s) == LOWEST_W


def test_a_need_above_what_stands_is_taken_at_once() -> None:
    turn = Turn()
    full = replace(IDLE, tokens_per_s=1e9, offered_tokens_per_s=1e9)
    assert turn.need(full, START) == pytest.approx(sum(load.highest.watts for load in GPUS))


def test_a_need_unknown_is_left_unset() -> None:
    turn = Turn()
    assert turn.need(replace(IDLE, watched_s=1.0), START) is None
    assert turn.need(IDLE, START + 1.0) == STANDING_W
