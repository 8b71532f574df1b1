"""Where an MQTT broker is and who we are to it, with every credential looked up by its name."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where the broker is and who we are to it.

    `keepalive_s` of 4 s lets a broker that hangs be noticed within 9 s: paho waits once before it asks and once
    for the answer.
    """

    host: str
    port: int = 1883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca_pem: str | None = None
    """Certificates to trust instead of the system's."""
    cert_pem: str | None = None
    key_pem: str | None = field(default=None, repr=False)
    keepalive_s: int = 4
    timeout_s: float = 4.0
    """For connecting, subscribing and disconnecting."""

    def tls_context(self) -> ssl.SSLContext | None:
        """Return the TLS 1.2+ context, or None without TLS.

        Raises:
            ssl.SSLError: a certificate or key is none.
        """
        if not self.tls:
            return None
        context = ssl.create_default_context(cadata=self.ca_pem)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert_pem is not None:
            # OpenSSL reads certificates from files only; this one lives in memory alone.
            with os.fdopen(os.memfd_create("client certificate"), "w") as chain:
                chain.write(f"{self.cert_pem}\n{self.key_pem or ''}\n")
                chain.flush()
                context.load_cert_chain(f"/proc/self/fd/{chain.fileno()}")
        return context


class BrokerNames(Protocol):
    """A broker as a policy or agent file names it: secrets by the name of their credential."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def tls(self) -> bool: ...
    @property
    def username(self) -> str | None: ...
    @property
    def password(self) -> str | None: ...
    @property
    def ca(self) -> str | None: ...
    @property
    def cert(self) -> str | None: ...
    @property
    def key(self) -> str | None: ...


def broker_settings(names: BrokerNames, secret: Callable[[str], str | None]) -> BrokerSettings:
    """Return the settings with every credential looked up.

    Raises:
        ValueError: there is no credential of a name that is given.
    """

    def look_up(name: str | None) -> str | None:
        return None if name is None else required_secret(name, secret)

    return BrokerSettings(
        host=names.host,
        port=names.port,
        username=names.username,
        password=look_up(names.password),
        tls=names.tls,
        ca_pem=look_up(names.ca),
        cert_pem=look_up(names.cert),
        key_pem=look_up(names.key),
    )


def required_secret(name: str, secret: Callable[[str], str | None]) -> str:
    """Return the text of a credential.

    Raises:
        ValueError: there is none of that name, or it is empty.
    """
    text = secret(name)
    if not text:
        raise ValueError(f"there is no credential {name!r}")
    return text
