"""A problem's program and where everything stands in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mullet.planning.commitment.linear import LinearProgram
from mullet.planning.commitment.problem import Problem

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """The program with the places of its variables (columns) and constraint families (rows).

    A place of -1 says that there is no such variable or row.
    """

    problem: Problem
    program: LinearProgram
    at_least: tuple[Places, ...]
    """Per mining group (M, T): loads at or above each step; [0] is how many run."""
    starts: tuple[Places, ...]
    """Per mining group (T,): loads started."""
    circuit_mw: Places
    """(circuits, T) Most power of the managed loads, auxiliaries and cooling at each circuit; bounded by its limit."""
    import_mw: Places
    """(T,) Energy drawn from the grid, by expected draws, `Site.fixed_mw` and cooling included."""
    sold_mw: Places
    """(T,) Power bought ahead that is sold back."""
    active: tuple[Places, ...]
    """Per pool, in the order of services and their pools, (T,): active GPUs."""
    segments: tuple[Places, ...]
    """Per pool (S, T): power in each segment."""
    unserved: tuple[Places, ...]
    """Per service (tiers, T): tokens/s of demand in thousands that go unserved."""
    peaks_mw: Places
    """(demand charges,) Billed peak above the floor."""
    rows: Mapping[str, Places]
    """Per family, the rows that state it, in an array whose shape the builder documents."""
    slacks: Mapping[str, Places] = field(default_factory=dict)
    """Per family of rows that may give, the variables by which they do, shaped like the rows; -1 where one is hard."""
