"""Small commitment problems in few words, and what a case with a known optimum says.

Unless a case says otherwise a load draws 1 MW, makes 1 TH/s, and 1 TH/s earns $100 an hour, so a load is worth
$100/MWh; steps last an hour and energy costs $50/MWh. One Mtoken an hour is `MTOKEN` tokens a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mullet.planning.commitment.model import Model
from mullet.planning.commitment.problem import CircuitLimit, Grid, Inference, Mining, Pool, Problem, Site, Tier

MTOKEN = 1e6 / 3600.0
AMPLE_MW = 1e3

Floats = NDArray[np.float64]
Amount = float | Sequence[float]
Place = Callable[[Model], int]


@dataclass(frozen=True, slots=True)
class Dual:
    """What one more unit of a piece of data is worth, and the row or variable whose bound it is alone, if any."""

    value: float
    """Derivative of the optimum by the bound of `row` or `variable`."""
    row: Place | None = None
    variable: Place | None = None
    nudge: Callable[[Problem, float], Problem] | None = None
    """Adds an amount to the data."""
    by_data: float | None = None
    """Derivative by the data, where it is not `value`: the data stands in the row with another sign or factor."""


@dataclass(frozen=True, slots=True)
class Case:
    """A problem with its optimum by hand: of the relaxation and, where it differs, of whole loads."""

    problem: Problem
    relaxed: float
    whole: float | None = None
    values: tuple[tuple[Place, float], ...] = ()
    """Variables of the relaxed optimum, only where it is unique."""
    duals: tuple[Dual, ...] = field(default=())


def over(count: int, amount: Amount) -> Floats:
    """Return `amount` for each of `count` steps."""
    return np.array(np.broadcast_to(np.asarray(amount, dtype=np.float64), (count,)))


def steps(*hours: float) -> Grid:
    lengths = np.array(hours, dtype=np.float64)
    return Grid(np.concatenate(([0.0], np.cumsum(lengths)[:-1])) * 3600.0, lengths)


def miners(count: int, *, grid: Grid, key: str = "m", circuit: int = 0, **changes: Any) -> Mining:
    """Return a group whose loads are all running, if nothing else is said."""
    most = np.asarray(changes.pop("most_mw", [1.0]), dtype=np.float64)
    th_per_s = np.asarray(changes.pop("th_per_s", [1.0]), dtype=np.float64)
    mean = np.asarray(changes.pop("mean_mw", most), dtype=np.float64)
    running = np.broadcast_to(np.asarray(changes.pop("running", count), dtype=np.int64), most.shape)
    start_cost = over(grid.count, changes.pop("start_cost", 0.0))
    for name in ("least_on", "most_on"):
        if name in changes:
            changes[name] = np.asarray(changes[name], dtype=np.int64)
    return Mining(key, circuit, count, most, mean, th_per_s, start_cost, running.copy(), **changes)


def circuit(name: str = "poi", *, grid: Grid, parent: int = -1, limit: Amount = AMPLE_MW, **more: Any) -> CircuitLimit:
    return CircuitLimit(name, parent, over(grid.count, limit), **more)


def pool(count: int, *, key: str = "p", circuit: int = 0, segments: Sequence[tuple[float, float]], **more: Any) -> Pool:
    """Return a pool; `segments` as (MW of one GPU, Mtokens/h of each MW), `base` in Mtokens/h of one GPU."""
    return Pool(
        key,
        circuit,
        count,
        least_active=more.get("least_active", count),
        active_mw=more.get("active_mw", 0.0),
        base_tokens_per_s=more.get("base", 0.0) * MTOKEN,
        segment_mw=np.array([width for width, _ in segments], dtype=np.float64),
        tokens_per_s_per_mw=np.array([slope for _, slope in segments], dtype=np.float64) * MTOKEN,
    )


def service(
    *pools: Pool, grid: Grid, demand: Amount, value: float, tiers: Sequence[tuple[float, float]] = ((1.0, 0.0),)
) -> Inference:
    """Return a service; `demand` in Mtokens/h, `tiers` as (share, penalty per Mtoken)."""
    made = tuple(Tier(share, penalty) for share, penalty in tiers)
    name = pools[0].key if pools else "s"
    return Inference(name, pools, over(grid.count, demand) * MTOKEN, value, made)


def problem(
    grid: Grid,
    mining: Sequence[Mining] = (),
    *,
    price: Amount = 50.0,
    circuits: Sequence[CircuitLimit] | None = None,
    inference: Sequence[Inference] = (),
    limit: Amount = AMPLE_MW,
    site: dict[str, Any] | None = None,
    **more: Any,
) -> Problem:
    """Return a problem with one circuit, unless given some, and `site`'s fields over a plain market."""
    fields: dict[str, Amount] = {
        "price_per_mwh": price,
        "adder_per_mwh": 0.0,
        "coincident_per_mwh": 0.0,
        "earned_per_th_hour": 100.0,
        "fixed_mw": 0.0,
        "ppa_mw": 0.0,
    }
    extra = dict(site or {})
    charges = extra.pop("demand_charges", ())
    fields.update(extra)
    market = Site(**{name: over(grid.count, amount) for name, amount in fields.items()}, demand_charges=charges)
    tree = tuple(circuits) if circuits is not None else (circuit(grid=grid, limit=limit),)
    return Problem(grid, tree, tuple(mining), tuple(inference), market, **more)


