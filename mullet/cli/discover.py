"""`mullet discover`: which miners stand in a network, and the banks of a policy for them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mullet.cli.say import NO, AsJson, describe, fail, many, note, number, power, refusals, say, say_json, table

if TYPE_CHECKING:
    from mullet.app.discovery import Search
    from mullet.policy.fragment import Bank, Figure

MOST_CONCURRENCY = 512
NAMED = 20
"""Unidentified addresses that are named before the rest is counted."""


def register(app: typer.Typer) -> None:
    """Offer the command of this module."""
    app.command("discover", help=_DISCOVER)(discover)


_DISCOVER = """Search a network for miners: tell firmwares apart, read each once, print banks for a policy.

Nothing is ever written to a device. Each miner's reads are tried with its maker's default password first, so that
you learn where it is still in use; then with the credentials you name. Watts are what the devices report where they
do, and called estimated where they do not. The banks pass `mullet check`; name the circuit they stand on.

Exits 1 if nothing was found, or if something answered that could not be identified.

Example: mullet discover 10.0.1.0/24 10.0.2.1-100 --credential whatsminer-password"""


def discover(
    targets: Annotated[
        list[str], typer.Argument(metavar="NETWORK...", help="Networks (10.0.1.0/24) and ranges (10.0.1.1-48).")
    ],
    ports: Annotated[
        str, typer.Option("--ports", metavar="NAME=PORT,...", help="Ports that were moved, such as web=8080.")
    ] = "",
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, max=MOST_CONCURRENCY, help="Hosts asked at once.")
    ] = None,
    credential: Annotated[
        list[str] | None,
        typer.Option("--credential", metavar="[CLASS=]NAME", help="Credential to try; may be given again."),
    ] = None,
    credentials: Annotated[
        Path | None,
        typer.Option("--credentials", metavar="FOLDER", help="Folder of credentials; systemd's comes first."),
    ] = None,
    circuit: Annotated[str, typer.Option("--circuit", help="Circuit that the printed banks name.")] = "poi",
    driver: Annotated[str, typer.Option("--driver", help="Whose devices to search for.")] = "asic",
    public: Annotated[
        bool, typer.Option("--public", help="Search networks that are not private: they are mine.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    from mullet.app.discovery import addresses_of, build_discoverer, run_search
    from mullet.cli.start import run_until_done
    from mullet.policy.fragment import banks_of, fragment
    from mullet.ports import MulletError
    from mullet.registry import BrokenPlugin, DuplicateName, UnknownName

    with refusals(ValueError, OSError, UnknownName, DuplicateName, BrokenPlugin):
        addresses = addresses_of(targets, public)
        options: dict[str, Any] = {"ports": ports, "credentials": list(credential or ())}
        if concurrency is not None:
            options["concurrency"] = concurrency
        discoverer = build_discoverer(driver, options, credentials)
    with _progress(len(addresses)) as looked:
        try:
            search = run_until_done(run_search(discoverer, addresses, looked))
        except (MulletError, OSError) as error:
            fail(describe(error), NO)
    banks = banks_of(search.found)
    text = fragment(banks, driver, circuit)
    if as_json:
        say_json(_report(search, banks, text))
    else:
        _show(search, banks, text)
    if not search.found or search.unidentified:
        raise typer.Exit(NO)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[Search], None]]:
    """Show a bar on stderr if somebody looks at it."""
    if not sys.stderr.isatty():
        yield lambda search: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("searching"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)

        def looked(search: Search) -> None:
            bar.update(task, completed=search.looked, description=f"{len(search.found)} found")

        yield looked


def _report(search: Search, banks: list[Bank], text: str) -> dict[str, Any]:
    return {
        "found": [asdict(sighting) for sighting in search.found],
        "groups": [asdict(bank) for bank in banks],
        "unidentified": [
            {"address": item.address, "model": item.model, "reason": item.reason} for item in search.unidentified
        ],
        "others": search.others,
        "silent": search.silent,
        "policy": text,
        "seconds": round(search.seconds, 3),
    }


def _show(search: Search, banks: list[Bank], text: str) -> None:
    if banks:
        table(
            ("model", "firmware", "found", "running", "at full", "off", "hashrate", "default password"),
            [
                (
                    bank.model or "?",
                    " ".join((bank.title, *bank.firmwares[:1])) + (" ..." if len(bank.firmwares) > 1 else ""),
                    str(bank.count),
                    str(bank.running),
                    _watts(bank.full_watts),
                    _watts(bank.off_watts),
                    "?" if bank.th_per_s is None else f"{bank.th_per_s.value:g} TH/s",
                    {True: "accepted", False: "refused", None: "not asked for"}[bank.default_password],
                )
                for bank in banks
            ],
            right=("found", "running", "at full", "off", "hashrate"),
        )
        say("~ estimated; without it, as the devices report it")
        say()
        say(text.rstrip("\n"))
    for sighting in search.unidentified[:NAMED]:
        note(f"{sighting.address}: not identified: {sighting.reason}")
    if len(search.unidentified) > NAMED:
        note(f"and {len(search.unidentified) - NAMED} more that were not identified")
    for sighting in [item for item in search.found if item.reason][:NAMED]:
        note(f"{sighting.address}: {sighting.reason}")
    note(
        f"{many(len(search.found), 'miner')} found, {len(search.unidentified)} not identified, "
        f"{search.others} other, {search.silent} silent; {number(search.seconds, 1)} s"
    )


def _watts(figure: Figure | None) -> str:
    if figure is None:
        return "?"
    return power(figure.value) if figure.reported else f"~{power(figure.value)}"
