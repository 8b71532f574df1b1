"""`mullet run`: build everything from one policy file, control until told to stop, leave every device as it is."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import secrets
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mullet.adapters.api_server import ApiServer
from mullet.adapters.clock import SystemClock
from mullet.adapters.historian import FanOut, InfluxHistorian, TelemetryStore
from mullet.adapters.journal import SqliteJournal
from mullet.adapters.learned_file import LearnedFile
from mullet.adapters.notify import Notifier
from mullet.adapters.planner_worker import PlannerWorker
from mullet.adapters.secrets import Credentials, Redactor
from mullet.adapters.state import StateFile
from mullet.app.build import build_plant, known_names
from mullet.app.learned import as_learned, start_learner
from mullet.app.links import build_link
from mullet.app.paths import state_directory
from mullet.app.stalls import StallWatch
from mullet.control import record
from mullet.control.loop import Controller
from mullet.control.operate import Desk
from mullet.control.parts import Parts, Plant
from mullet.domain.command import CommandLedger
from mullet.domain.facility import Mode
from mullet.policy import LoadedPolicy, PolicyErrors, diff, load_policy
from mullet.ports import Historian, JournalError, JournalRow, PlanningError
from mullet.registry import Registry

BLOCKED_AFTER_S = 2.0
"""A tick that takes longer than this has its stack written to stderr (R12)."""

logger = logging.getLogger("mullet")


@dataclass(frozen=True)
class DaemonOptions:
    """How the daemon is started."""

    policy_path: Path
    ceiling: Mode = Mode.AUTO
    first_mode: Mode = Mode.OBSERVE
    """The operator mode of a facility that was never started before (R47)."""
    state: Path | None = None
    api_port: int | None = None
    """Instead of the policy's."""
    rewrite: Callable[[str], str] = field(default=lambda text: text)
    """Applied to the policy text before it is parsed (the demo moves its network)."""
    handle_signals: bool = True


@dataclass(frozen=True)
class Running:
    """What a caller may do with a daemon that is up."""

    controller: Controller
    desk: Desk
    loaded: LoadedPolicy
    state: Path
    journal: Path
    url: str
    page: str
    """The page's address with the token in its fragment, which no browser sends; for the owner's screen only."""
    stop: asyncio.Event
    clock: SystemClock


