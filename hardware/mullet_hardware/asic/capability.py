"""What this driver can really do with each firmware; a table of our own, never a library's flags.

Ramps are cautious figures from the makers' documents and field reports, not measured on hardware here: a bank's
options `ramp_down_s` and `ramp_up_s` replace them with what was measured on site. hardware/SUPPORTED.md is made of
this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from mullet.domain.load import Capability, LeaseHolder, Steering

WHATSMINER_V2 = "whatsminer_v2"
WHATSMINER_V3 = "whatsminer_v3"
ANTMINER_MODERN = "antminer_modern"
ANTMINER_OLD = "antminer_old"
BRAIINS = "braiins"
LUXOS = "luxos"
VNISH = "vnish"
EPIC = "epic"
AURADINE = "auradine"
MARATHON = "marathon"
AVALON = "avalon"
AXEOS = "axeos"
MONITOR = "monitor"


HEALTH = ("boards", "temperatures", "fans", "errors")
"""What a miner is asked for every few minutes, where it tells it."""


class Grade(StrEnum):
    """What a claim about a firmware rests on, the strongest first."""

    HARDWARE = "hardware"
    CAPTURE = "captured payload"
    DOCUMENTATION = "documentation"
    SOURCE = "library source"


class Keeps(StrEnum):
    """Whether a write outlives a reboot of the miner."""

    VOLATILE = "volatile"
    PERSISTENT = "persistent"
    NOTHING = "nothing written"


@dataclass(frozen=True, slots=True)
class Firmware:
    """One firmware family: its capability, how it is reached, and how well each of these is known."""

    name: str
    title: str
    capability: Capability
    power_by: str
    """What carries an order for power, "" where there is none."""
    keeps: Keeps
    mining_told_by: str
    """From what it is derived whether the miner hashes."""
    rpc_port: int | None
    web_port: int | None
    """The second port, whatever is spoken there."""
    username: str | None
    password: str | None
    """The maker's default password; None where nothing is asked for."""
    grade_of_reads: Grade
    grade_of_writes: Grade | None
    """None where nothing is ever written."""
    sources: str
    untold: frozenset[str] = frozenset()
    """What of HEALTH it does not tell, or is not asked for."""


def _capability(
    steering: Steering, measures_watts: bool, ramp_down_s: float, ramp_up_s: float, reboots_on_change: bool = False
) -> Capability:
    return Capability(
        steering=steering,
        measures_watts=measures_watts,
        enforces_limit=False,
        ramp_down_s=ramp_down_s,
        ramp_up_s=ramp_up_s,
        lease=LeaseHolder.NONE,
        reboots_on_change=reboots_on_change,
    )


_WATCHED = Capability(
    steering=Steering.MONITOR,
    measures_watts=False,
    enforces_limit=False,
    ramp_down_s=3600.0,
    ramp_up_s=3600.0,
    lease=LeaseHolder.NONE,
    interruptible=False,
)

