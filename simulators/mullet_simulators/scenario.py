"""Scenario files: YAML read into frozen values, with errors that name the field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mullet_simulators.faults import miner_faults
from mullet_simulators.fields import Fields, ScenarioError
from mullet_simulators.miners.models import MODELS

__all__ = [
    "BankSpec",
    "CircuitSpec",
    "DemandPoint",
    "FaultSpec",
    "GpuSpec",
    "LimitCutSpec",
    "PriceSpec",
    "PriceSpikeSpec",
    "Scenario",
    "ScenarioError",
    "ServiceSpec",
    "load_id",
    "load_scenario",
]

MIN_CYCLE_S = 30.0


def load_id(bank: str, index: int) -> str:
    """Id of load `index` (from 1) of a bank or of a service's GPUs."""
    return f"{bank}-{index:03d}"


@dataclass(frozen=True, slots=True)
class CircuitSpec:
    """One circuit: its true limit, what draws on it unmanaged, and who measures and switches it."""

    id: str
    parent: str | None
    limit_w: float
    unmanaged_w: float = 0.0
    meter_unit: int | None = None
    switch_unit: int | None = None


@dataclass(frozen=True, slots=True)
class BankSpec:
    """Miners of one model on one circuit; `number` is the third octet of their addresses.

    `hashing` of them hash at the start; `ramp_scale` shortens or stretches their ramps and boots.
    """

    id: str
    number: int
    circuit: str
    model: str
    count: int
    hashing: int
    password: str
    ramp_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """One kind of GPU, in watts."""

    idle_w: float
    min_cap_w: float
    max_cap_w: float
    default_cap_w: float
    initial_cap_w: float


@dataclass(frozen=True, slots=True)
class DemandPoint:
    """From `at_s` of the cycle on, so many requests a second."""

    at_s: float
    requests_per_s: float


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """An inference service on GPUs `<bank>-001` and up."""

    id: str
    circuit: str
    bank: str
    gpus: int
    gpu: GpuSpec
    prompt_tokens_per_request: float
    output_tokens_per_request: float
    tokens_per_s_per_gpu: float
    demand: tuple[DemandPoint, ...]

    def requests_per_s_at(self, offset_s: float) -> float:
        """Scripted demand at an offset into the cycle."""
        rate = self.demand[0].requests_per_s
        for point in self.demand:
            if point.at_s <= offset_s:
                rate = point.requests_per_s
        return rate


@dataclass(frozen=True, slots=True)
class PriceSpikeSpec:
    """A price over part of the cycle."""

    start_s: float
    end_s: float
    price_per_mwh: float


@dataclass(frozen=True, slots=True)
class PriceSpec:
    """Price series in USD/MWh, in intervals of equal length cut where a spike begins or ends."""

    base_per_mwh: float
    interval_s: float
    published_ahead: int
    spikes: tuple[PriceSpikeSpec, ...]


@dataclass(frozen=True, slots=True)
class LimitCutSpec:
    """A circuit's limit is lowered over part of the cycle, announced before."""

    id: str
    circuit: str
    limit_w: float
    announced_s: float
    start_s: float
    end_s: float
    cause: str


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """A fault of one load from `at_s` of the run on (never repeated)."""

    load: str
    fault: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """A facility and what happens to it; all times are seconds from the start of a cycle."""

    name: str
    seed: int
    cycle_s: float
    repeats: bool
    hashprice_per_ph_day: float
    circuits: tuple[CircuitSpec, ...]
    banks: tuple[BankSpec, ...]
    services: tuple[ServiceSpec, ...]
    price: PriceSpec
    limit_cuts: tuple[LimitCutSpec, ...]
    faults: tuple[FaultSpec, ...]
    random_faults_per_hour: float = 0.0
    web_port: int = 8080
    """Where miners with a web interface on port 80 listen instead, so that no privilege is needed."""
    step_s: float = 0.02
    """Physics advance by this; large fleets take longer steps."""


