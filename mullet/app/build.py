"""From a policy to everything that reaches the world: names become classes, classes become parts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from mullet.adapters.secrets import Credentials
from mullet.control.parts import FeedKind, FeedPart, Plant
from mullet.domain.facility import Facility
from mullet.domain.load import Capability
from mullet.policy import KnownNames, LoadedPolicy, Wiring, load_policy
from mullet.ports import BankNotes, Barring, Clock, Driver, DriverContext, Feed, Meter, Switch
from mullet.registry import Group, Registry


def known_names(registry: Registry) -> KnownNames:
    """Return what this installation can drive, measure, switch and read, for the policy's checks."""

    def schemas(group: Group) -> dict[str, Any]:
        return {name: registry.options_schema(group, name) for name in registry.names(group)}

    def capability_of(driver: str, options: Mapping[str, Any]) -> Capability:
        capability: Capability = registry.load(Group.DRIVERS, driver).capability_for(options)
        return capability

    def notes_of(driver: str, options: Mapping[str, Any]) -> BankNotes:
        ask: Callable[[Mapping[str, Any]], BankNotes] | None
        ask = getattr(registry.load(Group.DRIVERS, driver), "notes_for", None)
        return BankNotes() if ask is None else ask(options)

    return KnownNames(
        drivers=schemas(Group.DRIVERS),
        meters=schemas(Group.METERS),
        switches=schemas(Group.SWITCHES),
        feeds=schemas(Group.FEEDS),
        capability_of=capability_of,
        notes_of=notes_of,
    )


def read_policy(path: Path, registry: Registry) -> LoadedPolicy:
    """Return the policy in a file.

    Raises:
        OSError: it cannot be read. PolicyErrors: everything that is wrong with it.
    """
    return load_policy(path.read_text(encoding="utf-8"), str(path), known_names(registry))


async def build_plant(loaded: LoadedPolicy, registry: Registry, clock: Clock, credentials: Credentials) -> Plant:
    """Build and open drivers, meters, switches and feeds. No device is changed.

    Raises:
        MulletError: a driver could not be opened; whatever was opened before is closed again.
    """
    facility, wiring = loaded.facility, loaded.wiring
    closers: list[Callable[[], Awaitable[None]]] = []

    async def close() -> None:
        await asyncio.gather(*(closer() for closer in reversed(closers)), return_exceptions=True)

    def context(options: Mapping[str, Mapping[str, Any]]) -> DriverContext:
        return DriverContext(options, credentials.lookup, clock)

    try:
        drivers: dict[str, Driver] = {}
        for name, options in wiring.drivers.items():
            direct = [load for load in facility.loads if load.driver == name and load.agent is None]
            if not direct:
                continue
            drivers[name] = registry.load(Group.DRIVERS, name)(context(options))
            closers.append(drivers[name].close)
        await asyncio.gather(
            *(
                driver.open([load for load in facility.loads if load.driver == name and load.agent is None])
                for name, driver in drivers.items()
            )
        )
        meters: dict[str, Meter] = _devices(registry, Group.METERS, wiring, "meters", context, closers)
        switches: dict[str, Switch] = _devices(registry, Group.SWITCHES, wiring, "switches", context, closers)
        devices: list[Meter | Switch] = [*meters.values(), *switches.values()]
        for device in {id(item): item for item in devices}.values():
            await device.open()
        feeds = tuple(_feed(registry, wiring, feed_id, context, closers) for feed_id in wiring.feeds)
    except BaseException:
        await close()
        raise
    periods = [spec.poll_s for spec in wiring.meters.values() if spec.poll_s > 0.0]
    return Plant(
        facility=facility,
        drivers=drivers,
        periods_s=wiring.poll_s,
        meters=meters,
        meter_period_s=min(periods, default=1.0),
        switches=switches,
        feeds=feeds,
        barred=_barred(facility, drivers),
        close=close,
    )


def _barred(facility: Facility, drivers: Mapping[str, Driver]) -> dict[str, str]:
    """Return why loads that mullet itself speaks to could not be written to, by load."""
    barring = {name: driver for name, driver in drivers.items() if isinstance(driver, Barring)}
    direct = (load for load in facility.loads if load.agent is None and load.driver in barring)
    told = ((load.id, barring[load.driver].barred(load)) for load in direct)
    return {load_id: reason for load_id, reason in told if reason is not None}


def _devices(
    registry: Registry,
    group: Group,
    wiring: Wiring,
    kind: str,
    context: Callable[[Mapping[str, Mapping[str, Any]]], DriverContext],
    closers: list[Callable[[], Awaitable[None]]],
) -> dict[str, Any]:
    """Return meters or switches by id: one object serves all of its kind."""
    specs = getattr(wiring, kind)
    objects: dict[str, Any] = {}
    for driver in dict.fromkeys(spec.driver for spec in specs.values()):
        objects[driver] = registry.load(group, driver)(context(wiring.options_of(kind, driver)))
        closers.append(objects[driver].close)
    return {name: objects[spec.driver] for name, spec in specs.items()}


def _feed(
    registry: Registry,
    wiring: Wiring,
    feed_id: str,
    context: Callable[[Mapping[str, Mapping[str, Any]]], DriverContext],
    closers: list[Callable[[], Awaitable[None]]],
) -> FeedPart:
    spec = wiring.feeds[feed_id]
    feed: Feed = registry.load(Group.FEEDS, spec.driver)(context({feed_id: spec.options}), feed_id)
    closers.append(feed.close)
    kind, _, service = spec.kind.partition(":")
    return FeedPart(
        name=feed_id,
        kind=FeedKind(kind),
        feed=feed,
        period_s=spec.poll_s,
        max_age_s=spec.max_age_s,
        deadline_s=min(5.0, max(1.0, spec.poll_s)),
        service=service or None,
    )
