"""Commands that run something until they are told to stop: demo, run, simulate, agent."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mullet.cli.say import NO, AsJson, describe, fail, many, note, number, refusals, say, say_json, table
from mullet.domain.facility import Mode

if TYPE_CHECKING:
    from mullet.app.daemon import Running

T = TypeVar("T")

DEMO_PORT = 8780
LEAST_DEMO_S = 30.0
PROGRESS_WIDTH = 118


def register(app: typer.Typer) -> None:
    """Offer the commands of this module."""
    app.command("demo", help=_DEMO)(demo)
    app.command("run", help=_RUN)(run)
    passing = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command("simulate", help=_SIMULATE, context_settings=passing)(simulate)
    app.command("agent", help=_AGENT)(agent)


_DEMO = """Control a simulated facility for real: miners on their vendors' protocols, NVML, inference servers, price
feed and meters, with the dashboard on http://127.0.0.1:8780. Ctrl-C ends it.

With --seconds the scenario fits itself to that time (30 at least), and an independent checker grades the run.
Exits 1 if the checker finds a cap violated, a claim untrue or a pool list changed.
Example: mullet demo --seconds 120 --json"""

_RUN = """Run the daemon on a policy until SIGTERM or Ctrl-C; devices are left as they are. SIGHUP reloads the policy.

A facility that was never started before is only observed until `mullet mode auto`; --mode restricts it further.
Example: mullet run site.yaml --mode observe"""

_SIMULATE = """Serve only the simulated facility, for other software to talk to; prints its addresses as JSON.

Options after SCENARIO go to the simulator: --subnet N, --seconds S, --truth FILE, --seed K, --lead S,
--device-latency-ms MS, --without SERVER, --print-addresses. Example: mullet simulate demo --subnet 90"""

_AGENT = """Run the edge agent beside a container of miners or on a GPU node: it holds their leases.