def load_scenario(
    source: str | Path | Mapping[str, Any], seconds: float | None = None, seed: int | None = None
) -> Scenario:
    """Read a scenario file, the shipped scenario `demo`, or a mapping.

    `seconds` fits the cycle to a run of that length; without it the file's cycle repeats.
    Raises ScenarioError naming the field, or the file where it cannot be read.
    """
    if seconds is not None and seconds < MIN_CYCLE_S:
        raise ScenarioError(f"seconds: {seconds:g} is too short, {MIN_CYCLE_S:g} at least")
    root = Fields(source if isinstance(source, Mapping) else _read(source), "")
    own_cycle_s = root.number("cycle_s", 300.0, low=1.0)
    cycle_s = seconds or own_cycle_s
    circuits = tuple(_circuit(item) for item in root.children("circuits", required=True))
    banks = tuple(_bank(item) for item in root.children("banks"))
    services = tuple(_service(item, cycle_s) for item in root.children("services"))
    own_seed = root.integer("seed", 1)
    scenario = Scenario(
        name=root.text("name", "scenario"),
        seed=own_seed if seed is None else seed,
        cycle_s=cycle_s,
        repeats=seconds is None,
        hashprice_per_ph_day=root.number("hashprice_per_ph_day", 50.0),
        circuits=circuits,
        banks=banks,
        services=services,
        price=_price(root.child("price"), cycle_s),
        limit_cuts=tuple(_limit_cut(item, cycle_s) for item in root.children("limit_cuts")),
        faults=tuple(_fault(item, cycle_s) for item in root.children("faults")),
        random_faults_per_hour=root.number("random_faults_per_hour", 0.0),
        web_port=root.integer("web_port", 8080, low=1, high=65535),
        step_s=root.number("step_s", 0.02, low=0.005, high=5.0),
    )
    root.finish()
    _check(scenario)
    return scenario


def _read(source: str | Path) -> object:
    try:
        if isinstance(source, str) and source == "demo":
            text = resources.files("mullet_simulators").joinpath("scenarios/demo.yaml").read_text("utf-8")
        else:
            text = Path(source).read_text(encoding="utf-8")
        return YAML(typ="safe", pure=True).load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{source}: cannot be read: {error}") from error
    except YAMLError as error:
        raise ScenarioError(f"{source}: not YAML: {error}") from error


def _circuit(item: Fields) -> CircuitSpec:
    spec = CircuitSpec(
        id=item.text("id"),
        parent=item.text("parent") if item.has("parent") else None,
        limit_w=item.number("limit_w", low=1.0),
        unmanaged_w=item.number("unmanaged_w", 0.0),
        meter_unit=item.integer("meter_unit", low=1, high=99) if item.has("meter_unit") else None,
        switch_unit=item.integer("switch_unit", low=101, high=199) if item.has("switch_unit") else None,
    )
    item.finish()
    return spec


def _bank(item: Fields) -> BankSpec:
    count = item.integer("count", low=1, high=254)
    model = item.text("model", among=frozenset(MODELS))
    spec = BankSpec(
        id=item.text("id"),
        number=item.integer("number", low=1, high=254),
        circuit=item.text("circuit"),
        model=model,
        count=count,
        hashing=item.integer("hashing", count, high=count),
        password=item.text("password", MODELS[model].password),
        ramp_scale=item.number("ramp_scale", 1.0, high=100.0),
    )
    item.finish()
    return spec


def _service(item: Fields, cycle_s: float) -> ServiceSpec:
    gpu = item.child("gpu")
    max_cap_w = gpu.number("max_cap_w", 700.0, low=1.0)
    min_cap_w = gpu.number("min_cap_w", 200.0, high=max_cap_w)
    default_cap_w = gpu.number("default_cap_w", max_cap_w, low=min_cap_w, high=max_cap_w)
    gpu_spec = GpuSpec(
        idle_w=gpu.number("idle_w", 70.0, high=min_cap_w),
        min_cap_w=min_cap_w,
        max_cap_w=max_cap_w,
        default_cap_w=default_cap_w,
        initial_cap_w=gpu.number("initial_cap_w", default_cap_w, low=min_cap_w, high=max_cap_w),
    )
    gpu.finish()
    points = []
    for point in item.children("demand", required=True):
        points.append(DemandPoint(point.instant_s("at", cycle_s, 0.0), point.number("requests_per_s")))
        point.finish()
    spec = ServiceSpec(
        id=item.text("id"),
        circuit=item.text("circuit"),
        bank=item.text("bank"),
        gpus=item.integer("gpus", low=1, high=999),
        gpu=gpu_spec,
        prompt_tokens_per_request=item.number("prompt_tokens_per_request", 300.0),
        output_tokens_per_request=item.number("output_tokens_per_request", 200.0, low=1.0),
        tokens_per_s_per_gpu=item.number("tokens_per_s_per_gpu", 2500.0, low=1.0),
        demand=tuple(sorted(points, key=lambda point: point.at_s)),
    )
    item.finish()
    return spec


