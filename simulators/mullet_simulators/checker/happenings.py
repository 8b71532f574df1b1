"""What each event in the truth led to: how much was asked for, how much was verified, and how soon."""

from __future__ import annotations

import math
from typing import Any

from .record import Claims, Record, Truth

GRADED = ("price_spike", "demand_step", "limit_cut")
ENOUGH = 0.99
NEED_SHARE = 0.95
ROUNDING_W = 1.0
SAME_INSTANT_S = 1.0


def follow_events(truth: Truth, claims: Claims) -> list[Record]:
    """One record per graded event, from its instant (a cut: its announcement) until the next one."""
    events = sorted(((begins_at(truth, e), e) for e in truth.events if e["kind"] in GRADED), key=lambda pair: pair[0])
    ends = [*(t for t, _ in events), math.inf][1:]
    return [_follow(truth, claims, event, start, end) for (start, event), end in zip(events, ends, strict=True)]


def begins_at(truth: Truth, event: Record) -> float:
    """When the event could first be acted on, in Unix seconds: a cut counts from its announcement."""
    t = float(event["t"])
    if event["kind"] != "limit_cut":
        return t
    announced = [
        float(limit["announced_at"])
        for limit in truth.announced
        if limit["circuit"] == event["circuit"]
        and math.isclose(float(limit["limit_w"]), float(event["limit_w"]), abs_tol=ROUNDING_W)
        and limit.get("announced_at") is not None
        and abs(float(limit["t"]) - _seconds(event.get("start"), t)) <= SAME_INSTANT_S
    ]
    return min([t, *announced])


def _seconds(value: Any, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default


def _follow(truth: Truth, claims: Claims, event: Record, start: float, end: float) -> Record:
    kinds = {name: load.kind for name, load in truth.loads.items()}
    commands = [c for c in claims.commands if start <= c["t"] < end]
    decreases = [c for c in commands if c["to_w"] < c["from_w"] and kinds.get(c["load"]) == "miner"]
    asked, reached, failed = _reductions(claims, decreases)
    asked_w, failed_w = sum(asked.values()), sum(failed.values())
    verified_w = sum(w for _, w in reached)
    record: Record = {
        "kind": event["kind"],
        "at_s": round(start - truth.start, 3),
        "asked_mw": round(asked_w / 1e6, 6),
        "verified_mw": round(verified_w / 1e6, 6),
        "failed_mw": round(failed_w / 1e6, 6),
        "verified_s": _enough_after(reached, ENOUGH * (asked_w - failed_w), start) if asked_w else None,
    }
    if event["kind"] == "demand_step":
        record["raised_mw"] = round(_raised_w(commands, kinds) / 1e6, 6)
    if event["kind"] == "limit_cut":
        record["circuit"] = event["circuit"]
    return record


def _reductions(
    claims: Claims, decreases: list[Record]
) -> tuple[dict[str, float], list[tuple[float, float]], dict[str, float]]:
    """Watts asked of each load, the (instant, watts) verified, and the watts of loads that finally failed.

    A load that is asked again counts once, from what it might draw at first to the lowest point asked for;
    its substitutes count in full, so what finally failed is taken off what has to be verified.
    """
    first: dict[str, float] = {}
    asked: dict[str, float] = {}
    target: dict[str, tuple[str, float]] = {}
    for c in decreases:
        load = c["load"]
        first.setdefault(load, float(c["from_w"]))
        asked[load] = max(asked.get(load, 0.0), first[load] - float(c["to_w"]))
        target[c["id"]] = (load, first[load] - float(c["to_w"]))
    done: dict[str, float] = {}
    last: dict[str, str] = {}
    reached: list[tuple[float, float]] = []
    for outcome in claims.outcomes:
        if outcome["id"] not in target:
            continue
        load, fell_w = target[outcome["id"]]
        last[load] = outcome["kind"]
        if outcome["kind"] == "applied" and fell_w > done.get(load, 0.0):
            reached.append((float(outcome["t"]), fell_w - done.get(load, 0.0)))
            done[load] = fell_w
    failed = {
        load: watts - done.get(load, 0.0)
        for load, watts in asked.items()
        if last.get(load) in ("refused", "unreachable") and watts > done.get(load, 0.0)
    }
    return asked, reached, failed


def _enough_after(reached: list[tuple[float, float]], enough_w: float, start: float) -> float | None:
    total = 0.0
    for t, watts in reached:
        total += watts
        if enough_w > 0 and total >= enough_w - 1e-9:
            return round(t - start, 3)
    return None


def _raised_w(commands: list[Record], kinds: dict[str, str]) -> float:
    first: dict[str, float] = {}
    raised: dict[str, float] = {}
    for c in commands:
        if kinds.get(c["load"]) == "gpu" and c["to_w"] > c["from_w"]:
            first.setdefault(c["load"], float(c["from_w"]))
            raised[c["load"]] = max(raised.get(c["load"], 0.0), float(c["to_w"]) - first[c["load"]])
    return sum(raised.values())


def grade_demand_step(truth: Truth) -> Record | None:
    """The first demand step of the log: the room it met, when its GPUs got their power, who gave way first."""
    step = next((e for e in truth.events if e["kind"] == "demand_step"), None)
    at = None if step is None else truth.sample_before(float(step["t"]))
    if step is None or at is None:
        return None
    t, need_w = float(step["t"]), float(step["need_w"])
    later = [float(e["t"]) for e in truth.events if e["kind"] in GRADED and e["t"] > t]
    end = min([truth.end, *later])
    above = truth.above(step["circuit"])
    room = {c: truth.limits[c].at(t) - truth.circuit_watts[c][at] for c in above}
    least = min(room.values())
    return {
        "at_s": round(t - truth.start, 3),
        "free_room_w": round(least, 1),
        "free_room_by_circuit": {c: round(w, 1) for c, w in room.items()},
        "need_w": need_w,
        "exceeds_room": need_w > least,
        "gpu_power_s": _gpu_power_after(truth, step["service"], t, at, need_w),
        "mining_shed_first": {c: _shed_first(truth, c, t, end, at) for c in above},
    }


def _gpu_power_after(truth: Truth, service: str, t: float, at: int, need_w: float) -> float | None:
    """Seconds until the true caps of the service's GPUs allow what they drew plus most of the need.

    A GPU whose cap the log has not told yet counts as allowed nothing.
    """
    gpus = [name for name, load in truth.loads.items() if load.kind == "gpu" and load.service == service]
    enough_w = sum(truth.watts(g, at) for g in gpus) + NEED_SHARE * need_w
    changes = sorted({t, *(when for g in gpus for when, _ in truth.caps[g].between(t, math.inf))})
    for when in changes:
        if sum(truth.caps[g].at(when) or 0.0 for g in gpus) >= enough_w:
            return round(when - t, 3)
    return None


def _shed_first(truth: Truth, circuit: str, t: float, end: float, at: int) -> bool:
    """At every instant the GPUs' rise fits into the free room plus what mining had given up by then."""
    gpus, miners = truth.beneath(circuit, "gpu"), truth.beneath(circuit, "miner")

    def drawn(sample: int, columns: list[int]) -> float:
        row = truth.load_watts[sample]
        return sum([row[i] for i in columns])

    gpu0, mining0, total0 = drawn(at, gpus), drawn(at, miners), truth.circuit_watts[circuit][at]
    for i in truth.samples(t, end):
        room = truth.limits[circuit].at(truth.times[i]) - total0
        rise, fall = drawn(i, gpus) - gpu0, mining0 - drawn(i, miners)
        if rise > ROUNDING_W and rise - room > fall + ROUNDING_W:
            return False
    return True
