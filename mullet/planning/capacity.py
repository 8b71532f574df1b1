"""What each circuit can still carry while loads are given power one group after another."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mullet.planning.index import GroupIndex

_EPSILON_WATTS = 1e-6


class Capacity:
    """Watts left at every circuit; given to groups, never more than each circuit above them has left."""

    def __init__(self, left_watts: Mapping[str, float]) -> None:
        self.left = dict(left_watts)

    def take(self, item: GroupIndex, watts: float) -> None:
        """Give `watts` to the group, whether or not they are there."""
        for node, factor in zip(item.path, item.factors, strict=True):
            self.left[node] -= watts * factor

    def keep(self, node: str, watts: float) -> None:
        """Keep `watts` of one circuit from all that comes after."""
        self.left[node] -= watts

    def room(self, item: GroupIndex) -> tuple[float, str]:
        """Return the watts that the group may still get, at least 0, and the circuit that says so."""
        room, binding = math.inf, item.path[-1]
        for node, factor in zip(item.path, item.factors, strict=True):
            here = self.left[node] / factor
            if here < room:
                room, binding = here, node
        return max(0.0, room), binding

    def give(self, item: GroupIndex, each_watts: float, count: int) -> tuple[int, str]:
        """Give `each_watts` to as many of `count` loads as fit; return how many and the circuit that bound."""
        if each_watts <= 0.0:
            self.take(item, each_watts * count)
            return count, item.path[-1]
        room, binding = self.room(item)
        given = min(count, int((room + _EPSILON_WATTS) / each_watts))
        if given:
            self.take(item, each_watts * given)
        return given, binding
