"""The benchmarks' own machinery: what they print, write and return, on instances of a handful of loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import MODULES, main
from benchmarks.figures import Figure, at_least, at_most, document, table
from benchmarks.fleets import make_yard, random_yard
from benchmarks.instances import grid_of, instance, make_scene
from benchmarks.options import Options
from benchmarks.prices import STEPS_PER_DAY, recorded, synthetic
from benchmarks.workers.process import PeerMissing, WorkerError, run_worker
from benchmarks.workers.statistics import percentile
from benchmarks.workers.tree import Tree, windows
from mullet.planning.commitment.problem import Grid

SMALL = {"groups": 3, "loads": 30, "grid": "nu64", "seed": 1}


def test_an_unknown_name_ends_with_2_and_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["nonsense"])

    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert all(name in said for name in MODULES)


@pytest.mark.parametrize(("figures", "status"), [([Figure("a", 9.0, "s", at_most(1.0))], 0), ([], 0)])
def test_missed_targets_are_no_failure(
    figures: list[Figure], status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("benchmarks.shed.measure", lambda options: figures)

    assert main(["shed", "--json", str(tmp_path / "out.json")]) == status

    assert json.loads((tmp_path / "out.json").read_text())["figures"] == [figure.plain() for figure in figures]


def test_what_could_not_be_measured_is_a_failure_unless_it_is_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.shed.measure", lambda options: [Figure("a", None, "s", peer="not installed")])
    assert main(["shed"]) == 0

    monkeypatch.setattr("benchmarks.shed.measure", lambda options: [Figure("a", None, "s", failed=True)])
    assert main(["shed"]) == 1


def test_a_worker_that_fails_ends_with_1_and_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: Options) -> list[Figure]:
        raise WorkerError("it broke")

    monkeypatch.setattr("benchmarks.shed.measure", fail)

    assert main(["shed"]) == 1
    assert "it broke" in capsys.readouterr().err


def test_targets_hold_at_the_number_itself() -> None:
    assert Figure("a", 1.0, "s", at_most(1.0)).met is True
    assert Figure("a", 1.1, "s", at_most(1.0)).met is False
    assert Figure("a", 2.9, "x", at_least(3.0)).met is False
    assert Figure("a", None, "s", at_most(1.0)).met is None
    assert Figure("a", 1.0, "s").met is None


def test_the_document_has_the_keys_promised_and_says_where() -> None:
    found = document([Figure("a", 1.0, "s", at_most(2.0), "peer", 3.0)])

    assert set(found) == {"figures", "machine", "commit"}
    assert found["figures"] == [
        {"figure": "a", "value": 1.0, "unit": "s", "target": "<= 2", "met": True, "peer": "peer", "ratio": 3.0}
    ]
    assert "Python" in str(found["machine"])


def test_the_table_names_what_is_missed() -> None:
    lines = table([Figure("a", 9.0, "s", at_most(1.0)), Figure("b", 1.0, "s", at_most(1.0))]).splitlines()

    assert "NO" in lines[2]
    assert "yes" in lines[3]


def test_a_worker_measures_a_tiny_instance_in_a_process_of_its_own() -> None:
    found = [run_worker("cold", {**SMALL, "backend": backend}, 60.0) for backend in ("clp", "highs")]

    assert found[0]["objective"] == pytest.approx(found[1]["objective"], rel=1e-6)
    assert found[0]["variables"] > 0
    assert 0.0 < found[0]["peak_mib"] < 2_000.0


@pytest.mark.parametrize("peer", ["pulp_peer", "linopy_peer"])
def test_a_peer_agrees_on_a_tiny_instance_or_is_not_installed(peer: str) -> None:
    ours = run_worker("cold", {**SMALL, "backend": "clp"}, 60.0)
    try:
        theirs = run_worker(peer, SMALL, 60.0)
    except PeerMissing:
        return

    assert theirs["objective"] == pytest.approx(ours["objective"], rel=1e-6)


def test_a_worker_that_raises_is_an_error() -> None:
    with pytest.raises(WorkerError, match="status 1"):
        run_worker("cold", {**SMALL, "backend": "clp", "grid": "no such grid"}, 60.0)


def test_an_instance_is_the_same_for_the_same_seed_alone() -> None:
    first, again, other = (instance({**SMALL, "seed": seed}) for seed in (1, 1, 2))

    assert np.array_equal(first.site.price_per_mwh, again.site.price_per_mwh)
    assert [group.count for group in first.mining] == [group.count for group in again.mining]
    assert not np.array_equal(first.site.price_per_mwh, other.site.price_per_mwh)


@pytest.mark.parametrize(("grid", "hours", "steps"), [("nu64", 24.0, 64), ("nu88", 48.0, 88), ("u288", 24.0, 288)])
def test_grids_cover_what_they_say(grid: str, hours: float, steps: int) -> None:
    assert sum(count for count, _ in grid_of(grid)) == steps
    assert sum(count * length for count, length in grid_of(grid)) / 12.0 == hours


def test_an_instance_has_the_loads_asked_for_under_a_tree() -> None:
    scene = make_scene(groups=30, loads=1_000, days=3, seed=1)
    problem = scene.problem(0, "nu64", scene.start())

    assert sum(group.count for group in problem.mining) == 1_000
    assert all(circuit.parent < place for place, circuit in enumerate(problem.circuits))
    assert all(len(group.mean_mw) in (3, 4) for group in problem.mining)


def test_loads_started_must_run_on_and_loads_stopped_must_rest() -> None:
    scene = make_scene(groups=1, loads=100, days=3, seed=1)
    state = scene.start()
    running = int(state.at_least[0][0])
    more = (np.minimum(np.array(state.at_least[0]) + 5, 100),)
    group = scene.problem(1, "nu64", scene.advance(state, more, 0.0)).mining[0]
    steps = int((scene.rigs[0].min_on_s - 300.0) // 300.0)

    assert group.least_on is not None
    assert group.least_on[:steps].tolist() == [5] * steps
    assert group.least_on[steps] == 0
    assert int(group.running[0]) == running + 5


def test_synthetic_prices_have_spikes_and_negative_hours() -> None:
    price = synthetic(days=10, seed=1)

    assert len(price) == 10 * STEPS_PER_DAY
    assert price.max() > 150.0
    assert price.min() < 0.0


def test_recorded_prices_are_none_where_they_are_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MULLET_DATA", str(tmp_path))

    assert recorded(days=1, first_day=0) is None


def test_windows_say_only_what_does_not_follow() -> None:
    grid = Grid(np.arange(4) * 300.0, np.full(4, 1 / 12))

    assert windows(grid, 300.0, last_only=False) == []
    assert windows(grid, 900.0, last_only=False) == [(1, 0), (2, 0), (3, 1)]
    assert windows(grid, 900.0, last_only=True) == [(2, 0), (3, 1)]


def test_the_tree_finds_the_circuits_that_must_be_known() -> None:
    problem = instance({**SMALL, "groups": 30, "loads": 300})
    tree = Tree(problem.circuits)

    assert tree.roots == [0]
    assert sorted(tree.subtree[0]) == list(range(len(problem.circuits)))
    assert tree.marked == [0, 1, 2]
    assert sorted(circuit for mine in tree.nearest.values() for circuit in mine) == sorted(tree.subtree[0])


def test_a_yard_counts_what_follows() -> None:
    yard = random_yard(3)
    watts = np.full(len(yard.circuit), 1_000.0)
    drawn = yard.drawn(watts)
    path_factors = np.zeros(len(yard.parent))
    for node in yard.circuit:
        factor, here = 1.0, int(node)
        while here >= 0:
            factor += yard.follow[here]
            path_factors[here] += 1_000.0 * factor
            here = int(yard.parent[here])

    assert drawn == pytest.approx(path_factors)


def test_a_yard_has_four_levels_and_all_loads() -> None:
    yard = make_yard(loads=2_400, profiles=5, seed=1, breakers_share=(1.0, 1.3))
    depth = 0
    here = int(yard.circuit[-1])
    while here >= 0:
        depth, here = depth + 1, int(yard.parent[here])

    assert depth == 4
    assert len(yard.circuit) == 2_400


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(k) for k in range(1, 101)]

    assert percentile(values, 0.5) == 50.0
    assert percentile(values, 0.99) == 99.0
    assert percentile([7.0], 0.99) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)
