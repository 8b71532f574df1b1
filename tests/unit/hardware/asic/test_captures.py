"""Responses captured by others (../shared/data/miners) through our drivers' own parsing.

What is expected was read in the files by hand. Where no capture tells a thing, such as the configuration of the
Antminer, the driver has to say that it does not know. A capture proves the reads of its firmware, never its writes.
"""

from __future__ import annotations

import csv
import json
import logging
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from replay_kit import captured, replaying

from mullet.domain.telemetry import LoadState
from mullet.ports import DeviceError, IdentityMismatch
from mullet_hardware.asic.capability import (
    ANTMINER_MODERN,
    AVALON,
    AXEOS,
    FIRMWARES,
    LUXOS,
    WHATSMINER_V2,
    Grade,
)
from mullet_hardware.asic.device import Access, Found
from mullet_hardware.asic.protocol import Reading

_root = logging.getLogger()
_before = (list(_root.handlers), _root.level)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mullet_hardware.asic.firmware.antminer import AntminerModern
    from mullet_hardware.asic.firmware.avalon import Avalon
    from mullet_hardware.asic.firmware.axeos import AxeOs
    from mullet_hardware.asic.firmware.braiins import Braiins
    from mullet_hardware.asic.firmware.luxos import LuxOs, highest_profile
    from mullet_hardware.asic.firmware.whatsminer_v2 import WhatsminerV2
_root.handlers[:], _root.level = _before


def test_what_is_graded_a_capture_is_one() -> None:
    graded = {name for name, firmware in FIRMWARES.items() if firmware.grade_of_reads is Grade.CAPTURE}
    assert graded == {ANTMINER_MODERN, WHATSMINER_V2, LUXOS, AVALON, AXEOS}
    assert not any(firmware.grade_of_writes is Grade.CAPTURE for firmware in FIRMWARES.values())


def device(kind: Callable[..., Any], access: Access, pinned: str | None = None) -> Any:
    return kind(access, pinned, 3000.0, lambda: 0.0)


async def test_stock_antminer() -> None:
    folder = "asic-rs/antminer/v2020"
    summary, info = captured(f"{folder}/summary.json", f"{folder}/system_info.json")
    async with replaying({"summary": summary}, {"GET /": b"", "GET /cgi-bin/get_system_info.cgi": info}) as replay:
        antminer = device(AntminerModern, replay.access)
        assert await antminer.identify() == Found(
            ANTMINER_MODERN,
            ("02:55:97:22:3M:72", "THQING0BDJAB024NF"),
            "Bitmain",
            "Antminer S21",
            "FR-1.12(251009-S21)",
        )
        # Its configuration was not captured, so that its mode and with it its state are not known.
        assert await antminer.read() == Reading(th_per_s=pytest.approx(110.56689))


@pytest.mark.parametrize("summary", ["summary.json", "summary_with_errors.json"])
async def test_whatsminer_of_2021(summary: str) -> None:
    names = ("get_version", "status")
    answers = captured(f"asic-rs/whatsminer/v1/{summary}", *(f"asic-rs/whatsminer/v1/{name}.json" for name in names))
    async with replaying(dict(zip(("summary", *names), answers, strict=True))) as replay:
        whatsminer = device(WhatsminerV2, replay.access)
        found = await whatsminer.identify()
        # Its protocol is older than the command that tells MAC and serial; the summary tells the MAC.
        assert found == Found(WHATSMINER_V2, ("C4:08:28:00:A4:19",), "MicroBT", "", "20210322.22.REL")
        assert await whatsminer.read() == Reading(
            watts=3417.0,
            limit_watts=3500.0,
            state=LoadState.ACTIVE,
            th_per_s=pytest.approx(70.66811452),
            celsius=71.5,
            identity="C4:08:28:00:A4:19",
        )


async def test_whatsminer_of_2023() -> None:
    names = ("get_version", "status", "summary", "get_miner_info")
    answers = captured(*(f"asic-rs/whatsminer/v2/{name}.json" for name in names))
    async with replaying(dict(zip(names, answers, strict=True))) as replay:
        whatsminer = device(WhatsminerV2, replay.access, "d4-01-02-03-04-05")
        found = await whatsminer.identify()
        assert found == Found(WHATSMINER_V2, ("D4:01:02:03:04:05",), "MicroBT", "", "20230803.11.REL")
        # No 5-second mean and no board temperature in this capture: the rate of the last instant counts.
        assert await whatsminer.read() == Reading(
            watts=3200.0,
            limit_watts=3300.0,
            state=LoadState.ACTIVE,
            th_per_s=pytest.approx(124.5),
            identity="d4-01-02-03-04-05",
        )


