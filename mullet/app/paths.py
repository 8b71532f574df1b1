"""Where the daemon keeps its state and where policies are found."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path


class NoSuchPolicy(FileNotFoundError):
    """Neither a file nor a shipped policy has this name."""


def state_directory(facility_id: str, given: Path | None = None) -> Path:
    """Return (and make) the folder of a facility's records.

    The one given, else $STATE_DIRECTORY as systemd sets it, else $XDG_STATE_HOME/mullet or ~/.local/state/mullet;
    in the last cases a folder of the facility's own beneath.
    """
    if given is not None:
        folder = given
    elif system := os.environ.get("STATE_DIRECTORY"):
        folder = Path(system.split(":")[0]) / facility_id
    else:
        home = os.environ.get("XDG_STATE_HOME")
        folder = (Path(home) if home else Path.home() / ".local" / "state") / "mullet" / facility_id
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    return folder


def shipped_policies() -> dict[str, Path]:
    """Return the policy files that come with mullet, by name: from the wheel, or from the source tree."""
    for folder in (Path(str(files("mullet"))) / "policies", Path(__file__).resolve().parents[2] / "policies"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def find_policy(name: str) -> Path:
    """Return the policy file called `name`: a path, or the name of a shipped one ("demo").

    Raises:
        NoSuchPolicy: there is none; the message lists the shipped ones.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_policies()
    if name in shipped:
        return shipped[name]
    raise NoSuchPolicy(f"no policy file {name!r}; shipped with mullet: {', '.join(shipped) or 'none'}")
