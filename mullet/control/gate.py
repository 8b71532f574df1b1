"""The one write gate: nothing that could change a device goes any other way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from mullet.domain.command import Command, Receipt, Verb
from mullet.domain.facility import Mode
from mullet.domain.feeds import Cause
from mullet.domain.load import Load
from mullet.domain.snapshot import Hold, HoldKind
from mullet.ports import Driver, Link, WriteRefused

ALLOWED_VERBS = frozenset({Verb.POWER, Verb.SLEEP, Verb.WAKE})

OVERRIDES_HOLD_ON = frozenset({Cause.PROTECTION, Cause.FAILSAFE, Cause.EMERGENCY})


@dataclass(frozen=True, slots=True)
class Permit:
    """What the gate looks at besides the command itself, as it stands at the moment of sending."""

    mode: Mode
    hold: Hold | None


def refusal(load: Load, command: Command, permit: Permit, now: float) -> str | None:
    """Return why the command may not be sent, or None if it may."""
    if command.verb not in ALLOWED_VERBS:
        return f"verb {command.verb!r} is not allowed"
    if permit.mode is not Mode.AUTO:
        return f"mode {permit.mode.value} sends nothing"
    # Asked so that a value which is no number is refused too.
    if not now <= command.not_after:
        return f"the command was good until {now - command.not_after:.1f} s ago"
    if permit.hold is not None:
        energises = command.raises or command.verb is Verb.WAKE
        if permit.hold.kind is HoldKind.OFF and energises:
            return f"{permit.hold.target} is held off by {permit.hold.owner}: {permit.hold.reason}"
        if permit.hold.kind is HoldKind.ON and command.cause not in OVERRIDES_HOLD_ON:
            return f"{permit.hold.target} is held on by {permit.hold.owner}: {permit.hold.reason}"
    if command.load_id != load.id:
        return f"command for {command.load_id} was addressed to {load.id}"
    if not load.min_watts - 1e-6 <= command.watts <= load.worst_watts + 1e-6:
        return f"{command.watts:.0f} W is outside the range of {load.id}"
    return None


class WriteGate:
    """Sends commands to drivers, or to agents where an agent holds the load's lease."""

    def __init__(
        self,
        drivers: Mapping[str, Driver],
        link: Link | None,
        permit: Callable[[Load], Permit],
        now: Callable[[], float],
    ) -> None:
        self._drivers = drivers
        self._link = link
        self._permit = permit
        self._now = now

    async def send(self, load: Load, command: Command, deadline_s: float) -> Receipt:
        """Send one command and return what was answered.

        Raises:
            WriteRefused: mode, hold, age, verb or range forbid it; nothing was sent.
            DeviceError: the driver could not deliver it.
            LinkError: the agent could not be reached; the command will never execute.
        """
        return await self._write(load, command, self._deliver(load, command, deadline_s))

    async def restore(self, load: Load, command: Command, deadline_s: float) -> Receipt:
        """Put remembered defaults back, by an operator's command only.

        Raises:
            WriteRefused, DeviceError: as `send`.
        """
        if load.agent is not None:
            raise WriteRefused(f"{load.id} is held by agent {load.agent}: its defaults are restored there")
        driver = self._drivers[load.driver]
        return await self._write(load, command, lambda: driver.restore_defaults(load, deadline_s))

    def _deliver(self, load: Load, command: Command, deadline_s: float) -> Callable[[], Awaitable[Receipt]]:
        if load.agent is not None:
            link = self._link
            if link is None:
                raise WriteRefused(f"{load.id} is held by agent {load.agent}, and there is no link to it")
            agent = load.agent
            return lambda: link.send(agent, command, deadline_s)
        driver = self._drivers[load.driver]
        return lambda: driver.apply(load, command, deadline_s)

    async def _write(self, load: Load, command: Command, act: Callable[[], Awaitable[Receipt]]) -> Receipt:
        reason = refusal(load, command, self._permit(load), self._now())
        if reason is not None:
            raise WriteRefused(reason)
        return await act()
