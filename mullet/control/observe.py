"""What pollers last saw, judged and frozen into a snapshot: ages, bad meters, residuals, feeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mullet.control.background import QUIET_S, Backgrounds, Beneath, Seen, moved, see
from mullet.control.draw import observed_draw
from mullet.domain.command import CommandLedger, LedgerEntry
from mullet.domain.facility import Facility, Mode
from mullet.domain.feeds import Curtailment, PriceCurve, Reading, ServiceDemand
from mullet.domain.snapshot import Hold, Snapshot
from mullet.domain.telemetry import MeterReading, Quality, Residual, Telemetry
from mullet.planning.accounting import silent_after_s

FROZEN_AFTER_S = 10.0
"""A meter that repeats itself to the bit for this long while devices move is frozen (R2)."""
HEARTBEAT_AFTER_S = 3.0
MOVED_WATTS = 200.0
MOVED_FRACTION = 0.02
"""Loads have moved once what they draw has changed by this share of the meter's reading."""


@dataclass(slots=True)
class _MeterTrack:
    """How a meter's readings have changed."""

    watts: float | None = None
    same_since: float = 0.0
    heartbeat: int | None = None
    beat_since: float = 0.0
    observed: float = 0.0
    """What the loads beneath were seen to draw when the reading last changed."""


