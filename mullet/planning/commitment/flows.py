"""Power flowing through the circuit tree: the most that may flow, what is expected to, and mining's part of it.

Five flows are known per circuit. `most` and `mean` hold managed loads, auxiliaries and cooling beneath; `managed` and
`managed_mean` hold managed loads alone, which is what auxiliaries and cooling follow; `mining` holds the expected
power of mining groups alone. A flow is a variable of its own only where none of the others says it already, so that a
facility whose expected power is a fixed share of the most costs one variable per circuit and step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mullet.planning.commitment.assembly import Assembly, Places, nowhere
from mullet.planning.commitment.problem import CircuitLimit, Cooling, Problem

_SAME = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Managed load on a circuit: K variables per step, and what one unit of each may draw and is expected to draw."""

    circuit: int
    variables: Places
    """(K, T)"""
    highest: NDArray[np.float64]
    """(K,) Largest value of each variable."""
    most_mw: NDArray[np.float64]
    """(K,)"""
    mean_mw: NDArray[np.float64]
    """(K,)"""
    mining: bool


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """`share` times a variable, in MW."""

    places: Places
    """(T,)"""
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class _Range:
    """Where the numbers of several loads lie; the least above the most where there are no loads."""

    least: float
    most: float

    def joined(self, other: _Range) -> _Range:
        return _Range(min(self.least, other.least), max(self.most, other.most))

    def raised(self, by: float) -> _Range:
        return _Range(self.least + by, self.most + by)

    @property
    def common(self) -> float | None:
        """The number that all have in common, 1 without loads; None if they differ."""
        if self.most < self.least:
            return 1.0
        same = np.isfinite(self.most) and self.most - self.least <= _SAME * abs(self.most)
        return self.least if same else None


_NOTHING = _Range(np.inf, -np.inf)


@dataclass(frozen=True, slots=True)
class _Beneath:
    """What there is at and beneath a circuit, by structure."""

    cooled: bool = False
    mining: bool = False
    pools: bool = False
    shares: _Range = _NOTHING
    """Expected power per MW of the most power, of each load."""
    factors: _Range = _NOTHING
    """MW at the circuit per MW of each load, auxiliaries that follow it included."""

    def joined(self, other: _Beneath) -> _Beneath:
        return _Beneath(
            self.cooled or other.cooled,
            self.mining or other.mining,
            self.pools or other.pools,
            self.shares.joined(other.shares),
            self.factors.joined(other.factors),
        )


