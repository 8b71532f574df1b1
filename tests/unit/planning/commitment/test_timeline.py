"""A basis carried along the horizon: always as many basic places as rows, and the optimum that a cold start finds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks.instances import make_scene
from benchmarks.workers.following import first_counts
from mullet.planning.commitment.build import build
from mullet.planning.commitment.clp import WarmClp
from mullet.planning.commitment.timeline import BASIC, LOWER, Basis, carry
from mullet.planning.commitment.verdict import find_fault


def _apart(one: float, other: float) -> float:
    return abs(one - other) / max(1.0, abs(one))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 3, 12, 40]), st.sampled_from(["nu64", "u24"]))
def test_what_is_carried_is_a_basis_and_leads_to_the_same_optimum(seed: int, moved: int, grid: str) -> None:
    scene = make_scene(6, 60, 3, seed)
    state = scene.start()
    kept = WarmClp()
    at = 195
    for _ in range(3):
        model = build(scene.problem(at, grid, state))
        warm, cold = kept(model.program, 20.0), WarmClp()(model.program, 20.0)
        assume(cold.optimal)
        assert find_fault(model.program, warm) is None
        assert _apart(model.program.objective(warm.values), model.program.objective(cold.values)) <= 1e-6
        state = scene.advance(state, first_counts(model, warm.values), float(warm.values[model.import_mw[0]]))
        at += moved


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 40), st.sampled_from(["nu64", "nu88", "u24"]))
def test_as_many_places_are_basic_as_there_are_rows(seed: int, moved: int, grid: str) -> None:
    scene = make_scene(5, 50, 4, seed % 7)
    old = build(scene.problem(190, "nu64", scene.start())).program
    new = build(scene.problem(190 + moved, grid, scene.start())).program
    draw = np.random.default_rng(seed)
    status = np.full(len(old.gain) + len(old.row_low), LOWER, dtype=np.uint8)
    status[draw.permutation(len(status))[: len(old.row_low)]] = BASIC
    start = carry(Basis(old, status), new)
    assert start is not None
    assert len(start) == len(new.gain) + len(new.row_low)
    assert np.count_nonzero(start == BASIC) == len(new.row_low)


def test_a_step_starts_as_the_same_instant_stood() -> None:
    scene = make_scene(3, 30, 3, 1)
    old, new = (build(scene.problem(at, "u24", scene.start())) for at in (100, 101))
    status = np.full(len(old.program.gain) + len(old.program.row_low), LOWER, dtype=np.uint8)
    status[: len(old.program.row_low)] = BASIC
    status[old.circuit_mw[0, 5]] = BASIC + 1
    start = carry(Basis(old.program, status), new.program)
    assert start is not None
    assert start[new.circuit_mw[0, 4]] == BASIC + 1
    assert start[new.circuit_mw[0, 5]] == status[old.circuit_mw[0, 6]]


def test_every_place_is_in_one_table_or_loose() -> None:
    program = build(make_scene(7, 70, 3, 2).problem(0, "nu88", make_scene(7, 70, 3, 2).start())).program
    timeline = program.timeline
    assert timeline is not None
    for table, loose, count in (
        (timeline.columns, timeline.loose_columns, len(program.gain)),
        (timeline.rows, timeline.loose_rows, len(program.row_low)),
    ):
        places = np.concatenate([table[table >= 0], loose])
        assert np.array_equal(np.sort(places), np.arange(count))


def test_nothing_is_carried_without_a_timeline_or_to_another_facility() -> None:
    scene, other = make_scene(3, 30, 3, 1), make_scene(4, 40, 3, 1)
    program = build(scene.problem(0, "u24", scene.start())).program
    status = np.full(len(program.gain) + len(program.row_low), BASIC, dtype=np.uint8)
    assert carry(Basis(program, status), replace(program, timeline=None)) is None
    assert carry(Basis(replace(program, timeline=None), status), program) is None
    assert carry(Basis(program, status), build(other.problem(0, "u24", other.start())).program) is None


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_basis_far_from_the_new_program_still_leads_to_its_optimum(share: float) -> None:
    scene = make_scene(20, 400, 3, 3)
    problem = scene.problem(0, "nu64", scene.start())
    kept = WarmClp()
    assert kept(build(problem).program, 20.0).optimal
    tight = replace(
        problem, circuits=tuple(replace(c, limit_mw=c.limit_mw * share, slack_per_mwh=1e4) for c in problem.circuits)
    )
    program = build(tight).program
    warm, cold = kept(program, 20.0), WarmClp()(program, 20.0)
    assert find_fault(program, warm) is None
    assert _apart(program.objective(warm.values), program.objective(cold.values)) <= 1e-6
