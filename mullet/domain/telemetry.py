"""What was observed: loads and meters, with every unknown left unknown."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LoadState(StrEnum):
    """What a load says it is doing."""

    ACTIVE = "active"
    ASLEEP = "asleep"
    STARTING = "starting"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Telemetry:
    """One load as observed. Every field but who and when may be None: unknown is never a default."""

    load_id: str
    at: float
    """When the device answered, Unix seconds by the controller's clock."""
    watts: float | None = None
    limit_watts: float | None = None
    """The limit that the device reports it enforces."""
    state: LoadState | None = None
    th_per_s: float | None = None
    tokens_per_s: float | None = None
    celsius: float | None = None
    identity: str | None = None
    fault: str | None = None
    """Why the device could not be read (then every reading is None)."""
    make: str | None = None
    """Model and firmware as identified, such as "Antminer S19j Pro / luxos"; a GPU's name. The same for all alike."""


class Quality(StrEnum):
    """Whether a meter's reading may be used."""

    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class MeterReading:
    """One reading of a circuit meter."""

    meter_id: str
    at: float
    watts: float | None
    quality: Quality
    heartbeat: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Background:
    """What a circuit's meter shows beside the loads beneath it that can be read, learnt while nothing moves."""

    mean_watts: float
    sigma_watts: float
    samples: int
    aside: tuple[tuple[str, str], ...] = ()
    """Loads that are a part of it: what each could not be counted for, and the latest command to it by then."""
    assumed_watts: float = 0.0
    """What loads that measure nothing were counted at as it was learnt, going by their points."""
    bias_watts: float = 0.0
    """The most by which those may draw more than that: nothing that was ever seen beside them can be less."""


@dataclass(frozen=True, slots=True)
class Residual:
    """What a circuit's meter shows above the sum of its observed loads: its mean and spread while nothing moves."""

    circuit_id: str
    mean_watts: float
    sigma_watts: float
    samples: int
    latest_watts: float
    """Residual of the latest good reading, moving or not."""
    at: float
    background: Background | None = None
    """What the meter is held against to prove a stop; None until learnt."""
