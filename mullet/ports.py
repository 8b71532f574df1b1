"""What mullet needs of the world, as small protocols, and every way in which the world may fail.

The error tree (vendor errors are translated once, at the driver's edge):

    MulletError
    ├── DeviceError                 one device, one failure: others go on
    │   ├── DeviceUnreachable       no answer: refused, black hole, reset, or past its deadline
    │   ├── DeviceRefused           it answered no
    │   │   └── NoPermission        it answered that we may not (a GPU limit without root)
    │   ├── DeviceGarbled           it answered something that is not its protocol
    │   ├── CredentialsRejected     wrong password, or a default one that the policy has not acknowledged
    │   ├── IdentityMismatch        another device answers at this address: writes to it are closed
    │   └── UnsafeWrite             our own guard: the write would lose what must not be lost (a pool list)
    ├── FeedError                   a price, limit, demand or hashprice feed gave nothing usable
    │   └── Quarantined             it gave a value outside what the policy believes
    ├── MeterError                  a meter or its gateway gave no reading
    ├── SwitchError                 a contactor did not follow
    ├── PlanningError               no plan in time, or none that passes the guard
    ├── JournalError                the record cannot be written: increases stop
    │   └── ChainBroken             the record was changed after it was written
    ├── LinkError                   an agent cannot be reached
    ├── HistorianError              measurements cannot be stored (never stops control)
    └── WriteRefused                the write gate is closed for this command: mode, hold or verb
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from mullet.domain.command import Command, Receipt
from mullet.domain.facility import Mode
from mullet.domain.load import Capability, Load, Steering
from mullet.domain.plan import Plan, PlanRequest
from mullet.domain.snapshot import Hold, HoldKind
from mullet.domain.telemetry import LoadState, MeterReading, Telemetry


class MulletError(Exception):
    """Root of the tree above."""


class DeviceError(MulletError):
    """One device failed; the message names the device and the reason."""


class DeviceUnreachable(DeviceError):
    """No answer within the deadline."""


class DeviceRefused(DeviceError):
    """The device answered no."""


class NoPermission(DeviceRefused):
    """The device answered that this process may not."""


class DeviceGarbled(DeviceError):
    """The answer is not the device's protocol."""


class CredentialsRejected(DeviceError):
    """The device does not accept our credentials."""


class IdentityMismatch(DeviceError):
    """Another device answers at this address."""


class UnsafeWrite(DeviceError):
    """Our own guard refused to write."""


class FeedError(MulletError):
    """A feed gave nothing usable."""


class Quarantined(FeedError):
    """A feed gave a value outside what the policy believes."""


class MeterError(MulletError):
    """A meter gave no reading."""


class SwitchError(MulletError):
    """A switch did not follow."""


class PlanningError(MulletError):
    """No plan in time, or none that passes the guard."""


class JournalError(MulletError):
    """The record cannot be written."""


class ChainBroken(JournalError):
    """The record was changed after it was written."""


class LinkError(MulletError):
    """An agent cannot be reached."""


class HistorianError(MulletError):
    """Measurements cannot be stored."""


class WriteRefused(MulletError):
    """The write gate is closed for this command."""


class Clock(Protocol):
    """Time, handed in. Nothing else may read a clock."""

    def now(self) -> float:
        """Return Unix seconds that never run backwards (wall time anchored to the monotonic clock)."""

    def monotonic(self) -> float:
        """Return seconds that only elapse; leases are measured with it."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""


@dataclass(frozen=True, slots=True)
class DriverContext:
    """What every driver, meter, switch and feed is built from: its options, how it reads secrets, its clock."""

    options: Mapping[str, Mapping[str, Any]]
    """Options by bank (drivers), by meter or switch id, or by feed id: one object serves all of its kind."""
    secret: Callable[[str], str | None]
    """Returns the text of a named credential, or None; never logged."""
    clock: Clock


@dataclass(frozen=True, slots=True)
class BankNotes:
    """What a driver says of a bank's options before anything is built; a class may offer `notes_for(options)`."""

    barred: str | None = None
    """Why nothing could be written to its loads."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who answers at an address."""

    identity: str | None
    """MAC, serial or UUID; None where the device tells none."""
    make: str
    model: str
    firmware: str


