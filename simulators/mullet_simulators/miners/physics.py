"""A miner's body: power, hashrate and temperature through stop ramps, boots and wake ramps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mullet_simulators.faults import NO_EFFECT, WATTS_TOLD, Fault, miner_faults
from mullet_simulators.miners.connections import Connections
from mullet_simulators.miners.models import MinerModel
from mullet_simulators.miners.pools import PoolList
from mullet_simulators.plant import Plant, SimLoad

AMBIENT_C = 25.0
RISE_C = 50.0
THERMAL_TAU_S = 30.0
HASHRATE_EXPONENT = 0.85  # an underclocked chip does more per joule
MEAN_5S_TAU_S = 1.5
MEAN_1M_TAU_S = 10.0
POWER_CHANGE_S = 1.5  # a live change of power percentage settles within this
REBOOT_AWAY_S = 3.0
BLIP_S = 2.0
UNIT_SPREAD = 0.005
NOISE_SIGMA = 0.0015
NOISE_MOST = 0.004
BOOT_W = 60.0
BOOT_SHARE = 0.3  # of its nameplate, what a small one draws while it boots


@dataclass(frozen=True, slots=True)
class Listener:
    """A port and what answers each connection to it."""

    port: int
    protocol: Callable[[Connections, float], asyncio.Protocol]
    """Built with the device's open connections and the latency in seconds."""


@dataclass(slots=True)
class Readings:
    """What the firmware says of itself."""

    mining: bool
    watts: float
    th_per_s_5s: float
    th_per_s_1m: float
    board_c: float
    limit_w: float
    percent: int
    elapsed_s: int