class Flows:
    """The flows of a problem's circuits; asked for one, it adds the variables and rows that the flow needs."""

    def __init__(self, assembly: Assembly, problem: Problem, sources: tuple[Source, ...]) -> None:
        self._assembly = assembly
        self._problem = problem
        self._circuits = problem.circuits
        self._steps = problem.grid.count
        count = len(self._circuits)
        self._children: list[list[int]] = [[] for _ in range(count)]
        self._sources: list[list[Source]] = [[] for _ in range(count)]
        for node, circuit in enumerate(self._circuits):
            if circuit.parent >= 0:
                self._children[circuit.parent].append(node)
        for source in sources:
            self._sources[source.circuit].append(source)
        self._beneath = self._look_beneath()
        self._made: dict[tuple[str, int], Flow] = {}
        segments = sum(len(circuit.cooling) for circuit in self._circuits)
        self.rows: dict[str, Places] = {
            "circuit": nowhere(count, self._steps),
            "slack": nowhere(count, self._steps),
            "mean": nowhere(count, self._steps),
            "managed": nowhere(count, self._steps),
            "managed_mean": nowhere(count, self._steps),
            "mining": nowhere(count, self._steps),
            "cooling": nowhere(segments, self._steps),
            "cooling_mean": nowhere(segments, self._steps),
            "cooling_cap": nowhere(count, self._steps),
            "cooling_cap_mean": nowhere(count, self._steps),
        }
        self.over_mw = nowhere(count, self._steps)
        """(circuits, T) Power above a limit that has a price."""
        for node in reversed(range(count)):
            self._make_most(node)

    @property
    def circuit_mw(self) -> Places:
        """(circuits, T) Most power at each circuit."""
        made = [self._made["most", node].places for node in range(len(self._circuits))]
        return np.stack(made) if made else nowhere(0, self._steps)

    def mean(self, node: int) -> Flow:
        """Return the expected power at a circuit, auxiliaries and cooling included."""
        here = self._beneath[node]
        share = here.shares.common
        if share == 1.0 or (share is not None and not here.cooled):
            return replace(self._made["most", node], share=share)
        return self._flow("mean", node)

    def mining(self, node: int) -> Flow | None:
        """Return the expected power of mining beneath a circuit; None if there is none."""
        here = self._beneath[node]
        if not here.mining:
            return None
        return self._flow("mining", node) if here.pools else self._managed_mean(node)

    def highest_mean_mw(self) -> NDArray[np.float64]:
        """Return (T,) the expected power of everything at its highest, auxiliaries and cooling included."""
        total = np.zeros(self._steps)
        for node, circuit in enumerate(self._circuits):
            managed = self._highest(node, mean=True)
            own = managed if circuit.parent < 0 else 0.0
            total += own + circuit.follow * managed + cooling_mw(circuit.cooling, np.full(self._steps, managed))
        return total

    def _managed(self, node: int) -> Flow:
        factor = self._beneath[node].factors.common
        if self._beneath[node].cooled or not factor:
            return self._flow("managed", node)
        return replace(self._made["most", node], share=1.0 / factor)

    def _managed_mean(self, node: int) -> Flow:
        here = self._beneath[node]
        share, factor = here.shares.common, here.factors.common
        if share is not None:
            managed = self._managed(node)
            return replace(managed, share=managed.share * share)
        if here.cooled or not factor:
            return self._flow("managed_mean", node)
        mean = self.mean(node)
        return replace(mean, share=mean.share / factor)

    def _beneath_of(self, name: str, node: int) -> Flow | None:
        if name == "most":
            return self._made["most", node]
        if name == "mining":
            return self.mining(node)
        return {"mean": self.mean, "managed": self._managed, "managed_mean": self._managed_mean}[name](node)

    def _flow(self, name: str, node: int) -> Flow:
        """Return a flow with a variable of its own, made when first asked for."""
        if (name, node) not in self._made:
            places = self._assembly.variables((self._steps,))
            self._made[name, node] = Flow(places)
            self._balance(name, name, node, places)
        return self._made[name, node]

    def _make_most(self, node: int) -> None:
        circuit = self._circuits[node]
        hard = circuit.slack_per_mwh is None
        places = self._assembly.variables((self._steps,), 0.0, circuit.limit_mw if hard else np.inf)
        self._made["most", node] = Flow(places)
        self._balance("most", "circuit", node, places)
        if circuit.slack_per_mwh is not None:
            cost = -circuit.slack_per_mwh * self._problem.grid.hours
            over = self._assembly.variables((self._steps,), gain=cost)
            rows = self._assembly.rows((self._steps,), -np.inf, circuit.limit_mw)
            self._assembly.put(rows, places, 1.0)
            self._assembly.put(rows, over, -1.0)
            self.over_mw[node] = over
            self.rows["slack"][node] = rows

    def _balance(self, name: str, family: str, node: int, places: Places) -> None:
        """Write flow = children + own load, and for flows with auxiliaries what follows and cools."""
        rows = self._assembly.rows((self._steps,), 0.0, 0.0)
        self.rows[family][node] = rows
        circuit = self._circuits[node]
        mean = name in ("mean", "managed_mean", "mining")
        follow = circuit.follow if name in ("most", "mean") else 0.0
        terms = _Terms()
        for child in self._children[node]:
            terms.add(self._beneath_of(name, child), 1.0)
            if follow:
                terms.add(self._managed_mean(child) if mean else self._managed(child), follow)
        self._assembly.put(rows, places, 1.0)
        for flow in terms.flows():
            self._assembly.put(rows, flow.places, -flow.share)
        for source in self._sources[node]:
            if source.mining or name != "mining":
                draw = (source.mean_mw if mean else source.most_mw) * (1.0 + follow)
                self._assembly.put(rows, source.variables, -draw[:, np.newaxis])
        if circuit.cooling and name in ("most", "mean"):
            self._assembly.put(rows, self._cool(node, circuit, mean), -1.0)

    def _cool(self, node: int, circuit: CircuitLimit, mean: bool) -> Places:
        """Add a plant's draw: at least its convex curve and, lest it grow where energy earns, at most its chord."""
        suffix = "_mean" if mean else ""
        cooling = self._assembly.variables((self._steps,))
        beneath = self._managed_mean(node) if mean else self._managed(node)
        before = sum(len(other.cooling) for other in self._circuits[:node])
        for number, segment in enumerate(circuit.cooling):
            rows = self._assembly.rows((self._steps,), segment.fixed_mw)
            self._assembly.put(rows, cooling, 1.0)
            self._assembly.put(rows, beneath.places, -segment.slope * beneath.share)
            self.rows["cooling" + suffix][before + number] = rows
        none = cooling_mw(circuit.cooling, np.zeros(self._steps))
        highest = self._highest(node, mean)
        rise = (cooling_mw(circuit.cooling, np.full(self._steps, highest)) - none) / highest if highest > 0.0 else none
        rows = self._assembly.rows((self._steps,), -np.inf, none)
        self._assembly.put(rows, cooling, 1.0)
        self._assembly.put(rows, beneath.places, -(rise if highest > 0.0 else 0.0) * beneath.share)
        self.rows["cooling_cap" + suffix][node] = rows
        return cooling

    def _highest(self, node: int, mean: bool) -> float:
        """Return the power of all managed load beneath at its highest."""
        own = sum(float((s.mean_mw if mean else s.most_mw) @ s.highest) for s in self._sources[node])
        return own + sum(self._highest(child, mean) for child in self._children[node])

    def _look_beneath(self) -> list[_Beneath]:
        found = [_Beneath()] * len(self._circuits)
        for node in reversed(range(len(self._circuits))):
            circuit = self._circuits[node]
            here = _Beneath(cooled=bool(circuit.cooling))
            for source in self._sources[node]:
                here = here.joined(_kind(source))
            for child in self._children[node]:
                here = here.joined(found[child])
            found[node] = replace(here, factors=here.factors.raised(circuit.follow))
        return found


