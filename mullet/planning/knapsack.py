"""The allocation of power to loads as a multiple-choice knapsack over the circuit tree, in arrays and without a solver.

Each load stands at one of its points; every circuit's sum stays within its limit; what is yielded, less what the
energy costs, is greatest. The increments between hull points are accepted best first, as far as each circuit's limit
goes, from the lowest circuits up to the grid connection. Were loads divisible that would be the linear program's
optimum, because limits on a tree are a laminar polymatroid (Federgruen and Groenevelt 1986); what is left over because
loads are whole is filled by `repair`. Watts are counted in whole microwatts, so sums are exact and the order of adding
changes nothing.

    program = prepare(make_fleet(parent, circuit, profile, watts, value))       # once per facility and value
    found = solve(program, make_standing(program.fleet, level), limits_watts)   # each tick
    found.level, found.used_watts, found.objective, found.price_per_watt

Circuits that cause different follow-on draw beneath one parent (auxiliaries that follow at different rates) are no
polymatroid on more than one level; limits hold there too, and the result is close to the best rather than proven so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mullet.planning.crowd import Crowd, gather, stock_up
from mullet.planning.fleet import Bools, Fleet, Floats, Ints, Standing
from mullet.planning.giving import Stock, Trail, accept, stock_of, taken_of, trail_of
from mullet.planning.ground import Ground, find_domains, make_domains
from mullet.planning.increments import FUZZ, MICRO, Program, at_circuits, prepare, root_factor
from mullet.planning.placing import counts_of, dual, earned, may_stay, place, used_watts
from mullet.planning.repair import improve

_LEAST = 1e-12
"""Of an objective: a smaller gain is rounding."""

__all__ = ["Allocation", "Program", "fill", "prepare", "solve"]


@dataclass(frozen=True, slots=True)
class Allocation:
    """Where each load shall stand."""

    level: Ints
    """[D] point of each load; where it may not be moved, the point at which it stands."""
    used_watts: Floats
    """[C] watts at each circuit, auxiliaries that follow included."""
    objective: float
    """What the movable loads yield less the energy they draw, the worth of keeping loads as they are included."""
    yielded: float
    """The same without the worth of keeping."""
    price_per_watt: Floats
    """[C] what one more watt of the circuit's limit is worth, all others as they are; 0 where it does not bind."""
    repaired: int
    """Moves made after the greedy pass."""


def solve(
    program: Program,
    standing: Standing,
    limits_watts: Any,
    cost_per_watt: float = 0.0,
    repair_rounds: int = 8,
) -> Allocation:
    """Return where each load shall stand under `limits_watts` [C] (what loads and what follows them may draw there).

    `cost_per_watt` is the all-in price of energy in money per hour and watt at the grid connection; what follows a load
    is paid for too. Power to be kept in reserve is taken from the limits beforehand. Where loads that may not be moved,
    and the lowest points of those that may, are above a limit, all beneath it go to their lowest point.

    Raises:
        ValueError: a limit or the cost is no number.
    """
    limits = np.asarray(limits_watts, dtype=np.float64)
    if limits.shape != (program.fleet.circuits,) or np.isnan(limits).any() or not np.isfinite(cost_per_watt):
        raise ValueError("every circuit needs a limit, and the cost must be a number")
    crowd = gather(program, standing)
    room = _room(program, standing, limits)
    stock = stock_up(program, crowd, cost_per_watt)
    trail = trail_of(program)
    price = accept(program, stock, room, cost_per_watt, trail=trail)
    ground = _ground(program, crowd, stock, room)
    moves = _repair(program, crowd, stock, trail, ground, room, price, cost_per_watt, repair_rounds)
    level = place(program, standing, crowd, ground.at)
    worth = earned(program, standing, level, cost_per_watt)
    # Whole loads leave no answer proven best: where the loads stand already may be better than what was found.
    stay = earned(program, standing, standing.level, cost_per_watt)
    if sum(stay) > sum(worth) + _LEAST * abs(sum(worth)) and may_stay(program, standing, crowd, limits):
        level, worth, moves = standing.level, stay, 0
    return _told(program, standing, level, price, moves, worth)


def fill(program: Program, running: Any, wanted: Any, room_watts: Any) -> Ints:
    """Return [B, K] how many of the `wanted` loads of each bank get power to stand at each hull position or above.

    `running`, `wanted` [B, K]: loads that stand there or above now, and that shall at the most; neither rises along K.
    `room_watts` [C]: what every circuit has left with all of them at their lowest point. The greedy pass alone: those
    that run come first by the deadband, and what is over because loads are whole stays over.
    """
    fleet = program.fleet
    most = fleet.watts.shape[1]
    stand, shall = np.asarray(running, dtype=np.int64), np.asarray(wanted, dtype=np.int64)
    keeps = np.minimum(stand, shall)
    count = np.concatenate([keeps.ravel(), (shall - keeps).ravel()])[program.index]
    chosen = np.flatnonzero(count)
    index = program.index[chosen] % shall.size
    each, counts = program.each[chosen], count[chosen].astype(np.float64)
    stock = stock_of(
        program, index // most, index % most, program.key[chosen], each, counts, program.worth_each[chosen]
    )
    room = np.floor(np.asarray(room_watts, dtype=np.float64) * MICRO + 0.5)
    accept(program, stock, room, 0.0)
    given = np.bincount(index, weights=taken_of(stock), minlength=shall.size).astype(np.int64).reshape(shall.shape)
    given[:, 0] = shall[:, 0]
    return given


