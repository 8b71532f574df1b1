"""What is counted of one make of a bank: watts and hash rates by operating point, and ramps. Pure and repeatable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mullet.domain.load import OperatingPoint
from mullet.planning.learned import LearnedMake, LearnedPoint, LearnedRamp
from mullet.planning.sketch import Sketch


class PointFold:
    """What was read of all loads of a make at one point."""

    def __init__(self, nameplate: OperatingPoint) -> None:
        """Begin with nothing seen at a point, as the policy has it."""
        self.nameplate = nameplate
        self.watts, self.rates = Sketch(), Sketch()
        self.who: set[str] = set()
        self.loads = 0
        self.most_watts: float | None = None

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on from what `kept` returned."""
        self.watts, self.rates = _sketch(kept["watts"]), _sketch(kept["rates"])
        self.loads = int(kept["loads"])
        self.most_watts = None if kept["most_watts"] is None else float(kept["most_watts"])

    def take_in(self, other: PointFold) -> None:
        """Count what was seen of `other`, too: the same loads, before it was known what they are."""
        self.watts.take_in(other.watts)
        self.rates.take_in(other.rates)
        self.who |= other.who
        self.loads = max(self.loads, other.loads)
        seen = [most for most in (self.most_watts, other.most_watts) if most is not None]
        self.most_watts = max(seen, default=None)

    def kept(self) -> dict[str, Any]:
        """Return what a later run goes on from, as plain JSON data."""
        return {
            "watts": _bins(self.watts),
            "rates": _bins(self.rates),
            "loads": max(self.loads, len(self.who)),
            "most_watts": self.most_watts,
            "nameplate": [self.nameplate.asked_watts, self.nameplate.th_per_s],
        }

    def learned(self) -> LearnedPoint:
        """Return the point as measured."""
        plate = self.nameplate
        return LearnedPoint(
            name=plate.name,
            nameplate_watts=plate.watts,
            nameplate_th_per_s=plate.th_per_s,
            samples=len(self.watts),
            loads=max(self.loads, len(self.who)),
            watts=self.watts.about(0.5),
            watts_p95=self.watts.at_most(0.95),
            most_watts=self.most_watts,
            rates=len(self.rates),
            th_per_s=self.rates.about(0.5),
        )


class MakeFold:
    """What was read of the loads of one make in one bank."""

    def __init__(self, points: Sequence[OperatingPoint]) -> None:
        """`points` are the bank's, by nameplate."""
        self.points = {point.name: PointFold(point) for point in points}
        self.ramp_down, self.ramp_up = Sketch(), Sketch()
        self.members = 0
        """Loads of this make in the bank now."""
        self.became: set[str] = set()
        """Of loads whose make was not known: what those that have left have turned out to be."""

    @classmethod
    def restored(cls, points: Sequence[OperatingPoint], kept: Mapping[str, Any]) -> MakeFold:
        """Return a fold that goes on from what `kept` returned, but for points that are no longer the same.

        Raises:
            KeyError, TypeError, AttributeError, ValueError: `kept` does not have that shape.
        """
        fold = cls(points)
        for point in points:
            known = kept["points"].get(point.name)
            if known is not None and list(known["nameplate"]) == [point.asked_watts, point.th_per_s]:
                fold.points[point.name].restore(known)
        fold.ramp_down, fold.ramp_up = _sketch(kept["ramp_down"]), _sketch(kept["ramp_up"])
        fold.became = {str(make) for make in kept.get("became", ())}
        return fold

    def take_in(self, other: MakeFold) -> None:
        """Count what was seen of `other`, too: the same loads, before it was known what they are."""
        for name, point in self.points.items():
            point.take_in(other.points[name])
        self.ramp_down.take_in(other.ramp_down)
        self.ramp_up.take_in(other.ramp_up)

    def kept(self) -> dict[str, Any]:
        """Return what a later run goes on from, as plain JSON data."""
        return {
            "points": {name: point.kept() for name, point in self.points.items()},
            "ramp_down": _bins(self.ramp_down),
            "ramp_up": _bins(self.ramp_up),
            "became": sorted(self.became),
        }

    def learned(self, bank: str, make: str | None) -> LearnedMake:
        """Return what was learnt of `make` in `bank`."""
        points = tuple(point.learned() for point in self.points.values())
        return LearnedMake(bank, make, points, _ramp_of(self.ramp_down), _ramp_of(self.ramp_up), self.members)


def _sketch(bins: Mapping[str, int]) -> Sketch:
    return Sketch({int(index): int(count) for index, count in bins.items()})


def _bins(sketch: Sketch) -> dict[str, int]:
    return {str(index): count for index, count in sketch.bins().items()}


def _ramp_of(sketch: Sketch) -> LearnedRamp:
    return LearnedRamp(len(sketch), sketch.about(0.5), sketch.at_most(0.95))