# Places


def at_least(group: int, level: int, step: int) -> Place:
    return lambda model: int(model.at_least[group][level, step])


def started(group: int, step: int) -> Place:
    return lambda model: int(model.starts[group][step])


def drawn(node: int, step: int) -> Place:
    return lambda model: int(model.circuit_mw[node, step])


def imported(step: int) -> Place:
    return lambda model: int(model.import_mw[step])


def sold(step: int) -> Place:
    return lambda model: int(model.sold_mw[step])


def active(of: int, step: int) -> Place:
    return lambda model: int(model.active[of][step])


def segment(of: int, number: int, step: int) -> Place:
    return lambda model: int(model.segments[of][number, step])


def unserved(of: int, tier: int, step: int) -> Place:
    return lambda model: int(model.unserved[of][tier, step])


def peak(charge: int) -> Place:
    return lambda model: int(model.peaks_mw[charge])


def row(family: str, *index: int) -> Place:
    return lambda model: int(model.rows[family][index])


# Nudges


def limit_of(node: int, step: int) -> Callable[[Problem, float], Problem]:
    def nudge(of: Problem, amount: float) -> Problem:
        changed = list(of.circuits)
        changed[node] = replace(of.circuits[node], limit_mw=bumped(of.circuits[node].limit_mw, step, amount))
        return replace(of, circuits=tuple(changed))

    return nudge


def ramp_of(which: int, name: str, step: int) -> Callable[[Problem, float], Problem]:
    def nudge(of: Problem, amount: float) -> Problem:
        changed = list(of.ramps)
        changed[which] = replace(of.ramps[which], **{name: bumped(getattr(of.ramps[which], name), step, amount)})
        return replace(of, ramps=tuple(changed))

    return nudge


def award_of(which: int, step: int) -> Callable[[Problem, float], Problem]:
    def nudge(of: Problem, amount: float) -> Problem:
        changed = list(of.awards)
        changed[which] = replace(of.awards[which], mw=bumped(of.awards[which].mw, step, amount))
        return replace(of, awards=tuple(changed))

    return nudge


def site_of(name: str, step: int) -> Callable[[Problem, float], Problem]:
    def nudge(of: Problem, amount: float) -> Problem:
        return replace(of, site=replace(of.site, **{name: bumped(getattr(of.site, name), step, amount)}))

    return nudge


def floor_of(charge: int) -> Callable[[Problem, float], Problem]:
    def nudge(of: Problem, amount: float) -> Problem:
        charges = list(of.site.demand_charges)
        charges[charge] = replace(charges[charge], floor_mw=charges[charge].floor_mw + amount)
        return replace(of, site=replace(of.site, demand_charges=tuple(charges)))

    return nudge


def budget_of(account: int, name: str) -> Callable[[Problem, float], Problem]:
    def nudge(of: Problem, amount: float) -> Problem:
        accounts = list(of.accounts)
        first, *others = getattr(accounts[account], name)
        moved = replace(first, amount=first.amount + amount)
        accounts[account] = replace(accounts[account], **{name: (moved, *others)})
        return replace(of, accounts=tuple(accounts))

    return nudge


def demand_of(which: int, step: int) -> Callable[[Problem, float], Problem]:
    """Return what adds Mtokens/h to a service's demand."""

    def nudge(of: Problem, amount: float) -> Problem:
        changed = list(of.inference)
        old = changed[which]
        changed[which] = replace(old, demand_tokens_per_s=bumped(old.demand_tokens_per_s, step, amount * MTOKEN))
        return replace(of, inference=tuple(changed))

    return nudge


def bumped(values: Floats, step: int, amount: float) -> Floats:
    changed = values.copy()
    changed[step] += amount
    return changed