def cooling_mw(segments: tuple[Cooling, ...], beneath_mw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (T,) the power of a cooling plant over (T,) managed load beneath it: its curve, and never below 0."""
    drawn = np.zeros_like(beneath_mw)
    for segment in segments:
        drawn = np.maximum(drawn, segment.slope * beneath_mw + segment.fixed_mw)
    return drawn


def _kind(source: Source) -> _Beneath:
    drawing = source.most_mw != 0.0
    shares = source.mean_mw[drawing] / source.most_mw[drawing]
    least, most = (float(shares.min()), float(shares.max())) if len(shares) else (np.inf, -np.inf)
    if np.any(source.mean_mw[~drawing] != 0.0):
        least, most = 0.0, np.inf
    return _Beneath(mining=source.mining, pools=not source.mining, shares=_Range(least, most), factors=_Range(1.0, 1.0))


class _Terms:
    """Flows summed, those of one variable into one coefficient."""

    def __init__(self) -> None:
        self._flows: dict[int, Flow] = {}

    def add(self, flow: Flow | None, times: float) -> None:
        if flow is not None and len(flow.places):
            key = int(flow.places[0])
            known = self._flows.get(key)
            share = flow.share * times + (known.share if known is not None else 0.0)
            self._flows[key] = Flow(flow.places, share)

    def flows(self) -> tuple[Flow, ...]:
        return tuple(self._flows.values())
