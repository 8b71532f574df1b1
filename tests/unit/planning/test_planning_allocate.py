"""Allocation: inference first, mining by merit, limits always, and no change without a reason."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planning_kit import (
    AT,
    S19,
    S21,
    asleep,
    circuit,
    command,
    confirmed,
    facility,
    gpu,
    hashing,
    ledger,
    limited,
    miner,
    small,
    snapshot,
)

from mullet.domain.command import LedgerEntry
from mullet.domain.facility import Auxiliary, Service
from mullet.domain.feeds import Cause, Curtailment
from mullet.domain.load import LoadKind
from mullet.domain.plan import Plan, PlanInterval, Rung, group_loads
from mullet.domain.snapshot import Hold, HoldKind
from mullet.domain.telemetry import Telemetry
from mullet.planning.accounting import Standing, account
from mullet.planning.allocate import allocate
from mullet.planning.index import index_of, upper_hull
from mullet.planning.positions import fixed_watts, free_capacity, sort_members


def run(plant, made, plan=None):
    return allocate(plant, made, account(plant, made), plan).setpoints


def on(setpoints):
    return sorted(name for name, setpoint in setpoints.items() if setpoint.point not in ("off", "", "min"))


def plan_for(plant, counts, valid_s=600.0):
    groups = group_loads(plant)
    by_circuit = {group.circuit: group.key for group in groups if group.kind is LoadKind.MINER}
    interval = PlanInterval(AT - 10.0, AT + 300.0, 40.0, {by_circuit[k]: v for k, v in counts.items()}, {})
    return Plan("p1", AT - 10.0, AT + valid_s, Rung.OPTIMAL, groups, (interval,), 0.0)


def test_what_nothing_can_be_written_to_is_left_out_and_counts_at_its_worst():
    plant = small()
    barred = frozenset({"a0", "m0"})
    setpoints = run(plant, snapshot(plant, price=40.0, needs={"chat": 2_000.0}, barred=barred))
    assert setpoints
    assert not barred & set(setpoints)


def test_cheap_energy_runs_all_that_fits_best_first():
    plant = small()
    setpoints = run(plant, snapshot(plant, price=40.0, needs={"chat": 2_000.0}))
    assert sum(setpoints[f"gpu{n}"].watts for n in range(4)) == 2_000.0
    assert all(setpoints[f"m{n}"].point == "normal" for n in range(10))
    assert len([name for name in on(setpoints) if name.startswith("a")]) == 3
    refused = next(s for n, s in setpoints.items() if n.startswith("a") and s.point == "off")
    assert refused.binding == "grid"
    assert setpoints["m0"].rule == "normal: margin 79.6 USD/MWh"
    assert setpoints["a0"].rule == "on: margin 30.8 USD/MWh"
    assert setpoints["gpu0"].cause is Cause.AI_PREEMPTION


@pytest.mark.parametrize(
    ("price", "s21", "s19"),
    [(40.0, "normal", "on"), (75.0, "normal", "off"), (90.0, "low", "off"), (140.0, "off", "off")],
)
def test_the_merit_order_stops_each_step_at_its_own_break_even(price, s21, s19):
    plant = small(grid_watts=90_000.0)
    setpoints = run(plant, snapshot(plant, price=price, needs={"chat": 0.0}))
    assert {setpoints[f"m{n}"].point for n in range(10)} == {s21}
    assert {setpoints[f"a{n}"].point for n in range(4)} == {s19}


def test_the_rule_says_the_numbers():
    plant = small()
    setpoints = run(plant, snapshot(plant, price=95.0, needs={"chat": 0.0}))
    assert setpoints["a0"].rule == "off: price 95.0 + adder 0.0 above break-even 70.8 USD/MWh"
    assert setpoints["a0"].cause is Cause.ECONOMIC
    unknown = run(plant, snapshot(plant, price=None, needs={"chat": 0.0}))
    assert unknown["a0"].rule == "off: fallback price 100.0 + adder 0.0 above break-even 70.8 USD/MWh"


def test_inside_the_deadband_everything_stays():
    plant = small(grid_watts=90_000.0)
    made = snapshot(plant, price=71.0, running=["a0", "a1"], needs={"chat": 0.0})
    setpoints = run(plant, made)
    assert [name for name in on(setpoints) if name.startswith("a")] == ["a0", "a1"]


def test_inference_bends_only_when_all_mining_off_does_not_suffice():
    plant = small(ai_watts=1_500.0)
    made = snapshot(plant, price=10.0, running=["a0"], needs={"chat": 2_800.0})
    setpoints = run(plant, made)
    granted = sum(setpoints[f"gpu{n}"].watts for n in range(4))
    miners_off = 4 * 15.0 * 1.05
    assert granted <= 1_500.0 - miners_off - 0.01 * 1_500.0
    assert granted > 1_500.0 - miners_off - 0.01 * account(plant, made)["pdu-ai"].measured_watts - 5.0
    assert setpoints["gpu0"].binding == "pdu-ai"
    assert "bent" in setpoints["gpu0"].rule
    assert not [name for name in on(setpoints) if name.startswith("a")]


def test_mining_yields_to_a_demand_step_and_says_so():
    plant = small(ai_watts=8_000.0)
    running = ["a0", "a1"]
    made = snapshot(plant, price=10.0, running=running, needs={"chat": 2_800.0})
    setpoints = run(plant, made)
    assert sum(setpoints[f"gpu{n}"].watts for n in range(4)) == 2_800.0
    stopped = [name for name in running if setpoints[name].point == "off"]
    assert len(stopped) == 1
    assert setpoints[stopped[0]].cause is Cause.AI_PREEMPTION
    assert setpoints[stopped[0]].rule == "off: pdu-ai has 8 kW, inference needs 2.8 kW"


def test_the_standing_reserve_is_kept_from_mining():
    free = small(ai_watts=8_000.0)
    made = snapshot(free, price=10.0, needs={"chat": 800.0})
    assert len([n for n in on(run(free, made)) if n.startswith("a")]) == 2
    kept = small(ai_watts=8_000.0, services=(Service("chat", 2.0, reserve_watts=1_500.0),))
    assert len([n for n in on(run(kept, snapshot(kept, price=10.0, needs={"chat": 800.0}))) if n.startswith("a")]) == 1


def test_the_more_important_service_is_served_first():
    loads = [gpu("x", "pdu", "low"), gpu("y", "pdu", "high")]
    services = (Service("low", 5.0, priority=2), Service("high", 1.0, priority=1))
    plant = facility([circuit("pdu", None, 1_000.0)], loads, services)
    setpoints = run(plant, snapshot(plant, needs={"low": 700.0, "high": 700.0}))
    assert (setpoints["x"].watts, setpoints["y"].watts) == (300.0, 700.0)


def test_what_one_circuit_cannot_carry_the_service_gets_elsewhere():
    circuits = [circuit("g", None, 9e4), circuit("p", "g", 500.0), circuit("q", "g", 5_000.0)]
    plant = facility(circuits, [gpu("x", "p"), gpu("y", "q")], (Service("chat", 1.0),))
    setpoints = run(plant, snapshot(plant, needs={"chat": 1_150.0}))
    assert (setpoints["x"].watts, setpoints["y"].watts) == (500.0, 650.0)
    assert setpoints["x"].binding is None


def test_unknown_need_keeps_the_limits_as_they_are():
    plant = small()
    setpoints = run(plant, snapshot(plant, limit_watts=333.0))
    assert {setpoints[f"gpu{n}"].watts for n in range(4)} == {333.0}


def test_the_plan_decides_how_many_run_and_the_running_stay():
    plant = small()
    plan = plan_for(plant, {"pdu-m": (6, 0, 4), "pdu-ai": (4, 0)})
    made = snapshot(plant, running=["m3", "m7", "m9"], needs={"chat": 800.0})
    setpoints = run(plant, made, plan)
    running = on(setpoints)
    assert len(running) == 4
    assert {"m3", "m7", "m9"} <= set(running)
    assert "plan has 4 of 10 at low or above" in setpoints["m5"].rule
    expired = run(plant, replace(made, at=AT + 200.0), replace(plan, valid_until=AT + 100.0))
    assert expired == {}, "silent loads are left alone"


def test_an_expired_plan_gives_way_to_the_merit_order():
    plant = small()
    plan = replace(plan_for(plant, {"pdu-m": (10, 0, 0), "pdu-ai": (4, 0)}), valid_until=AT)
    assert len(on(run(plant, snapshot(plant, needs={"chat": 800.0}), plan))) > 4


def test_a_blocked_load_is_substituted_in_its_group_and_then_by_the_next():
    plant = small()
    plan = plan_for(plant, {"pdu-m": (0, 0, 10), "pdu-ai": (4, 0)})
    blocked = [LedgerEntry(f"m{n}", failures=2, blocked_until=AT + 5.0) for n in range(2)]
    made = snapshot(plant, ledger=ledger(*blocked), needs={"chat": 800.0})
    setpoints = run(plant, made, plan)
    assert "m0" not in setpoints
    assert len([n for n in on(setpoints) if n.startswith("m")]) == 8
    assert len([n for n in on(setpoints) if n.startswith("a")]) == 2
    partly = run(plant, made, plan_for(plant, {"pdu-m": (5, 0, 5), "pdu-ai": (4, 0)}))
    assert len(on(partly)) == 5


def test_what_is_told_to_stop_and_not_proven_is_substituted():
    """Four that earn least say that they sleep, and nothing proves it: as many others go until the limit is kept."""
    blind = replace(miner("a0", "hall").capability, measures_watts=False)
    poor = [miner(f"a{n}", "hall", capability=blind) for n in range(4)]
    rich = [miner(f"m{n}", "hall", S21) for n in range(4)]
    plant = facility([circuit("hall", None, 100_000.0)], [*poor, *rich])
    full = sum(load.highest.watts * (1.0 + load.tolerance) for load in (*poor, *rich))
    least = sum(load.lowest.watts for load in poor)
    limit = full - sum(load.most_at(load.highest) for load in poor) + least + 200.0
    cut = Curtailment("shed-1", "hall", limit, AT - 60.0, AT + 3_600.0, Cause.EMERGENCY, AT - 60.0)
    readings = {**{load.id: asleep(load) for load in poor}, **{load.id: hashing(load) for load in rich}}

    def stopped(load, **changes):
        said = command(load, load.lowest.name, load.most_at(load.highest), load.most_at(load.lowest), Cause.EMERGENCY)
        return LedgerEntry(load.id, command=replace(said, issued_at=AT - 60.0), **changes)

    def left_on(**changes):
        made = snapshot(
            plant,
            telemetry=readings,
            ledger=ledger(*(stopped(load, **changes) for load in poor)),
            curtailments=(cut,),
            price=10.0,
        )
        return set(on(run(plant, made)))

    assert left_on(pending=False, confirmed_point="off", confirmed_watts=poor[0].most_at(poor[0].lowest)) == {
        load.id for load in rich
    }
    # Refused a while ago and no longer backing off, or open far beyond its time: in both cases nothing is proven.
    assert left_on(pending=False, failures=1) == set()
    assert left_on(pending=True) == set()


def test_held_loads_are_left_alone_and_count_at_their_worst():
    plant = small()
    made = snapshot(plant, running=["m0"], price=500.0, holds=(Hold("h", "m0", HoldKind.ON, "ann", "test", AT),))
    setpoints = run(plant, made)
    assert "m0" not in setpoints
    assert not on(setpoints)


def test_wear_decides_among_equals():
    plant = small(grid_watts=90_000.0)
    worn = replace(confirmed(plant.load_by_id["m0"], "off"), cycles=(AT - 10.0, AT - 20.0))
    rested = confirmed(plant.load_by_id["m1"], "off", at=AT - 9_000.0)
    others = [confirmed(plant.load_by_id[f"m{n}"], "off", at=AT - 100.0) for n in range(2, 10)]
    made = snapshot(plant, ledger=ledger(worn, rested, *others), needs={"chat": 0.0})
    one = run(plant, made, plan_for(plant, {"pdu-m": (9, 0, 1), "pdu-ai": (4, 0)}))
    assert on(one) == ["m1"]
    nine = run(plant, made, plan_for(plant, {"pdu-m": (1, 0, 9), "pdu-ai": (4, 0)}))
    assert "m0" not in on(nine)


def test_a_pending_command_counts_as_done_so_that_nothing_flips():
    plant = small()
    load = plant.load_by_id["m4"]
    waking = LedgerEntry("m4", command=command(load, "normal", 15.75, 3_675.0), pending=True)
    made = snapshot(plant, ledger=ledger(waking), needs={"chat": 0.0})
    assert on(run(plant, made, plan_for(plant, {"pdu-m": (9, 0, 1), "pdu-ai": (4, 0)}))) == ["m4"]


def test_a_ceiling_names_its_cause():
    plant = small()
    ceiling = Curtailment("c", "pdu-m", 8_000.0, AT - 5.0, AT + 900.0, Cause.DEMAND_RESPONSE, AT - 100.0)
    running = [f"m{n}" for n in range(10)]
    setpoints = run(plant, snapshot(plant, running=running, curtailments=(ceiling,), needs={"chat": 0.0}))
    off = [s for n, s in setpoints.items() if n.startswith("m") and s.point == "off"]
    assert len(off) == 8
    assert {s.cause for s in off} == {Cause.DEMAND_RESPONSE}
    assert {s.binding for s in off} == {"pdu-m"}


def test_above_the_usable_limit_the_cause_is_protection():
    plant = small(m_watts=20_000.0)
    setpoints = run(plant, snapshot(plant, running=[f"m{n}" for n in range(10)], needs={"chat": 0.0}))
    off = [s for n, s in setpoints.items() if n.startswith("m") and s.point == "off"]
    assert off
    assert {s.cause for s in off} == {Cause.PROTECTION}


def test_what_the_plan_stops_relieves_its_circuit_where_that_is_over():
    # A plan that knows of a cut stops miners by itself: their circuit is over all the same, and no dwell may wait.
    plant = small()
    plan = plan_for(plant, {"pdu-m": (10, 0, 0), "pdu-ai": (4, 0)})
    running = [f"m{n}" for n in range(10)]
    cut = Curtailment("c", "pdu-m", 8_000.0, AT - 5.0, AT + 900.0, Cause.DEMAND_RESPONSE, AT - 100.0)
    for ceilings, cause, binding in (((cut,), Cause.DEMAND_RESPONSE, "pdu-m"), ((), Cause.ECONOMIC, None)):
        made = snapshot(plant, running=running, curtailments=ceilings, needs={"chat": 0.0})
        stopped = [s for name, s in run(plant, made, plan).items() if name in running]
        assert {(s.point, s.cause, s.binding) for s in stopped} == {("off", cause, binding)}


def test_auxiliaries_that_follow_take_their_room():
    fans = Auxiliary("fans", "pdu", fixed_watts=500.0, follows=0.5)
    plant = facility([circuit("pdu", None, 11_000.0)], [miner(f"m{n}", "pdu") for n in range(3)], (), (fans,))
    assert len(on(run(plant, snapshot(plant, price=1.0)))) == 2


def test_the_hull_leaves_out_points_that_earn_too_little():
    assert upper_hull([0, 1, 2, 3], [0, 1, 5, 6]) == (0, 2, 3)
    assert upper_hull([0, 1, 2], [0, 3, 2]) == (0, 1)
    assert upper_hull([5], [0]) == (0,)


# --- properties -----------------------------------------------------------------------------------------------------


@st.composite
def cases(draw):
    parents = {"g": None, "f0": "g", "f1": "g", "p0": "f0", "p1": "f0", "p2": "f1"}
    circuits = [
        circuit(
            name,
            parent,
            draw(st.floats(500.0, 60_000.0)),
            unmanaged_max_watts=draw(st.sampled_from([0.0, 300.0])),
            meter=draw(st.sampled_from([None, f"meter-{name}"])),
        )
        for name, parent in parents.items()
    ]
    loads = []
    for number in range(draw(st.integers(1, 24))):
        where = draw(st.sampled_from(["p0", "p1", "p2", "f1"]))
        if draw(st.integers(0, 3)) == 0:
            loads.append(gpu(f"l{number}", where, draw(st.sampled_from(["chat", "code"]))))
        else:
            loads.append(miner(f"l{number}", where, draw(st.sampled_from([S19, S21]))))
    services = (
        Service("chat", 2.0, priority=1, reserve_watts=draw(st.sampled_from([0.0, 500.0]))),
        Service("code", 1.0),
    )
    fans = (Auxiliary("fans", "f0", fixed_watts=50.0, follows=draw(st.sampled_from([0.0, 0.06]))),)
    plant = facility(circuits, loads, services, fans)
    telemetry, entries = {}, []
    for load in loads:
        kind = draw(st.integers(0, 6))
        if kind == 0:
            telemetry[load.id] = Telemetry(load.id, AT, fault="timeout")
        elif load.kind is LoadKind.GPU:
            telemetry[load.id] = limited(load, float(draw(st.integers(200, 700))))
        else:
            telemetry[load.id] = hashing(load) if kind % 2 else asleep(load)
        if draw(st.integers(0, 7)) == 0:
            entries.append(LedgerEntry(load.id, blocked_until=AT + 5.0))
    holds = (Hold("h", loads[0].id, HoldKind.ON, "a", "b", AT),) if draw(st.booleans()) else ()
    needs = {name: draw(st.floats(0.0, 6_000.0)) for name in ("chat", "code") if draw(st.integers(0, 4))}
    price = draw(st.sampled_from([None, -50.0, 30.0, 71.0, 100.0, 400.0]))
    made = snapshot(plant, telemetry=telemetry, ledger=ledger(*entries), holds=holds, needs=needs, price=price)
    return plant, made


def totals(plant, made, setpoints):
    """Most per circuit if every setpoint is reached, and the same with every movable load at its lowest point."""
    standing = Standing(plant, made, 15.0)
    accounts = account(plant, made)
    after, floor, limits = {}, {}, {}
    for node in plant.circuits:
        sums = [0.0, 0.0]
        for beneath in plant.loads_beneath[node.id]:
            found = setpoints.get(beneath.id)
            most = lowest = standing.most_watts(beneath)
            if found is not None:
                most = found.watts if beneath.kind is LoadKind.GPU else beneath.most_at(beneath.point(found.point))
                lowest = beneath.most_at(beneath.lowest)
            for number, watts in enumerate((most, lowest)):
                sums[number] += watts
                for fan in plant.auxiliaries_beneath[node.id]:
                    if fan.circuit in plant.path(beneath.circuit):
                        sums[number] += fan.follows * watts
        entry = accounts[node.id]
        fixed = sum(fan.fixed_watts for fan in plant.auxiliaries_beneath[node.id])
        rest = fixed + entry.planned_unmanaged_watts + entry.planned_error_watts
        after[node.id], floor[node.id] = sums[0] + rest, sums[1] + rest
        limits[node.id] = entry.target_limit_watts
    return after, floor, limits


PROPERTY = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(cases())
@PROPERTY
def test_no_circuit_is_ever_given_more_than_its_limit(case):
    plant, made = case
    after, floor, limits = totals(plant, made, run(plant, made))
    for node, limit in limits.items():
        assert after[node] <= max(limit, floor[node]) + 1e-3, node


@given(cases())
@PROPERTY
def test_a_second_look_changes_nothing(case):
    plant, made = case
    first = run(plant, made)
    reached = dict(made.telemetry)
    entries = dict(made.ledger.entries)
    for name, setpoint in first.items():
        load = plant.load_by_id[name]
        if load.kind is LoadKind.GPU:
            reached[name] = limited(load, setpoint.watts)
        else:
            point = load.point(setpoint.point)
            reached[name] = asleep(load) if point is load.lowest else hashing(load, point=point)
            entries[name] = confirmed(load, point.name)
    after = replace(made, telemetry=reached, ledger=ledger(*entries.values()), meters=made.meters)
    second = run(plant, after)
    assert {n: (s.point, s.watts) for n, s in second.items()} == {n: (s.point, s.watts) for n, s in first.items()}


@given(cases(), st.randoms())
@PROPERTY
def test_the_order_of_the_policy_does_not_change_the_totals(case, dice):
    plant, made = case
    shuffled = list(plant.loads)
    dice.shuffle(shuffled)
    other = replace(plant, loads=tuple(shuffled))
    one, two = run(plant, made), run(other, made)
    assert sum(s.watts for s in one.values()) == pytest.approx(sum(s.watts for s in two.values()))


@given(cases())
@PROPERTY
def test_inference_lacks_power_only_where_all_mining_is_at_its_least(case):
    plant, made = case
    setpoints = run(plant, made)
    for name, setpoint in setpoints.items():
        if "bent" not in setpoint.rule:
            continue
        for beneath in plant.loads_beneath[setpoint.binding]:
            found = setpoints.get(beneath.id)
            if found is not None and beneath.kind is LoadKind.MINER:
                assert found.point == "off", (name, beneath.id)


@given(cases())
@PROPERTY
def test_no_load_runs_while_a_clearly_better_one_on_its_circuit_rests_for_want_of_room(case):
    plant, made = case
    made = replace(
        made,
        telemetry={
            k: asleep(plant.load_by_id[k]) if plant.load_by_id[k].kind is LoadKind.MINER else v
            for k, v in made.telemetry.items()
        },
    )
    setpoints = run(plant, made)
    for name, setpoint in setpoints.items():
        better = plant.load_by_id[name]
        if better.points is not S21 or setpoint.point != "off" or setpoint.binding is None:
            continue
        for other in plant.loads:
            worse = other.circuit == better.circuit and other.points is S19 and other.id in setpoints
            if not worse or setpoints[other.id].point != "on":
                continue
            # The worse one may only run where the better one's first step would not have fitted instead.
            swapped = {
                **setpoints,
                other.id: replace(setpoints[other.id], point="off"),
                name: replace(setpoint, point="low"),
            }
            after, floor, limits = totals(plant, made, swapped)
            assert any(after[n] > max(limits[n], floor[n]) + 1e-6 for n in plant.path(better.circuit))


def big(count):
    circuits = [circuit("g", None, count * 3_000.0)]
    loads = []
    for f in range(4):
        circuits.append(circuit(f"f{f}", "g", count * 900.0))
    for p in range(max(1, count // 100)):
        circuits.append(circuit(f"p{p}", f"f{p % 4}", 400_000.0))
    for n in range(count):
        loads.append(miner(f"m{n:05d}", f"p{n % max(1, count // 100)}", S21 if n % 3 else S19))
    return facility(circuits, loads)


@pytest.mark.parametrize(("count", "limit_s"), [(250, 0.02), (10_000, 0.4)])
def test_allocation_is_quick(count, limit_s):
    plant = big(count)
    made = snapshot(plant, running=[f"m{n:05d}" for n in range(0, count, 2)])
    accounts = account(plant, made)
    best = 1e9
    for _ in range(3):
        begun = time.perf_counter()
        allocate(plant, made, accounts, None)
        best = min(best, time.perf_counter() - begun)
    assert best < limit_s, f"{count} loads took {best * 1e3:.1f} ms"


def test_the_capacity_before_lowest_points_is_told_apart():
    plant = small()
    made = snapshot(plant)
    members = sort_members_of(plant, made)
    capacity, fixed_only = free_capacity(plant, account(plant, made), members)
    assert fixed_only.left["grid"] - capacity.left["grid"] == pytest.approx(4 * 200.0 + 14 * 15.75)


def sort_members_of(plant, made):
    return sort_members(index_of(plant), made, Standing(plant, made, 15.0))


@given(cases())
@PROPERTY
def test_what_a_plan_counts_as_fixed_is_what_allocation_counts(case):
    plant, made = case
    accounts = account(plant, made)
    movable = run(plant, made)
    fixed = fixed_watts(plant, made, accounts, movable)
    _, fixed_only = free_capacity(plant, accounts, sort_members_of(plant, made))
    for node, watts in fixed.items():
        assert accounts[node].target_limit_watts - watts == pytest.approx(fixed_only.left[node])
