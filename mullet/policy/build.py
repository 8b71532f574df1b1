"""A draft without problems -> the Facility and its wiring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mullet.domain.facility import (
    STEP_PERIOD_S,
    Account,
    Auxiliary,
    Circuit,
    DemandStep,
    Economics,
    Facility,
    Pacing,
    SafeAction,
    SafetyRow,
    Service,
    ThermalGate,
)
from mullet.domain.load import AIR, LIQUID, Capability, LeaseHolder, Load, LoadKind, OperatingPoint, Steering
from mullet.policy.bank_checks import bank_load_ids, fail_safe_name
from mullet.policy.checks import SENSORS, USABLE_FRACTION, Options, mqtt_authority, split_listen
from mullet.policy.plant import BankSection, CircuitSection, ServiceSection
from mullet.policy.settings import FeedSection, PolicyModel
from mullet.policy.wiring import (
    ApiSpec,
    DeviceSpec,
    FeedSpec,
    FxRate,
    InfluxSpec,
    KnownNames,
    MqttSpec,
    RecordsSpec,
    Wiring,
)

USUAL_SAFETY = (
    SafetyRow("meter", 3.0, SafeAction.NO_INCREASE),
    SafetyRow("meter", 10.0, SafeAction.ASSUME_MAX),
    SafetyRow("meter", 30.0, SafeAction.FAILSAFE_LIMIT),
    SafetyRow("price", 600.0, SafeAction.LADDER),
    SafetyRow("limits", 30.0, SafeAction.HOLD_LAST),
    SafetyRow("demand", 10.0, SafeAction.RESERVE_ONLY),
    SafetyRow("telemetry", 15.0, SafeAction.WORST_DRAW),
)
"""What holds where the policy's safety table says nothing (R5, R7, R29)."""


def build_facility(model: PolicyModel, options: Options, known: KnownNames, policy_hash: str) -> Facility:
    """Return the facility that a checked policy describes."""
    accounts = {account.id: Account(account.id, account.uptime_floor or 0.0) for account in model.accounts}
    accounts.setdefault("own", Account("own"))
    loads = [
        load
        for index, bank in enumerate(model.banks)
        for load in _loads(bank, known.capability_of(bank.driver, options["banks"][index]))
    ]
    return Facility(
        id=model.facility.id,
        currency=model.facility.currency,
        circuits=tuple(_circuit(circuit) for circuit in model.circuits),
        loads=tuple(loads),
        services=tuple(_service(service) for service in model.services),
        auxiliaries=tuple(
            Auxiliary(a.id, a.circuit, a.fixed, a.follows, a.must_run_before, a.run_on) for a in model.auxiliaries
        ),
        accounts=tuple(accounts.values()),
        economics=_economics(model),
        pacing=_pacing(model),
        safety=_safety(model),
        mode=model.facility.mode,
        policy_hash=policy_hash,
        grid_steps=tuple((step.every, step.count) for step in model.planning.steps),
        labels=dict(model.facility.labels),
        gates=_gates(model),
    )


def build_wiring(model: PolicyModel, options: Options, facility: Facility) -> Wiring:
    """Return what the composition root builds adapters from."""
    drivers: dict[str, dict[str, Mapping[str, Any]]] = {}
    agents: dict[str, tuple[str, ...]] = {}
    for index, bank in enumerate(model.banks):
        drivers.setdefault(bank.driver, {})[bank.id] = options["banks"][index]
        if bank.agent is not None:
            agents[bank.agent] = (*agents.get(bank.agent, ()), *bank_load_ids(bank))
    on_circuit = {circuit.meter: circuit.id for circuit in model.circuits if circuit.meter}
    opens = {circuit.switch: circuit.id for circuit in model.circuits if circuit.switch}
    return Wiring(
        drivers=drivers,
        poll_s={bank.id: bank.poll for bank in model.banks},
        meters={
            meter.id: DeviceSpec(meter.driver, options["meters"][index], on_circuit[meter.id], meter.poll)
            for index, meter in enumerate(model.meters)
        },
        switches={
            switch.id: DeviceSpec(switch.driver, options["switches"][index], opens[switch.id])
            for index, switch in enumerate(model.switches)
        },
        feeds=_feeds(model, options, facility.currency),
        agents=agents,
        mqtt=_mqtt(model),
        api=_api(model),
        records=_records(model),
        fx={rate.currency: FxRate(rate.currency, rate.rate, rate.as_of, rate.max_age) for rate in model.feeds.fx or ()},
        nameplate_banks=frozenset(bank.id for bank in model.banks if not bank.learn),
    )


