"""Which tests of the miners' contract run for which firmware, where not the whole matrix is asked for.

A test runs for a third of the firmwares that it applies to, and each firmware gets a third of the tests that apply to
it, both rounded up. The seed says which.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence

import pytest
from asic_cases import SIMULATED, FirmwareCase

from mullet.testing.contract import Fault
from mullet_simulators.faults import miner_faults
from mullet_simulators.miners.models import MODELS

SHARE = 3
"""One in so many."""


def draw(applies: Mapping[str, Sequence[str]], seed: int) -> set[tuple[str, str]]:
    """Return (test, firmware) pairs: of each test's firmwares a third, so that each firmware has a third of its own."""
    source = random.Random(seed)
    tests = sorted(applies)
    source.shuffle(tests)
    firmwares = sorted({firmware for those in applies.values() for firmware in those})
    source.shuffle(firmwares)
    owed = {firmware: sum(firmware in those for those in applies.values()) for firmware in firmwares}
    drawn: set[tuple[str, str]] = set()
    has = dict.fromkeys(firmwares, 0)

    def take(test: str, firmware: str) -> None:
        drawn.add((test, firmware))
        has[firmware] += 1

    for test in tests:
        # First those that have least of what they are owed: so that all have about as much.
        waiting = sorted(
            (firmware for firmware in firmwares if firmware in applies[test]), key=lambda f: has[f] / owed[f]
        )
        for firmware in waiting[: math.ceil(len(waiting) / SHARE)]:
            take(test, firmware)
    for firmware in firmwares:
        for test in tests:
            if has[firmware] >= math.ceil(owed[firmware] / SHARE):
                break
            if firmware in applies[test] and (test, firmware) not in drawn:
                take(test, firmware)
    return drawn


def applies_to(item: pytest.Function, case: FirmwareCase) -> bool:
    """Return whether the test does not skip itself for this firmware: whether it asks for what the device has."""
    named = set(item.function.__code__.co_names)
    if ("need_watching" if case.controlled else "need_commands") in named:
        return False
    given = item.callspec.params.get("fault")
    faults = {fault for fault in Fault if fault.name in named} if given is None else {given}
    known = miner_faults(MODELS[case.model].protocol)
    return "unready" not in named or all(fault in SIMULATED and SIMULATED[fault] in known for fault in faults)


def keep(items: Iterable[pytest.Item], seed: int) -> set[pytest.Item]:
    """Return those items of the miners' contract that are drawn."""
    found: dict[tuple[str, str], pytest.Item] = {}
    applies: dict[str, list[str]] = {}
    for item in items:
        if isinstance(item, pytest.Function) and "variant" in getattr(getattr(item, "callspec", None), "params", {}):
            case, latency_s = item.callspec.params["variant"]
            if applies_to(item, case):
                test = item.name.replace(f"{case.firmware}-{latency_s * 1000:.0f}ms", "")
                found[test, case.firmware] = item
                applies.setdefault(test, []).append(case.firmware)
    return {found[pair] for pair in draw(applies, seed)}
