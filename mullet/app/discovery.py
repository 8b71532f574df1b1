"""`mullet discover` without its words: which addresses, which discoverer, and what came of them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mullet.adapters.clock import SystemClock
from mullet.adapters.secrets import Credentials, Redactor
from mullet.policy.quantities import expand_range
from mullet.ports import Discoverer, DriverContext, Outcome, Sighting
from mullet.registry import Group, Registry

MOST_ADDRESSES = 65_536
"""A /16: more than that is no site but a mistake."""


@dataclass(slots=True)
class Search:
    """What a search brought."""

    found: list[Sighting] = field(default_factory=list)
    unidentified: list[Sighting] = field(default_factory=list)
    others: int = 0
    silent: int = 0
    seconds: float = 0.0

    @property
    def looked(self) -> int:
        """How many addresses were looked at."""
        return len(self.found) + len(self.unidentified) + self.others + self.silent

    def take(self, sighting: Sighting) -> None:
        """Count one sighting."""
        if sighting.outcome is Outcome.FOUND:
            self.found.append(sighting)
        elif sighting.outcome is Outcome.UNIDENTIFIED:
            self.unidentified.append(sighting)
        elif sighting.outcome is Outcome.OTHER:
            self.others += 1
        else:
            self.silent += 1

    def sort(self) -> None:
        """Put what was found into the order of its addresses."""
        for sightings in (self.found, self.unidentified):
            sightings.sort(key=lambda item: ipaddress.IPv4Address(item.address))


def addresses_of(targets: Sequence[str], public: bool = False) -> list[str]:
    """Return the addresses of networks and ranges ("10.0.1.0/24", "10.0.1.1-48", "10.0.1.7"), each once.

    Raises:
        ValueError: not an IPv4 network or range, too large, or not private while `public` is False.
    """
    found: dict[str, None] = {}
    for target in targets:
        first, last = _bounds(target)
        if not public and not (first.is_private and last.is_private):
            raise ValueError(
                f"{target} is not a private network; search it from inside, or say --public if its devices are yours"
            )
        found.update(dict.fromkeys(str(ipaddress.IPv4Address(n)) for n in range(int(first), int(last) + 1)))
        if len(found) > MOST_ADDRESSES:
            raise ValueError(f"these are more than {MOST_ADDRESSES} addresses together; search them one after another")
    return list(found)


def _bounds(target: str) -> tuple[ipaddress.IPv4Address, ipaddress.IPv4Address]:
    if "/" not in target:
        try:
            addresses = expand_range(target)
        except ValueError as error:
            raise ValueError(f"{error}; a network is written as '10.0.1.0/24'") from None
        return ipaddress.IPv4Address(addresses[0]), ipaddress.IPv4Address(addresses[-1])
    try:
        network = ipaddress.IPv4Network(target.strip(), strict=False)
    except ValueError:
        raise ValueError(f"{target!r} is no IPv4 network; write it as '10.0.1.0/24' or '10.0.1.1-48'") from None
    if network.num_addresses > MOST_ADDRESSES:
        part = ipaddress.IPv4Network((network.network_address, 16))
        raise ValueError(
            f"{target} holds {network.num_addresses} addresses, and a search takes {MOST_ADDRESSES} at most; "
            f"search it in parts, such as {part}"
        )
    first, last = network.network_address, network.broadcast_address
    # In a network of more than two addresses the first and the last are nobody's.
    return (first, last) if network.prefixlen >= 31 else (first + 1, last - 1)


def build_discoverer(driver: str, options: dict[str, Any], credentials: Path | None) -> Discoverer:
    """Return the discoverer of a driver.

    Raises:
        UnknownName, BrokenPlugin: there is none. ValueError: an option is not usable.
        OSError: a credential's file may be read by others.
    """
    secrets = Credentials(credentials, Redactor())
    context = DriverContext({"discover": options}, secrets.lookup, SystemClock())
    discoverer: Discoverer = Registry().load(Group.DISCOVERERS, driver)(context)
    return discoverer


async def run_search(discoverer: Discoverer, addresses: Sequence[str], looked: Callable[[Search], None]) -> Search:
    """Return what is found at the addresses; `looked` is told after each one.

    Raises:
        DeviceError: the search could not go on.
    """
    clock = SystemClock()
    began = clock.monotonic()
    search = Search()
    # `search` of a Discoverer is an async generator in all but its type: it must be closed where it is left early.
    async with aclosing(discoverer.search(addresses)) as sightings:  # type: ignore[type-var]
        async for sighting in sightings:
            search.take(sighting)
            looked(search)
    search.sort()
    search.seconds = clock.monotonic() - began
    return search
