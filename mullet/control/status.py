"""The state of the facility as plain data, for the page, the terminal, the API and the historian. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mullet.control.decide import Decision
from mullet.control.draw import observed_draw
from mullet.control.reasons import circuit_reasons, group_reasons
from mullet.domain.facility import Facility
from mullet.domain.load import LoadKind
from mullet.domain.telemetry import Quality
from mullet.planning.thermal import why_not_wake


def power_by_kind(facility: Facility, decision: Decision) -> dict[str, float]:
    """Return watts drawn by each kind of load, as observed; one that was never read is left out."""
    totals = {kind.value: 0.0 for kind in LoadKind}
    for load in facility.loads:
        reading = decision.snapshot.telemetry.get(load.id)
        if reading is None:
            continue
        totals[load.kind.value] += observed_draw(load, reading, decision.ledger.entry(load.id))
    return totals


def facility_status(
    facility: Facility, decision: Decision, alarms: Mapping[str, tuple[str, float]], mode: str, price: float | None
) -> dict[str, Any]:
    """Return the state after one tick."""
    snapshot = decision.snapshot
    power = power_by_kind(facility, decision)
    root = decision.accounts[facility.root.id]
    pending = sum(1 for entry in decision.ledger.entries.values() if entry.pending)
    faults = {reading.load_id: reading.fault for reading in snapshot.telemetry.values() if reading.fault is not None}
    return {
        "facility": facility.id,
        "at": snapshot.at,
        "mode": mode,
        "currency": facility.currency,
        "price_per_mwh": price,
        "hashprice_per_ph_day": snapshot.hashprice.value if snapshot.hashprice is not None else None,
        "power_w": {**power, "total": sum(power.values()), "meter": root.measured_watts},
        "headroom_w": root.limit_watts - root.sum_watts,
        "plan": {
            "id": decision.plan.id if decision.plan is not None else None,
            "rung": decision.plan.rung.value if decision.plan is not None else None,
            "valid_until": decision.plan.valid_until if decision.plan is not None else None,
        },
        "pending": pending,
        "loads": {"miners": len(facility.of_kind(LoadKind.MINER)), "gpus": len(facility.of_kind(LoadKind.GPU))},
        "faults": faults,
        "circuits": {circuit.id: _circuit_status(facility, decision, circuit.id) for circuit in facility.circuits},
        "services": {
            service.id: {
                "need_w": snapshot.needs.get(service.id),
                "limit_w": sum(
                    reading.limit_watts or 0.0
                    for load in facility.loads_of_service[service.id]
                    if (reading := snapshot.telemetry.get(load.id)) is not None
                ),
                "waiting": demand.waiting if (demand := snapshot.demand.get(service.id)) is not None else None,
                "running": demand.running if demand is not None else None,
                "tokens_per_s": demand.tokens_per_s if demand is not None else None,
            }
            for service in facility.services
        },
        "holds": [
            {"id": hold.id, "target": hold.target, "kind": hold.kind.value, "owner": hold.owner, "reason": hold.reason}
            for hold in snapshot.holds
        ],
        "curtailments": [
            {
                "id": item.id,
                "circuit": item.circuit,
                "limit_w": item.limit_watts,
                "cause": item.cause.value,
                "start": item.start,
                "end": item.end,
            }
            for item in snapshot.curtailments
        ],
        "alarms": [{"key": key, "text": text, "since": since} for key, (text, since) in sorted(alarms.items())],
    }


def _circuit_status(facility: Facility, decision: Decision, circuit_id: str) -> dict[str, Any]:
    account = decision.accounts[circuit_id]
    circuit = facility.circuit_by_id[circuit_id]
    meter = decision.snapshot.meters.get(circuit.meter) if circuit.meter is not None else None
    return {
        "parent": circuit.parent,
        "limit_w": account.limit_watts,
        "sum_w": account.sum_watts,
        "room_w": account.room_watts,
        "measured_w": account.measured_watts,
        "meter": "none" if meter is None else meter.quality.value,
        "meter_age_s": None if meter is None else decision.snapshot.at - meter.at,
        "meter_detail": "" if meter is None or meter.quality is Quality.GOOD else meter.detail,
        "cause": account.cause.value if account.cause is not None else None,
        "increases": account.increases_allowed,
        "why_not": account.why_not,
    }


def loads_status(
    facility: Facility,
    decision: Decision,
    far: Mapping[str, str] = MappingProxyType({}),
    barred: Mapping[str, str] = MappingProxyType({}),
    makes: Mapping[str, str] = MappingProxyType({}),
    ailments: Mapping[str, str] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Return one row per load: state, draw, setpoint, and why.

    `far` says who is far from its group, `barred` to whom nothing can be written, `makes` what was once identified,
    `ailments` what is amiss with whom although it can be read.
    """
    rows = []
    for load in facility.loads:
        reading = decision.snapshot.telemetry.get(load.id)
        entry = decision.ledger.entry(load.id)
        setpoint = decision.desired.setpoints.get(load.id)
        rows.append(
            {
                "id": load.id,
                "kind": load.kind.value,
                "bank": load.bank,
                "make": (reading.make if reading is not None else None) or makes.get(load.id),
                "circuit": load.circuit,
                "state": reading.state.value if reading is not None and reading.state is not None else None,
                "watts": reading.watts if reading is not None else None,
                "limit_w": reading.limit_watts if reading is not None else None,
                "age_s": decision.snapshot.at - reading.at if reading is not None else None,
                "fault": reading.fault if reading is not None else "never read",
                "setpoint": setpoint.point if setpoint is not None else None,
                "setpoint_w": setpoint.watts if setpoint is not None else None,
                "cause": setpoint.cause.value if setpoint is not None else None,
                "rule": setpoint.rule if setpoint is not None else None,
                "pending": entry.pending,
                "failures": entry.failures,
                "withheld": barred.get(load.id) or decision.dispatch.withheld.get(load.id),
                "far": far.get(load.id),
                "ailment": ailments.get(load.id),
            }
        )
    return rows


