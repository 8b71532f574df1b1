"""What a policy may say about a bank of miners, checked when the driver is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from mullet.domain.load import Capability, Steering
from mullet.ports import BankNotes
from mullet_hardware.asic.capability import CLASSES, FIRMWARES, MONITOR, capability_of

OPTIONS: Mapping[str, tuple[type, object, str]] = MappingProxyType(
    {
        "class": (str, None, f"firmware class of the bank: {', '.join(CLASSES)}; found by probing where absent"),
        "rpc_port": (int, None, "TCP port of the miners' RPC; the firmware's where absent"),
        "web_port": (int, None, "TCP port of the miners' web interface (Braiins: gRPC); the firmware's where absent"),
        "username": (str, None, "user of the web interface; the vendor's where absent"),
        "credential": (str, None, "name of the credential that holds the password; the maker's default where absent"),
        "accept_default_password": (
            bool,
            False,
            "write with the maker's default password; without this and without a credential miners are only read",
        ),
        "estimated_watts": (
            bool,
            False,
            "the miners' watts are the firmware's estimate (LuxOS: power supplies that do not report), so that the "
            "circuit's meter has to agree before a stop is believed",
        ),
        "ramp_down_s": (float, None, "measured 95th percentile from command to lower draw; the class's where absent"),
        "ramp_up_s": (float, None, "measured 95th percentile from command to higher draw; the class's where absent"),
        "identity_cache": (str, None, "file in which identified miners are remembered"),
        "workers": (
            int,
            None,
            "worker processes; the largest value of all banks counts; by the size of the fleet where absent",
        ),
    }
)


DEFAULT_REFUSED = (
    "no credential is named, and its maker's default password is not accepted; name the password's `credential`, or "
    "say accept_default_password: true"
)
DEFAULT_ACCEPTED = (
    "is written to with its maker's default password, which everybody on its network knows; change it, and name its "
    "`credential`"
)


@dataclass(frozen=True, slots=True)
class BankOptions:
    """The options of one bank; the password is told apart by `secret_missing` where its credential is absent."""

    firmware_class: str | None = None
    rpc_port: int | None = None
    web_port: int | None = None
    username: str | None = None
    credential: str | None = None
    accept_default_password: bool = False
    estimated_watts: bool = False
    ramp_down_s: float | None = None
    ramp_up_s: float | None = None
    identity_cache: str | None = None
    workers: int | None = None

    @property
    def capability(self) -> Capability:
        """What can be done with miners of the class that these options name."""
        return self.capability_as(self.firmware_class)

    def capability_as(self, firmware_class: str | None) -> Capability:
        """Return what can be done with miners of a class that was found, with what these options say of the bank."""
        found = capability_of(firmware_class, self.ramp_down_s, self.ramp_up_s)
        return replace(found, measures_watts=False) if self.estimated_watts else found

    def notes(self) -> BankNotes:
        """Return what these options mean for writing; nothing of a bank whose firmware is not known or only watched."""
        firmware = FIRMWARES.get(self.firmware_class or MONITOR)
        if firmware is None or firmware.capability.steering is Steering.MONITOR:
            return BankNotes()
        if self.credential is not None or firmware.password is None:
            return BankNotes()
        if self.accept_default_password:
            return BankNotes(warnings=(DEFAULT_ACCEPTED,))
        return BankNotes(barred=DEFAULT_REFUSED)

    def access(self, secret: Callable[[str], str | None]) -> dict[str, Any]:
        """Return what a worker needs to reach the bank, the password included: it goes over the socket pair only."""
        password = secret(self.credential) if self.credential is not None else None
        barred = None
        if self.credential is not None and password is None:
            barred = f"credential {self.credential!r} is not provided"
        return {
            "class": self.firmware_class,
            "rpc_port": self.rpc_port,
            "web_port": self.web_port,
            "username": self.username,
            "password": password,
            "barred": barred,
            "accept_default_password": self.accept_default_password,
        }


def parse_options(bank: str, given: Mapping[str, Any]) -> BankOptions:
    """Return the options of `bank`.

    Raises:
        ValueError: an unknown option, one of another type, or a value out of range.
    """
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in OPTIONS:
            raise ValueError(f"bank {bank}: the asic driver has no option {name!r}; it has {', '.join(OPTIONS)}")
        kind, _, _ = OPTIONS[name]
        if value is None:
            continue
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ValueError(f"bank {bank}: option {name!r} is to be of type {kind.__name__}, not {value!r}")
        values["firmware_class" if name == "class" else name] = value
    options = BankOptions(**values)
    if options.firmware_class is not None and options.firmware_class not in CLASSES:
        raise ValueError(f"bank {bank}: no class {options.firmware_class!r}; there are {', '.join(CLASSES)}")
    for name in ("rpc_port", "web_port"):
        port = getattr(options, name)
        if port is not None and not 0 < port < 65536:
            raise ValueError(f"bank {bank}: option {name!r} is no TCP port")
    for name in ("ramp_down_s", "ramp_up_s"):
        ramp_s = getattr(options, name)
        if ramp_s is not None and not 0.0 < ramp_s < 3600.0:
            raise ValueError(f"bank {bank}: option {name!r} is no ramp time in seconds")
    if options.workers is not None and not 1 <= options.workers <= 64:
        raise ValueError(f"bank {bank}: option 'workers' is to be from 1 to 64")
    return options
