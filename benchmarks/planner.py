"""The horizon planner: seconds, memory, agreement, what rounding and coarse steps cost, and the loop beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import Figure, at_least, at_most
from benchmarks.options import Options
from benchmarks.workers.process import PeerMissing, WorkerError, run_worker
from benchmarks.workers.statistics import percentile

_LIMIT_S = 1_800.0
_SAME = 1e-6
_SHORT_WAITS = {"quiet_s": 1.0, "kills": 1, "kill_limit_s": 1.0}
_SEARCH_S = 5.0
_SEARCHED_LOADS = 300
"""Below this size rounding loses what shows, and a search for whole solutions takes its place."""
_PEERS = (("linopy_peer", "linopy + HiGHS"), ("pulp_peer", "PuLP + HiGHS"))


@dataclass(frozen=True, slots=True)
class _Size:
    """How large everything is."""

    instance: dict[str, Any]
    solves: int
    repeats: int
    check_every: int
    lived_steps: int
    loads: int
    plans: int

    @property
    def words(self) -> str:
        return f"{self.instance['groups']} groups, {self.instance['loads']:,} loads, {self.instance['grid']}"


_FULL = _Size({"groups": 200, "loads": 30_000, "grid": "nu88", "seed": 1}, 300, 60, 6, 288, 30_000, 20)
_QUICK = _Size({"groups": 50, "loads": 7_500, "grid": "nu88", "seed": 1}, 30, 10, 5, 12, 3_000, 3)


def measure(options: Options) -> list[Figure]:
    """Return all figures of the planner; the targets are those of the full size."""
    size = _QUICK if options.quick else _FULL
    found: list[Figure] = []
    parts: tuple[tuple[str, Callable[[], list[Figure]]], ...] = (
        ("speed", lambda: _speed(options, size)),
        ("rounding", lambda: _rounding(options)),
        ("closed loop", lambda: _closed_loop(options, size)),
        ("control loop", lambda: _control_loop(size)),
    )
    for name, part in parts:
        sys.stderr.write(f"{name}\n")
        try:
            found += part()
        except WorkerError as error:
            found.append(Figure(name, None, "", peer=f"could not run: {error}", failed=True))
    return found


def _speed(options: Options, size: _Size) -> list[Figure]:
    cold = run_worker("cold", {**size.instance, "backend": "clp"}, _LIMIT_S)
    second = run_worker("cold", {**size.instance, "backend": "highs"}, _LIMIT_S)
    # Two days beyond the last plan's start: the scene must reach as far as its horizon.
    rolling = {**size.instance, "days": 4}
    warm = run_worker("rolling", {**rolling, "solves": size.solves, "check_every": 0}, _LIMIT_S)
    checked = {**rolling, "solves": size.repeats, "check_every": size.check_every}
    again = run_worker("rolling", checked, _LIMIT_S)
    peers = {name: _peer(worker, options, size) for worker, name in _PEERS}
    cold_s, warm_s = cold["build_s"] + cold["solve_s"], percentile(warm["total_s"][1:], 0.5)
    found = _seconds(size, cold, second, warm, cold_s, warm_s)
    for name, peer in peers.items():
        found += _against(name, peer, cold, cold_s, warm_s, goals=size is _FULL and name.startswith("linopy"))
    return found + _sameness(cold, second, warm, again)


def _peer(worker: str, options: Options, size: _Size) -> dict[str, Any] | None:
    try:
        return run_worker(worker, size.instance, _LIMIT_S, options.peers)
    except PeerMissing:
        return None


def _seconds(
    size: _Size, cold: dict[str, Any], second: dict[str, Any], warm: dict[str, Any], cold_s: float, warm_s: float
) -> list[Figure]:
    full = size is _FULL
    parts = f"build {cold['build_s']:.3f}, CLP {cold['solve_s']:.3f}; {cold['variables']:,} x {cold['rows']:,}"
    other = f"build {second['build_s']:.3f}, HiGHS {second['solve_s']:.3f}"
    walls = warm["wall_s"][1:]
    # Medians: what a solve has not given back yet when it is looked at comes and goes.
    part = size.solves // 6
    early, late = (percentile(span, 0.5) for span in (warm["resident_mib"][1 : part + 1], warm["resident_mib"][-part:]))
    growth = (late - early) / early * 100.0
    times = f"{len(walls)} re-solves, {warm['warm']} of them warm"
    build = f"of it building, median {percentile(warm['build_s'][1:], 0.5):.3f}; {times}"
    return [
        Figure(f"cold build + solve, {size.words}", cold_s, "s CPU", at_most(1.5) if full else None, parts),
        Figure("the same with the second backend", second["build_s"] + second["solve_s"], "s CPU", None, other),
        Figure("warm re-solve, median", warm_s, "s CPU", at_most(0.25) if full else None, build),
        Figure("warm re-solve, p50", percentile(walls, 0.5) * 1e3, "ms"),
        Figure("warm re-solve, p99", percentile(walls, 0.99) * 1e3, "ms", at_most(500.0) if full else None,
               f"CPU p99 {percentile(warm['total_s'][1:], 0.99) * 1e3:.0f} ms"),
        Figure("resident memory, growth over the re-solves", growth, "%", at_most(1.0), f"from {early:.0f} MiB"),
        Figure("peak memory, cold", cold["peak_mib"], "MiB"),
    ]  # fmt: skip


def _against(
    name: str, peer: dict[str, Any] | None, cold: dict[str, Any], cold_s: float, warm_s: float, goals: bool
) -> list[Figure]:
    faster_cold, faster_warm = (at_least(3.0), at_least(20.0)) if goals else (None, None)
    if peer is None:
        words = "not installed: uv run --group bench python -m benchmarks planner"
        return [Figure(f"cold, times faster than {name}", None, "x", faster_cold, words)]
    total = peer["build_s"] + peer["solve_s"]
    words = (
        f"{total:.2f} s CPU: build {peer['build_s']:.2f}, solve {peer['solve_s']:.2f}; {peer['variables']:,} variables"
    )
    apart = _apart(peer["objective"], cold["objective"])
    return [
        Figure(f"cold, times faster than {name}", total / cold_s, "x", faster_cold, words,
               total / cold_s),
        Figure(f"warm, times faster than {name}", total / warm_s, "x", faster_warm,
               "its build + solve: a new plan is a new model there", total / warm_s),
        Figure(f"objective, relative difference from {name}", apart, "", at_most(_SAME), f"{peer['objective']:.4f}"),
        Figure(f"peak memory of {name}", peer["peak_mib"], "MiB", None, f"mullet cold {cold['peak_mib']:.0f} MiB",
               peer["peak_mib"] / cold["peak_mib"]),
    ]  # fmt: skip


def _sameness(
    cold: dict[str, Any], second: dict[str, Any], warm: dict[str, Any], again: dict[str, Any]
) -> list[Figure]:
    count = len(again["objectives"])
    worst = max(_apart(a, b) for a, b in zip(warm["objectives"], again["objectives"], strict=False))
    differing = sum(a != b for a, b in zip(warm["digests"], again["digests"], strict=False))
    backends = max(_apart(cold["objective"], second["objective"]), again["differences"]["highs"])
    checked = f"{again['checked'] + 1} programs"
    return [
        Figure("objective, largest relative difference of backends", backends, "", at_most(_SAME), checked),
        Figure("objective, largest relative difference warm to cold", again["differences"]["cold"], "", at_most(_SAME),
               f"{again['checked']} programs"),
        Figure("objective, the same inputs in another process", worst, "", at_most(_SAME), f"{count} re-solves"),
        Figure("plans that differ by a bit between the two", differing, "", at_most(0), f"of {count}"),
    ]  # fmt: skip


def _rounding(options: Options) -> list[Figure]:
    sizes = [(50, 487), (50, 3_000), (50, 30_000), (10, 15), (10, 50), (50, 50)]
    if options.quick:
        sizes = [(50, 487), (10, 50)]
    found = []
    for groups, loads in sizes:
        asked = {"groups": groups, "loads": loads, "grid": "nu64", "seed": 1}
        got = run_worker("rounding", {**asked, "limit_s": _SEARCH_S, "searched_loads": _SEARCHED_LOADS}, _LIMIT_S)
        small = loads <= _SEARCHED_LOADS
        name = f"integer schedule, {loads:,} loads in {groups} groups"
        words = f"{got['earned']:.2f} of the bound's {got['bound']:.2f}; {got['by']}"
        words += f" (rounding alone {got['rounded_gap'] * 100:.3g} %)" if small else ""
        found.append(Figure(f"{name}: gap", got["gap"] * 100.0, "%", at_most(0.5 if small else 0.02), words))
        found.append(Figure(f"{name}: limits broken", got["broken"], "", at_most(0)))
        times = f"relaxed {got['relaxed_s']:.2f}, rounding {got['rounded_s']:.2f}"
        limit = at_most(_SEARCH_S) if small else None
        found.append(Figure(f"{name}: time in all", got["total_s"], "s", limit, times))
    return found


def _closed_loop(options: Options, size: _Size) -> list[Figure]:
    found = []
    for name, first_day in (("synthetic prices", None), ("ERCOT HB_WEST, 8 May 2024", 128)):
        if options.quick and first_day is not None:
            continue
        asked = {"groups": 20, "loads": 30_000, "seed": 1, "steps": size.lived_steps, "first_day": first_day}
        coarse = run_worker("closed_loop", {**asked, "grid": "nu64"}, _LIMIT_S)
        label = f"closed loop {size.lived_steps // 12} h, {name}: loss by coarse far steps"
        if "missing" in coarse:
            found.append(Figure(label, None, "%", at_most(0.03), f"skipped: {coarse['missing']}"))
            continue
        fine = run_worker("closed_loop", {**asked, "grid": "u288"}, _LIMIT_S)
        loss = (fine["earned"] - coarse["earned"]) / abs(fine["earned"]) * 100.0
        words = (
            f"{coarse['earned']:.2f} of {fine['earned']:.2f} at uniform 5 min, perfect foresight {fine['bound']:.2f}"
        )
        found.append(Figure(label, loss, "%", at_most(0.03), words, fine["p50_s"] / coarse["p50_s"]))
    return found


def _control_loop(size: _Size) -> list[Figure]:
    waits = {"quiet_s": 3.0, "kills": 5, "kill_limit_s": 2.0} if size is _FULL else _SHORT_WAITS
    got = run_worker("control_loop", {"loads": size.loads, "seed": 1, "plans": size.plans, "limit_s": 20.0, **waits},
                     _LIMIT_S)  # fmt: skip
    quiet, loads = got["quiet_max_s"], f"{size.loads:,} loads"
    words = f"{quiet * 1e3:.1f} ms without planning; {got['answered']} of {got['asked']} plans answered"
    busy, first = got["busy_max_s"], got["first_max_s"]
    kills = f"worst of {got['kills']}; the question itself fails {got['refused_max_s'] * 1e3:.0f} ms after the limit, "
    kills += f"the process is gone after {got['gone_max_s'] * 1e3:.0f} ms"
    dispatch = got["dispatch_max_s"] * 1e3
    answer = None if got["first_answer_s"] is None else f"the first {got['first_answer_s']:.2f} s"
    return [
        Figure(f"control loop, longest gap while planning {loads}", busy * 1e3, "ms", at_most(10.0), words,
               quiet / busy),
        Figure("control loop, gap when the facility is handed over", first * 1e3, "ms", at_most(10.0),
               "at start and after a reload", quiet / first),
        Figure(f"plan of {loads} by the worker, request to answer, median", got["answer_p50_s"], "s", None, answer),
        Figure("stuck solver, from the limit to another plan adopted", dispatch, "ms", at_most(100.0), kills),
    ]  # fmt: skip


def _apart(one: float, other: float) -> float:
    return abs(one - other) / max(1.0, abs(one))