def _circuit(circuit: CircuitSection) -> Circuit:
    return Circuit(
        id=circuit.id,
        parent=circuit.parent,
        rating_watts=circuit.rating,
        usable_watts=circuit.rating * USABLE_FRACTION if circuit.limit is None else circuit.limit,
        meter=circuit.meter,
        unmanaged_max_watts=circuit.unmanaged_max or 0.0,
        meter_error=circuit.meter_error,
        switch=circuit.switch,
        mode=circuit.mode,
        accepts_unleased=circuit.accept_unleased,
        failsafe_watts=circuit.failsafe_limit,
    )


def _service(service: ServiceSection) -> Service:
    return Service(
        id=service.id,
        value_per_mtoken=service.value,
        priority=service.priority,
        slo_ttft_s=service.slo,
        flex=service.flex,
        reserve_watts=service.reserve,
        steps=tuple(DemandStep(each.probability, each.power) for each in service.steps.quantiles)
        if service.steps is not None
        else (),
        step_period_s=service.steps.period if service.steps is not None else STEP_PERIOD_S,
        margin=service.margin,
        up_hold_s=service.up_hold,
    )


def _loads(bank: BankSection, capability: Capability) -> list[Load]:
    commanded = capability.steering is not Steering.MONITOR
    if bank.agent is not None and commanded and capability.lease is LeaseHolder.NONE:
        capability = replace(capability, lease=LeaseHolder.AGENT)
    capability = replace(
        capability,
        ramp_down_s=capability.ramp_down_s if bank.ramp_down is None else bank.ramp_down,
        ramp_up_s=capability.ramp_up_s if bank.ramp_up is None else bank.ramp_up,
        min_dwell_s=capability.min_dwell_s if bank.min_dwell is None else bank.min_dwell,
    )
    if bank.kind == "gpu":
        points = tuple(
            OperatingPoint(f"{point.power:g}W", point.power, tokens_per_s=point.tokens) for point in bank.curve or ()
        )
    else:
        points = tuple(OperatingPoint(point.name, point.power, th_per_s=point.hashrate) for point in bank.points or ())
    fail_safe = fail_safe_name(bank)
    assert fail_safe is not None
    return [
        Load(
            id=load_id,
            kind=LoadKind(bank.kind),
            bank=bank.id,
            driver=bank.driver,
            address=item.address,
            circuit=bank.circuit,
            account=bank.account,
            points=points,
            fail_safe=fail_safe,
            worst_watts=points[-1].watts if bank.worst is None else bank.worst,
            tolerance=bank.tolerance,
            capability=capability,
            service=bank.service,
            identity=item.identity,
            agent=bank.agent,
            cooling=bank.cooling,
        )
        for load_id, item in zip(bank_load_ids(bank), bank.addresses, strict=True)
    ]


def _economics(model: PolicyModel) -> Economics:
    economics = model.economics
    return Economics(
        hashprice_per_ph_day=economics.hashprice,
        pool_fee=economics.pool_fee,
        energy_adder_per_mwh=economics.energy_adder,
        fallback_price_per_mwh=economics.fallback_price,
        price_min_per_mwh=economics.price_bounds.low,
        price_max_per_mwh=economics.price_bounds.high,
        deadband_per_mwh=economics.deadband,
    )


