"""The knapsack: limits always, the best allocation, nothing changed without a gain, and the same answer every time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from knapsack_kit import Case, draw_case, joined
from scipy.optimize import linprog

from mullet.planning.fleet import make_fleet, make_standing
from mullet.planning.knapsack import prepare, solve


def test_ten_thousand_random_instances_break_no_limit():
    broken = []
    for start in range(0, 10_000, 20):
        case = joined([draw_case(seed, most_loads=12, follow=start % 60 == 0) for seed in range(start, start + 20)])
        level = case.solved().level
        movable = case.known["movable"]
        as_told = (level[~movable] == np.array(case.level)[~movable]).all()
        if not case.kept(level.tolist()) or not as_told or (level > case.known["ceiling"])[movable].any():
            broken.append(start)
    assert broken == []


def test_small_instances_against_every_allocation_there_is():
    exact = short = 0
    for seed in range(900):
        case = draw_case(seed, most_loads=6, busy=False)
        if case.options() > 1_500:
            continue
        best, found = case.best(), case.solved()
        worth = case.worth(found.level)
        assert worth == pytest.approx(found.yielded)
        assert worth <= best + 1e-6
        exact += worth >= best - 1e-6
        short += worth < best - 1e-6
        # Each limit that binds may cost one increment, the price of loads being whole.
        steps = [max(np.diff(case.value[kind]), default=0.0) for kind in case.profile]
        binding = int((found.price_per_watt > 0.0).sum())
        assert worth >= best - binding * max([0.0, *steps]) - 1e-6
    assert exact >= 0.99 * (exact + short)
    assert exact > 400


def lp_bound(case: Case) -> tuple[float, np.ndarray]:
    """Return the linear program's optimum and the worth of each circuit's limit, by a solver."""
    loads, nodes = len(case.circuit), len(case.parent)
    width = max(len(row) for row in case.watts)
    gain, rows = np.zeros((loads, width)), np.zeros((nodes, loads, width))
    high = np.zeros((loads, width))
    for load, kind in enumerate(case.profile):
        for point, watts in enumerate(case.watts[kind]):
            high[load, point] = 1.0
            gain[load, point] = case.value[kind][point] - case.cost * case.root_factor(load) * watts
            node, factor = case.circuit[load], 1.0
            while node >= 0:
                factor += case.follow[node]
                rows[node, load, point] = watts * factor
                node = case.parent[node]
    one = np.kron(np.eye(loads), np.ones(width))
    solved = linprog(
        -gain.ravel(),
        A_ub=rows.reshape(nodes, -1),
        b_ub=case.limits,
        A_eq=one,
        b_eq=np.ones(loads),
        bounds=np.stack([np.zeros(loads * width), high.ravel()], axis=1),
        method="highs",
    )
    assert solved.status == 0
    return -float(solved.fun), -solved.ineqlin.marginals


def tree_case(seed: int, loads: int, follow: float = 0.0) -> Case:
    """Return a four-level tree with limits that bind at every level."""
    draw = np.random.default_rng(seed)
    parent = [-1, 0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 6]
    circuit = draw.integers(7, 13, loads).tolist()
    watts, value = [], []
    for _ in range(12):
        power = np.sort(draw.uniform(1_500.0, 4_000.0, 6)).round(1)
        hash_rate = power / draw.uniform(17.0, 31.0) * (1.2 - power / 16_000.0) * draw.uniform(0.98, 1.02, 6)
        watts.append([20.0, *power.tolist()])
        value.append([0.0, *hash_rate.tolist()])
    profile = draw.integers(0, 12, loads).tolist()
    case = Case(parent, circuit, profile, watts, value, [0.0] * 13, np.zeros(13), [0] * loads, {}, cost=0.02)
    case.follow[1] = follow
    full = case.used([6] * loads)
    case.limits = full * draw.uniform(0.7, 1.0, 13)
    return case


@pytest.mark.parametrize("seed", range(4))
def test_medium_instances_come_close_to_the_linear_programs_bound(seed):
    case = tree_case(seed, 300, follow=0.05 if seed % 2 else 0.0)
    bound, duals = lp_bound(case)
    greedy, found = case.solved(repair_rounds=0), case.solved()
    assert case.kept(found.level)
    assert found.yielded <= bound * (1.0 + 1e-9)
    assert found.yielded >= greedy.yielded
    assert (bound - found.yielded) / bound <= 5e-4
    binds = duals > 1e-9
    assert found.price_per_watt[binds].sum() == pytest.approx(duals[binds].sum(), rel=0.05)


def test_the_price_of_a_limit_is_what_one_more_watt_is_worth():
    # Two loads of 100 W, worth 0.5 and 0.3 a watt, under a PDU for one; the connection has room for both.
    case = Case([-1, 0], [1, 1], [0, 1], [[0.0, 100.0]] * 2, [[0.0, 50.0], [0.0, 30.0]], [0.0] * 2,
                np.array([500.0, 100.0]), [0, 0], cost=0.1)  # fmt: skip
    found = case.solved()
    assert found.level.tolist() == [1, 0]
    assert found.price_per_watt.tolist() == pytest.approx([0.0, 0.2])
    assert found.used_watts.tolist() == [100.0, 100.0]


def test_repair_uses_what_is_left_with_points_off_the_hull():
    # The point of 60 W lies under the line from 0 to 100 W: no increment ends there, yet it fits where 100 W do not.
    case = Case([-1], [0], [0], [[0.0, 60.0, 100.0]], [[0.0, 40.0, 100.0]], [0.0], np.array([70.0]), [0])
    assert case.solved(repair_rounds=0).level.tolist() == [0]
    assert case.solved().level.tolist() == [1]


def test_repair_trades_one_load_for_another():
    # 90 W at 1.0 a watt go first and leave 60 of 150 W; 140 W at 0.9 a watt are worth more than those 90.
    case = Case([-1], [0, 0], [0, 1], [[0.0, 90.0], [0.0, 140.0]], [[0.0, 90.0], [0.0, 126.0]], [0.0],
                np.array([150.0]), [0, 0])  # fmt: skip
    assert case.solved(repair_rounds=0).level.tolist() == [1, 0]
    assert case.solved().level.tolist() == [0, 1]


@pytest.mark.parametrize("seed", [7, 8, 9, 10])
def test_repair_leaves_little_at_circuits_of_every_depth_and_their_parents_keep_their_limits(seed):
    case = tree_case(seed, 400)
    greedy, found = case.solved(repair_rounds=0), case.solved()
    assert found.repaired > 0
    assert case.kept(found.level)
    assert found.yielded > greedy.yielded
    left, before = (
        float((each.price_per_watt * (case.limits - case.used(each.level))).sum()) for each in (found, greedy)
    )
    assert left < 0.25 * before


def rack(count: int, limit: float, level=None, **known) -> Case:
    return Case([-1], [0] * count, [0] * count, [[10.0, 110.0, 210.0]], [[0.0, 60.0, 100.0]], [0.0],
                np.array([limit]), level or [0] * count, known, cost=0.1, band=0.02)  # fmt: skip


def test_equals_take_turns_by_wear():
    resting = rack(4, 160.0, cycles=[2.0, 0.0, 1.0, 0.0], changed_at=[5.0, 9.0, 5.0, 3.0])
    assert resting.solved().level.tolist() == [0, 0, 0, 1]
    running = rack(4, 160.0, [1, 1, 1, 1], cycles=[2.0, 0.0, 1.0, 0.0], changed_at=[5.0, 9.0, 5.0, 3.0])
    assert running.solved().level.tolist() == [1, 0, 0, 0]


def test_what_runs_goes_on_running_inside_the_deadband():
    # The second step earns 0.4 a watt: a price of 0.39 or 0.41 lies within 0.01 of it and changes nothing.
    for cost, level, then in ((0.395, 1, 1), (0.405, 2, 2), (0.38, 1, 2), (0.42, 2, 1)):
        case = rack(1, 1e4, [level])
        case.cost = cost
        assert case.solved().level.tolist() == [then], (cost, level)


def test_a_floor_gives_way_to_a_limit_only():
    case = rack(2, 1e4, [2, 2], floor=[2, 0])
    case.cost = 5.0
    assert case.solved().level.tolist() == [2, 0]
    case.limits = np.array([130.0])
    assert case.solved().level.tolist() == [1, 0]
    case.limits = np.array([5.0])
    assert case.solved().level.tolist() == [0, 0]


def test_a_ceiling_is_kept_and_what_is_held_counts():
    case = rack(3, 1e4, [0, 2, 0], ceiling=[1, 2, 0], movable=[True, False, True])
    case.cost = 5.0
    assert case.solved().level.tolist() == [0, 2, 0]
    case.cost = 0.0
    assert case.solved().level.tolist() == [1, 2, 0]
    case.limits = np.array([325.0])
    assert case.solved().level.tolist() == [0, 2, 0]
    found = case.solved()
    assert found.used_watts.tolist() == [230.0]


def test_exact_fits_fit_whatever_their_binary_fraction():
    watts = 3_250.0 * 1.05 + 0.1
    case = Case([-1], [0] * 1_000, [0] * 1_000, [[0.1, watts]], [[0.0, 1.0]], [0.0], np.array([watts * 1_000]),
                [0] * 1_000)  # fmt: skip
    assert case.solved().level.sum() == 1_000
    case.limits -= 0.001
    assert case.solved().level.sum() == 999


@given(st.integers(0, 100_000))
@settings(max_examples=60, deadline=None)
def test_an_answer_is_stable_and_the_same_again(seed):
    case = draw_case(seed, most_loads=10)
    first = case.solved()
    assert np.array_equal(first.level, case.solved().level)
    # Given where it went, nothing moves for less than the deadband.
    case.band = 0.5
    case.known.pop("floor", None)
    case.known.pop("ceiling", None)
    settled = case.solved()
    case.level = settled.level.tolist()
    again = case.solved()
    assert again.yielded >= settled.yielded - 1e-6


@given(st.integers(0, 100_000), st.floats(1.0, 2.0))
@settings(max_examples=60, deadline=None)
def test_the_order_of_loads_changes_nothing_and_scale_neither(seed, scale):
    case = draw_case(seed, most_loads=10, busy=False)
    found = case.solved()
    turned = Case(case.parent, case.circuit[::-1], case.profile[::-1], case.watts, case.value, case.follow,
                  case.limits, case.level[::-1], {}, case.cost)  # fmt: skip
    assert turned.solved().yielded == pytest.approx(found.yielded)
    dearer = Case(case.parent, case.circuit, case.profile, case.watts,
                  [[v * scale for v in row] for row in case.value], case.follow, case.limits, case.level, {},
                  case.cost * scale)  # fmt: skip
    assert dearer.solved().yielded == pytest.approx(found.yielded * scale, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parent": [1, 0]}, "ring"),
        ({"circuit": [0, 5]}, "circuit names 5"),
        ({"profile": [0, -1]}, "profile names"),
        ({"watts": [[5.0, 1.0]]}, "profile 0 are not ascending"),
        ({"value": [[0.0, float("nan")]]}, "profile 0 has a point that is no number"),
        ({"points": [3]}, "between 1 and K"),
        ({"value": [[0.0]]}, "must both be"),
    ],
)
def test_bad_fleets_are_refused_by_name(changes, words):
    good = {"parent": [-1, 0], "circuit": [0, 1], "profile": [0, 0], "watts": [[0.0, 1.0]], "value": [[0.0, 1.0]]}
    make_fleet(**good)
    with pytest.raises(ValueError, match=words):
        make_fleet(**{**good, **changes})


def test_bad_states_and_limits_are_refused():
    fleet = make_fleet([-1], [0, 0], [0, 0], [[0.0, 1.0]], [[0.0, 1.0]])
    program = prepare(fleet)
    with pytest.raises(ValueError, match="level"):
        make_standing(fleet, [0, 2])
    with pytest.raises(ValueError, match="cycles"):
        make_standing(fleet, [0, 0], cycles=[1.0])
    with pytest.raises(ValueError, match="limit"):
        solve(program, make_standing(fleet), [float("nan")])
    with pytest.raises(ValueError, match="worth"):
        prepare(fleet, -1.0)


def test_nothing_at_all_is_allocated_to_nobody():
    fleet = make_fleet([-1], [], [], [[0.0, 1.0]], [[0.0, 1.0]])
    found = solve(prepare(fleet), make_standing(fleet), [100.0])
    assert found.level.size == 0
    assert found.used_watts.tolist() == [0.0]
