"""The shed list: miners first, fast first, least valuable first, just enough."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest
from planning_kit import AT, MINER, S19, S21, Telemetry, circuit, facility, hashing, miner, small, snapshot

from mullet.domain.command import LedgerEntry
from mullet.domain.facility import Auxiliary
from mullet.domain.load import LoadKind
from mullet.domain.snapshot import Hold, HoldKind
from mullet.planning.accounting import account
from mullet.planning.shed import shed_list
from mullet.planning.wake import wake_list

ALL = [f"a{n}" for n in range(4)] + [f"m{n}" for n in range(10)]


def made_list(plant, made):
    return shed_list(plant, made, account(plant, made))


def test_the_least_valuable_go_first_and_no_more_than_needed():
    plant = small()
    sheds = made_list(plant, snapshot(plant, running=ALL))
    assert sheds.query("grid", 0.0) == ()
    assert sheds.query("grid", 1.0) == ("a0",)
    one = sheds.freed_watts("grid", 1)
    assert one == pytest.approx((3_250.0 - 15.0) * 1.05)
    assert sheds.query("grid", one) == ("a0",)
    assert sheds.query("grid", one + 1.0) == ("a0", "a1")
    assert sheds.query("pdu-m", 1.0) == ("m0",)


def test_gpus_come_after_every_miner():
    plant = small()
    sheds = made_list(plant, snapshot(plant, running=ALL, limit_watts=500.0))
    everything = sheds.query("grid", 1e9)
    kinds = [plant.load_by_id[name].kind for name in everything]
    assert kinds == sorted(kinds, key=lambda kind: kind is LoadKind.GPU)
    assert kinds.count(LoadKind.GPU) == 4
    assert sheds.total_watts("grid") == pytest.approx(sheds.freed_watts("grid", len(everything)))


def test_slow_loads_go_after_fast_ones_and_sleepers_not_at_all():
    slow = replace(MINER, ramp_down_s=60.0)
    loads = [miner("slow", "g", capability=slow), miner("fast", "g", S21), miner("still", "g")]
    plant = facility([circuit("g", None, 9e4)], loads)
    assert made_list(plant, snapshot(plant, running=["slow", "fast"])).query("g", 1e9) == ("fast", "slow")


def test_silent_loads_and_loads_held_off_are_not_in_it_but_loads_held_on_are():
    plant = small()
    holds = (Hold("h", "a0", HoldKind.OFF, "ann", "r", AT), Hold("i", "a1", HoldKind.ON, "ann", "r", AT))
    made = snapshot(plant, running=ALL, holds=holds, telemetry={"a2": Telemetry("a2", AT, fault="gone")})
    found = made_list(plant, made).query("pdu-ai", 1e9)
    assert "a0" not in found
    assert "a2" not in found
    assert {"a1", "a3"} <= set(found)


def test_loads_that_nothing_can_be_written_to_are_neither_shed_nor_woken():
    plant = small()
    made = snapshot(plant, running=ALL, barred=frozenset({"a0", "m0"}))
    everything = made_list(plant, made).query("grid", 1e9)
    assert everything
    assert not {"a0", "m0"} & set(everything)
    asleep = snapshot(plant, barred=frozenset({"a0"}))
    woken = wake_list(plant, asleep).query("grid", 1e9)
    assert woken
    assert "a0" not in woken


def test_a_query_takes_microseconds():
    loads = [miner(f"m{n:04d}", "p", S21) for n in range(2_000)]
    plant = facility([circuit("g", None, 9e7), circuit("p", "g", 9e7)], loads)
    made = snapshot(plant, telemetry={load.id: hashing(load) for load in loads})
    sheds = made_list(plant, made)
    begun = time.perf_counter()
    for n in range(100):
        sheds.query("g", n * 50_000.0)
    assert (time.perf_counter() - begun) / 100 < 1e-3


def test_lists_answer_like_a_walk_from_the_top_whatever_is_asked():
    draw = random.Random(3)
    circuits = [circuit("g", None, 9e7), circuit("p", "g", 9e7), circuit("q", "g", 9e7), circuit("r", "q", 9e7)]
    loads = [miner(f"m{n}", draw.choice("gpqr"), draw.choice([S19, S21])) for n in range(60)]
    plant = facility(circuits, loads, auxiliaries=(Auxiliary("fans", "q", follows=0.2),))
    made = snapshot(plant, running=[f"m{n}" for n in range(60) if draw.random() < 0.6])
    sheds, wakes = made_list(plant, made), wake_list(plant, made)
    assert set(sheds.query("g", 1e9)).isdisjoint(wakes.query("g", 1e9))
    assert len(sheds.query("g", 1e9)) + len(wakes.query("g", 1e9)) == 60
    for _ in range(300):
        node, watts = draw.choice("gpqr"), draw.uniform(0.0, 2.5e5)
        head, rest = sheds.query(node, watts), sheds.total_watts(node)
        assert sheds.freed_watts(node, len(head)) >= min(watts, rest) - 1e-3
        assert len(head) == 0 or sheds.freed_watts(node, len(head) - 1) < watts
        assert head == sheds.queues[node].load_ids[: len(head)]
        used = wakes.query(node, watts)
        assert wakes.used_watts(node, len(used)) <= watts + 1e-3
        assert len(used) == len(wakes.queues[node].load_ids) or wakes.used_watts(node, len(used) + 1) > watts


def test_a_head_is_a_sequence_of_ids():
    plant = small()
    head = made_list(plant, snapshot(plant, running=ALL)).query("pdu-ai", 1e9)
    assert list(head) == ["a0", "a1", "a2", "a3"]
    assert head[-1] == "a3"
    assert head[1:3] == ("a1", "a2")
    assert head == ["a0", "a1", "a2", "a3"]
    assert head != ("a0",)
    assert hash(head) == hash(("a0", "a1", "a2", "a3"))
    with pytest.raises(IndexError):
        head[4]


def test_of_equals_the_least_worn_goes_first_and_ties_are_stable():
    loads = [miner(f"m{n}", "g") for n in range(4)]
    plant = facility([circuit("g", None, 9e4)], loads)
    worn = {"m0": (AT - 60.0, AT - 120.0), "m1": (AT - 60.0,), "m2": (AT - 90_000.0,), "m3": ()}
    entries = {name: LedgerEntry(name, cycles=cycles) for name, cycles in worn.items()}
    made = snapshot(plant, running=list(worn))
    made = replace(made, ledger=replace(made.ledger, entries={**made.ledger.entries, **entries}))
    # A stop longer ago than a day no longer counts.
    assert made_list(plant, made).query("g", 1e9) == ("m2", "m3", "m1", "m0")
