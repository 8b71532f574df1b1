"""Small plants for tests: a grid connection, two feeders, a few miners and GPUs, and everything else by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mullet.domain.command import Command, Verb
from mullet.domain.facility import Account, Circuit, Economics, Facility, Mode, Pacing, Service
from mullet.domain.feeds import Cause, PriceCurve, PriceInterval, Reading
from mullet.domain.load import OFF, Capability, LeaseHolder, Load, LoadKind, OperatingPoint, Steering
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import LoadState, MeterReading, Quality, Telemetry
from mullet.testing.virtual_time import START

MINER_CAPABILITY = Capability(
    steering=Steering.MODES, measures_watts=True, enforces_limit=False, ramp_down_s=3.0, ramp_up_s=60.0
)
GPU_CAPABILITY = Capability(
    steering=Steering.CONTINUOUS, measures_watts=True, enforces_limit=True, ramp_down_s=2.0, ramp_up_s=2.0
)


def circuit(id: str, parent: str | None = None, usable_watts: float = 100_000.0, **fields: Any) -> Circuit:
    """Return a circuit whose usable limit is 80 % of its rating."""
    return replace(Circuit(id=id, parent=parent, rating_watts=usable_watts / 0.8, usable_watts=usable_watts), **fields)


def miner(
    id: str = "miners-001", circuit: str = "feeder-a", watts: float = 3_300.0, th_per_s: float = 110.0, **fields: Any
) -> Load:
    """Return a miner with the points off (20 W) and normal."""
    bank, _, number = id.rpartition("-")
    load = Load(
        id=id,
        kind=LoadKind.MINER,
        bank=bank or id,
        driver="asic",
        address=f"127.0.1.{int(number) if number.isdigit() else 1}",
        circuit=circuit,
        account="own",
        points=(OperatingPoint(OFF, 20.0), OperatingPoint("normal", watts, th_per_s=th_per_s)),
        fail_safe=OFF,
        worst_watts=1.1 * watts,
        tolerance=0.05,
        capability=MINER_CAPABILITY,
    )
    return replace(load, **fields)


def gpu(
    id: str = "gpus-001",
    circuit: str = "feeder-b",
    service: str | None = "chat",
    low_watts: float = 200.0,
    high_watts: float = 700.0,
    steps: int = 6,
    tokens_per_s: float = 2_500.0,
    **fields: Any,
) -> Load:
    """Return a GPU with `steps` evenly spaced limits; tokens grow with the square root of the watts."""
    bank, _, number = id.rpartition("-")
    span = high_watts - low_watts
    limits = [low_watts + span * k / max(1, steps - 1) for k in range(steps)]
    points = tuple(OperatingPoint(f"{w:.0f}W", w, tokens_per_s=tokens_per_s * (w / high_watts) ** 0.5) for w in limits)
    load = Load(
        id=id,
        kind=LoadKind.GPU,
        bank=bank or id,
        driver="gpu",
        address=str(int(number) - 1 if number.isdigit() else 0),
        circuit=circuit,
        account="own",
        points=points,
        fail_safe=points[0].name,
        worst_watts=high_watts,
        tolerance=0.0,
        capability=GPU_CAPABILITY,
        service=service,
        min_watts=low_watts,
    )
    return replace(load, **fields)


def leased(load: Load, holder: LeaseHolder = LeaseHolder.AGENT, agent: str | None = "agent-1") -> Load:
    """Return the load with its lease held by an agent."""
    return replace(load, capability=replace(load.capability, lease=holder), agent=agent)


def service(id: str = "chat", value_per_mtoken: float = 2.0, **fields: Any) -> Service:
    """Return an inference service."""
    return replace(Service(id=id, value_per_mtoken=value_per_mtoken), **fields)


def facility(
    *,
    circuits: Sequence[Circuit] | None = None,
    miners: int | Sequence[Load] = 4,
    gpus: int | Sequence[Load] = 2,
    services: Sequence[Service] | None = None,
    hashprice_per_ph_day: float = 50.0,
    mode: Mode = Mode.AUTO,
    **fields: Any,
) -> Facility:
    """Return a plant: `grid` over `feeder-a` (miners) and `feeder-b` (GPUs), unless circuits are given.

    Numbers of miners or GPUs make loads "miners-001", "gpus-001" and so on. A service is made for every one that a
    GPU names, unless services are given.
    """
    if circuits is None:
        circuits = (
            circuit("grid", None, 20_000.0, meter="grid"),
            circuit("feeder-a", "grid", 16_000.0, meter="feeder-a"),
            circuit("feeder-b", "grid", 8_000.0, meter="feeder-b"),
        )
    if isinstance(miners, int):
        miners = [miner(f"miners-{k:03d}", _known(circuits, "feeder-a")) for k in range(1, miners + 1)]
    if isinstance(gpus, int):
        gpus = [gpu(f"gpus-{k:03d}", _known(circuits, "feeder-b")) for k in range(1, gpus + 1)]
    if services is None:
        services = [service(name) for name in dict.fromkeys(load.service for load in gpus if load.service)]
    values: dict[str, Any] = {
        "id": "test",
        "currency": "USD",
        "circuits": tuple(circuits),
        "loads": (*miners, *gpus),
        "services": tuple(services),
        "auxiliaries": (),
        "accounts": (Account("own"),),
        "economics": Economics(hashprice_per_ph_day=hashprice_per_ph_day),
        "pacing": Pacing(),
        "safety": (),
        "mode": mode,
        "policy_hash": "0" * 64,
    }
    return Facility(**{**values, **fields})


def telemetry(load: Load, at: float = START, point: str | None = None, **fields: Any) -> Telemetry:
    """Return what `load` tells while it stands at `point` (its highest unless named)."""
    standing = load.highest if point is None else load.point(point)
    asleep = load.kind is LoadKind.MINER and standing.name == OFF
    reading = Telemetry(
        load_id=load.id,
        at=at,
        watts=standing.watts if load.capability.measures_watts else None,
        limit_watts=standing.watts if load.capability.enforces_limit else None,
        state=LoadState.ASLEEP if asleep else LoadState.ACTIVE,
        th_per_s=standing.th_per_s if load.kind is LoadKind.MINER else None,
        identity=load.identity,
    )
    return replace(reading, **fields)


def meter_reading(
    meter_id: str, watts: float | None, at: float = START, quality: Quality = Quality.GOOD, heartbeat: int | None = 1
) -> MeterReading:
    """Return a meter's reading."""
    return MeterReading(meter_id=meter_id, at=at, watts=watts, quality=quality, heartbeat=heartbeat)


