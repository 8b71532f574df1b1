from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from commitment_kit import random_problem, relax
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mullet.planning.commitment.certificate import Schedule, evaluate, market_prices, violations
from mullet.planning.commitment.problem import (
    Account,
    Award,
    Budget,
    CircuitLimit,
    Cooling,
    DemandCharge,
    Grid,
    Inference,
    Mining,
    Pool,
    Problem,
    Ramp,
    Site,
    StartLimit,
    Tier,
)
from mullet.planning.commitment.schedule import relaxed_schedule

MTOKEN = 1e6 / 3600.0
"""Tokens/s that make a Mtoken an hour."""


def facility() -> Problem:
    """Return ten loads of 1 + 1 MW and four GPUs of 0.5 + 0.5 MW over hours 1, 1, 2 at $50, $10, $20."""
    three = np.ones(3)
    group = Mining(
        "m", 1, 10, np.array([1.1, 1.0]), np.array([1.0, 1.0]), np.array([1.0, 0.5]), 3.0 * three, np.array([4, 0]),
        min_on_s=5_400.0, min_off_s=5_400.0, account=0,
    )  # fmt: skip
    pool = Pool("p", 2, 4, 1, 0.5, 1.0 * MTOKEN, np.array([0.5]), np.array([4.0 * MTOKEN]))
    return Problem(
        Grid(np.array([0.0, 3600.0, 7200.0]), np.array([1.0, 1.0, 2.0])),
        (
            CircuitLimit("poi", -1, 30.0 * three, cooling=(Cooling(0.1 * three, 0.2 * three),)),
            CircuitLimit("mine", 0, 15.0 * three, follow=0.05),
            CircuitLimit("hall", 0, 5.0 * three),
        ),
        (group,),
        (Inference("chat", (pool,), 6.0 * MTOKEN * three, 10.0, (Tier(0.25, 2.0), Tier(0.25, 7.0))),),
        Site(
            np.array([50.0, 10.0, 20.0]), 2.0 * three, np.array([0.0, 0.0, 5.0]), 100.0 * three, three, 8.0 * three,
            np.array([45.0, 5.0, 15.0]), (DemandCharge(0, 2, 4.0, 9.0),),
        ),
        (Account("owner"),),
    )  # fmt: skip


def standing() -> Schedule:
    """Return a schedule that breaks nothing: 4, 6, 6 loads run, one of them high in the second hour."""
    return Schedule(
        (np.array([[4, 6, 6], [0, 1, 0]]),),
        (np.array([0, 2, 0]),),
        (np.array([0.5, 1.0, 0.5]),),
        (np.array([4, 4, 3]),),
    )


def test_every_sum_is_the_one_made_by_hand() -> None:
    result = evaluate(facility(), standing())
    # Managed load expected: mining 4, 7, 6; pool 4 * 0.5 + 0.5 = 2.5, 3, 2. Auxiliaries 5 % of mining, cooling
    # 10 % + 0.2 of all, fixed 1: 6.5 + 0.2 + 0.85 + 1 = 8.55, 10 + 0.35 + 1.2 + 1 = 12.55, 8 + 0.3 + 1 + 1 = 10.3.
    assert result.import_mw == pytest.approx([8.55, 12.55, 10.3])
    # At most the first step of a load's curve draws 1.1 MW: 4.4, 7.6, 6.6 at mine, times 1.05.
    assert result.circuit_mw[1] == pytest.approx([4.62, 7.98, 6.93])
    assert result.circuit_mw[0] == pytest.approx(
        [4.62 + 2.5 + 0.1 * 6.9 + 0.2, 7.98 + 3.0 + 0.1 * 10.6 + 0.2, 6.93 + 2.0 + 0.1 * 8.6 + 0.2]
    )
    assert result.hashing == pytest.approx(100.0 * (4.0 + 6.5 + 2 * 6.0))
    # 4 + 2 = 6, 4 + 4 = 8 and 3 + 2 = 5 Mtoken/h are made of the 6 wanted; one is short for two hours at $2.
    assert result.inference == pytest.approx(10.0 * (6.0 + 6.0 + 2 * 5.0))
    assert result.unserved_cost == pytest.approx(2 * 2.0)
    assert result.unserved[0] == pytest.approx([0.0, 0.0, MTOKEN])
    assert result.energy == pytest.approx(0.55 * 52.0 + 4.55 * 12.0 + 2 * 2.3 * 22.0)
    assert result.coincident == pytest.approx(2 * 2.3 * 5.0)
    assert result.resale == pytest.approx(0.0)
    assert result.starts == pytest.approx(6.0)
    assert result.demand_charges == pytest.approx(4.0 * 3.55)
    assert result.slacks == 0.0
    costs = result.energy + result.coincident + 6.0 + 4.0 + result.demand_charges
    assert result.earned == pytest.approx(2250.0 + 220.0 - costs)
    assert violations(facility(), standing()) == ()


