"""The search itself, as it runs in its worker process: every address is identified, confirmed, and read once.

Nothing is written. Where a read asks for a password, the maker's default is tried first, once: that it is accepted
is what the operator must know of. Then come the passwords that the operator named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mullet.ports import CredentialsRejected, DeviceError, DeviceUnreachable, Outcome, Sighting
from mullet_hardware.asic.capability import FIRMWARES, MONITOR
from mullet_hardware.asic.device import Access, Device, Found, within
from mullet_hardware.asic.evidence import READS_ASK_PASSWORD, Standing, Verdict
from mullet_hardware.asic.foreign import Foreigners
from mullet_hardware.asic.identify import Identifier, Ports
from mullet_hardware.asic.nameplates import nameplate
from mullet_hardware.asic.registry import device_class

READ_S = 10.0
FOREIGN_S = 30.0
SECOND_LOOK = 2.0
"""Patience of the second pass, over hosts that answered and brought nothing whole."""
ANY = "*"
"""Key of the passwords that may be tried on every class."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What to search with; `passwords` by firmware class, or under ANY, as (name of the credential, password)."""

    ports: Ports
    concurrency: int
    passwords: Mapping[str, Sequence[tuple[str, str]]]


class Search:
    """One search; every sighting goes to `emit`, once per address."""

    def __init__(self, settings: Settings, emit: Callable[[Sighting], None], now: Callable[[], float]) -> None:
        self._settings = settings
        self._emit = emit
        self._now = now
        self._identifier = Identifier(settings.concurrency)
        self._foreigners = Foreigners()

    async def run(self, hosts: Sequence[str]) -> None:
        """Look at every host; those that brought nothing whole are looked at once more, with more patience."""
        doubtful = await self._pass(hosts, 1.0)
        for sighting in await self._pass([item.address for item in doubtful], SECOND_LOOK):
            self._emit(sighting)

    async def _pass(self, hosts: Sequence[str], patience: float) -> list[Sighting]:
        """Emit what is certain and return the rest."""
        at_once = self._settings.concurrency + self._identifier.knocks
        waiting = iter(hosts)
        doubtful: list[Sighting] = []

        async def work() -> None:
            for host in waiting:
                sighting = await self._look(host, patience)
                if sighting.outcome is Outcome.UNIDENTIFIED:
                    doubtful.append(sighting)
                else:
                    self._emit(sighting)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(hosts))):
                group.create_task(work())
        return doubtful

    async def _look(self, host: str, patience: float) -> Sighting:
        verdict = await self._identifier.look(host, self._settings.ports, patience)
        if verdict.standing is Standing.SILENT:
            return Sighting(host, Outcome.SILENT)
        if verdict.standing is Standing.OTHER:
            return Sighting(host, Outcome.OTHER, verdict.reason)
        try:
            if verdict.standing is Standing.MINER and all(device_class(name) for name in verdict.classes):
                return await self._miner(host, verdict, patience)
            if verdict.standing is not Standing.UNDECIDED:
                return await within(FOREIGN_S * patience, host, self._watched(host))
        except DeviceError as error:
            reason = f"{type(error).__name__}: {error}"
            return Sighting(host, Outcome.UNIDENTIFIED, reason, model=verdict.model)
        return Sighting(host, Outcome.UNIDENTIFIED, verdict.reason, model=verdict.model)

    async def _miner(self, host: str, verdict: Verdict, patience: float) -> Sighting:
        """Return a miner of one of the verdict's classes.

        Raises:
            DeviceError: none of them was confirmed.
        """
        rejected: CredentialsRejected | None = None
        for credential, password in self._attempts(verdict.classes):

            def build(name: str, password: str | None = password) -> Device:
                return self._build(name, host, password)

            try:
                device, found = await self._identifier.confirm(host, verdict, build, patience)
            except CredentialsRejected as error:
                rejected = rejected or error
                continue
            sighting = self._named(host, found)
            sighting = await self._read(device, sighting, patience)
            if found.firmware_class in READS_ASK_PASSWORD:
                sighting = replace(sighting, default_password=credential is None)
            if credential is not None:
                sighting = replace(sighting, options={**sighting.options, "credential": credential})
            return sighting
        if len(verdict.classes) > 1 or rejected is None:
            raise rejected or DeviceUnreachable(f"{host} could not be asked")
        # It says what it is; who it is, and what it draws, it tells only to whom has its password.
        found = Found(verdict.classes[0], (), "", verdict.model, "")
        reason = "its password is none that was tried: name its credential to read it"
        return replace(self._named(host, found), default_password=False, reason=reason)

    def _attempts(self, classes: Sequence[str]) -> list[tuple[str | None, str | None]]:
        """Return (credential, password) in the order to try: first the maker's default, whose credential is None."""
        named = [*self._settings.passwords.get(ANY, ())]
        for firmware_class in classes:
            named += self._settings.passwords.get(firmware_class, ())
        return [(None, None), *named]

    def _build(self, firmware_class: str, host: str, password: str | None) -> Device:
        firmware = FIRMWARES[firmware_class]
        rpc_port, web_port = self._settings.ports.of(firmware)
        access = Access(
            host=host,
            rpc_port=rpc_port,
            web_port=web_port,
            username=firmware.username or "",
            password=firmware.password or "" if password is None else password,
            barred="a search only reads",
        )
        kind = device_class(firmware_class)
        assert kind is not None
        device: Device = kind(access, None, 0.0, self._now)
        return device

    async def _read(self, device: Device, sighting: Sighting, patience: float) -> Sighting:
        """Return the sighting with what the device reads now; a failure leaves the readings unknown."""
        try:
            reading = await within(READ_S * patience, sighting.address, device.read())
        except DeviceError as error:
            return replace(sighting, reason=f"was identified, but not read: {error}")
        return replace(
            sighting,
            state=reading.state,
            watts=reading.watts,
            limit_watts=reading.limit_watts,
            th_per_s=reading.th_per_s,
        )

    async def _watched(self, host: str) -> Sighting:
        access = Access(host, self._settings.ports.rpc, self._settings.ports.web, "", "", "a search only reads")
        miner, (_, model, _) = await self._foreigners.find(access, None, self._now)
        try:
            found = await within(READ_S, host, miner.identify())
        except DeviceError as error:
            found = Found(MONITOR, (), "", str(model), "")
            return replace(self._named(host, found), reason=f"its model is known, but it was not read: {error}")
        return await self._read(miner, self._named(host, found), 1.0)

    def _named(self, host: str, found: Found) -> Sighting:
        firmware = FIRMWARES[found.firmware_class]
        plate = nameplate(found.model)
        options: dict[str, Any] = {"class": found.firmware_class}
        if found.firmware_class != MONITOR:
            ports = zip(("rpc_port", "web_port"), self._settings.ports.of(firmware), strict=True)
            usual = (firmware.rpc_port or 0, firmware.web_port or 0)
            options |= {name: port for (name, port), own in zip(ports, usual, strict=True) if port != own}
        return Sighting(
            address=host,
            outcome=Outcome.FOUND,
            title=firmware.title,
            make=found.make,
            model=found.model,
            firmware=found.firmware,
            identity=found.identities[0] if found.identities else None,
            options=options,
            steering=firmware.capability.steering,
            measures_watts=firmware.capability.measures_watts,
            nameplate_watts=None if plate is None else plate[0],
            nameplate_th_per_s=None if plate is None else plate[1],
            asks_password=firmware.password is not None and firmware.grade_of_writes is not None,
        )
