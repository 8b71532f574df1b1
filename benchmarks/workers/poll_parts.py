"""Where the time of one poll goes: the wire, the parsing, our own code, measured apart on the same miners."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from benchmarks.farms import Bank, read_banks
from benchmarks.workers.miner_poll import loads_of
from benchmarks.workers.process import serve
from mullet_hardware.asic import transport
from mullet_hardware.asic.options import parse_options
from mullet_hardware.asic.protocol import Target

AT_ONCE = 50


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options: fleet (file) of one firmware, polls. Answers are CPU seconds per poll, user and system mode."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(read_banks(options["fleet"]), options["polls"]))


async def _measure(banks: Sequence[Bank], polls: int) -> dict[str, Any]:
    from mullet_hardware.asic.registry import Registry

    clock = asyncio.get_running_loop().time
    access = {bank.id: parse_options(bank.id, bank.options).access(lambda _: None) for bank in banks}
    registry = Registry(access, {}, lambda address, entry: None, clock)
    devices = [await registry.device(Target.of(load)) for load in loads_of(banks)]
    # What a first poll asks besides is no part of steady state.
    for device in devices:
        await device.poll()
    asked: list[tuple[str, int, Any, Any]] = []
    answers: list[bytes] = []
    real = transport.converse

    async def listen(host: str, port: int, protocol: Any) -> Any:
        answer = await real(host, port, protocol)
        asked.append((host, port, protocol, answer))
        answers.append(answer)
        return answer

    transport.converse = listen
    for device in devices:
        await device.poll()
    transport.converse = real
    whole_s = await _cpu(lambda k: devices[k % len(devices)].poll(), polls)
    requests = len(asked) / len(devices)
    wire_s = await _cpu(lambda k: _again(real, *asked[k % len(asked)][:3]), round(polls * requests)) * requests
    bodies = [bytes(answer).strip(b"\0\r\n ") for answer in answers]
    began = time.process_time()
    for number in range(polls):
        json.loads(bodies[number % len(bodies)])
    parse_s = (time.process_time() - began) / polls * requests
    return {"whole_s": whole_s, "wire_s": wire_s, "parse_s": parse_s, "requests": requests}


async def _again(real: Any, host: str, port: int, protocol: Any) -> None:
    await real(host, port, protocol)


async def _cpu(ask: Callable[[int], Awaitable[Any]], count: int) -> float:
    left = iter(range(count))

    async def some() -> None:
        for number in left:
            await ask(number)

    began = time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())
    return (time.process_time() - began) / count


if __name__ == "__main__":
    serve(measure)
