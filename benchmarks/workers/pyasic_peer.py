"""pyasic as it comes: `get_data()`, identification and `stop_mining()` on the same simulated miners."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from typing import Any

from benchmarks.farms import Bank, read_banks, truths
from benchmarks.workers.process import serve
from mullet_simulators.miners.models import MODELS

AT_ONCE = 50
"""More at once made every answer later and none sooner."""
CALL_S = 120.0
"""pyasic has no deadline of its own; a hanging miner would hold a call for minutes."""
NEWEST_V3 = "20250101"


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options: fleet (file), what ("data", "identify" or "stop"); for "stop" watts to be shed, order and settle_s."""
    banks = read_banks(options["fleet"])
    task = {"data": _data, "identify": _identify, "stop": _stop}[options["what"]]
    return asyncio.run(task(banks, options))


def build(bank: Bank, host: str) -> Any:
    """Return pyasic's object for a miner, as its identification would build it."""
    from pyasic.miners.factory import MINER_CLASSES

    model = MODELS[bank.model]
    for classes in MINER_CLASSES.values():
        for key, kind in classes.items():
            if kind.__name__ == model.pyasic_class and (key or "").upper() == model.pyasic_key.upper():
                made = kind(host, NEWEST_V3 if bank.firmware == "whatsminer_v3" else None)
                if made.web is not None and bank.ports:
                    made.web.port = bank.web_port
                return made
    raise LookupError(f"pyasic has no class {model.pyasic_class} for {model.pyasic_key}")


async def _data(banks: list[Bank], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return CPU and wall seconds per miner of `get_data()`, by firmware."""
    found: dict[str, Any] = {}
    for firmware in dict.fromkeys(bank.firmware for bank in banks):
        try:
            miners = [build(bank, host) for bank in banks if bank.firmware == firmware for host in bank.hosts]
        except LookupError as error:
            found[firmware] = {"missing": str(error)}
            continue
        gate, failed = asyncio.Semaphore(AT_ONCE), 0

        async def one(miner: Any, gate: asyncio.Semaphore = gate) -> None:
            nonlocal failed
            async with gate:
                failed += await _within(miner.get_data()) is None

        # Imports and caches of the first call are no part of steady state.
        await one(miners[0])
        began, cpu = time.monotonic(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for miner in miners:
                group.create_task(one(miner))
        count = len(miners)
        found[firmware] = {
            "miners": count,
            "cpu_s": (time.process_time() - cpu) / count,
            "wall_s": time.monotonic() - began,
            "failed": failed,
        }
    return {"firmwares": found}


async def _identify(banks: list[Bank], options: Mapping[str, Any]) -> dict[str, Any]:
    from pyasic import get_miner

    gate = asyncio.Semaphore(AT_ONCE)
    names = {host: MODELS[bank.model].pyasic_class for bank in banks for host in bank.hosts}
    right = wrong = lost = 0

    async def one(host: str) -> None:
        nonlocal right, wrong, lost
        async with gate:
            found = await _within(get_miner(host))
        name = type(found).__name__
        right += found is not None and name == names[host]
        wrong += found is not None and name != names[host]
        lost += found is None

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for host in names:
            group.create_task(one(host))
    seconds = time.monotonic() - began
    return {"miners": len(names), "right": right, "wrong": wrong, "lost": lost, "seconds": seconds}


async def _stop(banks: list[Bank], options: Mapping[str, Any]) -> dict[str, Any]:
    """Ask miners to stop, the fastest firmware first, until the watts are reached; then look at the truth."""
    built: list[tuple[str, float, Any]] = []
    for firmware in options["order"]:
        for bank in banks:
            if bank.firmware == firmware:
                watts = MODELS[bank.model].watts
                built += [(n, watts, build(bank, h)) for n, h in zip(bank.loads, bank.hosts, strict=True)]
    chosen, total = [], 0.0
    for item in built:
        if total >= options["watts"]:
            break
        chosen.append(item)
        total += item[1]
    gate, answers = asyncio.Semaphore(AT_ONCE), dict[str, Any]()

    async def one(name: str, miner: Any) -> None:
        async with gate:
            answers[name] = await _within(miner.stop_mining())

    began, cpu = time.monotonic(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for name, _, miner in chosen:
            group.create_task(one(name, miner))
    seconds, used = time.monotonic() - began, time.process_time() - cpu
    await asyncio.sleep(options["settle_s"])
    truth = await asyncio.to_thread(truths, banks)
    awake = {name for name, _, _ in chosen if truth[name]["state"] in ("hashing", "starting")}
    return {
        "asked": len(chosen),
        "seconds": seconds,
        "cpu_s": used,
        "acknowledged": sum(answers[name] is True for name, _, _ in chosen),
        "false": sum(answers[name] is True and name in awake for name, _, _ in chosen),
        "dead_acknowledged": sum(answers[name] is True and truth[name]["state"] == "dead" for name, _, _ in chosen),
    }


async def _within(call: Awaitable[Any]) -> Any:
    """Return what a call returns, None where it fails or takes too long: any error at all may come out of it."""
    try:
        async with asyncio.timeout(CALL_S):
            return await call
    except Exception:  # noqa: BLE001
        return None


if __name__ == "__main__":
    serve(measure)
