"""What operators have ordered and a restart must not forget: mode, holds and shed orders, in one small file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from mullet.domain.codec import CodecError, canonical, decode, encode
from mullet.domain.facility import Mode
from mullet.domain.feeds import Curtailment
from mullet.domain.snapshot import Hold, OperatorState
from mullet.ports import MulletError

T = TypeVar("T")

_VERSION = 1


class StateError(MulletError):
    """The operators' orders cannot be kept."""


class StateFile:
    """Reads and replaces the file as a whole: after any crash it holds the old orders or the new ones.

    A file that is damaged is never overwritten: it reads as mode observe, with every hold and shed order that can
    still be made out, and `save` refuses until an operator has looked and called `set_aside`.
    """

    def __init__(self, path: Path | str, first_mode: Mode = Mode.OBSERVE) -> None:
        self._path = Path(path)
        self._first_mode = first_mode
        self._problem: str | None = None

    @property
    def problem(self) -> str | None:
        """Why the file that was found is not believed; None if it is."""
        return self._problem

    def load(self) -> OperatorState:
        """Return the orders; without a file those of a first start. Where `problem` is set after this, an alarm is due.
        Never raises: a file that cannot be read or believed gives mode observe."""
        self._problem = None
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return OperatorState(self._first_mode)
        except OSError as error:
            self._problem = f"{self._path} cannot be read ({error.strerror}): mode observe, holds unknown"
            return OperatorState(Mode.OBSERVE)
        data: Any = None
        try:
            data = json.loads(content)
            return _believe(data)
        except (ValueError, RecursionError) as error:
            self._problem = (
                f"{self._path} is damaged ({error}): mode observe, with the holds that can still be read. "
                f"Check the holds, then set the file aside"
            )
        return _salvage(data)

    def save(self, state: OperatorState) -> None:
        """Put `state` on disk; durable when this returns.

        Raises:
            StateError: it is not on disk, and the old orders still are; or the file found was damaged.
        """
        if self._problem is not None:
            raise StateError(f"not saved: {self._problem}")
        body = encode(state)
        try:
            text = canonical({"version": _VERSION, "state": body, "sha256": _digest(body)})
        except ValueError as error:
            raise StateError(f"{self._path}: the orders cannot be written as JSON: {error}") from error
        scratch = self._path.with_name(self._path.name + ".new")
        try:
            with open(scratch, "w", encoding="ascii", opener=_private) as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, self._path)
            _sync_folder(self._path.parent)
        except OSError as error:
            raise StateError(f"{self._path}: {error.strerror or error}") from error

    def set_aside(self) -> Path:
        """Rename a damaged file, so that orders can be saved again, and return its new name.

        Raises:
            StateError: it cannot be renamed.
        """
        for number in range(1, 1_000):
            target = self._path.with_name(f"{self._path.name}.damaged-{number}")
            if not target.exists():
                break
        try:
            os.rename(self._path, target)
            _sync_folder(self._path.parent)
        except OSError as error:
            raise StateError(f"{self._path}: {error.strerror}") from error
        self._problem = None
        return target


def _believe(data: Any) -> OperatorState:
    if not isinstance(data, dict):
        raise ValueError("not an object")
    if data.get("version") != _VERSION:
        raise ValueError(f"version {data.get('version')!r} is not {_VERSION}")
    if data.get("sha256") != _digest(data.get("state")):
        raise ValueError("its checksum does not match")
    state: OperatorState = decode(OperatorState, data["state"])
    return state


def _salvage(data: Any) -> OperatorState:
    state = data.get("state") if isinstance(data, dict) else None
    if not isinstance(state, dict):
        return OperatorState(Mode.OBSERVE)
    return OperatorState(Mode.OBSERVE, _each(Hold, state.get("holds")), _each(Curtailment, state.get("orders")))


def _each(cls: type[T], items: Any) -> tuple[T, ...]:
    found: list[T] = []
    for item in items if isinstance(items, Sequence) and not isinstance(items, str) else ():
        try:
            found.append(decode(cls, item))
        except CodecError:
            continue
    return tuple(found)


def _digest(body: Any) -> str:
    return hashlib.sha256(canonical(body).encode()).hexdigest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
