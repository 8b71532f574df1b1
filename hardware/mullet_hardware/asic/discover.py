"""Discovery as the command line sees it; the search runs in a worker process, for pyasic is never imported here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, ClassVar

from mullet.domain.load import Steering
from mullet.domain.telemetry import LoadState
from mullet.ports import DeviceUnreachable, DriverContext, Outcome, Sighting
from mullet_hardware.asic.capability import CLASSES
from mullet_hardware.asic.identify import ASKED

END_S = 3.0
MOST_LINE_BYTES = 1 << 20
MOST_CONCURRENCY = 512
PORTS = ("rpc", "web", "v3", "grpc")
OPTIONS: Mapping[str, tuple[type, object, str]] = MappingProxyType(
    {
        "ports": (str, "", f"ports that were moved, such as 'rpc=4028,web=8080'; there are {', '.join(PORTS)}"),
        "concurrency": (int, ASKED, "hosts asked at once"),
        "credentials": (
            list,
            (),
            "names of credentials to try where the maker's default is refused; 'CLASS=NAME' for one firmware class",
        ),
    }
)


class AsicDiscoverer:
    """Searches for miners; see `mullet.ports.Discoverer` for the contract.

    Raises ValueError from the constructor where an option is wrong.
    """

    options_schema: ClassVar[Mapping[str, tuple[type, object, str]]] = OPTIONS

    def __init__(self, context: DriverContext) -> None:
        given = context.options.get("discover", {})
        unknown = sorted(set(given) - set(OPTIONS))
        if unknown:
            raise ValueError(f"a search for miners has no option {unknown[0]!r}; it has {', '.join(OPTIONS)}")
        concurrency = given.get("concurrency", ASKED)
        if type(concurrency) is not int or not 1 <= concurrency <= MOST_CONCURRENCY:
            raise ValueError(f"concurrency is to be from 1 to {MOST_CONCURRENCY}, not {concurrency!r}")
        self._job: dict[str, Any] = {
            "ports": parse_ports(given.get("ports", "")),
            "concurrency": concurrency,
            "passwords": _passwords(given.get("credentials", ()), context),
        }

    async def search(self, addresses: Sequence[str]) -> AsyncIterator[Sighting]:
        """Yield one sighting per address as they come.

        Raises:
            DeviceUnreachable: the worker process failed.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "mullet_hardware.asic.search_worker", str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=MOST_LINE_BYTES,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(ConnectionError):
                process.stdin.write(json.dumps({**self._job, "hosts": list(addresses)}).encode() + b"\n")
                await process.stdin.drain()
            while line := await process.stdout.readline():
                row = json.loads(line)
                if "end" in row:
                    return
                if "failed" in row:
                    raise DeviceUnreachable(f"the search failed: {row['failed']}")
                yield unpack(row)
            raise DeviceUnreachable("the search ended before it was done")
        finally:
            # The worker ends with its input; what it may still say is of no use.
            process.stdin.close()
            try:
                async with asyncio.timeout(END_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


def parse_ports(text: str) -> dict[str, int]:
    """Return the ports of "rpc=4028,web=8080".

    Raises:
        ValueError: a name that there is not, or no TCP port.
    """
    found: dict[str, int] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if not equals or name not in PORTS:
            raise ValueError(f"{part!r} names no port; write it as 'web=8080', with one of {', '.join(PORTS)}")
        if not number.isdecimal() or not 0 < int(number) < 65536:
            raise ValueError(f"{part!r}: {number!r} is no TCP port")
        found[name] = int(number)
    return found


def pack(sighting: Sighting) -> dict[str, Any]:
    """Return a sighting as JSON data."""
    return asdict(sighting)


def unpack(row: Mapping[str, Any]) -> Sighting:
    """Return the sighting that `pack` made."""
    fields = dict(row)
    fields["outcome"] = Outcome(fields["outcome"])
    fields["steering"] = None if fields["steering"] is None else Steering(fields["steering"])
    fields["state"] = None if fields["state"] is None else LoadState(fields["state"])
    return Sighting(**fields)


def _passwords(names: Sequence[str], context: DriverContext) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for text in names:
        firmware_class, equals, name = text.partition("=")
        if not equals:
            firmware_class, name = "*", text
        elif firmware_class not in CLASSES:
            raise ValueError(f"{text!r}: no class {firmware_class!r}; there are {', '.join(CLASSES)}")
        password = context.secret(name)
        if password is None:
            raise ValueError(f"credential {name!r} is not provided")
        found.setdefault(firmware_class, []).append((name, password))
    return found
