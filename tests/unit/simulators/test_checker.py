"""The checker on hand-made logs: each figure where the run was good, and where it was not."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mullet_simulators.checker
from mullet_simulators.checker import UnreadableRecord, grade
from mullet_simulators.checker.__main__ import main
from mullet_simulators.checker.report import passes

T0 = 1_760_000_000.0
CIRCUITS = {
    "poi": {"parent": None, "limit_w": 20_000.0},
    "feeder": {"parent": "poi", "limit_w": 8_000.0},
    "hall": {"parent": "poi", "limit_w": 15_000.0},
}
LOADS = {
    "m-001": {"kind": "miner", "circuit": "feeder", "service": None, "bank": "m"},
    "m-002": {"kind": "miner", "circuit": "feeder", "service": None, "bank": "m"},
    "g-001": {"kind": "gpu", "circuit": "feeder", "service": "chat", "bank": "g"},
    "h-001": {"kind": "miner", "circuit": "hall", "service": None, "bank": "h"},
}
NAMES = list(LOADS)
Watts = Callable[[float], dict[str, float]]


class Run:
    """A run made by hand: watts as a function of seconds, and whatever else is added."""

    def __init__(self, watts: Watts, seconds: float = 20.0, footer: bool = True) -> None:
        self.truth: list[dict[str, Any]] = [
            {"t": T0, "type": "header", "seed": 1, "circuits": CIRCUITS, "loads": LOADS}
        ]
        for k in range(round(seconds * 10)):
            at = watts(k / 10)
            self.truth.append(
                {
                    "t": T0 + k / 10,
                    "type": "power",
                    "w": [at.get(n, 0.0) for n in NAMES],
                    "unmanaged": {"feeder": at.get("unmanaged", 0.0)},
                }
            )
        if footer:
            self.truth.append({"t": T0 + seconds, "type": "footer"})
        self.claims: list[dict[str, Any]] = []

    def add(self, t: float, type: str, **body: Any) -> Run:
        self.truth.append({"t": T0 + t, "type": type, **body})
        return self

    def command(self, t: float, id: str, load: str, from_w: float, to_w: float) -> Run:
        verb = "sleep" if to_w < from_w else "wake"
        self.claims.append(
            {
                "t": T0 + t,
                "type": "command",
                "id": id,
                "load": load,
                "verb": verb,
                "from_w": from_w,
                "to_w": to_w,
                "cause": "economic",
            }
        )
        return self

    def outcome(self, t: float, id: str, load: str, kind: str, most_w: float | None, acked: bool | None = True) -> Run:
        self.claims.append(
            {
                "t": T0 + t,
                "type": "outcome",
                "id": id,
                "load": load,
                "kind": kind,
                "watts": most_w,
                "most_w": most_w,
                "evidence": "readback",
                "acked": acked,
            }
        )
        return self

    def grade(self) -> dict[str, Any]:
        return grade(map(json.dumps, self.truth), map(json.dumps, self.claims))


def steady(**watts: float) -> Watts:
    return lambda t: watts


def falls(load: str, at: float, high: float, low: float, **others: float) -> Watts:
    return lambda t: {load: high if t < at else low, **others}


# -- limits


def test_a_quiet_run_passes_with_every_figure_zero() -> None:
    report = Run(steady(**{"m-001": 3000, "m-002": 3000, "g-001": 700, "unmanaged": 100})).grade()
    assert report["cap_violations"] == 0
    assert report["over_limit_s"] == 0
    assert report["truth_mismatches"] == 0
    assert report["truth_gaps"] == []
    assert (report["pool_changes"], report["pool_changes_by_cause"]) == (0, {})
    assert report["worst_15min_mean_percent"] == pytest.approx(100 * 6800 / 8000)
    assert report["demand_step"] is None


def test_excess_that_load_caused_is_one_violation_per_maximal_interval() -> None:
    def watts(t: float) -> dict[str, float]:
        over = 5.0 <= t < 7.0 or 10.0 <= t < 10.5
        return {"m-001": 4000, "m-002": 4000, "unmanaged": 900 if over else -100}

    report = Run(watts).grade()
    assert report["cap_violations"] == 2
    first, second = report["cap_violation_list"]
    assert (first["circuit"], first["at_s"]) == ("feeder", 5.0)
    assert first["seconds"] == pytest.approx(2.0, abs=0.01)
    assert first["worst_over_w"] == pytest.approx(900)
    assert second["seconds"] == pytest.approx(0.5, abs=0.01)
    assert report["over_limit_s"] == 0
    assert report["worst_over_percent"] == pytest.approx(11.25)
    assert report["longest_over_102_s"] == pytest.approx(2.0, abs=0.01)
    assert report["longest_over_110_s"] == pytest.approx(2.0, abs=0.01)


def test_unmanaged_watts_count_at_every_circuit_above() -> None:
    report = Run(steady(**{"h-001": 13_000, "m-001": 3000, "unmanaged": 4500})).grade()
    assert {v["circuit"] for v in report["cap_violation_list"]} == {"poi"}


def test_excess_that_a_cut_alone_caused_is_no_violation_but_is_counted() -> None:
    run = Run(lambda t: {"m-001": 4000 if t < 8.0 else 1000, "m-002": 3000})
    run.add(5.0, "limit", circuit="feeder", limit_w=5000.0, announced_at=T0 + 2)
    report = run.grade()
    assert report["cap_violations"] == 0
    assert report["over_limit_s"] == pytest.approx(3.0, abs=0.01)
    assert report["over_limit_mw_s"] == pytest.approx(3.0 * 2000 / 1e6, rel=0.01)
    assert report["longest_over_110_s"] == pytest.approx(3.0, abs=0.01)


def test_power_that_rises_after_the_cut_is_a_violation_from_that_instant() -> None:
    def watts(t: float) -> dict[str, float]:
        return {"m-001": 4000 if t < 7.0 else 4200 if t < 9.0 else 1000, "m-002": 3000}

    run = Run(watts).add(5.0, "limit", circuit="feeder", limit_w=5000.0, announced_at=T0)
    report = run.grade()
    assert report["cap_violations"] == 1
    assert report["cap_violation_list"][0]["at_s"] == 7.0
    assert report["over_limit_s"] == pytest.approx(2.0, abs=0.01)


def test_ripple_after_a_cut_is_still_excess_of_the_cut() -> None:
    run = Run(lambda t: {"m-001": 4000 + (3 if t > 6.0 else 0) if t < 8.0 else 1000, "m-002": 3000})
    report = run.add(5.0, "limit", circuit="feeder", limit_w=5000.0, announced_at=T0).grade()
    assert report["cap_violations"] == 0
    assert report["over_limit_s"] == pytest.approx(3.0, abs=0.01)


def test_a_new_excursion_under_a_cut_limit_is_a_violation() -> None:
    def watts(t: float) -> dict[str, float]:
        return {"m-001": 4000 if t < 6.0 or 9.0 <= t < 10.0 else 1000, "m-002": 3000}

    report = Run(watts).add(5.0, "limit", circuit="feeder", limit_w=5000.0, announced_at=T0).grade()
    assert report["cap_violations"] == 1
    assert report["cap_violation_list"][0]["at_s"] == 9.0


def test_a_cut_does_not_excuse_an_excursion_that_was_there_before() -> None:
    run = Run(steady(**{"m-001": 5000, "m-002": 4000}))
    report = run.add(5.0, "limit", circuit="feeder", limit_w=5000.0, announced_at=T0).grade()
    assert report["cap_violations"] == 1
    assert report["cap_violation_list"][0]["at_s"] == 0.0
    assert report["over_limit_s"] == 0


def test_the_worst_fifteen_minutes_are_found_in_a_longer_run() -> None:
    run = Run(steady(), seconds=0)
    run.truth = run.truth[:1]
    for k in range(2000):
        w = 7800.0 if 500 <= k < 1400 else 1000.0
        run.add(float(k), "power", w=[w, 0, 0, 0], unmanaged={})
    report = run.add(2000.0, "footer").grade()
    assert report["worst_15min_mean_percent"] == pytest.approx(97.5, abs=0.01)


# -- claims


def test_an_applied_sleep_that_is_true_is_no_mismatch() -> None:
    run = Run(falls("m-001", 5.0, 3000, 25))
    report = run.command(4.0, "c1", "m-001", 3000, 30).outcome(5.5, "c1", "m-001", "applied", 30).grade()
    assert report["truth_mismatches"] == 0
    assert report["outcomes"] == {"applied": 1}
    assert report["commands"] == 1


def test_an_applied_sleep_of_a_miner_that_still_hashes_is_a_mismatch_and_an_uncaught_false_ack() -> None:
    run = Run(steady(**{"m-001": 3000}))
    report = run.command(4.0, "c1", "m-001", 3000, 30).outcome(5.5, "c1", "m-001", "applied", 30).grade()
    assert report["truth_mismatches"] == 1
    assert report["mismatch_list"][0]["true_w"] == 3000
    assert report["uncaught_false_acks"] == 1
    assert report["false_acks"] == 0


def test_a_claim_made_too_early_is_a_mismatch() -> None:
    run = Run(falls("m-001", 5.0, 3000, 25))
    report = run.command(4.0, "c1", "m-001", 3000, 30).outcome(4.5, "c1", "m-001", "applied", 30).grade()
    assert report["truth_mismatches"] == 1


def test_the_next_command_ends_a_claim() -> None:
    run = Run(falls("m-001", 5.0, 25, 3000))
    run.command(2.0, "c1", "m-001", 3000, 30).outcome(4.5, "c1", "m-001", "applied", 30)
    assert run.grade()["truth_mismatches"] == 1
    assert run.command(4.9, "c2", "m-001", 30, 3000).grade()["truth_mismatches"] == 0


@pytest.mark.parametrize(
    "disturbance",
    [
        {"type": "state", "load": "m-001", "state": "starting"},
        {"type": "event", "kind": "fault", "load": "m-001", "fault": "reboot"},
    ],
)
def test_a_load_that_changes_by_itself_ends_a_claim(disturbance: dict[str, Any]) -> None:
    run = Run(falls("m-001", 5.0, 25, 3000)).add(4.95, **disturbance)
    run.command(2.0, "c1", "m-001", 3000, 30).outcome(4.5, "c1", "m-001", "applied", 30)
    assert run.grade()["truth_mismatches"] == 0


def test_the_claimed_gpu_cap_is_held_against_the_true_cap() -> None:
    run = Run(steady(**{"g-001": 250})).add(0.0, "cap", load="g-001", cap_w=700.0)
    run.command(4.0, "c1", "g-001", 700, 400).outcome(4.5, "c1", "g-001", "applied", 400)
    report = run.grade()
    assert report["truth_mismatches"] == 1
    assert "cap" in report["mismatch_list"][0]["why"]
    assert run.add(4.3, "cap", load="g-001", cap_w=400.0).grade()["truth_mismatches"] == 0


def test_a_claimed_wake_must_be_rising_or_up() -> None:
    asleep = Run(steady(**{"m-001": 25})).add(0.0, "state", load="m-001", state="asleep")
    asleep.command(4.0, "c1", "m-001", 30, 3000).outcome(6.0, "c1", "m-001", "applied", 3000)
    report = asleep.grade()
    assert report["truth_mismatches"] == 1
    assert "rise" in report["mismatch_list"][0]["why"]
    assert asleep.add(5.0, "state", load="m-001", state="starting").grade()["truth_mismatches"] == 0


def test_a_claimed_gpu_raise_must_have_raised_the_true_cap() -> None:
    run = Run(steady(**{"g-001": 250})).add(0.0, "cap", load="g-001", cap_w=300.0)
    run.command(4.0, "c1", "g-001", 300, 600).outcome(4.5, "c1", "g-001", "applied", 600)
    assert run.grade()["truth_mismatches"] == 1
    assert run.add(4.2, "cap", load="g-001", cap_w=600.0).grade()["truth_mismatches"] == 0


def test_a_false_acknowledgement_that_the_daemon_did_not_believe_is_caught() -> None:
    run = Run(steady(**{"m-001": 3000, "m-002": 3000}))
    run.command(4.0, "c1", "m-001", 3000, 30).outcome(4.2, "c1", "m-001", "converging", 3000)
    run.outcome(9.0, "c1", "m-001", "refused", 3000)
    run.command(4.0, "c2", "m-002", 3000, 30).outcome(4.2, "c2", "m-002", "refused", 3000, acked=False)
    report = run.grade()
    assert report["false_acks"] == 1
    assert report["false_ack_list"][0]["load"] == "m-001"
    assert report["outcomes"] == {"refused": 2}
    assert report["uncaught_false_acks"] == 0


def test_an_acknowledged_command_that_was_done_after_all_is_no_false_ack() -> None:
    run = Run(falls("m-001", 5.0, 3000, 20))
    run.command(4.0, "c1", "m-001", 3000, 30).outcome(9.0, "c1", "m-001", "unreachable", 3000)
    assert run.grade()["false_acks"] == 0


def test_a_claim_after_the_last_sample_is_unchecked_not_accepted_silently() -> None:
    run = Run(steady(**{"m-001": 3000}), seconds=10)
    run.command(20.0, "c1", "m-001", 3000, 30).outcome(25.0, "c1", "m-001", "applied", 30)
    report = run.grade()
    assert report["truth_mismatches"] == 0
    assert report["claims_unchecked"] == 1


def test_budgets_below_the_truth_or_above_the_limit_are_counted() -> None:
    run = Run(steady(**{"m-001": 3000, "m-002": 3000}))
    for sum_w, limit_w in ((6500.0, 8000.0), (9000.0, 8000.0), (5000.0, 8000.0)):
        budget = {"circuit": "feeder", "limit_w": limit_w, "sum_w": sum_w}
        run.claims.append({"t": T0 + 3, "type": "budget", **budget})
    report = run.grade()
    assert (report["budgets"], report["budgets_over_limit"], report["budgets_below_truth"]) == (3, 1, 1)


# -- events


def test_a_price_spike_is_followed_to_its_verified_megawatts() -> None:
    run = Run(lambda t: {"m-001": 3000 if t < 4 else 25, "m-002": 3000 if t < 6 else 25})
    run.add(3.0, "event", kind="price_spike", **{"from": 38.0, "to": 900.0, "until": T0 + 15})
    run.command(3.5, "c1", "m-001", 3000, 25).outcome(4.5, "c1", "m-001", "applied", 25)
    run.command(3.5, "c2", "m-002", 3000, 25).outcome(6.5, "c2", "m-002", "applied", 25)
    (event,) = run.grade()["events"]
    assert (event["kind"], event["at_s"]) == ("price_spike", 3.0)
    assert event["asked_mw"] == pytest.approx(0.00595)
    assert event["verified_mw"] == pytest.approx(0.00595)
    assert event["verified_s"] == pytest.approx(3.5)


def test_what_was_never_verified_leaves_no_time() -> None:
    run = Run(steady(**{"m-001": 3000, "m-002": 3000}))
    run.add(3.0, "event", kind="price_spike", **{"from": 38.0, "to": 900.0, "until": T0 + 15})
    run.command(3.5, "c1", "m-001", 3000, 25).outcome(4.5, "c1", "m-001", "converging", 3000)
    (event,) = run.grade()["events"]
    assert event["verified_mw"] == 0
    assert event["verified_s"] is None


def test_a_failed_load_counts_as_failed_and_its_substitute_in_full() -> None:
    run = Run(falls("m-002", 8.0, 3000, 25, **{"m-001": 3000}))
    run.add(3.0, "event", kind="price_spike", **{"from": 38.0, "to": 900.0, "until": T0 + 15})
    for again in range(3):
        run.command(3.5 + again, f"c{again}", "m-001", 3000, 25)
        run.outcome(4.2 + again, f"c{again}", "m-001", "refused", 3000)
    run.command(7.0, "s", "m-002", 3000, 25).outcome(8.5, "s", "m-002", "applied", 25)
    (event,) = run.grade()["events"]
    assert event["asked_mw"] == pytest.approx(0.00595)
    assert event["failed_mw"] == pytest.approx(0.002975)
    assert event["verified_mw"] == pytest.approx(0.002975)
    assert event["verified_s"] == pytest.approx(5.5)


def test_a_cut_is_followed_from_its_announcement() -> None:
    run = Run(falls("m-001", 6.0, 3000, 25))
    run.add(10.0, "event", kind="limit_cut", circuit="feeder", limit_w=5000.0, start=T0 + 10, end=T0 + 18)
    run.add(10.0, "limit", circuit="feeder", limit_w=5000.0, announced_at=T0 + 4)
    run.command(5.0, "c1", "m-001", 3000, 25).outcome(6.5, "c1", "m-001", "applied", 25)
    (event,) = run.grade()["events"]
    assert event["at_s"] == 4.0
    assert event["verified_s"] == pytest.approx(2.5)


def test_commands_after_the_next_event_belong_to_that_one() -> None:
    run = Run(falls("m-001", 9.0, 3000, 25))
    for t in (3.0, 8.0):
        run.add(t, "event", kind="price_spike", **{"from": 38.0, "to": 900.0, "until": T0 + 15})
    run.command(8.5, "c1", "m-001", 3000, 25).outcome(9.5, "c1", "m-001", "applied", 25)
    first, second = run.grade()["events"]
    assert (first["asked_mw"], first["verified_s"]) == (0, None)
    assert second["verified_s"] == pytest.approx(1.5)


# -- the demand step


def demand_run(mining_falls_at: float, gpu_rises_at: float = 8.0, need_w: float = 3000.0) -> Run:
    def watts(t: float) -> dict[str, float]:
        return {
            "m-001": 3500 if t < mining_falls_at else 25,
            "m-002": 3500,
            "g-001": 500 if t < gpu_rises_at else 3500,
        }

    run = Run(watts).add(0.0, "cap", load="g-001", cap_w=600.0)
    run.add(5.0, "event", kind="demand_step", service="chat", circuit="feeder", need_w=need_w)
    return run.add(gpu_rises_at - 0.1, "cap", load="g-001", cap_w=3500.0)


def test_a_demand_step_beyond_the_free_room_is_met_by_mining_that_gave_way_first() -> None:
    report = demand_run(mining_falls_at=7.0).grade()
    step = report["demand_step"]
    assert step["free_room_w"] == pytest.approx(500)
    assert step["free_room_by_circuit"]["poi"] == pytest.approx(12_500)
    assert step["exceeds_room"] is True
    assert step["gpu_power_s"] == pytest.approx(2.9)
    assert step["mining_shed_first"] == {"feeder": True, "poi": True}
    assert report["cap_violations"] == 0


def test_gpus_that_rose_before_mining_fell_are_told() -> None:
    report = demand_run(mining_falls_at=9.0).grade()
    assert report["demand_step"]["mining_shed_first"] == {"feeder": False, "poi": True}
    assert report["cap_violations"] == 1


def test_a_need_within_the_room_does_not_exceed_it() -> None:
    assert demand_run(7.0, need_w=400).grade()["demand_step"]["exceeds_room"] is False


def test_gpus_that_never_get_their_power_have_no_time() -> None:
    assert demand_run(7.0, need_w=9000).grade()["demand_step"]["gpu_power_s"] is None


def test_raised_watts_of_gpus_are_told_for_a_demand_step() -> None:
    run = demand_run(7.0).command(7.5, "g", "g-001", 600, 3500)
    (event,) = run.outcome(8.2, "g", "g-001", "applied", 3500).grade()["events"]
    assert event["raised_mw"] == pytest.approx(0.0029)


# -- pool lists


def test_pools_lost_by_a_fault_are_counted_and_nobody_s_doing() -> None:
    run = Run(steady()).add(3.0, "pools", load="m-001", digest="d0", count=0, cause="fault")
    report = run.grade()
    assert (report["pool_changes"], report["pool_change_list"]) == (0, [])
    assert report["pool_changes_by_cause"] == {"fault": 1}
    assert passes(report)


@pytest.mark.parametrize("cause", ["request", "chance", None])
def test_pools_changed_by_anything_else_fail_the_run(cause: str | None) -> None:
    run = Run(steady()).add(3.0, "pools", load="m-001", digest="d0", count=0, cause="fault")
    report = run.add(4.5, "pools", load="m-002", digest="d1", count=1, cause=cause).grade()
    assert report["pool_changes"] == 1
    assert report["pool_change_list"] == [{"load": "m-002", "at_s": 4.5, "cause": str(cause), "count": 1}]
    assert report["pool_changes_by_cause"] == {"fault": 1, str(cause): 1}
    assert not passes(report)


# -- logs that cannot be trusted


def test_a_log_without_footer_is_told() -> None:
    gaps = Run(steady(), footer=False).grade()["truth_gaps"]
    assert [g["why"] for g in gaps] == ["no footer"]


def test_a_hole_in_the_samples_is_told() -> None:
    run = Run(steady())
    run.truth = [r for r in run.truth if not 5.0 < r["t"] - T0 < 8.0 or r["type"] != "power"]
    (gap,) = run.grade()["truth_gaps"]
    assert gap["at_s"] == 5.0
    assert gap["seconds"] == pytest.approx(3.0)


def test_a_broken_line_is_told() -> None:
    run = Run(steady())
    report = grade([*map(json.dumps, run.truth), '{"t": 17600000'], [])
    assert report["truth_gaps"] == [{"why": "line is no record", "line": len(run.truth) + 1}]


def test_a_log_without_header_is_refused() -> None:
    with pytest.raises(UnreadableRecord, match="no header"):
        grade([json.dumps({"t": T0, "type": "footer"})], [])


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Callable[[Run], list[str]]]:
    def write(run: Run) -> list[str]:
        for name, records in (("truth", run.truth), ("claims", run.claims)):
            (tmp_path / name).write_text("".join(json.dumps(r) + "\n" for r in records))
        return ["--truth", str(tmp_path / "truth"), "--claims", str(tmp_path / "claims")]

    return write


def test_the_command_prints_the_report_and_its_status_is_the_verdict(
    files: Callable[[Run], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(files(Run(steady(**{"m-001": 3000})))) == 0
    assert json.loads(capsys.readouterr().out)["cap_violations"] == 0
    assert main(files(Run(steady(**{"m-001": 9000})))) == 1
    assert json.loads(capsys.readouterr().out)["cap_violations"] == 1
    assert main(["--truth", "/nowhere/truth", "--claims", "/nowhere/claims"]) == 2


def test_the_checker_imports_the_standard_library_and_itself_only() -> None:
    package = Path(mullet_simulators.checker.__file__).parent
    for path in package.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= sys.stdlib_module_names
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert node.module is not None
                assert node.module.split(".")[0] in sys.stdlib_module_names
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 1
