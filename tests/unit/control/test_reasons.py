"""What the plan in force says of a load and a circuit, told with why."""

from __future__ import annotations

import json
from dataclasses import replace

from control_kit import decided

from mullet.control.status import explain
from mullet.domain.plan import Plan, PlanInterval, Rung, group_loads
from mullet.testing.builders import facility, snapshot
from mullet.testing.virtual_time import START

SITE = facility()
MINERS, GPUS = group_loads(SITE)


def plan(*steps, groups=(MINERS, GPUS)):
    """A plan of hours from (miners' counts, price of feeder-a)."""
    top = tuple(0 for _ in GPUS.points[1:])
    intervals = tuple(
        PlanInterval(
            START + 3_600.0 * number,
            START + 3_600.0 * (number + 1),
            40.0,
            {MINERS.key: counts, GPUS.key: (len(GPUS.load_ids), *top)},
            {},
            {"feeder-a": price} if price else {},
        )
        for number, (counts, price) in enumerate(steps)
    )
    return Plan("p", START, START + 600.0, Rung.OPTIMAL, groups, intervals, 1.0)


def decision(made):
    return replace(decided(SITE, snapshot(SITE)), plan=made)


def off(count):
    """Counts with so many of the four miners off and the others at their highest point."""
    return (count, *(0 for _ in MINERS.points[2:]), 4 - count)


def test_a_load_tells_what_its_group_waits_for() -> None:
    told = explain(SITE, decision(plan((off(1), 25.0), (off(1), 25.0), (off(0), 0.0))), "miners-001")
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    group = told["group"]
    assert (group["key"], group["loads"]) == (MINERS.key, 4)
    assert group["next_change"]["at"] == START + 7_200.0
    assert (group["next_change"]["loads"], group["next_change"]["because"]) == (1, "circuit:feeder-a")
    assert group["steps"][0]["break_even_per_mwh"] > 40.0
    assert any(line.startswith("next load down: ") for line in group["words"])
    assert {"inputs", "rule", "setpoint", "circuits"} <= told.keys()


def test_a_circuit_tells_when_it_binds_from_now_on() -> None:
    made = plan((off(1), 25.0), (off(1), 35.0), (off(0), 0.0), (off(1), 9.0))
    told = explain(SITE, decision(made), "feeder-a")
    assert [(item["start"] - START, item["end"] - START) for item in told["binds"]] == [(0, 7_200), (10_800, 14_400)]
    assert (told["binds"][0]["mean_per_mwh"], told["shadow_price_per_mwh"]) == (30.0, 25.0)
    assert "one more MW is worth 30.0 USD/h, 35.0 at most" in told["binds"][0]["words"]
    assert explain(SITE, decision(made), "feeder-b")["binds"] == []
    assert {"limit_w", "why_not"} <= told.keys()
    later = replace(decision(made), snapshot=snapshot(SITE, at=START + 9_000.0))
    assert [item["start"] - START for item in explain(SITE, later, "feeder-a")["binds"]] == [10_800.0]


def test_without_a_plan_of_the_group_nothing_is_made_up() -> None:
    for made in (None, plan((off(0), 0.0), groups=(GPUS,)), plan(groups=(MINERS, GPUS))):
        assert explain(SITE, decision(made), "miners-001")["group"] is None
        assert explain(SITE, decision(made), "feeder-a")["binds"] == []