def price_curve(prices: Sequence[float], start: float = START, length_s: float = 300.0) -> PriceCurve:
    """Return consecutive intervals of equal length with these prices per MWh."""
    return PriceCurve(
        tuple(PriceInterval(start + k * length_s, start + (k + 1) * length_s, price) for k, price in enumerate(prices))
    )


def snapshot(
    plant: Facility,
    at: float = START,
    *,
    points: Mapping[str, str] | None = None,
    unmanaged_watts: float = 0.0,
    price_per_mwh: float = 40.0,
    **fields: Any,
) -> Snapshot:
    """Return everything fresh and healthy: each load at its highest point or the one named in `points`.

    Every circuit meter shows the sum of the loads beneath it and `unmanaged_watts`.
    """
    named = points or {}
    readings = {load.id: telemetry(load, at, named.get(load.id)) for load in plant.loads}
    meters = {}
    for node in plant.circuits:
        if node.meter is not None:
            beneath = sum(
                load.highest.watts if load.id not in named else load.point(named[load.id]).watts
                for load in plant.loads_beneath[node.id]
            )
            meters[node.meter] = meter_reading(node.meter, beneath + unmanaged_watts, at)
    values: dict[str, Any] = {
        "facility_id": plant.id,
        "at": at,
        "telemetry": readings,
        "meters": meters,
        "prices": Reading(price_curve([price_per_mwh] * 288, at), at),
        "hashprice": Reading(plant.economics.hashprice_per_ph_day, at),
    }
    return Snapshot(**{**values, **fields})


def command(
    load: Load,
    verb: Verb = Verb.POWER,
    watts: float | None = None,
    at: float = START,
    *,
    point: str | None = None,
    seq: int = 1,
    **fields: Any,
) -> Command:
    """Return a command to `load`: to `point`, to `watts`, or (sleep) to its lowest point."""
    if point is None and watts is None:
        point = (load.lowest if verb is Verb.SLEEP else load.highest).name
    asked = load.point(point).watts if point is not None else watts
    assert asked is not None
    order = Command(
        id=f"c{seq}",
        seq=seq,
        epoch=1,
        load_id=load.id,
        verb=verb,
        point=point or "",
        watts=asked,
        most_before_watts=load.worst_watts,
        most_after_watts=asked,
        cause=Cause.ECONOMIC,
        plan_id="p1",
        policy_hash="0" * 64,
        issued_at=at,
        not_after=at + 60.0,
        lease_s=60.0,
    )
    return replace(order, **fields)


def _known(circuits: Sequence[Circuit], wanted: str) -> str:
    ids = [node.id for node in circuits]
    return wanted if wanted in ids else ids[-1]
