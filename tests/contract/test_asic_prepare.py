"""Tokens fetched ahead: an order finds one in force; nobody is logged in anew, locked out, or tried over and over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asic_cases import CASES
from asic_site import BUILDERS, Site, at_site

from mullet.domain.command import Verb
from mullet.ports import CredentialsRejected
from mullet_hardware.asic.device import Order
from mullet_hardware.asic.firmware.braiins import PREPARED_AHEAD_S, TOKEN_LIFE_S
from mullet_simulators.faults import Fault

pytestmark = pytest.mark.e2e

LOGINS = {"vnish": "_unlock", "braiins": "_login", "auradine": "_give_token"}
"""What each simulated miner does for a login: a second token harms nobody there."""
BY_SALT_OR_TOKEN = {"whatsminer_v2", "whatsminer_v3"}
SLEEP = Order(Verb.SLEEP, 0.0)
each_with_a_login = pytest.mark.parametrize("firmware", sorted(LOGINS))


def count_logins(site: Site, firmware: str) -> list[int]:
    """Return the list that grows by one with each login that reaches the miner."""
    logins: list[int] = []
    sim, name = site.sims[0], LOGINS[firmware]
    login = getattr(sim, name)

    def count(given: Any) -> Any:
        logins.append(1)
        return login(given)

    setattr(sim, name, count)
    return logins


def test_what_gives_one_session_at_a_time_is_not_prepared() -> None:
    prepared = {firmware for firmware, build in BUILDERS.items() if hasattr(build, "prepare")}
    assert prepared == LOGINS.keys() | BY_SALT_OR_TOKEN
    assert "luxos" in CASES


@each_with_a_login
async def test_an_order_after_preparation_needs_no_login(firmware: str) -> None:
    async with at_site(CASES[firmware]) as site:
        logins, device = count_logins(site, firmware), site.device()
        await device.prepare()
        assert len(logins) == 1
        assert (await device.apply(SLEEP)).acked
        assert len(logins) == 1
        assert site.sims[0].state in ("stopping", "asleep")


@each_with_a_login
async def test_a_token_in_force_is_kept(firmware: str) -> None:
    async with at_site(CASES[firmware]) as site:
        logins, device = count_logins(site, firmware), site.device()
        for _ in range(4):
            await device.prepare()
            await device.poll()
        assert len(logins) == 1


@each_with_a_login
async def test_a_token_that_a_reboot_took_is_there_again_before_the_order(firmware: str) -> None:
    async with at_site(CASES[firmware]) as site:
        logins, device = count_logins(site, firmware), site.device()
        await device.prepare()
        site.sims[0].forget_sessions()
        await device.poll()
        await device.prepare()
        assert len(logins) == 2
        assert (await device.apply(SLEEP)).acked
        assert len(logins) == 2


@each_with_a_login
async def test_nobody_logs_in_where_nothing_may_be_written(firmware: str) -> None:
    async with at_site(CASES[firmware]) as site:
        logins = count_logins(site, firmware)
        await site.device(barred="the maker's password is not acknowledged").prepare()
        assert logins == []


@each_with_a_login
async def test_a_rejected_password_is_tried_once(firmware: str) -> None:
    async with at_site(CASES[firmware]) as site:
        logins, device = count_logins(site, firmware), site.device()
        site.facility.set_fault(site.sims[0].id, Fault.WRONG_PASSWORD.value)
        with pytest.raises(CredentialsRejected):
            await device.prepare()
        assert len(logins) == 1


async def test_a_token_that_ends_soon_is_renewed_before_it_does() -> None:
    at_s = [0.0]
    async with at_site(CASES["braiins"]) as site:
        logins, device = count_logins(site, "braiins"), site.device(now=lambda: at_s[0])
        for at_s[0], expected in ((0.0, 1), (TOKEN_LIFE_S - PREPARED_AHEAD_S - 120.0, 1), (TOKEN_LIFE_S - 120.0, 2)):
            await device.prepare()
            assert len(logins) == expected


async def test_preparing_while_an_order_is_under_way_spoils_neither() -> None:
    async with at_site(CASES["vnish"]) as site:
        device = site.device()
        _, answer = await asyncio.gather(device.prepare(), device.apply(SLEEP))
        assert answer.acked
