"""What the plan in force says of a load's group or of a circuit, as plain data with sentences (times in UTC)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mullet.control.decide import Decision
from mullet.domain.codec import encode
from mullet.domain.facility import Facility
from mullet.planning.explain import CIRCUIT, Conditions, bindings, explain_group
from mullet.planning.index import index_of
from mullet.planning.merit import market_now
from mullet.planning.positions import fixed_watts
from mullet.planning.wording import binding_words, group_words


def group_reasons(facility: Facility, decision: Decision, load_id: str) -> dict[str, Any] | None:
    """Return what the load's group is worth, when it changes next and what would flip it; None without a plan of it."""
    plan = decision.plan
    if plan is None or not plan.intervals:
        return None
    index = index_of(facility)
    key = index.groups[index.group_of[load_id]].group.key
    fixed = fixed_watts(facility, decision.snapshot, decision.accounts, decision.desired.setpoints)
    try:
        worth = explain_group(plan, facility, replace(_conditions(facility, decision), fixed_watts=fixed), key)
    except KeyError:
        return None
    return {**encode(worth), "words": list(group_words(worth, facility.currency))}


def circuit_reasons(facility: Facility, decision: Decision, circuit_id: str) -> list[dict[str, Any]]:
    """Return the stretches of the plan in which the circuit binds, from now on."""
    plan, at = decision.plan, decision.snapshot.at
    if plan is None:
        return []
    return [
        {
            "start": one.start,
            "end": one.end,
            "mean_per_mwh": one.mean_per_mwh,
            "most_per_mwh": one.most_per_mwh,
            "worth_per_mw": one.worth_per_mw,
            "limit_w": one.limit_watts,
            "cause": one.cause.value if one.cause is not None else None,
            "words": binding_words(one, facility.currency),
        }
        for one in bindings(plan, facility, _conditions(facility, decision))
        if one.end > at and one.subject == circuit_id and one.rule in (CIRCUIT, "ramp", "award")
    ]


def _conditions(facility: Facility, decision: Decision) -> Conditions:
    snapshot = decision.snapshot
    hashprice = market_now(facility, snapshot).hashprice_per_ph_day
    return Conditions(snapshot.at, hashprice, snapshot.curtailments)
