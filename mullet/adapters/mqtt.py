"""Commands, receipts and telemetry over MQTT 5: the controller's side (a `Link`) and the edge agent's.

Topics: mullet/<facility>/agents/<agent>/ command/<load>, heartbeat (to the agent); receipt, telemetry/<bank>, status
(from it). Only status is retained. The broker is trusted with nothing: age, order and origin are in the payload.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence

from aiomqtt import Message

from mullet.adapters.broker import BrokerSettings
from mullet.adapters.link import Correspondence, NewestQueue, mortal
from mullet.adapters.mqtt_session import LastWill, MqttSession, NotDelivered
from mullet.domain.command import Command, Receipt
from mullet.domain.message import (
    CommandMessage,
    Heartbeat,
    HeartbeatMessage,
    MessageError,
    command_payload,
    heartbeat_payload,
    read_receipt,
    read_telemetry,
    receipt_payload,
    telemetry_payload,
)
from mullet.domain.telemetry import Telemetry
from mullet.ports import Clock, LinkError

logger = logging.getLogger(__name__)

ONLINE = b"online"
OFFLINE = b"offline"
HEARTBEAT_EXPIRY_S = 5.0
TELEMETRY_EXPIRY_S = 10.0
RECEIPT_EXPIRY_S = 10.0


def jittered_backoff(first_s: float = 0.25, most_s: float = 5.0, seed: int | None = None) -> Callable[[int], float]:
    """Return how long to wait before attempt n: doubling up to `most_s`, each time half of it drawn at random."""
    draw = random.Random(seed)

    def wait_s(attempt: int) -> float:
        full = min(most_s, first_s * 2.0 ** min(max(0, attempt - 1), 20))
        return full * (0.5 + 0.5 * draw.random())

    return wait_s


def _root(facility: str) -> str:
    return f"mullet/{_level(facility)}/agents"


def _level(name: str) -> str:
    if not name or set(name) & set("/+#\0"):
        raise ValueError(f"{name!r} cannot be a level of an MQTT topic")
    return name


class MqttLink:
    """A `Link` over MQTT 5.

    Args:
        epoch: tells the controller's present epoch (for heartbeats).
        key: shared secret that signs commands and heartbeats.
        backoff_s: how long to wait before connection attempt n.
    """

    def __init__(
        self,
        facility: str,
        broker: BrokerSettings,
        clock: Clock,
        epoch: Callable[[], int],
        *,
        key: bytes | None = None,
        backoff_s: Callable[[int], float] | None = None,
    ) -> None:
        self._facility = facility
        self._root = _root(facility)
        self._clock = clock
        self._epoch = epoch
        self._key = key
        self._correspondence = Correspondence()
        self._online: set[str] = set()
        self.garbled = 0
        """Messages from agents that could not be read."""
        self.lost_heartbeats = 0
        self._session = MqttSession(
            broker,
            clock,
            [(f"{self._root}/+/{kind}", False) for kind in ("status", "receipt", "telemetry/+")],
            self._take,
            backoff_s if backoff_s is not None else jittered_backoff(),
            lost=self._online.clear,
        )

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""
        return self._session.connected

    async def open(self) -> None:
        """Start connecting; never raises because the broker is away."""
        await self._session.open()

    async def close(self) -> None:
        """Disconnect and end all tasks."""
        await self._session.close()

    async def wait_connected(self) -> None:
        """Return once connected to the broker."""
        await self._session.wait_connected()

    async def send(self, agent: str, command: Command, deadline_s: float) -> Receipt:
        """Send one command and return the agent's answer to it.

        Where it is not known whether the agent got the command, this takes the whole deadline: only then is the
        command dead.

        Raises:
            LinkError: not delivered or not answered in time; the command will never execute.
        """
        order = mortal(command, self._clock.now(), deadline_s)
        answer = self._correspondence.expect(command.id)
        doubt: LinkError | None = None
        try:
            async with asyncio.timeout(deadline_s):
                try:
                    await self._session.publish(
                        f"{self._root}/{_level(agent)}/command/{_level(command.load_id)}",
                        command_payload(self._facility, order, self._key),
                        expiry_s=min(order.not_after - self._clock.now(), order.lease_s),
                        response_topic=f"{self._root}/{agent}/receipt",
                        correlation=command.id.encode(),
                        timeout_s=deadline_s,
                    )
                except NotDelivered:
                    raise
                except LinkError as error:
                    doubt = error
                return await answer
        except TimeoutError:
            why = f": {doubt}" if doubt is not None else ""
            raise LinkError(f"agent {agent} did not answer {command.id} within {deadline_s:g} s{why}") from None
        finally:
            self._correspondence.forget(command.id)

    async def renew(self, agent: str, lease_s: float) -> None:
        """Send a heartbeat. One that is lost is counted, not raised: the next is due anyway, and `alive` tells."""
        beat = Heartbeat(self._facility, agent, self._epoch(), self._clock.now(), lease_s)
        try:
            await self._session.publish(
                f"{self._root}/{_level(agent)}/heartbeat",
                heartbeat_payload(beat, self._key),
                expiry_s=HEARTBEAT_EXPIRY_S,
            )
        except LinkError as error:
            self.lost_heartbeats += 1
            logger.debug("heartbeat to %s was lost: %s", agent, error)

    def telemetry(self, agent: str) -> AsyncIterator[Telemetry]:
        """Yield what the agent observes."""
        return self._correspondence.telemetry(agent)

    def alive(self, agent: str) -> bool:
        """Return whether the broker is there and says that the agent is."""
        return self.connected and agent in self._online

    def _take(self, message: Message) -> None:
        agent, _, kind = message.topic.value.removeprefix(f"{self._root}/").partition("/")
        payload = _bytes(message)
        try:
            if kind == "status":
                (self._online.add if payload == ONLINE else self._online.discard)(agent)
            elif kind == "receipt":
                self._correspondence.answered(read_receipt(payload))
            else:
                self._correspondence.observed(agent, read_telemetry(payload, self._clock.now()))
        except MessageError as error:
            self.garbled += 1
            logger.debug("%s from %s could not be read: %s", kind, agent, error)


class MqttAgentTransport:
    """The edge agent's side: fits `mullet.agent.transport.AgentTransport`."""

    def __init__(
        self,
        facility: str,
        agent: str,
        broker: BrokerSettings,
        clock: Clock,
        *,
        backoff_s: Callable[[int], float] | None = None,
    ) -> None:
        self._facility = facility
        self._root = f"{_root(facility)}/{_level(agent)}"
        self._clock = clock
        self._queue: NewestQueue[CommandMessage | HeartbeatMessage] = NewestQueue()
        self._session = MqttSession(
            broker,
            clock,
            # A sender's retain flag must reach the inbox, or a retained command would look like any other.
            [(f"{self._root}/command/+", True), (f"{self._root}/heartbeat", True)],
            self._take,
            backoff_s if backoff_s is not None else jittered_backoff(),
            # The same name each time: a new connection puts an end to the half-dead one before it.
            identifier=f"mullet-{facility}-{agent}",
            will=LastWill(f"{self._root}/status", OFFLINE),
            greeting=self._greet,
        )

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""
        return self._session.connected

    async def open(self) -> None:
        """Start connecting; never raises because the broker is away."""
        await self._session.open()

    async def close(self) -> None:
        """Say offline, disconnect and end all tasks."""
        await self._session.close(self._say_offline)
        self._queue.close()

    async def wait_connected(self) -> None:
        """Return once connected to the broker."""
        await self._session.wait_connected()

    def incoming(self) -> AsyncIterator[CommandMessage | HeartbeatMessage]:
        """Yield what arrives until closed."""
        return self._queue.items()

    async def answer(self, message: CommandMessage, receipt: Receipt) -> None:
        """Send the answer to a command to its response topic, if that is beneath this agent's receipts.

        Raises:
            LinkError: it could not be sent.
        """
        receipts = f"{self._root}/receipt"
        asked = message.reply_to
        await self._session.publish(
            asked if asked is not None and asked.startswith(receipts) else receipts,
            receipt_payload(receipt),
            expiry_s=RECEIPT_EXPIRY_S,
            correlation=message.correlation,
        )

    async def publish_telemetry(self, bank: str, readings: Sequence[Telemetry]) -> None:
        """Send one bank's readings.

        Raises:
            LinkError: they could not be sent.
        """
        await self._session.publish(
            f"{self._root}/telemetry/{_level(bank)}",
            telemetry_payload(readings, self._clock.now()),
            qos=0,
            expiry_s=TELEMETRY_EXPIRY_S,
        )

    async def _greet(self) -> None:
        await self._session.publish(f"{self._root}/status", ONLINE, retain=True)

    async def _say_offline(self) -> None:
        await self._session.publish(f"{self._root}/status", OFFLINE, retain=True)

    def _take(self, message: Message) -> None:
        kind, _, load_id = message.topic.value.removeprefix(f"{self._root}/").partition("/")
        if kind == "heartbeat":
            self._queue.put(HeartbeatMessage(self._facility, _bytes(message), message.retain))
            return
        properties = message.properties
        self._queue.put(
            CommandMessage(
                self._facility,
                load_id,
                _bytes(message),
                message.retain,
                getattr(properties, "ResponseTopic", None),
                getattr(properties, "CorrelationData", None),
            )
        )


def _bytes(message: Message) -> bytes:
    return bytes(message.payload)
