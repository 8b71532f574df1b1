"""`mullet agent`: the edge agent beside its devices, from one small file."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mullet.adapters.agent_config import AgentConfig, read_agent_config
from mullet.adapters.broker import broker_settings, required_secret
from mullet.adapters.clock import SystemClock
from mullet.adapters.lease_file import LeaseFile, boot_id
from mullet.adapters.mqtt import MqttAgentTransport
from mullet.adapters.notify import Notifier
from mullet.adapters.secrets import Credentials, Redactor
from mullet.agent.agent import Agent, AgentSettings
from mullet.app.paths import state_directory
from mullet.control.gate import Permit, WriteGate
from mullet.domain.facility import Mode
from mullet.domain.load import Load
from mullet.ports import BankNotes, Driver, DriverContext
from mullet.registry import Group, Registry
from mullet.tasks import end_tasks

WATCHDOG_SHARE = 3.0
"""The watchdog is pinged this many times within its period."""

logger = logging.getLogger("mullet")


async def run_agent(path: Path, state: Path | None = None) -> int:
    """Run the agent until SIGTERM or SIGINT. Neither start nor stop changes a device.

    Raises:
        OSError, AgentConfigError, ValueError: it could not start.
    """
    config = read_agent_config(path)
    clock, notifier, registry, redactor = SystemClock(), Notifier(), Registry(), Redactor()
    redactor.attach(logging.getLogger())
    folder = state_directory(f"agent-{config.agent_id}", state)
    credentials = Credentials(folder / "credentials", redactor)
    drivers = _build_drivers(config, registry, clock, credentials)
    gate = WriteGate(drivers, None, lambda load: Permit(Mode.AUTO, None), clock.now)
    key = config.broker.signing_key
    settings = AgentSettings(
        agent_id=config.agent_id,
        facility_id=config.facility_id,
        loads=_with_capabilities(config, registry),
        lease_s=config.lease_s,
        telemetry_period_s=config.telemetry_period_s,
        command_deadline_s=config.command_deadline_s,
        policy_hash=config.policy_hash,
        signing_key=required_secret(key, credentials.lookup).encode() if key is not None else None,
    )
    transport = MqttAgentTransport(
        config.facility_id, config.agent_id, broker_settings(config.broker, credentials.lookup), clock
    )
    memory = LeaseFile(folder / "leases.json", boot_id())
    agent = Agent(settings, drivers, gate, clock, transport, memory=memory)
    return await _run(agent, settings, notifier, clock)


async def _run(agent: Agent, settings: AgentSettings, notifier: Notifier, clock: SystemClock) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tasks: set[asyncio.Task[Any]] = {
        asyncio.create_task(agent.run(), name="agent"),
        asyncio.create_task(_ping(agent, notifier, clock), name="watchdog"),
        asyncio.create_task(stop.wait(), name="stop"),
    }
    notifier.ready(f"tends {len(settings.loads)} loads of {settings.facility_id}")
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        notifier.stopping("leaves every device as it is")
        await end_tasks(tasks)
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result
    return 0


async def _ping(agent: Agent, notifier: Notifier, clock: SystemClock) -> None:
    period_s = (notifier.watchdog_s or WATCHDOG_SHARE) / WATCHDOG_SHARE
    while True:
        state = agent.state()
        notifier.watchdog()
        notifier.status(
            f"{len(state.leases)} leases, {state.accepted} commands, {sum(state.rejected.values())} rejected"
        )
        await clock.sleep(period_s)


def _build_drivers(
    config: AgentConfig, registry: Registry, clock: SystemClock, credentials: Credentials
) -> dict[str, Driver]:
    drivers: dict[str, Driver] = {}
    for name, banks in config.options.items():
        schema = registry.options_schema(Group.DRIVERS, name)
        unknown = {option for options in banks.values() for option in options} - schema.keys()
        if unknown:
            raise ValueError(f"driver {name} has no option {sorted(unknown)[0]!r}; it has {', '.join(sorted(schema))}")
        kind = registry.load(Group.DRIVERS, name)
        _say_notes(kind, banks)
        drivers[name] = kind(DriverContext(banks, credentials.lookup, clock))
    return drivers


def _say_notes(kind: Any, banks: Mapping[str, Mapping[str, Any]]) -> None:
    """Log what a driver says of its banks' passwords: of an agent's banks no policy says it."""
    ask: Callable[[Mapping[str, Any]], BankNotes] | None = getattr(kind, "notes_for", None)
    if ask is None:
        return
    for bank, options in banks.items():
        notes = ask(options)
        if notes.barred is not None:
            logger.warning("bank %s is read-only: %s", bank, notes.barred)
        for warning in notes.warnings:
            logger.warning("bank %s %s", bank, warning)


def _with_capabilities(config: AgentConfig, registry: Registry) -> tuple[Load, ...]:
    """Return the loads with what their drivers can really do, not what the file's kind suggests."""
    return tuple(
        replace(
            load,
            capability=registry.load(Group.DRIVERS, load.driver).capability_for(config.options[load.driver][load.bank]),
        )
        for load in config.loads
    )
