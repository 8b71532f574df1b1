"""What policies become: facility, wiring, hash, derived facts, the rules of mode auto, differences, the schema."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from policy_kit import CAPABILITIES, KNOWN, load, problems, small
from ruamel.yaml import YAML

from mullet.domain.facility import DemandStep, Mode, SafeAction
from mullet.domain.load import LeaseHolder, LoadKind, Steering
from mullet.domain.plan import group_loads
from mullet.policy import KnownNames, LoadedPolicy, PolicyErrors, diff, json_schema, load_policy, problems_for_auto
from mullet.ports import BankNotes

POLICIES = Path(__file__).parents[3] / "policies"


def shipped(name: str) -> LoadedPolicy:
    """Load a policy that ships."""
    path = POLICIES / f"{name}.yaml"
    return load_policy(path.read_text(), path.name, KNOWN)


def scenario() -> dict[str, Any]:
    """Read the scenario of the simulated facility, as data."""
    text = (resources.files("mullet_simulators") / "scenarios" / "demo.yaml").read_text()
    data: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return data


def test_demo_is_fit_for_auto_without_a_warning() -> None:
    demo = shipped("demo")
    assert demo.facility.mode is Mode.AUTO
    assert demo.warnings == ()
    assert problems_for_auto(demo) == ()
    assert len(demo.facility.of_kind(LoadKind.MINER)) >= 200
    assert len(demo.facility.of_kind(LoadKind.GPU)) >= 8
    assert max(len(demo.facility.path(circuit.id)) for circuit in demo.facility.circuits) >= 3


def test_demo_describes_the_circuits_of_the_simulated_facility() -> None:
    demo, simulated = shipped("demo"), scenario()
    assert [circuit.id for circuit in demo.facility.circuits] == [c["id"] for c in simulated["circuits"]]
    for circuit, truth in zip(demo.facility.circuits, simulated["circuits"], strict=True):
        assert circuit.parent == truth.get("parent")
        assert circuit.usable_watts == pytest.approx(truth["limit_w"])
        assert circuit.unmanaged_max_watts >= 1.08 * truth["unmanaged_w"]
        assert circuit.meter is not None
        assert demo.wiring.meters[circuit.meter].options["unit"] == truth["meter_unit"]
        assert (circuit.switch is None) == ("switch_unit" not in truth)
        if circuit.switch is not None:
            assert demo.wiring.switches[circuit.switch].options["unit"] == truth["switch_unit"]


def test_demo_describes_the_loads_of_the_simulated_facility() -> None:
    demo, simulated = shipped("demo"), scenario()
    expected: dict[str, tuple[str, str]] = {}
    for bank in simulated["banks"]:
        for k in range(1, bank["count"] + 1):
            expected[f"{bank['id']}-{k:03d}"] = (bank["circuit"], f"127.77.{bank['number']}.{k}")
    index = 0
    for service in simulated["services"]:
        for k in range(1, service["gpus"] + 1):
            expected[f"{service['bank']}-{k:03d}"] = (service["circuit"], str(index))
            index += 1
    assert {load.id: (load.circuit, load.address) for load in demo.facility.loads} == expected
    for number, service in enumerate(simulated["services"]):
        first = demo.facility.loads_of_service[service["id"]][0]
        assert first.lowest.watts == service["gpu"]["min_cap_w"]
        assert first.highest.watts == service["gpu"]["max_cap_w"]
        feed = demo.wiring.feeds[f"demand-{service['id']}"]
        assert feed.kind == f"demand:{service['id']}"
        assert feed.options["url"] == f"http://127.77.0.3:{8703 + number}/metrics"
        assert feed.options["service"] == service["id"]


def test_demo_limits_bind_at_worst_draw_and_planning_has_few_groups() -> None:
    demo = shipped("demo")
    for circuit in demo.facility.circuits:
        assert demo.derived.worst_watts[circuit.id] > circuit.usable_watts
    assert len(group_loads(demo.facility)) <= 10


@pytest.mark.parametrize(("name", "unenforced"), [("west-texas", 1), ("nordic", 1)])
def test_the_policies_in_advise_warn_of_what_nothing_enforces(name: str, unenforced: int) -> None:
    loaded = shipped(name)
    assert loaded.facility.mode is Mode.ADVISE
    assert len(loaded.warnings) == unenforced
    assert all("not enforced" in warning.message for warning in loaded.warnings)
    assert problems_for_auto(loaded) == loaded.warnings


def test_west_texas_is_a_20_mw_facility_that_its_limit_binds() -> None:
    texas = shipped("west-texas")
    assert texas.facility.root.usable_watts == pytest.approx(20e6)
    assert texas.derived.worst_watts["poi"] > 15e6


def test_nordic_keeps_heat_as_a_limit_of_the_tree_in_euro() -> None:
    nordic = shipped("nordic")
    loop = nordic.facility.circuit_by_id["heat-loop"]
    assert nordic.facility.currency == "EUR"
    assert loop.usable_watts < 0.8 * loop.rating_watts
    assert nordic.derived.worst_watts["heat-loop"] > loop.usable_watts
    assert nordic.facility.grid_steps[0] == (900.0, 24)
    assert nordic.wiring.fx["USD"].rate == pytest.approx(0.92)
    flow, coolant = sorted(nordic.facility.gates, key=lambda gate: not gate.stops)
    assert (flow.sensor, flow.cooling, flow.stops, flow.unit) == ("flow", "liquid", True, "L/min")
    assert (flow.least, flow.most, flow.max_age_s) == (pytest.approx(40_000.0 / 60.0), None, 10.0)
    assert (coolant.sensor, coolant.stops, coolant.least, coolant.most) == ("coolant", False, 20.0, 65.0)
    assert {load.cooling for load in nordic.facility.of_kind(LoadKind.MINER)} == {"liquid"}
    assert nordic.wiring.feeds["flow"].kind == "sensor:flow"


def test_break_even_is_what_the_requirement_computes() -> None:
    policy = small()
    policy["economics"] = {"hashprice": "50 USD/PH/d", "fallback_price": "95 USD/MWh"}
    policy["banks"][0]["points"][1] = {"name": "full", "power": "1750 W", "hashrate": "100 TH/s"}
    assert load(policy).derived.break_even_per_mwh["wm"] == pytest.approx(119.05, abs=0.01)
    policy["economics"].update(pool_fee="2 %", energy_adder="10 USD/MWh")
    assert load(policy).derived.break_even_per_mwh["wm"] == pytest.approx(0.98 * 119.0476 - 10.0, abs=0.01)


def test_safety_rows_that_are_left_out_have_their_usual_ages() -> None:
    facility = load(small(safety=[{"source": "meter", "max_age": "2 s", "action": "no_increase"}])).facility
    assert facility.safety_age_s("meter", SafeAction.NO_INCREASE, -1.0) == 2.0
    assert facility.safety_age_s("meter", SafeAction.ASSUME_MAX, -1.0) == 10.0
    assert facility.safety_age_s("price", SafeAction.LADDER, -1.0) == 60.0
    assert facility.safety_age_s("demand", SafeAction.RESERVE_ONLY, -1.0) == 10.0


def test_an_agent_gives_its_loads_a_lease_and_overrides_apply() -> None:
    policy = small()
    policy["banks"][0].update(ramp_down="7 s", min_dwell="1 min", identity=None)
    del policy["banks"][0]["identity"]
    policy["banks"][0]["addresses"] = [{"address": "10.0.1.9", "identity": "02:00:00:00:00:09"}, "10.0.1.1-2"]
    loaded = load(policy)
    gpu, miner = loaded.facility.load_by_id["gpus-001"], loaded.facility.load_by_id["wm-001"]
    assert gpu.capability.lease is LeaseHolder.AGENT
    assert loaded.wiring.agents == {"node": ("gpus-001", "gpus-002", "gpus-003", "gpus-004")}
    assert (miner.address, miner.identity) == ("10.0.1.9", "02:00:00:00:00:09")
    assert [load.address for load in loaded.facility.banks["wm"]] == ["10.0.1.9", "10.0.1.1", "10.0.1.2"]
    assert miner.capability.lease is LeaseHolder.NONE
    assert (miner.capability.ramp_down_s, miner.capability.min_dwell_s) == (7.0, 60.0)
    assert miner.fail_safe == "off"


def overloaded(**circuit: Any) -> dict[str, Any]:
    """A policy in auto whose unleased miners exceed their circuit's limit once the controller is silent."""
    policy = small()
    policy["banks"][0]["addresses"] = "10.0.1.1-20"
    del policy["circuits"][1]["switch"]
    del policy["switches"]
    policy["circuits"][1].update(circuit)
    return policy


