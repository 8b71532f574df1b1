"""A GPU's body, shaped like an H100: a power cap that binds prefill and hardly touches decode.

Decode is bound by memory: an H200 draws 137 to 300 W of its 700 W while it decodes, so caps above that shed
nothing, while a lower SM clock saves up to a third at little loss (arXiv 2605.11999). Compute-bound work loses 10 to
15 % between 700 W and 600 W (vendor figures), which the exponent below gives. The power reading is a mean over one
second, as on Ampere and later (NVIDIA nvml.h).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mullet_simulators.plant import Plant, SimLoad
from mullet_simulators.scenario import GpuSpec

MAX_SM_MHZ = 1980
MIN_SM_MHZ = 210
IDLE_SM_MHZ = 345
MEMORY_MHZ = 2619
SETTLE_S = (0.1, 0.2)
"""From a set limit until it is enforced, drawn anew each time."""
FALL_TAU_S = 0.3
RISE_TAU_S = 0.5
THERMAL_TAU_S = 20.0
COOLANT_C = 28.0
RISE_C = 42.0
RIPPLE = 0.008
"""The regulator holds a binding cap within this share, above and below."""
READING_S = 1.0
LOST_SHARE = 0.15
BMC_SHARE = 0.4


class GpuFault(StrEnum):
    """One way to fail; `ok` is none."""

    OK = "ok"
    LOST = "lost"  # fell off the bus: every call says so, no work is done, something is still drawn
    NO_PERMISSION = "no_permission"  # whatever would change the GPU is refused
    BMC_CAP = "bmc_cap"  # out-of-band management enforces less than was asked for
    HANG = "hang"  # every call is answered late
    IGNORE = "ignore"  # a set limit is answered with success and changes nothing


class Work(StrEnum):
    """What the GPU does when it works."""

    DECODE = "decode"
    PREFILL = "prefill"


@dataclass(frozen=True, slots=True)
class WorkShape:
    """How power and speed of a kind of work answer to cap and clock."""

    peak_share: float
    """Draw at full work and full clock, as a share of the range from idle to the highest cap."""
    cap_exponent: float
    """Speed is the share of dynamic power left by the cap, to this power."""
    clock_power: float
    """Share of dynamic power that follows the square of the clock."""
    clock_speed: float
    """Share of speed that follows the clock."""


SHAPES = {
    Work.DECODE: WorkShape(peak_share=0.365, cap_exponent=0.5, clock_power=0.6, clock_speed=0.15),
    Work.PREFILL: WorkShape(peak_share=1.0, cap_exponent=0.75, clock_power=1.0, clock_speed=1.0),
}


class Gpu(SimLoad):
    """One GPU: what it may draw, what it draws, how fast it works. Watts, and its speed as a share of its best."""

    def __init__(
        self, plant: Plant, index: int, load_id: str, bank: str, circuit: str, service: str, spec: GpuSpec, work: Work
    ) -> None:
        super().__init__(load_id, "gpu", bank, circuit, service)
        self._plant = plant
        self._random = plant.random(load_id)
        self.index = index
        self.spec = spec
        self.work = work
        self.fault = GpuFault.OK
        token = f"{self._random.getrandbits(128):032x}"
        self.uuid = f"GPU-{token[:8]}-{token[8:12]}-{token[12:16]}-{token[16:20]}-{token[20:]}"
        self.serial = f"16{self._random.randrange(10**11):011d}"
        self.persistence = True
        self.duty = 0.0
        """Share of the time in which the GPU has work, set by its service."""
        self.requested_w = spec.initial_cap_w
        self.enforced_w = spec.initial_cap_w
        """The most it may draw; falls only once the regulator has brought the draw down."""
        self._working_w = spec.initial_cap_w
        self._from_w = spec.initial_cap_w
        self._target_w = spec.initial_cap_w
        self._set_at = plant.now()
        self._settle_s = 0.0
        self._locked_mhz: tuple[int, int] | None = None
        self.watts = spec.idle_w
        self._level_w = spec.idle_w
        self.temperature_c = COOLANT_C + RISE_C * spec.idle_w / spec.max_cap_w
        self.energy_j = 0.0
        self._readings: deque[tuple[float, float]] = deque([(plant.now(), 0.0)])
        self._cap_is_logged = False

    # -- what can be asked

    @property
    def is_lost(self) -> bool:
        """Gone from the bus, or without power."""
        return self.fault is GpuFault.LOST or not self.powered

    @property
    def speed(self) -> float:
        """Tokens a second as a share of what it does at its highest cap and clock."""
        if self.is_lost:
            return 0.0
        shape = SHAPES[self.work]
        clock = self._clock_share()
        speed = 1.0 - shape.clock_speed * (1.0 - clock)
        peak_w = self._peak_w(clock)
        if self._working_w < peak_w:
            left = (self._working_w - self.spec.idle_w) / (peak_w - self.spec.idle_w)
            speed *= math.pow(max(0.0, left), shape.cap_exponent)
        return speed

    @property
    def is_capped(self) -> bool:
        """Does the cap hold the work back now?"""
        return not self.is_lost and self.duty > 0.0 and self._working_w < self._peak_w(self._clock_share())

    @property
    def sm_mhz(self) -> int:
        """SM clock now."""
        if self.is_lost or self.duty <= 0.01:
            return IDLE_SM_MHZ
        clock = self._clock_share()
        peak_w = self._peak_w(clock)
        if self._working_w < peak_w:
            clock *= max(0.1, (self._working_w - self.spec.idle_w) / (peak_w - self.spec.idle_w)) ** 0.5
        return max(MIN_SM_MHZ, round(MAX_SM_MHZ * clock))

    def read_watts(self) -> float:
        """Mean draw over the last second, as the GPU reports it."""
        (start, before), (end, after) = self._readings[0], self._readings[-1]
        return (after - before) / (end - start) if end > start else self.watts

    def watts_for(self, speed: float) -> float:
        """The least steady cap at which the GPU works at this share of its best speed, at full clock."""
        peak_w = self._peak_w(1.0)
        share = math.pow(min(1.0, max(0.0, speed)), 1.0 / SHAPES[self.work].cap_exponent)
        return max(self.spec.min_cap_w, self.spec.idle_w + share * (peak_w - self.spec.idle_w))

    # -- what can be done to it

    def set_limit(self, limit_w: float) -> None:
        """Ask for another cap; the caller has checked the range and the permission."""
        if self.fault is GpuFault.IGNORE:
            return
        self.requested_w = limit_w
        self._aim()

    def lock_clocks(self, low_mhz: int, high_mhz: int) -> None:
        """Keep the SM clock within a range."""
        if self.fault is not GpuFault.IGNORE:
            self._locked_mhz = (low_mhz, high_mhz)

    def unlock_clocks(self) -> None:
        """Let the SM clock go as it likes."""
        if self.fault is not GpuFault.IGNORE:
            self._locked_mhz = None

    def set_fault(self, fault: str, now: float) -> None:
        """Begin a fault, or end it with "ok". Raises ValueError for an unknown one."""
        if fault not in GpuFault.__members__.values():
            raise ValueError(f"{self.id}: no such fault: {fault}")
        was, self.fault = self.fault, GpuFault(fault)
        if self.fault is GpuFault.LOST and was is not GpuFault.LOST:
            self._plant.truth.state(self.id, "lost")
        if was is GpuFault.LOST and self.fault is not GpuFault.LOST and self.powered:
            self._come_back()
        self._aim()

    def set_powered(self, powered: bool, now: float) -> None:
        """Without power it draws nothing; with it again it has forgotten its limits."""
        super().set_powered(powered, now)
        if powered:
            self._come_back()
        else:
            self.watts = self._level_w = 0.0
            self._plant.truth.state(self.id, "dead")

    def step(self, dt: float, now: float) -> None:
        """Advance the physics by `dt` seconds to the instant `now`."""
        if not self._cap_is_logged:
            self._cap_is_logged = True
            self._plant.truth.cap(self.id, self.enforced_w)
        self._regulate(now)
        if self.powered:
            self._draw(dt)
        heat_c = COOLANT_C + RISE_C * self.watts / self.spec.max_cap_w
        self.temperature_c += (heat_c - self.temperature_c) * min(1.0, dt / THERMAL_TAU_S)
        self.energy_j += self.watts * dt
        self._readings.append((now, self.energy_j))
        while len(self._readings) > 2 and self._readings[1][0] <= now - READING_S:
            self._readings.popleft()

    def truth(self) -> dict[str, Any]:
        """What the control port tells of this GPU."""
        return {
            **super().truth(),
            "requested_w": self.requested_w,
            "enforced_w": self.enforced_w,
            "duty": round(self.duty, 3),
            "speed": round(self.speed, 3),
        }

    # -- inside

    def _come_back(self) -> None:
        self.requested_w = self.spec.default_cap_w
        self._locked_mhz = None
        self._plant.truth.state(self.id, "starting")
        self._aim()

    def _aim(self) -> None:
        target_w = self.requested_w
        if self.fault is GpuFault.BMC_CAP:
            target_w = min(target_w, self.spec.min_cap_w + BMC_SHARE * (self.spec.max_cap_w - self.spec.min_cap_w))
        if target_w == self._target_w:
            return
        self._from_w = self._working_w
        self._target_w = target_w
        self._set_at = self._plant.now()
        self._settle_s = self._random.uniform(*SETTLE_S)

    def _regulate(self, now: float) -> None:
        since_s = now - self._set_at
        if since_s >= self._settle_s:
            self._working_w = self._target_w
            if self.enforced_w != self._target_w:
                self.enforced_w = self._target_w
                self._plant.truth.cap(self.id, self.enforced_w)
        elif self._target_w < self._from_w:
            share = max(0.0, since_s / self._settle_s)
            self._working_w = self._from_w + share * (self._target_w - self._from_w)

    def _draw(self, dt: float) -> None:
        idle_w = self.spec.idle_w
        if self.fault is GpuFault.LOST:
            target_w = idle_w + LOST_SHARE * (self.spec.max_cap_w - idle_w)
        else:
            busy_w = min(self._working_w, self._peak_w(self._clock_share()))
            target_w = idle_w + min(1.0, max(0.0, self.duty)) * (busy_w - idle_w)
        tau_s = RISE_TAU_S if target_w > self._level_w else FALL_TAU_S
        self._level_w += (target_w - self._level_w) * min(1.0, dt / tau_s)
        self._level_w = min(self._level_w, self._working_w)
        self.watts = self._level_w * (1.0 + self._random.uniform(-RIPPLE, RIPPLE))

    def _clock_share(self) -> float:
        if self._locked_mhz is None:
            return 1.0
        return min(MAX_SM_MHZ, max(MIN_SM_MHZ, self._locked_mhz[1])) / MAX_SM_MHZ

    def _peak_w(self, clock: float) -> float:
        shape = SHAPES[self.work]
        dynamic_w = shape.peak_share * (self.spec.max_cap_w - self.spec.idle_w)
        return self.spec.idle_w + dynamic_w * (1.0 - shape.clock_power * (1.0 - clock * clock))
