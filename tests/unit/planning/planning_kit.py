"""Small facilities and snapshots to plan with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mullet.domain.command import Command, CommandLedger, LedgerEntry, Verb
from mullet.domain.facility import Auxiliary, Circuit, Economics, Facility, Mode, Pacing, Service
from mullet.domain.feeds import Cause, PriceCurve, PriceInterval, Reading
from mullet.domain.load import Capability, LeaseHolder, Load, LoadKind, OperatingPoint, Steering
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import LoadState, MeterReading, Quality, Residual, Telemetry

AT = 1_700_000_000.0

MINER = Capability(Steering.MODES, measures_watts=True, enforces_limit=False, ramp_down_s=3.0, ramp_up_s=60.0)
BLIND = replace(MINER, measures_watts=False)
GPU = Capability(
    Steering.CONTINUOUS, True, enforces_limit=True, ramp_down_s=1.0, ramp_up_s=1.0, lease=LeaseHolder.AGENT
)

S19 = (OperatingPoint("off", 15.0), OperatingPoint("on", 3_250.0, th_per_s=110.0))
S21 = (
    OperatingPoint("off", 15.0),
    OperatingPoint("low", 2_600.0, th_per_s=165.0),
    OperatingPoint("normal", 3_500.0, th_per_s=200.0),
)
H100 = (OperatingPoint("min", 200.0, tokens_per_s=400.0), OperatingPoint("max", 700.0, tokens_per_s=2_000.0))


def miner(name: str, circuit: str, points: tuple[OperatingPoint, ...] = S19, **changes: Any) -> Load:
    top = points[-1].watts
    values: dict[str, Any] = {
        "id": name,
        "kind": LoadKind.MINER,
        "bank": f"bank-{circuit}",
        "driver": "asic",
        "address": name,
        "circuit": circuit,
        "account": "own",
        "points": points,
        "fail_safe": points[0].name,
        "worst_watts": top * 1.1,
        "tolerance": 0.05,
        "capability": MINER,
    }
    return Load(**{**values, **changes})


def gpu(name: str, circuit: str, service: str | None = "chat", **changes: Any) -> Load:
    values: dict[str, Any] = {
        "id": name,
        "kind": LoadKind.GPU,
        "bank": f"gpus-{circuit}",
        "driver": "gpu",
        "address": name,
        "circuit": circuit,
        "account": "own",
        "points": H100,
        "fail_safe": "min",
        "worst_watts": 700.0,
        "tolerance": 0.0,
        "capability": GPU,
        "service": service,
    }
    return Load(**{**values, **changes})


def circuit(name: str, parent: str | None, usable_watts: float, **changes: Any) -> Circuit:
    return Circuit(id=name, parent=parent, rating_watts=usable_watts / 0.8, usable_watts=usable_watts, **changes)


def facility(
    circuits: Sequence[Circuit],
    loads: Sequence[Load],
    services: Sequence[Service] = (),
    auxiliaries: Sequence[Auxiliary] = (),
    **changes: Any,
) -> Facility:
    values: dict[str, Any] = {
        "id": "test",
        "currency": "USD",
        "circuits": tuple(circuits),
        "loads": tuple(loads),
        "services": tuple(services),
        "auxiliaries": tuple(auxiliaries),
        "accounts": (),
        "economics": Economics(hashprice_per_ph_day=50.0),
        "pacing": Pacing(),
        "safety": (),
        "mode": Mode.AUTO,
        "policy_hash": "h",
    }
    return Facility(**{**values, **changes})


def small(**changes: Any) -> Facility:
    """A grid connection over an AI PDU with 4 GPUs and 4 miners and a mining PDU with 10 miners."""
    loads = [gpu(f"gpu{n}", "pdu-ai") for n in range(4)]
    loads += [miner(f"a{n}", "pdu-ai") for n in range(4)]
    loads += [miner(f"m{n}", "pdu-m", S21) for n in range(10)]
    circuits = (
        circuit("grid", None, changes.pop("grid_watts", 50_000.0), meter="mg"),
        circuit("pdu-ai", "grid", changes.pop("ai_watts", 20_000.0), meter="ma"),
        circuit("pdu-m", "grid", changes.pop("m_watts", 40_000.0)),
    )
    services = changes.pop("services", (Service("chat", value_per_mtoken=2.0),))
    return facility(circuits, loads, services, **changes)


def asleep(load: Load, at: float = AT) -> Telemetry:
    return Telemetry(load.id, at, watts=load.lowest.watts, state=LoadState.ASLEEP, th_per_s=0.0)


def hashing(load: Load, at: float = AT, point: OperatingPoint | None = None) -> Telemetry:
    where = point or load.highest
    return Telemetry(load.id, at, watts=where.watts, state=LoadState.ACTIVE, th_per_s=where.th_per_s)


def limited(load: Load, limit_watts: float, at: float = AT) -> Telemetry:
    return Telemetry(
        load.id, at, watts=limit_watts * 0.9, limit_watts=limit_watts, state=LoadState.ACTIVE, tokens_per_s=1.0
    )


def curve(*prices: float, start: float = AT - 300.0, step_s: float = 300.0) -> PriceCurve:
    return PriceCurve(
        tuple(PriceInterval(start + n * step_s, start + (n + 1) * step_s, price) for n, price in enumerate(prices))
    )


def meters(plant: Facility, readings: Mapping[str, Telemetry], at: float = AT) -> dict[str, MeterReading]:
    """Meters that read exactly what the loads report."""
    found = {}
    for node in plant.circuits:
        if node.meter is not None:
            watts = sum(
                (readings[load.id].watts or 0.0) for load in plant.loads_beneath[node.id] if load.id in readings
            )
            found[node.meter] = MeterReading(node.meter, at, watts, Quality.GOOD)
    return found


def residuals(plant: Facility, watts: float = 0.0, sigma: float = 0.0, at: float = AT) -> dict[str, Residual]:
    return {
        node.id: Residual(node.id, watts, sigma, 100, watts, at) for node in plant.circuits if node.meter is not None
    }


def snapshot(
    plant: Facility,
    running: Iterable[str] = (),
    limit_watts: float = 200.0,
    price: float | None = 40.0,
    **changes: Any,
) -> Snapshot:
    """All loads read just now: `running` miners at their highest point, the others asleep, GPUs at one limit."""
    running = set(running)
    readings: dict[str, Telemetry] = {}
    for load in plant.loads:
        if load.kind is LoadKind.GPU:
            readings[load.id] = limited(load, limit_watts)
        else:
            readings[load.id] = hashing(load) if load.id in running else asleep(load)
    readings.update(changes.pop("telemetry", {}))
    values: dict[str, Any] = {
        "facility_id": plant.id,
        "at": AT,
        "telemetry": readings,
        "meters": meters(plant, readings),
        "residuals": residuals(plant),
        "prices": None if price is None else Reading(curve(price, price), AT),
        "ledger": CommandLedger(),
    }
    return Snapshot(**{**values, **changes})


def command(load: Load, point: str, before: float, after: float, cause: Cause = Cause.ECONOMIC) -> Command:
    return Command(
        id=f"c-{load.id}",
        seq=1,
        epoch=1,
        load_id=load.id,
        verb=Verb.SLEEP if point == "off" else Verb.WAKE,
        point=point,
        watts=after,
        most_before_watts=before,
        most_after_watts=after,
        cause=cause,
        plan_id="p",
        policy_hash="h",
        issued_at=AT - 1.0,
        not_after=AT + 10.0,
        lease_s=60.0,
    )


def ledger(*entries: LedgerEntry) -> CommandLedger:
    return CommandLedger({entry.load_id: entry for entry in entries})


def confirmed(load: Load, point: str, at: float = AT - 100.0) -> LedgerEntry:
    return LedgerEntry(
        load.id,
        confirmed_point=point,
        confirmed_watts=load.most_at(load.point(point)),
        confirmed_at=at,
        last_change_at=at,
    )
