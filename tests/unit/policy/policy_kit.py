"""A small good policy, and a stand-in for an installation: the options that what ships publishes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from mullet.domain.load import Capability, LeaseHolder, Steering
from mullet.policy import KnownNames, LoadedPolicy, OptionsSchema, PolicyErrors, load_policy

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
    "accept_default_password": (bool, False, "write with the default password"),
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
        "http-sensor": {**HTTP, "unit": (str, "degC", "unit that the sensor must answer in")},
        "http-hashprice": {**HTTP, "currency": (str, "", "the facility's is filled in")},
        "vllm": {**HTTP, "service": (str, ..., "the service"), "model": (str, "", "label to count alone")},
    },
    capability_of=capability_of,
)

SMALL: dict[str, Any] = {
    "facility": {"id": "small", "currency": "USD", "mode": "auto"},
    "circuits": [
        {"id": "poi", "rating": "100 kW", "meter": "m-poi"},
        {"id": "pdu", "parent": "poi", "rating": "60 kW", "unmanaged_max": "0 W", "switch": "k-pdu"},
    ],
    "meters": [{"id": "m-poi", "driver": "modbus", "options": {"host": "10.0.0.4", "unit": 1}}],
    "switches": [{"id": "k-pdu", "driver": "modbus", "options": {"host": "10.0.0.4", "unit": 101}}],
    "banks": [
        {
            "id": "wm",
            "kind": "miner",
            "driver": "asic",
            "options": {"class": "whatsminer_v2"},
            "addresses": "10.0.1.1-10",
            "circuit": "pdu",
            "points": [{"name": "off", "power": "15 W"}, {"name": "full", "power": "3 kW", "hashrate": "100 TH/s"}],
            "worst": "3.2 kW",
        },
        {
            "id": "gpus",
            "kind": "gpu",
            "driver": "gpu",
            "addresses": {"count": 4},
            "circuit": "pdu",
            "service": "chat",
            "agent": "node",
            "limits": "200 W - 700 W",
            "curve": [{"power": "200 W", "tokens": "1 tokens/s"}, {"power": "700 W", "tokens": "2 tokens/s"}],
        },
    ],
    "services": [
        {
            "id": "chat",
            "value": "2 USD/Mtoken",
            "metrics": {"driver": "vllm", "options": {"url": "http://10.0.2.1/metrics"}, "max_age": "10 s"},
        }
    ],
    "feeds": {
        "price": {"driver": "http-price", "options": {"url": "http://10.0.0.5"}, "poll": "5 s", "max_age": "1 min"}
    },
    "economics": {"hashprice": "50 USD/PH/d", "fallback_price": "95 USD/MWh"},
    "pacing": {"tick": "1 s"},
    "api": {"listen": "127.0.0.1:8780"},
}


def small(**changes: Any) -> dict[str, Any]:
    """Return a small good policy with top-level sections replaced."""
    policy: dict[str, Any] = json.loads(json.dumps(SMALL))
    policy.update(changes)
    return policy


def load(policy: dict[str, Any] | str) -> LoadedPolicy:
    """Load a policy from data; JSON is YAML."""
    return load_policy(policy if isinstance(policy, str) else json.dumps(policy, indent=1), "p.yaml", KNOWN)


def problems(policy: dict[str, Any] | str) -> list[str]:
    """Return the problems of a policy as "field: message"."""
    with pytest.raises(PolicyErrors) as caught:
        load(policy)
    return [f"{problem.field}: {problem.message}" for problem in caught.value.problems]
