"""A plan's reasons: spans and their worth, break-evens, what flips the next load; each against numbers by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from planning_kit import AT, S21, circuit, facility, gpu, miner, small

from mullet.domain.codec import encode
from mullet.domain.facility import Auxiliary, Economics, Pacing, Service
from mullet.domain.feeds import Cause, Curtailment, PriceCurve, PriceInterval
from mullet.domain.plan import Forecast, Obligations, Plan, PlanInterval, PlanRequest, Rung, group_loads
from mullet.planning.difference import difference, joined
from mullet.planning.explain import Conditions, bindings, certificate, conditions_of, explain, explain_group, mean_watts
from mullet.planning.greedy import plan_merit_order
from mullet.planning.wording import binding_words, moment, plan_words, span
from mullet.planning.worth import DEMAND, PRICE, START, group_watts

# 50 per PH and day are 0.229167 per hour for 110 TH/s; over 3,235 W more than asleep that is 70.84 per MWh.
EARNED = 50.0 / 1_000.0 / 24.0 * 110.0
BREAK_EVEN = EARNED / 3_235.0 * 1e6
MOST = 3_250.0 * 1.05
STEP = MOST - 15.0 * 1.05


def plant(loads=4, watts=50_000.0, auxiliaries=(), **economics):
    circuits = (circuit("grid", None, 60_000.0), circuit("pdu", "grid", watts))
    miners = [miner(f"m{n}", "pdu") for n in range(loads)]
    return facility(
        circuits, miners, auxiliaries=auxiliaries, economics=Economics(hashprice_per_ph_day=50.0, **economics)
    )


def plan_for(site, *steps, minutes=(), groups=None, **fields):
    """A plan from (price, counts per group, more fields) per interval, each an hour long unless minutes are given."""
    groups = group_loads(site) if groups is None else groups
    intervals, start = [], AT
    for number, (price, counts, extra) in enumerate(steps):
        end = start + 60.0 * (minutes[number] if minutes else 60.0)
        of_group = {group.key: count for group, count in zip(groups, counts, strict=True)}
        intervals.append(PlanInterval(start, end, price, of_group, **{"budget_watts": {}, **extra}))
        start = end
    return Plan("p", AT, start, Rung.OPTIMAL, groups, tuple(intervals), **{"objective": 10.0, **fields})


def now(**changes):
    return Conditions(**{"at": AT, "hashprice_per_ph_day": 50.0, **changes})


def only(site, plan, **changes):
    return explain_group(plan, site, now(**changes), plan.groups[0].key)


def shadow(**prices):
    return {"shadow_price_per_mwh": prices}


def test_a_span_is_worth_its_mean_over_time() -> None:
    site = plant()
    steps = [(40.0, [(0, 4)], shadow(pdu=price) if price else {}) for price in (0.0, 40.0, 60.0, 0.0)]
    (found,) = bindings(plan_for(site, *steps, minutes=(5, 5, 15, 60)), site, now())
    assert (found.rule, found.subject, found.start, found.end) == ("circuit", "pdu", AT + 300.0, AT + 1_500.0)
    assert found.mean_per_mwh == pytest.approx((40.0 * 5 + 60.0 * 15) / 20)
    assert found.most_per_mwh == 60.0
    assert found.worth_per_mw == pytest.approx(55.0 / 3.0)
    assert (found.limit_watts, found.cause) == (50_000.0, None)


def test_an_interval_in_between_ends_a_span() -> None:
    site = plant()
    steps = [(40.0, [(0, 4)], shadow(pdu=price)) for price in (9.0, 0.0, 9.0)]
    found = bindings(plan_for(site, *steps), site, now())
    assert [(one.start - AT, one.end - AT) for one in found] == [(0.0, 3_600.0), (7_200.0, 10_800.0)]


def test_a_ceiling_of_a_program_is_a_span_of_its_own_and_named() -> None:
    site = plant()
    ceiling = Curtailment("dr", "pdu", 8_000.0, AT + 3_600.0, AT + 7_200.0, Cause.DEMAND_RESPONSE, AT)
    steps = [(40.0, [(0, 4)], shadow(pdu=30.0)) for _ in range(3)]
    found = bindings(plan_for(site, *steps), site, now(curtailments=(ceiling,)))
    assert [(one.limit_watts, one.cause) for one in found] == [
        (50_000.0, None),
        (8_000.0, Cause.DEMAND_RESPONSE),
        (50_000.0, None),
    ]
    assert "pdu binds at 8 kW (demand response)" in binding_words(found[1], "USD")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("ramp:grid", "the ramp limit of grid binds"),
        ("award:pdu", "the reserve sold at pdu binds"),
        ("peak:0", "demand charge 0 binds"),
        ("curtailment:hosted", "the curtailment budget of hosted binds"),
        ("uptime:hosted", "the uptime promised to hosted binds"),
        ("starts:g001", "starts g001 binds"),
    ],
)
def test_each_program_that_binds_is_told(key: str, words: str) -> None:
    site = plant()
    plan = plan_for(site, (40.0, [(0, 4)], {"program_price_per_mwh": {key: 12.0, "ramp:none": 0.0}}))
    (found,) = bindings(plan, site, now())
    assert f"{found.rule}:{found.subject}" == key
    assert found.worth_per_mw == 12.0
    assert binding_words(found, "USD").startswith(words)
    assert "12.0 USD" in binding_words(found, "USD")


def test_a_step_breaks_even_where_energy_costs_what_hashing_earns() -> None:
    site = plant()
    (step,) = only(site, plan_for(site, (40.0, [(1, 3)], {}))).steps
    assert (step.point_from, step.point_to, step.loads) == ("off", "on", 3)
    assert step.break_even_per_mwh == pytest.approx(BREAK_EVEN)
    assert step.margin_per_mwh == pytest.approx(BREAK_EVEN - 40.0)
    assert step.margin_per_hour == pytest.approx(EARNED - 40.0 * 3_235.0 / 1e6)
    assert step.break_even_hashprice == pytest.approx(50.0 * 40.0 / BREAK_EVEN)


def test_fee_adder_and_auxiliaries_lower_the_break_even() -> None:
    site = plant(auxiliaries=(Auxiliary("pumps", "pdu", follows=0.25),), pool_fee=0.02, energy_adder_per_mwh=9.0)
    (step,) = only(site, plan_for(site, (40.0, [(1, 3)], {}))).steps
    assert step.break_even_per_mwh == pytest.approx(BREAK_EVEN * 0.98 / 1.25 - 9.0)
    (told,) = only(site, plan_for(site, (40.0, [(1, 3)], {"adder_per_mwh": 20.0}))).steps
    assert told.break_even_per_mwh == pytest.approx(BREAK_EVEN * 0.98 / 1.25 - 20.0)


def test_a_load_that_does_not_pay_waits_for_a_price() -> None:
    found = only(site := plant(), plan_for(site, (100.0, [(3, 1)], {})))
    assert found.more is not None
    assert (found.more.loads, found.more.held_by) == (3, None)
    assert found.more.price_per_mwh == pytest.approx(BREAK_EVEN)
    assert found.more.hashprice == pytest.approx(50.0 * 100.0 / BREAK_EVEN)
    # What runs at a loss stays for what a restart would cost: no price of now decides.
    assert found.less is not None
    assert (found.less.price_per_mwh, found.less.held_by) == (None, START)


def test_a_load_that_pays_goes_above_its_break_even() -> None:
    found = only(site := plant(), plan_for(site, (40.0, [(0, 4)], {})))
    assert found.more is None
    assert found.less is not None
    assert (found.less.point_from, found.less.point_to, found.less.loads) == ("on", "off", 4)
    assert found.less.price_per_mwh == pytest.approx(BREAK_EVEN)


def test_a_full_circuit_says_at_which_limit_the_next_load_goes() -> None:
    site = plant(watts=9_000.0)
    found = only(site, plan_for(site, (40.0, [(2, 2)], shadow(pdu=29.0))), fixed_watts={"pdu": 1_000.0})
    drawn = 2 * MOST + 2 * 15.0 * 1.05 + 1_000.0
    assert found.more is not None
    assert (found.more.held_by, found.more.price_per_mwh, found.more.limit_watts) == ("circuit:pdu", None, 9_000.0)
    assert found.more.limit_for_next_watts == pytest.approx(drawn + STEP)
    assert found.more.limit_for_all_watts == pytest.approx(drawn + 2 * STEP)


def test_a_full_circuit_without_a_price_of_its_own_still_holds() -> None:
    site = plant(watts=9_000.0)
    found = only(site, plan_for(site, (40.0, [(2, 2)], {})))
    assert found.more is not None
    assert found.more.held_by == "circuit:pdu"


def test_what_is_armed_takes_room() -> None:
    loads = [gpu("g0", "pdu"), *(miner(f"m{n}", "pdu") for n in range(2))]
    site = facility((circuit("grid", None, 60_000.0), circuit("pdu", "grid", 8_000.0)), loads, (Service("chat", 2.0),))
    roomy = plan_for(site, (40.0, [(1, 0), (1, 1)], {}))
    armed = plan_for(site, (40.0, [(1, 0), (1, 1)], {"armed_watts": {"chat": 2_000.0}}))
    key = roomy.groups[1].key
    free, kept = (explain_group(plan, site, now(), key).more for plan in (roomy, armed))
    assert free is not None
    assert free.held_by == START
    assert kept is not None
    assert kept.held_by == "circuit:pdu"


def test_a_circuit_that_is_too_cheap_to_outbid_a_load_does_not_hold_it() -> None:
    site = plant()
    found = only(site, plan_for(site, (40.0, [(2, 2)], shadow(pdu=1.0))))
    assert found.more is not None
    assert found.more.held_by == START


def test_a_program_that_binds_holds_loads_that_pay() -> None:
    site = plant()
    extra = {"program_price_per_mwh": {"ramp:grid": 31.0, "award:elsewhere": 99.0}}
    found = only(site, plan_for(site, (40.0, [(2, 2)], extra)))
    assert found.more is not None
    assert found.more.held_by == "ramp:grid"


def test_the_next_change_comes_of_the_price() -> None:
    site = plant()
    plan = plan_for(site, (40.0, [(0, 4)], {}), (45.0, [(0, 4)], {}), (300.0, [(3, 1)], {}))
    change = only(site, plan).next_change
    assert change is not None
    assert (change.at, change.loads, change.counts, change.because) == (AT + 7_200.0, 3, (3, 1), PRICE)
    assert change.watts == pytest.approx(-3 * STEP)
    assert only(site, plan, at=AT + 7_300.0).next_change is None


def test_the_next_change_comes_of_a_circuit() -> None:
    site = plant()
    change = only(site, plan_for(site, (40.0, [(0, 4)], {}), (41.0, [(2, 2)], shadow(pdu=20.0)))).next_change
    assert change is not None
    assert change.because == "circuit:pdu"
    freed = only(site, plan_for(site, (40.0, [(2, 2)], shadow(pdu=20.0)), (41.0, [(0, 4)], {}))).next_change
    assert freed is not None
    assert freed.because == "circuit:pdu"
    paced = only(site, plan_for(site, (40.0, [(2, 2)], {}), (41.0, [(0, 4)], {}))).next_change
    assert paced is not None
    assert paced.because == START


def test_a_change_of_mode_counts_the_loads_that_move() -> None:
    site = facility((circuit("grid", None, 60_000.0),), [miner(f"m{n}", "grid", S21) for n in range(5)])
    plan = plan_for(site, (40.0, [(0, 1, 4)], {}), (85.0, [(0, 5, 0)], {}))
    change = only(site, plan).next_change
    assert change is not None
    # 35 TH/s for 900 W break even at 81.02, 165 TH/s for 2,585 W at 132.98: only the upper step falls.
    assert (change.loads, change.because) == (4, PRICE)
    found = only(site, plan)
    assert [round(step.break_even_per_mwh, 2) for step in found.steps] == [132.98, 81.02]
    assert found.less is not None
    assert (found.less.point_from, found.less.point_to, found.less.loads) == ("normal", "low", 4)
    assert found.more is not None
    assert (found.more.point_from, found.more.point_to, found.more.loads) == ("low", "normal", 1)


def test_gpus_between_two_points_draw_what_their_circuit_is_given() -> None:
    loads = [gpu("g0", "pdu-ai"), gpu("g1", "pdu-ai"), miner("m0", "pdu-ai")]
    site = facility((circuit("grid", None, 60_000.0), circuit("pdu-ai", "grid", 9_000.0)), loads)
    extra = {"budget_watts": {"grid": MOST + 900.0, "pdu-ai": MOST + 900.0}}
    interval = plan_for(site, (40.0, [(2, 0), (0, 1)], extra)).intervals[0]
    first, second = (group.key for group in group_loads(site))
    assert group_watts(interval, site) == pytest.approx({first: 900.0, second: MOST})
    assert group_watts(replace(interval, group_watts={first: 777.0}), site)[first] == 777.0


def test_inference_bends_last_and_says_at_what_price() -> None:
    site = facility((circuit("grid", None, 60_000.0),), [gpu("g0", "grid")], (Service("chat", value_per_mtoken=2.0),))
    found = only(site, plan_for(site, (40.0, [(0, 1)], {})))
    # 1,600 tokens/s at 2 per million earn 11.52 an hour with 500 W.
    assert found.steps[0].break_even_per_mwh == pytest.approx(11.52 / 500e-6)
    assert (found.more, found.service) == (None, "chat")
    worthless = replace(site, services=(Service("chat", value_per_mtoken=0.0),))
    bent = only(worthless, plan_for(worthless, (40.0, [(0, 1)], {}))).less
    assert bent is not None
    assert (bent.held_by, bent.price_per_mwh) == (DEMAND, None)


def test_what_is_armed_costs_what_mining_would_have_earned() -> None:
    site = small(services=(Service("chat", 2.0),))
    counts = [(4, 0), (0, 4), (0, 0, 10)]
    steps = [
        (40.0, counts, {"armed_watts": {"chat": 2_000.0}, **shadow(**{"pdu-ai": 30.0, "pdu-m": 99.0})}),
        (40.0, counts, {"armed_watts": {"chat": 2_000.0}}),
        (40.0, counts, {"armed_watts": {"chat": 500.0}}),
    ]
    found = explain(plan_for(site, *steps), site, now())
    assert [(one.start - AT, one.watts) for one in found.armed] == [(0.0, 2_000.0), (7_200.0, 500.0)]
    assert found.armed[0].cost == pytest.approx(30.0 * 0.002)
    assert any("2 kW stay free for a step in demand of chat" in line for line in plan_words(found))


@pytest.mark.parametrize(
    ("objective", "bound", "gap", "percent"),
    [(99.0, 100.0, 1.0, 1.0), (-101.0, -100.0, 1.0, 1.0), (0.0, 0.0, 0.0, None), (5.0, None, None, None)],
)
def test_the_certificate(objective: float, bound: float | None, gap: float | None, percent: float | None) -> None:
    found = certificate(plan_for(plant(), (40.0, [(0, 4)], {}), objective=objective, bound=bound))
    assert (found.gap, found.gap_percent) == (gap, percent)


def test_power_counts_auxiliaries_and_what_is_fixed() -> None:
    site = plant(auxiliaries=(Auxiliary("pumps", "pdu", follows=0.1),))
    found = explain(plan_for(site, (40.0, [(0, 4)], {})), site, now(fixed_watts={"grid": 500.0}))
    assert found.stretches[0].drawn_watts == pytest.approx(4 * MOST * 1.1 + 500.0)
    assert found.stretches[0].limit_watts == 60_000.0
    assert mean_watts(found.stretches, found.groups[0].key) == pytest.approx(4 * MOST)


def test_a_plan_of_other_groups_is_no_answer() -> None:
    with pytest.raises(KeyError, match="g001"):
        explain_group(plan_for(plant(4), (40.0, [(0, 4)], {})), plant(5), now(), "g001:bank-pdu")


def test_times_and_spans_are_read_in_utc() -> None:
    assert moment(0.0) == "Thu 00:00"
    assert span(0.0, 7_500.0) == "Thu 00:00-02:05"
    assert span(0.0, 90_000.0) == "Thu 00:00-Fri 01:00"


def test_two_plans_are_compared_where_both_lie() -> None:
    site = plant()
    before = explain(plan_for(site, (40.0, [(0, 4)], {}), (40.0, [(0, 4)], {}), objective=10.0), site, now())
    steps = [(45.0, [(0, 4)], {}), (45.0, [(2, 2)], {}), (45.0, [(2, 2)], {})]
    after = explain(plan_for(site, *steps, minutes=(30, 60, 60), objective=7.5), site, now())
    found = difference(before, after)
    assert found.objective == -2.5
    assert [(p.start - AT, p.end - AT) for p in found.pieces] == [
        (0, 1_800),
        (1_800, 3_600),
        (3_600, 5_400),
        (5_400, 7_200),
    ]
    assert [p.drawn_watts for p in found.pieces] == pytest.approx([0.0, -2 * STEP, -2 * STEP, -2 * STEP])
    assert found.mwh == pytest.approx(-2 * STEP * 1.5 / 1e6)
    assert found.mean_watts == pytest.approx(-2 * STEP * 0.75)
    assert found.most_watts == pytest.approx(-2 * STEP)
    assert [(p.start - AT, p.end - AT) for p in joined(found.pieces)] == [(0, 1_800), (1_800, 7_200)]
    assert {p.price_per_mwh for p in found.pieces} == {5.0}


def asked(site, price, **forecast):
    start = math.floor(AT / 3_600.0) * 3_600.0
    curve = PriceCurve((PriceInterval(start, start + 200_000.0, price),))
    known = Forecast(curve, **{"hashprice_per_ph_day": 50.0, "needs_watts": {"chat": 1_000.0}, **forecast})
    return PlanRequest(site, AT, known, Obligations(), frozenset(site.load_by_id), {}, frozenset())


def first(request, key):
    return plan_merit_order(request).intervals[0].counts[key]


@pytest.mark.parametrize("price", [10.0, 60.0, 75.0, 100.0, 200.0])
def test_what_is_said_to_flip_the_next_load_does(price: float) -> None:
    """Against a planner: just beyond the price or hashprice that is told counts change, just before it they stay."""
    site = small(
        services=(Service("chat", 2.0),),
        economics=Economics(hashprice_per_ph_day=50.0, energy_adder_per_mwh=4.0, deadband_per_mwh=0.0),
        pacing=replace(Pacing(), economic_ramp_per_s=10.0),
    )
    request = asked(site, price)
    found = explain(plan_merit_order(request), site, conditions_of(request))
    tried = 0
    for worth in found.groups[1:]:
        for switch, up in ((worth.more, 1.0), (worth.less, -1.0)):
            if switch is None or switch.price_per_mwh is None or switch.hashprice is None:
                continue
            tried += 1
            assert first(asked(site, switch.price_per_mwh + up * 0.01), worth.key) == worth.counts
            assert first(asked(site, switch.price_per_mwh - up * 0.01), worth.key) != worth.counts
            hashprice = switch.hashprice
            assert first(asked(site, price, hashprice_per_ph_day=hashprice - up * 0.01), worth.key) == worth.counts
            assert first(asked(site, price, hashprice_per_ph_day=hashprice + up * 0.01), worth.key) != worth.counts
    assert tried


def test_the_limit_that_is_told_lets_the_next_load_go_and_all() -> None:
    site = small(m_watts=20_000.0)
    request = asked(site, 10.0)
    worth = explain(plan_merit_order(request), site, conditions_of(request)).groups[2]
    assert worth.more is not None
    assert worth.more.held_by == "circuit:pdu-m"
    assert worth.more.limit_for_next_watts is not None
    assert worth.more.limit_for_all_watts is not None

    def running(watts: float) -> int:
        roomy = replace(
            site, circuits=tuple(replace(c, usable_watts=watts) if c.id == "pdu-m" else c for c in site.circuits)
        )
        return sum(first(asked(roomy, 10.0), worth.key)[1:])

    here = sum(worth.counts[1:])
    assert running(worth.more.limit_for_next_watts - 1.0) == here
    assert running(worth.more.limit_for_next_watts + 1.0) == here + 1
    assert running(worth.more.limit_for_all_watts + 1.0) == here + worth.more.loads


def test_an_explanation_is_plain_data() -> None:
    site = small(services=(Service("chat", 2.0),))
    request = asked(site, 60.0)
    told = encode(explain(plan_merit_order(request), site, conditions_of(request)))
    assert [group["key"] for group in told["groups"]] == [group.key for group in group_loads(site)]
    assert json.loads(json.dumps(told, allow_nan=False)) == told
