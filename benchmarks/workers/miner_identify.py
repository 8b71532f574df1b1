"""Who stands at each address of a mixed fleet, found by the driver without being told anything."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.farms import MOVED_WEB, PLAIN_WEB_PORT, read_banks
from benchmarks.workers.miner_poll import loads_of
from benchmarks.workers.process import serve
from benchmarks.workers.processes import cpu_s, resident_mib
from mullet.adapters.clock import SystemClock
from mullet.domain.load import Load
from mullet.ports import DeviceError, DriverContext
from mullet_hardware.asic.driver import AsicDriver

DEADLINE_S = 300.0


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options: fleet (file)."""
    return asyncio.run(_measure(options))


async def _measure(options: Mapping[str, Any]) -> dict[str, Any]:
    banks = read_banks(options["fleet"])
    # Nothing is said of what they are; only where web interfaces listen, if a port had to be moved.
    moved = [bank for bank in banks if bank.web_port != PLAIN_WEB_PORT and bank.firmware in MOVED_WEB]
    given = {bank.id: {"web_port": bank.web_port} if bank in moved else {} for bank in banks}
    driver = AsicDriver(DriverContext(given, lambda _: None, SystemClock()))
    loads = loads_of(banks)
    await driver.open(loads)
    try:
        pids = driver.worker_pids
        began, cpu = time.monotonic(), cpu_s(pids)
        answers = await asyncio.gather(*(_ask(driver, load) for load in loads))
        took_s, used_s = time.monotonic() - began, cpu_s(pids) - cpu
        rss = resident_mib((os.getpid(), *pids))
        found = [driver.firmware_class(load) for load in loads]
    finally:
        await driver.close()
    true = [bank.firmware for bank in banks for _ in bank.loads]
    failures: dict[str, int] = {}
    confusions: dict[str, int] = {}
    for answer, told, is_really in zip(answers, found, true, strict=True):
        if isinstance(answer, str):
            failures[f"{is_really}: {answer}"] = failures.get(f"{is_really}: {answer}", 0) + 1
        elif told != is_really:
            confusions[f"{is_really} as {told}"] = confusions.get(f"{is_really} as {told}", 0) + 1
    return {
        "miners": len(loads),
        "right": sum(told == is_really for told, is_really in zip(found, true, strict=True)),
        "lost": sum(isinstance(answer, str) for answer in answers),
        "wrong": sum(confusions.values()),
        "failures": failures,
        "confusions": confusions,
        "seconds": took_s,
        "cpu_s": used_s,
        "rss_mib": rss,
    }


async def _ask(driver: AsicDriver, load: Load) -> str | None:
    """Return why the load could not be identified, None where it was."""
    try:
        await driver.identify(load, DEADLINE_S)
    except DeviceError as error:
        return type(error).__name__
    return None


if __name__ == "__main__":
    serve(measure)
