"""The shed list: built in time for the tick, asked in microseconds."""

from __future__ import annotations

from benchmarks.figures import Figure, at_most
from benchmarks.options import Options
from benchmarks.workers.process import run_worker

_LIMIT_S = 600.0


def measure(options: Options) -> list[Figure]:
    """Return building and asking times at 10,000 and 100,000 loads, and whether any answer was wrong."""
    figures = []
    for loads in (10_000,) if options.quick else (10_000, 100_000):
        asked = {"loads": loads, "seed": 1, "builds": 5 if options.quick else 20, "queries": 20_000, "scans": 50}
        if options.quick:
            asked["queries"] = 5_000
        found = run_worker("shed", asked, _LIMIT_S)
        name = f"shed list, {loads:,} loads"
        scan = f"walking the connection's list, p50 {found['scan_p50_s'] * 1e6:.0f} µs"
        figures += [
            Figure(f"{name}: query p99", found["query_p99_s"] * 1e6, "µs", at_most(50.0) if loads == 100_000 else None,
                   scan, found["scan_p50_s"] / found["query_p99_s"]),
            Figure(f"{name}: query p50", found["query_p50_s"] * 1e6, "µs"),
            Figure(f"{name}: query max", found["query_max_s"] * 1e6, "µs"),
            Figure(f"{name}: build p50", found["build_p50_s"] * 1e3, "ms"),
            Figure(f"{name}: build p99", found["build_p99_s"] * 1e3, "ms"),
            Figure(f"{name}: first build, index included", found["first_build_s"] * 1e3, "ms"),
            Figure(f"{name}: wrong answers", found["wrong"], "", at_most(0), f"of {asked['queries']:,}"),
            Figure(f"{name}: peak memory", found["peak_mib"], "MiB"),
        ]  # fmt: skip
    return figures