def test_auto_is_refused_where_silence_would_exceed_a_limit() -> None:
    assert [line.split(":")[0] for line in problems(overloaded())] == ["circuits[1]"]


def test_a_switch_at_the_circuit_or_acceptance_by_name_lets_auto_pass() -> None:
    load(overloaded(accept_unleased=True))
    with_switch = overloaded(switch="k")
    with_switch["switches"] = [{"id": "k", "driver": "modbus", "options": {"host": "10.0.0.4", "unit": 101}}]
    load(with_switch)


def test_a_switch_above_the_limit_does_not_help() -> None:
    policy = overloaded()
    policy["circuits"][0]["switch"] = "k"
    policy["switches"] = [{"id": "k", "driver": "modbus", "options": {"host": "10.0.0.4", "unit": 101}}]
    assert [line.split(":")[0] for line in problems(policy)] == ["circuits[1]"]


def test_circuits_out_of_auto_are_not_judged_but_count_at_worst_draw() -> None:
    load(overloaded(mode="advise"))
    policy = overloaded()
    policy["facility"]["mode"] = "advise"
    assert [p.field for p in problems_for_auto(load(policy))] == []


def test_caps_that_mining_pays_for_need_a_lease_on_the_side_of_the_gpus() -> None:
    policy = small()
    policy["banks"][0]["addresses"] = "10.0.1.1-16"
    load(policy)
    del policy["banks"][1]["agent"]
    found = problems(policy)
    assert len(found) == 1
    assert "mining pays for power caps of GPUs that have no lease (gpus)" in found[0]
    policy["circuits"][1]["accept_unleased"] = True
    load(policy)


