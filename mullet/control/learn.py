"""Feeds the learner tick by tick and keeps what it learnt; whatever fails here, control goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from mullet.control.alarms import count_loads
from mullet.control.decide import Decision
from mullet.domain.codec import encode
from mullet.domain.facility import Facility
from mullet.domain.load import Load
from mullet.planning.learning import Learner
from mullet.ports import MulletError

KEEP_EVERY_S = 600.0
CLOSE_GRACE_S = 2.0

Keep = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Stores what was learnt. Raises MulletError where it cannot."""


class Learning:
    """What the loop does with a learner; without one, nothing."""

    def __init__(self, learner: Learner | None, keep: Keep | None, alarm: Callable[[str, str | None], None]) -> None:
        self.learner = learner
        self._keep = keep
        self._alarm = alarm
        self._kept_at: float | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._broken = False

    def adopt(self, nameplate: Facility | None) -> None:
        """Go on with the facility of a reloaded policy, as its nameplates have it."""
        if self.learner is not None and nameplate is not None:
            self.learner.adopt(nameplate)

    def tick(self, facility: Facility, decision: Decision) -> None:
        """Take in a finished tick; now and then put what was learnt on disk, without waiting for it."""
        if self.learner is None or self._broken:
            return
        try:
            self.learner.observe(facility, decision.snapshot, decision.judged, decision.outcomes)
        except Exception as error:  # noqa: BLE001 - learning is never in the way of control
            self._broken = True
            self._alarm(
                "learning", f"learning failed ({type(error).__name__}: {error}); nothing is learnt until restart"
            )
            return
        self._alarm("loads/far", count_loads(sorted(self.learner.far), "far from their group (mullet status --fleet)"))
        now = decision.snapshot.at
        if self._kept_at is None:
            self._kept_at = now
        if now - self._kept_at >= KEEP_EVERY_S and (self._keeping is None or self._keeping.done()):
            self._kept_at = now
            self._keeping = asyncio.create_task(self.keep(), name="learned")

    async def keep(self) -> None:
        """Put what was learnt on disk now."""
        if self.learner is None or self._keep is None:
            return
        try:
            await self._keep(self.learner.kept())
            self._alarm("learned", None)
        except MulletError as error:
            self._alarm("learned", f"what was learnt is not kept: {error}")

    async def close(self) -> None:
        """Keep what was learnt, within a bounded time."""
        if self._keeping is not None:
            await asyncio.wait({self._keeping}, timeout=CLOSE_GRACE_S)
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        last = asyncio.create_task(self.keep(), name="learned")
        await asyncio.wait({last}, timeout=CLOSE_GRACE_S)
        last.cancel()
        await asyncio.gather(last, return_exceptions=True)

    def far(self) -> Mapping[str, str]:
        """Return the loads far from their group, and in which respect."""
        return {} if self.learner is None else self.learner.far

    def makes(self) -> Mapping[str, str]:
        """Return the makes of the miners that told theirs, by load."""
        return {} if self.learner is None else self.learner.makes

    def status(self, facility: Facility) -> dict[str, Any]:
        """Return per bank, make by make, what was measured against its nameplate and who is far off, as plain data."""
        if self.learner is None:
            return {}
        found: dict[str, Any] = {}
        for learned in self.learner.learned():
            members = [
                load for load in facility.banks.get(learned.bank, ()) if self.makes().get(load.id) == learned.make
            ]
            body = encode(learned)
            del body["bank"]
            for point, measured in zip(body["points"], learned.points, strict=True):
                point["joules_per_th"] = measured.joules_per_th
            body["far"] = {load.id: words for load in members if (words := self.far().get(load.id)) is not None}
            body["in_use"] = _in_use(members)
            bank = found.setdefault(learned.bank, {"bank": learned.bank, "far": {}, "makes": []})
            bank["far"].update(body["far"])
            bank["makes"].append(body)
        return found


def _in_use(members: Sequence[Load]) -> dict[str, Any]:
    """Return the figures that planning goes by now."""
    if not members:
        return {}
    load = members[0]
    return {
        "points": {point.name: {"watts": point.watts, "th_per_s": point.th_per_s} for point in load.points},
        "ramp_down_s": load.capability.ramp_down_s,
        "ramp_up_s": load.capability.ramp_up_s,
        "learned": any(point.setting_watts is not None for point in load.points),
    }