If the controller falls silent, it takes its loads to their fail-safe points. Example: mullet agent agent.yaml"""


def demo(
    seconds: Annotated[float | None, typer.Option("--seconds", help="End by itself; 30 at least.")] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of the dashboard; 0 any.")] = DEMO_PORT,
    broker: Annotated[str | None, typer.Option("--broker", help="MQTT broker, mqtt://127.0.0.1:1883.")] = None,
    keep: Annotated[Path | None, typer.Option("--keep", help="New folder for journal, truth and claims.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the scenario.")] = None,
    as_json: AsJson = False,
) -> None:
    if as_json and seconds is None:
        fail("--json needs --seconds: the summary is printed at the end")
    if seconds is not None and not seconds >= LEAST_DEMO_S:
        fail(f"--seconds {seconds:g}: the scenario needs {LEAST_DEMO_S:.0f} s at least")
    if keep is not None and keep.is_dir() and any(keep.iterdir()):
        # Claims of two runs in one file would be graded against the truth of one.
        fail(f"--keep {keep}: the folder is not empty; name a new one")
    from mullet.app.demo import DemoOptions, run_demo
    from mullet.app.demo_agent import BrokerUnusable
    from mullet.ports import MulletError

    log_to_stderr(logging.ERROR)
    options = DemoOptions(seconds=seconds, port=port, broker=broker, keep=keep, seed=seed)
    show = _show_progress if as_json else _show_live
    try:
        summary = run_until_done(run_demo(options, show))
    except BrokerUnusable as error:
        fail(describe(error))
    except (MulletError, OSError, ValueError) as error:
        logging.getLogger("mullet").debug("the demo ended", exc_info=error)
        fail(describe(error), NO)
    if as_json:
        say_json(summary)
    else:
        _show_summary(summary)
    if summary["cap_violations"] or summary["truth_mismatches"] or summary["pool_changes"]:
        raise typer.Exit(NO)


async def _show_progress(running: Running) -> None:
    """Keep one line on stderr up to date if somebody looks at it; stdout belongs to the summary."""
    from mullet.cli.status import headline

    if not sys.stderr.isatty():
        await running.stop.wait()
        return
    try:
        async for status in running.desk.events():
            sys.stderr.write(f"\r{headline(status)[:PROGRESS_WIDTH]:<{PROGRESS_WIDTH}}")
            sys.stderr.flush()
    finally:
        sys.stderr.write("\n")


async def _show_live(running: Running) -> None:
    from mullet.adapters.terminal import TerminalView, watch

    say(f"Dashboard: {running.page}   (Ctrl-C ends the demo)")
    say(f"In another terminal: mullet status --state {running.state}")
    sys.stdout.flush()
    note = f"{running.url}   Ctrl-C ends the demo   mullet status --state {running.state}"
    await watch(running.desk, TerminalView(note=note))


def _show_summary(summary: dict[str, Any]) -> None:
    events = summary.get("events", [])
    if events:
        table(
            ("event", "at", "asked", "verified", "after"),
            [
                (
                    str(event.get("kind")),
                    f"{number(event.get('at_s'), 1)} s",
                    f"{number(event.get('asked_mw'), 3)} MW" if event.get("asked_mw") is not None else "",
                    f"{number(event.get('verified_mw'), 3)} MW" if event.get("verified_mw") is not None else "",
                    f"{number(event.get('verified_s'), 1)} s" if event.get("verified_s") is not None else "",
                )
                for event in events
            ],
            right=("at", "asked", "verified", "after"),
        )
    jitter = summary["tick_jitter_ms"]
    loads = summary.get("loads", {})
    say(f"{loads.get('miners', '?')} miners and {loads.get('gpus', '?')} GPUs, {summary['commands']} commands")
    say("outcomes: " + (", ".join(f"{count} {kind}" for kind, count in summary["outcomes"].items()) or "none"))
    say(f"tick jitter: p50 {number(jitter['p50'], 1)} ms, p99 {number(jitter['p99'], 1)} ms")
    journal = summary["journal"]
    say(f"journal: {journal['rows']} rows, {'intact' if journal['intact'] else 'DAMAGED'}")
    say(
        f"graded by the independent checker: {many(summary['cap_violations'], 'cap violation')}, "
        f"{many(summary['truth_mismatches'], 'untrue claim')}, "
        f"{many(summary['false_acks'], 'false answer')} of devices, "
        f"{many(summary['pool_changes'], 'change')} of pool lists"
    )


def run(
    policy: Annotated[str, typer.Argument(help="Policy file, or the name of a shipped one.")],
    mode: Annotated[Mode, typer.Option("--mode", help="The furthest it may go.")] = Mode.AUTO,
    state: Annotated[
        Path | None, typer.Option("--state", envvar="MULLET_STATE", help="Folder of journal, token and orders.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Port of page and API.")] = None,
) -> None:
    # The policy has not been read yet, so a request to read it again asks for nothing.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from mullet.app.daemon import DaemonOptions, run_daemon
    from mullet.app.paths import find_policy
    from mullet.policy import PolicyErrors
    from mullet.ports import MulletError

    log_to_stderr(logging.INFO)
    started = False

    async def beside(running: Running) -> None:
        nonlocal started
        started = True
        logging.getLogger("mullet").info(
            "controls %s in mode %s; page and API on %s; state in %s",
            running.loaded.facility.id,
            running.controller.mode.value,
            running.url,
            running.state,
        )
        await running.stop.wait()

    with refusals(OSError):
        path = find_policy(policy)
    try:
        code = run_until_done(run_daemon(DaemonOptions(path, ceiling=mode, state=state, api_port=port), beside))
    except PolicyErrors as error:
        for problem in error.problems:
            note(str(problem))
        fail(f"{path}: {many(len(error.problems), 'problem')}; nothing was started")
    except (MulletError, OSError, ValueError, ImportError) as error:
        if started:
            raise
        fail(f"not started: {describe(error)}", NO)
    raise typer.Exit(code)


def simulate(
    context: typer.Context,
    scenario: Annotated[str, typer.Argument(help="A scenario file, or the name of the shipped one: demo.")],
) -> None:
    from mullet.registry import BrokenPlugin, DuplicateName, Group, Registry, UnknownName

    with refusals(UnknownName, DuplicateName, BrokenPlugin):
        serve: Callable[[list[str]], int] = Registry().load(Group.SIMULATORS, "facility")
    raise typer.Exit(serve([scenario, *context.args]))


def agent(
    config: Annotated[Path, typer.Argument(help="The agent's file.")],
    state: Annotated[
        Path | None, typer.Option("--state", envvar="MULLET_STATE", help="Folder of leases and credentials.")
    ] = None,
) -> None:
    from mullet.adapters.agent_config import AgentConfigError
    from mullet.app.edge import run_agent
    from mullet.ports import MulletError

    log_to_stderr(logging.INFO)
    try:
        code = run_until_done(run_agent(config, state))
    except AgentConfigError as error:
        for line in error.problems:
            note(line)
        fail(f"{config}: {many(len(error.problems), 'problem')}; nothing was started")
    except OSError as error:
        fail(describe(error))
    except MulletError as error:
        fail(f"not started: {error}", NO)
    raise typer.Exit(code)


def run_until_done(work: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop where there is one; an early Ctrl-C, before anything handles it, ends the command quietly."""
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    try:
        import uvloop

        loop_factory = uvloop.new_event_loop
    except ImportError:
        loop_factory = None
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(128 + signal.SIGINT) from None


def log_to_stderr(level: int) -> None:
    """Log to stderr; under systemd without the time, which its journal adds."""
    when = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    logging.basicConfig(level=level, stream=sys.stderr, format=f"{when}%(levelname)s %(name)s: %(message)s")
