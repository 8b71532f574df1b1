"""The edge agent's file: who it is, its broker, its banks and their fail-safe points. Every error has its line."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from mullet.domain.load import Capability, Load, LoadKind, OperatingPoint, Steering
from mullet.domain.units import Dimension, parse_quantity

UNKNOWN = Capability(Steering.MONITOR, measures_watts=False, enforces_limit=False, ramp_down_s=0.0, ramp_up_s=0.0)
"""What a load can do until its driver has said so."""

MOST_ADDRESSES = 65_536


class AgentConfigError(ValueError):
    """The file was refused; `problems` holds every reason as "file:line: field: what is wrong"."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True)
class AgentBroker:
    """The broker. Fields other than host, port, tls and username are names of credentials."""

    host: str
    port: int
    tls: bool
    username: str | None = None
    password: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    signing_key: str | None = None


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """What an agent file says."""

    agent_id: str
    facility_id: str
    lease_s: float
    telemetry_period_s: float
    command_deadline_s: float
    policy_hash: str | None
    broker: AgentBroker
    loads: tuple[Load, ...]
    options: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """Per driver name: options by bank."""


def _quantity(dimension: Dimension) -> BeforeValidator:
    def parse(value: Any) -> float:
        if not isinstance(value, str):
            raise ValueError(f"must be a {dimension.value} with a unit")
        number = parse_quantity(value, dimension)
        if number < 0.0:
            raise ValueError(f"{value} is below 0")
        return number

    return BeforeValidator(parse)


