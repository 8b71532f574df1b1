"""A bank of miners that is looked at visit by visit, and what was learnt of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mullet.domain.command import CommandLedger
from mullet.domain.facility import Facility
from mullet.domain.load import OFF, OperatingPoint, Steering
from mullet.domain.telemetry import Telemetry
from mullet.planning.learned import ENOUGH_SAMPLES, LearnedMake, LearnedPoint, LearnedRamp
from mullet.planning.learning import Learner
from mullet.testing.builders import circuit, facility, gpu, miner, snapshot, telemetry
from mullet.testing.virtual_time import START

POINTS = (OperatingPoint(OFF, 20.0), OperatingPoint("eco", 2_000.0, 80.0), OperatingPoint("full", 3_300.0, 110.0))
CAPABLE = replace(miner().capability, steering=Steering.STEPPED)


def plant(count: int = 6, **fields: Any) -> Facility:
    miners = [miner(f"wm-{k:03d}", "grid", **fields) for k in range(1, count + 1)]
    return facility(circuits=(circuit("grid", None, 90_000.0),), miners=miners, gpus=[gpu("gpus-001", "grid")])


def watch(
    learner: Learner,
    site: Facility,
    visits: int,
    ledger: CommandLedger | None = None,
    start: float = START,
    **readings: Telemetry,
) -> float:
    """Let every load be visited so often; returns when the next visit is due."""
    book = ledger or CommandLedger()
    count = len([load for load in site.loads if load.driver == "asic"])
    for visit in range(visits):
        for turn in range(count):
            at = start + 30.0 * visit + turn
            told = {load.id: replace(telemetry(load, at), **_told(readings.get(load.id))) for load in site.loads}
            learner.observe(site, replace(snapshot(site, at), telemetry=told), book, ())
    return start + 30.0 * visits


def _told(reading: Telemetry | None) -> dict[str, Any]:
    if reading is None:
        return {}
    names = ("watts", "th_per_s", "state", "fault", "limit_watts", "make")
    return {name: getattr(reading, name) for name in names}


def of(learner: Learner, make: str | None = None) -> LearnedMake:
    """Return what was learnt of a make of the only bank."""
    return next(each for each in learner.learned() if each.make == make)


def point(learner: Learner, name: str = "normal") -> LearnedPoint:
    return next(each for each in of(learner).points if each.name == name)


def learned(name: str = "full", watts: float = 3_100.0, **fields: Any) -> LearnedPoint:
    plate = next(each for each in (*POINTS, OperatingPoint("normal", 3_300.0, 110.0)) if each.name == name)
    values: dict[str, Any] = {
        "nameplate_watts": plate.watts,
        "nameplate_th_per_s": plate.th_per_s,
        "samples": ENOUGH_SAMPLES,
        "loads": 6,
        "watts": watts,
        "watts_p95": 1.01 * watts,
        "most_watts": 1.01 * watts,
        "rates": ENOUGH_SAMPLES,
        "th_per_s": plate.th_per_s,
        **fields,
    }
    return LearnedPoint(name, **values)


NOTHING = LearnedRamp(0, None, None)


def bank(
    *points: LearnedPoint, down: LearnedRamp = NOTHING, up: LearnedRamp = NOTHING, make: str | None = None
) -> tuple[LearnedMake, ...]:
    return (LearnedMake("wm", make, points, down, up, 6),)
