"""Options, capabilities, the identity cache, and what the control process imports."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mullet.domain.load import Load, Steering
from mullet.domain.telemetry import LoadState
from mullet.ports import (
    DeviceError,
    DeviceRefused,
    DeviceUnreachable,
    Driver,
    DriverContext,
    NoPermission,
)
from mullet.testing.builders import miner
from mullet_hardware.asic.cache import IdentityCache
from mullet_hardware.asic.driver import AsicDriver, Inbox
from mullet_hardware.asic.options import OPTIONS, parse_options
from mullet_hardware.asic.protocol import (
    ERROR_KINDS,
    Reading,
    Target,
    encode,
    error_of,
    fault_row,
    kind_of,
    receive,
    telemetry_of,
)
from mullet_hardware.asic.transport import ConnectionRefused


class StillClock:
    def now(self) -> float:
        return 1000.0

    def monotonic(self) -> float:
        return 1000.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


def driver(options: dict[str, dict[str, Any]]) -> AsicDriver:
    return AsicDriver(DriverContext(options, lambda name: None, StillClock()))


def load_of(bank: str) -> Load:
    return miner(f"{bank}-001")


def test_the_control_process_never_imports_pyasic() -> None:
    program = (
        "import sys, mullet_hardware.asic.driver as d; d.AsicDriver;"
        "sys.exit(any(m.split('.')[0] in ('pyasic', 'httpx', 'uvloop') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(
    "given",
    [
        {"clas": "whatsminer_v2"},
        {"class": "whatsminer"},
        {"class": 3},
        {"rpc_port": "4028"},
        {"rpc_port": 0},
        {"web_port": 70000},
        {"workers": 0},
        {"workers": True},
        {"accept_default_password": "yes"},
        {"ramp_down_s": -1.0},
        {"password": "admin"},
    ],
)
def test_a_wrong_option_is_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(given))):
        parse_options("bank", given)
    with pytest.raises(ValueError, match="bank"):
        driver({"bank": given})


def test_every_option_of_the_schema_is_taken_and_has_its_default() -> None:
    samples = {str: "text", int: 2, float: 3.0, bool: True}
    given = {name: samples[kind] for name, (kind, _, _) in OPTIONS.items()} | {"class": "antminer_modern"}
    parse_options("bank", given)
    defaults = parse_options("bank", {})
    for name, (_, default, text) in AsicDriver.options_schema.items():
        assert getattr(defaults, "firmware_class" if name == "class" else name) == default
        assert text
    assert parse_options("bank", {"ramp_up_s": 30, "class": None}).ramp_up_s == 30.0


def test_capabilities_come_from_our_own_table() -> None:
    built = driver(
        {
            "wm": {"class": "whatsminer_v2"},
            "measured": {"class": "whatsminer_v2", "ramp_down_s": 2.5},
            "am": {"class": "antminer_modern"},
            "unknown": {},
        }
    )
    assert isinstance(built, Driver)
    whatsminer, measured, antminer, unknown = (
        built.capability(load_of(bank)) for bank in ("wm", "measured", "am", "unknown")
    )
    assert (whatsminer.steering, whatsminer.measures_watts, whatsminer.fast) == (Steering.CONTINUOUS, True, True)
    assert (measured.steering, measured.ramp_down_s) == (Steering.CONTINUOUS, 2.5)
    assert (antminer.steering, antminer.measures_watts, antminer.fast) == (Steering.MODES, False, False)
    assert (unknown.steering, unknown.measures_watts, unknown.fast) == (Steering.MONITOR, False, False)
    assert not any(found.enforces_limit for found in (whatsminer, measured, antminer, unknown))


def test_watts_that_are_estimates_need_a_meter() -> None:
    built = driver({"lux": {"class": "luxos", "estimated_watts": True}, "am": {"class": "antminer_modern"}})
    assert not built.capability(load_of("lux")).measures_watts
    assert driver({"lux": {"class": "luxos"}}).capability(load_of("lux")).measures_watts
    assert not AsicDriver.capability_for({"class": "whatsminer_v2", "estimated_watts": True}).measures_watts


async def test_a_driver_that_is_not_open_says_so() -> None:
    built = driver({"wm": {"class": "whatsminer_v2"}})
    with pytest.raises(DeviceUnreachable):
        await built.read(load_of("wm"), 1.0)
    await built.close()


@pytest.mark.parametrize("kind", ERROR_KINDS)
def test_errors_cross_the_pipe_as_what_they_are(kind: type[DeviceError]) -> None:
    back = error_of(kind_of(kind("why")), "why")
    assert type(back) is kind
    assert str(back) == "why"


def test_an_error_of_our_own_crosses_as_its_nearest_kin() -> None:
    assert kind_of(ConnectionRefused("x")) == "DeviceUnreachable"
    assert isinstance(error_of("NoPermission", "x"), NoPermission)
    assert isinstance(error_of("NoPermission", "x"), DeviceRefused)


async def test_rows_and_frames_come_back_as_they_went() -> None:
    reading = Reading(watts=3200.0, state=LoadState.ACTIVE, th_per_s=100.0, identity="AA")
    target = Target.of(load_of("wm"))
    frame = {"rows": [reading.pack("wm-001", 5.0), fault_row("wm-002", 5.0, "why")], "target": target.pack()}
    reader = asyncio.StreamReader()
    reader.feed_data(encode(frame) + encode({})[:2])
    reader.feed_eof()
    back = await receive(reader)
    assert back is not None
    first, second = (telemetry_of(row, 9.0) for row in back["rows"])
    assert (first.load_id, first.at, first.watts, first.state) == ("wm-001", 9.0, 3200.0, LoadState.ACTIVE)
    assert (first.limit_watts, first.celsius, first.fault) == (None, None, None)
    assert (second.watts, second.state, second.fault) == (None, None, "why")
    assert Target.unpack(back["target"]) == target
    assert await receive(reader) is None


async def test_the_newest_reading_of_a_load_wins() -> None:
    inbox = Inbox()
    for at in (1.0, 2.0, 3.0):
        for name in ("a", "b"):
            inbox.put(telemetry_of(fault_row(name, at, "x"), at))
    found = [await inbox.get(), await inbox.get()]
    assert [(telemetry.load_id, telemetry.at) for telemetry in found if telemetry] == [("a", 3.0), ("b", 3.0)]
    waiting = asyncio.ensure_future(inbox.get())
    await asyncio.sleep(0)
    inbox.close()
    assert await waiting is None


def test_the_identity_cache_survives_spoilt_files(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "identities.json"
    cache = IdentityCache(str(file))
    cache.load()
    assert cache.put("10.0.0.1", {"class": "whatsminer_v2"})
    assert not cache.put("10.0.0.1", {"class": "whatsminer_v2"})
    assert cache.put("10.0.0.1", {"model": "M50S"})
    cache.save()
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    again = IdentityCache(str(file))
    again.load()
    assert again.entries == {"10.0.0.1": {"class": "whatsminer_v2", "model": "M50S"}}
    for spoilt in ("{", "[1]", json.dumps({"a": 1})):
        file.write_text(spoilt)
        empty = IdentityCache(str(file))
        empty.load()
        assert empty.entries == {}