async def test_bitaxe() -> None:
    (info,) = captured("asic-rs/bitaxe/v2_0_0/system_info.json")
    async with replaying(web={"GET /api/system/info": info}) as replay:
        bitaxe = device(AxeOs, replay.access)
        found = await bitaxe.identify()
        assert found == Found(AXEOS, ("AA:BB:CC:DD:EE:FF",), "Bitaxe", "BM1368", "v2.4.5-3-gb5d1e36-dirty")
        assert await bitaxe.read() == Reading(
            watts=pytest.approx(2.65),
            state=LoadState.ACTIVE,
            th_per_s=pytest.approx(1.0),
            celsius=59.875,
            identity="AA:BB:CC:DD:EE:FF",
        )


LUX = "asic-rs/luxminer/v1"


async def test_luxos() -> None:
    names = ("version", "config", "summary", "power", "temps", "profiles")
    answers = captured(*(f"{LUX}/{name}.json" for name in names))
    async with replaying(dict(zip(names, answers, strict=True))) as replay:
        miner = device(LuxOs, replay.access)
        found = await miner.identify()
        identities = ("62:F7:5E:B7:10:46", "JYZZB0UBDJABF06RB")
        assert found == Found(LUXOS, identities, "Bitmain", "Antminer S19k Pro", "2025.4.8.220305-57b389c7")
        # Its supply does not measure: the 1,051 W that it tells are an estimate, and no reading.
        assert await miner.read() == Reading(
            limit_watts=1188.0,
            state=LoadState.ACTIVE,
            th_per_s=pytest.approx(59.75606),
            celsius=47.0,
            identity="62:F7:5E:B7:10:46",
        )


def test_profiles_of_luxos_follow_the_published_curve() -> None:
    listed, curve = captured(f"{LUX}/profiles.json", "s19kpro_luxos_profiles_curve.csv")
    rows = list(csv.DictReader(curve.decode().splitlines()))
    profiles = {entry["Profile Name"]: float(entry["Watts"]) for entry in json.loads(listed)["PROFILES"]}
    assert profiles == {row["profile"]: float(row["power_w"]) for row in rows}
    assert len(rows) == 25
    below = None
    for row in rows:
        watts = float(row["power_w"])
        assert highest_profile(profiles, watts - 1.0) == below
        below = row["profile"]
        assert highest_profile(profiles, watts) == below
    assert highest_profile(profiles, 1e6) == below


AVA = "asic-rs/avalonminer"


@pytest.mark.parametrize("stats", ["litestats", "stats"])
async def test_avalon_q_that_stands_by(stats: str) -> None:
    version, told = captured(f"{AVA}/version.json", f"{AVA}/{stats}.json")
    async with replaying({"version": version, stats: told}) as replay:
        avalon = device(Avalon, replay.access, "AABBCCDDEEFF")
        found = await avalon.identify()
        identities = ("AA:BB:CC:DD:EE:FF", "01234567890123456789012345678901")
        assert found == Found(AVALON, identities, "Canaan", "Avalon Q", "25052801_14a19a2")
        assert await avalon.read() == Reading(
            watts=146.0,
            state=LoadState.ASLEEP,
            th_per_s=0.0,
            celsius=27.0,
            identity="AABBCCDDEEFF",
        )


async def test_avalon_1246_that_hashes() -> None:
    (stats,) = captured(f"{AVA}/avalon_a_stats.json")
    async with replaying({"stats": stats}) as replay:
        assert await device(Avalon, replay.access).read() == Reading(
            watts=3504.0,
            # Its supply gives out 3189 of at most 3200 W, and draws 3504 W for that.
            limit_watts=pytest.approx(3200.0 * 3504.0 / 3189.0),
            state=LoadState.ACTIVE,
            th_per_s=pytest.approx(81.07268),
            celsius=65.0,
        )


@pytest.mark.parametrize("version", ["v21_09", "v24_09", "v25_03", "v25_05"])
async def test_braiins_tells_itself_by_its_version(version: str) -> None:
    """Beyond that the captures are of GraphQL and REST, and the driver speaks gRPC."""
    (told,) = captured(f"asic-rs/braiins/{version}/version.json")
    async with replaying({"version": told}) as replay:
        with pytest.raises(DeviceError) as caught:
            await device(Braiins, replay.access).identify()
        assert not isinstance(caught.value, IdentityMismatch)
        assert replay.asked[0] == "version"
