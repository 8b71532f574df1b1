"""One tick's decision as a pure function of facility, snapshot and plan: what replay reproduces exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mullet.control.cooling import stop_without_flow
from mullet.control.counting import most_by_load
from mullet.control.reconcile import Dispatch, reconcile
from mullet.control.relieve import relieve
from mullet.control.returned import returned, take_on, tell
from mullet.control.verify import verify
from mullet.domain.command import CommandLedger, Outcome
from mullet.domain.facility import Facility
from mullet.domain.feeds import Cause
from mullet.domain.load import LoadKind
from mullet.domain.plan import Desired, Plan, Setpoint
from mullet.domain.snapshot import Snapshot
from mullet.planning.accounting import CircuitAccount, account
from mullet.planning.allocate import allocate


@dataclass(frozen=True)
class Decision:
    """All that one tick decided, and from what."""

    snapshot: Snapshot
    plan: Plan | None
    outcomes: tuple[Outcome, ...]
    accounts: Mapping[str, CircuitAccount]
    desired: Desired
    dispatch: Dispatch
    judged: CommandLedger
    """The ledger once the outcomes above are on record."""
    ledger: CommandLedger
    """The ledger once the outcomes and commands above are on record."""

    @property
    def acts(self) -> bool:
        """Whether the tick claims or sends anything (a quiet tick is not recorded)."""
        return bool(self.outcomes or self.dispatch.commands)


def decide(facility: Facility, snapshot: Snapshot, plan: Plan | None, advise: bool = False) -> Decision:
    """Judge what was asked, count what may be drawn, place every load, and say what may be sent.

    `advise` also decides for circuits in mode advise, as if they were in auto: what would be done.
    """
    outcomes = verify(facility, snapshot)
    pacing = facility.pacing
    ledger = snapshot.ledger.after_outcomes(outcomes, pacing.backoff_first_s, pacing.backoff_most_s)
    known = replace(snapshot, ledger=ledger)
    most = most_by_load(facility, known, advise)
    accounts = account(facility, known, advise)
    desired = relieve(facility, known, accounts, allocate(facility, known, accounts, plan, advise))
    if not known.records_ok:
        desired = _at_fail_safe(facility, desired)
    desired = stop_without_flow(facility, known, desired)
    back = returned(facility, known)
    desired = tell(facility, back, desired)
    if snapshot.first_reading_done:
        dispatch = reconcile(facility, known, accounts, most, desired)
    else:
        waiting = "waits until every load was read once since start"
        dispatch = Dispatch(withheld=dict.fromkeys(desired.setpoints, waiting))
    taken_on = take_on(facility, known, back, desired)
    outcomes = (*outcomes, *taken_on)
    ledger = ledger.after_outcomes(taken_on, pacing.backoff_first_s, pacing.backoff_most_s)
    return Decision(
        snapshot=snapshot,
        plan=plan,
        outcomes=outcomes,
        accounts=accounts,
        desired=desired,
        dispatch=dispatch,
        judged=ledger,
        ledger=ledger.after_commands(dispatch.commands),
    )


def _at_fail_safe(facility: Facility, desired: Desired) -> Desired:
    """Return `desired` with every miner at its fail-safe point: what cannot be recorded is not done for profit."""
    setpoints = dict(desired.setpoints)
    for load_id in desired.setpoints:
        load = facility.load_by_id[load_id]
        if load.kind is LoadKind.MINER:
            point = load.point(load.fail_safe)
            rule = f"{point.name}: the journal takes no writes, the facility goes to its fail-safe point"
            setpoints[load_id] = Setpoint(load_id, point.name, point.watts, Cause.FAILSAFE, rule)
    return replace(desired, setpoints=setpoints)
