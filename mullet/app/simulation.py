"""The simulated facility and the independent checker, each as a process of its own, found by entry points."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from mullet.ports import MulletError
from mullet.registry import Group

FIRST_SUBNET, LAST_SUBNET = 77, 250
READY_S = 30.0
USAGE = 2


class SimulationError(MulletError):
    """The simulated facility could not be started."""


def module_of(name: str) -> str:
    """Return the module behind a simulator's entry point, without importing it.

    Raises:
        SimulationError: none is installed under this name.
    """
    for point in entry_points(group=Group.SIMULATORS.value):
        if point.name == name:
            return point.module
    raise SimulationError(f"no simulator {name!r} is installed")


@dataclass
class Simulation:
    """A simulated facility that is up."""

    process: asyncio.subprocess.Process
    subnet: int
    addresses: dict[str, Any]

    async def close(self) -> None:
        """Ask it to end, and wait until its truth log is complete."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self.process.wait(), 10.0)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()


async def start_simulation(
    scenario: str, truth: Path | None, seconds: float | None, lead_s: float, extra: Sequence[str] = ()
) -> Simulation:
    """Start the simulated facility on the first free loopback network and wait until it answers.

    Raises:
        SimulationError: it did not come up; the message is its own.
    """
    refused = ""
    for subnet in range(FIRST_SUBNET, LAST_SUBNET):
        arguments = [scenario, "--subnet", str(subnet), "--lead", str(lead_s), "--parent-pid", str(os.getpid())]
        if truth is not None:
            arguments += ["--truth", str(truth)]
        if seconds is not None:
            arguments += ["--seconds", str(seconds)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module_of("facility"), *arguments, *extra,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        if process.stdout is None or process.stderr is None:
            raise SimulationError("the simulated facility has no output")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), READY_S)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise SimulationError(f"the simulated facility was not up within {READY_S:.0f} s") from None
        if line:
            return Simulation(process, subnet, json.loads(line))
        refused = (await process.stderr.read()).decode(errors="replace").strip()
        await process.wait()
        if "cannot listen" not in refused:
            break
    raise SimulationError(refused or "the simulated facility ended without a word")


async def grade(truth: Path, claims: Path) -> dict[str, Any]:
    """Run the checker over what was true and what was claimed; returns its report.

    Raises:
        SimulationError: it could not grade the run.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module_of("checker"), "--truth", str(truth), "--claims", str(claims),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    try:
        report: dict[str, Any] = json.loads(out)
    except ValueError:
        raise SimulationError(f"the checker printed no report: {err.decode(errors='replace').strip()}") from None
    return report
