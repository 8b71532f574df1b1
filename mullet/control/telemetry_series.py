"""One tick as numeric series for the historian. Pure."""

from __future__ import annotations

from mullet.control.decide import Decision
from mullet.control.status import power_by_kind
from mullet.domain.facility import Facility


def series_of(facility: Facility, decision: Decision) -> dict[str, dict[str, float]]:
    """Return numeric fields by series key; what is unknown is left out."""
    snapshot = decision.snapshot
    power = power_by_kind(facility, decision)
    root = decision.accounts[facility.root.id]
    whole = {f"{kind}_w": watts for kind, watts in power.items()}
    whole["headroom_w"] = root.room_watts
    if root.measured_watts is not None:
        whole["meter_w"] = root.measured_watts
    price = snapshot.prices.value.at(snapshot.at) if snapshot.prices is not None else None
    if price is not None:
        whole["price_per_mwh"] = price
    series: dict[str, dict[str, float]] = {"facility": whole}
    for circuit_id, account in decision.accounts.items():
        fields = {"limit_w": account.limit_watts, "sum_w": account.sum_watts}
        if account.measured_watts is not None:
            fields["measured_w"] = account.measured_watts
        series[f"circuit/{circuit_id}"] = fields
    for load_id, reading in snapshot.telemetry.items():
        known = {
            "watts": reading.watts,
            "limit_w": reading.limit_watts,
            "th_per_s": reading.th_per_s,
            "celsius": reading.celsius,
        }
        series[f"load/{load_id}"] = {name: value for name, value in known.items() if value is not None}
    return series