def _pacing(model: PolicyModel) -> Pacing:
    pacing = model.pacing
    return Pacing(
        tick_s=pacing.tick,
        economic_ramp_per_s=pacing.ramp,
        block_fraction=pacing.block,
        block_period_s=pacing.block_period,
        min_on_s=pacing.min_on,
        min_off_s=pacing.min_off,
        command_gap_s=pacing.command_gap,
        max_cycles_per_day=pacing.max_cycles_per_day,
        notice_s=pacing.notice,
        lease_s=model.leases.duration,
        renew_s=model.leases.renew,
        backoff_first_s=pacing.backoff_first,
        backoff_most_s=pacing.backoff_most,
        verify_margin=pacing.verify_margin,
        solver_limit_s=model.planning.solver_limit,
    )


def _safety(model: PolicyModel) -> tuple[SafetyRow, ...]:
    """The policy's rows, then the usual ones for what it leaves out; a feed's own `max_age` is its usual age."""
    rows = [SafetyRow(row.source, row.max_age, row.action) for row in model.safety]
    given = {(row.source, row.action) for row in rows}
    ages: dict[str, float] = {}
    for name in ("price", "limits"):
        feed: FeedSection | None = getattr(model.feeds, name)
        if feed is not None:
            ages[name] = feed.max_age
    if model.services:
        ages["demand"] = max(service.metrics.max_age for service in model.services)
    for usual in USUAL_SAFETY:
        if (usual.source, usual.action) not in given:
            rows.append(replace(usual, max_age_s=ages.get(usual.source, usual.max_age_s)))
    return tuple(rows)


def _feeds(model: PolicyModel, options: Options, currency: str) -> dict[str, FeedSpec]:
    feeds: dict[str, FeedSpec] = {}
    for name in ("price", "limits", "hashprice", *SENSORS):
        feed: FeedSection | None = getattr(model.feeds, name)
        if feed is not None:
            values = options["feeds"][name]
            kind = f"sensor:{name}" if name in SENSORS else name
            feeds[name] = FeedSpec(kind, feed.driver, values, feed.max_age, feed.poll, feed.currency or currency)
    for index, service in enumerate(model.services):
        metrics, values = service.metrics, options["services"][index]
        kind = f"demand:{service.id}"
        feeds[f"demand-{service.id}"] = FeedSpec(kind, metrics.driver, values, metrics.max_age, metrics.poll, currency)
    return feeds


def _gates(model: PolicyModel) -> tuple[ThermalGate, ...]:
    """Return what gates waking; a limit without its feed was refused before."""
    thermal = model.thermal
    if thermal is None:
        return ()
    gates = []
    for sensor, unit in SENSORS.items():
        least, most = getattr(thermal, f"{sensor}_min", None), getattr(thermal, f"{sensor}_max", None)
        feed: FeedSection | None = getattr(model.feeds, sensor)
        if feed is None or (least is None and most is None):
            continue
        cooling = AIR if sensor == "ambient" else LIQUID
        gates.append(ThermalGate(sensor, cooling, unit, least, most, feed.max_age, stops=sensor == "flow"))
    return tuple(gates)


def _mqtt(model: PolicyModel) -> MqttSpec | None:
    mqtt = model.mqtt
    if mqtt is None:
        return None
    address = split_listen(mqtt_authority(mqtt.url))
    assert address is not None
    return MqttSpec(
        host=address[0],
        port=address[1],
        tls=mqtt.url.startswith("mqtts"),
        username=mqtt.username,
        password=mqtt.password,
        ca=mqtt.ca,
        cert=mqtt.cert,
        key=mqtt.key,
        signing_key=mqtt.signing_key,
    )


def _api(model: PolicyModel) -> ApiSpec:
    address = split_listen(model.api.listen)
    assert address is not None
    return ApiSpec(address[0], address[1], model.api.token)


def _records(model: PolicyModel) -> RecordsSpec:
    records, influx = model.records, model.records.influx
    spec = None if influx is None else InfluxSpec(influx.url, influx.token, influx.org, influx.bucket)
    return RecordsSpec(records.journal, records.telemetry, spec)
