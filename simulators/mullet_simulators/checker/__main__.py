"""`python -m mullet_simulators.checker --truth F --claims F`: print the report of a run.

Exits 0 where the run passes, 1 where it does not, 2 where the files cannot be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .record import UnreadableRecord
from .report import grade_files, passes


def main(arguments: list[str] | None = None) -> int:
    """Print the report; return the exit status."""
    parser = argparse.ArgumentParser(prog="mullet_simulators.checker", description=__doc__)
    parser.add_argument("--truth", type=Path, required=True, help="truth log written by the simulator")
    parser.add_argument("--claims", type=Path, required=True, help="claims exported from the journal")
    chosen = parser.parse_args(arguments)
    try:
        report = grade_files(chosen.truth, chosen.claims)
    except (OSError, UnreadableRecord, KeyError) as error:
        sys.stderr.write(f"cannot grade: {error!r}\n")
        return 2
    sys.stdout.write(json.dumps(report) + "\n")
    return 0 if passes(report) else 1


if __name__ == "__main__":
    sys.exit(main())
