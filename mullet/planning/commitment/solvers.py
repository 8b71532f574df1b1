"""The solvers in the order in which they are asked: warm CLP, cold CLP, then HiGHS, which shares no code with it."""

from __future__ import annotations

from mullet.planning.commitment.clp import WarmClp
from mullet.planning.commitment.highs import solve_with_highs
from mullet.planning.commitment.linear import LinearProgram, Solution, Solve
from mullet.planning.commitment.verdict import find_fault
from mullet.ports import PlanningError

WARM, COLD, SECOND = "clp warm", "clp cold", "highs"
"""Who answered."""


class Solvers:
    """What a planner worker makes once and asks with every plan. Not for use from two threads."""

    def __init__(self, first: WarmClp | None = None, second: Solve = solve_with_highs) -> None:
        self._first = first or WarmClp()
        self._second = second

    def prepare(self, program: LinearProgram) -> None:
        """Build the kept model ahead of the first question; for idle time. A program of bad form is left alone."""
        try:
            self._first.prepare(program)
        except ValueError:
            self._first.forget()

    def forget(self) -> None:
        """Start cold next time."""
        self._first.forget()

    def solve(self, program: LinearProgram, limit_s: float) -> tuple[Solution, str]:
        """Solve the relaxation within about `limit_s` and say who answered: `WARM`, `COLD` or `SECOND`.

        Feasibility, objective and optimality of every answer are recomputed from its numbers (`find_fault`).

        Raises:
            PlanningError: nobody gave an answer that proves itself; the message has everybody's reasons.
        """
        by = WARM if self._first.fits(program) else COLD
        solution = self._first(program, limit_s)
        # The numbers of a large answer are gone through once.
        first_fault = None if self._first.has_proven(solution) else find_fault(program, solution)
        if first_fault is None:
            return solution, by
        self._first.forget()
        left_s = limit_s - self._first.elapsed_s
        if left_s <= 0.0:
            raise PlanningError(f"no optimum: CLP: {first_fault}; no time left for HiGHS")
        solution = self._second(program, left_s)
        second_fault = find_fault(program, solution)
        if second_fault is None:
            return solution, SECOND
        raise PlanningError(f"no optimum: CLP: {first_fault}; HiGHS: {second_fault}")
