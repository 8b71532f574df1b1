"""What feeds bring: believed, or kept out and said so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mullet.control.intake import Intake
from mullet.control.observe import Observatory
from mullet.control.parts import FeedKind, FeedPart
from mullet.domain.command import CommandLedger
from mullet.domain.facility import Mode
from mullet.domain.feeds import Cause, Curtailment
from mullet.ports import Quarantined
from mullet.testing.builders import facility
from mullet.testing.virtual_time import START

CUT = Curtailment("cut-1", "feeder-a", 9_000.0, START, START + 600.0, Cause.DEMAND_RESPONSE, START - 60.0)


class NoFeed:
    async def fetch(self, deadline_s: float) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing to close."""


async def test_a_ceiling_in_another_unit_keeps_the_last_good_ones_in_force() -> None:
    plant = facility()
    seen, alarms = Observatory(plant), dict[str, str | None]()
    take = Intake(seen, plant, alarms.__setitem__).taker(FeedPart("limits", FeedKind.LIMITS, NoFeed(), 1.0, 10.0))
    await take((CUT,), START)
    with pytest.raises(Quarantined, match=r"cut-1 gives feeder-a 9 MW, rated 20 kW: another unit\?"):
        await take((replace(CUT, limit_watts=9_000_000.0),), START + 1.0)
    snapshot = seen.snapshot(START + 2.0, CommandLedger(), (), Mode.AUTO, (), True, True)
    assert snapshot.curtailments == (CUT,)
    # An envelope above the rating is no mistake: it binds nothing.
    wide = replace(CUT, limit_watts=90_000.0)
    await take((wide,), START + 3.0)
    assert seen.snapshot(START + 3.0, CommandLedger(), (), Mode.AUTO, (), True, True).curtailments == (wide,)


async def test_a_ceiling_on_an_unknown_circuit_is_an_alarm_and_the_others_hold() -> None:
    plant = facility()
    seen, alarms = Observatory(plant), dict[str, str | None]()
    take = Intake(seen, plant, alarms.__setitem__).taker(FeedPart("limits", FeedKind.LIMITS, NoFeed(), 1.0, 10.0))
    await take((replace(CUT, id="cut-2", circuit="attic"), CUT), START)
    assert "attic" in (alarms["limit/cut-2"] or "")
    assert seen.snapshot(START, CommandLedger(), (), Mode.AUTO, (), True, True).curtailments == (CUT,)
