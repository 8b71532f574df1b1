"""The search for miners against simulated ones of every protocol: each told apart, none lost, nothing written."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mullet.ports import DriverContext, IdentityMismatch, Outcome, Sighting
from mullet.testing.builders import miner
from mullet_hardware.asic.capability import FIRMWARES
from mullet_hardware.asic.discover import AsicDiscoverer
from mullet_hardware.asic.driver import AsicDriver
from mullet_hardware.asic.evidence import READS_ASK_PASSWORD
from mullet_simulators.facility import Facility
from mullet_simulators.faults import WITHOUT_PASSWORD
from mullet_simulators.miners.catalogue import DEVICES as PROTOCOLS
from mullet_simulators.miners.models import MODELS
from mullet_simulators.testing import require_pools_kept, simulated_facility

pytestmark = [pytest.mark.e2e]

MODELS_HERE = [model for model in MODELS.values() if model.protocol in PROTOCOLS]
OTHER_PASSWORD = "nobody-guesses-this"


def class_of(protocol: str) -> str:
    """The firmware class that drives a simulated protocol."""
    return {"antminer": "antminer_modern"}.get(protocol, protocol)


class RealClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class Site:
    """A facility, and what stands at each address."""

    facility: Facility
    classes: dict[str, str]
    """By address, the class that must be found there."""
    loads: dict[str, str]

    def hosts(self, prefix: str) -> list[str]:
        return [host for host, load in self.loads.items() if load.startswith(prefix)]


def scenario(count: int, **passwords: str) -> dict[str, Any]:
    banks = [
        {"id": f"{model.name}", "number": number, "circuit": "pdu", "model": model.name, "count": count}
        for number, model in enumerate(MODELS_HERE, 1)
    ]
    locked = {model.protocol: model.name for model in MODELS_HERE if model.protocol not in WITHOUT_PASSWORD}
    banks += [
        {
            "id": f"locked-{protocol}",
            "number": 100 + number,
            "circuit": "pdu",
            "model": name,
            "count": 1,
            "password": OTHER_PASSWORD,
        }
        for number, (protocol, name) in enumerate(locked.items())
    ]
    return {"circuits": [{"id": "pdu", "limit_w": 1e7}], "banks": banks, "price": {"base_per_mwh": 38.0}}


@pytest.fixture(params=[0.0, 0.1], ids=["0ms", "100ms"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    source = scenario(3)
    async with simulated_facility(
        source, servers=(), truth=tmp_path / "truth.jsonl", device_latency_s=request.param
    ) as facility:
        classes, loads = {}, {}
        for bank in source["banks"]:
            for index in range(1, bank["count"] + 1):
                load = f"{bank['id']}-{index:03d}"
                host = facility.host(load)
                classes[host], loads[host] = class_of(MODELS[bank["model"]].protocol), load
        yield Site(facility, classes, loads)
    assert require_pools_kept(tmp_path / "truth.jsonl") == {}


def discoverer(secrets: Mapping[str, str] | None = None, **options: Any) -> AsicDiscoverer:
    given = {"discover": {"ports": "web=8080", **options}}
    return AsicDiscoverer(DriverContext(given, (secrets or {}).get, RealClock()))


async def search(hosts: list[str], **options: Any) -> dict[str, Sighting]:
    seen: dict[str, Sighting] = {}
    async with asyncio.timeout(90.0), aclosing(discoverer(**options).search(hosts)) as sightings:
        async for sighting in sightings:
            assert sighting.address not in seen, "one sighting for each address"
            seen[sighting.address] = sighting
    return seen


def requests_in(truth: Path) -> list[dict[str, Any]]:
    return [row for row in map(json.loads, truth.read_text().splitlines()) if row["type"] == "request"]


async def test_every_miner_is_found_as_what_it_is_and_nothing_is_written(site: Site, tmp_path: Path) -> None:
    empty = [f"127.{site.facility.subnet}.250.{index}" for index in range(1, 6)]
    seen = await search([*site.classes, *empty])
    assert set(seen) == {*site.classes, *empty}
    wrong = {
        site.loads[host]: (seen[host].outcome.value, seen[host].options.get("class"), seen[host].reason)
        for host, expected in site.classes.items()
        if seen[host].outcome is not Outcome.FOUND or seen[host].options.get("class") != expected
    }
    assert wrong == {}
    assert {seen[host].outcome for host in empty} <= {Outcome.OTHER, Outcome.SILENT}
    for host, firmware_class in site.classes.items():
        sighting, locked = seen[host], site.loads[host].startswith("locked-")
        assert sighting.model, site.loads[host]
        if firmware_class in READS_ASK_PASSWORD:
            assert sighting.default_password is not locked, site.loads[host]
        else:
            assert sighting.default_password is None, site.loads[host]
        if not (locked and firmware_class in READS_ASK_PASSWORD):
            assert sighting.identity, site.loads[host]
            assert sighting.th_per_s, site.loads[host]
            assert sighting.measures_watts is FIRMWARES[firmware_class].capability.measures_watts
            assert sighting.watts is not None or not sighting.measures_watts, site.loads[host]
    assert requests_in(tmp_path / "truth.jsonl") == []


@pytest.mark.parametrize("site", [0.1], indirect=True)
async def test_what_is_sick_is_not_mistaken_for_something_else(site: Site, tmp_path: Path) -> None:
    """A fault may hide what a miner is; it never makes another miner of it."""
    faults = ("hang", "truncated", "garbage", "wrong_shape", "dead", "black_hole")
    sick: dict[str, str] = {}
    for model in MODELS_HERE:
        for index, fault in enumerate(faults[:3] if len(model.name) % 2 else faults[3:], 1):
            load = f"{model.name}-{index:03d}"
            site.facility.set_fault(load, fault)
            sick[site.facility.host(load)] = fault

    async def dead_are_away() -> None:
        while any(  # noqa: ASYNC110 - physics has no event
            site.facility.plant.loads[site.loads[host]].truth()["state"] != "dead" for host in gone
        ):
            await asyncio.sleep(0.02)

    gone = [host for host, fault in sick.items() if fault == "dead"]
    await asyncio.wait_for(dead_are_away(), 5.0)
    seen = await search(list(sick))
    for host, fault in sick.items():
        sighting = seen[host]
        if sighting.outcome is Outcome.FOUND:
            assert sighting.options["class"] == site.classes[host], (site.loads[host], fault)
        elif fault in ("hang", "truncated", "garbage", "black_hole"):
            assert sighting.outcome is Outcome.UNIDENTIFIED, (site.loads[host], fault, sighting)
            assert sighting.reason
        elif fault == "wrong_shape":
            # Where there is HTTP only, it is a web server like any other.
            assert sighting.outcome in (Outcome.UNIDENTIFIED, Outcome.OTHER), (site.loads[host], fault, sighting)
        else:
            assert sighting.outcome in (Outcome.OTHER, Outcome.SILENT), (site.loads[host], fault, sighting)
    assert requests_in(tmp_path / "truth.jsonl") == []


@pytest.mark.parametrize("site", [0.0], indirect=True)
async def test_a_named_credential_opens_what_the_default_does_not(site: Site) -> None:
    locked = [host for host in site.hosts("locked-") if site.classes[host] in READS_ASK_PASSWORD]
    assert locked
    seen = await search(locked, credentials=["site"], secrets={"site": OTHER_PASSWORD})
    for host in locked:
        sighting = seen[host]
        assert (sighting.outcome, sighting.default_password) == (Outcome.FOUND, False), site.loads[host]
        assert sighting.identity, site.loads[host]
        assert sighting.options["credential"] == "site", site.loads[host]


POLICY = """
facility: {id: barn, currency: USD, mode: observe}
circuits: [{id: poi, rating: 5 MW, unmanaged_max: 0 W}]
economics: {hashprice: 50 USD/PH/d, fallback_price: 60 USD/MWh}
"""


async def command(*arguments: str) -> tuple[int, str, str]:
    """Run one command of the real command line while the facility goes on in this process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60.0)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("site", [0.0], indirect=True)
