"""Gates on waking, and what stops where the coolant does not flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from mullet.control.alarms import standing_alarms
from mullet.control.decide import Decision, decide
from mullet.control.record import decision_body
from mullet.control.status import explain
from mullet.domain.codec import decode
from mullet.domain.command import Verb
from mullet.domain.facility import Facility, Pacing, ThermalGate
from mullet.domain.feeds import Cause, Reading
from mullet.domain.load import AIR, LIQUID
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import Residual
from mullet.planning.wake import wake_list
from mullet.testing.builders import circuit, facility, miner, snapshot
from mullet.testing.virtual_time import START

AMBIENT = ThermalGate("ambient", AIR, "degC", 5.0, 40.0, 10.0)
COOLANT = ThermalGate("coolant", LIQUID, "degC", 20.0, None, 10.0)
FLOW = ThermalGate("flow", LIQUID, "L/min", 300.0, None, 10.0, stops=True)
FREE = Pacing(economic_ramp_per_s=1.0, block_fraction=1.0, min_off_s=0.0, command_gap_s=0.0)
GOOD = {"ambient": 20.0, "coolant": 30.0, "flow": 500.0}


def plant() -> Facility:
    miners = [miner("air-001", "grid"), miner("liquid-001", "grid", cooling=LIQUID)]
    return facility(
        circuits=(circuit("grid", None, 50_000.0, meter="grid"),),
        miners=miners,
        gpus=0,
        pacing=FREE,
        gates=(AMBIENT, COOLANT, FLOW),
    )


def seen(asleep: bool, values: Mapping[str, float], age_s: float = 1.0, price: float = 20.0) -> Snapshot:
    site = plant()
    points = {load.id: "off" for load in site.loads} if asleep else {}
    sensors = {name: Reading(value, START - age_s) for name, value in values.items()}
    residual = {"grid": Residual("grid", 0.0, 1.0, 10, 0.0, START)}
    return snapshot(site, points=points, price_per_mwh=price, sensors=sensors, residuals=residual)


def sent(decision: Decision) -> dict[str, tuple[Verb, Cause]]:
    return {command.load_id: (command.verb, command.cause) for command in decision.dispatch.commands}


@pytest.mark.parametrize(
    ("changes", "woken"),
    [
        ({}, {"air-001", "liquid-001"}),
        ({"ambient": 4.9}, {"liquid-001"}),
        ({"ambient": 40.1}, {"liquid-001"}),
        ({"coolant": 19.0}, {"air-001"}),
        ({"flow": 299.0}, {"air-001"}),
    ],
)
def test_each_is_woken_through_the_gates_of_its_cooling(changes: dict[str, float], woken: set[str]) -> None:
    site, state = plant(), seen(True, {**GOOD, **changes})
    assert set(sent(decide(site, state, None))) == woken
    assert set(wake_list(site, state).query("grid", 1e9)) == woken


def test_a_sensor_that_is_silent_or_was_never_read_wakes_nobody() -> None:
    site = plant()
    assert sent(decide(site, seen(True, GOOD, age_s=10.5), None)) == {}
    assert sent(decide(site, seen(True, {}), None)) == {}
    decision = decide(site, seen(True, {"coolant": 30.0, "flow": 500.0}), None)
    assert set(sent(decision)) == {"liquid-001"}
    assert explain(site, decision, "air-001")["rule"] == "sleeps and may not be woken: ambient was never read"
    alarms = standing_alarms(site, decision)
    assert alarms["cooling/ambient"] == "ambient was never read: no air-cooled miner is woken"
    assert alarms["cooling/flow"] is None


def test_those_that_run_are_left_alone_by_temperatures() -> None:
    cold = {**GOOD, "ambient": -20.0, "coolant": -5.0}
    decision = decide(plant(), seen(False, cold), None)
    assert sent(decision) == {}
    assert set(decision.desired.setpoints) == {"air-001", "liquid-001"}


def test_lost_flow_stops_what_it_cools_at_once() -> None:
    site, state = plant(), seen(False, {**GOOD, "flow": 0.0})
    decision = decide(site, state, None)
    assert sent(decision) == {"liquid-001": (Verb.SLEEP, Cause.PROTECTION)}
    setpoint = decision.desired.setpoints["liquid-001"]
    assert setpoint.rule == "off: flow 0 L/min is below 300 L/min"
    # A sensor that is silent says nothing of the flow.
    assert sent(decide(site, seen(False, {**GOOD, "flow": 0.0}, age_s=11.0), None)) == {}


def test_a_decision_with_sensors_is_replayed_from_its_record() -> None:
    site, state = plant(), seen(False, {**GOOD, "flow": 0.0})
    body = decision_body(decide(site, state, None))
    again: Snapshot = decode(Snapshot, body["snapshot"])
    assert again.sensors == state.sensors
    assert decision_body(decide(site, again, None)) == body


def test_without_gates_no_sensor_is_asked_for() -> None:
    site = replace(plant(), gates=())
    assert set(sent(decide(site, seen(True, {}), None))) == {"air-001", "liquid-001"}
