"""What mode auto asks for beyond a policy without contradictions: honest leases, and an engine for every field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mullet.domain.facility import Circuit, Facility, Mode
from mullet.domain.load import LeaseHolder, Load, LoadKind
from mullet.domain.units import format_watts
from mullet.policy.document import Document
from mullet.policy.loaded import LoadedPolicy, besides_loads_watts, silent_watts
from mullet.policy.plant import NO_ENGINE
from mullet.policy.problems import Path, Problem
from mullet.ports import BankNotes

_NAMES_SHOWN = 3


def problems_for_auto(loaded: LoadedPolicy) -> tuple[Problem, ...]:
    """Return what keeps the policy from mode auto; empty where nothing does.

    1. At every circuit with loads in mode auto: leased loads at their fail-safe point, unleased loads and loads
       that are not in auto at worst draw, auxiliaries and unmanaged load may not exceed the usable limit. A load
       does not count where a switch at or above it, up to that circuit, can drop it, or where a circuit on that
       way accepts unleased loads by name.
    2. GPUs whose caps only mining pays for need a lease, or a circuit that accepts unleased loads by name.
    3. A field that nothing enforces in this version is refused by name, and so are more than two operating points of
       a miner whose driver can only stop and start it: one that shall go lower would stay at full.
    4. A bank in mode auto to which its driver would write nothing, for want of a password, is refused.
    """
    facility = loaded.facility
    index = {circuit.id: number for number, circuit in enumerate(facility.circuits)}
    problems: list[Problem] = []
    for circuit in facility.circuits:
        if not any(facility.mode_of(load.circuit) is Mode.AUTO for load in _beneath(facility, circuit)):
            continue
        for message, suggestion in (*_silence(facility, circuit), *_unpaid_caps(facility, circuit)):
            path: Path = ("circuits", index[circuit.id])
            problems.append(loaded.document.problem(path, message, suggestion))
    for number, (bank, loads) in enumerate(facility.banks.items()):
        if facility.mode_of(loads[0].circuit) is Mode.AUTO and _has_points_between(loads[0]):
            steering = loads[0].capability.steering.value
            message = (
                f"{bank!r} has {len(loads[0].points)} operating points, and its driver steers {steering}: it moves no "
                "running miner between points"
            )
            advice = "list its lowest point and one other, or run in mode advise or observe"
            problems.append(loaded.document.problem(("banks", number, "points"), message, advice))
    problems.extend(unenforced_problems(loaded.document, loaded.unenforced))
    problems.extend(barred_problems(loaded))
    return tuple(problems)


def barred_problems(loaded: LoadedPolicy) -> tuple[Problem, ...]:
    """Return one problem for each bank that its circuits would let be written to, and that could not be."""
    return tuple(
        loaded.document.problem(path, f"{bank!r} is read-only: {notes.barred}", "or set its circuit to mode observe")
        for path, bank, notes in _noted(loaded)
        if notes.barred is not None
    )


def bank_warnings(loaded: LoadedPolicy) -> tuple[Problem, ...]:
    """Return what drivers warn of in banks that their circuits would let be written to."""
    return tuple(
        loaded.document.problem(path, f"{bank!r} {text}")
        for path, bank, notes in _noted(loaded)
        for text in notes.warnings
    )


def _noted(loaded: LoadedPolicy) -> Iterator[tuple[Path, str, BankNotes]]:
    """Yield the banks on circuits in mode auto, whatever mode the facility is in at present, with their notes."""
    facility = loaded.facility
    for number, (bank, loads) in enumerate(facility.banks.items()):
        modes = {facility.circuit_by_id[node].mode for node in facility.path(loads[0].circuit)}
        if modes == {Mode.AUTO} and bank in loaded.notes:
            yield ("banks", number, "options"), bank, loaded.notes[bank]


def unenforced_problems(document: Document, paths: Iterable[Path]) -> tuple[Problem, ...]:
    """Return one problem for each field given that nothing enforces in this version."""
    advice = "remove it, or run in mode advise or observe"
    return tuple(document.problem(path, f"is not enforced: {NO_ENGINE}", advice, at_key=True) for path in paths)


def _has_points_between(load: Load) -> bool:
    wants = load.kind is LoadKind.MINER and len(load.points) > 2 and not load.capability.enforces_limit
    return wants and not load.steps_between


def _beneath(facility: Facility, circuit: Circuit) -> tuple[Load, ...]:
    return facility.loads_beneath[circuit.id]


def _way_up(facility: Facility, load: Load, top: Circuit) -> list[Circuit]:
    """The circuits from the load's own up to `top`, both included."""
    path = facility.path(load.circuit)
    return [facility.circuit_by_id[name] for name in path[: path.index(top.id) + 1]]


def _silence(facility: Facility, circuit: Circuit) -> list[tuple[str, str]]:
    leased = unleased = 0.0
    blamed: dict[str, None] = {}
    for load in _beneath(facility, circuit):
        way = _way_up(facility, load, circuit)
        in_auto = facility.mode_of(load.circuit) is Mode.AUTO
        if load.capability.lease is not LeaseHolder.NONE and in_auto:
            leased += silent_watts(load)
        elif not any(node.switch is not None or node.accepts_unleased for node in way):
            unleased += load.worst_watts
            blamed[load.bank] = None
    besides = besides_loads_watts(facility, circuit, leased + unleased)
    total = leased + unleased + besides
    if total <= circuit.usable_watts:
        return []
    message = (
        f"{circuit.id!r} may carry {format_watts(total)} of {format_watts(circuit.usable_watts)} once the controller "
        f"is silent: {format_watts(leased)} of leased loads at fail-safe, {format_watts(unleased)} of loads without "
        f"a lease at worst draw, {format_watts(besides)} besides"
    )
    if not blamed:
        return [(message, "lower the fail-safe points or the unmanaged load")]
    return [(message, f"give {_names(list(blamed))} a switch or a lease, or say accept_unleased: true on the circuit")]


def _unpaid_caps(facility: Facility, circuit: Circuit) -> list[tuple[str, str]]:
    """Unleased GPUs keep a cap that was raised into power which miners had given up, and miners may wake again."""
    loads = _beneath(facility, circuit)
    miners = [load for load in loads if load.kind is LoadKind.MINER]
    exposed = [
        load
        for load in loads
        if load.kind is LoadKind.GPU
        and load.capability.lease is LeaseHolder.NONE
        and not any(node.accepts_unleased for node in _way_up(facility, load, circuit))
    ]
    if not miners or not exposed:
        return []
    managed = sum(max(load.worst_watts, load.highest.watts) for load in loads)
    if managed + besides_loads_watts(facility, circuit, managed) <= circuit.usable_watts:
        return []
    banks = list(dict.fromkeys(load.bank for load in exposed))
    message = f"{circuit.id!r}: mining pays for power caps of GPUs that have no lease ({_names(banks)})"
    return [(message, "name an agent for these banks, or say accept_unleased: true on the circuit")]


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
