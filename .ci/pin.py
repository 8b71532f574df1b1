"""Write the exact version of everything that was resolved into pyproject.toml, as constraints that uv keeps to.

`uv run --no-project python .ci/pin.py` pins what `uv lock` resolves within the present pins (after a new dependency).
With names of packages, their pins are dropped first; with `--upgrade` all are, so that everything moves to its newest.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
BLOCK = re.compile(r"(?m)^constraint-dependencies = \[\n(?:    .*\n)*\]\n")
EXPORT = ["uv", "export", "--quiet", "--format", "requirements.txt", "--all-groups", "--no-emit-project"]
BARE = ["--no-hashes", "--no-annotate", "--no-header"]


def main(arguments: list[str]) -> int:
    everything = arguments == ["--upgrade"]
    if not everything and any(name.startswith("-") for name in arguments):
        sys.stderr.write(f"{__doc__}\n")
        return 2
    before = PROJECT.read_text(encoding="utf-8")
    kept = [] if everything else [pin for pin in pins_of(before) if pin.partition("==")[0] not in arguments]
    moving = ["--upgrade"] if everything else [f"--upgrade-package={name}" for name in arguments]
    try:
        PROJECT.write_text(with_pins(before, kept), encoding="utf-8")
        subprocess.run(["uv", "lock", "--quiet", *moving], cwd=PROJECT.parent, check=True)
        exported = subprocess.run([*EXPORT, *BARE], cwd=PROJECT.parent, check=True, stdout=subprocess.PIPE, text=True)
    except BaseException:
        PROJECT.write_text(before, encoding="utf-8")
        raise
    pins = [line for line in exported.stdout.splitlines() if line and not line.startswith(("#", "-"))]
    PROJECT.write_text(with_pins(before, pins), encoding="utf-8")
    sys.stdout.write(f"{len(pins)} versions pinned; now: uv sync\n")
    return 0


def pins_of(text: str) -> list[str]:
    """Return the constraints that the text of pyproject.toml has now."""
    found: list[str] = tomllib.loads(text)["tool"]["uv"]["constraint-dependencies"]
    return found


def with_pins(text: str, pins: list[str]) -> str:
    """Return the text of pyproject.toml with these constraints and no others."""
    block = "".join(["constraint-dependencies = [\n", *(f'    "{pin}",\n' for pin in pins), "]\n"])
    found, count = BLOCK.subn(lambda _: block, text)
    if count != 1:
        raise SystemExit(f"{PROJECT.name} has {count} blocks of constraint-dependencies, not 1")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
