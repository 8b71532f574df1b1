"""The real-time allocator: time per tick, distance from the linear program's bound, limits kept."""

from __future__ import annotations

from typing import Any

from benchmarks.figures import Figure, at_most
from benchmarks.options import Options
from benchmarks.workers.process import run_worker

_LIMIT_S = 900.0
_TARGETS_MS = {10_000: 10.0, 100_000: 120.0}
_LOOSE, _TIGHT = (1.0, 1.3), (0.85, 1.1)


def measure(options: Options) -> list[Figure]:
    """Return the figures of 10,000 and 100,000 loads and of random small instances."""
    figures: list[Figure] = []
    runs: list[tuple[str, dict[str, Any]]] = [
        ("10,000 loads", {"loads": 10_000, "profiles": 24, "ticks": 300, "bounds": 30, "whole_s": 120.0}),
        ("10,000 loads, no two alike", {"loads": 10_000, "profiles": 10_000, "ticks": 300, "bounds": 5}),
        ("100,000 loads", {"loads": 100_000, "profiles": 24, "ticks": 100, "bounds": 2}),
    ]
    if options.quick:
        runs = [(runs[0][0], {**runs[0][1], "ticks": 100, "bounds": 5, "whole_s": 0.0})]
    for name, asked in runs:
        found = run_worker("allocation", {**asked, "seed": 1, "instances": 0, "breakers_share": _LOOSE}, _LIMIT_S)
        figures += _kernel(f"kernel, {name}", asked, found)
    tight = {"loads": 10_000, "profiles": 24, "ticks": 20, "bounds": 20, "breakers_share": _TIGHT}
    found = run_worker("allocation", {**tight, "seed": 2, "instances": 0}, _LIMIT_S)
    figures.append(_gap("kernel, 10,000 loads, most breakers full: largest gap", found, None, 20))
    count = 1_000 if options.quick else 10_000
    found = run_worker("allocation", {"seed": 1, "ticks": 0, "instances": count}, _LIMIT_S)
    broken = Figure(
        f"instances of {count:,} random ones with a limit broken", found["instances_broken"], "", at_most(0)
    )
    figures.append(broken)
    for loads in (10_000,) if options.quick else (10_000, 100_000):
        ticks = 10 if options.quick else 60
        found = run_worker("tick", {"loads": loads, "seed": 1, "ticks": ticks}, _LIMIT_S)
        name = f"whole allocation from a snapshot, {loads:,} loads"
        figures += [
            Figure(f"{name}: p50", found["p50_s"] * 1e3, "ms"),
            Figure(f"{name}: p99", found["p99_s"] * 1e3, "ms", peer="setpoints and words of every load included"),
        ]
    return figures


def _kernel(name: str, asked: dict[str, Any], found: dict[str, Any]) -> list[Figure]:
    limit = at_most(_TARGETS_MS[asked["loads"]])
    bound = f"CPU p99 {found['cpu_p99_s'] * 1e3:.1f} ms; linear program {found['bound_s']:.2f} s CPU"
    whole = []
    if "whole_gap" in found:
        words = f"bound proven for whole loads in {asked['whole_s']:.0f} s, at the tick with the largest gap; "
        words += f"whole loads alone cost at least {found['whole_price'] * 100:.2g} %"
        whole.append(Figure(f"{name}: gap to the bound of whole loads", found["whole_gap"] * 100, "%", None, words))
    return [
        Figure(f"{name}: p99", found["p99_s"] * 1e3, "ms", limit, bound, found["bound_s"] / found["p99_s"]),
        Figure(f"{name}: p50", found["p50_s"] * 1e3, "ms"),
        Figure(f"{name}: sorting once, after a change of hashprice", found["prepare_s"] * 1e3, "ms"),
        _gap(f"{name}: largest gap", found, 0.001, asked["bounds"]),
        *whole,
        Figure(f"{name}: ticks with a limit broken", found["ticks_broken"], "", at_most(0), f"of {asked['ticks']}"),
        Figure(f"{name}: peak memory", found["peak_mib"], "MiB", peer="the bound's included"),
    ]


def _gap(name: str, found: dict[str, Any], target: float | None, bounds: int) -> Figure:
    words = f"bound of the linear program, {bounds} ticks; mean {found['gap_mean'] * 100:.2g} %"
    return Figure(name, found["gap_max"] * 100, "%", None if target is None else at_most(target), words)
