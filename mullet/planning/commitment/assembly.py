"""A linear program put together from blocks of numpy arrays, without a Python loop over its coefficients."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mullet.planning.commitment.linear import LinearProgram, Timeline

Places = NDArray[np.int64]


def nowhere(*shape: int) -> Places:
    """Return places of the shape that say that there is no variable or row."""
    return np.full(shape, -1, dtype=np.int64)


class Assembly:
    """Variables and rows in the order in which they are asked for, coefficients in any order.

    A coefficient that happens to be 0 keeps its place, so that the pattern depends on what is asked for alone. Of
    variables and rows asked for in blocks of as many as there are steps, the program says which step is whose.
    """

    def __init__(self, starts_s: NDArray[np.float64] | None = None) -> None:
        self._starts_s = starts_s
        """Instants at which the steps begin."""
        self._steps = 0 if starts_s is None else len(starts_s)
        self._variables = _Sides()
        self._rows = _Sides()
        self._kinds: tuple[list[Places], list[Places]] = ([], [])
        self._gain: list[NDArray[np.float64]] = []
        self._whole: list[NDArray[np.bool_]] = []
        self._blocks: list[tuple[Places, Places, NDArray[np.float64]]] = []

    def variables(
        self,
        shape: tuple[int, ...],
        low: ArrayLike = 0.0,
        high: ArrayLike = np.inf,
        gain: ArrayLike = 0.0,
        whole: bool = False,
    ) -> Places:
        """Return the places of new variables; bounds and gain broadcast to the shape."""
        places = self._variables.add(shape, low, high)
        self._note(0, places)
        self._gain.append(_spread(gain, shape))
        self._whole.append(np.full(places.size, whole))
        return places

    def rows(
        self,
        shape: tuple[int, ...],
        low: ArrayLike = -np.inf,
        high: ArrayLike = np.inf,
        at: Places | None = None,
    ) -> Places:
        """Return the places of new rows, without coefficients as yet; sides broadcast to the shape.

        `at` names the steps that the rows are for, where not every step has one.
        """
        places = self._rows.add(shape, low, high)
        if at is None:
            self._note(1, places)
        else:
            table = nowhere(self._steps)
            table[at] = places
            self._kinds[1].append(table[None, :])
        return places

    def put(self, rows: Places, variables: Places, coefficients: ArrayLike) -> None:
        """Write coefficients; the three broadcast together, and no place may be written twice."""
        numbers = np.asarray(coefficients, dtype=np.float64)
        if rows.shape == variables.shape:
            self._blocks.append((rows.ravel(), variables.ravel(), _spread(numbers, rows.shape)))
            return
        block = np.broadcast_arrays(rows, variables, numbers)
        self._blocks.append((block[0].ravel(), block[1].ravel(), block[2].ravel()))

    def program(self, constant: float = 0.0) -> LinearProgram:
        """Return everything so far as one program, rows in order, each row's coefficients as they were written."""
        low, high = self._variables.sides()
        row_low, row_high = self._rows.sides()
        empty = np.zeros(0, dtype=np.int64)
        rows = np.concatenate([empty, *(block[0] for block in self._blocks)])
        columns = np.concatenate([empty, *(block[1] for block in self._blocks)])
        coefficients = np.concatenate([np.zeros(0), *(block[2] for block in self._blocks)])
        order = np.argsort(rows, kind="stable")
        counts = np.bincount(rows, minlength=len(row_low))
        return LinearProgram(
            gain=np.concatenate([np.zeros(0), *self._gain]),
            low=low,
            high=high,
            whole=np.concatenate([np.zeros(0, dtype=np.bool_), *self._whole]),
            row_low=row_low,
            row_high=row_high,
            starts=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)]),
            columns=columns[order],
            coefficients=coefficients[order],
            constant=constant,
            timeline=self._timeline(len(low), len(row_low)),
        )

    def _note(self, kind: int, places: Places) -> None:
        if self._steps and places.ndim and places.shape[-1] == self._steps:
            self._kinds[kind].append(places.reshape(-1, self._steps))

    def _timeline(self, variables: int, rows: int) -> Timeline | None:
        if self._starts_s is None:
            return None
        tables = [np.concatenate([nowhere(0, self._steps), *kinds]) for kinds in self._kinds]
        loose = []
        for table, count in zip(tables, (variables, rows), strict=True):
            free = np.ones(count, dtype=np.bool_)
            free[table[table >= 0]] = False
            loose.append(np.flatnonzero(free))
        return Timeline(self._starts_s, tables[0], tables[1], loose[0], loose[1])


def _spread(numbers: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the numbers broadcast to the shape, flat; the common cases without the cost of `broadcast_to`."""
    given = np.asarray(numbers, dtype=np.float64)
    if given.ndim == 0:
        return np.full(math.prod(shape), given)
    return (given if given.shape == shape else np.broadcast_to(given, shape)).ravel()


class _Sides:
    """Lower and upper sides of variables or of rows."""

    def __init__(self) -> None:
        self._count = 0
        self._low: list[NDArray[np.float64]] = []
        self._high: list[NDArray[np.float64]] = []

    def add(self, shape: tuple[int, ...], low: ArrayLike, high: ArrayLike) -> Places:
        count = math.prod(shape)
        places = np.arange(self._count, self._count + count, dtype=np.int64).reshape(shape)
        self._count += count
        self._low.append(_spread(low, shape))
        self._high.append(_spread(high, shape))
        return places

    def sides(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.concatenate([np.zeros(0), *self._low]), np.concatenate([np.zeros(0), *self._high])
