"""Checks of banks and services: drivers, addresses, operating points, fail-safe, who serves what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from mullet.domain.units import Dimension, QuantityError, format_watts, parse_quantity
from mullet.policy.draft import Draft
from mullet.policy.options import check_driver
from mullet.policy.plant import BankSection, ServiceSection
from mullet.policy.problems import Path, nearest_or_all
from mullet.policy.wiring import KnownNames


def check_banks(draft: Draft, known: KnownNames) -> dict[int | str, dict[str, Any]]:
    """Report what is wrong with banks and services; return the drivers' options by bank index."""
    options: dict[int | str, dict[str, Any]] = {}
    circuits, services = draft.ids("circuits"), draft.ids("services")
    accounts = {"own", *draft.ids("accounts")}
    taken: dict[tuple[object, ...], int] = {}
    load_ids: dict[str, str] = {}
    for index, bank in draft.items("banks", BankSection):
        path: Path = ("banks", index)
        found = check_driver(draft, known.drivers, "device", bank.driver, bank.options, path)
        options[index] = found or {}
        if found is not None:
            _check_capability(draft, known, bank, found, path)
        draft.refer((*path, "circuit"), "circuit", bank.circuit, circuits)
        draft.refer((*path, "account"), "account", bank.account, accounts)
        _check_kind(draft, bank, path, services)
        _check_addresses(draft, bank, found if found is not None else bank.options, index, taken)
        for load_id in bank_load_ids(bank):
            other = load_ids.setdefault(load_id, bank.id)
            if other != bank.id:
                draft.report((*path, "id"), f"its load {load_id!r} is also one of bank {other!r}", "rename one of them")
                break
            if load_id in circuits:
                draft.report((*path, "id"), f"its load {load_id!r} has the id of a circuit", "rename one of them")
                break
    served = _named_services(draft)
    for index, service in draft.items("services", ServiceSection):
        if service.id not in served and served <= set(services):
            draft.report(("services", index, "id"), f"{service.id!r} has no GPUs", "name it as service of a GPU bank")
    return options


def bank_load_ids(bank: BankSection) -> list[str]:
    """Return the ids of a bank's loads, in the order of its addresses."""
    return [f"{bank.id}-{number:03d}" for number in range(1, len(bank.addresses) + 1)]


def fail_safe_name(bank: BankSection) -> str | None:
    """Return the name of the bank's fail-safe point, or None where it names no point."""
    names = point_names(bank)
    if bank.fail_safe is None:
        return next(iter(names), None)
    if bank.fail_safe in names:
        return bank.fail_safe
    try:
        watts = parse_quantity(bank.fail_safe, Dimension.POWER)
    except QuantityError:
        return None
    return next((name for name, point in names.items() if abs(point - watts) < 1e-6), None)


def point_names(bank: BankSection) -> dict[str, float]:
    """Return the watts of each operating point by name; a GPU's are named by their power ("200W")."""
    if bank.kind == "gpu":
        return {f"{point.power:g}W": point.power for point in bank.curve or ()}
    return {point.name: point.power for point in bank.points or ()}


def _check_kind(draft: Draft, bank: BankSection, path: Path, services: Iterable[str]) -> None:
    other = "miner" if bank.kind == "gpu" else "gpu"
    for name in BankSection.kind_fields[other]:
        if name not in BankSection.kind_fields[bank.kind] and getattr(bank, name) is not None:
            has = ", ".join(BankSection.kind_fields[bank.kind])
            draft.report((*path, name), f"a {bank.kind} bank has no {name}", f"it has {has}", at_key=True)
    if bank.kind == "gpu":
        _check_gpu(draft, bank, path, services)
    else:
        _check_miner(draft, bank, path)
    names = point_names(bank)
    if bank.fail_safe is not None and names and fail_safe_name(bank) is None:
        message = f"{bank.fail_safe!r} is no operating point of the bank"
        draft.report((*path, "fail_safe"), message, nearest_or_all(bank.fail_safe, names))


