"""Mining groups as a fleet: filled in bulk as they would be one step after another, and the same whenever asked."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from planning_kit import S19, S21, circuit, facility, miner, small, snapshot

from mullet.domain.facility import Auxiliary, Facility
from mullet.domain.load import OperatingPoint
from mullet.planning.accounting import account
from mullet.planning.allocate import allocate
from mullet.planning.banks import banks_of
from mullet.planning.index import index_of
from mullet.planning.knapsack import fill
from mullet.planning.merit import Market, mining_steps

MARKET = Market(40.0, 0.0, 50.0, 0.0, 5.0)
S23 = (
    OperatingPoint("off", 15.0),
    OperatingPoint("low", 2_000.0, th_per_s=150.0),
    OperatingPoint("mid", 3_000.0, th_per_s=190.0),
    OperatingPoint("high", 4_000.0, th_per_s=210.0),
)


def plant(draw: random.Random, follows: float) -> Facility:
    parents = {"g": None, "f0": "g", "f1": "g", "p0": "f0", "p1": "f0", "p2": "f1"}
    circuits = [circuit(name, parent, 1e5) for name, parent in parents.items()]
    loads = [miner(f"m{n:02d}", draw.choice(["p0", "p1", "p2", "f1"]), draw.choice([S19, S21, S23])) for n in range(30)]
    return facility(circuits, loads, auxiliaries=(Auxiliary("fans", "g", follows=follows),))


def one_by_one(site: Facility, running, wanted, room):
    """Fill one load's step after another, best first, each into the whole path."""
    banks = banks_of(site, MARKET)
    left, given = dict(room), {number: [row[0]] + [0] * (len(row) - 1) for number, row in wanted.items()}
    steps = mining_steps(index_of(site).groups, MARKET)
    order = [(-(s.break_even_per_mwh + MARKET.deadband_per_mwh), n, True, s) for n, s in enumerate(steps)]
    order += [(-s.break_even_per_mwh, n, False, s) for n, s in enumerate(steps)]
    shut: set[str] = set()
    for _, _, runs, step in sorted(order, key=lambda entry: (entry[0], entry[1], not entry[2])):
        number, k, item = step.group.number, step.level, step.group
        most = min(running[number][k], wanted[number][k]) if runs else wanted[number][k]
        while given[number][k] < min(most, given[number][k - 1]) and shut.isdisjoint(item.path):
            over = [
                node
                for node, factor in zip(item.path, item.factors, strict=True)
                if left[node] + 1e-6 < step.most_watts * factor
            ]
            shut.update(over)
            if over:
                break
            given[number][k] += 1
            for node, factor in zip(item.path, item.factors, strict=True):
                left[node] -= step.most_watts * factor
    assert banks is not None
    return given, left


@pytest.mark.parametrize("seed", range(40))
def test_filling_in_bulk_keeps_limits_and_yields_what_one_by_one_does(seed):
    draw = random.Random(seed)
    site = plant(draw, 0.1 if seed % 2 else 0.0)
    groups = list(index_of(site).groups)
    running, wanted = {}, {}
    for item in groups:
        size = len(item.loads)
        levels = [draw.randrange(len(item.hull)) for _ in range(size)]
        running[item.number] = [sum(level >= k for level in levels) for k in range(len(item.hull))]
        counts = sorted((draw.randint(0, size) for _ in item.hull), reverse=True)
        wanted[item.number] = [size, *counts[1:]]
    room = {c.id: draw.uniform(8_000.0, 40_000.0) for c in site.circuits}
    banks = banks_of(site, MARKET)
    assert banks is not None
    width = banks.width
    stand, shall = [[0] * width for _ in groups], [[0] * width for _ in groups]
    for item in groups:
        row = banks.row[item.number]
        stand[row][: len(item.hull)], shall[row][: len(item.hull)] = running[item.number], wanted[item.number]
    found = fill(banks.program, stand, shall, [room[c.id] for c in site.circuits])
    given = {item.number: found[banks.row[item.number]][: len(item.hull)].tolist() for item in groups}
    left = dict(room)
    merit, reference = 0.0, 0.0
    expected, _ = one_by_one(site, running, wanted, room)
    for step in mining_steps(tuple(groups), MARKET):
        number, k = step.group.number, step.level
        assert given[number][k] <= min(wanted[number][k], given[number][k - 1])
        merit += given[number][k] * step.most_watts * step.break_even_per_mwh
        reference += expected[number][k] * step.most_watts * step.break_even_per_mwh
        for node, factor in zip(step.group.path, step.group.factors, strict=True):
            left[node] -= given[number][k] * step.most_watts * factor
    assert min(left.values()) > -1e-5
    # Both stop at the first step that does not fit whole; they may differ by such a step at each circuit.
    assert merit >= reference - 6 * 4_000.0 * 150.0
    if seed < 5:
        assert sum(map(sum, given.values())) > 30


def test_nothing_binds_and_all_that_is_wanted_is_given():
    site = plant(random.Random(1), 0.0)
    banks = banks_of(site, MARKET)
    assert banks is not None
    shall = [[2] * banks.width for _ in banks.row]
    assert fill(banks.program, [[2] + [0] * (banks.width - 1) for _ in shall], shall, [1e9] * 6).max() == 2
    assert fill(banks.program, shall, shall, [0.0] * 6)[:, 1:].max() == 0


def test_what_is_kept_between_ticks_changes_no_answer():
    first, again = small(), small()
    asked = [snapshot(first, price=price, needs={"chat": 900.0}) for price in (40.0, 75.0, 140.0, 40.0)]
    asked.append(replace(asked[0], hashprice=None))
    told = [allocate(first, made, account(first, made), None).setpoints for made in asked]
    backwards = [allocate(again, made, account(again, made), None).setpoints for made in reversed(asked)]
    assert told == backwards[::-1]
    assert told[0] == told[3] != told[2]


def test_a_facility_without_miners_has_no_banks():
    assert banks_of(facility([circuit("g", None, 1e4)], []), MARKET) is None
