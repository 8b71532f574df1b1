"""The slow tier of every firmware: what it tells of boards, temperatures, fans and errors, and that it harms nobody."""

from __future__ import annotations

import asyncio

import pytest
from asic_cases import CASES, FirmwareCase
from asic_site import at_site

from mullet.ports import DeviceError
from mullet_hardware.asic.capability import FIRMWARES, HEALTH
from mullet_hardware.asic.protocol import Health
from mullet_simulators.faults import Fault, miner_faults
from mullet_simulators.miners.models import MODELS

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()]),
]

LIMIT_S = 0.7
MOST_REQUESTS = 2
HOTTER_C = 30.0
"""What a chip may be above its board."""
SILENT = frozenset({Fault.HANG, Fault.SLOW, Fault.BLACK_HOLE})


async def test_a_miner_at_work_tells_what_the_table_says_and_what_is_so(case: FirmwareCase) -> None:
    untold = FIRMWARES[case.firmware].untold
    async with at_site(case) as site:
        health: Health = await site.device().health()
        sim = site.sims[0]
        told = {
            "boards": health.boards,
            "temperatures": health.celsius,
            "fans": health.fan_rpm,
            "errors": health.errors,
        }
        assert tuple(told) == HEALTH
        assert {name for name, value in told.items() if value is None} == untold
        assert health.boards == health.boards_fitted == MODELS[case.model].boards
        if health.celsius is not None:
            assert sim._board_c - 1.0 <= health.celsius <= sim._board_c + HOTTER_C
        if health.fan_rpm is not None:
            assert 2400 <= health.fan_rpm <= 6000
        assert not health.errors


async def test_a_look_is_cheap_and_writes_nothing(case: FirmwareCase) -> None:
    async with at_site(case) as site:
        device = site.device()
        await device.health()
        settings = (site.sims[0]._wanted_on, site.sims[0].limit_w, site.sims[0].boots, site.sims[0].pools)
        asked = site.count()
        await device.health()
        assert 1 <= len(asked) <= MOST_REQUESTS
        assert settings == (site.sims[0]._wanted_on, site.sims[0].limit_w, site.sims[0].boots, site.sims[0].pools)


async def test_a_miner_at_rest_has_no_board_at_work(case: FirmwareCase) -> None:
    async with at_site(case) as site:
        sim = site.sims[0]
        sim.command_stop()
        async with asyncio.timeout(10.0):
            while sim.state != "asleep":  # noqa: ASYNC110 - a simulated miner has no event
                await asyncio.sleep(0.02)
        awake = Health(boards=3, fan_rpm=5400.0, errors=())
        try:
            health: Health = await site.device().health()
        except DeviceError:
            return
        assert not health.boards
        assert health.worse_than(awake) == [], "that it sleeps is no fault of its boards and fans"
        assert health.after(awake) == awake


async def test_whatever_fails_is_told_as_such(case: FirmwareCase) -> None:
    faults = sorted(miner_faults(MODELS[case.model].protocol))
    async with at_site(case, len(faults)) as site:

        async def look(number: int, fault: Fault) -> Health | DeviceError | None:
            site.facility.set_fault(site.sims[number].id, fault.value)
            try:
                # Nothing in a device keeps a deadline.
                async with asyncio.timeout(LIMIT_S):
                    found: Health = await site.device(number).health()
            except DeviceError as error:
                return error
            except TimeoutError:
                return None
            return found

        found = await asyncio.gather(*(look(number, fault) for number, fault in enumerate(faults)))
    told = dict(zip(faults, found, strict=True))
    assert isinstance(told[Fault.OK], Health)
    for fault in (Fault.GARBAGE, Fault.WRONG_SHAPE, Fault.TRUNCATED, Fault.DEAD):
        assert isinstance(told[fault], DeviceError), f"{fault}: {told[fault]}"
    assert {fault for fault, what in told.items() if what is None} <= SILENT
    assert told[Fault.HANG] is None