def _room(program: Program, standing: Standing, limits: Floats) -> Floats:
    """Return [C] microwatts above what is drawn whatever happens."""
    fleet = program.fleet
    fixed = np.where(standing.movable, program.lowest, np.ceil(standing.draw_watts * MICRO - FUZZ))
    drawn = at_circuits(program, np.bincount(fleet.site, weights=fixed, minlength=fleet.sites.size))
    return np.floor(limits * MICRO + 0.5) - drawn


def _repair(
    program: Program,
    crowd: Crowd,
    stock: Stock,
    trail: Trail,
    ground: Ground,
    room: Floats,
    price: Floats,
    cost: float,
    rounds: int,
) -> int:
    """Fill what is left, the deepest circuits that bind first; change `ground` and `price`; return the moves made.

    What is moved beneath one circuit changes what those above it have left. So loads that answer to a deeper circuit
    are settled first, each watt at the price that it has above, and the others are then given power once more.
    """
    fleet = program.fleet
    if rounds <= 0 or not stock.key.size:
        return 0
    paid = ground.paid = cost * root_factor(fleet)
    opened = np.ones(fleet.sites.size, dtype=np.bool_)
    moves, below = 0, fleet.above.shape[0]
    while True:
        answers, best, higher = find_domains(fleet, price)
        asked = opened & (answers >= 0) & (answers < below)
        if not asked.any():
            return moves
        depth = int(answers[asked].max())
        chosen = opened & (answers == depth)
        ground.paid = paid + higher
        domains = make_domains(fleet, depth, chosen, best, higher)
        if (answers[asked] == depth).all():
            return moves + improve(ground, domains, rounds)
        # Above, all that the others have may be taken from them: they are given power again afterwards.
        others = opened & ~chosen
        shallow = fleet.above[:depth][:, chosen].ravel()
        reach = np.zeros(fleet.circuits, dtype=np.bool_)
        reach[shallow[shallow >= 0]] = True
        ground.left += np.where(reach, at_circuits(program, np.where(others, ground.given, 0.0)), 0.0)
        moves += improve(ground, domains, rounds)
        opened, below = others, depth
        rest: Floats = room - at_circuits(program, np.where(opened, 0.0, ground.given))
        # What circuits that carry none of the settled loads said stands.
        first = _deepest_shared(fleet, opened)
        stop, part = stock.stop.copy(), stock.part.copy()
        stock.stop[opened], stock.part[opened] = trail.stop[first][opened], trail.part[first][opened]
        again = accept(program, stock, rest, cost, opened, trail, first)
        kept = fleet.above[min(depth, first + 1) :].ravel()
        lapsed = np.ones(fleet.circuits, dtype=np.bool_)
        lapsed[kept[kept >= 0]] = False
        price[lapsed] = 0.0
        np.maximum(price, again, out=price)
        given = stock.used(stock.stop + 1, np.arange(fleet.sites.size))
        changed = np.flatnonzero((stock.stop != stop) | (stock.part != part))
        if changed.size:
            rows, at = counts_of(program, crowd, stock, changed)
            ground.at[rows] = at
        ground.given = np.where(opened, given, ground.given)
        ground.left = rest - at_circuits(program, np.where(opened, given, 0.0))


def _deepest_shared(fleet: Fleet, opened: Bools) -> int:
    """Return the deepest level at which a circuit carries both `opened` sites [L] and others."""
    for depth in range(fleet.above.shape[0] - 1, 0, -1):
        node = fleet.above[depth]
        inside = node >= 0
        carries = np.zeros((2, fleet.circuits), dtype=np.bool_)
        carries[0, node[inside & opened]] = True
        carries[1, node[inside & ~opened]] = True
        if (carries[0] & carries[1]).any():
            return depth
    return 0


def _ground(program: Program, crowd: Crowd, stock: Stock, room: Floats) -> Ground:
    """Return where the increments given so far put the loads of each row."""
    fleet = program.fleet
    profile = fleet.bank_profile[crowd.bank]
    got = stock.used(stock.stop + 1, np.arange(fleet.sites.size))
    left: Floats = room - at_circuits(program, got)
    return Ground(
        fleet=fleet,
        at=counts_of(program, crowd, stock)[1],
        profile=profile,
        site=fleet.bank_site[crowd.bank],
        floor=fleet.hull[profile, crowd.floor],
        ceiling=fleet.hull[profile, crowd.ceiling],
        running=crowd.running,
        micro=program.micro,
        given=got,
        left=left,
        paid=np.zeros(fleet.sites.size),
        micro_across=program.micro_across,
        watts_across=program.watts_across,
        yields_across=program.yields_across,
        half=program.band_per_watt / 2.0,
    )


def _told(
    program: Program, standing: Standing, level: Ints, price: Floats, moves: int, worth: tuple[float, float]
) -> Allocation:
    return Allocation(
        level=level,
        used_watts=used_watts(program, standing, level),
        objective=worth[0] + worth[1],
        yielded=worth[0],
        price_per_watt=dual(program, price),
        repaired=moves,
    )
