"""A simulated facility inside a test's own event loop, on a subnet nobody uses."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mullet_simulators.checker import read_truth
from mullet_simulators.checker.pools import follow_pools
from mullet_simulators.facility import SERVERS, Facility
from mullet_simulators.scenario import load_scenario

SUBNETS = range(100, 250)
PROBED = ((1, 8701), (2, 8702), (5, 8705))


@asynccontextmanager
async def simulated_facility(
    scenario: str | Path | Mapping[str, Any],
    subnet: int | None = None,
    *,
    seconds: float | None = None,
    seed: int | None = None,
    truth: Path | None = None,
    servers: Sequence[str] = SERVERS,
    device_latency_s: float = 0.0,
) -> AsyncIterator[Facility]:
    """Run a facility until the block ends. Raises ScenarioError, or OSError without a free subnet."""
    facility = Facility(
        load_scenario(scenario, seconds, seed),
        find_subnet() if subnet is None else subnet,
        truth,
        device_latency_s,
        servers,
    )
    await facility.start()
    try:
        yield facility
    finally:
        await facility.stop()


def require_pools_kept(truth: Path) -> dict[str, int]:
    """How many pool lists changed in a truth log, by cause: by nothing but faults, whatever else failed.

    Raises AssertionError where a request changed one, or where the log does not say what every miner began with;
    OSError or UnreadableRecord without a readable log.
    """
    with truth.open(encoding="utf-8") as lines:
        read = read_truth(lines)
    untold = [load for load, pools in read.pools.items() if pools is None]
    if untold or not read.pools:
        raise AssertionError(f"{truth.name} does not tell the pools of {untold or 'any miner'}")
    found = follow_pools(read)
    if found.requested:
        raise AssertionError(f"{truth.name}: pool lists were changed by requests: {found.requested}")
    return found.by_cause


def find_subnet() -> int:
    """An N whose `127.N.0.0/16` no facility uses. Raises OSError if there is none."""
    candidates = list(SUBNETS)
    random.SystemRandom().shuffle(candidates)
    for subnet in candidates:
        if all(_is_free(f"127.{subnet}.0.{octet}", port) for octet, port in PROBED):
            return subnet
    raise OSError("no free loopback subnet")


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