class Observatory:
    """Keeps the latest reading of everything and judges what may be believed."""

    def __init__(self, facility: Facility) -> None:
        self._facility = facility
        self._telemetry: dict[str, Telemetry] = {}
        self._last_good: dict[str, Telemetry] = {}
        self._meters: dict[str, MeterReading] = {}
        self._tracks: dict[str, _MeterTrack] = {}
        self._residuals: dict[str, Residual] = {}
        self._quiet_since: dict[str, float] = {}
        self._backgrounds = Backgrounds()
        self._prices: Reading[PriceCurve] | None = None
        self._hashprice: Reading[float] | None = None
        self._sensors: dict[str, Reading[float]] = {}
        self._demand: dict[str, ServiceDemand] = {}
        self._needs: dict[str, float] = {}
        self._limits: tuple[Curtailment, ...] = ()
        self._limits_at: float | None = None

    def adopt(self, facility: Facility) -> None:
        """Take over a reloaded facility; what is known of loads that remain is kept."""
        self._facility = facility
        for load_id in [load_id for load_id in self._telemetry if load_id not in facility.load_by_id]:
            del self._telemetry[load_id]
            self._last_good.pop(load_id, None)
        self._residuals = {key: value for key, value in self._residuals.items() if key in facility.circuit_by_id}

    @property
    def telemetry(self) -> Mapping[str, Telemetry]:
        """The latest reading of each load."""
        return self._telemetry

    @property
    def meters(self) -> Mapping[str, MeterReading]:
        """The latest reading of each meter."""
        return self._meters

    @property
    def prices(self) -> Reading[PriceCurve] | None:
        """The latest believed price curve."""
        return self._prices

    @property
    def limits_at(self) -> float | None:
        """When the limits feed was last read, None if never."""
        return self._limits_at

    @property
    def demand(self) -> Mapping[str, ServiceDemand]:
        """The latest good demand per service."""
        return self._demand

    def saw(self, reading: Telemetry) -> None:
        """Take in one reading of a load; an older one than the latest is dropped."""
        latest = self._telemetry.get(reading.load_id)
        if reading.load_id not in self._facility.load_by_id or (latest is not None and latest.at > reading.at):
            return
        load = self._facility.load_by_id[reading.load_id]
        if load.identity is not None and reading.identity is not None and reading.identity != load.identity:
            reading = Telemetry(
                reading.load_id, reading.at, fault=f"answers as {reading.identity}, pinned to {load.identity}"
            )
        self._telemetry[reading.load_id] = reading
        if reading.fault is None:
            self._last_good[reading.load_id] = reading

    def saw_meter(self, reading: MeterReading) -> None:
        """Take in one meter reading, marking it bad if it cannot be true or does not live."""
        track = self._tracks.setdefault(reading.meter_id, _MeterTrack(same_since=reading.at, beat_since=reading.at))
        if reading.quality is Quality.GOOD:
            reading = self._judge(reading, track, self._observed(reading.meter_id))
        latest = self._meters.get(reading.meter_id)
        if latest is None or reading.at >= latest.at:
            self._meters[reading.meter_id] = reading

    def _observed(self, meter_id: str) -> float:
        """Return what the loads beneath a meter's circuit are seen to draw, by their last good readings."""
        beneath = next((c.id for c in self._facility.circuits if c.meter == meter_id), None)
        if beneath is None:
            return 0.0
        loads = self._facility.loads_beneath[beneath]
        return sum(observed_draw(load, self._last_good.get(load.id), LedgerEntry(load.id)) for load in loads)

    def _judge(self, reading: MeterReading, track: _MeterTrack, observed: float) -> MeterReading:
        watts = reading.watts
        if watts is None or not math.isfinite(watts) or watts < -1.0:
            return replace(reading, watts=None, quality=Quality.BAD, detail=f"reads {watts}")
        if track.watts is None or watts != track.watts:
            track.watts, track.same_since, track.observed = watts, reading.at, observed
        if reading.heartbeat is None or reading.heartbeat != track.heartbeat:
            track.heartbeat, track.beat_since = reading.heartbeat, reading.at
        elif reading.at - track.beat_since > HEARTBEAT_AFTER_S:
            silent_s = reading.at - track.beat_since
            return replace(reading, quality=Quality.BAD, detail=f"heartbeat stands still for {silent_s:.0f} s")
        moved = abs(observed - track.observed) > max(MOVED_WATTS, MOVED_FRACTION * watts)
        if moved and reading.at - track.same_since >= FROZEN_AFTER_S:
            same_s = reading.at - track.same_since
            return replace(reading, quality=Quality.BAD, detail=f"frozen at {watts:.0f} W for {same_s:.0f} s")
        return reading

    def saw_prices(self, curve: PriceCurve, at: float) -> None:
        """Take in a price curve that passed quarantine."""
        self._prices = Reading(curve, at)

    def refused_prices(self, reason: str) -> None:
        """Note that the feed's latest value was quarantined; the last good one stays, and ages."""
        if self._prices is not None:
            self._prices = replace(self._prices, quarantined=reason)

    def saw_hashprice(self, hashprice: float, at: float) -> None:
        """Take in a hashprice per PH and day."""
        self._hashprice = Reading(hashprice, at)

    def saw_sensor(self, name: str, value: float, at: float) -> None:
        """Take in what a temperature (degC) or flow (L/min) sensor shows."""
        self._sensors[name] = Reading(value, at)

    def saw_demand(self, demand: ServiceDemand) -> None:
        """Take in the demand on a service."""
        self._demand[demand.service] = demand

    def set_need(self, service: str, watts: float | None) -> None:
        """Set what GPU power a service needs now; None while unknown."""
        if watts is None:
            self._needs.pop(service, None)
        else:
            self._needs[service] = watts

    @property
    def needs(self) -> Mapping[str, float]:
        """What each service needs now."""
        return self._needs

    def saw_limits(self, limits: tuple[Curtailment, ...], at: float) -> None:
        """Take in the grid's ceilings: levels, so what is no longer listed has ended."""
        self._limits, self._limits_at = limits, at

    def complete(self) -> bool:
        """Return whether every load was read, or failed to be read, and every meter was compared with its loads."""
        metered = [circuit for circuit in self._facility.circuits if circuit.meter is not None]
        compared = all(
            (known := self._residuals.get(circuit.id)) is not None and known.samples > 0 for circuit in metered
        )
        return compared and all(load.id in self._telemetry for load in self._facility.loads)

    def snapshot(
        self,
        at: float,
        ledger: CommandLedger,
        holds: tuple[Hold, ...],
        operator_mode: Mode,
        orders: Iterable[Curtailment],
        records_ok: bool,
        first_reading_done: bool,
        barred: frozenset[str] = frozenset(),
    ) -> Snapshot:
        """Freeze what is known at `at`."""
        self._settle_residuals(at, ledger)
        return Snapshot(
            facility_id=self._facility.id,
            at=at,
            telemetry=dict(self._telemetry),
            meters=dict(self._meters),
            residuals=dict(self._residuals),
            prices=self._prices,
            hashprice=self._hashprice,
            demand=dict(self._demand),
            sensors=dict(self._sensors),
            needs=dict(self._needs),
            curtailments=(*self._limits, *orders),
            holds=holds,
            operator_mode=operator_mode,
            ledger=ledger,
            records_ok=records_ok,
            first_reading_done=first_reading_done,
            barred=barred,
        )

    def _settle_residuals(self, at: float, ledger: CommandLedger) -> None:
        silent_s = silent_after_s(self._facility)
        # A load lies beneath several meters; it is looked at once.
        looked: dict[str, Seen] = {}
        for circuit in self._facility.circuits:
            meter = self._meters.get(circuit.meter) if circuit.meter is not None else None
            if meter is None or meter.watts is None or meter.quality is not Quality.GOOD:
                continue
            known = self._residuals.get(circuit.id)
            if known is not None and known.at >= meter.at:
                continue
            beneath = Beneath(at)
            for load in self._facility.loads_beneath[circuit.id]:
                seen = looked.get(load.id)
                if seen is None:
                    latest, good = self._telemetry.get(load.id), self._last_good.get(load.id)
                    seen = looked[load.id] = see(load, ledger.entry(load.id), latest, good, at, silent_s)
                beneath.add(seen)
            moving = beneath.moving
            if moving:
                self._quiet_since.pop(circuit.id, None)
            quiet_since = self._quiet_since.setdefault(circuit.id, at) if not moving else at
            first_sigma = circuit.meter_error * abs(meter.watts) / 3.0
            residual = _next_residual(
                circuit.id,
                known,
                meter.watts - beneath.watts,
                meter.at,
                settled=not moving and (known is None or known.samples == 0 or at - quiet_since >= QUIET_S),
                first_sigma=first_sigma,
            )
            background = self._backgrounds.next(circuit.id, residual.background, meter, beneath, first_sigma)
            self._residuals[circuit.id] = replace(residual, background=background)


def _next_residual(
    circuit_id: str, known: Residual | None, latest: float, at: float, *, settled: bool, first_sigma: float
) -> Residual:
    if known is None:
        known = Residual(circuit_id, 0.0, first_sigma, 0, latest, at)
    if not settled:
        return replace(known, latest_watts=latest, at=at)
    if known.samples == 0:
        return Residual(circuit_id, latest, max(first_sigma, 1.0), 1, latest, at, known.background)
    mean, sigma = moved(known.mean_watts, known.sigma_watts, known.samples, latest)
    return Residual(circuit_id, mean, sigma, known.samples + 1, latest, at, known.background)