def _price(item: Fields, cycle_s: float) -> PriceSpec:
    spikes = []
    for spike in item.children("spikes"):
        start_s = spike.instant_s("start", cycle_s)
        end_s = spike.instant_s("end", cycle_s)
        if end_s <= start_s:
            raise ScenarioError(f"{spike.where('end')}: ends before it starts")
        spikes.append(PriceSpikeSpec(start_s, end_s, spike.number("price_per_mwh", low=-1000.0)))
        spike.finish()
    spec = PriceSpec(
        base_per_mwh=item.number("base_per_mwh", low=-1000.0),
        interval_s=max(1.0, item.instant_s("interval", cycle_s, 0.04)),
        published_ahead=item.integer("published_ahead", 24, high=1000),
        spikes=tuple(spikes),
    )
    item.finish()
    return spec


def _limit_cut(item: Fields, cycle_s: float) -> LimitCutSpec:
    announced_s = item.instant_s("announced", cycle_s)
    least_s = item.number("least_notice_s", 0.0)
    most_s = item.number("most_notice_s", 1e9, low=least_s)
    start_s = announced_s + max(least_s, min(most_s, item.number("notice", high=1.0) * cycle_s))
    end_s = max(item.instant_s("end", cycle_s), start_s + item.instant_s("least_length", cycle_s, 0.0))
    if end_s <= start_s:
        raise ScenarioError(f"{item.where('end')}: ends before it starts, at {start_s:g} s")
    spec = LimitCutSpec(
        id=item.text("id"),
        circuit=item.text("circuit"),
        limit_w=item.number("limit_w"),
        announced_s=announced_s,
        start_s=start_s,
        end_s=end_s,
        cause=item.text("cause", "demand_response"),
    )
    item.finish()
    return spec


def _fault(item: Fields, cycle_s: float) -> FaultSpec:
    spec = FaultSpec(load=item.text("load"), fault=item.text("fault"), at_s=item.instant_s("at", cycle_s, 0.0))
    item.finish()
    return spec


def _check(scenario: Scenario) -> None:
    known: set[str] = set()
    for index, circuit in enumerate(scenario.circuits):
        if circuit.id in known:
            raise ScenarioError(f"circuits[{index}].id: {circuit.id!r} is given twice")
        if circuit.parent is not None and circuit.parent not in known:
            raise ScenarioError(f"circuits[{index}].parent: {circuit.parent!r} is no circuit listed before")
        known.add(circuit.id)
    _check_unique("banks", "id", [bank.id for bank in scenario.banks])
    _check_unique("banks", "number", [bank.number for bank in scenario.banks])
    _check_unique("services", "id", [service.id for service in scenario.services])
    for attribute in ("meter_unit", "switch_unit"):
        units = [getattr(circuit, attribute) for circuit in scenario.circuits]
        _check_unique("circuits", attribute, [unit for unit in units if unit is not None])
    for part in ("banks", "services", "limit_cuts"):
        for index, item in enumerate(getattr(scenario, part)):
            if item.circuit not in known:
                raise ScenarioError(f"{part}[{index}].circuit: {item.circuit!r} is no circuit")
    loads = {load_id(bank.id, k) for bank in scenario.banks for k in range(1, bank.count + 1)}
    loads |= {load_id(svc.bank, k) for svc in scenario.services for k in range(1, svc.gpus + 1)}
    protocols = {bank.id: MODELS[bank.model].protocol for bank in scenario.banks}
    for index, fault in enumerate(scenario.faults):
        if fault.load not in loads:
            raise ScenarioError(f"faults[{index}].load: {fault.load!r} is no load")
        protocol = protocols.get(fault.load.rpartition("-")[0])
        if protocol is not None and fault.fault not in miner_faults(protocol):
            raise ScenarioError(f"faults[{index}].fault: {fault.fault!r} is no fault of {fault.load}")


def _check_unique(part: str, name: str, values: list[Any]) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ScenarioError(f"{part}[{index}].{name}: {value!r} is given twice")