@runtime_checkable
class Driver(Protocol):
    """Speaks to the loads of all banks that name it. A class is found by the entry point group `mullet.drivers`
    and built with one `DriverContext`. Every call ends within its deadline; a hung device never delays another.

    `read`, `identify` and `apply` raise a `DeviceError` (a subclass that says why) and nothing else.
    `watch` never raises for one device: a device that cannot be read is reported as `Telemetry` with `fault` set
    and every reading None.
    """

    async def open(self, loads: Sequence[Load]) -> None:
        """Start what the driver needs (workers, libraries). Changes no device."""

    async def close(self) -> None:
        """End all that `open` started. Changes no device."""

    def capability(self, load: Load) -> Capability:
        """Return what this driver can really do with the load."""

    async def identify(self, load: Load, deadline_s: float) -> Identity:
        """Return who answers at the load's address. Never writes."""

    async def read(self, load: Load, deadline_s: float) -> Telemetry:
        """Return a fresh reading. Unknown fields are None."""

    def watch(self, loads: Sequence[Load], period_s: float) -> AsyncIterator[Telemetry]:
        """Yield readings of all `loads`, each about every `period_s`, until closed."""

    async def apply(self, load: Load, command: Command, deadline_s: float) -> Receipt:
        """Send one command and return what the device answered; that is no evidence."""

    async def restore_defaults(self, load: Load, deadline_s: float) -> Receipt:
        """Put back what was found at first contact. Only ever called by an operator's command."""


class Outcome(StrEnum):
    """What a search found at one address."""

    FOUND = "found"
    UNIDENTIFIED = "unidentified"
    """It answers as a device would, and cannot be said to be one; the sighting says why."""
    OTHER = "other"
    """It answers, and is nothing that could be driven."""
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Sighting:
    """What answered at one address. What was not learnt is None; watts are W, hashrates TH/s."""

    address: str
    outcome: Outcome
    reason: str = ""
    title: str = ""
    """What drives it, for people."""
    make: str = ""
    model: str = ""
    firmware: str = ""
    identity: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """What a bank's options must say so that the driver reaches it."""
    steering: Steering | None = None
    state: LoadState | None = None
    watts: float | None = None
    """As the device itself tells it, just now."""
    measures_watts: bool = False
    """Whether what it tells is measured; else its firmware estimates it."""
    limit_watts: float | None = None
    th_per_s: float | None = None
    nameplate_watts: float | None = None
    """What its maker's data sheet says of the model, an estimate."""
    nameplate_th_per_s: float | None = None
    default_password: bool | None = None
    """Whether it accepts its maker's default password; None where nothing that was read asks for one."""
    asks_password: bool = False
    """Whether writing needs a password."""


class Discoverer(Protocol):
    """Searches addresses for devices that a driver of this name can drive; entry point group `mullet.discoverers`.

    Built with one `DriverContext`, whose options are those of the search under the key "discover"; it publishes an
    `options_schema`, and raises ValueError for options that are not usable.
    """

    def search(self, addresses: Sequence[str]) -> AsyncIterator[Sighting]:
        """Yield one sighting for each address, in the order in which they come. Never writes to a device.

        Raises:
            DeviceError: the search itself could not go on.
        """


@runtime_checkable
class Barring(Protocol):
    """What a driver may offer besides: the loads that it reads and would refuse to write to, known beforehand."""

    def barred(self, load: Load) -> str | None:
        """Return why nothing is written to the load, None where something can be."""


@runtime_checkable
class Ailing(Protocol):
    """What a driver may offer besides: what is amiss with devices although they do as they are told."""

    def ailments(self) -> Mapping[str, str]:
        """Return what is amiss now, in words, by load; loads with which nothing is known to be are left out."""


@runtime_checkable
class Meter(Protocol):
    """A power meter on a circuit; entry point group `mullet.meters`, built with one `DriverContext`."""

    async def open(self) -> None:
        """Connect lazily; never raises because the meter is away."""

    async def close(self) -> None:
        """Close the connection."""

    async def read(self, meter_id: str, deadline_s: float) -> MeterReading:
        """Return a reading in W; NaN, negative or out of range comes back with quality BAD.

        Raises:
            MeterError: no answer in time.
        """


@runtime_checkable
class Switch(Protocol):
    """A contactor or PDU outlet above a circuit; entry point group `mullet.switches`."""

    async def open(self) -> None:
        """Connect lazily."""

    async def close(self) -> None:
        """Close the connection."""

    async def closed(self, switch_id: str, deadline_s: float) -> bool:
        """Return whether the contact is closed, from its auxiliary contact.

        Raises:
            SwitchError: no answer in time.
        """

    async def set_closed(self, switch_id: str, closed: bool, deadline_s: float) -> None:
        """Command the contact and return once its auxiliary contact agrees.

        Raises:
            SwitchError: no answer, or the contact did not follow within the deadline.
        """


