"""The loop feeds the learner, keeps what it learnt, and never stumbles over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from control_kit import decided

from mullet.control import learn
from mullet.control.learn import Learning
from mullet.control.status import loads_status
from mullet.domain.facility import Facility
from mullet.planning.learning import Learner
from mullet.ports import HistorianError
from mullet.testing.builders import facility, snapshot
from mullet.testing.virtual_time import START, in_virtual_time


class Alarms(dict[str, str]):
    def raise_(self, key: str, text: str | None) -> None:
        if text is None:
            self.pop(key, None)
        else:
            self[key] = text


class Book:
    def __init__(self) -> None:
        self.kept: list[Mapping[str, Any]] = []
        self.failing = False

    async def keep(self, kept: Mapping[str, Any]) -> None:
        if self.failing:
            raise HistorianError("disk full")
        self.kept.append(kept)


def minutes(learning: Learning, site: Facility, start: float, count: int) -> float:
    for second in range(60 * count):
        learning.tick(site, decided(site, snapshot(site, start + second)))
    return start + 60.0 * count


@in_virtual_time
async def test_what_is_learnt_is_kept_now_and_then_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "KEEP_EVERY_S", 120.0)
    site, book, alarms = facility(miners=6), Book(), Alarms()
    learning = Learning(Learner(site), book.keep, alarms.raise_)
    at = minutes(learning, site, START, 3)
    await learning.close()
    assert len(book.kept) == 2
    assert book.kept[-1]["banks"]["miners"][0]["points"]["normal"]["loads"] == 6
    book.failing = True
    minutes(learning, site, at, 1)
    await learning.close()
    assert alarms == {"learned": "what was learnt is not kept: disk full"}


def test_status_tells_measured_from_nameplate_and_who_is_far() -> None:
    site, alarms = facility(miners=6), Alarms()
    learner = Learner(site)
    learning = Learning(learner, None, alarms.raise_)
    minutes(learning, site, START, 4)
    learner.far = {"miners-002": "draws 4 kW, its group 3.3 kW"}
    decision = decided(site, snapshot(site, START + 240.0))
    learning.tick(site, decision)
    assert alarms == {"loads/far": "1 load far from their group (mullet status --fleet): miners-002"}
    bank = learning.status(site)["miners"]
    (make,) = bank["makes"]
    assert (make["make"], make["loads"]) == (None, 6)
    normal = make["points"][1]
    assert (normal["name"], normal["nameplate_watts"], normal["loads"]) == ("normal", 3_300.0, 6)
    assert normal["watts"] == pytest.approx(3_300.0, rel=0.006)
    assert normal["joules_per_th"] == pytest.approx(30.0, rel=0.012)
    assert bank["far"] == make["far"] == {"miners-002": "draws 4 kW, its group 3.3 kW"}
    assert make["in_use"]["learned"] is False
    rows = {row["id"]: row["far"] for row in loads_status(site, decision, learning.far())}
    assert rows["miners-002"] == "draws 4 kW, its group 3.3 kW"
    assert rows["miners-001"] is None


def test_a_learner_that_breaks_is_told_once_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    site, alarms = facility(), Alarms()
    learner = Learner(site)

    def broken(*_: object) -> None:
        raise ZeroDivisionError("no samples")

    monkeypatch.setattr(learner, "observe", broken)
    learning = Learning(learner, None, alarms.raise_)
    minutes(learning, site, START, 1)
    assert alarms == {"learning": "learning failed (ZeroDivisionError: no samples); nothing is learnt until restart"}


def test_without_a_learner_nothing_is_done() -> None:
    site, alarms = facility(), Alarms()
    learning = Learning(None, None, alarms.raise_)
    minutes(learning, site, START, 1)
    assert (learning.status(site), learning.far(), alarms) == ({}, {}, {})
