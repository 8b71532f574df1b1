"""The demo's GPUs behind a broker: its policy with an edge agent in it, that agent's file, and its process."""

from __future__ import annotations

import asyncio
import contextlib
import io
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from mullet.adapters.broker import BrokerSettings
from mullet.adapters.clock import SystemClock
from mullet.adapters.mqtt import MqttLink
from mullet.app.build import known_names
from mullet.app.links import broker_of_url
from mullet.app.tied import tied
from mullet.domain.load import Load
from mullet.policy import LoadedPolicy, load_policy
from mullet.ports import MulletError
from mullet.registry import Registry

AGENT = "gpu-node-1"
HELD_KIND = "gpu"
BROKER_S = 5.0
ONLINE_S = 20.0
END_S = 10.0


class AgentError(MulletError):
    """The edge agent did not come up."""


class BrokerUnusable(MulletError):
    """Nothing at the given URL can stand between controller and agent."""


def with_agent(text: str, url: str) -> str:
    """Return the policy `text` with an edge agent at `url` that holds the leases of all GPU banks.

    Their circuits then no longer need to accept unleased loads.
    """
    yaml = _yaml()
    policy = yaml.load(text)
    held = [bank for bank in policy["banks"] if bank["kind"] == HELD_KIND]
    for bank in held:
        bank["agent"] = AGENT
    for circuit in policy["circuits"]:
        if circuit["id"] in {bank["circuit"] for bank in held}:
            circuit.pop("accept_unleased", None)
    policy["mqtt"] = _mqtt(url)
    return _dump(yaml, policy)


def agent_file(loaded: LoadedPolicy, url: str) -> str:
    """Return the agent's file: the banks that `loaded` says it holds, with the policy's points, fail-safe and lease."""
    facility, wiring = loaded.facility, loaded.wiring
    banks = {bank: loads for bank, loads in facility.banks.items() if loads[0].agent == AGENT}
    file = {
        "agent": AGENT,
        "facility": facility.id,
        "lease": _seconds(facility.pacing.lease_s),
        "poll": _seconds(min(wiring.poll_s[bank] for bank in banks)),
        "mqtt": _mqtt(url),
        "banks": [_bank(bank, loads, wiring.drivers[loads[0].driver][bank]) for bank, loads in banks.items()],
    }
    return _dump(_yaml(), file)


@asynccontextmanager
async def broker_at(url: str, policy: str) -> AsyncIterator[MqttLink]:
    """Connect to the broker, to see the agent of the policy text's facility come up there.

    Raises:
        BrokerUnusable: the URL is none, or no broker answers there.
    """
    facility = str(_yaml().load(policy)["facility"]["id"])
    link = MqttLink(facility, _settings(url), SystemClock(), lambda: 0)
    await link.open()
    try:
        try:
            async with asyncio.timeout(BROKER_S):
                await link.wait_connected()
        except TimeoutError:
            raise BrokerUnusable(f"no MQTT 5 broker answers at {url} (waited {BROKER_S:.0f} s)") from None
        yield link
    finally:
        await link.close()


@asynccontextmanager
async def running_agent(policy: str, url: str, folder: Path, link: MqttLink) -> AsyncIterator[None]:
    """Run the agent for the policy text as a process of its own; files and log are kept in `folder`.

    Raises:
        BrokerUnusable: such an agent is there already. AgentError: the agent was not online in time, and why.
    """
    if link.alive(AGENT):
        raise BrokerUnusable(f"{url} already has an agent {AGENT}: another demo runs there")
    file, log = folder / "agent.yaml", folder / "agent.log"
    file.write_text(agent_file(load_policy(policy, "demo", known_names(Registry())), url), encoding="utf-8")
    command = [sys.executable, "-m", "mullet", "agent", str(file), "--state", str(folder / "agent")]
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *tied(command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
    try:
        await _online(process, link, log)
        yield
    finally:
        await _end(process)


async def _online(process: asyncio.subprocess.Process, link: MqttLink, log: Path) -> None:
    clock = SystemClock()
    ends_at = clock.monotonic() + ONLINE_S
    while not link.alive(AGENT):
        if process.returncode is not None or clock.monotonic() > ends_at:
            raise AgentError(f"the edge agent did not come online: {_last_words(log)}")
        await clock.sleep(0.05)


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), END_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def _bank(name: str, loads: Sequence[Load], options: Mapping[str, Any]) -> dict[str, Any]:
    first = loads[0]
    return {
        "id": name,
        "kind": first.kind.value,
        "driver": first.driver,
        "options": {key: value for key, value in options.items() if value is not None},
        "addresses": [load.address for load in loads],
        "points": [{"name": point.name, "power": _watts(point.watts)} for point in first.points],
        "fail_safe": first.fail_safe,
        "worst": _watts(first.worst_watts),
        "tolerance": f"{100.0 * first.tolerance:g} %",
    }


def _settings(url: str) -> BrokerSettings:
    try:
        settings = broker_of_url(url)
    except ValueError as error:
        raise BrokerUnusable(str(error)) from None
    if settings.username is not None:
        raise BrokerUnusable("the demo wants a broker that asks for no name")
    return settings


def _mqtt(url: str) -> dict[str, Any]:
    settings = _settings(url)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "mqtts" if settings.tls else "mqtt"
    # A demo's watts are no secret.
    return {"url": f"{scheme}://{host}:{settings.port}", "allow_plaintext": True}


def _watts(watts: float) -> str:
    return f"{watts:.6g} W"


def _seconds(seconds: float) -> str:
    return f"{seconds:.6g} s"


def _yaml() -> YAML:
    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes = True
    yaml.width = 10_000
    return yaml


def _dump(yaml: YAML, value: Any) -> str:
    out = io.StringIO()
    yaml.dump(value, out)
    return out.getvalue()
