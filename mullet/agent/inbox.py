"""Which orders an edge agent takes: everything retained, stale, replayed, outdated, misaddressed or forged is out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mullet.domain.codec import CodecError, decode
from mullet.domain.command import Command, Verb
from mullet.domain.load import Load
from mullet.domain.message import (
    SIGNATURE,
    CommandMessage,
    Heartbeat,
    HeartbeatMessage,
    MessageError,
    read_object,
    signature_holds,
)


class Reason(StrEnum):
    """Why a message was not taken."""

    RETAINED = "retained"
    GARBLED = "garbled"
    FORGED = "forged"
    OTHER_FACILITY = "other_facility"
    OTHER_AGENT = "other_agent"
    UNKNOWN_LOAD = "unknown_load"
    UNKNOWN_VERB = "unknown_verb"
    STALE = "stale"
    AHEAD = "ahead"
    OLDER_EPOCH = "older_epoch"
    REPLAYED = "replayed"
    OUT_OF_RANGE = "out_of_range"


ANSWERED = frozenset({Reason.UNKNOWN_LOAD, Reason.UNKNOWN_VERB, Reason.STALE, Reason.AHEAD, Reason.OUT_OF_RANGE})
"""Refusals that are told to the sender. The rest are silent: a replay's first copy has its own answer to come,
and whoever forges, retains or misaddresses is not the controller."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A message that was not taken."""

    reason: Reason
    detail: str
    command_id: str | None = None


class _RejectedError(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Inbox:
    """Judges messages one at a time; instants are Unix seconds, handed in.

    Args:
        facility: id of the only facility obeyed.
        agent: id of this agent, for heartbeats.
        loads: this agent's loads by id.
        started_at: nothing issued before this instant is taken, so no restart makes an old order new.
        key: shared secret; with one, every order and heartbeat must be signed.
        policy_hash: policy that this agent was set up for; another one is only counted.
        max_age_s: how old, or how far ahead of this clock, an order may be.
    """

    def __init__(
        self,
        facility: str,
        agent: str,
        loads: Mapping[str, Load],
        *,
        started_at: float,
        key: bytes | None = None,
        policy_hash: str | None = None,
        max_age_s: float = 5.0,
    ) -> None:
        self._facility = facility
        self._agent = agent
        self._loads = loads
        self._started_at = started_at
        self._key = key
        self._policy_hash = policy_hash
        self._max_age_s = max_age_s
        self._epoch = 0
        self._taken: dict[str, tuple[int, int]] = {}
        self._beat: tuple[int, float] = (0, -math.inf)
        self.rejected: Counter[Reason] = Counter()
        self.accepted = 0
        self.other_policy = 0
        """Orders taken although they were made under another policy."""

    @property
    def epoch(self) -> int:
        """The newest epoch of the controller that was seen."""
        return self._epoch

    def judge(self, message: CommandMessage, now: float) -> Command | Rejection:
        """Return the command to execute, or why there is none; each command is returned at most once."""
        body: dict[str, Any] = {}
        try:
            body = self._open(message.payload, message.retained, message.facility)
            command = self._read(body, message.load_id)
            self._check_age(command.issued_at, now)
            if now > command.not_after:
                raise _RejectedError(Reason.STALE, f"{now - command.not_after:.1f} s past its not_after")
            self._check_epoch(command.epoch)
            if (command.epoch, command.seq) <= self._taken.get(command.load_id, (0, 0)):
                raise _RejectedError(Reason.REPLAYED, f"sequence number {command.seq} was here before")
            self._check_range(command)
        except _RejectedError as error:
            return self._reject(error, body)
        self._epoch = command.epoch
        self._taken[command.load_id] = (command.epoch, command.seq)
        self.accepted += 1
        if self._policy_hash is not None and command.policy_hash != self._policy_hash:
            self.other_policy += 1
        return command

    def judge_heartbeat(self, message: HeartbeatMessage, now: float) -> Heartbeat | Rejection:
        """Return the heartbeat that renews the leases, or why it does not."""
        body: dict[str, Any] = {}
        try:
            body = self._open(message.payload, message.retained, message.facility)
            try:
                beat: Heartbeat = decode(Heartbeat, {k: v for k, v in body.items() if k != SIGNATURE})
            except CodecError as error:
                raise _RejectedError(Reason.GARBLED, str(error)) from None
            if beat.agent != self._agent:
                raise _RejectedError(Reason.OTHER_AGENT, f"for agent {beat.agent!r}")
            if beat.lease_s <= 0.0:
                raise _RejectedError(Reason.OUT_OF_RANGE, f"a lease of {beat.lease_s} s")
            self._check_age(beat.issued_at, now)
            self._check_epoch(beat.epoch)
            if (beat.epoch, beat.issued_at) <= self._beat:
                raise _RejectedError(Reason.REPLAYED, "a newer heartbeat was here before")
        except _RejectedError as error:
            return self._reject(error, body)
        self._epoch = beat.epoch
        self._beat = (beat.epoch, beat.issued_at)
        return beat

    def _open(self, payload: bytes, retained: bool, facility: str) -> dict[str, Any]:
        if retained:
            raise _RejectedError(Reason.RETAINED, "orders are never retained")
        try:
            body = read_object(payload)
        except MessageError as error:
            raise _RejectedError(Reason.GARBLED, str(error)) from None
        if self._key is not None and not signature_holds(body, self._key):
            raise _RejectedError(Reason.FORGED, "no signature that holds")
        for named in (facility, body.get("facility")):
            if named != self._facility:
                raise _RejectedError(Reason.OTHER_FACILITY, f"for facility {named!r}")
        return body

    def _read(self, body: Mapping[str, Any], load_id: str) -> Command:
        if load_id not in self._loads or body.get("load_id") != load_id:
            raise _RejectedError(Reason.UNKNOWN_LOAD, f"no load {body.get('load_id')!r} at {load_id!r}")
        if body.get("verb") not in list(Verb):
            raise _RejectedError(Reason.UNKNOWN_VERB, f"{body.get('verb')!r} is no verb")
        try:
            command: Command = decode(Command, {k: v for k, v in body.items() if k not in (SIGNATURE, "facility")})
        except CodecError as error:
            raise _RejectedError(Reason.GARBLED, str(error)) from None
        return command

    def _check_age(self, issued_at: float, now: float) -> None:
        age_s = now - issued_at
        if age_s > self._max_age_s or issued_at < self._started_at:
            raise _RejectedError(Reason.STALE, f"{age_s:.1f} s old")
        if age_s < -self._max_age_s:
            raise _RejectedError(Reason.AHEAD, f"issued {-age_s:.1f} s ahead of this clock")

    def _check_epoch(self, epoch: int) -> None:
        if epoch < self._epoch:
            raise _RejectedError(Reason.OLDER_EPOCH, f"epoch {epoch}, but {self._epoch} has begun")

    def _check_range(self, command: Command) -> None:
        load = self._loads[command.load_id]
        most = max(load.worst_watts, load.highest.watts)
        if not load.min_watts <= command.watts <= most:
            raise _RejectedError(Reason.OUT_OF_RANGE, f"{command.watts:.0f} W, {load.id} takes at most {most:.0f} W")
        if command.lease_s <= 0.0:
            raise _RejectedError(Reason.OUT_OF_RANGE, f"a lease of {command.lease_s} s")

    def _reject(self, error: _RejectedError, body: Mapping[str, Any]) -> Rejection:
        self.rejected[error.reason] += 1
        command_id = body.get("id")
        return Rejection(error.reason, str(error), command_id if isinstance(command_id, str) else None)
