"""`python -m benchmarks NAME [--quick] [--json FILE] [--peers PYTHON] [--soak SECONDS]`: figures and their targets.

Exit status 0 whatever the figures are, 1 where they could not be measured, 2 where the command line is wrong.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Figure, commit, machine, table, write
from benchmarks.options import Options
from benchmarks.workers.process import WorkerError

MODULES = {
    "planner": "benchmarks.planner",
    "allocator": "benchmarks.allocator",
    "shed": "benchmarks.shed",
    "miners": "benchmarks.miners",
}
"""Each has `measure(options: Options) -> list[Figure]`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Figures against targets and peers.")
    parser.add_argument("name", metavar="NAME", choices=list(MODULES), help=", ".join(MODULES))
    parser.add_argument("--quick", action="store_true", help="smaller instances, within 45 s on 2 cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument(
        "--peers", default=sys.executable, metavar="PYTHON", help="interpreter that has the peers (default: this one)"
    )
    parser.add_argument(
        "--soak", type=float, metavar="SECONDS", help="miners: how long polling goes on with faults (default: 600)"
    )
    given = parser.parse_args(arguments)
    try:
        options = Options(given.quick, given.peers, given.soak)
        figures: list[Figure] = importlib.import_module(MODULES[given.name]).measure(options)
        sys.stdout.write(f"{given.name}{' (quick)' if given.quick else ''}: {machine()}, commit {commit()}\n\n")
        sys.stdout.write(table(figures) + "\n")
        if given.json is not None:
            write(figures, given.json)
    except (WorkerError, OSError) as error:
        sys.stderr.write(f"{given.name} could not run: {error}\n")
        return 1
    return 1 if any(figure.failed for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
