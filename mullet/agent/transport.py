"""What an edge agent needs of the world: the way to its controller, its drivers' gate, a memory of its leases."""

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


class LeaseMemory(Protocol):
    """Keeps, over restarts of the agent, until when its leases run (monotonic seconds of this run of the machine)."""

    def recall(self, now: float) -> float | None:
        """Return how many seconds the leases still run; 0 after a cold boot or a lapse; None if nothing is known."""

    def remember(self, deadline: float) -> None:
        """Keep a new end of the leases."""
