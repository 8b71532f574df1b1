"""Avalon: captured answers through our parsing, orders timed by the miner's clock, levels by name or by watts."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replay_kit import HOST, captured

from mullet.domain.command import Verb
from mullet.domain.telemetry import LoadState
from mullet.ports import CredentialsRejected, DeviceGarbled, DeviceRefused, IdentityMismatch, UnsafeWrite
from mullet_hardware.asic.allowed import ALLOWED, Channel, allow
from mullet_hardware.asic.capability import AVALON
from mullet_hardware.asic.device import Access, Found, Order
from mullet_hardware.asic.firmware.avalon import (
    Avalon,
    board_celsius,
    level_of,
    off_of,
    packed_fields,
    wall_limit,
    wall_watts,
)
from mullet_hardware.asic.protocol import Reading

FOLDER = "asic-rs/avalonminer"
WHEN = 1_753_431_749
VERSION = {"PROD": "Avalon Q", "MODEL": "Q", "MAC": "AABBCCDDEEFF", "DNA": "0201ab", "LVERSION": "25052801"}
INVALID = {"STATUS": [{"STATUS": "E", "When": WHEN, "Code": 14, "Msg": "Invalid command"}], "id": 1}
HASHING = "GHSspd[90000.00] SoftOFF[0] PS[0 1221 2421 66 1598 2422 1670] WORKMODE[2] WORKLEVEL[0] MPO[1600] TAvg[70]"


def said(section: str = "", entries: Any = None, status: str = "S", message: str = "", when: Any = WHEN) -> bytes:
    body: dict[str, Any] = {"STATUS": [{"STATUS": status, "When": when, "Code": 0, "Msg": message}], "id": 1}
    return json.dumps(body | ({section: entries} if section else {})).encode()


def stats(text: str = HASHING, when: Any = WHEN) -> bytes:
    return said("STATS", [{"ID": "AVALON0", "MM ID0:Summary": f"'STATS':{{{text}}}"}], when=when)


@dataclass
class Canaan:
    """A device of given answers by command, or by option for `ascset`; keeps what it was asked."""

    answers: dict[str, bytes]
    asked: list[str] = field(default_factory=list)
    set_to: list[str] = field(default_factory=list)
    avalon: Any = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = json.loads(await reader.read(4096))
        command = request["command"]
        self.asked.append(command)
        if "parameter" in request:
            self.set_to.append(request["parameter"])
            command = request["parameter"].split(",")[1]
        writer.write(self.answers.get(command, json.dumps(INVALID).encode()) + b"\0")
        try:
            await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()


@asynccontextmanager
async def device(answers: dict[str, bytes], pinned: str | None = None, **access: Any) -> AsyncIterator[Canaan]:
    it = Canaan({"version": said("VERSION", [VERSION]), "litestats": stats()} | answers)
    server = await asyncio.start_server(it.serve, HOST, 0)
    fields = {"username": "", "password": "", "barred": None} | access
    it.avalon = Avalon(Access(HOST, server.sockets[0].getsockname()[1], 0, **fields), pinned, 1674.0, lambda: 0.0)
    try:
        yield it
    finally:
        server.close()
        await server.wait_closed()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=2.0)


OK = said(status="S", message="ASC 0 set OK")


def timed(option: str) -> bytes:
    return said(status="I", message=f"ASC 0 set info: success {option}:{WHEN + 5}")


async def test_captured_avalon_q_in_standby() -> None:
    version, litestats = captured(f"{FOLDER}/version.json", f"{FOLDER}/litestats.json")
    async with device({"version": version, "litestats": litestats}) as it:
        identities = ("AA:BB:CC:DD:EE:FF", "01234567890123456789012345678901")
        assert await it.avalon.identify() == Found(AVALON, identities, "Canaan", "Avalon Q", "25052801_14a19a2")
        it.asked.clear()
        assert await it.avalon.poll() == Reading(watts=146.0, state=LoadState.ASLEEP, th_per_s=0.0, celsius=27.0)
        assert it.asked == ["litestats"]


async def test_captured_avalon_12_at_work() -> None:
    (told,) = captured(f"{FOLDER}/avalon_a_stats.json")
    body = json.loads(told)
    body.setdefault("STATUS", [{"STATUS": "S", "When": WHEN}])  # cut off in the capture
    async with device({"litestats": json.dumps(INVALID).encode(), "stats": json.dumps(body).encode()}) as it:
        for _ in range(2):
            assert await it.avalon.poll() == Reading(
                watts=3504.0,
                limit_watts=pytest.approx(3200.0 * 3504.0 / 3189.0),
                state=LoadState.ACTIVE,
                th_per_s=pytest.approx(81.07268),
                celsius=65.0,
            )
        # What it does not know is not asked again.
        assert it.asked == ["litestats", "estats", "stats", "stats"]


async def test_captured_avalon_q_at_work() -> None:
    """The capture holds fields that were parsed already: they are packed again as the device packs them."""
    (told,) = captured(f"{FOLDER}/litestats_parsed.json")
    fields = json.loads(told)["STATS"][0]["MM ID0:Summary"]["STATS"]
    packed = " ".join(
        f"{name}[{' '.join(map(str, value)) if isinstance(value, list) else value}]" for name, value in fields.items()
    )
    async with device({"litestats": stats(packed), "summary": said("SUMMARY", [{"MHS 5s": 9.4e7}])}) as it:
        reading = await it.avalon.read()
        assert reading.watts == 1670.0
        # What its supply gives out is bounded at 1600 W; the data sheet says 1674 W at the wall.
        assert reading.limit_watts == pytest.approx(1674.0, rel=0.002)


async def test_captured_answers_to_orders() -> None:
    names = ("litestats", "ascset_softoff", "ascset_softon", "ascset_workmode")
    litestats, softoff, softon, workmode = captured(*(f"{FOLDER}/{name}.json" for name in names))
    answers = {"litestats": litestats, "softoff": softoff, "softon": softon, "workmode": workmode}
    async with device(answers) as it:
        assert (await it.avalon.apply(Order(Verb.SLEEP, 0.0))).acked
        assert (await it.avalon.apply(Order(Verb.WAKE, 0.0))).acked
        assert (await it.avalon.apply(Order(Verb.POWER, 1500.0))).acked
        # Timed by the clock of the miner, which told 1753431749.
        assert it.set_to == ["0,softoff,1:1753431754", "0,softon,1:1753431754", "0,workmode,set,1"]


async def test_captured_list_of_options_names_those_that_are_used() -> None:
    (told,) = captured(f"{FOLDER}/ascset_help.json")
    options = json.loads(told)["STATUS"][0]["Msg"].partition(": ")[2].split("|")
    writes = ALLOWED[AVALON][Channel.RPC].writes
    assert {command.partition(":")[2] for command in writes} <= set(options)


@pytest.mark.parametrize(
    "command", ["ascset", "ascset:password", "ascset:qr_auth", "ascset:reboot", "ascset:frequency", "ascset:time"]
)
def test_no_other_option_can_be_set(command: str) -> None:
    for attempt in (command, f"litestats+{command}", f"{command}+ascset:softoff"):
        with pytest.raises(UnsafeWrite):
            allow(AVALON, Channel.RPC, attempt)


async def test_rate_is_asked_where_it_is_left_at_zero() -> None:
    summary = said("SUMMARY", [{"MHS 5s": 9e7}])
    async with device({"litestats": stats("GHSspd[0.00] SoftOFF[0] PS[0 1 2 3 3086 1296]"), "summary": summary}) as it:
        reading = await it.avalon.read()
        assert (reading.th_per_s, reading.state) == (90.0, LoadState.ACTIVE)
        assert reading.watts is None, "only what the supply gives out is told"
        it.answers["summary"] = said("SUMMARY", [{"MHS 5s": 0.0}])
        assert (await it.avalon.read()).state is LoadState.STARTING
        it.answers["litestats"] = stats("GHSspd[0.00]")
        assert (await it.avalon.read()).state is None


@pytest.mark.parametrize("when", [None, True, "soon", -1, 9e9, 17.5])
async def test_without_its_clock_nothing_is_written(when: Any) -> None:
    async with device({"litestats": stats(when=when), "softoff": timed("softoff")}) as it:
        with pytest.raises(DeviceGarbled):
            await it.avalon.apply(Order(Verb.SLEEP, 0.0))
        assert not it.set_to


async def test_what_an_answer_says_is_passed_on() -> None:
    refused = said(status="E", message="Access denied to 'ascset' command")
    async with device({"softoff": refused, "softon": said(status="I", message="ASC 0 set info: failed")}) as it:
        with pytest.raises(DeviceRefused):
            await it.avalon.apply(Order(Verb.SLEEP, 0.0))
        assert not (await it.avalon.apply(Order(Verb.WAKE, 0.0))).acked


async def test_a_level_that_is_set_is_not_written_again() -> None:
    async with device({"workmode": OK}) as it:
        assert (await it.avalon.apply(Order(Verb.POWER, 1674.0))).acked
        assert not it.set_to
        assert (await it.avalon.apply(Order(Verb.POWER, 1000.0))).acked
        assert it.set_to == ["0,workmode,set,0"]


async def test_a_nano_3_has_its_level_elsewhere() -> None:
    nano = {"version": said("VERSION", [VERSION | {"PROD": "AvalonNano", "MODEL": "Nano3"}]), "worklevel": OK}
    async with device(nano) as it:
        # pyasic would set it to its highest level for any watts above 100.
        assert (await it.avalon.apply(Order(Verb.POWER, 139.0))).acked
        assert it.set_to == ["0,worklevel,set,1"]


async def test_one_woken_to_a_low_point_is_set_to_it_first() -> None:
    async with device({"workmode": OK, "softon": timed("softon")}) as it:
        assert (await it.avalon.apply(Order(Verb.WAKE, 0.0, "eco"))).acked
        assert it.set_to == ["0,workmode,set,0", f"0,softon,1:{WHEN + 5}"]
        it.set_to.clear()
        it.answers["workmode"] = said(status="S", message="something else")
        assert not (await it.avalon.apply(Order(Verb.WAKE, 0.0, "eco"))).acked
        assert it.set_to == ["0,workmode,set,0"]


@pytest.mark.parametrize(
    ("point", "watts", "model", "level"),
    [
        ("eco", 5000.0, "?", 0),
        ("standard", 0.0, "?", 1),
        ("super", 0.0, "?", 2),
        ("normal", 1674.0, "Q", 2),
        ("", 1673.0, "Q", 1),
        ("", 1299.0, "Q", 0),
        ("", 800.0, "Q", 0),
        ("", 99.0, "NANO3", 0),
        ("", 140.0, "NANO3", 2),
    ],
)
def test_levels_by_name_or_the_highest_below(point: str, watts: float, model: str, level: int) -> None:
    assert level_of(point, watts, model, "miner") == level


@pytest.mark.parametrize(
    ("point", "watts", "model"),
    [("", 799.0, "Q"), ("full", 3400.0, "1246-83"), ("", math.nan, "Q"), ("", -1.0, "Q"), ("", math.inf, "Q")],
)
def test_no_level_is_guessed(point: str, watts: float, model: str) -> None:
    with pytest.raises(DeviceRefused):
        level_of(point, watts, model, "miner")


async def test_other_devices_are_told_apart() -> None:
    whatsminer = said("VERSION", [{"API": "3.7", "CGMiner": "4.9.2", "PROD": ""}])
    for answer, error in (
        (whatsminer, IdentityMismatch),
        (json.dumps(INVALID).encode(), IdentityMismatch),
        (said("VERSION", [{"foo": 1}]), DeviceGarbled),
        (said("VERSION", [VERSION | {"MAC": "", "DNA": ""}]), DeviceGarbled),
    ):
        async with device({"version": answer, "softoff": timed("softoff")}) as it:
            with pytest.raises(error):
                await it.avalon.identify()
            with pytest.raises(error):
                await it.avalon.apply(Order(Verb.SLEEP, 0.0))
            assert not it.set_to
    async with device({}, pinned="11:22:33:44:55:66") as it:
        with pytest.raises(IdentityMismatch):
            await it.avalon.apply(Order(Verb.SLEEP, 0.0))
        assert not it.set_to


async def test_a_pinned_one_is_asked_once_and_then_known_by_its_dna() -> None:
    async with device({"litestats": stats(f"DNA[0201AB] {HASHING}")}, pinned="aa:bb:cc:dd:ee:ff") as it:
        for _ in range(3):
            assert (await it.avalon.poll()).identity == "aa:bb:cc:dd:ee:ff"
        assert it.asked == ["version", "litestats", "litestats", "litestats"]
        it.answers["litestats"] = stats(f"DNA[0201ac] {HASHING}")
        with pytest.raises(IdentityMismatch):
            await it.avalon.poll()


async def test_without_an_agreed_password_nothing_is_written() -> None:
    async with device({"softoff": timed("softoff")}, barred="nobody agreed") as it:
        with pytest.raises(CredentialsRejected):
            await it.avalon.apply(Order(Verb.SLEEP, 0.0))
        assert not it.asked


def test_fields_of_the_packed_text() -> None:
    told = {"STATS": [{"ID": "POOL0"}, {"MM ID0": "Ver[1246-83] PS[0 1 2 3 4 5 6] TAvg[0] Temp[-273] SoftOFF[5] A[]"}]}
    fields = packed_fields(told, "miner")
    assert fields == {"Ver": "1246-83", "PS": "0 1 2 3 4 5 6", "TAvg": "0", "Temp": "-273", "SoftOFF": "5", "A": ""}
    assert (wall_watts(fields, "miner"), board_celsius(fields), off_of(fields)) == (6.0, None, True)
    assert wall_watts(fields | {"WALLPOWER": "3731"}, "miner") == 3731.0
    assert wall_watts({}, "miner") is None
    assert wall_limit(fields | {"MPO": "8"}, "miner") == 12.0
    for unknown in ({}, {"MPO": "8"}, {"MPO": "8", "PS": "0 0 0 0 0 0 17"}, {"PS": fields["PS"]}):
        assert wall_limit(unknown, "miner") is None
    assert off_of({"SoftOFF": "x"}) is None
    for garbled in ({"PS": "0 1 2 3 4 5 six"}, {"WALLPOWER": "-1"}, {"WALLPOWER": "nan"}):
        with pytest.raises(DeviceGarbled):
            wall_watts(garbled, "miner")


@pytest.mark.parametrize("told", [{}, {"STATS": 5}, {"STATS": []}, {"STATS": [5]}, {"STATS": [{"MM ID0": 5}]}])
def test_what_packs_nothing_is_garbled(told: dict[str, Any]) -> None:
    with pytest.raises(DeviceGarbled):
        packed_fields(told, "miner")


@given(st.text())
def test_whatever_is_packed_is_read_or_garbled(text: str) -> None:
    try:
        fields = packed_fields({"STATS": [{"MM ID0": text}]}, "miner")
        wall_watts(fields, "miner")
        wall_limit(fields, "miner")
    except DeviceGarbled:
        return
    assert board_celsius(fields) is None or -60.0 < (board_celsius(fields) or 0.0) < 200.0