def test_what_is_left_of_power_bought_ahead_is_sold() -> None:
    problem = facility()
    result = evaluate(replace(problem, site=replace(problem.site, ppa_mw=np.full(3, 9.0))), standing())
    assert result.resale == pytest.approx(0.45 * 45.0)


def test_the_second_tier_pays_its_own_penalty() -> None:
    schedule = replace(standing(), active=(np.array([4, 4, 3]),), pool_mw=(np.array([0.0, 1.0, 0.5]),))
    # 4 Mtoken of 6 in the first hour: 1.5 at $2, 0.5 at $7.
    assert evaluate(facility(), schedule).unserved_cost == pytest.approx(3.0 + 3.5 + 4.0)


def test_limits_with_a_price_cost_what_they_are_missed_by() -> None:
    problem = facility()
    circuits = (problem.circuits[0], replace(problem.circuits[1], limit_mw=np.full(3, 7.0), slack_per_mwh=100.0))
    window = Budget(1, 3, 20.0, 3.0)
    priced = replace(
        problem,
        circuits=(*circuits, problem.circuits[2]),
        accounts=(Account("owner", (window,), (window,)),),
        awards=(Award(0, np.array([5.0, 5.0, 5.0]), 10.0),),
        ramps=(Ramp(0, np.full(3, 2.0), np.full(3, 0.5), 4.0, 4.0, 1.0),),
    )
    over = 0.98 * 100.0
    # Ten loads at 2 MW: 20 - 7 held back for one hour, 20 - 6 for two; 6 + 2 * 6 load-hours of 20.
    held, run = (13.0 + 28.0 - 20.0) * 3.0, (20.0 - 18.0) * 3.0
    short = 1.0 * 10.0
    moves = (1.0 + 2 * 0.5) * 1.0
    assert evaluate(priced, standing()).slacks == pytest.approx(over + held + run + short + moves)
    assert violations(priced, standing()) == ()


def _limit(problem: Problem) -> Problem:
    mine = replace(problem.circuits[1], limit_mw=np.array([15.0, 7.9, 15.0]))
    return replace(problem, circuits=(problem.circuits[0], mine, problem.circuits[2]))


def _group(**changes: object) -> Callable[[Problem], Problem]:
    return lambda problem: replace(problem, mining=(replace(problem.mining[0], **changes),))  # type: ignore[arg-type]


def _account(account: Account) -> Callable[[Problem], Problem]:
    return lambda problem: replace(problem, accounts=(account,))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_limit, "circuit mine: over its limit in step 1 by 0.08 MW"),
        (_group(count=5), "group m: more loads run than there are in step 1 by 1 loads"),
        (_group(least_on=np.array([0, 7, 0])), "group m: fewer run than must in step 1 by 1 loads"),
        (_group(most_on=np.array([9, 9, 5])), "group m: more run than may in step 2 by 1 loads"),
        (_group(start_limits=(StartLimit(1, 3, 1.0),)), "group m: started too often in step 1 by 1 starts"),
        (_account(Account("o", (Budget(0, 2, 28.0),))), "account o: held back beyond its budget in step 0 by 1 MWh"),
        (
            _account(Account("o", (), (Budget(1, 3, 20.0),))),
            "account o: runs less than promised in step 1 by 2 load-hours",
        ),
        (
            lambda p: replace(p, awards=(Award(1, np.array([4.0, 7.0, 6.5])),)),
            "circuit mine: droppable mining short of the award in step 2 by 0.5 MW",
        ),
        (
            lambda p: replace(p, ramps=(Ramp(0, np.full(3, 2.0), np.full(3, 9.0), 4.0, 4.0),)),
            "circuit poi: rises too far in step 1 by 1 MW",
        ),
        (
            lambda p: replace(p, ramps=(Ramp(0, np.full(3, 9.0), np.full(3, 0.5), 4.0, 4.0),)),
            "circuit poi: falls too far in step 2 by 0.5 MW",
        ),
    ],
)
def test_a_limit_that_is_broken_is_named(change: Callable[[Problem], Problem], words: str) -> None:
    assert words in violations(change(facility()), standing())


