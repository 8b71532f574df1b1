"""Random small fleets, and answers about them that share no code with the kernel."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mullet.planning.fleet import Fleet, make_fleet, make_standing
from mullet.planning.knapsack import Allocation, Program, prepare, solve

TOLERANCE_WATTS = 1e-5


@dataclass
class Case:
    """One instance as plain lists, and the kernel's view of it."""

    parent: list[int]
    circuit: list[int]
    profile: list[int]
    watts: list[list[float]]
    value: list[list[float]]
    follow: list[float]
    limits: np.ndarray
    level: list[int]
    known: dict[str, Any] = field(default_factory=dict)
    cost: float = 0.0
    band: float = 0.0

    @property
    def fleet(self) -> Fleet:
        width = max(len(row) for row in self.watts)
        padded = [[row + [row[-1]] * (width - len(row)) for row in rows] for rows in (self.watts, self.value)]
        points = [len(row) for row in self.watts]
        return make_fleet(self.parent, self.circuit, self.profile, *padded, points, self.follow)

    def solved(self, **changes: Any) -> Allocation:
        fleet = self.fleet
        made: Program = prepare(fleet, 1.0, self.band)
        return solve(made, make_standing(fleet, self.level, **self.known), self.limits, self.cost, **changes)

    def movable(self, load: int) -> bool:
        return bool(self.known.get("movable", [True] * len(self.circuit))[load])

    def used(self, levels: Any) -> np.ndarray:
        """Return [C] watts, walked up load by load; what cannot be moved stands where it stood."""
        used = np.zeros(len(self.parent))
        for load, level in enumerate(levels):
            draw = self.watts[self.profile[load]][level if self.movable(load) else self.level[load]]
            node, factor = self.circuit[load], 1.0
            while node >= 0:
                factor += self.follow[node]
                used[node] += draw * factor
                node = self.parent[node]
        return used

    def root_factor(self, load: int) -> float:
        node, factor = self.circuit[load], 1.0
        while node >= 0:
            factor += self.follow[node]
            node = self.parent[node]
        return factor

    def worth(self, levels: Any) -> float:
        """Return yield less energy of the movable loads, deadband aside."""
        total = 0.0
        for load, level in enumerate(levels):
            if self.movable(load):
                kind = self.profile[load]
                total += self.value[kind][level] - self.cost * self.root_factor(load) * self.watts[kind][level]
        return total

    def lowest(self) -> list[int]:
        return [0 if self.movable(load) else self.level[load] for load in range(len(self.circuit))]

    def kept(self, levels: Any) -> bool:
        """Whether every limit is kept that can be kept."""
        least = self.used(self.lowest())
        return bool(np.all(self.used(levels) <= np.maximum(self.limits, least) + TOLERANCE_WATTS))

    def best(self) -> float:
        """Return the worth of the best allocation of all there are."""
        choices = []
        for load, kind in enumerate(self.profile):
            top = self.known.get("ceiling", [7] * len(self.circuit))[load]
            here = range(min(top, len(self.watts[kind]) - 1) + 1)
            choices.append(here if self.movable(load) else range(self.level[load], self.level[load] + 1))
        return max(self.worth(levels) for levels in itertools.product(*choices) if self.kept(levels))

    def options(self) -> int:
        return int(np.prod([float(len(self.watts[kind])) for kind in self.profile])) if self.profile else 1


def joined(cases: list[Case]) -> Case:
    """Return one forest of all `cases`, at the first one's cost and deadband."""
    nodes = np.cumsum([0] + [len(case.parent) for case in cases])
    kinds = np.cumsum([0] + [len(case.watts) for case in cases])
    whole = Case([], [], [], [], [], [], np.concatenate([case.limits for case in cases]), [])
    whole.cost, whole.band = cases[0].cost, cases[0].band
    for case, node, kind in zip(cases, nodes[:-1].tolist(), kinds[:-1].tolist(), strict=True):
        whole.parent += [parent + node if parent >= 0 else -1 for parent in case.parent]
        whole.circuit += [circuit + node for circuit in case.circuit]
        whole.profile += [profile + kind for profile in case.profile]
        whole.watts += case.watts
        whole.value += case.value
        whole.follow += case.follow
        whole.level += case.level
        top = [len(case.watts[profile]) - 1 for profile in case.profile]
        plain = {"movable": [True] * len(top), "floor": [0] * len(top), "ceiling": top}
        for name, default in plain.items():
            whole.known[name] = np.append(whole.known.get(name, []), case.known.get(name, default))
    whole.known = {name: array.astype(bool if name == "movable" else int) for name, array in whole.known.items()}
    return whole


def draw_case(seed: int, most_loads: int = 8, follow: bool = False, busy: bool = True) -> Case:
    """Return a random instance; `busy` ones have held loads, floors, ceilings, wear and a deadband."""
    draw = np.random.default_rng(seed)
    nodes = int(draw.integers(1, 7))
    parent = [-1] + [int(draw.integers(0, node)) for node in range(1, nodes)]
    loads, kinds = int(draw.integers(1, most_loads + 1)), int(draw.integers(1, 4))
    watts, value = [], []
    for _ in range(kinds):
        points = int(draw.integers(1, 6))
        scale = float(draw.choice([1.0, 7.3]))
        watts.append([float(w) * scale for w in np.sort(draw.integers(0, 400, points))])
        value.append([float(v) for v in draw.integers(0, 300, points)])
    circuit, profile = draw.integers(0, nodes, loads).tolist(), draw.integers(0, kinds, loads).tolist()
    top = np.array([len(watts[kind]) - 1 for kind in profile])
    level = draw.integers(0, top + 1)
    most = max(row[-1] for row in watts)
    limits = draw.uniform(-0.1, 1.0, nodes) * most * loads
    known: dict[str, Any] = {}
    if busy:
        known = {"cycles": draw.integers(0, 3, loads).astype(float), "changed_at": draw.random(loads)}
        if draw.random() < 0.4:
            known["movable"] = draw.random(loads) < 0.8
        if draw.random() < 0.3:
            known["floor"] = np.where(draw.random(loads) < 0.5, level, 0)
        if draw.random() < 0.3:
            known["ceiling"] = np.where(draw.random(loads) < 0.5, level, top)
    return Case(
        parent,
        circuit,
        profile,
        watts,
        value,
        [float(f) for f in draw.choice([0.0, 0.1], nodes)] if follow else [0.0] * nodes,
        limits,
        level.tolist(),
        known,
        cost=float(draw.choice([0.0, 0.3, 1.0])),
        band=float(draw.choice([0.0, 0.2])) if busy else 0.0,
    )