async def test_the_command_prints_banks_that_check_takes(site: Site, tmp_path: Path) -> None:
    # Where a password was changed, nobody tells watts or model: those stand apart.
    networks = [f"127.{site.facility.subnet}.{number}.1-5" for number in range(1, len(MODELS_HERE) + 1)]
    code, out, err = await command("-m", "mullet", "discover", *networks, "--ports", "web=8080", "--json")
    report = json.loads(out)
    assert (code, report["unidentified"]) == (0, []), err
    assert len(report["found"]) == 3 * len(MODELS_HERE)
    assert sum(group["count"] for group in report["groups"]) == len(report["found"])
    policy = tmp_path / "barn.yaml"
    policy.write_text(POLICY + report["policy"])
    code, out, err = await command("-m", "mullet", "check", str(policy), "--json")
    assert code == 0, out
    banks = json.loads(out)["policies"][0]["banks"]
    assert sum(bank["loads"] for bank in banks.values()) == len(report["found"]), "each is in a bank"
    assert requests_in(tmp_path / "truth.jsonl") == []


async def test_pyasic_stays_out_of_the_commands_process() -> None:
    code, _, trace = await command("-X", "importtime", "-m", "mullet", "discover", "127.250.250.1-2")
    imported = {line.rpartition("|")[2].strip() for line in trace.splitlines() if line.startswith("import time:")}
    assert code == 1
    assert "mullet_hardware.asic.capability" in imported, "the discoverer's own imports are seen"
    assert {"pyasic", "httpx", "mullet_hardware.asic.registry"} & imported == set()


