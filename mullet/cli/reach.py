"""The options with which every command finds the daemon, and how it asks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mullet.cli.client import Daemon, NoDaemon, Refused, find_daemon
from mullet.cli.say import NO, USAGE, fail, note, refusals

Url = Annotated[
    str | None, typer.Option("--url", envvar="MULLET_URL", help="Where the daemon listens, if not on this machine.")
]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", envvar="MULLET_TOKEN_FILE", help="File that holds the API's token.")
]
FacilityName = Annotated[
    str | None, typer.Option("--facility", envvar="MULLET_FACILITY", help="Which facility, where several daemons run.")
]
StateFolder = Annotated[
    Path | None, typer.Option("--state", envvar="MULLET_STATE", help="The daemon's state folder (mullet run --state).")
]
Owner = Annotated[
    str | None, typer.Option("--owner", help="Who orders it, for the record; your login name if left out.")
]

_BAD_INPUT = (400, 401, 404, 405, 422)


def reach(url: str | None, token_file: Path | None, facility: str | None, state: Path | None) -> Daemon:
    """Return the daemon that the options name; ends the command where there is none."""
    with refusals(NoDaemon):
        return find_daemon(url, token_file, facility, state)


def ask(daemon: Daemon, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """Ask the daemon; ends the command with one line if it refuses."""
    try:
        return daemon.ask(method, path, body)
    except NoDaemon as error:
        fail(str(error))
    except Refused as error:
        for line in error.problems if len(error.problems) > 1 else ():
            note(line)
        fail(str(error), USAGE if error.status in _BAD_INPUT else NO)


def owner_or_login(owner: str | None) -> str:
    """Return who orders."""
    if owner:
        return owner
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        fail("this process has no login name; give --owner NAME")
