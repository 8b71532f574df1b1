"""The way to the edge agents, from the policy's broker or the one given on the command line."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

from mullet.adapters.mqtt import MqttLink
from mullet.adapters.mqtt_session import BrokerSettings
from mullet.adapters.secrets import Credentials
from mullet.policy import LoadedPolicy, MqttSpec
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


def broker_of_spec(spec: MqttSpec, credentials: Credentials) -> BrokerSettings:
    """Return the policy's broker with its secrets looked up."""

    def secret(name: str | None) -> str | None:
        return credentials.lookup(name) if name is not None else None

    return BrokerSettings(
        host=spec.host,
        port=spec.port,
        username=spec.username,
        password=secret(spec.password),
        tls=spec.tls,
        ca_pem=secret(spec.ca),
        cert_pem=secret(spec.cert),
        key_pem=secret(spec.key),
    )


async def build_link(
    loaded: LoadedPolicy,
    credentials: Credentials,
    clock: Clock,
    epoch: Callable[[], int],
    broker_url: str | None,
    stack: AsyncExitStack,
) -> Link | None:
    """Return the link to the agents, opened, or None where no load is held by one.

    Raises:
        ValueError: loads are held by agents, but there is no broker to reach them.
    """
    if not loaded.wiring.agents:
        return None
    spec = loaded.wiring.mqtt
    if broker_url is not None:
        broker = broker_of_url(broker_url)
    elif spec is not None:
        broker = broker_of_spec(spec, credentials)
    else:
        agents = ", ".join(sorted(loaded.wiring.agents))
        raise ValueError(f"loads are held by agents ({agents}), but the policy names no mqtt broker")
    secret = credentials.lookup(spec.signing_key) if spec is not None and spec.signing_key is not None else None
    link = MqttLink(loaded.facility.id, broker, clock, epoch, key=secret.encode() if secret else None)
    await link.open()
    stack.push_async_callback(link.close)
    return link
