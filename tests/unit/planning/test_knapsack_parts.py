"""What the knapsack leaves out to be quick is never what would have been best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from knapsack_kit import draw_case, joined

from mullet.planning import giving
from mullet.planning.candidates import CANDIDATES, no_moves
from mullet.planning.fleet import make_fleet
from mullet.planning.ground import Domains, Ground
from mullet.planning.joining import best_joint


def ground_of(loads: int, left: np.ndarray) -> Ground:
    """Return ground on which only what is left and how many loads there are is looked at."""
    fleet = make_fleet([-1] * left.size, [], [], [[0.0, 1.0]], [[0.0, 1.0]])
    rows, none = np.zeros(loads, dtype=np.int64), np.zeros(0)
    at = np.full((loads, 2), 4)
    return Ground(fleet, at, rows, rows, rows, rows, at, none, none, left, none, none, none, none, 0.0)


@given(st.integers(0, 1_000_000), st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_four_moves_gain_more_than_those_joined(seed, bad_at_once):
    draw = np.random.default_rng(seed)
    circuits, columns = int(draw.integers(1, 6)), 2 * CANDIDATES
    moves = no_moves(circuits)
    left = np.floor(draw.uniform(0.0, 4e8, circuits))
    price = draw.uniform(1e-6, 1e-4, circuits)
    for circuit in range(circuits):
        for side, sign in ((0, 1.0), (1, -1.0)):
            count = int(draw.integers(1 - side, CANDIDATES + 1))
            here = side * CANDIDATES + np.arange(count)
            step = sign * np.floor(draw.uniform(1e6, 2e9, count))
            # Below 0 where a load stands where it never should: the best is then far from what it gains alone.
            loss = draw.uniform(-1.0 if bad_at_once else 0.0, 1.0, count) * price[circuit] * left[circuit] / 1e6
            moves.row[circuit, here], moves.start[circuit, here] = circuit * columns + here, side
            moves.micro[circuit, here] = step
            moves.gain[circuit, here] = price[circuit] / 1e6 * step - loss
    domains = Domains(np.zeros(0, dtype=np.int64), np.arange(circuits), price, np.zeros(0), 0)
    four, gained, counts = best_joint(
        ground_of(circuits * columns, left), domains, moves, np.arange(circuits), deep=True
    )
    for circuit in range(circuits):
        step, gain = moves.micro[circuit], moves.gain[circuit]
        pair_step, pair_gain = (step[:, None] + step).ravel(), (gain[:, None] + gain).ravel()
        all_gains = np.where(
            pair_step[:, None] + pair_step <= left[circuit] + 0.5, pair_gain[:, None] + pair_gain, -np.inf
        )
        assert gained[circuit] == pytest.approx(all_gains.max(), rel=1e-9, abs=1e-15)
        assert step[four[circuit]].sum() <= left[circuit] + 0.5
        assert gain[four[circuit]].sum() == pytest.approx(gained[circuit], rel=1e-9, abs=1e-15)
        assert counts[circuit] == (gained[circuit] > 1e-12 * (1.0 + price[circuit] * max(left[circuit], 1.0)))


@pytest.mark.parametrize("start", [0, 60, 120])
def test_the_search_for_a_limit_ends_where_it_does_however_it_is_split(start, monkeypatch):
    case = joined([draw_case(seed, most_loads=12, follow=start == 60) for seed in range(start, start + 40)])
    answers = []
    for few in (1, 16, 10**9):
        monkeypatch.setattr(giving, "_FEW", few)
        found = case.solved(repair_rounds=0)
        answers.append((found.level.tolist(), found.price_per_watt.tolist()))
    assert answers[0] == answers[1] == answers[2]
    assert sum(price > 0.0 for price in answers[0][1]) > 2