Watts = Annotated[float, _quantity(Dimension.POWER)]
Seconds = Annotated[float, _quantity(Dimension.TIME), Field(gt=0.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Mqtt(_Section):
    url: str = Field(pattern=r"^mqtts?://[^/\s@]+$")
    username: str | None = None
    password: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    signing_key: str | None = None
    allow_plaintext: bool = False

    @model_validator(mode="after")
    def _check(self) -> _Mqtt:
        parts = urlsplit(self.url)
        if not parts.hostname:
            raise ValueError("url names no host")
        if parts.port == 0:
            raise ValueError("port 0 is none")
        if parts.scheme == "mqtt" and not self.allow_plaintext and not _loopback(parts.hostname):
            raise ValueError("mqtt:// beyond this machine is readable by all; use mqtts://, or allow_plaintext: true")
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key come together")
        return self

    def broker(self) -> AgentBroker:
        parts = urlsplit(self.url)
        tls = parts.scheme == "mqtts"
        names = (self.username, self.password, self.ca, self.cert, self.key, self.signing_key)
        return AgentBroker(parts.hostname or "", parts.port or (8883 if tls else 1883), tls, *names)


class _Point(_Section):
    name: Name
    power: Watts


class _Address(_Section):
    address: str = Field(min_length=1)
    identity: str | None = None


def _addresses(value: Any) -> Any:
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list):
        raise ValueError("must be a list of addresses, or a range such as '10.0.1.1-48'")
    found: list[Any] = []
    for entry in entries:
        if isinstance(entry, str) and re.fullmatch(r"\d+(\.\d+){3}-\d+", entry):
            found.extend({"address": text} for text in _expand(entry))
        elif isinstance(entry, str | int) and not isinstance(entry, bool):
            found.append({"address": str(entry)})
        else:
            found.append(entry)
    return found


def _expand(text: str) -> list[str]:
    first_text, _, last_octet = text.partition("-")
    first = ipaddress.IPv4Address(first_text)
    last = ipaddress.IPv4Address(f"{first_text.rpartition('.')[0]}.{last_octet}")
    if last < first:
        raise ValueError(f"{text!r} runs backwards")
    return [str(ipaddress.IPv4Address(number)) for number in range(int(first), int(last) + 1)]


class _Bank(_Section):
    id: Name
    kind: Literal["miner", "gpu"]
    driver: Name
    options: dict[str, Any] = Field(default_factory=dict)
    addresses: Annotated[list[_Address], BeforeValidator(_addresses)] = Field(min_length=1, max_length=MOST_ADDRESSES)
    points: list[_Point] = Field(min_length=1)
    fail_safe: str
    worst: Watts
    tolerance: Annotated[float, _quantity(Dimension.FRACTION)] = 0.05

    @model_validator(mode="after")
    def _check(self) -> _Bank:
        names = [point.name for point in self.points]
        watts = [point.power for point in self.points]
        if len(set(names)) != len(names):
            raise ValueError("two points have the same name")
        if sorted(watts) != watts:
            raise ValueError("points must rise in power")
        if self.fail_safe not in names:
            raise ValueError(f"fail_safe {self.fail_safe!r} is none of the points {', '.join(names)}")
        if self.worst < watts[-1]:
            raise ValueError("worst is below the highest point")
        addresses = [item.address for item in self.addresses]
        if len(set(addresses)) != len(addresses):
            raise ValueError("an address is given twice")
        return self

    def loads(self) -> list[Load]:
        return [
            Load(
                id=f"{self.id}-{number:03d}",
                kind=LoadKind(self.kind),
                bank=self.id,
                driver=self.driver,
                address=item.address,
                # Circuits and accounts are the controller's business.
                circuit="",
                account="",
                points=tuple(OperatingPoint(point.name, point.power) for point in self.points),
                fail_safe=self.fail_safe,
                worst_watts=self.worst,
                tolerance=self.tolerance,
                capability=UNKNOWN,
                identity=item.identity,
            )
            for number, item in enumerate(self.addresses, start=1)
        ]


class _File(_Section):
    agent: Name
    facility: Name
    lease: Seconds = 60.0
    poll: Seconds = 1.0
    command_deadline: Seconds = 5.0
    policy_hash: str | None = None
    mqtt: _Mqtt
    banks: list[_Bank] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> _File:
        ids = [bank.id for bank in self.banks]
        if len(set(ids)) != len(ids):
            raise ValueError("two banks have the same id")
        return self


def read_agent_config(path: Path) -> AgentConfig:
    """Return what the file says.

    Raises:
        OSError: it cannot be read.
        AgentConfigError: it is not a valid agent file.
    """
    return parse_agent_config(path.read_text(encoding="utf-8"), str(path))


def parse_agent_config(text: str, name: str) -> AgentConfig:
    """Return what `text` says; `name` is the file's name in errors.

    Raises:
        AgentConfigError: it is not a valid agent file.
    """
    try:
        data = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise AgentConfigError([f"{name}:{line}: not YAML: {error.problem}"]) from None
    except (YAMLError, RecursionError) as error:
        raise AgentConfigError([f"{name}:1: not YAML: {error}"]) from None
    if not isinstance(data, CommentedMap):
        raise AgentConfigError([f"{name}:1: the file is not a mapping of sections"])
    try:
        file = _File.model_validate(_plain(data))
    except ValidationError as error:
        problems = [(_line(data, one["loc"]), _field(one["loc"]), _message(one["msg"])) for one in error.errors()]
        raise AgentConfigError([f"{name}:{line}: {field}{what}" for line, field, what in sorted(problems)]) from None
    options: dict[str, dict[str, Mapping[str, Any]]] = {}
    for bank in file.banks:
        options.setdefault(bank.driver, {})[bank.id] = bank.options
    return AgentConfig(
        agent_id=file.agent,
        facility_id=file.facility,
        lease_s=file.lease,
        telemetry_period_s=file.poll,
        command_deadline_s=file.command_deadline,
        policy_hash=file.policy_hash,
        broker=file.mqtt.broker(),
        loads=tuple(load for bank in file.banks for load in bank.loads()),
        options=options,
    )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _plain(node: Any) -> Any:
    if isinstance(node, CommentedMap):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        return [_plain(value) for value in node]
    if isinstance(node, bool):
        return node
    if isinstance(node, int | float | str):
        return next(plain(node) for plain in (int, float, str) if isinstance(node, plain))
    return node


def _line(data: CommentedMap, location: Sequence[str | int]) -> int:
    """Return the 1-based line of the field, or of the nearest thing above it that the file holds."""
    node: Any = data
    line = 1
    for part in location:
        if isinstance(node, CommentedMap) and part in node:
            line = node.lc.key(part)[0] + 1
        elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
            line = node.lc.item(part)[0] + 1
        else:
            break
        node = node[part]
    return int(line)


def _field(location: Sequence[str | int]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return f"{text}: " if text else ""


def _message(text: str) -> str:
    return text.removeprefix("Value error, ")
