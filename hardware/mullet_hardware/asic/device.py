"""What every kind of miner shares in the worker: access, the pinned identity, deadlines, careful reading of fields."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from mullet.domain.command import Verb
from mullet.ports import (
    CredentialsRejected,
    DeviceError,
    DeviceGarbled,
    DeviceRefused,
    DeviceUnreachable,
    IdentityMismatch,
)
from mullet_hardware.asic.protocol import Reading

IDENTITY_TRUSTED_S = 60.0
UNSETTLED_S = 90.0
MOST_WATTS = 100_000.0
MOST_TH_PER_S = 100_000.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a miner; `barred` says why nothing may be written to it.

    Ports and credentials are the firmware's own where the policy names none; 0 and "" where it has none.
    """

    host: str
    rpc_port: int
    web_port: int
    username: str
    password: str
    barred: str | None


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of a miner: a verb, for POWER also the watts, and the name of the point where it has one."""

    verb: Verb
    watts: float
    point: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a miner answered to an order; it proves nothing."""

    acked: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Found:
    """Who answered a probe."""

    firmware_class: str
    identities: tuple[str, ...]
    make: str
    model: str
    firmware: str


class Device(Protocol):
    """One miner. Nothing here keeps a deadline: whoever calls does."""

    pin: IdentityPin

    async def identify(self) -> Found:
        """Return who answers; never writes."""

    async def read(self) -> Reading:
        """Return everything that can be read afresh."""

    async def poll(self) -> Reading:
        """Return a reading with as few requests as the present state allows."""

    async def apply(self, order: Order) -> Answer:
        """Send one order and return what was answered."""


class IdentityPin:
    """The identity that a miner must answer with, and what it last answered."""

    def __init__(self, pinned: str | None, host: str, now: Callable[[], float]) -> None:
        self.pinned = pinned
        self._host = host
        self._now = now
        self._seen: frozenset[str] = frozenset()
        self._seen_at = -math.inf

    async def ensure(self, ask: Callable[[], Awaitable[tuple[str, ...]]]) -> None:
        """Check who answers, unless that was done within the last minute.

        Raises:
            IdentityMismatch: another device answers.
            DeviceError: it could not be asked.
        """
        if self.pinned is None:
            return
        if not self._seen or self._now() - self._seen_at > IDENTITY_TRUSTED_S:
            self.saw(await ask())
        self.check()

    def saw(self, identities: tuple[str, ...]) -> None:
        """Remember who answered."""
        self._seen = frozenset(normalise(identity) for identity in identities)
        self._seen_at = self._now()

    def saw_one(self, identity: str) -> None:
        """Remember one identity that came with a reading: one that was not seen before is asked about at once."""
        one = normalise(identity)
        if one in self._seen:
            self._seen_at = self._now()
        elif self._seen:
            self._seen = frozenset((one,))
            self._seen_at = -math.inf

    def check(self) -> None:
        """Raise IdentityMismatch if another device is known to answer."""
        if self.pinned is not None and self._seen and normalise(self.pinned) not in self._seen:
            raise IdentityMismatch(f"{self._host}: another device answers than {self.pinned}")


def normalise(identity: str) -> str:
    """Return a MAC or serial without separators, in upper case."""
    return re.sub(r"[^0-9A-Za-z]", "", identity).upper()


async def within(deadline_s: float, who: str, call: Awaitable[T]) -> T:
    """Return what `call` returns, every failure translated to the error tree.

    Raises:
        DeviceUnreachable: nothing came within `deadline_s`.
        DeviceError: what else went wrong.
    """
    limit = asyncio.timeout(deadline_s)
    try:
        async with limit:
            return await call
    except DeviceError:
        if limit.expired():
            raise DeviceUnreachable(f"{who} did not answer within {deadline_s:.1f} s") from None
        raise
    except TimeoutError:
        raise DeviceUnreachable(f"{who} did not answer within {deadline_s:.1f} s") from None
    # The edge to a library that raises anything: the type is told, never the text, which may hold secrets.
    except Exception as error:  # noqa: BLE001
        if limit.expired():
            raise DeviceUnreachable(f"{who} did not answer within {deadline_s:.1f} s") from None
        if isinstance(error, OSError):
            raise DeviceUnreachable(f"{who}: {type(error).__name__}") from None
        raise DeviceGarbled(f"{who} answered something unexpected ({type(error).__name__})") from None


def require_write_access(access: Access) -> None:
    """Raise CredentialsRejected where the policy provides no password to write with."""
    if access.barred is not None:
        raise CredentialsRejected(f"{access.host}: {access.barred}")


def first_of(answer: Mapping[str, Any], section: str, who: str) -> dict[str, Any]:
    """Return the first entry of a cgminer section.

    Raises:
        DeviceRefused: the device answered with an error.
        DeviceGarbled: there is no such section.
    """
    refuse_error(answer, who)
    entries = answer.get(section)
    if not isinstance(entries, list) or not entries or not isinstance(entries[0], dict):
        raise DeviceGarbled(f"{who} answered without {section}")
    return entries[0]


def refuse_error(answer: Mapping[str, Any], who: str) -> None:
    """Raise DeviceRefused if the answer says that it is an error."""
    status = answer.get("STATUS")
    if isinstance(status, list) and status:
        status = status[0]
    said = status.get("STATUS") if isinstance(status, dict) else status
    if said in ("E", "F"):
        message = status.get("Msg") if isinstance(status, dict) else answer.get("Msg")
        raise DeviceRefused(f"{who} refused: {short(message)}")


def message_of(answer: Mapping[str, Any], who: str) -> dict[str, Any]:
    """Return the `Msg` object of a Whatsminer's answer.

    Raises:
        DeviceRefused: the device answered with an error.
        DeviceGarbled: there is no such object.
    """
    refuse_error(answer, who)
    message = answer.get("Msg")
    if not isinstance(message, dict):
        raise DeviceGarbled(f"{who} answered without a message")
    return message


def number(fields: Mapping[str, Any], name: str, scale: float, most: float, who: str) -> float | None:
    """Return a field times `scale`, None where it is absent.

    Raises:
        DeviceGarbled: it is no number between 0 and `most`.
    """
    value = fields.get(name)
    if value is None or value == "":
        return None
    try:
        found = float(value) * scale if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not 0.0 <= found <= most:
        raise DeviceGarbled(f"{who} answered {short(value)} for {name}")
    return found


def celsius_of(fields: Mapping[str, Any], name: str) -> float | None:
    """Return a temperature, None where it is absent or none that a running board can have."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -60.0 < value < 200.0:
        return None
    return float(value)


def text_of(fields: Mapping[str, Any], name: str) -> str:
    """Return a field's text, empty where it is absent."""
    value = fields.get(name)
    return value.strip() if isinstance(value, str) else ""


def short(value: object) -> str:
    """Return a value as text that fits a message."""
    return str(value)[:80]