async def run_daemon(options: DaemonOptions, beside: Callable[[Running], Awaitable[None]] | None = None) -> int:
    """Run until SIGTERM or SIGINT, or until `beside` returns. Returns the exit code.

    Raises:
        PolicyErrors, OSError, MulletError: it could not start; no device was changed.
    """
    registry, clock, notifier, stalls = Registry(), SystemClock(), Notifier(), StallWatch(BLOCKED_AFTER_S)
    for noisy in ("httpx", "httpcore", "pymodbus"):
        # What they would say once a poll, alarms say once a failure.
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    hung_up = asyncio.Event()
    if options.handle_signals:
        # Before it is up, a request to reload would end the process; it is kept until there is something to reload.
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up.set)
    text = options.rewrite(options.policy_path.read_text(encoding="utf-8"))
    loaded = load_policy(text, str(options.policy_path), known_names(registry))
    for warning in loaded.warnings:
        logger.warning("%s", warning)
    folder = state_directory(loaded.facility.id, options.state)
    redactor = Redactor()
    redactor.attach(logging.getLogger())
    credentials = Credentials(folder / "credentials", redactor)
    async with AsyncExitStack() as stack:
        records = loaded.wiring.records
        journal = SqliteJournal(folder / records.journal, clock)
        stack.push_async_callback(journal.close)
        historian, store = _build_historian(loaded, folder, credentials, clock)
        stack.push_async_callback(historian.close)
        planner = PlannerWorker()
        ledger = _ledger_at_start(journal, loaded)
        link = await build_link(loaded, credentials, clock, lambda: ledger.epoch, stack)
        learned_file = LearnedFile(folder / "learned.json")
        learner = start_learner(loaded, learned_file)
        measured, _, doubt = as_learned(loaded, learner)
        plant, _ = await asyncio.gather(build_plant(measured, registry, clock, credentials), _warm(planner))
        plant = replace(plant, nameplate=loaded.facility)
        states = StateFile(folder / "operator.json", options.first_mode)
        controller = Controller(
            Parts(
                plant=plant,
                clock=clock,
                planner=planner,
                journal=journal,
                historian=historian,
                link=link,
                operator=states.load(),
                save_operator=states.save,
                ceiling=options.ceiling,
                beat=_beat(notifier, stalls),
                learner=learner,
                keep_learned=learned_file.save,
            ),
            ledger,
        )
        controller.alarm("learned/auto", doubt)
        controller.alarm("learned/file", learned_file.problem)
        if states.problem is not None:
            controller.alarm("state", f"{states.problem}; mode observe until an operator has looked")
        desk = Desk(controller, clock, _reloader(options, registry, clock, credentials, loaded, controller))
        stop = asyncio.Event()
        token = credentials.lookup(loaded.wiring.api.token) or _own_token(folder)
        server = await _serve(options, loaded, desk, store, folder, token)
        stack.push_async_callback(server.close)
        running = Running(
            controller,
            desk,
            loaded,
            folder,
            folder / records.journal,
            server.url,
            f"{server.url}#token={token}",
            stop,
            clock,
        )
        if options.handle_signals:
            _handle_signals(running, notifier, hung_up.is_set())
        # What was loaded stays: a full collection would walk 30,000 loads for some 60 ms in the middle of a tick.
        gc.collect()
        gc.freeze()
        await _control(running, notifier, stalls, beside)
    return 0


async def _warm(planner: PlannerWorker) -> None:
    try:
        await planner.open()
    except PlanningError as error:
        # The fallback ladder plans meanwhile; the worker is started again with every question.
        logger.warning("the planner did not come up: %s", error)


async def _control(
    running: Running,
    notifier: Notifier,
    stalls: StallWatch,
    beside: Callable[[Running], Awaitable[None]] | None,
) -> None:
    control = asyncio.create_task(running.controller.run(running.stop), name="control")
    tasks: set[asyncio.Task[Any]] = {control}
    if beside is not None:
        tasks.add(asyncio.create_task(_beside(running, beside), name="beside"))
    notifier.ready(f"controlling {running.loaded.facility.id}")
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        notifier.stopping("leaves every device as it is")
        running.stop.set()
        stalls.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result


async def _beside(running: Running, beside: Callable[[Running], Awaitable[None]]) -> None:
    task = asyncio.ensure_future(beside(running))
    ended = asyncio.create_task(running.stop.wait())
    try:
        await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for item in (task, ended):
            item.cancel()
        results = await asyncio.gather(task, ended, return_exceptions=True)
    if isinstance(results[0], Exception):
        raise results[0]


def _beat(notifier: Notifier, stalls: StallWatch) -> Callable[[str], None]:
    def beat(status: str) -> None:
        notifier.watchdog()
        notifier.status(status)
        stalls.beat()

    return beat


def _handle_signals(running: Running, notifier: Notifier, reload_now: bool) -> None:
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    async def reload() -> None:
        notifier.reloading(running.clock.monotonic())
        try:
            changes = await running.desk.reload()
            logger.info("policy reloaded: %s", json.dumps(changes, default=str))
        except ValueError as error:
            logger.error("policy not reloaded, the old one stays:\n%s", error)
        finally:
            notifier.ready()

    def start_reload() -> None:
        task = asyncio.create_task(reload(), name="reload")
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.stop.set)
    loop.add_signal_handler(signal.SIGHUP, start_reload)
    if reload_now:
        start_reload()


