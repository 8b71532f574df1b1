"""The firmwares that the contract is held against: one simulated bank each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mullet.testing.contract import Fault

SIMULATED = {
    Fault.IGNORE: "ignore",
    Fault.REFUSE: "refuse",
    Fault.HANG: "hang",
    Fault.GARBAGE: "garbage",
    Fault.WRONG_SHAPE: "wrong_shape",
    Fault.TRUNCATED: "truncated",
    Fault.GONE: "dead",
    Fault.WRONG_PASSWORD: "wrong_password",
    Fault.BLACK_HOLE: "black_hole",
    Fault.SLOW: "slow",
    Fault.REBOOT: "reboot",
    Fault.BLIP: "blip",
    Fault.MISREPORT: "misreport",
    Fault.FROZEN: "frozen",
    Fault.WATTS_WRONG: "watts_wrong",
    Fault.POOLS_LOST: "pools_lost",
    Fault.CLOCK_WRONG: "clock_wrong",
    Fault.UNREADABLE_CONFIG: "http500_config",
}
"""The contract's names of faults, and the simulated miners' own."""


@dataclass(frozen=True, slots=True)
class FirmwareCase:
    """One firmware: the model that stands for it, its options, and how fast its simulated ramps go."""

    firmware: str
    model: str
    watts: float
    ramp_scale: float
    options: dict[str, Any] = field(default_factory=dict)
    middle_watts: float | None = None
    """A draw between asleep and full that it can be set to; None where there is none."""
    middle_point: str = ""
    controlled: bool = True
    """Whether anything may be written to it."""
    requests_per_read: float = 3.0
    """Round trips of a reading, for its deadline at a latency."""


CASES = {
    case.firmware: case
    for case in (
        FirmwareCase("antminer_modern", "antminer-s19", 3250.0, 0.04, {"web_port": 8080}, 2600.0, "low"),
        FirmwareCase("antminer_old", "antminer-s9", 1323.0, 0.04, {"web_port": 8080}, controlled=False),
        FirmwareCase("avalon", "avalon-q", 1674.0, 0.1, middle_watts=1300.0),
        FirmwareCase("axeos", "nerdqaxe-plus-plus", 72.0, 0.1, {"web_port": 8080}, controlled=False),
        FirmwareCase("epic", "epic-s19", 3250.0, 0.04),
        FirmwareCase("marathon", "marathon-s19", 3250.0, 0.04, {"web_port": 8080}, middle_watts=2200.0),
        FirmwareCase("vnish", "vnish-s19", 3200.0, 0.04, {"web_port": 8080}, middle_watts=2500.0),
        FirmwareCase("braiins", "braiins-s19j-pro", 3068.0, 0.04, middle_watts=2200.0),
        FirmwareCase("whatsminer_v2", "whatsminer-m50s", 3276.0, 0.1, middle_watts=2200.0),
        FirmwareCase("whatsminer_v3", "whatsminer-m60s-v3", 3422.0, 0.1, middle_watts=2300.0),
        FirmwareCase("luxos", "antminer-s19kpro-luxos", 2794.0, 0.1, middle_watts=2200.0, requests_per_read=4.0),
        FirmwareCase(
            "auradine",
            "auradine-at2880",
            4160.0,
            0.1,
            {"web_port": 8080},
            middle_watts=2800.0,
            requests_per_read=4.0,
        ),
    )
}
