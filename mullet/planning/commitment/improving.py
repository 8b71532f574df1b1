"""A few loads moved one at a time, judged by what the whole schedule then earns and breaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mullet.planning.commitment.certificate import Ints, Schedule, evaluate, violations
from mullet.planning.commitment.problem import Problem

_BETTER = 1e-9


def improve(problem: Problem, schedule: Schedule, tries: int) -> Schedule:
    """Return the schedule after up to `tries` moves of one load were judged and all that earn more were made.

    Prices that only the whole schedule knows (peaks, budgets, slacks) count here, which they do not where loads are
    fitted to limits one row at a time. What is broken already may stay so, and is mended at any price where one move
    can; nothing else is broken.
    """
    earned = evaluate(problem, schedule).earned
    broken = set(violations(problem, schedule))
    better = True
    while better and tries > 0:
        better = False
        for place in range(len(problem.mining)):
            for counts in _moves(np.asarray(schedule.at_least[place], dtype=np.int64), problem.mining[place].count):
                if tries <= 0:
                    return schedule
                tries -= 1
                changed = _with(problem, schedule, place, counts)
                gain = evaluate(problem, changed).earned - earned
                worth_it = gain > _BETTER * max(1.0, abs(earned))
                if not worth_it and not broken:
                    continue
                now = set(violations(problem, changed))
                mended = _places(now) < _places(broken)
                if mended or (worth_it and now <= broken):
                    schedule, earned, broken, better = changed, earned + gain, now, True
                    break
    return schedule


def _places(broken: set[str]) -> set[str]:
    """Return what is broken and where, without by how much: one limit broken does not pay for two promises kept."""
    return {words.rpartition(" by ")[0] for words in broken}


def _moves(counts: Ints, most: int) -> Iterator[Ints]:
    """Yield (M, T) counts with one load more or fewer at or above a step, over one step or between two changes."""
    levels, steps = counts.shape
    for level in range(levels):
        edges = [0, *(np.flatnonzero(np.any(np.diff(counts, axis=1) != 0, axis=0)) + 1).tolist(), steps]
        spans = {(first, last) for k, first in enumerate(edges) for last in edges[k + 1 : k + 3]}
        spans |= {(step, step + 1) for step in range(steps)}
        for first, last in sorted(spans, key=lambda span: (span[0] - span[1], span[0])):
            for by in (1, -1):
                changed = counts.copy()
                changed[level, first:last] += by
                # The steps beneath and above follow, so that no load stands above a step that it does not reach.
                if by > 0:
                    changed[:level] = np.maximum(changed[:level], changed[level])
                else:
                    changed[level + 1 :] = np.minimum(changed[level + 1 :], changed[level])
                if changed[0].max() <= most and changed.min() >= 0:
                    yield changed


def _with(problem: Problem, schedule: Schedule, place: int, counts: Ints) -> Schedule:
    before = problem.mining[place].running[0]
    at_least, starts = list(schedule.at_least), list(schedule.starts)
    at_least[place] = counts
    starts[place] = np.maximum(np.diff(counts[0], prepend=before), 0)
    return replace(schedule, at_least=tuple(at_least), starts=tuple(starts))
