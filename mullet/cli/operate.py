"""Orders to the running daemon: shed, hold, release, mode, reload, restore."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from mullet.cli.client import NoDaemon, Refused, segment
from mullet.cli.reach import FacilityName, Owner, StateFolder, TokenFile, Url, ask, owner_or_login, reach
from mullet.cli.say import NO, AsJson, fail, many, note, power, refusals, say, say_json
from mullet.domain.facility import Mode
from mullet.domain.units import Dimension, QuantityError, parse_quantity

UNAUTHORISED = (401, 404)


def register(app: typer.Typer) -> None:
    """Offer the commands of this module."""
    app.command("shed", help=_SHED)(shed)
    app.command("hold", help=_HOLD)(hold)
    app.command("release", help=_RELEASE)(release)
    app.command("mode", help=_MODE)(mode)
    app.command("reload", help=_RELOAD)(reload)
    app.command("restore", help=_RESTORE)(restore)


_SHED = """Drop at least this much mining at once; it stays off until the order is released.

A number without a unit is megawatts. Examples: mullet shed 2.5, mullet shed "500 kW" --circuit feeder-b"""

_HOLD = """Lock a load or circuit: --on leaves it as it is, --off lets nothing energise it (work in progress).

Example: mullet hold pdu-b2 --off --reason "fan swap in rack 12" """

_RELEASE = """End a hold or a shed order by its id. Only its owner releases a hold.

Example: mullet release hold-3"""

_MODE = """Set how far the daemon may go: observe (read only), advise (decide and record), auto (command).

The policy and `mullet run --mode` may restrict it further. Example: mullet mode auto"""

_RELOAD = """Make the daemon read its policy file again; a bad one changes nothing and every problem is told.

Example: mullet check site.yaml && mullet reload"""

_RESTORE = """Put the defaults found at first contact back on a load, such as a GPU's power limit.

Example: mullet restore gpu-h100-003"""


def watts_of(text: str) -> float:
    """Return the watts of "500 kW", or of a bare number of megawatts.

    Raises:
        QuantityError: it is neither, or not above zero.
    """
    try:
        float(text)
    except ValueError:
        watts = parse_quantity(text, Dimension.POWER)
    else:
        watts = parse_quantity(f"{text} MW", Dimension.POWER)
    if not watts > 0.0:
        raise QuantityError(f"{text!r}: give the power to shed, above 0")
    return watts


def shed(
    amount: Annotated[str, typer.Argument(metavar="MW", help='Megawatts, or a power with its unit: "500 kW".')],
    circuit: Annotated[str | None, typer.Option("--circuit", help="Relieve this circuit, not the whole site.")] = None,
    owner: Owner = None,
    as_json: AsJson = False,
    url: Url = None,
    token_file: TokenFile = None,
    facility: FacilityName = None,
    state: StateFolder = None,
) -> None:
    with refusals(QuantityError):
        watts = watts_of(amount)
    order = {"watts": watts, "circuit": circuit, "owner": owner_or_login(owner)}
    answer = ask(reach(url, token_file, facility, state), "POST", "shed", order)
    if as_json:
        say_json(answer)
        return
    first = many(len(answer["first_loads"]), "miner")
    say(f"{answer['id']}: {answer['circuit']} is kept under {power(answer['ceiling_w'])}; first off: {first}")
    say(f"End it with: mullet release {answer['id']}")


def hold(
    target: Annotated[str, typer.Argument(help="A load or a circuit.")],
    on: Annotated[bool, typer.Option("--on/--off", help="Stays as it is, or stays off.")],
    reason: Annotated[str, typer.Option("--reason", help="For the record and for who finds it.")],
    owner: Owner = None,
    as_json: AsJson = False,
    url: Url = None,
    token_file: TokenFile = None,
    facility: FacilityName = None,
    state: StateFolder = None,
) -> None:
    order = {
        "target": target,
        "kind": "on" if on else "off",
        "owner": owner_or_login(owner),
        "reason": reason,
    }
    answer = ask(reach(url, token_file, facility, state), "POST", "holds", order)
    if as_json:
        say_json(answer)
        return
    say(f"{answer['id']}: {answer['target']} is held {answer['kind']} by {answer['owner']}")
    say(f"End it with: mullet release {answer['id']}")


def release(
    hold_id: Annotated[str, typer.Argument(metavar="ID", help="As `mullet status` shows it: hold-3, shed-1.")],
    owner: Owner = None,
    as_json: AsJson = False,
    url: Url = None,
    token_file: TokenFile = None,
    facility: FacilityName = None,
    state: StateFolder = None,
) -> None:
    who = quote(owner_or_login(owner), safe="")
    ask(reach(url, token_file, facility, state), "DELETE", f"holds/{segment(hold_id)}?owner={who}")
    if as_json:
        say_json({"released": hold_id})
    else:
        say(f"{hold_id} is released")


def mode(
    wanted: Annotated[Mode, typer.Argument(metavar="observe|advise|auto", help="How far the daemon may go.")],
    owner: Owner = None,
    as_json: AsJson = False,
    url: Url = None,
    token_file: TokenFile = None,
    facility: FacilityName = None,
    state: StateFolder = None,
) -> None:
    order = {"mode": wanted.value, "owner": owner_or_login(owner)}
    answer = ask(reach(url, token_file, facility, state), "PUT", "mode", order)
    if as_json:
        say_json(answer)
    else:
        say(f"The operator's mode is {answer['asked']} now")


def reload(
    as_json: AsJson = False,
    url: Url = None,
    token_file: TokenFile = None,
    facility: FacilityName = None,
    state: StateFolder = None,
) -> None:
    daemon = reach(url, token_file, facility, state)
    try:
        answer = daemon.ask("POST", "reload")
    except NoDaemon as error:
        fail(str(error))
    except Refused as error:
        if error.status in UNAUTHORISED:
            fail(str(error))
        if as_json:
            say_json({"reloaded": False, "problems": list(error.problems) or [str(error)]})
        else:
            for line in error.problems:
                note(line)
        fail("not reloaded, the old policy stays" if error.problems else str(error), NO)
    if as_json:
        say_json({"reloaded": True, **answer})
        return
    changes = answer.get("changes", [])
    for change in changes:
        say(str(change))
    say(f"Reloaded: {many(len(changes), 'change')}" if changes else "Reloaded: nothing changed")


def restore(
    target: Annotated[str, typer.Argument(metavar="LOAD", help="The load's id.")],
    owner: Owner = None,
    as_json: AsJson = False,
    url: Url = None,
    token_file: TokenFile = None,
    facility: FacilityName = None,
    state: StateFolder = None,
) -> None:
    order = {"target": target, "owner": owner_or_login(owner)}
    answer = ask(reach(url, token_file, facility, state), "POST", "restore", order)
    if as_json:
        say_json(answer)
    else:
        word = {True: "done", False: "refused", None: "no answer"}[answer["acked"]]
        say(f"{answer['load']}: {word}{': ' + answer['detail'] if answer['detail'] else ''}")
    if answer["acked"] is not True:
        raise typer.Exit(NO)
