"""Ways in which a simulated miner fails or lies, and what each does to an answer on the wire."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Fault(StrEnum):
    """One way to fail; `ok` is none."""

    OK = "ok"
    IGNORE = "ignore"  # says yes to a command and does nothing
    REFUSE = "refuse"  # refuses every command
    HANG = "hang"  # accepts connections, never answers, keeps drawing
    SLOW = "slow"  # answers after SLOW_S
    TRUNCATED = "truncated"  # half of each answer
    GARBAGE = "garbage"  # bytes that are no JSON
    WRONG_SHAPE = "wrong_shape"  # valid JSON of another shape
    WRONG_PASSWORD = "wrong_password"  # somebody changed the password
    HTTP500_CONFIG = "http500_config"  # Antminer, Marathon: the configuration cannot be read
    REBOOT = "reboot"  # loses its sessions, is away for a moment, comes back hashing; then ok
    MISREPORT = "misreport"  # commands change what it reports, not what it draws
    FROZEN = "frozen"  # reports the same for ever, while commands act
    DEAD = "dead"  # no power: draws nothing, refuses connections
    BLACK_HOLE = "black_hole"  # answers not even a connection, keeps drawing
    BLIP = "blip"  # loses power for a moment, comes back hashing; then ok
    WATTS_WRONG = "watts_wrong"  # reports WATTS_TOLD of what it draws
    POOLS_LOST = "pools_lost"  # its pool list is empty all of a sudden
    CLOCK_WRONG = "clock_wrong"  # Avalon: its clock is an hour behind, so timed orders come due at another time


SLOW_S = 3.0
WATTS_TOLD = 0.6
SILENT = frozenset({Fault.HANG})
NO_EFFECT = frozenset({Fault.IGNORE, Fault.MISREPORT})
GARBAGE_BYTES = b"\x16\x03\x01\xff<html>502 Bad Gateway"
WRONG_SHAPE_BYTES = b'{"foo": 1}'
RANDOM_FAULTS = (Fault.IGNORE, Fault.REFUSE, Fault.HANG, Fault.SLOW, Fault.TRUNCATED, Fault.REBOOT, Fault.DEAD)


# Faults that only some protocols can have; all others are everybody's.
OWN_FAULTS = MappingProxyType(
    {
        Fault.HTTP500_CONFIG: frozenset({"antminer", "marathon"}),
        Fault.CLOCK_WRONG: frozenset({"avalon"}),
        Fault.WATTS_WRONG: frozenset(
            {
                "whatsminer_v2",
                "whatsminer_v3",
                "braiins",
                "luxos",
                "vnish",
                "epic",
                "auradine",
                "avalon",
                "axeos",
            }
        ),
    }
)
WITHOUT_PASSWORD = frozenset({"luxos", "avalon", "axeos"})


def miner_faults(protocol: str) -> frozenset[Fault]:
    """The faults that a miner of this protocol can have."""
    faults = frozenset(fault for fault in Fault if protocol in OWN_FAULTS.get(fault, frozenset({protocol})))
    return faults - {Fault.WRONG_PASSWORD} if protocol in WITHOUT_PASSWORD else faults


def distort(body: bytes, fault: Fault) -> bytes:
    """An answer as it leaves a device with this fault."""
    if fault is Fault.TRUNCATED:
        return body[: len(body) // 2]
    if fault is Fault.GARBAGE:
        return GARBAGE_BYTES
    if fault is Fault.WRONG_SHAPE:
        return WRONG_SHAPE_BYTES
    return body


@dataclass(frozen=True, slots=True)
class RandomFault:
    """A fault drawn by chance, at an offset from the start of the run."""

    at_s: float
    load: str
    fault: Fault


def draw_faults(loads: Iterable[str], per_hour: float, seconds: float, source: random.Random) -> list[RandomFault]:
    """Faults of a Poisson process of `per_hour` over the whole facility, in order of time."""
    names = sorted(loads)
    faults: list[RandomFault] = []
    if not names or per_hour <= 0.0:
        return faults
    at_s = source.expovariate(per_hour / 3600.0)
    while at_s < seconds:
        faults.append(RandomFault(at_s, source.choice(names), source.choice(RANDOM_FAULTS)))
        at_s += source.expovariate(per_hour / 3600.0)
    return faults
