"""The mining groups of a facility as a fleet, derived once: what the knapsack fills tick by tick."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from mullet.domain.facility import Facility
from mullet.domain.load import LoadKind
from mullet.domain.units import WATTS_PER_MW
from mullet.planning.fleet import make_fleet
from mullet.planning.increments import Program, prepare
from mullet.planning.index import index_of
from mullet.planning.merit import Market

_ATTRIBUTE = "_planning_banks"
_APART_WATTS = 1e-3


@dataclass(slots=True)
class Banks:
    """One bank for each mining group, by the groups' least id; points are the groups' hull points."""

    row: dict[int, int]
    """Group number to bank."""
    nodes: dict[str, int]
    """Circuit id to its index."""
    width: int
    program: Program
    made_for: tuple[float, float]
    """What the program was made for: worth of a TH/s and deadband."""


def banks_of(facility: Facility, market: Market) -> Banks | None:
    """Return the facility's mining groups, sorted anew when the market's worth of hashing changed; None without any."""
    wanted = (market.earned_per_th_hour * WATTS_PER_MW, market.deadband_per_mwh)
    # Kept in the instance like the index: it says the same whenever it is built.
    found = cast("Banks | None", facility.__dict__.get(_ATTRIBUTE))
    if found is None:
        found = _build(facility, wanted)
        facility.__dict__[_ATTRIBUTE] = found
    elif found.made_for != wanted:
        found.program, found.made_for = prepare(found.program.fleet, *wanted), wanted
    return found if found.row else None


def _build(facility: Facility, made_for: tuple[float, float]) -> Banks:
    nodes = {circuit.id: number for number, circuit in enumerate(facility.circuits)}
    items = [item for item in index_of(facility).groups if item.group.kind is LoadKind.MINER]
    items.sort(key=lambda item: item.first_id)
    width = max((len(item.hull) for item in items), default=1)
    watts, value = np.zeros((len(items), width)), np.zeros((len(items), width))
    for row, item in enumerate(items):
        points = item.group.points
        for k in range(width):
            at = item.hull[min(k, len(item.hull) - 1)]
            # Points whose most is the same (the worst draw caps it) stay apart by what nobody can measure.
            watts[row, k] = max(item.most_watts[at], watts[row, k - 1] + _APART_WATTS) if k else item.most_watts[at]
            if 0 < k < len(item.hull):
                low, high = points[item.hull[k - 1]], points[at]
                # Merit goes by nominal watts, limits by the most that may be drawn.
                merit = (high.th_per_s - low.th_per_s) / (high.watts - low.watts)
                value[row, k] = value[row, k - 1] + merit * (watts[row, k] - watts[row, k - 1])
            elif k:
                value[row, k] = value[row, k - 1]
    parent = [nodes[c.parent] if c.parent is not None else -1 for c in facility.circuits]
    follow = np.zeros(len(nodes))
    for auxiliary in facility.auxiliaries:
        follow[nodes[auxiliary.circuit]] += auxiliary.follows
    fleet = make_fleet(
        parent,
        [nodes[item.group.circuit] for item in items],
        np.arange(len(items)),
        watts if items else np.zeros((1, 1)),
        value if items else np.zeros((1, 1)),
        [len(item.hull) for item in items] if items else None,
        follow,
    )
    # Every point given is on the groups' hull; rounding must not take one off the fleet's.
    every = np.where(np.arange(width)[None, :] < fleet.points[:, None], np.arange(width)[None, :], -1)
    fleet = replace(fleet, hull=every, hull_points=fleet.points)
    row_of = {item.number: int(fleet.bank[row]) for row, item in enumerate(items)}
    return Banks(row_of, nodes, width, prepare(fleet, *made_for), made_for)
