"""What must hold of every problem, whatever its optimum is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from drawn_problems import FEEDERS, amounts, arrays, problems
from golden_kit import steps
from hypothesis import given, settings
from hypothesis import strategies as st

from mullet.planning.commitment.build import build
from mullet.planning.commitment.clp import WarmClp
from mullet.planning.commitment.highs import solve_with_highs
from mullet.planning.commitment.model import Model
from mullet.planning.commitment.problem import (
    Budget,
    Cooling,
    Floats,
    Problem,
    Tier,
)

LIMIT_S = 20.0
few = settings(max_examples=25, deadline=None)


def solved(made: Problem) -> tuple[Model, Floats, float]:
    model = build(made)
    solution = solve_with_highs(model.program, LIMIT_S)
    assert solution.optimal, solution.status
    assert model.program.violation(solution.values) <= 1e-6
    return model, solution.values, model.program.objective(solution.values)


def optimum(made: Problem) -> float:
    return solved(made)[2]


def same(value: float) -> object:
    return pytest.approx(value, rel=1e-6, abs=1e-5)


def slack_of(value: float) -> float:
    return 1e-6 * max(10.0, abs(value))


@few
@given(problems())
def test_backends_agree(made: Problem) -> None:
    program = build(made).program
    solution = WarmClp()(program, LIMIT_S)
    assert solution.optimal, solution.status
    assert program.objective(solution.values) == same(optimum(made))


@few
@given(problems(), st.integers(0, FEEDERS), st.data())
def test_more_limit_never_hurts(made: Problem, node: int, data: st.DataObject) -> None:
    more = made.circuits[node].limit_mw + data.draw(arrays(amounts, made.grid.count))
    circuits = list(made.circuits)
    circuits[node] = replace(made.circuits[node], limit_mw=more)
    before = optimum(made)
    assert optimum(replace(made, circuits=tuple(circuits))) >= before - slack_of(before)


@few
@given(problems(), st.data())
def test_more_promised_never_helps(made: Problem, data: st.DataObject) -> None:
    more = tuple(replace(award, mw=award.mw + data.draw(arrays(amounts, made.grid.count))) for award in made.awards)
    tighter = tuple(
        replace(account, uptime=tuple(replace(budget, amount=budget.amount + 1.0) for budget in account.uptime))
        for account in made.accounts
    )
    before = optimum(made)
    assert optimum(replace(made, awards=more, accounts=tighter)) <= before + slack_of(before)


@few
@given(problems(), st.integers(-10, 10).map(float))
def test_price_shift_costs_the_energy(made: Problem, shift: float) -> None:
    """What was best can still be done, and what is best then could be done before: equal where nothing moves."""
    model, values, before = solved(made)
    shifted = replace(made, site=replace(made.site, price_per_mwh=made.site.price_per_mwh + shift))
    _, moved, after = solved(shifted)
    energy = float(values[model.import_mw] @ made.grid.hours)
    moved_energy = float(moved[model.import_mw] @ made.grid.hours)
    assert after >= before - shift * energy - slack_of(before)
    assert after <= before - shift * moved_energy + slack_of(before)
    if np.allclose(values[model.import_mw], moved[model.import_mw], atol=1e-9):
        assert after == same(before - shift * energy)


@few
@given(problems(), st.randoms(use_true_random=False))
def test_order_of_groups_and_circuits_means_nothing(made: Problem, shuffled: Any) -> None:
    feeders = list(range(1, len(made.circuits)))
    shuffled.shuffle(feeders)
    order = [0, *feeders]
    place = {old: new for new, old in enumerate(order)}
    mining = [replace(group, circuit=place[group.circuit]) for group in made.mining]
    shuffled.shuffle(mining)
    services = tuple(
        replace(of, pools=tuple(replace(each, circuit=place[each.circuit]) for each in of.pools))
        for of in made.inference
    )
    other = replace(made, circuits=tuple(made.circuits[old] for old in order), mining=tuple(mining), inference=services)
    assert optimum(other) == same(optimum(made))


@few
@given(problems(), st.sampled_from([0.01, 0.5, 3.0, 100.0]))
def test_money_scales(made: Problem, times: float) -> None:
    assert optimum(_with_money(made, times)) == pytest.approx(
        times * optimum(made), rel=1e-6, abs=1e-5 * max(1.0, times)
    )


@few
@given(problems())
def test_twice_the_loads_are_two_groups(made: Problem) -> None:
    first, *others = made.mining
    double = replace(first, count=2 * first.count, running=2 * first.running)
    twins = [first, replace(first, key="twin"), *others]
    assert optimum(replace(made, mining=(double, *others))) == same(optimum(replace(made, mining=tuple(twins))))


@few
@given(problems(ramps=False), st.data())
def test_halved_step_can_only_help(made: Problem, data: st.DataObject) -> None:
    """Whoever may change his mind within a step need not; a ramp is left out because it is per step, not per hour."""
    step = data.draw(st.integers(0, made.grid.count - 1))
    before = optimum(made)
    assert optimum(_halved(made, step)) >= before - slack_of(before)


def _with_money(made: Problem, times: float) -> Problem:
    def scaled(price: float | None) -> float | None:
        return None if price is None else price * times

    def budgets(of: Sequence[Budget]) -> tuple[Budget, ...]:
        return tuple(replace(budget, slack_price=scaled(budget.slack_price)) for budget in of)

    site = made.site
    return replace(
        made,
        circuits=tuple(replace(each, slack_per_mwh=scaled(each.slack_per_mwh)) for each in made.circuits),
        mining=tuple(replace(group, start_cost=group.start_cost * times) for group in made.mining),
        inference=tuple(
            replace(
                of,
                value_per_mtoken=of.value_per_mtoken * times,
                tiers=tuple(Tier(tier.share, tier.penalty_per_mtoken * times) for tier in of.tiers),
            )
            for of in made.inference
        ),
        site=replace(
            site,
            price_per_mwh=site.price_per_mwh * times,
            adder_per_mwh=site.adder_per_mwh * times,
            coincident_per_mwh=site.coincident_per_mwh * times,
            earned_per_th_hour=site.earned_per_th_hour * times,
            demand_charges=tuple(replace(charge, per_mw=charge.per_mw * times) for charge in site.demand_charges),
        ),
        accounts=tuple(
            replace(each, curtailment=budgets(each.curtailment), uptime=budgets(each.uptime)) for each in made.accounts
        ),
        awards=tuple(replace(award, slack_per_mwh=scaled(award.slack_per_mwh)) for award in made.awards),
        ramps=tuple(replace(ramp, slack_per_mwh=scaled(ramp.slack_per_mwh)) for ramp in made.ramps),
    )


def _halved(made: Problem, step: int) -> Problem:
    """Return the problem with one step as two of half its length, the same data in both."""

    def twice(values: Floats) -> Floats:
        return np.insert(values, step, values[step])

    def later(last: int) -> int:
        return last + 1

    hours = twice(made.grid.hours)
    hours[step : step + 2] /= 2.0
    site = made.site
    names = ("price_per_mwh", "adder_per_mwh", "coincident_per_mwh", "earned_per_th_hour", "fixed_mw", "ppa_mw")
    over_time: dict[str, Any] = {name: twice(getattr(site, name)) for name in names}
    return replace(
        made,
        grid=steps(*hours),
        circuits=tuple(
            replace(
                each,
                limit_mw=twice(each.limit_mw),
                cooling=tuple(Cooling(twice(part.slope), twice(part.fixed_mw)) for part in each.cooling),
            )
            for each in made.circuits
        ),
        mining=tuple(replace(group, start_cost=twice(group.start_cost)) for group in made.mining),
        inference=tuple(replace(of, demand_tokens_per_s=twice(of.demand_tokens_per_s)) for of in made.inference),
        site=replace(
            site,
            **over_time,
            demand_charges=tuple(replace(charge, last=later(charge.last)) for charge in site.demand_charges),
        ),
        accounts=tuple(
            replace(
                each,
                curtailment=tuple(replace(budget, last=later(budget.last)) for budget in each.curtailment),
                uptime=tuple(replace(budget, last=later(budget.last)) for budget in each.uptime),
            )
            for each in made.accounts
        ),
        awards=tuple(replace(award, mw=twice(award.mw)) for award in made.awards),
    )
