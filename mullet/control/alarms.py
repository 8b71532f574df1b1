"""What an operator must know after a tick: circuits over their limit, meters and loads not to be relied on. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mullet.control.cooling import cooling_alarms
from mullet.control.decide import Decision
from mullet.domain.facility import Facility, Mode
from mullet.domain.telemetry import Quality
from mullet.domain.units import format_watts

SILENT_METER_S = 3.0
SETTLED_SAMPLES = 10
UNEXPLAINED_FRACTION = 0.02
"""Of a meter's reading: what may stay unexplained (R38)."""
NAMED = 3
"""Loads named in one alarm before the rest is counted."""


def standing_alarms(
    facility: Facility,
    decision: Decision,
    barred: Mapping[str, str] = MappingProxyType({}),
    ailments: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str | None]:
    """Return every alarm that this kind of look can raise, None where there is nothing to say.

    `barred` tells of loads why their drivers would write nothing to them, `ailments` what is amiss with them besides.
    """
    found: dict[str, str | None] = {}
    for circuit_id, account in decision.accounts.items():
        over = account.sum_watts - account.limit_watts
        text = None
        if over > 1.0:
            text = (
                f"{circuit_id} may draw {format_watts(account.sum_watts)} of {format_watts(account.limit_watts)}: "
                "only decreases go out"
            )
        found[f"circuit/{circuit_id}"] = text
        meter_id = facility.circuit_by_id[circuit_id].meter
        if meter_id is not None:
            found[f"unexplained/{circuit_id}"] = _unexplained_words(facility, decision, circuit_id)
            found[f"meter/{meter_id}"] = _meter_words(meter_id, decision)
    found.update(cooling_alarms(facility, decision.snapshot))
    unread = sorted(load_id for load_id, reading in decision.snapshot.telemetry.items() if reading.fault is not None)
    found["loads/unread"] = count_loads(unread, "cannot be read; counted at worst draw")
    failing = sorted(load_id for load_id, entry in decision.ledger.entries.items() if entry.failures > 0)
    found["loads/failing"] = count_loads(failing, "did not follow commands; others take their place")
    ailing = sorted(load_id for load_id in ailments if load_id in facility.load_by_id)
    found["loads/ailing"] = count_loads(ailing, "not in order (mullet status --fleet)")
    for bank, loads in facility.banks.items():
        first = loads[0]
        reason = barred.get(first.id) if facility.mode_of(first.circuit) is Mode.AUTO else None
        found[f"barred/{bank}"] = None if reason is None else f"{bank} is read-only: {reason}"
    return found


def _unexplained_words(facility: Facility, decision: Decision, circuit_id: str) -> str | None:
    """Tell of load that neither the policy nor any device owns up to, seen while nothing moved."""
    residual = decision.snapshot.residuals.get(circuit_id)
    measured = decision.accounts[circuit_id].measured_watts
    if residual is None or measured is None or residual.samples < SETTLED_SAMPLES:
        return None
    beneath = sum(c.unmanaged_max_watts for c in facility.circuits if circuit_id in facility.path(c.id))
    excess = residual.mean_watts - beneath - 3.0 * residual.sigma_watts - UNEXPLAINED_FRACTION * measured
    if excess <= 0.0:
        return None
    return f"{circuit_id}: its meter shows {format_watts(residual.mean_watts)} more than its loads say they draw"


def _meter_words(meter_id: str, decision: Decision) -> str | None:
    meter = decision.snapshot.meters.get(meter_id)
    if meter is None:
        return f"meter {meter_id} was never read: no increase beneath it"
    if meter.quality is Quality.BAD:
        return f"meter {meter_id}: {meter.detail}; counted as at its limit"
    age_s = decision.snapshot.at - meter.at
    return f"meter {meter_id} silent for {age_s:.0f} s: no increase beneath it" if age_s > SILENT_METER_S else None


def count_loads(load_ids: list[str], what: str) -> str | None:
    """Return "2 loads <what>: a, b", the first few by name; None where there are none."""
    if not load_ids:
        return None
    named = ", ".join(load_ids[:NAMED])
    more = f" and {len(load_ids) - NAMED} more" if len(load_ids) > NAMED else ""
    return f"{len(load_ids)} load{'s' if len(load_ids) > 1 else ''} {what}: {named}{more}"
