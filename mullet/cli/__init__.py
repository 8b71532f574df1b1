"""The command line; nothing heavy is imported until a command needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from mullet import __version__
from mullet.cli import discover, journal, operate, plan, policy, start, status
from mullet.cli.say import say

app = typer.Typer(
    name="mullet",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Controls the power of a mullet data center: Bitcoin miners and inference GPUs behind one grid connection.

    Begin with `mullet demo`, which controls a simulated facility and shows it at http://127.0.0.1:8780.
    Then write a policy, `mullet check` it, and `mullet run` it: a facility that was never started before is only
    observed, until you say `mullet mode auto`.

    Exit codes: 0 good, 1 the answer is no, 2 usage or bad input.""",
)


def _say_version(wanted: bool) -> None:
    if wanted:
        say(__version__)
        raise typer.Exit


for module in (start, discover, policy, plan, status, operate):
    module.register(app)
app.add_typer(journal.app, name="journal")


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit with its code."""
    app(prog_name="mullet")
