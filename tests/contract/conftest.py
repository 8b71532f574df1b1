"""What the contract tests share: the simulated plant seen from behind the devices."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from mullet_simulators.facility import Facility


class RealClock:
    """The Clock port over the machine's clock, as the daemon's own adapter has it."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def now(self) -> float:
        return self._offset_s + time.monotonic()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class RequestCounter:
    """Counts the writes that reach the devices of a facility."""

    def __init__(self, facility: Facility) -> None:
        self.received: Counter[str] = Counter()
        self._log = facility.truth.request
        facility.truth.request = self._count  # type: ignore[method-assign]

    def _count(self, load: str, verb: str, answer: str) -> None:
        self.received[load] += 1
        self._log(load, verb, answer)


@pytest.fixture
def clock() -> RealClock:
    return RealClock()


@pytest.fixture(scope="class")
def class_clock() -> RealClock:
    return RealClock()


@pytest.fixture
def count_requests() -> Callable[[Facility], RequestCounter]:
    return RequestCounter


@pytest.fixture
def no_secrets() -> Callable[[str], Any]:
    return lambda name: None
