"""Each claim held against the truth: what was said to be applied must be physically so."""

from __future__ import annotations

from dataclasses import dataclass, field

from .record import Claims, Record, Truth

CLAIM_HOLDS_S = 1.0
"""A claim is tested from its instant for so long, unless a command or an event of its own ends it sooner."""
MARGIN = 1.02
MARGIN_W = 5.0
CAP_MARGIN_W = 1.0
SUCCEEDED = frozenset({"applied", "converging"})


@dataclass(slots=True)
class ClaimFigures:
    mismatches: list[Record] = field(default_factory=list)
    caught_false_acks: list[Record] = field(default_factory=list)
    uncaught_false_acks: int = 0
    unchecked: int = 0
    """Applied claims that no sample of the truth can confirm or deny."""
    commands: int = 0
    without_outcome: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    """Last outcome of each command, by kind."""
    budgets: int = 0
    budgets_over_limit: int = 0
    budgets_below_truth: int = 0


def check_claims(truth: Truth, claims: Claims) -> ClaimFigures:
    """Hold every outcome and every budget against the truth."""
    figures = ClaimFigures(commands=len(claims.commands))
    commands = {c["id"]: c for c in claims.commands}
    times_by_load: dict[str, list[float]] = {}
    for command in claims.commands:
        times_by_load.setdefault(command["load"], []).append(float(command["t"]))
    final: dict[str, Record] = {}
    for outcome in claims.outcomes:
        final[outcome["id"]] = outcome
        if outcome["kind"] == "applied":
            _check_applied(truth, commands.get(outcome["id"]), outcome, times_by_load, figures)
    for outcome in final.values():
        figures.outcomes[outcome["kind"]] = figures.outcomes.get(outcome["kind"], 0) + 1
    figures.without_outcome = sum(1 for name in commands if name not in final)
    _find_false_acks(truth, claims, commands, final, figures)
    for budget in claims.budgets:
        _check_budget(truth, budget, figures)
    return figures


def is_up(truth: Truth, load: str, since: float, until: float, from_w: float, to_w: float) -> bool:
    """Was the load truly rising or up by `until`, after a command at `since` that let it draw more?"""
    if truth.loads[load].kind == "gpu":
        before, caps = truth.caps[load].at(since), truth.caps[load]
        now = [caps.at(until), *(cap for _, cap in caps.between(since, until))]
        reached = [cap for cap in now if cap is not None]
        return any(
            cap >= to_w - CAP_MARGIN_W or (before is not None and cap > before + CAP_MARGIN_W) for cap in reached
        )
    if truth.states[load].at(until) in ("starting", "hashing"):
        return True
    at = truth.sample_before(since)
    drawn = [truth.watts(load, i) for i in truth.samples(since, until)]
    if at is None or not drawn:
        return False
    rise = max(MARGIN_W, 0.05 * (to_w - from_w))
    return max(drawn) >= truth.watts(load, at) + rise or min(drawn) >= 0.5 * to_w


def _check_applied(
    truth: Truth,
    command: Record | None,
    outcome: Record,
    times_by_load: dict[str, list[float]],
    figures: ClaimFigures,
) -> None:
    load, t = outcome["load"], float(outcome["t"])
    if load not in truth.loads:
        _mismatch(truth, outcome, "the facility has no such load", None, figures)
        return
    end = _claim_end(truth, load, t, times_by_load.get(load, []))
    why: str | None = None
    watts: float | None = None
    checked = False
    most_w = outcome.get("most_w")
    if most_w is not None:
        drawn = _drawn(truth, load, t, end)
        checked = bool(drawn)
        if drawn and max(drawn) > most_w * MARGIN + MARGIN_W:
            why, watts = "draws more than was claimed", max(drawn)
        if why is None and truth.loads[load].kind == "gpu":
            caps = [c for c in [truth.caps[load].at(t)] if c is not None]
            caps += [cap for at, cap in truth.caps[load].between(t, end) if at < end]
            checked = checked or bool(caps)
            if caps and max(caps) > most_w + CAP_MARGIN_W:
                why, watts = "its cap is above what was claimed", max(caps)
    if why is None and command is not None and command["to_w"] > command["from_w"]:
        checked = True
        until = min(t + CLAIM_HOLDS_S, max(end, t))
        if not is_up(truth, load, float(command["t"]), until, command["from_w"], command["to_w"]):
            why = "was claimed to wake and does not rise"
    if why is not None:
        _mismatch(truth, outcome, why, watts, figures)
    elif not checked:
        figures.unchecked += 1


def _mismatch(truth: Truth, outcome: Record, why: str, watts: float | None, figures: ClaimFigures) -> None:
    figures.mismatches.append(
        {
            "id": outcome["id"],
            "load": outcome["load"],
            "at_s": round(float(outcome["t"]) - truth.start, 3),
            "why": why,
            "most_w": outcome.get("most_w"),
            "true_w": None if watts is None else round(watts, 1),
            "acked": outcome.get("acked"),
        }
    )


def _claim_end(truth: Truth, load: str, t: float, command_times: list[float]) -> float:
    end = t + CLAIM_HOLDS_S
    # One tick may claim an outcome and send the next command at the same instant.
    later = [at for at in command_times if t <= at < end]
    changes = [at for at, _ in truth.disturbed[load].between(t, end)]
    return min([end, *later, *changes])


def _drawn(truth: Truth, load: str, t: float, end: float) -> list[float]:
    """Watts sampled while the claim held; where that fell between two samples, the lower of the two."""
    drawn = [truth.watts(load, i) for i in truth.samples(t, end) if truth.times[i] < end]
    at = truth.sample_before(t)
    if drawn or at is None or abs(t - truth.times[at]) > CLAIM_HOLDS_S:
        return drawn
    around = [truth.watts(load, i) for i in (at, at + 1) if i < len(truth.times)]
    return [min(around)]


def _find_false_acks(
    truth: Truth,
    claims: Claims,
    commands: dict[str, Record],
    final: dict[str, Record],
    figures: ClaimFigures,
) -> None:
    acked = {o["id"] for o in claims.outcomes if o.get("acked") is True}
    for name in sorted(acked):
        last, command = final[name], commands.get(name)
        if last["kind"] in SUCCEEDED or command is None or command["load"] not in truth.loads:
            continue
        if not did_it(truth, command, float(last["t"])):
            figures.caught_false_acks.append({"id": name, "load": command["load"], "kind": last["kind"]})
    mismatched = {m["id"] for m in figures.mismatches}
    figures.uncaught_false_acks = sum(1 for name in mismatched if name in acked)


def did_it(truth: Truth, command: Record, t: float) -> bool:
    """Does the truth at t show that the device did what the command asked?"""
    load, since, to_w = command["load"], float(command["t"]), float(command["to_w"])
    if to_w > command["from_w"]:
        return is_up(truth, load, since, t, float(command["from_w"]), to_w)
    if truth.loads[load].kind == "gpu":
        cap = truth.caps[load].at(t)
        return cap is not None and cap <= to_w + CAP_MARGIN_W
    at = truth.sample_before(t)
    return at is not None and truth.watts(load, at) <= to_w * MARGIN + MARGIN_W


def _check_budget(truth: Truth, budget: Record, figures: ClaimFigures) -> None:
    figures.budgets += 1
    if budget["sum_w"] > budget["limit_w"]:
        figures.budgets_over_limit += 1
    series, at = truth.circuit_watts.get(budget["circuit"]), truth.sample_before(float(budget["t"]))
    if series is not None and at is not None and series[at] > budget["sum_w"] * MARGIN + MARGIN_W:
        figures.budgets_below_truth += 1
