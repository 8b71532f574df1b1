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

from mullet.planning.fleet import Bools, Fleet, Floats, Ints, Standing
from mullet.planning.giving import Stock, Trail, accept, stock_of, taken_of, trail_of
from mullet.planning.increments import FIRM, FUZZ, MICRO, NEW, RUN, Program, at_circuits, prepare, root_factor
from mullet.planning.repair import Ground, find_domains, improve, make_domains

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
    crowd = _gather(program, standing)
    room = _room(program, standing, limits)
    stock = _stock(program, crowd, cost_per_watt)
    trail = trail_of(program)
    price = accept(program, stock, room, cost_per_watt, trail=trail)
    ground = _ground(program, crowd, stock, room)
    moves = _repair(program, crowd, stock, trail, ground, room, price, cost_per_watt, repair_rounds)
    level = _place(program, standing, crowd, ground.at)
    found = _told(program, standing, level, price, cost_per_watt, moves)
    if not _may_stay(program.fleet, standing, crowd, limits):
        return found
    # Whole loads leave no answer proven best: where the loads stand already may be better than what was found.
    stay = _told(program, standing, standing.level, price, cost_per_watt, 0)
    return stay if stay.objective > found.objective + _LEAST * abs(found.objective) else found


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


@dataclass(slots=True)
class _Crowd:
    """Loads that may be moved, counted by bank, floor and ceiling."""

    who: Ints
    """[N] movable loads."""
    of: Ints
    """[N] row of each."""
    bank: Ints
    """[V]"""
    floor: Ints
    """[V] hull position"""
    ceiling: Ints
    """[V] hull position"""
    running: Ints
    """[V, K] loads that stand at this hull position or above it."""
    banks: int
    """Rows of loads without floor or ceiling: one for each bank."""


