"""The driver on a fleet in steady state: CPU per poll, ages, memory, descriptors, and what dead miners cost."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.farms import Bank, read_banks, set_faults, spread_faults
from benchmarks.workers.process import serve
from benchmarks.workers.processes import cpu_s, descriptors, resident_mib
from benchmarks.workers.statistics import percentile
from mullet.adapters.clock import SystemClock
from mullet.domain.load import Load
from mullet.domain.telemetry import Telemetry
from mullet.ports import DriverContext
from mullet.testing.builders import miner
from mullet_hardware.asic.driver import AsicDriver
from mullet_simulators.miners.models import MODELS

SAMPLE_S = 1.0
WARM_LIMIT_S = 120.0


class Fleet:
    """What was read of each load."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self.polls = 0
        self.faults = 0
        self.gaps = array("f")

    def saw(self, telemetry: Telemetry) -> None:
        """Take a reading in."""
        self.polls += 1
        if telemetry.fault is not None:
            self.faults += 1
            self.at.setdefault(telemetry.load_id, telemetry.at)
            return
        before = self.at.get(telemetry.load_id)
        if before is not None:
            self.gaps.append(telemetry.at - before)
        self.at[telemetry.load_id] = telemetry.at

    def restart(self) -> None:
        """Forget counts and gaps."""
        self.polls = self.faults = 0
        self.gaps = array("f")


def loads_of(banks: Sequence[Bank]) -> list[Load]:
    """Return the loads as a policy would have them."""
    loads = []
    for bank in banks:
        model = MODELS[bank.model]
        for name, host in zip(bank.loads, bank.hosts, strict=True):
            loads.append(miner(name, "site", model.watts, model.th_per_s, bank=bank.id, address=host))
    return loads


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options: fleet (file), period_s, settle_s, seconds, workers; faulty_seconds and soak_s with faults' shares."""
    return asyncio.run(_measure(options))


async def _measure(options: Mapping[str, Any]) -> dict[str, Any]:
    clock, banks = SystemClock(), read_banks(options["fleet"])
    workers = {} if options.get("workers") is None else {"workers": options["workers"]}
    driver = AsicDriver(DriverContext({bank.id: {**bank.options, **workers} for bank in banks}, lambda _: None, clock))
    loads, fleet = loads_of(banks), Fleet()
    await driver.open(loads)
    gc.collect()
    gc.freeze()
    following = asyncio.create_task(_follow(driver, loads, options["period_s"], fleet))
    try:
        began = time.monotonic()
        while len(fleet.at) < len(loads) and time.monotonic() - began < WARM_LIMIT_S:  # noqa: ASYNC110 (no event)
            await asyncio.sleep(0.2)
        first_s = time.monotonic() - began
        # The first sweep builds devices and imports their modules, and tokens are fetched soon after; looks at the
        # health are spread over minutes, and so are part of the steady state, which begins then.
        await asyncio.sleep(max(options["period_s"], options.get("settle_s", 0.0)))
        found: dict[str, Any] = {
            "first_sweep_s": first_s,
            "unread": len(loads) - len(fleet.at),
            "workers": len(driver.worker_pids),
        }
        found["healthy"] = await _phase(driver, fleet, clock, loads, options["seconds"])
        if options.get("faulty_seconds"):
            faults = spread_faults([load.id for load in loads], options["faults"])
            await asyncio.to_thread(set_faults, banks, faults)
            well = [load for load in loads if load.id not in faults]
            found["faulted"] = len(faults)
            found["faulty"] = await _phase(driver, fleet, clock, well, options["faulty_seconds"])
        if options.get("soak_s"):
            found["soak"] = await _soak(driver, fleet, options["soak_s"])
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await driver.close()
    return found


async def _follow(driver: AsicDriver, loads: Sequence[Load], period_s: float, fleet: Fleet) -> None:
    # By bank, as the control loop does it.
    banks: dict[str, list[Load]] = {}
    for load in loads:
        banks.setdefault(load.bank, []).append(load)
    async with asyncio.TaskGroup() as group:
        for here in banks.values():
            group.create_task(_follow_bank(driver, here, period_s, fleet))


async def _follow_bank(driver: AsicDriver, loads: Sequence[Load], period_s: float, fleet: Fleet) -> None:
    async for telemetry in driver.watch(loads, period_s):
        fleet.saw(telemetry)


async def _phase(
    driver: AsicDriver, fleet: Fleet, clock: SystemClock, loads: Sequence[Load], seconds: float
) -> dict[str, Any]:
    """Return what polling cost and how old readings of `loads` were over `seconds`."""
    pids = driver.worker_pids
    everyone = (os.getpid(), *pids)
    fleet.restart()
    ages, rss, lag = array("f"), 0.0, 0.0
    began, cpu, own = time.monotonic(), cpu_s(pids), cpu_s([os.getpid()])
    due = began
    while (now := time.monotonic()) - began < seconds:
        lag = max(lag, now - due)
        here = clock.now()
        ages.extend(here - fleet.at[load.id] for load in loads if load.id in fleet.at)
        rss = max(rss, resident_mib(everyone))
        due = time.monotonic() + SAMPLE_S
        await asyncio.sleep(SAMPLE_S)
    took = time.monotonic() - began
    gaps = fleet.gaps
    return {
        "seconds": took,
        "polls": fleet.polls,
        "faults": fleet.faults,
        "per_s": fleet.polls / took,
        "workers_cpu_s": cpu_s(pids) - cpu,
        "driver_cpu_s": cpu_s([os.getpid()]) - own,
        "age_p50_s": percentile(ages, 0.5),
        "age_p99_s": percentile(ages, 0.99),
        "age_max_s": max(ages),
        "gap_mean_s": sum(gaps) / max(1, len(gaps)),
        "gap_p99_s": percentile(gaps, 0.99),
        "rss_mib": rss,
        "descriptors": descriptors(everyone),
        "worst_lag_s": lag,
    }


async def _soak(driver: AsicDriver, fleet: Fleet, seconds: float) -> dict[str, Any]:
    """Return the descriptors and the memory of all processes while polling goes on."""
    open_now, rss = array("q"), array("d")
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        await asyncio.sleep(SAMPLE_S)
        # Nothing of the soak needs them, and an hour of gaps is megabytes in the process that is measured.
        fleet.restart()
        everyone = (os.getpid(), *driver.worker_pids)
        open_now.append(descriptors(everyone))
        rss.append(resident_mib(everyone))
    part = max(1, len(open_now) // 6)
    return {
        "seconds": time.monotonic() - began,
        "early": percentile(open_now[:part], 0.5),
        "late": percentile(open_now[-part:], 0.5),
        "most": max(open_now),
        "early_mib": percentile(rss[:part], 0.5),
        "late_mib": percentile(rss[-part:], 0.5),
    }


if __name__ == "__main__":
    serve(measure)
