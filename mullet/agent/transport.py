"""What an edge agent needs of the way to its controller and of its drivers' gate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from mullet.domain.command import Command, Receipt
from mullet.domain.load import Load
from mullet.domain.message import CommandMessage, HeartbeatMessage
from mullet.domain.telemetry import Telemetry


class AgentTransport(Protocol):
    """The agent's side of a `Link`."""

    async def open(self) -> None:
        """Start connecting; never raises because the other side is away."""

    async def close(self) -> None:
        """Say goodbye and end all tasks, within a few seconds."""

    def incoming(self) -> AsyncIterator[CommandMessage | HeartbeatMessage]:
        """Yield what arrives, oldest first, until closed; where it arrives faster than it is taken the newest wins."""

    async def answer(self, message: CommandMessage, receipt: Receipt) -> None:
        """Send the answer to a command.

        Raises:
            LinkError: it could not be sent.
        """

    async def publish_telemetry(self, bank: str, readings: Sequence[Telemetry]) -> None:
        """Send one bank's readings.

        Raises:
            LinkError: they could not be sent.
        """


class CommandGate(Protocol):
    """The write gate: the only way to a device. `mullet.control.gate.WriteGate` is one."""

    async def send(self, load: Load, command: Command, deadline_s: float) -> Receipt:
        """Send one command and return what was answered.

        Raises:
            WriteRefused: the gate is closed for it.
            DeviceError: the device could not be reached or said no.
        """
