"""The status as Prometheus metrics; what a status does not have is left out, never set to zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Status = Mapping[str, Any]

_WHOLE = (
    ("mullet_headroom_watts", "Limit of the grid connection less the worst sum beneath it", "headroom_w"),
    ("mullet_price_per_mwh", "Price of energy now, in the facility's currency", "price_per_mwh"),
    ("mullet_hashprice_per_ph_day", "Revenue of mining per PH/s and day", "hashprice_per_ph_day"),
    ("mullet_commands_pending", "Commands whose outcome is not known yet", "pending"),
    ("mullet_commands_in_flight", "Commands being sent now", "in_flight"),
)
_OF_CIRCUIT = (
    ("mullet_circuit_limit_watts", "Limit that stands now", "limit_w"),
    ("mullet_circuit_sum_watts", "Worst sum of all draws beneath the circuit", "sum_w"),
    ("mullet_circuit_room_watts", "Room for increases", "room_w"),
    ("mullet_circuit_measured_watts", "Reading of the circuit's meter", "measured_w"),
    ("mullet_meter_age_seconds", "Age of the meter's reading", "meter_age_s"),
)
_OF_SERVICE = (
    ("mullet_service_need_watts", "Power that the service's objective needs", "need_w"),
    ("mullet_service_limit_watts", "Sum of the service's power limits", "limit_w"),
    ("mullet_service_waiting_requests", "Requests that wait", "waiting"),
    ("mullet_service_running_requests", "Requests that run", "running"),
    ("mullet_service_tokens_per_second", "Tokens generated per second", "tokens_per_s"),
)


def metrics_text(status: Status, now: float) -> bytes:
    """Return the Prometheus text page of one status; `now` in Unix seconds."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(lambda: _families(status, now)))
    return bytes(generate_latest(registry))


class _Collected(Collector):
    def __init__(self, families: Callable[[], Iterator[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return self._families()


def _families(status: Status, now: float) -> Iterator[Metric]:
    yield _one("mullet_ready", "1 once control has begun", float(bool(status.get("ready"))))
    yield _one("mullet_status_age_seconds", "Age of the latest finished tick", max(0.0, now - status["at"]))
    ticks = CounterMetricFamily("mullet_ticks", "Finished ticks")
    ticks.add_metric((), float(status.get("ticks", 0)))
    yield ticks
    yield _labelled("mullet_mode", "1 for the mode in force", "mode", {str(status["mode"]): 1.0})
    for name, text, field in _WHOLE:
        if status.get(field) is not None:
            yield _one(name, text, float(status[field]))
    yield _labelled("mullet_power_watts", "Power drawn, by kind of load and as metered", "kind", status.get("power_w"))
    yield _labelled("mullet_loads", "Loads under control", "kind", status.get("loads"))
    for name, text, field in _OF_CIRCUIT:
        yield _labelled(name, text, "circuit", _field(status.get("circuits"), field))
    for name, text, field in _OF_SERVICE:
        yield _labelled(name, text, "service", _field(status.get("services"), field))
    if "faults" in status:
        yield _one("mullet_loads_faulty", "Loads that cannot be read", float(len(status["faults"])))
    alarms = {item["key"]: 1.0 for item in status.get("alarms", ())}
    yield _labelled("mullet_alarm", "1 for every alarm that stands", "key", alarms)
    yield _one("mullet_alarms", "Alarms that stand", float(len(alarms)))
    yield _labelled("mullet_holds", "Holds that stand", "kind", _count(status.get("holds", ()), "kind"))
    curtailments = _count(status.get("curtailments", ()), "cause")
    yield _labelled("mullet_curtailments", "Ceilings that stand or come", "cause", curtailments)
    yield _labelled("mullet_feed_age_seconds", "Age of a feed's value", "feed", _field(status.get("feeds"), "age_s"))
    yield _labelled("mullet_lease_age_seconds", "Age of an agent's lease", "agent", status.get("lease_ages_s"))
    for name, label in (("commands", "cause"), ("outcomes", "outcome")):
        counts = status.get("counts", {}).get(name)
        if counts:
            family = CounterMetricFamily(f"mullet_{name}", f"All {name} since the start", labels=(label,))
            for key, count in sorted(counts.items()):
                family.add_metric((str(key),), float(count))
            yield family


def _one(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text)
    family.add_metric((), value)
    return family


def _labelled(name: str, text: str, label: str, values: Mapping[str, float | None] | None) -> Metric:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for key, value in sorted((values or {}).items()):
        if value is not None:
            family.add_metric((key,), float(value))
    return family


def _field(rows: Mapping[str, Mapping[str, Any]] | None, field: str) -> dict[str, float | None]:
    return {key: row.get(field) for key, row in (rows or {}).items()}


def _count(rows: Any, field: str) -> dict[str, float | None]:
    counts: dict[str, float | None] = {}
    for row in rows:
        counts[row[field]] = (counts.get(row[field]) or 0.0) + 1.0
    return counts