def _check_miner(draft: Draft, bank: BankSection, path: Path) -> None:
    if not bank.points:
        draft.report((*path, "points"), "is missing", "list the operating points, lowest power first")
        return
    _check_ascending(draft, [point.power for point in bank.points], (*path, "points"))
    seen: set[str] = set()
    for index, point in enumerate(bank.points):
        if point.name in seen:
            draft.report((*path, "points", index, "name"), f"{point.name!r} is given twice")
        seen.add(point.name)
    for index, (lower, upper) in enumerate(pairwise(bank.points), start=1):
        if upper.hashrate < lower.hashrate:
            draft.report((*path, "points", index, "hashrate"), "is below that of a point with less power")
    if bank.worst is None:
        draft.report((*path, "worst"), "is missing", "give the most that one miner can draw whatever it was told")
    else:
        _check_worst(draft, bank.worst, max(point.power for point in bank.points), path)


def _check_gpu(draft: Draft, bank: BankSection, path: Path, services: Iterable[str]) -> None:
    if bank.service is None:
        draft.report((*path, "service"), "is missing", "a GPU bank names the service that its GPUs serve")
    else:
        draft.refer((*path, "service"), "service", bank.service, services)
    if bank.limits is None:
        draft.report((*path, "limits"), "is missing", "give the range of the power limit, such as '200 W - 700 W'")
    if not bank.curve:
        draft.report((*path, "curve"), "is missing", "list points {power, tokens}, lowest power first")
        return
    powers = [point.power for point in bank.curve]
    _check_ascending(draft, powers, (*path, "curve"))
    for index, (lower, upper) in enumerate(pairwise(bank.curve), start=1):
        if upper.tokens < lower.tokens:
            draft.report((*path, "curve", index, "tokens"), "is below that of a point with less power")
    if bank.limits is not None and powers == sorted(powers):
        for index, which, end in ((0, "lower", bank.limits[0]), (len(powers) - 1, "upper", bank.limits[1])):
            if abs(powers[index] - end) > 1e-6:
                message = f"{format_watts(powers[index])} is not the {which} end of limits"
                draft.report((*path, "curve", index, "power"), message, f"the curve reaches {format_watts(end)}")
    if bank.worst is not None:
        _check_worst(draft, bank.worst, max(powers), path)


def _check_ascending(draft: Draft, powers: list[float], path: Path) -> None:
    for index, (lower, upper) in enumerate(pairwise(powers), start=1):
        if upper <= lower:
            message = f"{format_watts(upper)} does not exceed the point before ({format_watts(lower)})"
            draft.report((*path, index, "power"), message, "order the points by power")


def _check_worst(draft: Draft, worst: float, highest: float, path: Path) -> None:
    if worst < highest:
        message = f"{format_watts(worst)} is below the highest operating point ({format_watts(highest)})"
        draft.report((*path, "worst"), message, "give the most that one load can draw whatever it was told")


def _check_capability(
    draft: Draft, known: KnownNames, bank: BankSection, options: Mapping[str, Any], path: Path
) -> None:
    try:
        known.capability_of(bank.driver, options)
    except ValueError as error:
        draft.report((*path, "options"), f"driver {bank.driver!r} cannot use them: {error}")


def _check_addresses(
    draft: Draft, bank: BankSection, options: Mapping[str, Any], index: int, taken: dict[tuple[object, ...], int]
) -> None:
    """A device is an address and its ports; what has no IP address is told apart by driver, agent and library."""
    ports = tuple(sorted((name, str(value)) for name, value in options.items() if "port" in name))
    place: tuple[object, ...] = (
        ("ip", ports)
        if "." in bank.addresses[0].address
        else (bank.driver, bank.agent, str(options.get("nvml_library")))
    )
    shared: dict[int, list[str]] = {}
    for item in bank.addresses:
        other = taken.setdefault((*place, item.address), index)
        if other != index:
            shared.setdefault(other, []).append(item.address)
    for other, addresses in shared.items():
        more = f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
        message = f"{addresses[0]}{more} also in banks[{other}]"
        draft.report(("banks", index, "addresses"), message, "a device belongs to one bank")


def _named_services(draft: Draft) -> set[str]:
    raw = draft.document.data.get("banks")
    items = raw if isinstance(raw, list) else []
    return {str(item["service"]) for item in items if isinstance(item, dict) and item.get("service") is not None}
