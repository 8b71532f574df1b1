"""Responses captured by others (../shared/data/miners) through our drivers' own parsing.

What is expected was read in the files by hand. Where no capture tells a thing, such as the configuration of the
Antminer, the driver has to say that it does not know. A capture proves the reads of its firmware, never its writes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from replay_kit import captured, replaying

from mullet.domain.telemetry import LoadState
from mullet_hardware.asic.capability import ANTMINER_MODERN, AXEOS, WHATSMINER_V2
from mullet_hardware.asic.device import Access, Found
from mullet_hardware.asic.protocol import Reading

_root = logging.getLogger()
_before = (list(_root.handlers), _root.level)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mullet_hardware.asic.firmware.antminer import AntminerModern
    from mullet_hardware.asic.firmware.axeos import AxeOs
    from mullet_hardware.asic.firmware.whatsminer_v2 import WhatsminerV2
_root.handlers[:], _root.level = _before


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
