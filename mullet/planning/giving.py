"""Power to increments, best first, as far as every circuit goes: from the lowest circuits up to the grid connection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mullet.planning.fleet import Bools, Floats, Ints
from mullet.planning.increments import Program, root_factor

_FEW = 1024
"""Increments that are put in order rather than searched by halves."""


@dataclass(slots=True)
class Stock:
    """The increments at hand in the order of giving, and how far each site has gone through its own."""

    row: Ints
    """[E] row of the crowd."""
    step: Ints
    """[E] hull position to which the increment leads."""
    key: Ints
    each: Floats
    count: Floats
    worth_each: Floats
    summed: Floats
    """[E + 1] running sum of microwatts."""
    start: Ints
    """[L] first increment of each site."""
    stop: Ints
    """[L] increments before it are given in full."""
    part: Floats
    """[L] loads that get the increment at `stop`."""

    def used(self, stop: Ints, sites: Ints) -> Floats:
        """Return microwatts given to `sites` if they stop at `stop`, never past where they stopped already."""
        end = np.minimum(stop, self.stop[sites])
        watts: Floats = self.summed[end] - self.summed[self.start[sites]]
        past = np.flatnonzero((stop > self.stop[sites]) & (self.part[sites] > 0.0))
        if past.size:
            watts[past] += self.part[sites[past]] * self.each[self.stop[sites[past]]]
        return watts


def stock_of(program: Program, row: Ints, step: Ints, key: Ints, each: Floats, counts: Floats, worth: Floats) -> Stock:
    """Return increments, sorted by `key`, before anything is given."""
    summed = np.zeros(each.size + 1)
    np.cumsum(each * counts, out=summed[1:])
    sites = program.fleet.sites.size
    start = np.searchsorted(key, np.arange(sites + 1) * max(1, program.worth_of.size))
    return Stock(row, step, key, each, counts, worth, summed, start[:-1], start[1:].copy(), np.zeros(sites))


def taken_of(stock: Stock) -> Floats:
    """Return [E] the loads that get each increment."""
    # Each site takes what lies between its first increment and its stop.
    ends = np.zeros(stock.key.size + 1, dtype=np.int8)
    some = stock.start < stock.stop
    ends[stock.start[some]] += 1
    ends[stock.stop[some]] -= 1
    taken: Floats = stock.count * np.cumsum(ends[:-1], dtype=np.int8)
    partly = np.flatnonzero(stock.part > 0.0)
    taken[stock.stop[partly]] = stock.part[partly]
    return taken


@dataclass(slots=True)
class Trail:
    """How far each site had gone before the circuits of each depth had their say; the root is depth 0."""

    stop: list[Ints]
    part: list[Floats]


def trail_of(program: Program) -> Trail:
    """Return a trail for `accept` to write."""
    depths = program.fleet.above.shape[0]
    empty: Floats = np.zeros(0)
    return Trail([np.zeros(0, dtype=np.int64)] * depths, [empty] * depths)


def accept(
    program: Program,
    stock: Stock,
    room: Floats,
    cost: float,
    open_sites: Bools | None = None,
    trail: Trail | None = None,
    deepest: int | None = None,
) -> Floats:
    """Give power to increments, best first, as far as every circuit goes; return [C] the worth at each margin.

    Only to `open_sites` [L], where they are given. Circuits beneath depth `deepest` have had their say.
    """
    fleet = program.fleet
    price = np.zeros(fleet.circuits)
    paid = cost * root_factor(fleet)
    for depth in range(fleet.above.shape[0] - 1 if deepest is None else deepest, -1, -1):
        if trail is not None:
            trail.stop[depth], trail.part[depth] = stock.stop.copy(), stock.part.copy()
        node = fleet.above[depth]
        sites = np.flatnonzero(node >= 0 if open_sites is None else (node >= 0) & open_sites)
        watts = fleet.factor[depth, sites] * stock.used(stock.stop[sites] + 1, sites)
        used = np.bincount(node[sites], weights=watts, minlength=fleet.circuits)
        tight = used > np.maximum(room, 0.0) + 0.5
        sites = sites[tight[node[sites]]]
        if sites.size:
            _cut(program, stock, room, price, paid, sites, node[sites], fleet.factor[depth, sites])
    return price


def _cut(
    program: Program,
    stock: Stock,
    room: Floats,
    price: Floats,
    paid: Floats,
    sites: Ints,
    nodes: Ints,
    factor: Floats,
) -> None:
    """Cut what the circuits above `sites` cannot carry, the least worth first."""
    order = np.argsort(nodes, kind="stable")
    sites, nodes, factor = sites[order], nodes[order], factor[order]
    new = np.ones(nodes.size, dtype=np.bool_)
    new[1:] = nodes[1:] != nodes[:-1]
    group, circuits = np.cumsum(new) - 1, nodes[new]
    keys, base, places = _common_order(program, stock, paid, sites, group, factor)
    capacity = np.maximum(room[circuits], 0.0) + 0.5
    low = _full_places(stock, keys, base, places, sites, group, factor, capacity)
    stop = np.searchsorted(keys, base + low[group])
    given = factor * stock.used(stop, sites)
    left = capacity - np.bincount(group, weights=given, minlength=circuits.size)
    # The place that does not fit in full goes to the sites in their order while there is room.
    reach = np.minimum(stop, max(0, stock.key.size - 1))
    marginal = (stop <= stock.stop[sites]) & (stop < keys.size) & (keys[reach] == base + low[group])
    full = np.where(stop < stock.stop[sites], stock.count[reach], stock.part[sites])
    number = np.where(marginal, full, 0.0)
    each = np.where(number > 0.0, stock.each[reach] * factor, 1.0)
    wanted = number * each
    summed = np.cumsum(wanted)
    first = np.flatnonzero(new)
    before = summed - wanted - (summed - wanted)[first][group]
    taken = np.clip(np.floor((left[group] - before) / each), 0.0, number)
    complete = marginal & (stop < stock.stop[sites]) & (taken >= number) & (number > 0.0)
    cut = stop <= stock.stop[sites]
    stock.stop[sites[cut]] = (stop + complete)[cut]
    stock.part[sites[cut]] = np.where(complete, 0.0, taken)[cut]
    worth = np.where(number > 0.0, (stock.worth_each[reach] - paid[sites]) / factor, 0.0)
    price[circuits] = np.maximum.reduceat(worth, first)


def _full_places(
    stock: Stock, keys: Ints, base: Ints, places: int, sites: Ints, group: Ints, factor: Floats, capacity: Floats
) -> Ints:
    """Return for each circuit the most places of the common order that it can give in full."""
    circuits = capacity.size
    low, high = np.zeros(circuits, dtype=np.int64), np.full(circuits, places, dtype=np.int64)
    stops, begun = stock.stop[sites], stock.summed[stock.start[sites]]
    partly = stock.part[sites] > 0.0
    last = np.minimum(stops, max(0, stock.each.size - 1))
    rest = np.where(partly, stock.part[sites] * stock.each[last], 0.0)

    def used(stop: Ints) -> Floats:
        # As `Stock.used`, with all that stays the same taken out of the search.
        return stock.summed[np.minimum(stop, stops)] - begun + np.where(stop > stops, rest, 0.0)

    # By halves in all circuits at once, until few increments lie between.
    for _ in range(max(0, (keys.size // _FEW).bit_length())):
        middle = (low + high + 1) // 2
        fits = np.bincount(group, weights=factor * used(keys.searchsorted(base + middle[group]))) <= capacity
        low, high = np.where(fits, middle, low), np.where(fits, high, middle - 1)
    # Those that do are put in order, and the first that does not fit is looked for.
    begin = np.minimum(keys.searchsorted(base + low[group]), stops + partly)
    end = np.minimum(keys.searchsorted(base + high[group]), stops + partly)
    total = np.bincount(group, weights=factor * used(begin))
    lengths = end - begin
    of = np.repeat(np.arange(sites.size), lengths)
    which = np.arange(of.size) + (begin - np.cumsum(lengths) + lengths)[of]
    number = np.where(which < stops[of], stock.count[which], stock.part[sites[of]])
    place, line = keys[which] - base[of], group[of]
    order = np.argsort(line * (places + 1) + place, kind="stable")
    line, place = line[order], place[order]
    given = np.cumsum((number * stock.each[which] * factor[of])[order])
    first = line.searchsorted(np.arange(circuits))
    before = np.concatenate([[0.0], given])[first]
    over = np.flatnonzero(given - before[line] + total[line] > capacity[line])
    # Written last to first, so that each circuit's first stays.
    high[line[over[::-1]]] = place[over[::-1]]
    return high


def _common_order(
    program: Program, stock: Stock, paid: Floats, sites: Ints, group: Ints, factor: Floats
) -> tuple[Ints, Ints, int]:
    """Return increments' keys, each site's first key, and the number of places that the sites of a circuit share."""
    places = max(1, program.worth_of.size)
    first = np.searchsorted(group, np.arange(int(group[-1]) + 1))
    same = (factor == factor[first][group]).all() and (paid[sites] == paid[sites[first]][group]).all()
    if same:
        return stock.key, sites * places, places
    # What follows differs from site to site: a watt's worth differs too, so the order is not the sites' own.
    wide = np.zeros(program.fleet.sites.size)
    wide[sites] = factor
    site = stock.key // places
    weight = wide[site]
    worth = np.where(weight > 0.0, (stock.worth_each - paid[site]) / np.where(weight > 0.0, weight, 1.0), 0.0)
    order = np.lexsort((stock.key, -worth))
    place = np.empty(order.size, dtype=np.int64)
    place[order] = np.arange(order.size)
    return site * max(1, order.size) + place, sites * max(1, order.size), max(1, order.size)