class Feed(Protocol):
    """A source outside the plant; entry point group `mullet.feeds`, built with a `DriverContext`."""

    async def fetch(self, deadline_s: float) -> Any:
        """Return the feed's present value (its type depends on the kind of feed).

        Raises:
            FeedError: nothing usable came within the deadline.
        """

    async def close(self) -> None:
        """Close connections."""


class Planner(Protocol):
    """Makes plans outside the control process; never blocks its event loop."""

    async def plan(self, request: PlanRequest, limit_s: float) -> Plan:
        """Return a plan, unguarded.

        Raises:
            PlanningError: none within `limit_s` (the worker is then killed and rebuilt), or the model failed.
        """

    async def close(self) -> None:
        """End the worker."""


@dataclass(frozen=True, slots=True)
class JournalRow:
    """One line of the record."""

    seq: int
    at: float
    kind: str
    body: Mapping[str, Any]
    previous: str
    digest: str
    """sha256 over (seq, at, kind, body, previous)."""


class Journal(Protocol):
    """The decision record: append-only, hash-chained, on disk before `append` returns."""

    async def append(self, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> int:
        """Write (kind, body) rows durably in one transaction and return the last sequence number.

        Raises:
            JournalError: the rows are not on disk.
        """

    def rows(self, kinds: Sequence[str] | None = None, after: int = 0) -> list[JournalRow]:
        """Return the rows of the given kinds with a sequence number above `after`, in order."""

    async def close(self) -> None:
        """Close the file."""


class Historian(Protocol):
    """Keeps measurements. Loss of it never stops control."""

    async def record(self, at: float, series: Mapping[str, Mapping[str, float]]) -> None:
        """Store numeric fields per series key ("load/<id>", "circuit/<id>", "facility") at one instant."""

    async def close(self) -> None:
        """Flush what is buffered, within a bounded time."""


class Link(Protocol):
    """The way to the edge agents: commands there, receipts and telemetry back."""

    async def open(self) -> None:
        """Start connecting; never raises because the other side is away."""

    async def close(self) -> None:
        """End all tasks."""

    async def send(self, agent: str, command: Command, deadline_s: float) -> Receipt:
        """Send one command and return the agent's answer to it.

        Raises:
            LinkError: not delivered or not answered in time; the command is then dead and will never execute.
        """

    async def renew(self, agent: str, lease_s: float) -> None:
        """Send a heartbeat that renews the leases held by `agent`."""

    def telemetry(self, agent: str) -> AsyncIterator[Telemetry]:
        """Yield what the agent observes."""

    def alive(self, agent: str) -> bool:
        """Return whether the agent is known to be connected."""


class Operations(Protocol):
    """What an operator may ask of the running daemon; the HTTP API reaches the loop through it only."""

    def status(self) -> Mapping[str, Any]:
        """Return the state as plain data: mode, circuits, headroom, loads, plan, alarms, ages."""

    def loads(self) -> Sequence[Mapping[str, Any]]:
        """Return one row per load: state, draw, setpoint, cause, rule."""

    def learned(self) -> Mapping[str, Any]:
        """Return per bank of miners what was measured against its nameplate, and who is far from its group."""

    def recent(self) -> Sequence[Mapping[str, Any]]:
        """Return the latest decisions and outcomes in words, newest first: {"at", "kind", "text"}."""

    def why(self, target: str) -> Mapping[str, Any]:
        """Return the inputs, the binding limit and the rule behind the target's setpoint.

        Raises:
            KeyError: no such load or circuit; the message lists near matches.
        """

    async def hold(self, target: str, kind: HoldKind, owner: str, reason: str) -> Hold:
        """Lock a load or circuit. Raises KeyError for an unknown target."""

    async def release(self, hold_id: str, owner: str) -> None:
        """End a hold. Raises KeyError if unknown, PermissionError unless `owner` placed it."""

    async def set_mode(self, mode: Mode, owner: str) -> None:
        """Persist the operator's mode."""

    async def shed(self, watts: float, circuit: str | None, owner: str) -> Mapping[str, Any]:
        """Drop at least `watts` of mining at once, from the shed list; holds until released."""

    async def reload(self) -> Mapping[str, Any]:
        """Read the policy file again; returns the difference, or raises ValueError with every problem."""

    async def restore(self, target: str, owner: str) -> Mapping[str, Any]:
        """Put remembered defaults back on a load (GPU), through the write gate."""

    def events(self) -> AsyncIterator[Mapping[str, Any]]:
        """Yield live data, newest wins, for the page and the terminal."""
