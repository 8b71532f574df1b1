"""What feeds bring: quarantined and said, never clipped; the old value stays."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from mullet.control.intake import Intake
from mullet.control.observe import Observatory
from mullet.control.parts import FeedKind, FeedPart
from mullet.domain.command import CommandLedger
from mullet.domain.facility import Mode
from mullet.domain.feeds import Cause, Curtailment, ServiceDemand
from mullet.domain.snapshot import Snapshot
from mullet.ports import FeedError, Quarantined
from mullet.testing.builders import facility, price_curve
from mullet.testing.virtual_time import START

SITE = facility()


class Desk:
    def __init__(self) -> None:
        self.seen = Observatory(SITE)
        self.alarms: dict[str, str] = {}
        self.intake = Intake(self.seen, SITE, self._alarm)

    def _alarm(self, key: str, text: str | None) -> None:
        if text is None:
            self.alarms.pop(key, None)
        else:
            self.alarms[key] = text

    async def take(self, kind: FeedKind, value: object, at: float = START) -> None:
        part = FeedPart("the-feed", kind, None, 60.0, 600.0)  # type: ignore[arg-type]
        await self.intake.taker(part)(value, at)

    def look(self) -> Snapshot:
        return self.seen.snapshot(START, CommandLedger(), (), Mode.AUTO, (), True, True)


def limit(name: str, circuit: str = "grid") -> Curtailment:
    return Curtailment(name, circuit, 9_000.0, START, START + 900.0, Cause.DEMAND_RESPONSE, START)


async def test_a_price_that_cannot_be_believed_is_refused_and_the_old_one_stays() -> None:
    desk = Desk()
    await desk.take(FeedKind.PRICE, price_curve([5.0] * 8))
    with pytest.raises(Quarantined, match="unit jump x1000"):
        await desk.take(FeedKind.PRICE, price_curve([5_000.0] * 8), START + 60.0)
    kept = desk.seen.prices
    assert kept is not None
    assert (kept.value.at(START), kept.at) == (5.0, START)
    assert kept.quarantined is not None


@pytest.mark.parametrize("price", [math.nan, math.inf, 10_000.1, -1_000.1])
async def test_prices_out_of_range_are_refused_and_extremes_within_it_pass(price: float) -> None:
    desk = Desk()
    with pytest.raises(Quarantined):
        await desk.take(FeedKind.PRICE, price_curve([price]))
    assert desk.seen.prices is None
    await desk.take(FeedKind.PRICE, price_curve([-999.0]))
    assert desk.seen.prices is not None


@pytest.mark.parametrize("hashprice", [0.0, -1.0, math.nan, math.inf, 10_000.0])
async def test_a_hashprice_that_cannot_be_is_refused(hashprice: float) -> None:
    desk = Desk()
    await desk.take(FeedKind.HASHPRICE, 51.0)
    with pytest.raises(Quarantined):
        await desk.take(FeedKind.HASHPRICE, hashprice)
    kept = desk.look().hashprice
    assert kept is not None
    assert kept.value == 51.0


async def test_a_limit_on_an_unknown_circuit_is_an_alarm_and_the_others_hold() -> None:
    desk = Desk()
    await desk.take(FeedKind.LIMITS, (limit("dr-1"), limit("dr-2", "gird")))
    assert [item.id for item in desk.look().curtailments] == ["dr-1"]
    assert desk.alarms == {"limit/dr-2": "limit dr-2 names circuit 'gird', which is unknown"}


@pytest.mark.parametrize("next_limits", [(), (limit("dr-2"),)], ids=["withdrawn", "corrected"])
async def test_the_alarm_about_a_limit_ends_with_the_limit(next_limits: tuple[Curtailment, ...]) -> None:
    desk = Desk()
    await desk.take(FeedKind.LIMITS, (limit("dr-2", "gird"),))
    await desk.take(FeedKind.LIMITS, next_limits)
    assert desk.alarms == {}


async def test_a_ceiling_in_another_unit_keeps_the_last_good_ones_in_force() -> None:
    desk = Desk()
    good = limit("cut-1", "feeder-a")
    await desk.take(FeedKind.LIMITS, (good,))
    with pytest.raises(Quarantined, match=r"cut-1 gives feeder-a 9 MW, rated 20 kW: another unit\?"):
        await desk.take(FeedKind.LIMITS, (replace(good, limit_watts=9_000_000.0),))
    assert desk.look().curtailments == (good,)
    # An envelope above the rating is no mistake: it binds nothing.
    wide = replace(good, limit_watts=90_000.0)
    await desk.take(FeedKind.LIMITS, (wide,))
    assert desk.look().curtailments == (wide,)


async def test_demand_is_taken_in_by_service() -> None:
    desk = Desk()
    demand = ServiceDemand("chat", START, 3.0, 0.0, 900.0, 900.0)
    await desk.take(FeedKind.DEMAND, demand)
    assert desk.look().demand == {"chat": demand}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (FeedKind.PRICE, 40.0),
        (FeedKind.HASHPRICE, "51"),
        (FeedKind.LIMITS, [limit("dr-1")]),
        (FeedKind.LIMITS, ("9 MW",)),
        (FeedKind.DEMAND, None),
        (FeedKind.DEMAND, price_curve([40.0])),
    ],
)
async def test_what_is_of_the_wrong_type_is_no_value(kind: FeedKind, value: Any) -> None:
    desk = Desk()
    before = desk.look()
    with pytest.raises(FeedError):
        await desk.take(kind, value)
    assert desk.look() == before


async def test_sensors_are_kept_by_name_and_nonsense_opens_no_gate() -> None:
    desk = Desk()
    part = FeedPart("ambient", FeedKind.SENSOR, None, 2.0, 10.0, service="ambient")  # type: ignore[arg-type]
    await desk.intake.taker(part)(-12.5, START - 1.0)
    for value in (math.nan, -61.0, 2e6):
        with pytest.raises(Quarantined, match="ambient"):
            await desk.intake.taker(part)(value, START)
    with pytest.raises(FeedError):
        await desk.intake.taker(part)("warm", START)
    reading = desk.look().sensors["ambient"]
    assert (reading.value, reading.at) == (-12.5, START - 1.0)
