"""The standing reserve: the newsvendor's answer, by hand and against every other amount."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullet.planning.standing_reserve import StandingReserve, StepQuantile, choose_standing_reserve
from mullet.ports import PlanningError

STEPS = (StepQuantile(0.90, 0.0), StepQuantile(0.96, 1e6), StepQuantile(0.99, 2e6), StepQuantile(1.0, 4e6))


def choose(
    steps: tuple[StepQuantile, ...] = STEPS,
    loss: float = 20_000.0,
    shed_s: float = 90.0,
    margin: float = 50.0,
    hours: float = 0.25,
    most: float = math.inf,
) -> StandingReserve:
    return choose_standing_reserve(
        steps, loss_per_mwh=loss, shed_s=shed_s, margin_per_mwh=margin, period_hours=hours, most_watts=most
    )


def test_keeps_what_a_step_rarely_exceeds() -> None:
    """A MW free costs 50 x 0.25 = 12.5, a MW short 20,000 x 90 / 3600 = 500: a risk of 0.025 is worth taking.

    P(X > 1 MW) = 0.04 and P(X > 2 MW) = 0.01: 2 MW. Costs: 0: 500 x (0.06 + 0.03 x 2 + 0.01 x 4) = 80;
    1 MW: 12.5 + 500 x (0.03 + 0.01 x 3) = 42.5; 2 MW: 25 + 500 x 0.01 x 2 = 35; 4 MW: 50.
    """
    reserve = choose()
    assert reserve.watts == 2e6
    assert [armed.watts for armed in reserve.alternatives] == [0.0, 1e6, 2e6, 4e6]
    assert [armed.expected_cost for armed in reserve.alternatives] == pytest.approx([80.0, 42.5, 35.0, 50.0])
    assert [armed.shortfall_probability for armed in reserve.alternatives] == pytest.approx([0.1, 0.04, 0.01, 0.0])
    assert reserve.chosen.holding_cost == pytest.approx(25.0)
    assert reserve.chosen.expected_loss == pytest.approx(10.0)


def test_keeps_nothing_where_mining_is_shed_fast() -> None:
    """After 10 s a MW short costs 55.6: a risk of 0.225 would be worth taking, a step at all has 0.1."""
    reserve = choose(shed_s=10.0)
    assert reserve.watts == 0.0
    assert reserve.chosen.expected_cost == pytest.approx(20_000 / 360 * 0.16)


def test_keeps_all_where_room_is_free() -> None:
    assert choose(margin=0.0).watts == 4e6
    assert choose(margin=-30.0).watts == 4e6
    assert choose(margin=-30.0).chosen.expected_cost == 0.0


def test_keeps_no_more_than_can_be_used() -> None:
    """With room for 1.5 MW: 18.75 + 500 x (0.03 x 0.5 + 0.01 x 2.5) = 38.75, less than 42.5 for 1 MW."""
    reserve = choose(most=1.5e6)
    assert reserve.watts == 1.5e6
    assert reserve.chosen.expected_cost == pytest.approx(38.75)


def test_probability_above_the_last_quantile_counts_there() -> None:
    """2 MW with 0.1: a MW costs 12.5 and saves 500 x 0.1 = 50."""
    reserve = choose((StepQuantile(0.9, 0.0), StepQuantile(0.95, 2e6)))
    assert reserve.watts == 2e6
    assert reserve.alternatives[0].expected_loss == pytest.approx(100.0)


def test_no_step_needs_no_reserve() -> None:
    assert choose(()).watts == 0.0
    assert choose(()).chosen.expected_cost == 0.0


def test_equal_costs_choose_the_smaller() -> None:
    """A MW free and a MW short times its risk both cost 50."""
    assert choose((StepQuantile(0.9, 0.0), StepQuantile(1.0, 1e6)), hours=1.0).watts == 0.0


@pytest.mark.parametrize(
    ("steps", "changes", "words"),
    [
        ((StepQuantile(0.5, 2e6), StepQuantile(0.9, 1e6)), {}, "1000000.0 W follows one of 2000000.0 W"),
        ((StepQuantile(0.9, 1e6), StepQuantile(0.5, 2e6)), {}, "probability 0.5 follows 0.9"),
        ((StepQuantile(math.nan, 1e6),), {}, "probability nan"),
        ((StepQuantile(0.5, math.nan),), {}, "step of nan W"),
        ((StepQuantile(1.5, 1e6),), {}, "probability 1.5"),
        (STEPS, {"loss": math.nan}, "loss_per_mwh is nan"),
        (STEPS, {"shed_s": -1.0}, "shed_s is -1.0"),
        (STEPS, {"margin": math.inf}, "margin_per_mwh is inf"),
        (STEPS, {"hours": -1.0}, "period_hours is -1.0"),
        (STEPS, {"most": -1.0}, "most_watts is -1.0"),
    ],
)
def test_bad_numbers_are_named(steps: tuple[StepQuantile, ...], changes: dict[str, float], words: str) -> None:
    with pytest.raises(PlanningError, match=words):
        choose(steps, **changes)


@settings(max_examples=100, deadline=None)
@given(
    outcomes=st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1e8)), max_size=6),
    loss=st.floats(0.0, 1e6),
    margin=st.floats(-100.0, 500.0),
    other=st.floats(0.0, 1.2e8),
)
def test_no_other_amount_is_cheaper(
    outcomes: list[tuple[float, float]], loss: float, margin: float, other: float
) -> None:
    probabilities = sorted(probability for probability, _ in outcomes)
    watts = sorted(watts for _, watts in outcomes)
    steps = tuple(StepQuantile(*pair) for pair in zip(probabilities, watts, strict=True))
    reserve = choose(steps, loss=loss, margin=margin)
    short, below = 0.0, 0.0
    for number, step in enumerate(steps):
        upper = 1.0 if number == len(steps) - 1 else step.probability
        short += (upper - below) * max(0.0, step.watts - other)
        below = step.probability
    cost = (max(0.0, margin) * 0.25 * other + loss * 90.0 / 3600.0 * short) / 1e6
    assert reserve.chosen.expected_cost <= cost + 1e-6 * max(1.0, cost)
    shortfalls = [armed.shortfall_probability for armed in reserve.alternatives]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(shortfalls))