def _gather(program: Program, standing: Standing) -> _Crowd:
    fleet = program.fleet
    most = fleet.watts.shape[1]
    who = np.flatnonzero(standing.movable)
    profile = fleet.profile[who]
    top = fleet.hull_points[profile] - 1
    ceiling = fleet.snapped[profile, standing.ceiling[who]]
    floor_point = standing.floor[who]
    floor = fleet.snapped[profile, floor_point]
    # A floor between two hull points is kept by standing above it, where the ceiling lets it.
    between = (fleet.hull[profile, floor] != floor_point) & (ceiling > floor)
    floor = np.minimum(floor + between, ceiling)
    now = np.minimum(fleet.snapped[profile, standing.level[who]], ceiling)
    banks = fleet.bank_site.size
    of = fleet.bank[who]
    bank = np.arange(banks)
    floors, ceilings = np.zeros(banks, dtype=np.int64), fleet.hull_points[fleet.bank_profile] - 1
    bound = np.flatnonzero((floor > 0) | (ceiling < top))
    if bound.size:
        code = (of[bound] * most + floor[bound]) * most + ceiling[bound]
        codes, row = np.unique(code, return_inverse=True)
        of[bound] = banks + row
        bank = np.concatenate([bank, codes // (most * most)])
        floors = np.concatenate([floors, codes // most % most])
        ceilings = np.concatenate([ceilings, codes % most])
    counts = np.bincount(of * most + now, minlength=bank.size * most).reshape(bank.size, most)
    running = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    return _Crowd(who, of, bank, floors, ceilings, running, banks)


def _may_stay(fleet: Fleet, standing: Standing, crowd: _Crowd, limits: Floats) -> bool:
    """Return whether the loads may stand where they stand."""
    watts = np.where(standing.movable, fleet.watts[fleet.profile, standing.level], standing.draw_watts)
    used = at_circuits(fleet, np.bincount(fleet.site, weights=watts, minlength=fleet.sites.size))
    if (used > limits).any():
        return False
    level = standing.level[crowd.who]
    return bool((level >= standing.floor[crowd.who]).all() and (level <= standing.ceiling[crowd.who]).all())


def _room(program: Program, standing: Standing, limits: Floats) -> Floats:
    """Return [C] microwatts above what is drawn whatever happens."""
    fleet = program.fleet
    fixed = np.where(standing.movable, program.lowest, np.ceil(standing.draw_watts * MICRO - FUZZ))
    drawn = at_circuits(fleet, np.bincount(fleet.site, weights=fixed, minlength=fleet.sites.size))
    return np.floor(limits * MICRO + 0.5) - drawn


def _stock(program: Program, crowd: _Crowd, cost: float) -> Stock:
    fleet = program.fleet
    most, banks = fleet.watts.shape[1], crowd.banks
    free = crowd.running[:banks]
    table = np.concatenate([free.ravel(), (free[:, :1] - free).ravel()])
    count = table[program.index]
    keep = count > 0
    paid = cost * root_factor(fleet)
    if cost != 0.0:
        keep &= (program.worth_each > paid[program.site]) | (
            (program.worth_each == paid[program.site]) & (program.index < banks * most)
        )
    chosen = np.flatnonzero(keep)
    index = program.index[chosen] % (banks * most)
    parts = [index // most, index % most, program.key[chosen], program.each[chosen], count[chosen]]
    worth = program.worth_each[chosen]
    if crowd.bank.size > banks:
        more, more_worth = _bounded(program, crowd, paid)
        merged = np.argsort(np.concatenate([parts[2], more[2]]), kind="stable")
        parts = [np.concatenate(pair)[merged] for pair in zip(parts, more, strict=True)]
        worth = np.concatenate([worth, more_worth])[merged]
    row, step, key, each, number = parts
    return stock_of(program, row, step, key, each, number.astype(np.float64), worth)


def _bounded(program: Program, crowd: _Crowd, paid: Floats) -> tuple[list[Any], Floats]:
    """Return the increments of the rows that have a floor or a ceiling."""
    fleet = program.fleet
    rows = np.arange(crowd.banks, crowd.bank.size)
    lengths = crowd.ceiling[rows]
    row = np.repeat(rows, lengths)
    step = np.arange(row.size) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
    firm = step <= crowd.floor[row]
    running, total = crowd.running[row, step], crowd.running[row, 0]
    flow = np.concatenate([np.where(firm, FIRM, RUN), np.full(row.size, NEW)])
    count = np.concatenate([np.where(firm, total, running), np.where(firm, 0, total - running)])
    row, step = np.tile(row, 2), np.tile(step, 2)
    bank = crowd.bank[row]
    profile, site = fleet.bank_profile[bank], fleet.bank_site[bank]
    place = program.rank[flow, profile, step]
    worth = program.worth_of[place]
    keep = (count > 0) & ((flow == FIRM) | (worth > paid[site]) | ((worth == paid[site]) & (flow == RUN)))
    hull_micro = np.take_along_axis(program.micro, np.maximum(fleet.hull, 0), 1)
    each = hull_micro[profile, step] - hull_micro[profile, step - 1]
    key = site * max(1, program.worth_of.size) + place
    order = np.flatnonzero(keep)[np.argsort(key[keep], kind="stable")]
    return [row[order], step[order], key[order], each[order], count[order]], worth[order]


def _repair(
    program: Program,
    crowd: _Crowd,
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
        depths = np.unique(answers[opened & (answers >= 0) & (answers < below)])
        if not depths.size:
            return moves
        depth = int(depths[-1])
        chosen = opened & (answers == depth)
        ground.paid = paid + higher
        domains = make_domains(fleet, depth, chosen, best, higher)
        if depths.size == 1:
            return moves + improve(ground, domains, rounds)
        # Above, all that the others have may be taken from them: they are given power again afterwards.
        others = opened & ~chosen
        shallow = np.unique(fleet.above[:depth][:, chosen])
        shallow = shallow[shallow >= 0]
        ground.left[shallow] += at_circuits(fleet, np.where(others, ground.given, 0.0))[shallow]
        moves += improve(ground, domains, rounds)
        opened, below = others, depth
        rest: Floats = room - at_circuits(fleet, np.where(opened, 0.0, ground.given))
        # What circuits that carry none of the settled loads said stands.
        first = _deepest_shared(fleet, opened)
        stock.stop[opened], stock.part[opened] = trail.stop[first][opened], trail.part[first][opened]
        again = accept(program, stock, rest, cost, opened, trail, first)
        keep = np.unique(fleet.above[min(depth, first + 1) :])
        price[np.setdiff1d(np.arange(fleet.circuits), keep)] = 0.0
        np.maximum(price, again, out=price)
        given = stock.used(stock.stop + 1, np.arange(fleet.sites.size))
        rows = np.flatnonzero(opened[ground.site])
        ground.at[rows] = _at(program, crowd, stock, rows)
        ground.given = np.where(opened, given, ground.given)
        ground.left = rest - at_circuits(fleet, np.where(opened, given, 0.0))


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


def _ground(program: Program, crowd: _Crowd, stock: Stock, room: Floats) -> Ground:
    """Return where the increments given so far put the loads of each row."""
    fleet = program.fleet
    profile = fleet.bank_profile[crowd.bank]
    sites = np.arange(fleet.sites.size)
    got = stock.used(stock.stop + 1, sites)
    left: Floats = room - at_circuits(fleet, got)
    return Ground(
        fleet=fleet,
        at=_at(program, crowd, stock, np.arange(crowd.bank.size)),
        profile=profile,
        site=fleet.bank_site[crowd.bank],
        floor=fleet.hull[profile, crowd.floor],
        ceiling=fleet.hull[profile, crowd.ceiling],
        running=crowd.running,
        micro=program.micro,
        given=got,
        left=left,
        paid=np.zeros(fleet.sites.size),
        worth=program.worth,
        half=program.band_per_watt / 2.0,
    )


def _at(program: Program, crowd: _Crowd, stock: Stock, rows: Ints) -> Ints:
    """Return [rows, K] how many loads of each row the increments given so far put at each point."""
    fleet = program.fleet
    most = fleet.watts.shape[1]
    taken = taken_of(stock)
    given = np.flatnonzero(taken)
    number, local = stock.row[given], np.full(crowd.bank.size, -1, dtype=np.int64)
    local[rows] = np.arange(rows.size)
    if rows.size < crowd.bank.size:
        given = given[local[number] >= 0]
        number = stock.row[given]
    place = local[number] * most + stock.step[given]
    above = np.bincount(place, weights=taken[given], minlength=rows.size * most).astype(np.int64)
    above = above.reshape(rows.size, most)
    above[:, 0] = crowd.running[rows, 0]
    here = above.copy()
    here[:, :-1] -= above[:, 1:]
    at = np.zeros((rows.size, most), dtype=np.int64)
    some = np.flatnonzero(here)
    row = some // most
    at[row, fleet.hull[fleet.bank_profile[crowd.bank[rows[row]]], some % most]] = here.ravel()[some]
    return at


def _place(program: Program, standing: Standing, crowd: _Crowd, at: Ints) -> Ints:
    """Return [D] points: of equals, the worn and the lately started go on running, the spared are started."""
    most = at.shape[1]
    level = standing.level.copy()
    now = standing.level[crowd.who]
    wanted = np.argmax(at > 0, axis=1)[crowd.of]
    # Rows whose loads stand as they shall stay as they are; only rows with loads at several points have to choose.
    standing_at = np.bincount(crowd.of * most + now, minlength=at.size).reshape(at.shape)
    mixed = ((at > 0).sum(axis=1) > 1) & (standing_at != at).any(axis=1)
    same = (standing_at == at).all(axis=1)
    level[crowd.who] = np.where(same[crowd.of], now, wanted)
    some = np.flatnonzero(mixed[crowd.of])
    if some.size:
        who, row = crowd.who[some], crowd.of[some]
        sign = np.where(now[some] > 0, -1.0, 1.0)
        keys = (
            program.fleet.tie[who],
            sign * standing.changed_at[who],
            sign * standing.cycles[who],
            -now[some],
            row,
        )
        order = np.lexsort(keys)
        who, row = who[order], row[order]
        line = np.arange(row.size) - np.searchsorted(row, row)
        higher = np.cumsum(at[:, ::-1], axis=1)[:, ::-1]
        level[who] = (higher[row, 1:] > line[:, None]).sum(axis=1)
    return level


def _told(program: Program, standing: Standing, level: Ints, price: Floats, cost: float, moves: int) -> Allocation:
    fleet = program.fleet
    moved = standing.movable
    watts = fleet.watts[fleet.profile, level]
    drawn = np.where(moved, watts, standing.draw_watts)
    used = at_circuits(fleet, np.bincount(fleet.site, weights=drawn, minlength=fleet.sites.size))
    site_paid = cost * root_factor(fleet)
    yields = program.worth * fleet.value[fleet.profile, level] - site_paid[fleet.site] * watts
    yielded = float(yields[moved].sum())
    kept = 0.0
    if program.band_per_watt > 0.0:
        stood = fleet.watts[fleet.profile, fleet.hull[fleet.profile, fleet.snapped[fleet.profile, standing.level]]]
        # Of a load off the hull increments know the point beneath; where it stays it is kept as it is.
        stood = np.where(level == standing.level, watts, stood)
        kept = program.band_per_watt / 2.0 * float((2.0 * np.minimum(watts, stood) - watts)[moved].sum())
    return Allocation(
        level=level,
        used_watts=used,
        objective=yielded + kept,
        yielded=yielded,
        price_per_watt=_dual(fleet, price),
        repaired=moves,
    )


def _dual(fleet: Fleet, margin: Floats) -> Floats:
    """Return [C] what each limit adds to the price of a watt beneath it, from the worth at each circuit's margin."""
    found = np.zeros(fleet.circuits)
    above = np.zeros(fleet.sites.size)
    for node, factor in zip(fleet.above, fleet.factor, strict=True):
        here = np.flatnonzero(node >= 0)
        price = np.maximum(above[here], margin[node[here]] * factor[here])
        np.maximum.at(found, node[here], (price - above[here]) / factor[here])
        above[here] = price
    return found
