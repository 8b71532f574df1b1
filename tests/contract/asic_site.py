"""A bank of simulated miners of one firmware, and their devices in the same process: what the driver's worker holds."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from asic_cases import CASES, FirmwareCase

from mullet_hardware.asic.capability import FIRMWARES
from mullet_hardware.asic.device import Access
from mullet_simulators.testing import find_subnet, simulated_facility

# Importing pyasic warns of its own dependencies, and changes the root logger.
_root = logging.getLogger()
_before = (list(_root.handlers), _root.level)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mullet_hardware.asic.registry import device_class

    BUILDERS = {firmware: device_class(firmware) for firmware in CASES}
_root.handlers[:], _root.level = _before

ANSWERS = ("answer_rpc", "answer_http", "answer_framed", "answer_grpc")


class Site:
    """A bank of miners of one model, and their devices."""

    def __init__(self, case: FirmwareCase, facility: Any, subnet: int) -> None:
        self._case = case
        self._subnet = subnet
        self.facility = facility
        self.sims: list[Any] = list(facility.plant.loads.values())

    def device(self, number: int = 0, barred: str | None = None, now: Callable[[], float] | None = None) -> Any:
        build, firmware = BUILDERS[self._case.firmware], FIRMWARES[self._case.firmware]
        assert build is not None
        ports = (firmware.rpc_port or 0, self._case.options.get("web_port", firmware.web_port) or 0)
        address = f"127.{self._subnet}.1.{number + 1}"
        access = Access(address, *ports, firmware.username or "", firmware.password or "", barred)
        return build(access, None, self._case.watts, now or asyncio.get_running_loop().time)

    def count(self, number: int = 0) -> list[str]:
        """Return the list to which each request that reaches the miner is added from now on."""
        asked: list[str] = []
        sim = self.sims[number]

        def counting(name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
            def count(*arguments: Any) -> Any:
                asked.append(name)
                return answer(*arguments)

            return count

        for name in ANSWERS:
            if hasattr(sim, name):
                setattr(sim, name, counting(name, getattr(sim, name)))
        return asked


@asynccontextmanager
async def at_site(case: FirmwareCase, count: int = 1) -> AsyncIterator[Site]:
    bank = {"id": "b", "number": 1, "circuit": "pdu", "model": case.model, "count": count}
    scenario = {
        "circuits": [{"id": "pdu", "limit_w": 200000}],
        "banks": [{**bank, "ramp_scale": case.ramp_scale}],
        "price": {"base_per_mwh": 38.0},
    }
    subnet = find_subnet()
    async with simulated_facility(scenario, subnet, servers=()) as facility:
        yield Site(case, facility, subnet)
