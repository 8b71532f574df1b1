"""Made-up facilities of any size over days of 5-minute steps, seeded: the same arguments give the same problems.

Loads, profiles, limits and markets are invented to be of the size and shape of a large site: 200 groups and 30,000
loads draw about 100 MW. They describe no device and no place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import prices
from mullet.planning.commitment.problem import (
    Account,
    Award,
    Budget,
    CircuitLimit,
    Cooling,
    DemandCharge,
    Grid,
    Inference,
    Mining,
    Pool,
    Problem,
    Ramp,
    Site,
    StartLimit,
    Tier,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
STEP_S = 300.0
_HOUR = 12
_ELASTIC = 2e4
_RESERVE = 3e3

GRIDS = {
    "nu64": ((24, 1), (24, 3), (16, 12)),
    "nu88": ((24, 1), (24, 3), (40, 12)),
}
"""(number of steps, length of each in 5-minute steps); nu88 is 48 h, nu64 24 h."""


def grid_of(name: str) -> tuple[tuple[int, int], ...]:
    """Return a grid by name; "u288" are 288 steps of 5 minutes."""
    return GRIDS[name] if name in GRIDS else ((int(name.removeprefix("u")), 1),)


# Power and hashrate of each point above sleep, as shares of a load's own nominal ones.
_PROFILES = (
    ((0.70, 0.78), (1.00, 1.00), (1.20, 1.13)),
    ((0.65, 0.71), (1.00, 1.00), (1.15, 1.09)),
    ((0.80, 0.86), (1.00, 1.00), (1.30, 1.19)),
    # The first point earns less per watt than the second: standing there is never best, passing through it is.
    ((0.50, 0.46), (1.00, 1.00), (1.15, 1.10)),
    ((0.60, 0.67), (0.80, 0.85), (1.00, 1.00), (1.20, 1.12)),
)
_WATTS = (3_010.0, 3_250.0, 3_400.0, 3_600.0)
_J_PER_TH = (17.5, 21.5, 25.0, 29.5)


@dataclass(frozen=True, slots=True, eq=False)
class Rig:
    """What never changes about a mining group."""

    key: str
    circuit: int
    count: int
    mean_mw: Floats
    most_mw: Floats
    th_per_s: Floats
    start_up_s: float
    wear: float
    min_on_s: float
    min_off_s: float
    account: int


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Where the mining groups stand."""

    at_least: tuple[Ints, ...]
    """Per group (M,): loads at or above each step."""
    started: tuple[tuple[tuple[float, int], ...], ...]
    """Per group: (seconds for which they must go on running, loads)."""
    stopped: tuple[tuple[tuple[float, int], ...], ...]
    """Per group: (seconds for which they must go on resting, loads)."""
    peak_mw: float


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A facility and what happens to it, at 5-minute steps."""

    rigs: tuple[Rig, ...]
    circuits: tuple[tuple[str, int, float, float], ...]
    """(id, parent, MW above lowest points, follow)."""
    pools: tuple[tuple[str, int, int, int], ...]
    """(service, circuit, GPUs, least active)."""
    price: Floats
    adder: Floats
    coincident: Floats
    ambient_celsius: Floats
    demand: Floats
    """Share of the most tokens/s that services can make."""
    earned_per_th_hour: float
    events: tuple[tuple[int, int, float], ...]
    """(first step, last step, share of the connection left) of demand-response events."""

    @property
    def nominal_mw(self) -> float:
        """What all miners draw at most."""
        return float(sum(rig.count * rig.most_mw.sum() for rig in self.rigs))

    def start(self) -> State:
        """Return a state in which most loads run at their second point."""
        levels = tuple(
            np.array([int(rig.count * share) for share in (0.9, 0.8, 0.1, 0.05)[: len(rig.mean_mw)]])
            for rig in self.rigs
        )
        nothing: tuple[tuple[tuple[float, int], ...], ...] = tuple(() for _ in self.rigs)
        return State(levels, nothing, nothing, 0.85 * self.nominal_mw)

    def problem(self, at: int, grid: str, state: State) -> Problem:
        """Return the problem that begins at 5-minute step `at`, everything to come known.

        Prices of a long step are means, limits the lowest.
        """
        lengths = np.concatenate([np.full(count, length) for count, length in grid_of(grid)])
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        span = _Span(at + starts, lengths)
        return Problem(
            grid=Grid(starts * STEP_S, lengths / _HOUR, at * STEP_S),
            circuits=self._circuits(span),
            mining=tuple(self._mining(span, starts * STEP_S, state, k) for k in range(len(self.rigs))),
            inference=self._inference(span),
            site=self._site(span, state),
            accounts=self._accounts(span),
            awards=(Award(1, np.full(span.count, 0.04 * self.nominal_mw), _RESERVE),),
            ramps=self._ramps(span, state),
        )

    def _circuits(self, span: _Span) -> tuple[CircuitLimit, ...]:
        ceiling = np.ones(len(self.price))
        for first, last, share in self.events:
            ceiling[first:last] = share
        nodes = []
        for number, (name, parent, mw, follow) in enumerate(self.circuits):
            if number:
                nodes.append(CircuitLimit(name, parent, np.full(span.count, mw), follow))
                continue
            warm = span.mean(np.maximum(0.0, self.ambient_celsius - 15.0))
            mild = Cooling(0.030 + 0.0012 * warm, np.zeros(span.count))
            hot = Cooling(0.055 + 0.0030 * warm, np.full(span.count, -0.02 * mw))
            limit = mw * span.lowest(ceiling)
            nodes.append(CircuitLimit(name, parent, limit, follow, (mild, hot), slack_per_mwh=_ELASTIC))
        return tuple(nodes)

    def _mining(self, span: _Span, starts_s: Floats, state: State, number: int) -> Mining:
        rig = self.rigs[number]
        least = np.zeros(span.count, dtype=np.int64)
        most = np.full(span.count, rig.count)
        for left_s, loads in state.started[number]:
            least += np.where(starts_s < left_s, loads, 0)
        for left_s, loads in state.stopped[number]:
            most -= np.where(starts_s < left_s, loads, 0)
        lost = self.earned_per_th_hour * rig.th_per_s[0] * rig.start_up_s / 3_600.0
        energy = rig.mean_mw[0] * rig.start_up_s / 3_600.0 * 30.0
        limits = (StartLimit(0, span.count, 1.5 * rig.count),) if number % 10 == 0 else ()
        return Mining(
            key=rig.key,
            circuit=rig.circuit,
            count=rig.count,
            most_mw=rig.most_mw,
            mean_mw=rig.mean_mw,
            th_per_s=rig.th_per_s,
            start_cost=np.full(span.count, lost + energy + rig.wear),
            running=state.at_least[number],
            min_on_s=rig.min_on_s,
            min_off_s=rig.min_off_s,
            least_on=least,
            most_on=most,
            start_limits=limits,
            account=rig.account,
        )

    def _inference(self, span: _Span) -> tuple[Inference, ...]:
        services = []
        for name in dict.fromkeys(pool[0] for pool in self.pools):
            mine = [pool for pool in self.pools if pool[0] == name]
            pools = tuple(
                Pool(
                    key=f"{name}-{circuit}",
                    circuit=circuit,
                    count=count,
                    least_active=least,
                    active_mw=0.00022,
                    base_tokens_per_s=900.0,
                    segment_mw=np.array([0.00016, 0.00016, 0.00016]),
                    tokens_per_s_per_mw=np.array([5.2e6, 3.4e6, 1.6e6]),
                )
                for _, circuit, count, least in mine
            )
            most = sum(p.count * (p.base_tokens_per_s + float(p.segment_mw @ p.tokens_per_s_per_mw)) for p in pools)
            tiers = (Tier(0.05, 0.05), Tier(0.15, 0.30), Tier(0.80, 2.0))
            services.append(Inference(name, pools, span.mean(self.demand) * most, 0.25, tiers))
        return tuple(services)

    def _site(self, span: _Span, state: State) -> Site:
        price, adder, coincident = (span.mean(series) for series in (self.price, self.adder, self.coincident))
        fixed = 0.02 * self.nominal_mw
        ahead = 0.15 * self.nominal_mw
        return Site(
            price_per_mwh=price,
            adder_per_mwh=adder,
            coincident_per_mwh=coincident,
            earned_per_th_hour=np.full(span.count, self.earned_per_th_hour),
            fixed_mw=np.full(span.count, fixed),
            ppa_mw=np.full(span.count, ahead),
            sell_per_mwh=price - 1.5,
            demand_charges=(DemandCharge(0, span.count, 90.0, state.peak_mw),),
        )

    def _accounts(self, span: _Span) -> tuple[Account, ...]:
        if all(rig.account < 0 for rig in self.rigs):
            return ()
        hosted = sum(rig.count for rig in self.rigs if rig.account == 0)
        hosted_mw = sum(rig.count * float(rig.mean_mw.sum()) for rig in self.rigs if rig.account == 0)
        hours = float(span.lengths.sum()) / _HOUR
        budget = Budget(0, span.count, 0.35 * hosted_mw * hours, 60.0)
        uptime = Budget(0, span.count, 0.80 * hosted * hours, 0.05)
        return (Account("hosted", (budget,), (uptime,)),)

    def _ramps(self, span: _Span, state: State) -> tuple[Ramp, ...]:
        now = sum(float(rig.mean_mw @ levels) for rig, levels in zip(self.rigs, state.at_least, strict=True))
        step = 0.25 * self.nominal_mw * np.concatenate([[1.0], span.lengths[:-1].astype(float)])
        return (Ramp(0, step, step, now, now, _ELASTIC),)

    def advance(self, state: State, at_least: tuple[Ints, ...], import_mw: float) -> State:
        """Return the state one 5-minute step on, after standing at `at_least` (per group, (M,)) during it."""
        started, stopped = [], []
        for rig, before, now, on, off in zip(
            self.rigs, state.at_least, at_least, state.started, state.stopped, strict=True
        ):
            more = int(now[0] - before[0])
            left_on = [(s - STEP_S, n) for s, n in on] + [(rig.min_on_s - STEP_S, more)]
            left_off = [(s - STEP_S, n) for s, n in off] + [(rig.min_off_s - STEP_S, -more)]
            started.append(tuple((s, n) for s, n in left_on if s > 1e-6 and n > 0))
            stopped.append(tuple((s, n) for s, n in left_off if s > 1e-6 and n > 0))
        return State(at_least, tuple(started), tuple(stopped), max(state.peak_mw, import_mw))


@dataclass(frozen=True, slots=True, eq=False)
class _Span:
    """Steps of a grid as runs of 5-minute steps; what lies past the end of a series is its end."""

    first: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @property
    def count(self) -> int:
        return len(self.lengths)

    def mean(self, series: Floats) -> Floats:
        sums = np.concatenate([[0.0], np.cumsum(series)])
        return np.asarray((sums[self.first + self.lengths] - sums[self.first]) / self.lengths)

    def lowest(self, series: Floats) -> Floats:
        ends = self.first + self.lengths
        return np.array([series[a:b].min() for a, b in zip(self.first, ends, strict=True)])


def make_scene(groups: int, loads: int, days: int, seed: int, price: Floats | None = None) -> Scene:
    """Return a scene of `groups` mining groups with `loads` loads over `days` days; prices are synthetic unless given.

    Groups differ: one of five profiles, +-3 % in efficiency, wear, start-up time and least times on and off.
    Five groups to a PDU, five PDUs to a feeder, all feeders to the grid connection.
    """
    draw = np.random.default_rng(seed)
    pdus = max(1, -(-groups // 5))
    feeders = max(1, -(-pdus // 5))
    sizes = np.maximum(1, np.round(draw.dirichlet(np.full(groups, 12.0)) * loads)).astype(int)
    sizes[int(np.argmax(sizes))] += loads - int(sizes.sum())
    rigs = []
    for number in range(groups):
        kind = 4 if draw.random() < 0.1 else int(draw.integers(0, 4))
        shares = np.array(_PROFILES[kind])
        model = int(draw.integers(0, 4))
        watts = _WATTS[model] * shares[:, 0]
        hashes = _WATTS[model] / (_J_PER_TH[model] * (1.0 + draw.uniform(-0.03, 0.03))) * shares[:, 1]
        mean = np.diff(watts, prepend=20.0) / 1e6
        rigs.append(
            Rig(
                key=f"g{number:03d}",
                circuit=1 + feeders + number // 5,
                count=int(sizes[number]),
                mean_mw=mean,
                most_mw=mean * 1.04,
                th_per_s=np.diff(hashes, prepend=0.0),
                start_up_s=float(draw.uniform(240.0, 720.0)),
                wear=float(draw.uniform(0.02, 0.15)),
                min_on_s=float(draw.choice([600.0, 1_800.0, 3_600.0])),
                min_off_s=float(draw.choice([300.0, 900.0, 1_800.0])),
                account=0 if number % 4 == 3 else -1,
            )
        )
    return _wired(tuple(rigs), feeders, pdus, days, draw, prices.synthetic(days, seed) if price is None else price)


def _wired(
    rigs: tuple[Rig, ...], feeders: int, pdus: int, days: int, draw: np.random.Generator, price: Floats
) -> Scene:
    beneath = np.zeros(1 + feeders + pdus)
    for rig in rigs:
        beneath[rig.circuit] += rig.count * float(rig.most_mw.sum())
    total = float(beneath.sum())
    pools = []
    for number, service in enumerate(("chat", "batch")):
        for feeder in sorted({number % feeders, (number + 2) % feeders}):
            count = max(1, round(total * 0.005 / 0.0007))
            pools.append((service, 1 + feeder, count, max(1, count // 4)))
    parents = [-1] + [0] * feeders + [1 + k // 5 for k in range(pdus)]
    for k in range(feeders + pdus, 0, -1):
        beneath[parents[k]] += beneath[k]
    for _, circuit, count, _ in pools:
        beneath[circuit] += count * 0.0007
        beneath[0] += count * 0.0007
    names = ["poi", *(f"feeder-{k}" for k in range(feeders)), *(f"pdu-{k}" for k in range(pdus))]
    circuits = []
    for k, name in enumerate(names):
        share = 0.97 if k == 0 else draw.uniform(0.92, 1.04) if k <= feeders else draw.uniform(0.90, 1.08)
        circuits.append((name, parents[k], float(beneath[k] * share), 0.015 if 1 <= k <= feeders else 0.0))
    count = days * prices.STEPS_PER_DAY
    hour = np.arange(count) / 12.0 % 24.0
    coincident = np.where((hour >= 16.5) & (hour < 17.5), 18.0, 0.0)
    demand = 0.45 + 0.35 * np.exp(-(((hour - 14.0) / 5.0) ** 2)) + draw.normal(0.0, 0.01, count)
    events = tuple((day * 288 + 17 * _HOUR, day * 288 + 19 * _HOUR, 0.45) for day in range(0, days, 2))
    return Scene(
        rigs=rigs,
        circuits=tuple(circuits),
        pools=tuple(pools),
        price=price,
        adder=np.where((hour >= 13.0) & (hour < 20.0), 6.0, 3.0),
        coincident=coincident,
        ambient_celsius=24.0 + 9.0 * np.sin((hour - 9.0) * np.pi / 12.0),
        demand=np.clip(demand, 0.05, 1.0),
        earned_per_th_hour=50.0 / 24.0 / 1e3,
        events=events,
    )


def instance(options: Mapping[str, Any]) -> Problem:
    """Return the problem at the beginning of a scene; options: groups, loads, seed, grid."""
    scene = make_scene(options["groups"], options["loads"], 3, options["seed"])
    return scene.problem(0, options["grid"], scene.start())
