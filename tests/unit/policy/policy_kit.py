"""A stand-in for an installation: the options that the shipped drivers, meters, switches and feeds publish."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mullet.domain.load import Capability, LeaseHolder, Steering
from mullet.policy import KnownNames, OptionsSchema

HTTP: OptionsSchema = {
    "url": (str, ..., "address to read"),
    "timeout_s": (float, 5.0, "longest wait, in seconds"),
    "credential": (str, "", "name of a credential"),
}
MODBUS: OptionsSchema = {
    "host": (str, ..., "address of the gateway"),
    "port": (int, 502, "TCP port of the gateway"),
    "unit": (int, ..., "Modbus unit id"),
    "heartbeat_register": (int, 4, "input register of a count; null: none"),
}
ASIC: OptionsSchema = {
    "class": (str, None, "firmware class"),
    "rpc_port": (int, 4028, "TCP port of the RPC"),
    "web_port": (int, 80, "TCP port of the web interface"),
    "credential": (str, None, "name of the credential that holds the password"),
    "ramp_down_s": (float, None, "measured ramp"),
}
GPU: OptionsSchema = {
    "nvml_library": (str, None, "stand-in for the NVML library"),
    "lock_clocks_mhz": (int | dict, None, "lock GPU clocks with the limit"),
}

CAPABILITIES = {
    "whatsminer_v2": Capability(Steering.ON_OFF, True, False, 4.0, 20.0),
    "antminer_modern": Capability(Steering.ON_OFF, False, False, 12.0, 45.0),
}


def capability_of(driver: str, options: Mapping[str, Any]) -> Capability:
    """Return what the shipped drivers would say."""
    if driver == "gpu":
        return Capability(Steering.CONTINUOUS, True, True, 1.5, 2.0, LeaseHolder.NONE)
    name = options.get("class")
    if name not in CAPABILITIES:
        raise ValueError(f"no class {name!r}; there are {', '.join(CAPABILITIES)}")
    return CAPABILITIES[name]


KNOWN = KnownNames(
    drivers={"asic": ASIC, "gpu": GPU},
    meters={"modbus": MODBUS},
    switches={"modbus": MODBUS},
    feeds={
        "http-price": {**HTTP, "currency": (str, "", "the facility's is filled in")},
        "http-limits": HTTP,
        "http-hashprice": {**HTTP, "currency": (str, "", "the facility's is filled in")},
        "vllm": {**HTTP, "service": (str, ..., "the service"), "model": (str, "", "label to count alone")},
    },
    capability_of=capability_of,
)
