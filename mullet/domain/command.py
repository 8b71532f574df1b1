"""What is asked of loads, what came of it, and the ledger that remembers both across a restart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from mullet.domain.feeds import Cause
from mullet.domain.units import SECONDS_PER_DAY


class Verb(StrEnum):
    """The only things that may ever be asked of a device."""

    POWER = "power"
    SLEEP = "sleep"
    WAKE = "wake"


class Evidence(StrEnum):
    """What an outcome rests on; an acknowledgement is none."""

    READBACK = "readback"
    CIRCUIT_METER = "circuit_meter"
    BOTH = "both"
    NONE = "none"


class OutcomeKind(StrEnum):
    """What became of a command."""

    APPLIED = "applied"
    CONVERGING = "converging"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Command:
    """One order to one load."""

    id: str
    seq: int
    epoch: int
    load_id: str
    verb: Verb
    point: str
    """Name of the operating point asked for ("" for a continuous limit between points)."""
    watts: float
    """Nominal watts asked for; for a device that enforces its limit, the limit."""
    most_before_watts: float
    most_after_watts: float
    """The most the load may draw before and, once verified, after."""
    cause: Cause
    plan_id: str
    policy_hash: str
    issued_at: float
    not_after: float
    lease_s: float

    @property
    def raises(self) -> bool:
        """Whether the command lets the load draw more than before."""
        return self.most_after_watts > self.most_before_watts


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a device answered to a command. It proves nothing."""

    command_id: str
    load_id: str
    at: float
    acked: bool | None
    """True: the device said yes; False: it said no; None: no answer."""
    detail: str = ""
    unreachable: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is claimed to have become of a command, and on what evidence."""

    command_id: str
    """"" where it credits a load as it was found, without any command."""
    load_id: str
    at: float
    kind: OutcomeKind
    watts: float | None
    """Draw as observed, None where the device does not tell."""
    most_watts: float | None
    """The most the load may draw from now on, as claimed; None where nothing is claimed."""
    evidence: Evidence
    acked: bool | None
    detail: str = ""
    point: str = ""
    """The operating point that is claimed, where one is."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """All that is known about what was asked of one load."""

    load_id: str
    command: Command | None = None
    """The latest command sent, None while nothing was ever asked."""
    receipt: Receipt | None = None
    pending: bool = False
    """The latest command has neither been verified nor failed."""
    converging: bool = False
    """The latest command was seen to take effect, but not yet wholly."""
    confirmed_point: str | None = None
    confirmed_watts: float | None = None
    """Most watts of the last verified setpoint; None while nothing was ever verified."""
    confirmed_at: float | None = None
    last_change_at: float | None = None
    """When the latest command was issued."""
    switched_at: float | None = None
    """When it was last told to sleep or to wake; None too where only `last_change_at` was kept."""
    restoring: bool = False
    """The latest command only put it back where it had been put before: no economic stop."""
    failures: int = 0
    """Consecutive failed commands."""
    blocked_until: float = 0.0
    """No command before this instant (back-off)."""
    cycles: tuple[float, ...] = ()
    """Instants of the economic stops within the last day."""

    @property
    def stands(self) -> str | None:
        """The point where it was verified to stand and where it still belongs; None while that is open."""
        command = self.command
        if self.pending or self.confirmed_point is None:
            return None
        if command is not None and (self.confirmed_at is None or self.confirmed_at < command.issued_at):
            return None
        return self.confirmed_point

    @property
    def turned_at(self) -> float | None:
        """When it was last put to sleep or woken, as far as is known: what minimum times run from."""
        return self.last_change_at if self.switched_at is None else self.switched_at


@dataclass(frozen=True, slots=True)
class CommandLedger:
    """What was asked of each load and what is known of it; a fold over the journal's rows."""

    entries: Mapping[str, LedgerEntry] = field(default_factory=dict)
    next_seq: int = 1
    epoch: int = 1

    def entry(self, load_id: str) -> LedgerEntry:
        """Return the entry of `load_id`, empty if nothing was ever asked of it."""
        return self.entries.get(load_id) or LedgerEntry(load_id)

    def after_commands(self, commands: tuple[Command, ...]) -> CommandLedger:
        """Return the ledger once `commands` were journalled, which is before they are sent."""
        if not commands:
            return self
        entries = dict(self.entries)
        for command in commands:
            before = entries.get(command.load_id) or LedgerEntry(command.load_id)
            cycles = tuple(t for t in before.cycles if t > command.issued_at - SECONDS_PER_DAY)
            restoring = command.point != "" and before.stands == command.point
            switches = command.verb is not Verb.POWER
            # Another point, or a GPU's lower cap, starts and stops nothing: only a stop wears.
            if command.cause is Cause.ECONOMIC and command.verb is Verb.SLEEP and not restoring:
                cycles = (*cycles, command.issued_at)
            entries[command.load_id] = replace(
                before,
                command=command,
                receipt=None,
                pending=True,
                converging=False,
                last_change_at=command.issued_at,
                switched_at=command.issued_at if switches else before.switched_at,
                restoring=restoring,
                cycles=cycles,
            )
        top = max(command.seq for command in commands)
        return replace(self, entries=entries, next_seq=max(self.next_seq, top + 1))

    def after_receipts(self, receipts: tuple[Receipt, ...]) -> CommandLedger:
        """Return the ledger once devices answered; answers to older commands are dropped."""
        entries = dict(self.entries)
        for receipt in receipts:
            entry = entries.get(receipt.load_id)
            if entry is not None and entry.command is not None and entry.command.id == receipt.command_id:
                entries[receipt.load_id] = replace(entry, receipt=receipt)
        return replace(self, entries=entries)

    def after_outcomes(
        self, outcomes: tuple[Outcome, ...], backoff_first_s: float, backoff_most_s: float
    ) -> CommandLedger:
        """Return the ledger once `outcomes` were journalled.

        A failure blocks the load for `backoff_first_s`, doubling with each further one up to
        `backoff_most_s`; a verified command clears the count.
        """
        if not outcomes:
            return self
        entries = dict(self.entries)
        for outcome in outcomes:
            entry = entries.get(outcome.load_id)
            if not outcome.command_id and outcome.kind is OutcomeKind.APPLIED:
                entries[outcome.load_id] = replace(
                    entry or LedgerEntry(outcome.load_id),
                    confirmed_point=outcome.point,
                    confirmed_watts=outcome.most_watts,
                    confirmed_at=outcome.at,
                )
                continue
            if entry is None or entry.command is None or entry.command.id != outcome.command_id:
                continue
            if outcome.kind is OutcomeKind.APPLIED:
                entries[outcome.load_id] = replace(
                    entry,
                    pending=False,
                    confirmed_point=entry.command.point,
                    confirmed_watts=outcome.most_watts,
                    confirmed_at=outcome.at,
                    failures=0,
                    blocked_until=0.0,
                )
            elif outcome.kind is OutcomeKind.CONVERGING:
                entries[outcome.load_id] = replace(entry, converging=True)
            elif outcome.kind in (OutcomeKind.REFUSED, OutcomeKind.UNREACHABLE):
                failures = entry.failures + 1
                wait_s = min(backoff_most_s, backoff_first_s * 2.0 ** (failures - 1))
                entries[outcome.load_id] = replace(
                    entry, pending=False, failures=failures, blocked_until=outcome.at + wait_s
                )
        return replace(self, entries=entries)
