"""What another facility, price or demand makes of a plan: money and power, one plan less another."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mullet.domain.units import SECONDS_PER_HOUR, WATTS_PER_MW
from mullet.planning.explain import Explanation, Stretch, mean_watts


@dataclass(frozen=True, slots=True)
class Piece:
    """What differs over [start, end), where neither plan changes."""

    start: float
    end: float
    drawn_watts: float
    """Planned power with the changes less that without."""
    price_per_mwh: float


@dataclass(frozen=True, slots=True)
class Difference:
    """The plan with the changes less the plan without, over the horizon."""

    objective: float
    mean_watts: float
    mwh: float
    most_watts: float
    """The largest difference in power at any time, with its sign."""
    groups: Mapping[str, float]
    """Per group: difference of mean watts."""
    pieces: tuple[Piece, ...]


def difference(before: Explanation, after: Explanation) -> Difference:
    """Return what the changes make of the plan; both are compared where both horizons lie."""
    pieces = tuple(_pieces(before.stretches, after.stretches))
    hours = sum(piece.end - piece.start for piece in pieces) / SECONDS_PER_HOUR
    watt_hours = sum(piece.drawn_watts * (piece.end - piece.start) for piece in pieces) / SECONDS_PER_HOUR
    keys = [worth.key for worth in after.groups]
    return Difference(
        objective=after.certificate.objective - before.certificate.objective,
        mean_watts=watt_hours / hours if hours > 0.0 else 0.0,
        mwh=watt_hours / WATTS_PER_MW,
        most_watts=max((piece.drawn_watts for piece in pieces), key=abs, default=0.0),
        groups={key: mean_watts(after.stretches, key) - mean_watts(before.stretches, key) for key in keys},
        pieces=pieces,
    )


def _pieces(before: Sequence[Stretch], after: Sequence[Stretch]) -> Iterator[Piece]:
    """Yield differences between neighbouring starts and ends of either: a price jump may cut one grid only."""
    edges = sorted({edge for stretch in (*before, *after) for edge in (stretch.start, stretch.end)})
    i = j = 0
    for start, end in itertools.pairwise(edges):
        while i < len(before) - 1 and before[i].end <= start:
            i += 1
        while j < len(after) - 1 and after[j].end <= start:
            j += 1
        old, new = before[i], after[j]
        if old.start <= start < old.end and new.start <= start < new.end:
            yield Piece(start, end, new.drawn_watts - old.drawn_watts, new.price_per_mwh - old.price_per_mwh)


def joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces with equal neighbours joined."""
    found: list[Piece] = []
    for piece in pieces:
        last = found[-1] if found else None
        same = last is not None and last.end == piece.start and _alike(last, piece)
        if last is not None and same:
            found[-1] = replace(last, end=piece.end)
        else:
            found.append(piece)
    return found


def _alike(one: Piece, other: Piece) -> bool:
    return abs(one.drawn_watts - other.drawn_watts) < 0.5 and abs(one.price_per_mwh - other.price_per_mwh) < 0.005
