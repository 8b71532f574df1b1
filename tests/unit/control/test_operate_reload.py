"""A reload that fails, for whatever reason, leaves the old policy in force, raises an alarm and says why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import pytest

from mullet.control.loop import Controller
from mullet.control.operate import Desk
from mullet.control.parts import Plant
from mullet.ports import JournalError, MulletError
from mullet.testing.builders import facility
from mullet.testing.virtual_time import VirtualClock


class Watched:
    """A controller that keeps its alarms and adopts a plant unless its journal is full."""

    def __init__(self) -> None:
        self.alarms: dict[str, str | None] = {}
        self.full = False

    def alarm(self, key: str, text: str | None) -> None:
        self.alarms[key] = text

    async def swap(self, plant: Plant, changes: Mapping[str, Any]) -> None:
        if self.full:
            raise JournalError("journal.db: disk full")


def desk_over(watched: Watched, error: Exception | None, ended: list[str] | None = None) -> Desk:
    async def close() -> None:
        if ended is not None:
            ended.append("closed")

    async def build() -> tuple[Plant, Mapping[str, Any]]:
        if error is not None:
            raise error
        return Plant(facility(), {}, {}, close=close), {"changes": []}

    return Desk(cast("Controller", watched), VirtualClock(), build)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("site.yaml:3:4: facility.mode: odd\nsite.yaml:9:1: worse"), "site.yaml:3:4: facility.mode: odd"),
        (FileNotFoundError(2, "No such file or directory", "site.yaml"), "No such file or directory: 'site.yaml'"),
        (ImportError("no module named vendor"), "no module named vendor"),
        (MulletError("no driver called odd"), "no driver called odd"),
    ],
)
async def test_what_cannot_be_loaded_is_refused_with_an_alarm(error: Exception, words: str) -> None:
    watched = Watched()
    with pytest.raises(ValueError, match=re.escape(words)):
        await desk_over(watched, error).reload()
    alarm = watched.alarms["policy"]
    assert alarm is not None
    assert alarm.startswith("reload refused, the old policy stays: ")
    assert alarm.endswith(words)


async def test_what_cannot_be_recorded_is_refused_with_an_alarm_and_the_next_good_reload_clears_it() -> None:
    watched = Watched()
    watched.full = True
    ended: list[str] = []
    desk = desk_over(watched, None, ended)
    with pytest.raises(ValueError, match="disk full"):
        await desk.reload()
    assert ended == ["closed"]
    assert "disk full" in (watched.alarms["policy"] or "")
    watched.full = False
    assert await desk.reload() == {"changes": []}
    assert watched.alarms == {"policy": None}
