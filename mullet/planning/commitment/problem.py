"""The facility's horizon in numbers: what the program of commitment and dispatch is made from, whoever asks.

Power is in MW, energy in MWh, money in the facility's currency, time in hours unless a name says seconds. Arrays over
time have one entry per step of the grid, T in all. Loads of one group are counted, never told apart (clustered unit
commitment, Palmintier & Webster 2012); a group stands at its lowest point where no step of its curve is taken, and
what all loads draw there is part of `Site.fixed_mw` and already taken off every circuit's limit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Half-open steps of the horizon, near ones short."""

    starts_s: Floats
    """(T,) Seconds from the present to each step's start; the first is 0."""
    hours: Floats
    """(T,) Length of each step, above 0."""
    origin_s: float = 0.0
    """Instant of the present: tells a solver which steps of two problems are the same time, and nothing else."""

    @property
    def count(self) -> int:
        """T, the number of steps."""
        return len(self.hours)


@dataclass(frozen=True, slots=True, eq=False)
class Cooling:
    """One segment of a convex cooling curve: cooling draws at least `slope * beneath + fixed_mw` (PUE - 1 = slope)."""

    slope: Floats
    """(T,) MW of cooling per MW of managed load beneath, by the ambient temperature of each step."""
    fixed_mw: Floats
    """(T,)"""


@dataclass(frozen=True, slots=True, eq=False)
class CircuitLimit:
    """A node of the circuit tree and what managed loads may take there above their lowest points."""

    id: str
    parent: int
    """Position of the parent in `Problem.circuits`, which comes first; -1 for the grid connection."""
    limit_mw: Floats
    """(T,) At least 0: limit or program ceiling less fixed draws, lowest points and standing reserve."""
    follow: float = 0.0
    """MW that auxiliaries fed from here draw per MW of managed load beneath."""
    cooling: tuple[Cooling, ...] = ()
    """Convex cooling curve of a plant fed from here; its draw counts here and above."""
    slack_per_mwh: float | None = None
    """What exceeding the limit costs; None: the limit is hard, it is never for sale."""


@dataclass(frozen=True, slots=True, eq=False)
class StartLimit:
    """At most `most` starts of the group within steps [first, last)."""

    first: int
    last: int
    most: float


@dataclass(frozen=True, slots=True, eq=False)
class Mining:
    """A group of interchangeable miners on one circuit; M steps lead from its lowest point to its highest."""

    key: str
    circuit: int
    count: int
    """Loads that may be commanded."""
    most_mw: Floats
    """(M,) What each step adds to the most that one load may draw; circuits bind with it."""
    mean_mw: Floats
    """(M,) What each step adds to the power that one load is expected to draw; energy is paid by it."""
    th_per_s: Floats
    """(M,) What each step adds to one load's hashrate; a step may earn more per watt than the one before it."""
    start_cost: Floats
    """(T,) What one start costs: hashing lost meanwhile, its energy, wear."""
    running: Ints
    """(M,) Loads that stand at or above each step now; [0] is how many run."""
    min_on_s: float = 0.0
    min_off_s: float = 0.0
    least_on: Ints | None = None
    """(T,) Loads that must run: started too lately to be stopped, or held on. None: none."""
    most_on: Ints | None = None
    """(T,) Loads that may run: the others were stopped too lately, or are held off. None: all."""
    start_limits: tuple[StartLimit, ...] = ()
    account: int = -1
    """Position of the owner in `Problem.accounts`, -1 for none."""


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """GPUs of one service on one circuit; throughput is concave in power."""

    key: str
    circuit: int
    count: int
    least_active: int
    """GPUs that cannot be put aside; `count` where none can."""
    active_mw: float
    """What one active GPU draws at its lowest limit above one that is put aside, whose draw is in `Site.fixed_mw`.
    0 where GPUs cannot be put aside: then their lowest limits are in `Site.fixed_mw`."""
    base_tokens_per_s: float
    """What one active GPU makes at its lowest limit."""
    segment_mw: Floats
    """(S,) Width of each segment of power above the lowest limit, per GPU."""
    tokens_per_s_per_mw: Floats
    """(S,) Slope of each segment, descending."""


@dataclass(frozen=True, slots=True, eq=False)
class Tier:
    """A share of demand that may go unserved, and what each Mtoken of it costs; tiers are used in order."""

    share: float
    penalty_per_mtoken: float


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """An inference service with its pools; what its tiers do not cover must be served."""

    id: str
    pools: tuple[Pool, ...]
    demand_tokens_per_s: Floats
    """(T,)"""
    value_per_mtoken: float
    tiers: tuple[Tier, ...]
    """Shares sum to at most 1; penalties ascend. Shares that sum to 1 make the service elastic throughout."""


@dataclass(frozen=True, slots=True, eq=False)
class Account:
    """An owner of mining groups and what it was promised."""

    id: str
    curtailment: tuple[Budget, ...] = ()
    """Most MWh that may be held back of its loads, against all of them at their highest point."""
    uptime: tuple[Budget, ...] = ()
    """Least load-hours that its loads must run."""


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """An amount over steps [first, last), and what missing it costs per unit (None: it must be kept)."""

    first: int
    last: int
    amount: float
    slack_price: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DemandCharge:
    """A charge on the highest import of steps [first, last) above `floor_mw`: the peak so far, or the ratchet."""

    first: int
    last: int
    per_mw: float
    floor_mw: float


@dataclass(frozen=True, slots=True, eq=False)
class Award:
    """Mining power beneath a circuit that must stay droppable because a reserve program bought it."""

    circuit: int
    mw: Floats
    """(T,) At least 0; droppable power is counted by `mean_mw`."""
    slack_per_mwh: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Ramp:
    """How far mining beneath a circuit may move between neighbouring steps, both ways, by `mean_mw`."""

    circuit: int
    up_mw: Floats
    """(T,) [0] counts from `now_most_mw`."""
    down_mw: Floats
    """(T,) [0] counts from `now_least_mw`."""
    now_least_mw: float
    now_most_mw: float
    slack_per_mwh: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """The grid connection's market."""

    price_per_mwh: Floats
    """(T,) Settlement price of energy at this node."""
    adder_per_mwh: Floats
    """(T,) Everything that a MWh imported costs on top: wires, losses, taxes, program adders."""
    coincident_per_mwh: Floats
    """(T,) Expected coincident-peak cost of importing a MWh: probability times charge."""
    earned_per_th_hour: Floats
    """(T,) What one TH/s earns in an hour, pool fee paid."""
    fixed_mw: Floats
    """(T,) All that is drawn whatever is planned, lowest points included."""
    ppa_mw: Floats
    """(T,) Power bought ahead; paid for whether used or not, so only its resale matters here."""
    sell_per_mwh: Floats | None = None
    """(T,) What a MWh bought ahead and not used sells for, at most price + adder + coincident; None: nothing."""
    demand_charges: tuple[DemandCharge, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """All of it. Scenarios of price and demand, and storage, may be added here; nothing claims them yet."""

    grid: Grid
    circuits: tuple[CircuitLimit, ...]
    mining: tuple[Mining, ...]
    inference: tuple[Inference, ...]
    site: Site
    accounts: tuple[Account, ...] = ()
    awards: tuple[Award, ...] = ()
    ramps: tuple[Ramp, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """What was wrong with the input and how it was answered, in words."""
