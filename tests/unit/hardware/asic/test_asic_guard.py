"""No path leads to pools, firmware or passwords: what is not on the allow-list is refused before a socket opens."""

from __future__ import annotations

import logging
import warnings

import pytest

from mullet.domain.command import Verb
from mullet.ports import CredentialsRejected, DeviceRefused, UnsafeWrite
from mullet_hardware.asic.device import Access, Order

_root = logging.getLogger()
_before = (list(_root.handlers), _root.level)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mullet_hardware.asic.firmware.antminer import AntminerModern, GuardedWeb
    from mullet_hardware.asic.firmware.whatsminer_v2 import GuardedRpc, WhatsminerV2
_root.handlers[:], _root.level = _before

NOWHERE = Access("127.0.0.1", 1, 1, "root", "root", None)
POOLS = [{"url": "stratum+tcp://pool.example:3333", "user": "u", "pass": "x"}]


@pytest.mark.parametrize(
    "command",
    ["update_pools", "update_pwd", "reboot", "factory_reset", "adjust_power_limit", "set_high_power", "net_config"],
)
async def test_a_whatsminer_takes_three_orders_and_no_other(command: str) -> None:
    rpc = GuardedRpc("127.0.0.1", 1, "admin")
    with pytest.raises(UnsafeWrite):
        await rpc.send_privileged_command(command)
    with pytest.raises(UnsafeWrite):
        await rpc.send_command(command)


async def test_pyasics_own_methods_are_bounded_too() -> None:
    rpc = GuardedRpc("127.0.0.1", 1, "admin")
    with pytest.raises(UnsafeWrite):
        await rpc.update_pools("a", "b", "c")
    with pytest.raises(UnsafeWrite):
        await rpc.update_pwd("admin", "other")
    with pytest.raises(UnsafeWrite):
        await rpc.adjust_power_limit(3000)
    web = GuardedWeb(NOWHERE)
    for call in (web.reboot(), web.blink(True), web.set_network_conf("", "", "", "", "", 1)):
        with pytest.raises(UnsafeWrite):
            await call


@pytest.mark.parametrize(
    "body",
    [
        {"miner-mode": 1},
        {"miner-mode": 1, "pools": []},
        {"miner-mode": 1, "pools": [{"url": "", "user": "", "pass": ""}]},
        {"miner-mode": 1, "pools": POOLS},
        {"miner-mode": 1, "pools": POOLS, "bitmain-freq": "700"},
    ],
)
async def test_only_the_pools_just_read_can_be_posted(body: dict[str, object]) -> None:
    with pytest.raises(UnsafeWrite):
        await GuardedWeb(NOWHERE).set_miner_conf(body)


async def test_watts_an_antminer_cannot_follow_are_refused() -> None:
    with pytest.raises(DeviceRefused):
        await AntminerModern(NOWHERE, None, 3250.0, lambda: 0.0).apply(Order(Verb.POWER, 2000.0))


@pytest.mark.parametrize("verb", list(Verb))
async def test_a_barred_bank_is_never_written_to(verb: Verb) -> None:
    barred = Access("127.0.0.1", 1, 1, "root", "root", "the maker's default password is not acknowledged")
    for kind in (WhatsminerV2, AntminerModern):
        device = kind(barred, None, 3000.0, lambda: 0.0)
        with pytest.raises(CredentialsRejected):
            await device.apply(Order(verb, 2000.0))
