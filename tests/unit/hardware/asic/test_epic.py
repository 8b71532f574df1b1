"""ePIC PowerPlay: what its summary means, and what can be written at all."""

from __future__ import annotations

import asyncio
import json
import logging
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mullet.domain.command import Verb
from mullet.domain.telemetry import LoadState
from mullet.ports import CredentialsRejected, DeviceError, DeviceGarbled, DeviceRefused, IdentityMismatch, UnsafeWrite
from mullet_hardware.asic.device import Access, Order

_root = logging.getLogger()
_before = (list(_root.handlers), _root.level)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mullet_hardware.asic.firmware.epic import EpicPowerPlay, GuardedWeb
_root.handlers[:], _root.level = _before

NOWHERE = Access("127.0.0.1", 1, 1, "", "letmein", None)
MINING: dict[str, Any] = {
    "Software": "PowerPlay-BM v1.18.1",
    "Status": {"Operating State": "Mining"},
    "Power Supply Stats": {"Input Power": 3184.5},
    "HBs": [
        {"Index": 0, "Hashrate": [31_000_000.0, 98.0], "Temperature": 61},
        {"Index": 1, "Hashrate": [32_000_000.0, 99.0], "Temperature": 64},
    ],
}


class Fake:
    """A device that answers what a test lays out, and keeps what it was sent."""

    def __init__(self) -> None:
        self.pages: dict[str, Any] = {"GET /summary": MINING, "POST /miner": {"result": True, "error": None}}
        self.asked: list[str] = []
        self.bodies: list[Any] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split(" ", 2)
        length = int(head.lower().partition("content-length: ")[2].split("\r\n")[0] or 0)
        self.asked.append(f"{method} {path}")
        if length:
            self.bodies.append(json.loads(await reader.readexactly(length)))
        page = self.pages.get(f"{method} {path}")
        body = json.dumps(page).encode()
        status = b"404 Not Found" if page is None else b"200 OK"
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
        await writer.drain()
        writer.close()

    def device(self) -> EpicPowerPlay:
        access = Access("127.0.0.1", 0, self.port, "", "letmein", None)
        return EpicPowerPlay(access, None, 3250.0, asyncio.get_running_loop().time)


@pytest.fixture
async def fake() -> AsyncIterator[Fake]:
    made = Fake()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    await server.wait_closed()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=2.0)


async def test_one_request_tells_everything(fake: Fake) -> None:
    reading = await fake.device().poll()
    assert (reading.watts, reading.th_per_s, reading.celsius) == (3184.5, 63.0, 64.0)
    assert reading.state is LoadState.ACTIVE
    assert fake.asked == ["GET /summary"]


@pytest.mark.parametrize(
    ("told", "boards", "state"),
    [
        ("Idling", None, LoadState.ASLEEP),
        ("Idling", [], LoadState.ASLEEP),
        ("Idling", MINING["HBs"], LoadState.STOPPING),
        ("Mining", None, None),
        ("Mining", [{"Index": 0, "Hashrate": [0.0, 0.0]}], LoadState.STARTING),
        ("Initializing", None, LoadState.STARTING),
        ("Stopping", None, LoadState.STOPPING),
        ("Something else", MINING["HBs"], None),
    ],
)
async def test_a_state_is_told_by_word_and_hashrate(
    fake: Fake, told: str, boards: Any, state: LoadState | None
) -> None:
    fake.pages["GET /summary"] = {"Status": {"Operating State": told}, "HBs": boards}
    reading = await fake.device().read()
    assert reading.state is state
    assert reading.watts is None
    assert boards or reading.th_per_s is None


@pytest.mark.parametrize(
    "summary",
    [
        {},
        {"Status": {}},
        {"Status": {"Operating State": "Mining"}, "HBs": 7},
        {"Status": {"Operating State": "Mining"}, "HBs": [{"Hashrate": ["much"]}]},
        {"Status": {"Operating State": "Mining"}, "HBs": [{"Hashrate": [-1.0]}]},
        {"Status": {"Operating State": "Mining"}, "Power Supply Stats": {"Input Power": "NaN"}},
    ],
)
async def test_what_is_no_summary_is_garbled(fake: Fake, summary: dict[str, Any]) -> None:
    fake.pages["GET /summary"] = summary
    with pytest.raises(DeviceGarbled):
        await fake.device().read()


async def test_a_device_without_such_pages_is_another(fake: Fake) -> None:
    with pytest.raises(IdentityMismatch):
        await fake.device().identify()
    fake.pages["GET /capabilities"] = {"Model": "Antminer S19"}
    fake.pages["GET /network"] = {"dhcp": {"mac_address": "02:eb:1c:00:00:01"}, "static": None}
    found = await fake.device().identify()
    assert (found.identities, found.model) == (("02:EB:1C:00:00:01",), "Antminer S19")


async def test_stop_is_one_request_and_carries_the_password(fake: Fake) -> None:
    assert (await fake.device().apply(Order(Verb.SLEEP, 0.0))).acked
    assert fake.asked == ["POST /miner"]
    assert fake.bodies == [{"param": "Stop", "password": "letmein"}]


async def test_what_is_awake_is_not_started_anew(fake: Fake) -> None:
    assert (await fake.device().apply(Order(Verb.WAKE, 0.0))).acked
    assert fake.asked == ["GET /summary"]
    fake.pages["GET /summary"] = {"Status": {"Operating State": "Idling"}, "HBs": None}
    assert (await fake.device().apply(Order(Verb.WAKE, 0.0))).acked
    assert fake.bodies == [{"param": "Autostart", "password": "letmein"}]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"result": False, "error": "Incorrect password"}, CredentialsRejected),
        ({"foo": 1}, DeviceGarbled),
        ({"result": "yes"}, DeviceGarbled),
    ],
)
async def test_what_is_no_answer_is_told(fake: Fake, answer: Any, expected: type[DeviceError]) -> None:
    fake.pages["POST /miner"] = answer
    with pytest.raises(expected) as caught:
        await fake.device().apply(Order(Verb.SLEEP, 0.0))
    assert "letmein" not in str(caught.value)


async def test_a_no_is_passed_on(fake: Fake) -> None:
    fake.pages["POST /miner"] = {"result": False, "error": "Command not available"}
    answer = await fake.device().apply(Order(Verb.SLEEP, 0.0))
    assert (answer.acked, answer.detail) == (False, "Command not available")


async def test_only_stop_and_start_can_be_written() -> None:
    web = GuardedWeb(NOWHERE)
    calls = (
        web.reboot(),
        web.restart_epic(),
        web.set_pools({"coin": "Btc"}),
        web.set_ptune_enable(True),
        web.set_fan({"Auto": {}}),
        web.set_shutdown_temp(90),
        web.send_command("miner", privileged=True),
        web.send_command("miner", param="Format"),
        web.send_command("miner", param="Stop", pools=[]),
        web.send_command("password", param="x"),
    )
    for call in calls:
        with pytest.raises(UnsafeWrite):
            await call


async def test_watts_it_cannot_follow_are_refused() -> None:
    with pytest.raises(DeviceRefused):
        await EpicPowerPlay(NOWHERE, None, 3250.0, lambda: 0.0).apply(Order(Verb.POWER, 2000.0))


@pytest.mark.parametrize("verb", list(Verb))
async def test_a_barred_bank_is_never_written_to(verb: Verb) -> None:
    barred = Access("127.0.0.1", 1, 1, "", "letmein", "the maker's default password is not acknowledged")
    with pytest.raises(CredentialsRejected):
        await EpicPowerPlay(barred, None, 3250.0, lambda: 0.0).apply(Order(verb, 2000.0))
