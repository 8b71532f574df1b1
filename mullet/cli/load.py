"""Policies as commands name them: a path, or the name of one that comes with mullet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from mullet.cli.say import fail, many, refusals

if TYPE_CHECKING:
    from mullet.policy import LoadedPolicy


def load(name: str) -> LoadedPolicy:
    """Return a policy by path or shipped name; ends the command with every problem if it has any."""
    from mullet.policy import PolicyErrors

    try:
        return read(name)
    except PolicyErrors as error:
        for problem in error.problems:
            typer.echo(str(problem), err=True)
        fail(f"{name}: {many(len(error.problems), 'problem')}")


def read(name: str) -> LoadedPolicy:
    """Return a policy by path or shipped name.

    Raises:
        PolicyErrors: everything that is wrong with it.
    """
    from mullet.app.build import read_policy
    from mullet.app.paths import find_policy
    from mullet.registry import DuplicateName, Registry

    with refusals(OSError, ImportError, DuplicateName, UnicodeDecodeError):
        return read_policy(find_policy(name), Registry())
