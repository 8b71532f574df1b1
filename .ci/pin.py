"""Write the exact version of everything that was resolved into pyproject.toml, as constraints that uv keeps to.

`uv run --no-project python .ci/pin.py` pins what `uv lock` resolves within the present pins (after a new dependency);
with `--upgrade` the pins are dropped first, so that everything moves to its newest version.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
BLOCK = re.compile(r"(?m)^constraint-dependencies = \[\n(?:    .*\n)*\]\n")
EXPORT = ["uv", "export", "--quiet", "--format", "requirements.txt", "--all-groups", "--no-emit-project"]
BARE = ["--no-hashes", "--no-annotate", "--no-header"]


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--upgrade"]):
        sys.stderr.write(f"{__doc__}\n")
        return 2
    before = PROJECT.read_text(encoding="utf-8")
    try:
        if arguments:
            PROJECT.write_text(with_pins(before, []), encoding="utf-8")
        subprocess.run(["uv", "lock", "--quiet", *arguments], cwd=PROJECT.parent, check=True)
        exported = subprocess.run([*EXPORT, *BARE], cwd=PROJECT.parent, check=True, stdout=subprocess.PIPE, text=True)
    except BaseException:
        PROJECT.write_text(before, encoding="utf-8")
        raise
    pins = [line for line in exported.stdout.splitlines() if line and not line.startswith(("#", "-"))]
    PROJECT.write_text(with_pins(before, pins), encoding="utf-8")
    sys.stdout.write(f"{len(pins)} versions pinned; now: uv sync\n")
    return 0


def with_pins(text: str, pins: list[str]) -> str:
    """Return the text of pyproject.toml with these constraints and no others."""
    block = "".join(["constraint-dependencies = [\n", *(f'    "{pin}",\n' for pin in pins), "]\n"])
    found, count = BLOCK.subn(lambda _: block, text)
    if count != 1:
        raise SystemExit(f"{PROJECT.name} has {count} blocks of constraint-dependencies, not 1")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