def test_an_open_interface_must_be_stated() -> None:
    assert problems(small(api={"listen": "0.0.0.0:8780"})) == [
        "api.listen: 0.0.0.0 is reachable from beyond this machine"
    ]
    assert load(small(api={"listen": "0.0.0.0:8780", "allow_remote": True})).wiring.api.host == "0.0.0.0"
    assert load(small(api={"listen": "[::1]:1"})).wiring.api.port == 1


def test_the_broker_is_split_into_host_port_and_names_of_credentials() -> None:
    mqtt = load(small(mqtt={"url": "mqtts://broker.example", "cert": "c", "key": "k"})).wiring.mqtt
    assert mqtt is not None
    assert (mqtt.host, mqtt.port, mqtt.tls, mqtt.key) == ("broker.example", 8883, True, "k")


def test_the_hash_is_of_content_not_of_spelling() -> None:
    policy = small()
    policy["circuits"][0]["rating"] = "0.1 MW"
    policy["pacing"] = {"tick": "1000 ms", "block": "5 %"}
    text = "# a comment\n" + json.dumps(dict(reversed(policy.items())))
    assert load(text).hash == load(small()).hash
    assert diff(load(small()), load(text)) == ()
    policy["circuits"][0]["rating"] = "101 kW"
    assert load(policy).hash != load(small()).hash


def test_a_difference_names_fields_by_id_and_marks_raised_limits() -> None:
    before, after = small(), small()
    after["circuits"][0]["rating"] = "120 kW"
    after["circuits"][1].update(limit="40 kW", accept_unleased=True)
    after["economics"]["pool_fee"] = "1 %"
    after["accounts"] = [{"id": "hosted"}]
    after["circuits"] = [after["circuits"][0], after["circuits"][1]]
    changes = {change.path: change for change in diff(load(before), load(after))}
    assert set(changes) == {
        "accounts[hosted].id",
        "circuits[pdu].accept_unleased",
        "circuits[pdu].limit",
        "circuits[poi].limit",
        "circuits[poi].rating",
        "economics.pool_fee",
    }
    assert changes["circuits[poi].limit"].raises_limit
    assert changes["circuits[pdu].accept_unleased"].raises_limit
    assert not changes["circuits[pdu].limit"].raises_limit
    assert not changes["economics.pool_fee"].raises_limit
    assert str(changes["circuits[poi].rating"]) == "circuits[poi].rating: 100 kW -> 120 kW"
    assert changes["accounts[hosted].id"].kind == "added"
    back = {change.path: change for change in diff(load(after), load(before))}
    assert back["circuits[pdu].limit"].raises_limit
    assert back["accounts[hosted].id"].kind == "removed"


def test_the_schema_marks_what_nothing_enforces() -> None:
    schema = json_schema()
    marked = {name for name, field in schema["properties"].items() if field.get("x-enforced")}
    assert marked == {"coincident_peak", "demand_charge", "openadr", "reserves"}
    assert schema["required"] == ["facility", "circuits", "banks", "economics"]
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["BankSection"]["properties"]["max_starts"]["x-enforced"]
    json.dumps(schema, allow_nan=False)


def test_the_reference_names_every_section_and_field() -> None:
    reference = (POLICIES.parent / "docs" / "policy.md").read_text()
    schema = json_schema()
    names = set(schema["properties"])
    for section in schema["$defs"].values():
        names |= set(section.get("properties", ()))
    assert sorted(name for name in names if f"`{name}`" not in reference) == []


def test_fields_that_nothing_enforces_are_refused_in_auto_only() -> None:
    policy = small()
    policy["services"][0]["slo"] = "3 s"
    assert problems(policy) == ["services[0].slo: is not enforced: no engine in this version"]
    policy["facility"]["mode"] = "observe"
    assert [str(warning) for warning in load(policy).warnings] != []