class SimMiner(SimLoad):
    """The physics of one miner and what its firmware remembers, whatever protocol it speaks."""

    def __init__(
        self,
        plant: Plant,
        model: MinerModel,
        load_id: str,
        bank: str,
        circuit: str,
        password: str = "",
        web_port: int = 0,
    ) -> None:
        super().__init__(load_id, "miner", bank, circuit)
        self._plant = plant
        self._password = password
        self.web_port = web_port
        """Where its web interface listens, whatever the vendor's port is."""
        self.model = model
        self.state = "asleep"
        self.fault = Fault.OK
        self.boots = 0
        self.reboot_away_s = REBOOT_AWAY_S
        self.blip_s = BLIP_S
        self.on_reachable_changed: Callable[[], None] | None = None
        self._random = plant.random(load_id)
        self._unit = 1.0 + self._random.uniform(-UNIT_SPREAD, UNIT_SPREAD)
        self._noise = [max(-NOISE_MOST, min(NOISE_MOST, self._random.gauss(0.0, NOISE_SIGMA))) for _ in range(64)]
        self._tick = self._random.randrange(64)
        self._boot_w = min(BOOT_W, BOOT_SHARE * model.watts)
        self._level_w = model.standby_w
        self._from_w = model.standby_w
        self._to_w = model.standby_w
        self._ramp_start = 0.0
        self._ramp_s = 0.0
        self._away_until = 0.0
        self._back_at = 0.0
        self._wanted_on = False
        self._reported_on: bool | None = None
        self._frozen: Readings | None = None
        self.limit_w = model.watts
        self.share = 1.0
        self.percent = 100
        self._pools = PoolList(
            [
                {"url": f"stratum+tcp://pool{n}.example:3333", "user": f"mullet.{load_id}", "pass": "x"}
                for n in (1, 2, 3)
            ]
        )
        self._started_at = plant.now()
        self._th_5s = 0.0
        self._th_1m = 0.0
        self._board_c = AMBIENT_C + 3.0

    # What the outside does to it

    def begin_hashing(self) -> None:
        """Be hashing from the start, warm and ramped."""
        self._wanted_on = True
        self._level_w = self._from_w = self._to_w = self.target_w
        self.state = "hashing"
        self._th_5s = self._th_1m = self._th_per_s()
        self._board_c = AMBIENT_C + RISE_C * self._level_w / self.model.watts
        self.watts = self._level_w * self._unit

    def command_stop(self) -> None:
        """Stop hashing, unless a fault swallows the command."""
        if self.fault in NO_EFFECT:
            self._pretend(False)
            return
        self._wanted_on = False
        if self.state in ("hashing", "starting"):
            self._ramp_to(self.model.standby_w, self._spread(self.model.stop_ramp_s))
            self._enter("stopping")

    def command_wake(self) -> None:
        """Boot and hash, unless a fault swallows the command."""
        if self.fault in NO_EFFECT:
            self._pretend(True)
            return
        self._wanted_on = True
        if self.state in ("asleep", "stopping"):
            self._boot()

    def command_share(self, share: float) -> None:
        """Draw this share of the limit from now on, without a boot."""
        if self.fault in NO_EFFECT:
            return
        self.share = share
        if self.state == "hashing":
            self._ramp_to(self.target_w, POWER_CHANGE_S)
        elif self.state == "starting":
            self._to_w = self.target_w

    def command_limit(self, limit_w: float) -> None:
        """Keep to another power limit; a hashing miner boots and tunes anew for it."""
        if self.fault in NO_EFFECT:
            return
        self.limit_w = limit_w
        if self._wanted_on and self.state in ("hashing", "starting"):
            self._boot()

    def command_restart(self) -> None:
        """Boot again in the same state."""
        if self.fault not in NO_EFFECT and self._wanted_on and self.state != "dead":
            self._boot()

    def command_reboot(self) -> None:
        """Reboot the whole device: sessions are lost and it comes back hashing."""
        if self.fault in NO_EFFECT or self.state == "dead":
            return
        self._away_until = self._plant.now() + self.reboot_away_s
        self.forget_sessions()
        self._reported_on = None
        self._wanted_on = True
        self._boot()
        self.reachable_changed()

    def set_fault(self, fault: str, now: float) -> None:
        """Begin or end a fault; REBOOT happens once and leaves OK."""
        if fault not in miner_faults(self.model.protocol):
            raise ValueError(f"{self.id}: no such fault: {fault}")
        new = Fault(fault)
        was, self.fault = Fault(self.fault), new
        self._frozen = None
        if was is Fault.MISREPORT:
            self._reported_on = None
        if new is Fault.DEAD:
            self._lose_power()
        elif was is Fault.DEAD:
            self._regain_power()
        if new is Fault.REBOOT:
            self.fault = Fault.OK
            self.command_reboot()
        elif new is Fault.BLIP:
            self.fault = Fault.OK
            self._lose_power()
            self._back_at = now + self.blip_s
        elif new is Fault.POOLS_LOST:
            self.lose_pools("fault")
        elif new is Fault.FROZEN:
            self._frozen = self.readings()
        elif new is Fault.MISREPORT:
            self._reported_on = False
        self.reachable_changed()

    def set_powered(self, powered: bool, now: float) -> None:
        """The contactor above opened or closed: power returns as a boot into hashing."""
        super().set_powered(powered, now)
        if not powered:
            self._lose_power()
        elif self.fault is not Fault.DEAD:
            self._regain_power()
        self.reachable_changed()

    # What the protocols read

    @property
    def pools(self) -> Any:
        """A copy of its pool list: setting it changes it, as a request does, and logs that."""
        return self._pools.copy()

    @pools.setter
    def pools(self, pools: Any) -> None:
        self.change_pools(pools, "request")

    @property
    def target_w(self) -> float:
        """Watts it settles at while hashing."""
        return min(self.model.watts, self.limit_w * self.share)

    def is_reachable(self, now: float) -> bool:
        """Does its network stack answer a connection?"""
        return self.state != "dead" and now >= self._away_until and self.fault is not Fault.BLACK_HOLE

    def listeners(self) -> tuple[Listener, ...]:
        """Where it listens, and what is spoken there."""
        raise NotImplementedError

    def readings(self) -> Readings:
        """What the firmware reports; a misreporting or frozen one does not tell the truth."""
        if self._frozen is not None:
            return self._frozen
        mining = self._wanted_on
        watts, th_5s, th_1m = self.watts, self._th_5s, self._th_1m
        if self._reported_on is False:
            mining, watts, th_5s, th_1m = False, self.model.standby_w, 0.0, 0.0
        elif self._reported_on:
            mining = True
        if self.fault is Fault.WATTS_WRONG:
            watts *= WATTS_TOLD
        elapsed_s = int(self._plant.now() - self._started_at) if mining else 0
        return Readings(
            mining=mining,
            watts=watts,
            th_per_s_5s=th_5s,
            th_per_s_1m=th_1m,
            board_c=self._board_c,
            limit_w=self.limit_w,
            percent=self.percent,
            elapsed_s=elapsed_s,
        )

    def log_request(self, verb: str, answer: str) -> None:
        """Log a control request that reached the device."""
        self._plant.truth.request(self.id, verb, answer)

    def now(self) -> float:
        """Unix seconds."""
        return self._plant.now()

    # For subclasses

    def forget_sessions(self) -> None:
        """Drop tokens and the like, as a reboot does."""

    def change_pools(self, pools: Any, cause: str) -> None:
        """Hold another pool list, and log it if its content differs; the cause is "fault" or "request"."""
        if self._pools.replace(pools):
            self._plant.truth.pools(self.id, cause=cause, **self._pools.told())

    def lose_pools(self, cause: str = "request") -> None:
        """Forget every pool, as a spoilt configuration does."""
        self.change_pools([{"url": "", "user": "", "pass": ""} for _ in self.pools], cause)

    def reachable_changed(self) -> None:
        """Tell the sockets that is_reachable may have changed."""
        if self.on_reachable_changed is not None:
            self.on_reachable_changed()

    # Physics

    def initial_state(self) -> str | None:
        """True state at the start."""
        return self.state

    def initial_pools(self) -> dict[str, Any] | None:
        """Digest and count of its pools at the start."""
        return self._pools.told()

    def truth(self) -> dict[str, Any]:
        """What the control port tells of this miner."""
        return {
            **super().truth(),
            "state": self.state,
            "limit_w": self.limit_w,
            "percent": self.percent,
            "th_per_s": round(self._th_5s, 2),
            "boots": self.boots,
            "pools": self.pools,
        }

    def step(self, dt: float, now: float) -> None:
        """Advance ramps, averages and temperature."""
        if self._back_at and now >= self._back_at:
            self._back_at = 0.0
            self._regain_power()
            self.reachable_changed()
        if self._ramp_s > 0.0:
            self._follow_ramp(now)
        self._tick = (self._tick + 1) & 63
        level_w = self._level_w
        self.watts = level_w * self._unit * (1.0 + self._noise[self._tick])
        if self.state == "dead":
            self.watts = 0.0
        th_per_s = self._th_per_s()
        self._th_5s += (th_per_s - self._th_5s) * min(1.0, dt / MEAN_5S_TAU_S)
        self._th_1m += (th_per_s - self._th_1m) * min(1.0, dt / MEAN_1M_TAU_S)
        settled_c = AMBIENT_C + RISE_C * level_w / self.model.watts
        self._board_c += (settled_c - self._board_c) * min(1.0, dt / THERMAL_TAU_S)
        if self._away_until and now >= self._away_until:
            self._away_until = 0.0
            self.reachable_changed()

    def _th_per_s(self) -> float:
        """Hashing needs a ramped board: a stopping one hashes no more, a booting one not yet."""
        if self.state not in ("hashing", "starting"):
            return 0.0
        share = (self._level_w - self._boot_w) / (self.model.watts - self._boot_w)
        return float(self.model.th_per_s * share**HASHRATE_EXPONENT) if share > 0.05 else 0.0

    def _follow_ramp(self, now: float) -> None:
        done = (now - self._ramp_start) / self._ramp_s
        if done < 0.0:
            return
        if done < 1.0:
            self._level_w = self._from_w + (self._to_w - self._from_w) * done
            return
        self._level_w = self._to_w
        self._ramp_s = 0.0
        if self.state == "stopping":
            self._th_5s = self._th_1m = 0.0
            self._enter("asleep")
        elif self.state == "starting":
            self._enter("hashing")

    def _ramp_to(self, watts: float, seconds: float, after_s: float = 0.0) -> None:
        self._from_w = self._level_w
        self._to_w = watts
        self._ramp_s = max(0.05, seconds)
        self._ramp_start = self._plant.now() + after_s

    def _boot(self) -> None:
        self.boots += 1
        self._started_at = self._plant.now()
        self._level_w = self._boot_w
        self._th_5s = self._th_1m = 0.0
        self._ramp_to(self.target_w, self._spread(self.model.wake_ramp_s), self._spread(self.model.boot_s))
        self._enter("starting")

    def _lose_power(self) -> None:
        self._level_w = 0.0
        self._ramp_s = 0.0
        self.watts = 0.0
        self._th_5s = self._th_1m = 0.0
        self.forget_sessions()
        self._enter("dead")

    def _regain_power(self) -> None:
        if not self.powered:
            return
        self._wanted_on = True
        self._reported_on = None
        self._away_until = self._plant.now() + self.reboot_away_s
        self._boot()

    def _pretend(self, on: bool) -> None:
        if self.fault is Fault.MISREPORT:
            self._reported_on = on

    def _spread(self, seconds: float) -> float:
        return seconds * min(1.5, max(0.7, self._random.lognormvariate(0.0, 0.15)))

    def _enter(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self._plant.truth.state(self.id, state)
