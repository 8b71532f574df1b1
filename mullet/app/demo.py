"""`mullet demo`: a simulated facility in a process of its own, and the real daemon controlling it."""

from __future__ import annotations

import asyncio
import math
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mullet.adapters.clock import SystemClock
from mullet.adapters.journal import verify
from mullet.app.claims import write_claims
from mullet.app.daemon import DaemonOptions, Running, run_daemon
from mullet.app.demo_agent import broker_at, running_agent, with_agent
from mullet.app.paths import find_policy
from mullet.app.simulation import Simulation, grade, start_simulation
from mullet.domain.facility import Mode

DEMO_SUBNET = "127.77."
LEAST_SECONDS = 30.0
LEAD_S = 8.0
"""Time the daemon has to come up before the scenario's own time begins."""
LINGER_S = 20.0
"""The facility outlives the daemon, so that nothing fails only because the show is over."""
DEFAULT_PORT = 8780


@dataclass(frozen=True)
class DemoOptions:
    """How the demo is run."""

    seconds: float | None = None
    port: int = DEFAULT_PORT
    broker: str | None = None
    """URL of an MQTT broker; the GPUs are then driven by an edge agent, through it."""
    policy: str = "demo"
    scenario: str = "demo"
    keep: Path | None = None
    """Keep journal, truth log and claims in this folder instead of a temporary one."""
    seed: int | None = None


async def run_demo(options: DemoOptions, show: Callable[[Running], Coroutine[Any, Any, None]]) -> dict[str, Any]:
    """Run the demo and return the graded summary. `show(running)` is the view; it is cancelled at the end.

    Raises:
        ValueError: --seconds is below 30. BrokerUnusable: the broker is none. MulletError, OSError: it could not start.
    """
    if options.seconds is not None and not options.seconds >= LEAST_SECONDS:
        raise ValueError(f"--seconds {options.seconds:g}: the scenario needs {LEAST_SECONDS:.0f} s at least")
    folder = options.keep or Path(tempfile.mkdtemp(prefix="mullet-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return await _run_in(folder, options, show)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


async def _run_in(
    folder: Path, options: DemoOptions, show: Callable[[Running], Coroutine[Any, Any, None]]
) -> dict[str, Any]:
    truth = folder / "truth.jsonl"
    policy, broker = find_policy(options.policy), options.broker
    text = policy.read_text(encoding="utf-8")
    extra = ["--linger", str(LINGER_S)]
    if options.seed is not None:
        extra += ["--seed", str(options.seed)]
    clock = SystemClock()
    jitter: list[float] = []
    ended: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        # Asked first: a broker that is not there is told before anything else is started.
        link = None if broker is None else await stack.enter_async_context(broker_at(broker, text))
        simulation = await start_simulation(options.scenario, truth, options.seconds, LEAD_S, extra)
        stack.push_async_callback(simulation.close)
        over = None if options.seconds is None else clock.monotonic() + LEAD_S + options.seconds

        def rewrite(text: str) -> str:
            moved = text.replace(DEMO_SUBNET, f"127.{simulation.subnet}.")
            return moved if broker is None else with_agent(moved, broker)

        async def beside(running: Running) -> None:
            view = asyncio.create_task(show(running), name="view")
            gone = asyncio.create_task(simulation.process.wait(), name="simulation")
            timeout = None if over is None else max(0.0, over - clock.monotonic())
            try:
                await asyncio.wait({gone, view}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (gone, view):
                    task.cancel()
                await asyncio.gather(gone, view, return_exceptions=True)
                jitter.extend(running.controller.jitter_s)
                ended.update(_at_end(running))

        if broker is not None and link is not None:
            await stack.enter_async_context(running_agent(rewrite(text), broker, folder, link))
        daemon = DaemonOptions(
            policy_path=policy,
            first_mode=Mode.AUTO,
            state=folder / "state",
            api_port=options.port,
            rewrite=rewrite,
        )
        await run_daemon(daemon, beside)
    return await summarise(folder, truth, jitter, ended, simulation)


def _at_end(running: Running) -> dict[str, Any]:
    loads = running.controller.facility.loads
    agents = sorted({load.agent for load in loads if load.agent is not None})
    return {
        "loads": {
            "miners": sum(1 for load in loads if load.kind.value == "miner"),
            "gpus": sum(1 for load in loads if load.kind.value == "gpu"),
        },
        **({"agents": agents} if agents else {}),
        "ticks": running.controller.ticks,
        "journal": str(running.journal),
        "mode": running.controller.mode.value,
    }


async def summarise(
    folder: Path, truth: Path, jitter_s: list[float], ended: dict[str, Any], simulation: Simulation
) -> dict[str, Any]:
    """Grade the finished run: claims from the journal against the simulator's own truth log."""
    journal = Path(ended.pop("journal"))
    claims = folder / "claims.jsonl"
    await asyncio.to_thread(write_claims, journal, claims)
    report = await grade(truth, claims)
    checked = await asyncio.to_thread(verify, journal)
    return {
        **ended,
        **report,
        "tick_jitter_ms": {"p50": _percentile_ms(jitter_s, 0.50), "p99": _percentile_ms(jitter_s, 0.99)},
        "journal": {"rows": checked.rows, "intact": checked.first_bad_seq is None},
        "subnet": f"127.{simulation.subnet}.0.0/16",
    }


def _percentile_ms(seconds: list[float], share: float) -> float | None:
    if not seconds:
        return None
    ordered = sorted(seconds)
    return round(1_000.0 * ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)], 2)