@pytest.mark.parametrize(
    ("counts", "starts", "words"),
    [
        ([[4, 6, 6], [0, 7, 0]], [0, 2, 0], "group m: more loads at step 1 of its curve than beneath it in step 1"),
        ([[4, 6, 6], [0, 1, 0]], [0, 1, 0], "group m: runs more without a start in step 1 by 1 loads"),
        ([[0, 0, 0], [0, 0, -1]], [0, 0, 0], "group m: fewer than no loads in step 2 by 1 loads"),
        ([[0, 3, 1], [0, 0, 0]], [0, 3, 0], "group m: stopped before it ran long enough in step 2 by 2 loads"),
        ([[4, 1, 10], [0, 0, 0]], [0, 0, 9], "group m: started before it stood long enough in step 2 by 3 loads"),
        ([[4, 6, 6.5], [0, 1, 0]], [0, 2, 0.5], "group m: a count is not whole in step 2"),
    ],
)
def test_counts_that_no_group_can_stand_at_are_named(
    counts: list[list[float]], starts: list[float], words: str
) -> None:
    schedule = replace(standing(), at_least=(np.array(counts),), starts=(np.array(starts),))
    assert any(found.startswith(words) for found in violations(facility(), schedule))


@pytest.mark.parametrize(
    ("power", "active", "words"),
    [
        ([0.5, 1.0, 0.5], [4, 5, 3], "pool p: more GPUs active than there are in step 1"),
        ([0.5, 1.0, 0.0], [4, 4, 0], "pool p: fewer GPUs active than cannot be put aside in step 2"),
        ([0.5, 1.0, 2.0], [4, 4, 3], "pool p: power above its highest limit in step 2 by 0.5 MW"),
        ([-0.1, 1.0, 0.5], [4, 4, 3], "pool p: power below its lowest limit in step 0 by 0.1 MW"),
        ([0.5, 1.0, 0.0], [4, 4, 2], "service chat: serves less than its tiers allow in step 2"),
        ([0.5, 1.0, 0.5], [4, 4, 3.5], "pool p: a count is not whole in step 2"),
    ],
)
def test_pools_that_cannot_stand_so_are_named(power: list[float], active: list[float], words: str) -> None:
    schedule = replace(standing(), pool_mw=(np.array(power),), active=(np.array(active),))
    assert any(found.startswith(words) for found in violations(facility(), schedule))


def test_a_number_that_is_none_is_a_violation() -> None:
    schedule = replace(standing(), pool_mw=(np.array([0.5, np.nan, 0.5]),))
    assert any("circuit hall: over its limit in step 1" in found for found in violations(facility(), schedule))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.booleans())
def test_a_relaxed_optimum_earns_what_its_program_says(seed: int, priced: bool) -> None:
    problem = random_problem(seed, priced)
    model, solution = relax(problem)
    assume(solution is not None)
    assert solution is not None
    relaxed = relaxed_schedule(model, solution.values)
    objective = model.program.objective(solution.values)
    earned = evaluate(problem, relaxed).earned
    size = max(1.0, abs(objective))
    assert violations(problem, relaxed, whole=False) == ()
    assert earned <= objective + 1e-6 * size
    sell, cost = market_prices(problem)
    # Where energy is given away the program may waste it (chords above cooling and above what is left unsold).
    if np.all(cost >= np.maximum(sell, 0.0)):
        assert earned == pytest.approx(objective, abs=1e-6 * size)