FIRMWARES: Mapping[str, Firmware] = MappingProxyType(
    {
        item.name: item
        for item in (
            Firmware(
                name=ANTMINER_MODERN,
                title="Antminer, stock firmware (X19, X21)",
                capability=_capability(Steering.MODES, False, 12.0, 45.0, reboots_on_change=True),
                power_by="work mode: low for a point of that name, normal for one named full or normal",
                keeps=Keeps.PERSISTENT,
                mining_told_by="work mode together with fresh hashrate",
                rpc_port=4028,
                web_port=80,
                username="root",
                password="root",
                grade_of_reads=Grade.CAPTURE,
                grade_of_writes=Grade.SOURCE,
                sources="pyasic 0.79 (web and config modules); asic-rs captures (antminer/v2020)",
            ),
            Firmware(
                name=ANTMINER_OLD,
                title="Antminer, stock firmware of old (S9, X17)",
                capability=_WATCHED,
                power_by="",
                keeps=Keeps.NOTHING,
                mining_told_by="fresh hashrate",
                rpc_port=4028,
                web_port=80,
                username="root",
                password="root",
                grade_of_reads=Grade.SOURCE,
                grade_of_writes=None,
                sources="pyasic 0.79 (backends/antminer.py, bmminer.py): no stop in the firmware's interface",
                untold=frozenset({"errors"}),
            ),
            Firmware(
                name=WHATSMINER_V2,
                title="Whatsminer, V2 protocol (firmware before November 2024)",
                capability=_capability(Steering.CONTINUOUS, True, 4.0, 20.0),
                power_by="percentage of its limit (volatile; the limit itself would reboot the miner)",
                keeps=Keeps.VOLATILE,
                mining_told_by="`mineroff` of status together with fresh hashrate",
                rpc_port=4028,
                web_port=None,
                username=None,
                password="admin",
                grade_of_reads=Grade.CAPTURE,
                grade_of_writes=Grade.DOCUMENTATION,
                sources="MicroBT API document 2.0.5; pyasic 0.79; asic-rs captures (whatsminer/v2)",
            ),
            Firmware(
                name=WHATSMINER_V3,
                title="Whatsminer, V3 protocol (firmware from November 2024)",
                capability=_capability(Steering.CONTINUOUS, True, 4.0, 20.0),
                power_by="percentage of its limit (volatile; the limit itself would restart the miner)",
                keeps=Keeps.VOLATILE,
                mining_told_by="`working` of get.device.info together with fresh hashrate",
                rpc_port=4433,
                web_port=None,
                username="super",
                password="super",
                grade_of_reads=Grade.DOCUMENTATION,
                grade_of_writes=Grade.DOCUMENTATION,
                sources="MicroBT API document 3.0 (apidoc.whatsminer.com); pyasic 0.79 (rpc/btminer.py, V3 class)",
            ),
            Firmware(
                name=BRAIINS,
                title="Braiins OS (BOSer, gRPC)",
                capability=_capability(Steering.CONTINUOUS, True, 10.0, 60.0),
                power_by="power target",
                keeps=Keeps.PERSISTENT,
                mining_told_by="`status` of GetMinerDetails together with fresh hashrate",
                rpc_port=4028,
                web_port=50051,
                username="root",
                password="root",
                grade_of_reads=Grade.DOCUMENTATION,
                grade_of_writes=Grade.DOCUMENTATION,
                sources="Braiins' public API definition (bos.v1); pyasic 0.79 (backends/braiins_os.py) for the RPC",
            ),
            Firmware(
                name=LUXOS,
                title="LuxOS",
                capability=_capability(Steering.STEPPED, True, 5.0, 45.0),
                power_by="the highest profile at or below (its thermal management is bounded by it, too)",
                keeps=Keeps.PERSISTENT,
                mining_told_by="`CurtailMode` of config together with fresh hashrate",
                rpc_port=4028,
                web_port=None,
                username=None,
                password=None,
                grade_of_reads=Grade.CAPTURE,
                grade_of_writes=Grade.DOCUMENTATION,
                sources="LuxOS API documentation (docs.luxor.tech); pyasic 0.79; asic-rs captures (luxminer)",
            ),
            Firmware(
                name=VNISH,
                title="VNish (AnthillOS)",
                capability=_capability(Steering.STEPPED, True, 10.0, 60.0, reboots_on_change=True),
                power_by="the highest tuned preset at or below",
                keeps=Keeps.PERSISTENT,
                mining_told_by="`miner_state` together with fresh hashrate",
                rpc_port=4028,
                web_port=80,
                username=None,
                password="admin",
                grade_of_reads=Grade.DOCUMENTATION,
                grade_of_writes=Grade.DOCUMENTATION,
                sources="VNish's API document 1.2 as published by its users; pyasic 0.79 (web/vnish.py)",
            ),
            Firmware(
                name=EPIC,
                title="ePIC PowerPlay",
                capability=_capability(Steering.ON_OFF, True, 10.0, 60.0),
                power_by="",
                keeps=Keeps.PERSISTENT,
                mining_told_by="`Operating State` together with fresh hashrate",
                rpc_port=None,
                web_port=4028,
                username=None,
                password="letmein",
                grade_of_reads=Grade.SOURCE,
                grade_of_writes=Grade.DOCUMENTATION,
                sources="ePIC's API document (epic-dashboard); pyasic 0.79 (web/epic.py)",
            ),
            Firmware(
                name=AURADINE,
                title="Auradine FluxOS",
                capability=_capability(Steering.CONTINUOUS, True, 10.0, 60.0),
                power_by="power mode in watts",
                keeps=Keeps.PERSISTENT,
                mining_told_by="`Sleep` of mode together with fresh hashrate",
                rpc_port=4028,
                web_port=8080,
                username="admin",
                password="admin",
                grade_of_reads=Grade.SOURCE,
                grade_of_writes=Grade.SOURCE,
                sources="pyasic 0.79 (web/auradine.py)",
                untold=frozenset({"errors"}),
            ),
            Firmware(
                name=MARATHON,
                title="Marathon (MARA firmware)",
                # Its watts are called an estimate by itself. Whether another target restarts it is not known: it may.
                capability=_capability(Steering.CONTINUOUS, False, 10.0, 60.0, reboots_on_change=True),
                power_by="power target of its tuner",
                keeps=Keeps.PERSISTENT,
                mining_told_by="work mode together with fresh hashrate",
                rpc_port=None,
                web_port=80,
                username="root",
                password="root",
                grade_of_reads=Grade.SOURCE,
                grade_of_writes=Grade.SOURCE,
                sources="pyasic 0.79 (web/marathon.py); asic-rs (marathon), whose pause and resume ran on a device",
                untold=frozenset({"errors"}),
            ),
            Firmware(
                name=AVALON,
                title="Avalon (12xx to 15xx, Nano, Mini, Q)",
                capability=_capability(Steering.MODES, True, 15.0, 60.0),
                power_by="work level: of a point named eco, standard or super, else the highest at or below",
                keeps=Keeps.PERSISTENT,
                mining_told_by="`SoftOFF` together with fresh hashrate",
                rpc_port=4028,
                web_port=None,
                username=None,
                password=None,
                grade_of_reads=Grade.CAPTURE,
                grade_of_writes=Grade.SOURCE,
                sources="pyasic 0.79 (backends/avalonminer.py); asic-rs captures (avalonminer)",
            ),
            Firmware(
                name=AXEOS,
                title="Bitaxe, NerdAxe (AxeOS)",
                capability=replace(_WATCHED, measures_watts=True),
                power_by="",
                keeps=Keeps.NOTHING,
                mining_told_by="fresh hashrate",
                rpc_port=None,
                web_port=80,
                username=None,
                password=None,
                grade_of_reads=Grade.CAPTURE,
                grade_of_writes=None,
                sources="pyasic 0.79 (backends/bitaxe.py); asic-rs captures (bitaxe)",
            ),
            Firmware(
                name=MONITOR,
                title="any other miner that pyasic knows",
                capability=_WATCHED,
                power_by="",
                keeps=Keeps.NOTHING,
                mining_told_by="fresh hashrate",
                rpc_port=4028,
                web_port=80,
                username=None,
                password=None,
                grade_of_reads=Grade.SOURCE,
                grade_of_writes=None,
                sources="pyasic 0.79",
                untold=frozenset(HEALTH),
            ),
        )
    }
)
CLASSES = tuple(FIRMWARES)


def capability_of(firmware_class: str | None, ramp_down_s: float | None, ramp_up_s: float | None) -> Capability:
    """Return the capability of a class (of an unidentified miner: none but to be watched), ramps as measured."""
    found = FIRMWARES[firmware_class or MONITOR].capability
    if found.steering is Steering.MONITOR:
        return found
    return replace(
        found,
        ramp_down_s=found.ramp_down_s if ramp_down_s is None else ramp_down_s,
        ramp_up_s=found.ramp_up_s if ramp_up_s is None else ramp_up_s,
    )
