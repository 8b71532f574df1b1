"""Pool lists: a fault may lose one; whoever changes one by a request takes what the miners earn."""

from __future__ import annotations

from dataclasses import dataclass, field

from .record import Record, Truth

FAULT = "fault"


@dataclass(slots=True)
class PoolFigures:
    requested: list[Record] = field(default_factory=list)
    """Changes by anything but a fault: none of them may be."""
    by_cause: dict[str, int] = field(default_factory=dict)


def follow_pools(truth: Truth) -> PoolFigures:
    """Count the changes of pool lists by what caused them; a cause that nobody knows is no fault."""
    figures = PoolFigures()
    for change in truth.pool_changes:
        cause = str(change.get("cause"))
        figures.by_cause[cause] = figures.by_cause.get(cause, 0) + 1
        if cause != FAULT:
            at_s = round(float(change["t"]) - truth.start, 3)
            figures.requested.append(
                {"load": change["load"], "at_s": at_s, "cause": cause, "count": change.get("count")}
            )
    return figures
