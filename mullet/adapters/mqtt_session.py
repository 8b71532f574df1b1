"""One MQTT 5 connection that comes back, made of clients that never do.

A paho client that reconnects sends what failed before; so each connection has a client of its own, and one that
failed is dropped with all it holds.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from aiomqtt import Client, Message, MqttError, ProtocolVersion, Will
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from mullet.adapters.broker import BrokerSettings
from mullet.ports import Clock, LinkError
from mullet.tasks import CANCEL_AGAIN_S, end_tasks

logger = logging.getLogger(__name__)

NO_SUBSCRIBER = 0x10
"""The broker took the message, but nobody listens."""

MISC_PERIOD_S = 0.25


class NotDelivered(LinkError):
    """The broker said, or we know, that nobody got the message."""


class BrokerRefused(NotDelivered):
    """The broker refused the message, such as for lack of a permission."""


class _OneConnection(Client):
    """A client for one connection: tells why a publish was refused, never blocks its reader, and can be dropped."""

    def __init__(self, settings: BrokerSettings, tls: ssl.SSLContext | None, **options: Any) -> None:
        super().__init__(
            settings.host,
            settings.port,
            username=settings.username,
            password=settings.password,
            protocol=ProtocolVersion.V5,
            clean_start=True,
            keepalive=settings.keepalive_s,
            timeout=settings.timeout_s,
            tls_context=tls,
            **options,
        )
        self._client.connect_timeout = settings.timeout_s
        self._confirmations: dict[int, asyncio.Future[ReasonCode]] = {}
        self._take: Callable[[Message], None] | None = None

    @property
    def lost(self) -> asyncio.Future[None]:
        return self._disconnected

    def read_into(self, take: Callable[[Message], None]) -> None:
        """Hand messages to `take` the moment they come, past the queue that would keep the oldest of them."""
        self._take = take

    async def confirmed_publish(
        self, topic: str, payload: bytes, qos: int, retain: bool, properties: Properties
    ) -> ReasonCode | None:
        """Return the broker's answer (None at QoS 0); may wait for ever.

        Raises:
            NotDelivered: the client did not even queue it.
            LinkError: the connection was lost before the answer.
        """
        info = self._client.publish(topic, payload, qos, retain, properties)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            raise NotDelivered(f"not sent: {paho.error_string(info.rc)}")
        if qos == 0:
            return None
        confirmation: asyncio.Future[ReasonCode] = asyncio.get_running_loop().create_future()
        self._confirmations[info.mid] = confirmation
        try:
            await asyncio.wait((confirmation, self._disconnected), return_when=asyncio.FIRST_COMPLETED)
            if not confirmation.done():
                raise LinkError("the connection was lost before the broker confirmed")
            return confirmation.result()
        finally:
            self._confirmations.pop(info.mid, None)

    def drop(self) -> None:
        """Close the socket and forget everything that was queued. Never waits."""
        self._client._sock_close()
        if not self._disconnected.done():
            self._disconnected.set_result(None)
        elif not self._disconnected.cancelled():
            self._disconnected.exception()

    async def end(self) -> None:
        """Drop, and wait for what still runs."""
        self.drop()
        if self._misc_task is not None:
            self._misc_task.cancel()
            await asyncio.wait((self._misc_task,))

    def _on_publish(
        self, client: paho.Client, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        confirmation = self._confirmations.get(mid)
        if confirmation is not None and not confirmation.done():
            confirmation.set_result(reason_code)
        super()._on_publish(client, userdata, mid, reason_code, properties)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        if self._take is not None:
            self._take(Message._from_paho_message(message))

    async def _misc_loop(self) -> None:
        while self._client.loop_misc() == paho.MQTT_ERR_SUCCESS:  # noqa: ASYNC110
            await asyncio.sleep(MISC_PERIOD_S)


@dataclass(frozen=True, slots=True)
class LastWill:
    """What the broker says for us, retained, once we are gone without a word."""

    topic: str
    payload: bytes


class MqttSession:
    """Keeps one connection to a broker, over and over, until closed.

    Args:
        subscriptions: topics and whether their messages keep the sender's retain flag.
        take: gets every message, in the event loop; must not block or raise.
        backoff_s: tells how long to wait before attempt n (from 1), jitter included.
        greeting: what to publish on each new connection, before anything else may be.
        lost: called when a connection is gone.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        clock: Clock,
        subscriptions: Sequence[tuple[str, bool]],
        take: Callable[[Message], None],
        backoff_s: Callable[[int], float],
        *,
        identifier: str | None = None,
        will: LastWill | None = None,
        greeting: Callable[[], Awaitable[None]] | None = None,
        lost: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._subscriptions = tuple(subscriptions)
        self._take = take
        self._backoff_s = backoff_s
        self._identifier = identifier
        self._will = will
        self._greeting = greeting
        self._lost = lost
        self._client: _OneConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._closing = False
        self.connections = 0

    @property
    def connected(self) -> bool:
        """Whether the broker answered and nothing says that it is gone."""
        return self._up.is_set() and self._client is not None and not self._client.lost.done()

    async def wait_connected(self) -> None:
        """Return once connected."""
        await self._up.wait()

    async def open(self) -> None:
        """Start connecting."""
        if self._task is None:
            self._closing = False
            self._task = asyncio.create_task(self._keep(), name=f"mqtt {self._settings.host}:{self._settings.port}")

    async def close(self, farewell: Callable[[], Awaitable[None]] | None = None) -> None:
        """Say `farewell` if connected, disconnect, and end."""
        if self._task is None:
            return
        self._closing = True
        client = self._client
        if self.connected and client is not None:
            try:
                async with asyncio.timeout(self._settings.timeout_s):
                    if farewell is not None:
                        await farewell()
                    await client.__aexit__(None, None, None)
            except (LinkError, MqttError, TimeoutError) as error:
                logger.debug("no orderly end of the connection: %s", error)
        # An attempt to connect may go on until its time is up: it is not to be cut short.
        await end_tasks([self._task], CANCEL_AGAIN_S + self._settings.timeout_s)
        self._task = None

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expiry_s: float | None = None,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Publish and, at QoS 1, return once the broker confirmed. A failure drops the connection and all it held.

        Raises:
            NotDelivered: nobody got it: not connected, refused by the broker, or no subscriber.
            LinkError: it is not known whether anybody got or will get it.
        """
        client = self._client
        if client is None:
            raise NotDelivered("not connected to the broker")
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if expiry_s is not None:
            properties.MessageExpiryInterval = max(1, math.ceil(expiry_s))
        if response_topic is not None:
            properties.ResponseTopic = response_topic
        if correlation is not None:
            properties.CorrelationData = correlation
        try:
            async with asyncio.timeout(self._settings.timeout_s if timeout_s is None else timeout_s):
                reason = await client.confirmed_publish(topic, payload, qos, retain, properties)
        except TimeoutError:
            client.drop()
            raise LinkError("the broker did not confirm in time") from None
        except LinkError:
            client.drop()
            raise
        except asyncio.CancelledError:
            # Whoever gave up must not find the message sent later.
            client.drop()
            raise
        if reason is not None and reason.is_failure:
            raise BrokerRefused(f"the broker refused {topic}: {reason}")
        if reason is not None and reason.value == NO_SUBSCRIBER and not retain:
            raise NotDelivered(f"nobody listens on {topic}")

    async def _keep(self) -> None:
        attempt = 0
        while True:
            attempt += 1
            try:
                attempt = await self._live(attempt)
            except (MqttError, LinkError, OSError, ValueError) as error:
                logger.log(
                    logging.WARNING if attempt == 1 else logging.DEBUG,
                    "no connection to %s:%d: %s",
                    self._settings.host,
                    self._settings.port,
                    error,
                )
            await self._clock.sleep(self._backoff_s(attempt))

    async def _live(self, attempt: int) -> int:
        """Connect, and return 0 once that connection is gone."""
        tls = await asyncio.to_thread(self._settings.tls_context)
        will = Will(self._will.topic, self._will.payload, qos=1, retain=True) if self._will is not None else None
        client = _OneConnection(self._settings, tls, identifier=self._identifier, will=will)
        client.read_into(self._take)
        connecting = asyncio.create_task(client.__aenter__())
        try:
            # Connecting runs in a thread that cannot be stopped: it must end before the client is dropped.
            await asyncio.shield(connecting)
            self._client = client
            await self._subscribe(client)
            if self._greeting is not None:
                await self._greeting()
            self.connections += 1
            logger.info("connected to %s:%d", self._settings.host, self._settings.port)
            self._up.set()
            await asyncio.wait((client.lost,))
        finally:
            was_up = self._up.is_set()
            self._up.clear()
            self._client = None
            if not connecting.done():
                await asyncio.wait((connecting,))
            if not connecting.cancelled():
                connecting.exception()
            if was_up and self._lost is not None:
                self._lost()
            await client.end()
        if not self._closing:
            logger.warning("lost the connection to %s:%d", self._settings.host, self._settings.port)
        return 0

    async def _subscribe(self, client: _OneConnection) -> None:
        for topic, keep_retain_flag in self._subscriptions:
            options = SubscribeOptions(qos=1, retainAsPublished=keep_retain_flag)
            for granted in await client.subscribe(topic, options=options):
                if isinstance(granted, ReasonCode) and granted.is_failure:
                    raise LinkError(f"the broker refused the subscription to {topic}: {granted}")
