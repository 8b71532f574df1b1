"""What a policy file became: the Facility, its wiring, its hash, and facts worth showing before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mullet.domain.facility import Circuit, Facility
from mullet.domain.load import LeaseHolder, Load, LoadKind
from mullet.domain.units import TH_PER_PH
from mullet.policy.document import Document
from mullet.policy.problems import Path, Problem
from mullet.policy.wiring import Wiring
from mullet.ports import BankNotes

HOURS_PER_DAY = 24.0


@dataclass(frozen=True, slots=True)
class Derived:
    """Facts that follow from a policy."""

    break_even_per_mwh: Mapping[str, float]
    """Per miner bank: energy price (adder excluded) above which its highest point loses money."""
    worst_watts: Mapping[str, float]
    """Per circuit: the most that everything beneath may draw whatever was commanded."""
    failsafe_watts: Mapping[str, float]
    """Per circuit: the most it draws when the controller falls silent (leased loads at their fail-safe point)."""


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy that passed every check of its mode."""

    facility: Facility
    wiring: Wiring
    hash: str
    """sha256 of the content in SI units, defaults included; comments and spelling do not count."""
    warnings: tuple[Problem, ...]
    derived: Derived
    content: Mapping[str, Any]
    """What the hash is taken over, as plain data."""
    document: Document
    unenforced: tuple[Path, ...]
    """Fields given that nothing enforces in this version."""
    notes: Mapping[str, BankNotes] = field(default_factory=dict)
    """What drivers say of banks whose devices mullet itself speaks to, by bank."""


def derive(facility: Facility) -> Derived:
    """Return the facts about a facility."""
    return Derived(
        break_even_per_mwh={
            bank: break_even_per_mwh(facility, loads[0])
            for bank, loads in facility.banks.items()
            if loads[0].kind is LoadKind.MINER and loads[0].highest.th_per_s > 0.0
        },
        worst_watts={circuit.id: _sum(facility, circuit, silent=False) for circuit in facility.circuits},
        failsafe_watts={circuit.id: _sum(facility, circuit, silent=True) for circuit in facility.circuits},
    )


def break_even_per_mwh(facility: Facility, load: Load) -> float:
    """Return the energy price per MWh, before the adder, at which the load's highest point earns what it costs.

    hashprice x (1 - fee) x TH/s / 1000 / 24 h, per MW drawn, less the adder (R27: 50 USD/PH/d at 17.5 J/TH is 119).
    """
    economics, point = facility.economics, load.highest
    earned_per_h = economics.hashprice_per_ph_day * (1.0 - economics.pool_fee) * point.th_per_s
    earned_per_h /= TH_PER_PH * HOURS_PER_DAY
    return earned_per_h / (point.watts / 1e6) - economics.energy_adder_per_mwh


def silent_watts(load: Load) -> float:
    """Return the most a load may draw once the controller has been silent for longer than its lease."""
    if load.capability.lease is LeaseHolder.NONE:
        return load.worst_watts
    return load.most_at(load.point(load.fail_safe))


def besides_loads_watts(facility: Facility, circuit: Circuit, managed_watts: float) -> float:
    """Return what a circuit carries at most besides its loads: unmanaged load and auxiliaries, at and beneath it."""
    unmanaged = sum(node.unmanaged_max_watts for node in facility.circuits if circuit.id in facility.path(node.id))
    auxiliaries = facility.auxiliaries_beneath[circuit.id]
    return unmanaged + sum(a.fixed_watts + a.follows * managed_watts for a in auxiliaries)


def _sum(facility: Facility, circuit: Circuit, *, silent: bool) -> float:
    loads = facility.loads_beneath[circuit.id]
    managed = sum(silent_watts(load) if silent else max(load.worst_watts, load.highest.watts) for load in loads)
    return managed + besides_loads_watts(facility, circuit, managed)
