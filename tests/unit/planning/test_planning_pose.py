"""From a plan request to the commitment problem: units, lowest points, reserves, dwell, programs, services."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planning_kit import AT, S21, circuit, facility, gpu, miner, small

from mullet.domain.facility import Account, Auxiliary, Pacing, Service
from mullet.domain.feeds import PriceCurve, PriceInterval
from mullet.domain.plan import AccountBudget, Forecast, Obligations, PeakCharge, PlanRequest, PowerBlock
from mullet.planning.frame import frame
from mullet.planning.pose import STRICT_PER_MWH, pose
from mullet.planning.pose_service import MW

HOUR_S = 3_600.0
FLAT = PriceCurve((PriceInterval(AT - HOUR_S, AT + 40 * HOUR_S, 40.0),))
STEPS = ((600.0, 6), (3_600.0, 24))


def posed(plant, needs=None, running=(), fixed=None, settled_at=None, cycles=None, **obligations):
    plant = replace(plant, grid_steps=STEPS)
    request = PlanRequest(
        facility=plant,
        at=AT,
        forecast=Forecast(FLAT, 50.0, needs or {}),
        obligations=Obligations(**obligations),
        available=frozenset(plant.load_by_id),
        fixed_watts=fixed or {},
        running=frozenset(running),
        settled_at=settled_at or {},
        cycles_today=cycles or {},
    )
    return pose(frame(request))


def by_id(found):
    return {node.id: node for node in found.problem.circuits}


def test_limits_are_what_is_left_above_the_lowest_points() -> None:
    plant = facility(
        [circuit("poi", None, 100_000.0), circuit("pdu", "poi", 20_000.0)],
        [miner("m0", "pdu"), miner("m1", "pdu")],
        auxiliaries=[Auxiliary("fans", "poi", follows=0.1)],
    )
    found = posed(plant, fixed={"poi": 30_000.0, "pdu": 1_000.0})
    nodes = by_id(found)
    off_w = 2 * 15.0 * 1.05
    assert nodes["pdu"].limit_mw == pytest.approx((20_000.0 - 1_000.0 - off_w) / MW)
    assert nodes["poi"].limit_mw == pytest.approx((100_000.0 - 30_000.0 - off_w * 1.1) / MW)
    assert (nodes["poi"].parent, nodes["pdu"].parent) == (-1, 0)
    assert nodes["poi"].follow == 0.1
    assert found.problem.site.fixed_mw == pytest.approx((30_000.0 + 2 * 15.0 * 1.1) / MW)
    (group,) = found.problem.mining
    assert group.most_mw == pytest.approx([(3_250.0 - 15.0) * 1.05 / MW])
    assert group.mean_mw == pytest.approx([(3_250.0 - 15.0) / MW])
    assert found.problem.notes == ()


def test_what_does_not_fit_is_noted_and_never_a_negative_limit() -> None:
    found = posed(facility([circuit("poi", None, 10_000.0)], [miner("m0", "poi")]), fixed={"poi": 12_000.0})
    assert not by_id(found)["poi"].limit_mw.any()
    assert "poi" in found.problem.notes[0]
    assert "0.002 MW" in found.problem.notes[0]


def test_a_standing_reserve_is_kept_from_mining_and_not_from_the_service() -> None:
    chat = Service("chat", 1.0, reserve_watts=400.0)
    plant = facility([circuit("poi", None, 10_000.0)], [miner("m0", "poi"), gpu("g0", "poi")], [chat])
    found = posed(plant, needs={"chat": 500.0})
    room_w = 10_000.0 - 200.0 - 15.0 * 1.05
    # The GPU could take 200 W more than its need: that much of the reserve can ever be used.
    assert by_id(found)["poi"].limit_mw == pytest.approx((room_w - 200.0) / MW)
    assert found.armed_watts[0] == {"chat": 200.0}
    full = posed(plant, needs={"chat": 700.0})
    assert by_id(full)["poi"].limit_mw == pytest.approx(room_w / MW)
    assert full.armed_watts[0] == {"chat": 0.0}
    tight = posed(plant, needs={"chat": 500.0}, fixed={"poi": 10_000.0 - 200.0 - 15.0 * 1.05 - 300.0})
    assert by_id(tight)["poi"].limit_mw == pytest.approx(300.0 / MW)


def test_minimum_times_bound_what_must_and_may_run() -> None:
    plant = facility([circuit("poi", None, 100_000.0)], [miner(f"m{n}", "poi") for n in range(4)])
    settled = {"m0": AT + 1_000.0, "m1": AT + 5_000.0, "m2": AT + 1_000.0}
    found = posed(plant, running=["m0", "m1"], settled_at=settled)
    (group,) = found.problem.mining
    starts = found.problem.grid.starts_s
    assert group.least_on is not None
    assert group.most_on is not None
    assert list(group.least_on) == [int(s < 1_000.0) + int(s < 5_000.0) for s in starts]
    assert list(group.most_on) == [4 - int(s < 1_000.0) for s in starts]
    assert list(group.running) == [2]


def test_a_minimum_time_on_never_outweighs_a_limit() -> None:
    plant = facility([circuit("poi", None, 5_000.0)], [miner(f"m{n}", "poi") for n in range(3)])
    settled = {f"m{n}": AT + 1_000.0 for n in range(3)}
    (group,) = posed(plant, running=["m0", "m1", "m2"], settled_at=settled).problem.mining
    assert group.least_on is not None
    assert group.least_on.max() == 1


def test_starts_are_counted_day_by_day() -> None:
    plant = facility([circuit("poi", None, 100_000.0)], [miner("m0", "poi"), miner("m1", "poi")])
    plant = replace(plant, pacing=replace(Pacing(), max_cycles_per_day=3))
    found = posed(plant, cycles={"m0": 2, "m1": 9})
    (group,) = found.problem.mining
    first, second = group.start_limits
    assert (first.first, first.last, first.most) == (0, second.first, 1.0)
    assert (second.last, second.most) == (found.problem.grid.count, 6.0)
    assert found.problem.grid.starts_s[second.first] >= 86_400.0 > found.problem.grid.starts_s[second.first - 1]


def test_services_stand_in_the_order_of_their_priority_and_must_be_served() -> None:
    services = [Service("later", 9.0, priority=2), Service("first", 1.0, priority=1)]
    loads = [gpu("g0", "poi", "later"), gpu("g1", "poi", "first"), gpu("g2", "poi", None)]
    found = posed(facility([circuit("poi", None, 10_000.0)], loads, services), needs={"first": 450.0, "later": 200.0})
    assert found.services == ("first", "later", None)
    demands = [service.demand_tokens_per_s[0] for service in found.problem.inference]
    # A MWh above the lowest points counts as a Mtoken.
    assert demands == pytest.approx([250.0 / 3_600.0, 0.0, 0.0])
    penalties = [service.tiers[0].penalty_per_mtoken for service in found.problem.inference]
    assert penalties == [3 * STRICT_PER_MWH, 2 * STRICT_PER_MWH, STRICT_PER_MWH]
    assert [service.tiers[0].share for service in found.problem.inference] == [1.0, 1.0, 1.0]


def test_a_service_that_may_bend_is_posed_in_tokens() -> None:
    plant = facility([circuit("poi", None, 10_000.0)], [gpu("g0", "poi")], [Service("chat", 2.0, flex=0.25)])
    found = posed(plant, needs={"chat": 450.0})
    (chat,) = found.problem.inference
    assert chat.demand_tokens_per_s[0] == pytest.approx(1_200.0)
    assert chat.value_per_mtoken == 2.0
    flexible, strict = chat.tiers
    assert (flexible.share, flexible.penalty_per_mtoken, strict.share) == (0.25, 0.0, 0.75)
    (pool,) = chat.pools
    assert (pool.base_tokens_per_s, pool.active_mw, pool.least_active) == (400.0, 0.0, 1)
    assert pool.tokens_per_s_per_mw == pytest.approx([1_600.0 / 500e-6])
    # 3.2 tokens/s per W are 11.52 Mtoken per MWh.
    assert strict.penalty_per_mtoken == pytest.approx(STRICT_PER_MWH / 11_520.0)


def test_programs_and_contracts_are_laid_on_the_steps_that_they_touch() -> None:
    plant = replace(small(), accounts=(Account("own"), Account("guest")))
    hour = AT - 800.0 + HOUR_S
    found = posed(
        plant,
        peaks=(PeakCharge(hour, hour + 2 * HOUR_S, 9_000.0, 4_000.0), PeakCharge(AT - 90.0, AT - 9.0, 1.0, 0.0)),
        blocks=(PowerBlock(hour - 300.0, hour + HOUR_S, 6_000.0, 20.0),),
        budgets=(AccountBudget("own", hour, hour + HOUR_S, 0.5), AccountBudget("gone", hour, hour + HOUR_S, 0.5)),
        coincident_peak=PriceCurve((PriceInterval(hour, hour + 1_800.0, 90.0),)),
        limit_slack_per_mwh={"grid": 2_000.0},
        reserve_watts={"grid": 3_000.0, "gone": 1.0},
    ).problem
    # Steps of 10 min go on until the next whole hour after six of them: 5 to the hour, 6 in it, then one an hour.
    first = 5
    assert found.grid.starts_s[first] == hour - AT
    (peak,) = found.site.demand_charges
    assert (peak.first, peak.last, peak.per_mw, peak.floor_mw) == (first, first + 7, 9_000.0, 0.004)
    assert found.site.ppa_mw[first - 1 : first + 7] == pytest.approx([0.003, *[0.006] * 6, 0.0])
    assert found.site.sell_per_mwh is not None
    assert list(found.site.sell_per_mwh[first - 1 : first + 7]) == [20.0] * 7 + [0.0]
    assert found.site.coincident_per_mwh[first - 1 : first + 4] == pytest.approx([0.0, 90.0, 90.0, 90.0, 0.0])
    own, guest = found.accounts
    assert [(b.first, b.last, b.amount) for b in own.curtailment] == [(first, first + 6, 0.5)]
    assert guest.curtailment == ()
    assert {node.id: node.slack_per_mwh for node in found.circuits}["grid"] == 2_000.0
    (award,) = found.awards
    assert award.mw == pytest.approx(0.003)


def test_ramps_count_from_what_may_run_now() -> None:
    plant = facility([circuit("poi", None, 100_000.0)], [miner(f"m{n}", "poi", S21) for n in range(10)])
    plant = replace(plant, pacing=replace(Pacing(), economic_ramp_per_s=1e-5))
    (ramp,) = posed(plant, running=["m0", "m1"]).problem.ramps
    assert ramp.up_mw[:2] == pytest.approx(1e-5 * 0.1 * 600.0)
    assert ramp.now_least_mw == pytest.approx(2 * 2_585.0 / MW)
    assert ramp.now_most_mw == pytest.approx(2 * 3_485.0 / MW)
    free = replace(plant, pacing=replace(Pacing(), economic_ramp_per_s=10.0))
    assert posed(free).problem.ramps == ()
