"""Standing reserve by expected cost, and how far inference bends: from the policy's words to what is done."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planning_kit import AT, H100, circuit, facility, gpu, miner, small, snapshot

from mullet.domain.facility import DemandStep, Service
from mullet.domain.feeds import PriceCurve, PriceInterval
from mullet.domain.load import OperatingPoint
from mullet.domain.plan import Forecast, Obligations, PlanRequest
from mullet.planning.accounting import account
from mullet.planning.allocate import allocate
from mullet.planning.arming import armed_watts, mining_margin_per_mwh, reserve_of, value_per_mwh
from mullet.planning.bending import bent_watts
from mullet.planning.guard import guard
from mullet.planning.horizon import plan_horizon
from mullet.planning.index import index_of
from mullet.planning.merit import Market

STEPS = (DemandStep(0.5, 0.0), DemandStep(0.9, 300.0), DemandStep(1.0, 1_500.0))


def market(price_per_mwh: float) -> Market:
    return Market(price_per_mwh, 0.0, 50.0, 0.0, 0.0)


def request(site, price_per_mwh, need_watts):
    curve = PriceCurve((PriceInterval(AT - 3_600.0, AT + 40 * 3_600.0, price_per_mwh),))
    return PlanRequest(
        facility=replace(site, grid_steps=((300.0, 4), (3_600.0, 4))),
        at=AT,
        forecast=Forecast(curve, 50.0, {"chat": need_watts}),
        obligations=Obligations(),
        available=frozenset(site.load_by_id),
        fixed_watts={},
        running=frozenset(site.load_by_id),
    )


@pytest.mark.parametrize(("value", "armed"), [(2.0, {}), (5.0, {"chat": 300.0}), (20.0, {"chat": 1_500.0})])
def test_the_reserve_weighs_the_mining_given_up_against_the_tokens_lost(value: float, armed: dict[str, float]) -> None:
    """Held for an hour a MW costs 30.8 USD of mining; short it costs 11,520 Mtoken an hour for 7.5 s: 24 Mtoken.

    2 USD a Mtoken: a step's chance would have to exceed 0.64, it is 0.5. 5 USD: 0.26, so the first 300 W are kept.
    20 USD: 0.064, so that even the steps of one in ten are.
    """
    site = small(services=(Service("chat", value_per_mtoken=value, steps=STEPS),))
    (service,) = site.services
    # 1,600 tokens/s more for 500 W: 11,520 Mtoken per MWh.
    assert value_per_mwh(site, service) == pytest.approx(11_520.0 * value)
    # The S19 hashes 110 TH/s for 3,235 W: 70.8 USD/MWh at 50 USD/PH/d, least of all steps that pay at 40.
    assert mining_margin_per_mwh(site, market(40.0)) == pytest.approx(110 * 50 / 24_000 / 3_235e-6 - 40.0)
    assert index_of(site).lead_s["grid"] == pytest.approx(7.5)
    assert armed_watts(site, market(40.0)) == armed
    found = reserve_of(site, service, market(40.0))
    assert [each.watts for each in found.alternatives] == [0.0, 300.0, 1_500.0]
    assert found.chosen.expected_cost == min(each.expected_cost for each in found.alternatives)


def test_room_is_free_where_mining_does_not_pay_and_dear_where_it_pays_well() -> None:
    cheap = small(services=(Service("chat", 2.0, steps=STEPS),))
    assert mining_margin_per_mwh(cheap, market(500.0)) == 0.0
    assert armed_watts(cheap, market(500.0)) == {"chat": 1_500.0}
    worthless = small(services=(Service("chat", value_per_mtoken=0.001, steps=STEPS),))
    assert armed_watts(worthless, market(-400.0)) == {}
    assert armed_watts(small(services=(Service("chat", 0.001, steps=STEPS, reserve_watts=250.0),)), market(-400.0)) == {
        "chat": 250.0
    }
    assert armed_watts(small(), market(40.0)) == {}


def test_the_plan_keeps_the_reserve_free_and_tells_it() -> None:
    site = small(services=(Service("chat", 20.0, steps=(DemandStep(1.0, 1_500.0),)),))
    asked = request(site, 20.0, 900.0)
    made, bare = plan_horizon(asked, 5.0), plan_horizon(request(small(), 20.0, 900.0), 5.0)
    assert made.intervals[0].armed_watts == {"chat": 1_500.0}
    assert bare.intervals[0].armed_watts == {}
    assert made.intervals[0].budget_watts["grid"] <= 50_000.0 - 1_500.0 < bare.intervals[0].budget_watts["grid"]
    assert guard(made, asked) == ()


def test_power_bends_along_the_curve() -> None:
    curve = [(4, H100)]
    assert bent_watts(curve, 2_800.0, 0.0) == 2_800.0
    # 2,000 tokens/s each at 700 W, 400 at 200 W: 10 % fewer are 62.5 W less.
    assert bent_watts(curve, 2_800.0, 0.1) == pytest.approx(4 * 637.5)
    assert bent_watts(curve, 2_800.0, 1.0) == pytest.approx(800.0)
    assert bent_watts(curve, 800.0, 0.5) == 800.0
    flat = [(1, (OperatingPoint("low", 200.0), OperatingPoint("high", 700.0)))]
    assert bent_watts(flat, 700.0, 0.5) == 700.0


@pytest.mark.parametrize(
    ("value", "price", "bends"), [(2.0, 60.0, False), (0.0005, 60.0, True), (0.0005, -30.0, False)]
)
def test_inference_bends_only_where_its_tokens_earn_less_than_its_power(
    value: float, price: float, bends: bool
) -> None:
    """11,520 Mtoken per MWh earn 5.76 USD at 0.0005 a Mtoken: less than 60 USD, more than power that is paid for."""
    site = small(services=(Service("chat", value_per_mtoken=value, flex=0.1),))
    asked = request(site, price, 2_800.0)
    plan = plan_horizon(asked, 5.0)
    assert guard(plan, asked) == ()
    group = next(group for group in plan.groups if group.service == "chat")
    given = plan.intervals[0].group_watts[group.key]
    assert given == pytest.approx(4 * 637.5 if bends else 2_800.0, abs=1.0)
    seen = snapshot(site, limit_watts=700.0, needs={"chat": 2_800.0})
    wanted = allocate(site, seen, account(site, seen), plan)
    limits = [wanted.setpoints[load.id] for load in site.loads_of_service["chat"]]
    assert sum(each.watts for each in limits) == pytest.approx(given, abs=4.0)
    assert ("flex" in limits[0].rule) is bends


def test_the_guard_refuses_a_plan_that_bends_further_than_flex_allows() -> None:
    loose = small(services=(Service("chat", value_per_mtoken=0.0005, flex=0.3),))
    tight = small(services=(Service("chat", value_per_mtoken=0.0005, flex=0.1),))
    plan = plan_horizon(request(loose, 60.0, 2_800.0), 5.0)
    assert guard(plan, request(loose, 60.0, 2_800.0)) == ()
    assert any("inference gets" in words for words in guard(plan, request(tight, 60.0, 2_800.0)))


def test_a_service_without_flex_gets_its_need_whatever_it_earns() -> None:
    site = facility([circuit("grid", None, 9_000.0)], [gpu("g", "grid"), miner("m", "grid")], [Service("chat", 0.0)])
    plan = plan_horizon(request(site, 60.0, 700.0), 5.0)
    group = next(group for group in plan.groups if group.service == "chat")
    assert plan.intervals[0].group_watts[group.key] == pytest.approx(700.0)