def explain(facility: Facility, decision: Decision, target: str) -> dict[str, Any]:
    """Return why a load stands where it stands, or what binds a circuit.

    Raises:
        KeyError: neither a load nor a circuit is called `target`.
    """
    snapshot = decision.snapshot
    if target in facility.circuit_by_id:
        beneath = facility.loads_beneath[target]
        return {
            "circuit": target,
            "at": snapshot.at,
            **_circuit_status(facility, decision, target),
            "shadow_price_per_mwh": _shadow_price(decision, target),
            "binds": circuit_reasons(facility, decision, target),
            "setpoints": _count_rules(decision, [load.id for load in beneath]),
        }
    load = facility.load_by_id.get(target)
    if load is None:
        raise KeyError(target)
    entry = decision.ledger.entry(target)
    setpoint = decision.desired.setpoints.get(target)
    reading = snapshot.telemetry.get(target)
    hold = snapshot.held(facility, target)
    return {
        "load": target,
        "at": snapshot.at,
        "inputs": {
            "price_per_mwh": snapshot.prices.value.at(snapshot.at) if snapshot.prices is not None else None,
            "price_age_s": snapshot.prices.age_s(snapshot.at) if snapshot.prices is not None else None,
            "hashprice_per_ph_day": snapshot.hashprice.value if snapshot.hashprice is not None else None,
            "reading_age_s": snapshot.at - reading.at if reading is not None else None,
            "state": reading.state.value if reading is not None and reading.state is not None else None,
            "watts": reading.watts if reading is not None else None,
            "fault": reading.fault if reading is not None else "never read",
            "plan": decision.plan.id if decision.plan is not None else None,
            "rung": decision.plan.rung.value if decision.plan is not None else None,
        },
        "setpoint": None if setpoint is None else {"point": setpoint.point, "watts": setpoint.watts},
        "cause": setpoint.cause.value if setpoint is not None else None,
        "rule": setpoint.rule
        if setpoint is not None
        else _why_not_commanded(
            snapshot.at, hold is not None, entry.blocked_until, why_not_wake(facility, snapshot, load)
        ),
        "binding": setpoint.binding if setpoint is not None else None,
        "group": group_reasons(facility, decision, target),
        "hold": None if hold is None else {"kind": hold.kind.value, "owner": hold.owner, "reason": hold.reason},
        "withheld": decision.dispatch.withheld.get(target),
        "last_command": None
        if entry.command is None
        else {
            "id": entry.command.id,
            "verb": entry.command.verb.value,
            "watts": entry.command.watts,
            "cause": entry.command.cause.value,
            "issued_at": entry.command.issued_at,
            "pending": entry.pending,
            "failures": entry.failures,
        },
        "circuits": {node: _circuit_status(facility, decision, node) for node in facility.path(load.circuit)},
    }


def _why_not_commanded(at: float, held: bool, blocked_until: float, shut: str | None) -> str:
    if shut is not None:
        return f"sleeps and may not be woken: {shut}"
    if held:
        return "held by an operator: not commanded"
    if blocked_until > at:
        return f"backs off for {blocked_until - at:.0f} s more after failed commands; counted at its worst draw"
    return "not commanded: silent, or its mode is not auto; counted at its worst draw"


def _shadow_price(decision: Decision, circuit_id: str) -> float | None:
    interval = decision.plan.interval_at(decision.snapshot.at) if decision.plan is not None else None
    return interval.shadow_price_per_mwh.get(circuit_id) if interval is not None else None


def _count_rules(decision: Decision, load_ids: list[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for load_id in load_ids:
        setpoint = decision.desired.setpoints.get(load_id)
        key = "not commanded" if setpoint is None else setpoint.rule
        counts[key] = counts.get(key, 0) + 1
    return counts
