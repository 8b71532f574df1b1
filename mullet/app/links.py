"""The way to the edge agents, through the policy's broker."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

from mullet.adapters.broker import BrokerSettings, broker_settings, required_secret
from mullet.adapters.mqtt import MqttLink
from mullet.adapters.secrets import Credentials
from mullet.policy import LoadedPolicy
from mullet.ports import Clock, Link


def broker_of_url(url: str) -> BrokerSettings:
    """Return the broker behind "mqtt://host:port" or "mqtts://host:port".

    Raises:
        ValueError: it is no such URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise ValueError(f"{url!r} is no broker; write it as mqtt://127.0.0.1:1883")
    tls = parts.scheme == "mqtts"
    return BrokerSettings(parts.hostname, parts.port or (8883 if tls else 1883), username=parts.username, tls=tls)


async def build_link(
    loaded: LoadedPolicy,
    credentials: Credentials,
    clock: Clock,
    epoch: Callable[[], int],
    stack: AsyncExitStack,
) -> Link | None:
    """Return the link to the agents, opened, or None where no load is held by one.

    Raises:
        ValueError: loads are held by agents, but there is no broker to reach them.
    """
    if not loaded.wiring.agents:
        return None
    spec = loaded.wiring.mqtt
    if spec is None:
        agents = ", ".join(sorted(loaded.wiring.agents))
        raise ValueError(f"loads are held by agents ({agents}), but the policy names no mqtt broker")
    broker = broker_settings(spec, credentials.lookup)
    key = None
    if spec.signing_key is not None:
        key = required_secret(spec.signing_key, credentials.lookup).encode()
    link = MqttLink(loaded.facility.id, broker, clock, epoch, key=key)
    await link.open()
    stack.push_async_callback(link.close)
    return link
