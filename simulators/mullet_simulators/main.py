"""`python -m mullet_simulators SCENARIO`: the simulated facility as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from mullet_simulators.facility import DEFAULT_SUBNET, SERVERS, AddressInUse, Facility
from mullet_simulators.scenario import ScenarioError, load_scenario

PARENT_POLL_S = 1.0
GOOD, FAILED, USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run until --seconds are over, a signal comes or the parent is gone; the exit code."""
    options = _parser().parse_args(argv)
    try:
        scenario = load_scenario(options.scenario, options.seconds, options.seed)
        facility = Facility(
            scenario,
            options.subnet,
            options.truth,
            options.device_latency_ms / 1000.0,
            [name for name in SERVERS if name not in options.without],
            lead_s=options.lead,
        )
    except (ScenarioError, OSError) as error:
        sys.stderr.write(f"mullet_simulators: {error}\n")
        return USAGE
    if options.print_addresses:
        _say(facility.addresses())
        facility.truth.close()
        return GOOD
    try:
        seconds = None if options.seconds is None else options.lead + options.seconds + options.linger
        return _run(_serve(facility, seconds, options.parent_pid))
    except AddressInUse as error:
        sys.stderr.write(f"mullet_simulators: {error}\n")
        return USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mullet_simulators", description=__doc__)
    parser.add_argument("scenario", help="a scenario file, or the name of the shipped one: demo")
    parser.add_argument("--subnet", type=_subnet, default=DEFAULT_SUBNET, help="serve on 127.N.0.0/16")
    parser.add_argument("--seconds", type=float, help="fit the scenario to so many seconds, then exit")
    parser.add_argument("--lead", type=float, default=0.0, help="seconds before the scenario's time begins")
    parser.add_argument("--linger", type=float, default=0.0, help="seconds to go on after the scenario's end")
    parser.add_argument("--truth", type=Path, help="write the truth log here")
    parser.add_argument("--seed", type=int, help="instead of the scenario's own")
    parser.add_argument("--device-latency-ms", type=float, default=0.0, help="added to each miner's answer")
    parser.add_argument("--parent-pid", type=int, help="exit when this process is the parent no more")
    parser.add_argument("--without", action="append", default=[], choices=SERVERS, help="leave out a server")
    parser.add_argument("--print-addresses", action="store_true", help="print the addresses and exit")
    return parser


def _subnet(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 254:
        raise argparse.ArgumentTypeError("1 to 254")
    return number


def _run(work: Coroutine[Any, Any, int]) -> int:
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    try:
        import uvloop

        loop_factory = uvloop.new_event_loop
    except ImportError:
        loop_factory = None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(work)


async def _serve(facility: Facility, seconds: float | None, parent_pid: int | None) -> int:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    await facility.start()
    _say(facility.addresses())
    waits = [asyncio.create_task(over.wait()), asyncio.create_task(facility.fail())]
    if parent_pid is not None:
        waits.append(asyncio.create_task(_outlive(parent_pid)))
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        await facility.stop()
    return GOOD


async def _outlive(parent_pid: int) -> None:
    """Return when that process is gone, or another one has adopted us."""
    adopter = os.getppid()
    while os.getppid() == adopter and _is_alive(parent_pid):  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(PARENT_POLL_S)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _say(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
