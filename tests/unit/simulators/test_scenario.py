"""Scenario files: what the demo promises, and errors that name the field."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from mullet_simulators.miners.models import MODELS
from mullet_simulators.scenario import Scenario, ScenarioError, load_scenario

SMALL: dict[str, Any] = {
    "circuits": [{"id": "poi", "limit_w": 9000}, {"id": "pdu", "parent": "poi", "limit_w": 8000}],
    "banks": [{"id": "wm", "number": 1, "circuit": "pdu", "model": "whatsminer-m50s", "count": 2}],
    "price": {"base_per_mwh": 38.0, "spikes": [{"start": 0.2, "end": 0.4, "price_per_mwh": 95.0}]},
    "faults": [{"load": "wm-002", "fault": "hang", "at": 0.5}],
}


def beneath(scenario: Scenario, circuit: str) -> set[str]:
    found = {circuit}
    for spec in scenario.circuits:
        if spec.parent in found:
            found.add(spec.id)
    return found


def worst_w(scenario: Scenario, circuit: str, *, initial: bool = False) -> float:
    """Worst draw beneath a circuit, of all loads or of those that run at the start."""
    inside = beneath(scenario, circuit)
    miners = sum(
        1.02 * MODELS[bank.model].watts * (bank.hashing if initial else bank.count)
        for bank in scenario.banks
        if bank.circuit in inside
    )
    caps = ((svc, svc.gpu.initial_cap_w if initial else svc.gpu.max_cap_w) for svc in scenario.services)
    gpus = sum(svc.gpus * cap_w for svc, cap_w in caps if svc.circuit in inside)
    return miners + gpus + sum(spec.unmanaged_w * 1.08 for spec in scenario.circuits if spec.id in inside)


def test_every_limit_of_the_demo_binds_and_none_is_exceeded_at_the_start() -> None:
    scenario = load_scenario("demo")
    assert sum(bank.count for bank in scenario.banks) >= 216
    for spec in scenario.circuits:
        assert worst_w(scenario, spec.id) > 1.05 * spec.limit_w, spec.id
        assert worst_w(scenario, spec.id, initial=True) < spec.limit_w, spec.id


@pytest.mark.parametrize("seconds", [30.0, 60.0, 150.0, 300.0])
def test_the_demo_fits_itself_to_the_seconds(seconds: float) -> None:
    scenario = load_scenario("demo", seconds)
    (cut,) = scenario.limit_cuts
    assert not scenario.repeats
    assert cut.announced_s == pytest.approx(0.48 * seconds)
    assert cut.start_s - cut.announced_s == pytest.approx(max(8.0, min(15.0, 0.12 * seconds)))
    assert cut.start_s + 2.0 <= cut.end_s <= seconds
    code = next(service for service in scenario.services if service.id == "code")
    assert code.requests_per_s_at(0.31 * seconds) > 2 * code.requests_per_s_at(0.29 * seconds)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("circuits", 1, "limit_w"), "8 kW", "circuits[1].limit_w: expected a number"),
        (("circuits", 1, "parent"), "nowhere", "circuits[1].parent: 'nowhere' is no circuit"),
        (("circuits", 0, "limt_w"), 1, "circuits[0].limt_w: no such field"),
        (("banks", 0, "model"), "abacus", "banks[0].model: 'abacus' is none of"),
        (("banks", 0, "count"), 0, "banks[0].count: 0 is outside"),
        (("banks", 0, "circuit"), "x", "banks[0].circuit: 'x' is no circuit"),
        (("price", "spikes", 0, "end"), 0.1, "price.spikes[0].end: ends before it starts"),
        (("price", "base_per_mwh"), None, "price.base_per_mwh: missing"),
        (("faults", 0, "load"), "wm-003", "faults[0].load: 'wm-003' is no load"),
        (("faults", 0, "fault"), "sulk", "faults[0].fault: 'sulk' is no fault of wm-002"),
        (("price",), 3, "price: expected a mapping"),
        (("seed",), 1.5, "seed: expected a whole number"),
    ],
)
def test_an_error_names_its_field(path: tuple[Any, ...], value: Any, message: str) -> None:
    scenario = copy.deepcopy(SMALL)
    at: Any = scenario
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    with pytest.raises(ScenarioError) as caught:
        load_scenario(scenario)
    assert str(caught.value).startswith(message)


def test_a_file_that_cannot_be_read_or_is_no_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="absent"):
        load_scenario(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("circuits: [")
    with pytest.raises(ScenarioError, match="not YAML"):
        load_scenario(broken)
    with pytest.raises(ScenarioError, match=r"seconds: 10 is too short"):
        load_scenario("demo", 10.0)
