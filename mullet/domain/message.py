"""What travels between the controller and an edge agent: JSON objects; orders and heartbeats signed if a key is set."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mullet.domain.codec import CodecError, canonical, decode, encode
from mullet.domain.command import Command, Receipt
from mullet.domain.telemetry import Telemetry

LONGEST_ORDER_BYTES = 16_384
"""No command or heartbeat is this long; anything longer is not parsed."""

SIGNATURE = "signature"


class MessageError(ValueError):
    """The bytes are not the message they should be."""


@dataclass(frozen=True, slots=True)
class CommandMessage:
    """A command as it arrived, not yet judged. `facility` and `load_id` are what its address said."""

    facility: str
    load_id: str
    payload: bytes
    retained: bool = False
    reply_to: str | None = None
    correlation: bytes | None = None


@dataclass(frozen=True, slots=True)
class HeartbeatMessage:
    """A heartbeat as it arrived, not yet judged."""

    facility: str
    payload: bytes
    retained: bool = False


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The controller lives: leases held by `agent` are good for another `lease_s`."""

    facility: str
    agent: str
    epoch: int
    issued_at: float
    lease_s: float


def read_object(payload: bytes) -> dict[str, Any]:
    """Return the JSON object in `payload`.

    Raises:
        MessageError: it is not one, holds NaN or infinity, or is absurdly long.
    """
    if len(payload) > LONGEST_ORDER_BYTES:
        raise MessageError(f"{len(payload)} bytes are too many")
    return _object(payload)


def _object(payload: bytes) -> dict[str, Any]:
    try:
        body = json.loads(payload, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"not JSON: {error}") from None
    if not isinstance(body, dict):
        raise MessageError(f"expected an object, found {type(body).__name__}")
    return body


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def signature_of(body: Mapping[str, Any], key: bytes) -> str:
    """Return the HMAC-SHA256 (hexadecimal) over the canonical text of `body` without its signature."""
    text = canonical({name: value for name, value in body.items() if name != SIGNATURE})
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def signature_holds(body: Mapping[str, Any], key: bytes) -> bool:
    """Return whether `body` carries the signature that `key` makes over it."""
    given = body.get(SIGNATURE)
    if not isinstance(given, str) or not given.isascii():
        return False
    try:
        return hmac.compare_digest(given, signature_of(body, key))
    except (CodecError, ValueError):
        return False


def _order(body: dict[str, Any], key: bytes | None) -> bytes:
    if key is not None:
        body[SIGNATURE] = signature_of(body, key)
    return canonical(body).encode()


def command_payload(facility: str, command: Command, key: bytes | None = None) -> bytes:
    """Return `command` as bytes; facility and load are inside, so a signed order fits one address only."""
    return _order({**encode(command), "facility": facility}, key)


def heartbeat_payload(heartbeat: Heartbeat, key: bytes | None = None) -> bytes:
    """Return `heartbeat` as bytes."""
    return _order(encode(heartbeat), key)


def receipt_payload(receipt: Receipt) -> bytes:
    """Return `receipt` as bytes."""
    return canonical(receipt).encode()


def read_receipt(payload: bytes) -> Receipt:
    """Return the receipt in `payload`.

    Raises:
        MessageError: it holds none.
    """
    try:
        receipt: Receipt = decode(Receipt, _object(payload))
    except CodecError as error:
        raise MessageError(str(error)) from None
    return receipt


def telemetry_payload(readings: Sequence[Telemetry], sent_at: float) -> bytes:
    """Return one bank's readings as bytes; `sent_at` is Unix seconds by the sender's clock.

    A reading that is not a finite number is sent as unknown: JSON has no word for it, and a single
    one must not cost the whole bank its telemetry. Makes are named once, beside the readings: a bank has few of them,
    and a controller that does not know of them reads the rest.
    """
    rows = []
    makes: dict[str, list[str]] = {}
    for reading in readings:
        row = encode(reading)
        make = row.pop("make")
        if make is not None:
            makes.setdefault(make, []).append(reading.load_id)
        rows.append({k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()})
    return canonical({"sent_at": sent_at, "readings": rows, "makes": makes}).encode()


def read_telemetry(payload: bytes, received_at: float) -> tuple[Telemetry, ...]:
    """Return the readings in `payload`, dated by the receiver's clock, never later than it shows.

    A sender whose clock runs ahead cannot make its readings look fresher than they are: each is dated by its own
    age when it was sent. One whose clock lags looks older than it is, which is the safe error.

    Raises:
        MessageError: it holds none.
    """
    body = _object(payload)
    try:
        sent_at: float = decode(float, body.get("sent_at"))
        readings: tuple[Telemetry, ...] = decode(tuple[Telemetry, ...], body.get("readings"))
        makes: Mapping[str, tuple[str, ...]] = decode(Mapping[str, tuple[str, ...]], body.get("makes", {}))
    except CodecError as error:
        raise MessageError(str(error)) from None
    make_of = {load_id: make for make, load_ids in makes.items() for load_id in load_ids}
    return tuple(
        replace(
            reading,
            at=min(reading.at, received_at - max(0.0, sent_at - reading.at)),
            make=make_of.get(reading.load_id),
        )
        for reading in readings
    )