@asynccontextmanager
async def opened(options: dict[str, Any]) -> AsyncIterator[AsicDriver]:
    driver = AsicDriver(DriverContext({"found": options}, lambda name: None, RealClock()))
    await driver.open([])
    try:
        yield driver
    finally:
        await driver.close()


@pytest.mark.parametrize("site", [0.0], indirect=True)
async def test_banks_without_a_class_are_driven_as_what_they_are_found_to_be(site: Site, tmp_path: Path) -> None:
    cache = tmp_path / "identities.json"
    options = {"web_port": 8080, "identity_cache": str(cache), "accept_default_password": True}
    loads = {
        host: replace(miner(load.replace("-00", "-10"), watts=4000.0, address=host), bank="found")
        for host, load in site.loads.items()
        if load.endswith("-001") and not load.startswith("locked-")
    }
    async with opened(options) as driver:
        await asyncio.gather(*(driver.identify(load, 30.0) for load in loads.values()))
        for host, load in loads.items():
            assert (await driver.read(load, 5.0)).fault is None, site.loads[host]
    remembered = {host: entry["class"] for host, entry in json.loads(cache.read_text()).items()}
    assert remembered == {host: site.classes[host] for host in loads}


@pytest.mark.parametrize("site", [0.0], indirect=True)
async def test_a_miner_that_is_not_what_was_remembered_is_identified_anew(site: Site, tmp_path: Path) -> None:
    host = site.hosts("antminer-s19-0")[0]
    cache = tmp_path / "identities.json"
    cache.write_text(json.dumps({host: {"class": "whatsminer_v2", "model": "M50S", "firmware": "20230216"}}))
    load = replace(miner("found-001", watts=3300.0, address=host), bank="found")
    async with opened({"web_port": 8080, "identity_cache": str(cache)}) as driver:
        with pytest.raises(IdentityMismatch):
            await driver.identify(load, 10.0)
        assert (await driver.identify(load, 10.0)).model == "Antminer S19"
        assert driver.capability(load).steering is FIRMWARES["antminer_modern"].capability.steering
    assert json.loads(cache.read_text())[host]["class"] == "antminer_modern"


async def test_what_only_pyasic_knows_is_found_by_it_and_watched(free_subnet: int) -> None:
    host = f"127.{free_subnet}.9.9"
    told = {"BMMiner": "1.0.0", "API": "3.1", "Type": "Antminer S19jPro Hiveon"}
    answers = {"version": {"STATUS": [{"STATUS": "S", "Code": 22, "Msg": "versions"}], "VERSION": [told], "id": 1}}
    refused = {"STATUS": [{"STATUS": "E", "Code": 14, "Msg": "Invalid command"}], "id": 1}
    asked: set[str] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            said = await reader.read(4096)
            if said:
                command = str(json.loads(said)["command"])
                asked.add(command)
                writer.write(json.dumps(answers.get(command, refused)).encode() + b"\0")
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, host, 4028):
        sighting = (await search([host]))[host]
    assert (sighting.outcome, sighting.options, sighting.model) == (
        Outcome.FOUND, {"class": "monitor"}, "ANTMINER S19JPRO",
    )  # fmt: skip
    assert sighting.reason
    writing = {"addpool", "enablepool", "switchpool", "restart", "quit", "save", "setconfig", "ascset"}
    assert not any(part in writing for command in asked for part in command.split("+")), "pyasic only reads"
