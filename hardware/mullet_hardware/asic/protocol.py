"""What the driver and its worker processes say to each other: JSON frames with a length in front.

From the driver: `open` (banks, known miners), `call` (id, op, target, deadline_s, order), `cancel` (id),
`watch` (id, targets, period_s), `unwatch` (id). From the worker: `ready`, `beat`, `result` (id, value),
`error` (id, kind, message), `readings` (id, rows), `health` (row), `found` (address, entry), `log` (level, name,
message).
"""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import dataclass, replace
from typing import Any

from mullet.domain.load import Load
from mullet.domain.telemetry import LoadState, Telemetry
from mullet.ports import (
    CredentialsRejected,
    DeviceError,
    DeviceGarbled,
    DeviceRefused,
    DeviceUnreachable,
    IdentityMismatch,
    NoPermission,
    UnsafeWrite,
)

LENGTH = struct.Struct(">I")
MOST_FRAME_BYTES = 1 << 26
BEAT_S = 1.0
ERROR_KINDS: tuple[type[DeviceError], ...] = (
    DeviceUnreachable,
    NoPermission,
    DeviceRefused,
    DeviceGarbled,
    CredentialsRejected,
    IdentityMismatch,
    UnsafeWrite,
)

Frame = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """What a worker must know of a load to reach it."""

    load_id: str
    bank: str
    address: str
    identity: str | None
    full_watts: float

    @classmethod
    def of(cls, load: Load) -> Target:
        """Return the target of `load`."""
        return cls(load.id, load.bank, load.address, load.identity, load.highest.watts)

    def pack(self) -> list[Any]:
        """Return the target as JSON data."""
        return [self.load_id, self.bank, self.address, self.identity, self.full_watts]

    @classmethod
    def unpack(cls, row: list[Any]) -> Target:
        """Return the target that `pack` made."""
        return cls(*row)


@dataclass(frozen=True, slots=True)
class Reading:
    """One answer of a miner, unknowns left unknown."""

    watts: float | None = None
    limit_watts: float | None = None
    state: LoadState | None = None
    th_per_s: float | None = None
    celsius: float | None = None
    identity: str | None = None

    def pack(self, load_id: str, answered: float) -> list[Any]:
        """Return the reading as a row; `answered` is when the miner answered, in seconds of the monotonic clock."""
        state = None if self.state is None else self.state.value
        powers = [self.watts, self.limit_watts]
        return [load_id, answered, *powers, state, self.th_per_s, self.celsius, self.identity, None]


@dataclass(frozen=True, slots=True)
class Health:
    """What is asked of a miner every few minutes only; None is unknown."""

    boards: int | None = None
    """Hash boards at work; 0 while the miner rests."""
    celsius: float | None = None
    """Of the hottest chip, or of the hottest board where chips are not told."""
    fan_rpm: float | None = None
    """Of the slowest fan."""
    errors: tuple[str, ...] | None = None
    """What the miner reports as wrong now: codes, or words where it has no codes."""
    boards_fitted: int | None = None
    """Hash boards that the miner has found, at work or not."""

    def pack(self, load_id: str) -> list[Any]:
        """Return the health as a row."""
        errors = None if self.errors is None else list(self.errors)
        return [load_id, self.boards, self.celsius, self.fan_rpm, errors, self.boards_fitted]

    @classmethod
    def unpack(cls, row: list[Any]) -> tuple[str, Health]:
        """Return the load and the health that `pack` made."""
        load_id, boards, celsius, fan_rpm, errors, boards_fitted = row
        return load_id, cls(boards, celsius, fan_rpm, None if errors is None else tuple(errors), boards_fitted)

    def after(self, before: Health | None) -> Health:
        """Return what the next look is compared with: what a miner at rest cannot tell is as it was before."""
        if before is None:
            return self
        errors = before.errors if self.errors is None else self.errors
        return replace(self if self.boards else before, errors=errors)

    def worse_than(self, before: Health | None) -> list[str]:
        """Return in words what has become worse; of a miner seen for the first time, what is wrong with it.

        A miner at rest has no board at work: that is no fault of its boards and fans.
        """
        said = []
        known = set() if before is None or before.errors is None else set(before.errors)
        new = [code for code in self.errors or () if code not in known]
        if new:
            said.append(f"reports error {', '.join(new)}")
        had = None if before is None else before.boards
        if self.boards and had and self.boards < had:
            said.append(f"{self.boards} of {had} boards are left")
        elif self.boards and not had and self.boards < (self.boards_fitted or 0):
            said.append(f"{self.boards} of {self.boards_fitted} boards work")
        if self.fan_rpm == 0.0 and self.boards and before is not None and before.fan_rpm:
            said.append("a fan stands still")
        return said


def ailment_of(health: Health, most_boards: int) -> str | None:
    """Return in words what is amiss with a miner, None where nothing is known to be.

    `most_boards` have been at work at once before; a miner that rests is judged by what it told awake.
    """
    said = []
    fitted = max(most_boards, health.boards_fitted or 0)
    if health.boards and health.boards < fitted:
        said.append(f"{health.boards} of {fitted} boards work")
    if health.boards and health.fan_rpm == 0.0:
        said.append("a fan stands still")
    if health.errors:
        said.append(f"reports error {', '.join(health.errors)}")
    return "; ".join(said) or None


def fault_row(load_id: str, answered: float, fault: str) -> list[Any]:
    """Return the row of a miner that could not be read."""
    return [load_id, answered, None, None, None, None, None, None, fault]


def telemetry_of(row: list[Any], at: float, make: str | None = None) -> Telemetry:
    """Return the telemetry that a row holds, stamped with `at`; the driver knows its `make`, no row carries it."""
    load_id, _, watts, limit_watts, state, th_per_s, celsius, identity, fault = row
    return Telemetry(
        load_id=load_id,
        at=at,
        watts=watts,
        limit_watts=limit_watts,
        state=None if state is None else LoadState(state),
        th_per_s=th_per_s,
        celsius=celsius,
        identity=identity,
        fault=fault,
        make=make if fault is None else None,
    )


def kind_of(error: DeviceError) -> str:
    """Return the name under which an error crosses the pipe: its nearest class of the error tree."""
    for kind in ERROR_KINDS:
        if isinstance(error, kind):
            return kind.__name__
    return DeviceGarbled.__name__


def error_of(kind: str, message: str) -> DeviceError:
    """Return the error that crossed the pipe."""
    for candidate in ERROR_KINDS:
        if candidate.__name__ == kind:
            return candidate(message)
    return DeviceGarbled(f"{kind}: {message}")


def encode(frame: Frame) -> bytes:
    """Return the bytes of a frame."""
    body = json.dumps(frame, separators=(",", ":")).encode()
    return LENGTH.pack(len(body)) + body


async def receive(reader: asyncio.StreamReader) -> Frame | None:
    """Return the next frame, or None at the end of the stream.

    Raises:
        ValueError: the stream holds something that is no frame.
    """
    try:
        (size,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        if size > MOST_FRAME_BYTES:
            raise ValueError(f"a frame of {size} bytes")
        frame = json.loads(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    if not isinstance(frame, dict):
        raise ValueError("a frame that is no object")
    return frame
