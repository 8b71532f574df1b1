"""A site of miners alone, as a scenario for the simulator and as the policy of the same site for the daemon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.farms import Bank, shares
from mullet_simulators.miners.models import MODELS

SUBNET = 77
"""As in the policy; whoever runs it moves it to the simulator's network."""
PER_PDU = 48
MOST_PDUS = 98
UNMANAGED_W = 200.0
USABLE = 0.8
"""Of a rating, as policies have it."""


@dataclass(frozen=True, slots=True)
class Site:
    """What the simulator and the daemon are started with; JSON, which is YAML as well."""

    banks: tuple[Bank, ...]
    scenario: Mapping[str, Any]
    policy: Mapping[str, Any]


def make_site(models: Sequence[str], miners: int, web_port: int, poll_s: float, step_s: float = 0.1) -> Site:
    """Return a site of `miners`, the same number of each model, every PDU of one model and with a meter of its own.

    No limit binds: what happens is what is ordered. Raises ValueError where there are more PDUs than meters.
    """
    banks: list[Bank] = []
    for model, count in zip(models, shares(miners, len(models)), strict=True):
        for part in shares(count, max(1, -(-count // PER_PDU))):
            number = len(banks) + 1
            banks.append(Bank(f"b{number}", SUBNET, number, model, part, web_port))
    if len(banks) > MOST_PDUS:
        raise ValueError(f"{len(banks)} PDUs, and only {MOST_PDUS} can have a meter")
    full = {bank.id: bank.count * MODELS[bank.model].watts for bank in banks}
    site_w = sum(full.values())
    scenario = {
        "circuits": [
            {"id": "poi", "limit_w": 2.0 * site_w, "unmanaged_w": UNMANAGED_W, "meter_unit": 1},
            *(
                {
                    "id": f"pdu-{bank.id}",
                    "parent": "poi",
                    "limit_w": 2.0 * full[bank.id],
                    "unmanaged_w": UNMANAGED_W,
                    "meter_unit": bank.number + 1,
                }
                for bank in banks
            ),
        ],
        "banks": [
            {"id": bank.id, "number": bank.number, "circuit": f"pdu-{bank.id}", "model": bank.model,
             "count": bank.count}
            for bank in banks
        ],
        "price": {"base_per_mwh": 38.0},
        "web_port": web_port,
        "step_s": step_s,
    }  # fmt: skip
    return Site(tuple(banks), scenario, _policy(banks, full, site_w, poll_s))


def _policy(banks: Sequence[Bank], full: Mapping[str, float], site_w: float, poll_s: float) -> dict[str, Any]:
    grid = f"http://127.{SUBNET}.0.1:8701"
    circuits = [_circuit("poi", None, 2.0 * site_w)]
    circuits += [_circuit(f"pdu-{bank.id}", "poi", 2.0 * full[bank.id]) for bank in banks]
    return {
        "facility": {"id": "bench", "currency": "USD", "mode": "auto"},
        "circuits": circuits,
        "meters": [
            {"id": f"m-{circuit['id']}", "driver": "modbus", "poll": "500 ms",
             "options": {"host": f"127.{SUBNET}.0.4", "port": 8704, "unit": unit}}
            for unit, circuit in enumerate(circuits, start=1)
        ],
        "banks": [_bank(bank, poll_s) for bank in banks],
        "feeds": {
            "price": {"driver": "http-price", "options": {"url": f"{grid}/price"}, "poll": "2 s", "max_age": "60 s"},
            "limits": {"driver": "http-limits", "options": {"url": f"{grid}/limits"}, "poll": "1 s",
                       "max_age": "10 s"},
        },
        "economics": {
            "hashprice": "500 USD/PH/d", "pool_fee": "2 %", "fallback_price": "60 USD/MWh",
            "price_bounds": {"low": "-500 USD/MWh", "high": "5000 USD/MWh"},
        },
        "pacing": {"tick": "1 s"},
        "api": {"listen": "127.0.0.1:0", "token": "api-token"},
        "records": {"journal": "journal.db", "telemetry": "telemetry.db"},
    }  # fmt: skip


def _circuit(name: str, parent: str | None, usable_w: float) -> dict[str, Any]:
    placed = {} if parent is None else {"parent": parent}
    rating = f"{usable_w / USABLE / 1e3:.3f} kW"
    meter = {"meter": f"m-{name}", "meter_error": "0.5 %", "unmanaged_max": f"{1.1 * UNMANAGED_W:.0f} W"}
    return {"id": name, **placed, "rating": rating, **meter}


def _bank(bank: Bank, poll_s: float) -> dict[str, Any]:
    model = MODELS[bank.model]
    return {
        "id": bank.id,
        "kind": "miner",
        "driver": "asic",
        "options": bank.options,
        "addresses": f"127.{SUBNET}.{bank.number}.1-{bank.count}",
        "circuit": f"pdu-{bank.id}",
        "points": [
            {"name": "off", "power": f"{model.standby_w:g} W"},
            {"name": "full", "power": f"{model.watts:g} W", "hashrate": f"{model.th_per_s:g} TH/s"},
        ],
        "worst": f"{1.02 * model.watts:.0f} W",
        "tolerance": "2 %",
        "poll": f"{poll_s:g} s",
    }
