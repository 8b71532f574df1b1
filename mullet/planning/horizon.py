"""The plan over the horizon: the request posed in numbers, solved, made whole, judged, and told as a plan.

The model is clustered unit commitment and economic dispatch; docs/model.md states it. No solver's word is taken: what
it says is feasible and worth is counted again, from its point and from the schedule made of it.
"""

from __future__ import annotations

import numpy as np

from mullet.domain.plan import Plan, PlanRequest, Rung
from mullet.planning.commitment.build import build
from mullet.planning.commitment.certificate import Schedule, evaluate, violations
from mullet.planning.commitment.check import check
from mullet.planning.commitment.contradictions import soften
from mullet.planning.commitment.linear import LinearProgram
from mullet.planning.commitment.mip import blocks_of, solve_whole
from mullet.planning.commitment.model import Model
from mullet.planning.commitment.schedule import hint_of, round_schedule, schedule_of
from mullet.planning.commitment.solvers import SECOND, Solvers
from mullet.planning.frame import frame
from mullet.planning.planned import planned
from mullet.planning.pose import pose
from mullet.ports import PlanningError

SMALL_LOADS = 60
"""Below so many miners whole numbers are searched for; above, rounding is as good and always says the same."""
_WHOLE_LIMIT_S = 5.0
_WHOLE_SHARE = 0.5
_LEAST_WHOLE_S = 0.05
_WARM_UP_S = 10.0


class HorizonPlanner:
    """Plans again and again, each time from where the last solution stood; lives in the planner's process."""

    def __init__(self, solvers: Solvers | None = None) -> None:
        self._solvers = solvers or Solvers()

    def __call__(self, request: PlanRequest, limit_s: float) -> Plan:
        """Return the best plan, in whole loads.

        `objective` is what the plan earns over the horizon, `bound` what no plan can exceed.

        Raises:
            PlanningError: the request makes no sense, or no solver has an optimum within `limit_s`.
        """
        made = frame(request)
        posed = pose(made)
        problem, notes = check(posed.problem)
        model = build(problem)
        try:
            solution, backend = self._solvers.solve(model.program, limit_s)
        except PlanningError as error:
            if "infeasible" not in str(error):
                raise
            # Promises that contradict each other are kept as far as they go, at a price.
            problem, softened = soften(problem)
            notes = (*notes, *softened)
            model = build(problem)
            solution, backend = self._solvers.solve(model.program, limit_s)
        bound = model.program.objective(solution.values)
        schedule = round_schedule(model, solution.values)
        objective = _judge(model, schedule)
        if 0 < sum(group.count for group in problem.mining) < SMALL_LOADS:
            schedule, objective, bound = _whole(model, schedule, objective, bound, limit_s)
        words = [f"{made.gaps} intervals without a price"] if made.gaps else []
        rung = Rung.SECOND if backend == SECOND else Rung.OPTIMAL
        detail = "; ".join(dict.fromkeys([*words, *problem.notes, *notes]))
        return planned(made, posed, model, schedule, solution, rung, objective, max(bound, objective), detail)


def plan_horizon(request: PlanRequest, limit_s: float) -> Plan:
    """Return one plan, from a cold start; see `HorizonPlanner`."""
    return HorizonPlanner()(request, limit_s)


def _judge(model: Model, schedule: Schedule) -> float:
    found = violations(model.problem, schedule)
    if found:
        raise PlanningError(f"the schedule breaks its own rules: {found[0]}")
    return evaluate(model.problem, schedule).earned


def _whole(
    model: Model, schedule: Schedule, objective: float, bound: float, limit_s: float
) -> tuple[Schedule, float, float]:
    """Return the best whole schedule found in what is left of the time, and what bounds it."""
    left_s = min(_WHOLE_LIMIT_S, limit_s * _WHOLE_SHARE)
    if left_s < _LEAST_WHOLE_S:
        return schedule, objective, bound
    try:
        hint = hint_of(model, schedule)
    except ValueError:
        # The schedule stands to within the certificate's tolerance, and the program's is finer.
        hint = None
    found = solve_whole(model.program, left_s, hint, blocks_of(model))
    if found.bound is not None:
        bound = min(bound, found.bound)
    if len(found.values):
        better = schedule_of(model, found.values)
        if not violations(model.problem, better):
            earned = evaluate(model.problem, better).earned
            if earned > objective:
                return better, earned, bound
    return schedule, objective, bound


def warm_up() -> None:
    """Load the solvers and solve one small program, so that the first plan does not wait for it."""
    one = np.ones(1)
    row = np.array([0, 1]), np.array([0]), one
    program = LinearProgram(one, 0.0 * one, one, np.zeros(1, dtype=bool), -np.inf * one, 0.5 * one, *row)
    solution, _ = Solvers().solve(program, _WARM_UP_S)
    if abs(program.objective(solution.values) - 0.5) > 1e-9:
        raise PlanningError("the solver cannot solve max x, x <= 0.5")