def test_steps_of_demand_are_quantiles_in_order() -> None:
    policy = small()
    quantiles = [{"probability": "50 %", "power": "0 W"}, {"probability": "95 %", "power": "2 kW"}]
    policy["services"][0]["steps"] = {"period": "30 min", "quantiles": quantiles}
    service = load(policy).facility.services[0]
    assert service.steps == (DemandStep(0.5, 0.0), DemandStep(pytest.approx(0.95), 2_000.0))
    assert service.step_period_s == 1_800.0
    quantiles.reverse()
    (found,) = problems(policy)
    assert found.startswith("services[0].steps: 50% at 0 W follows 95% at 2000 W")
    policy["services"][0]["steps"] = {"quantiles": []}
    assert len(problems(policy)) == 1


@pytest.mark.parametrize("steering", [Steering.CONTINUOUS, Steering.STEPPED, Steering.MODES])
def test_points_between_off_and_full_need_a_driver_that_moves_running_miners(
    monkeypatch: pytest.MonkeyPatch, steering: Steering
) -> None:
    """Where it only stops and starts them, one that shall go to a point below would stay at full."""
    switched = replace(CAPABILITIES["whatsminer_v2"], steering=Steering.ON_OFF)
    monkeypatch.setitem(CAPABILITIES, "whatsminer_v2", switched)
    policy = small()
    policy["banks"][0]["points"].insert(1, {"name": "half", "power": "1.6 kW", "hashrate": "50 TH/s"})
    (found,) = problems(policy)
    assert found == (
        "banks[0].points: 'wm' has 3 operating points, and its driver steers on_off: it moves no running miner "
        "between points"
    )
    policy["facility"]["mode"] = "advise"
    assert len(load(policy).facility.loads[0].points) == 3
    policy["facility"]["mode"] = "auto"
    monkeypatch.setitem(CAPABILITIES, "whatsminer_v2", replace(switched, steering=steering))
    assert load(policy).facility.loads[0].steps_between


def with_notes(notes: BankNotes) -> KnownNames:
    return replace(KNOWN, notes_of=lambda driver, options: notes if driver == "asic" else BankNotes())


def test_a_bank_that_could_not_be_written_to_is_refused_in_auto_and_told_before() -> None:
    known = with_notes(BankNotes(barred="no password"))
    with pytest.raises(PolicyErrors) as caught:
        load_policy(json.dumps(small()), "p.yaml", known)
    assert [(p.field, p.message) for p in caught.value.problems] == [
        ("banks[0].options", "'wm' is read-only: no password")
    ]
    watched = small(facility={"id": "small", "currency": "USD", "mode": "advise"})
    loaded = load_policy(json.dumps(watched), "p.yaml", known)
    assert [p.message for p in loaded.warnings] == ["'wm' is read-only: no password"]
    assert problems_for_auto(loaded) == loaded.warnings


def test_a_bank_that_is_only_observed_or_held_by_an_agent_needs_no_password() -> None:
    known = with_notes(BankNotes(barred="no password", warnings=("is open",)))
    observed, held = small(), small()
    observed["circuits"][1]["mode"] = "observe"
    held["banks"][0]["agent"] = "node"
    for policy in (observed, held):
        assert load_policy(json.dumps(policy), "p.yaml", known).warnings == ()


def test_what_a_driver_warns_of_is_a_warning_in_every_mode() -> None:
    known = with_notes(BankNotes(warnings=("is written to with a default password",)))
    for mode in ("auto", "advise", "observe"):
        policy = small(facility={"id": "small", "currency": "USD", "mode": mode})
        loaded = load_policy(json.dumps(policy), "p.yaml", known)
        assert [(p.field, p.message) for p in loaded.warnings] == [
            ("banks[0].options", "'wm' is written to with a default password")
        ]


def test_a_thermal_limit_needs_a_feed_that_tells_it_and_a_range() -> None:
    policy = small()
    policy["thermal"] = {"ambient_min": "5 degC", "ambient_max": "4 degC", "flow_min": "40 L/min"}
    sensor = {"driver": "http-sensor", "options": {"url": "http://127.0.0.1/"}, "poll": "2 s", "max_age": "10 s"}
    policy.setdefault("feeds", {})["ambient"] = sensor
    assert problems(policy) == [
        "thermal.ambient_max: is not above ambient_min",
        "thermal.flow_min: nothing tells it: there is no feed 'flow'",
    ]
    policy["thermal"] = {"ambient_min": "5 degC"}
    (gate,) = load(policy).facility.gates
    assert (gate.sensor, gate.cooling, gate.least, gate.stops) == ("ambient", "air", 5.0, False)
