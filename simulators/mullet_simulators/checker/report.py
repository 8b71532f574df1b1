"""The report of docs/wire.md: every figure of a run in one JSON object."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .against import check_claims
from .happenings import follow_events, grade_demand_step
from .limits import integrate_limits
from .pools import follow_pools
from .record import Record, read_claims, read_truth


def grade(truth_lines: Iterable[str], claim_lines: Iterable[str]) -> Record:
    """Grade a run from the lines of both logs. Raises UnreadableRecord where one is not what it should be."""
    truth, claims = read_truth(truth_lines), read_claims(claim_lines)
    limits = integrate_limits(truth)
    claimed = check_claims(truth, claims)
    pools = follow_pools(truth)
    return {
        "cap_violations": len(limits.violations),
        "cap_violation_list": limits.violations,
        "over_limit_s": round(limits.over_limit_s, 3),
        "over_limit_mw_s": round(limits.over_limit_mw_s, 6),
        "worst_over_percent": round(limits.worst_over_percent, 3),
        "longest_over_102_s": round(limits.longest_over_102_s, 3),
        "longest_over_110_s": round(limits.longest_over_110_s, 3),
        "worst_15min_mean_percent": round(limits.worst_15min_mean_percent, 3),
        "truth_mismatches": len(claimed.mismatches),
        "mismatch_list": claimed.mismatches,
        "claims_unchecked": claimed.unchecked,
        "false_acks": len(claimed.caught_false_acks),
        "false_ack_list": claimed.caught_false_acks,
        "uncaught_false_acks": claimed.uncaught_false_acks,
        "pool_changes": len(pools.requested),
        "pool_change_list": pools.requested,
        "pool_changes_by_cause": pools.by_cause,
        "commands": claimed.commands,
        "commands_without_outcome": claimed.without_outcome,
        "outcomes": claimed.outcomes,
        "budgets": claimed.budgets,
        "budgets_over_limit": claimed.budgets_over_limit,
        "budgets_below_truth": claimed.budgets_below_truth,
        "events": follow_events(truth, claims),
        "demand_step": grade_demand_step(truth),
        "truth_seconds": round(truth.end - truth.start, 3),
        "truth_samples": len(truth.times),
        "truth_gaps": truth.gaps,
    }


def grade_files(truth: Path, claims: Path) -> Record:
    """Grade a run from its two files. Raises OSError or UnreadableRecord."""
    with truth.open(encoding="utf-8") as truth_lines, claims.open(encoding="utf-8") as claim_lines:
        return grade(truth_lines, claim_lines)


def passes(report: Record) -> bool:
    """No violation, no mismatch, no false acknowledgement believed, no pool list changed, and a whole truth log."""
    wrong = ("cap_violations", "truth_mismatches", "uncaught_false_acks", "pool_changes", "truth_gaps")
    return not any(report[name] for name in wrong)