def _ledger_at_start(journal: SqliteJournal, loaded: LoadedPolicy) -> CommandLedger:
    """Return the ledger as the journal leaves it; only the rows since the latest decision are read.

    Raises:
        JournalError: it is the record of another facility.
    """
    known, here = journal.newest(record.FACILITY), loaded.facility.id
    if known is not None and (there := known.body["facility"]["id"]) != here:
        raise JournalError(f"{journal.path} is the record of {there!r}: {here!r} needs a state folder of its own")
    rows: list[JournalRow] = []
    for kind in (record.START, record.DECISION):
        newest = journal.newest(kind)
        if newest is not None:
            rows.append(newest)
    after = max((row.seq for row in rows if row.kind == record.DECISION), default=0)
    rows.extend(journal.rows([record.DECISION, record.RECEIPT], after=after))
    rows.sort(key=lambda row: row.seq)
    return record.restore_ledger(rows, loaded.facility)


def _build_historian(
    loaded: LoadedPolicy, folder: Path, credentials: Credentials, clock: SystemClock
) -> tuple[Historian, TelemetryStore]:
    records = loaded.wiring.records
    store = TelemetryStore(folder / records.telemetry)
    if records.influx is None:
        return FanOut([store]), store
    spec = records.influx
    token = credentials.lookup(spec.token)
    return FanOut([store, InfluxHistorian(spec.url, token or "", spec.org, spec.bucket, clock)]), store


def _reloader(
    options: DaemonOptions,
    registry: Registry,
    clock: SystemClock,
    credentials: Credentials,
    first: LoadedPolicy,
    controller: Controller,
) -> Callable[[], Awaitable[tuple[Plant, Mapping[str, Any]]]]:
    known = [first]

    async def reload() -> tuple[Plant, Mapping[str, Any]]:
        text = options.rewrite(await asyncio.to_thread(options.policy_path.read_text, "utf-8"))
        try:
            loaded = load_policy(text, str(options.policy_path), known_names(registry))
        except PolicyErrors as error:
            raise ValueError("\n".join(str(problem) for problem in error.problems)) from error
        if loaded.facility.id != known[0].facility.id:
            raise ValueError(f"facility.id may not change: {known[0].facility.id} -> {loaded.facility.id}")
        changes = diff(known[0], loaded)
        learner = controller.learning.learner
        measured, notes, doubt = (loaded, {}, None) if learner is None else as_learned(loaded, learner)
        plant = await build_plant(measured, registry, clock, credentials)
        known[0] = loaded
        controller.alarm("learned/auto", doubt)
        told = [*(str(change) for change in changes), *(f"learned {title}: {words}" for title, words in notes.items())]
        return replace(plant, nameplate=loaded.facility), {"policy_hash": loaded.hash, "changes": told}

    return reload


async def _serve(
    options: DaemonOptions,
    loaded: LoadedPolicy,
    desk: Desk,
    store: TelemetryStore,
    folder: Path,
    token: str,
) -> ApiServer:
    spec = loaded.wiring.api
    port = spec.port if options.api_port is None else options.api_port
    server = ApiServer(loaded.facility.id, desk, token, store, spec.host, port)
    await server.start()
    note = folder / "api.json"
    try:
        note.write_text(json.dumps({"url": server.url, "facility": loaded.facility.id, "pid": os.getpid()}) + "\n")
    except OSError as error:
        # It only tells the command line where to look; control does not depend on it.
        logger.warning("%s cannot be written (%s): give --url %s", note, error.strerror or error, server.url)
    return server


def _own_token(folder: Path) -> str:
    """Return the token in the state folder, made at the first start; readable by its owner only."""
    path = folder / "api-token"
    if path.exists() and (known := path.read_text(encoding="ascii").strip()):
        return known
    # Made whole and then put in place: a crash in between must leave no empty token, which no start would accept.
    token, scratch = secrets.token_urlsafe(24), folder / "api-token.new"
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token + "\n")
    os.replace(scratch, path)
    return token
