"""What this driver can really do with each firmware class; a table of our own, never a library's flags.

Ramps are cautious figures from the makers' documents and field reports, not measured on hardware here: a bank's
options `ramp_down_s` and `ramp_up_s` replace them with what was measured on site.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from mullet.domain.load import Capability, LeaseHolder, Steering

WHATSMINER_V2 = "whatsminer_v2"
ANTMINER_MODERN = "antminer_modern"
MONITOR = "monitor"

CAPABILITIES: Mapping[str, Capability] = MappingProxyType(
    {
        WHATSMINER_V2: Capability(
            steering=Steering.ON_OFF,
            measures_watts=True,
            enforces_limit=False,
            ramp_down_s=4.0,
            ramp_up_s=20.0,
            lease=LeaseHolder.NONE,
        ),
        ANTMINER_MODERN: Capability(
            steering=Steering.ON_OFF,
            measures_watts=False,
            enforces_limit=False,
            ramp_down_s=12.0,
            ramp_up_s=45.0,
            lease=LeaseHolder.NONE,
        ),
        MONITOR: Capability(
            steering=Steering.MONITOR,
            measures_watts=False,
            enforces_limit=False,
            ramp_down_s=3600.0,
            ramp_up_s=3600.0,
            lease=LeaseHolder.NONE,
            interruptible=False,
        ),
    }
)
CLASSES = tuple(CAPABILITIES)


def capability_of(
    firmware_class: str | None, power_pct: bool, ramp_down_s: float | None, ramp_up_s: float | None
) -> Capability:
    """Return the capability of a class (of an unidentified miner: none but to be watched), ramps as measured."""
    found = CAPABILITIES[firmware_class or MONITOR]
    if firmware_class in (None, MONITOR):
        return found
    if power_pct and firmware_class == WHATSMINER_V2:
        found = replace(found, steering=Steering.CONTINUOUS)
    return replace(
        found,
        ramp_down_s=found.ramp_down_s if ramp_down_s is None else ramp_down_s,
        ramp_up_s=found.ramp_up_s if ramp_up_s is None else ramp_up_s,
    )
