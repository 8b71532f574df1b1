"""The ASIC driver with its real worker process against simulated miners on their real protocols."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mullet.domain.command import Command, Receipt, Verb
from mullet.domain.feeds import Cause
from mullet.domain.load import Load, Steering
from mullet.domain.telemetry import LoadState, Telemetry
from mullet.ports import (
    CredentialsRejected,
    DeviceError,
    DeviceGarbled,
    DeviceRefused,
    DeviceUnreachable,
    DriverContext,
    IdentityMismatch,
    UnsafeWrite,
)
from mullet.testing.builders import miner
from mullet.testing.leaks import open_descriptors
from mullet_hardware.asic.driver import AsicDriver
from mullet_simulators.facility import Facility
from mullet_simulators.testing import require_pools_kept, simulated_facility

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

SCENARIO: dict[str, Any] = {
    "circuits": [{"id": "pdu", "limit_w": 200_000}],
    "banks": [
        {"id": "wm", "number": 1, "circuit": "pdu", "model": "whatsminer-m50s", "count": 20, "ramp_scale": 0.1},
        {"id": "am", "number": 2, "circuit": "pdu", "model": "antminer-s19", "count": 20, "ramp_scale": 0.04},
    ],
    "price": {"base_per_mwh": 38.0},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "wm": {"class": "whatsminer_v2", "accept_default_password": True},
    "am": {"class": "antminer_modern", "web_port": 8080, "accept_default_password": True},
}
DAEMON = """
import asyncio, time
from types import SimpleNamespace
from mullet.ports import DriverContext
from mullet_hardware.asic.driver import AsicDriver

async def main():
    clock = SimpleNamespace(now=time.time, monotonic=time.monotonic, sleep=asyncio.sleep)
    driver = AsicDriver(DriverContext({}, lambda name: None, clock))
    await driver.open([])
    print(driver.worker_pids[0], flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
KINDS = ("wm", "am")
DEADLINE_S = 2.0


class RealClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def context(options: dict[str, dict[str, Any]] = OPTIONS, secrets: dict[str, str] | None = None) -> DriverContext:
    return DriverContext(options=options, secret=(secrets or {}).get, clock=RealClock())


@asynccontextmanager
async def opened(driver: AsicDriver) -> AsyncIterator[AsicDriver]:
    await driver.open([])
    try:
        yield driver
    finally:
        await driver.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def facility(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Facility]:
    truth = tmp_path_factory.mktemp("facility") / "truth.jsonl"
    async with simulated_facility(SCENARIO, servers=(), truth=truth) as running:
        yield running
    assert require_pools_kept(truth) == {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def driver(facility: Facility) -> AsyncIterator[AsicDriver]:
    async with opened(AsicDriver(context())) as running:
        yield running


class Fleet:
    """Hands each test miners that no other test touched."""

    def __init__(self, facility: Facility) -> None:
        self._facility = facility
        self._used = dict.fromkeys(KINDS, 0)

    def next(self, kind: str) -> Load:
        self._used[kind] += 1
        name = f"{kind}-{self._used[kind]:03d}"
        return miner(name, circuit="pdu", watts=3300.0, address=self._facility.host(name))


@pytest.fixture(scope="module")
def fleet(facility: Facility) -> Fleet:
    return Fleet(facility)


def command(load: Load, verb: Verb, watts: float = 20.0) -> Command:
    return Command(
        id=f"{load.id}-{verb.value}",
        seq=1,
        epoch=1,
        load_id=load.id,
        verb=verb,
        point="",
        watts=watts,
        most_before_watts=3600.0,
        most_after_watts=3600.0,
        cause=Cause.ECONOMIC,
        plan_id="plan",
        policy_hash="0",
        issued_at=time.time(),
        not_after=time.time() + 60.0,
        lease_s=0.0,
    )


def truth(facility: Facility, load: Load) -> dict[str, Any]:
    return facility.plant.loads[load.id].truth()


async def eventually(holds: Callable[[], Awaitable[bool]], within_s: float = 8.0) -> None:
    async with asyncio.timeout(within_s):
        while not await holds():  # noqa: ASYNC110 - physics has no event
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", KINDS)
async def test_sleep_and_wake_happen_and_are_read(
    facility: Facility, driver: AsicDriver, fleet: Fleet, kind: str
) -> None:
    load = fleet.next(kind)
    before = truth(facility, load)
    for verb, state, true_states in (
        (Verb.SLEEP, LoadState.ASLEEP, {"asleep"}),
        (Verb.WAKE, LoadState.ACTIVE, {"starting", "hashing"}),
    ):
        receipt = await driver.apply(load, command(load, verb), DEADLINE_S)
        assert isinstance(receipt, Receipt)
        assert (receipt.command_id, receipt.load_id, receipt.acked) == (f"{load.id}-{verb.value}", load.id, True)

        async def done(state: LoadState = state, true_states: set[str] = true_states) -> bool:
            telemetry = await driver.read(load, DEADLINE_S)
            # What is read never runs ahead of the truth.
            assert telemetry.state is not state or truth(facility, load)["state"] in true_states
            return telemetry.state is state

        await eventually(done)
    assert truth(facility, load)["pools"] == before["pools"]


async def test_watts_are_measured_by_a_whatsminer_only(driver: AsicDriver, fleet: Fleet, facility: Facility) -> None:
    whatsminer, antminer = fleet.next("wm"), fleet.next("am")
    reading = await driver.read(whatsminer, DEADLINE_S)
    assert reading.watts == pytest.approx(truth(facility, whatsminer)["watts"], rel=0.03)
    assert reading.limit_watts == 3276.0
    assert reading.th_per_s == pytest.approx(126.0, rel=0.05)
    reading = await driver.read(antminer, DEADLINE_S)
    assert (reading.watts, reading.limit_watts) == (None, None)
    assert reading.th_per_s == pytest.approx(95.0, rel=0.05)
    assert driver.capability(whatsminer).measures_watts
    assert driver.capability(whatsminer).fast
    assert not driver.capability(antminer).measures_watts
    assert not driver.capability(antminer).fast


async def test_power_goes_by_percentage_and_never_reboots(facility: Facility, driver: AsicDriver, fleet: Fleet) -> None:
    load = fleet.next("wm")
    boots = truth(facility, load)["boots"]
    receipt = await driver.apply(load, command(load, Verb.POWER, 2000.0), DEADLINE_S)
    assert receipt.acked

    async def lower() -> bool:
        watts = (await driver.read(load, DEADLINE_S)).watts
        return watts is not None and 1800.0 < watts <= 2020.0

    await eventually(lower)
    assert truth(facility, load)["boots"] == boots
    antminer = fleet.next("am")
    with pytest.raises(DeviceRefused):
        await driver.apply(antminer, command(antminer, Verb.POWER, 2000.0), DEADLINE_S)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_acknowledged_order_that_was_ignored_shows(
    facility: Facility, driver: AsicDriver, fleet: Fleet, kind: str
) -> None:
    load = fleet.next(kind)
    facility.set_fault(load.id, "ignore")
    assert (await driver.apply(load, command(load, Verb.SLEEP), DEADLINE_S)).acked
    await asyncio.sleep(0.6)
    reading = await driver.read(load, DEADLINE_S)
    assert reading.state is LoadState.ACTIVE
    assert reading.th_per_s is not None
    assert reading.th_per_s > 50.0
    facility.set_fault(load.id, "refuse")
    assert (await driver.apply(load, command(load, Verb.SLEEP), DEADLINE_S)).acked is False


@pytest.mark.parametrize("kind", KINDS)
async def test_every_failure_has_its_error(facility: Facility, driver: AsicDriver, fleet: Fleet, kind: str) -> None:
    load = fleet.next(kind)
    order = command(load, Verb.SLEEP)
    written: tuple[type[DeviceError], ...] = (DeviceGarbled, UnsafeWrite)
    expected: list[tuple[str, tuple[type[DeviceError], ...], tuple[type[DeviceError], ...]]] = [
        ("garbage", (DeviceGarbled,), written),
        ("wrong_shape", (DeviceGarbled,), written),
        ("truncated", (DeviceGarbled,), written),
        ("hang", (DeviceUnreachable,), (DeviceUnreachable,)),
        ("dead", (DeviceUnreachable,), (DeviceUnreachable,)),
    ]
    pools = truth(facility, load)["pools"]
    for fault, of_read, of_apply in expected:
        facility.set_fault(load.id, fault)
        for call, errors in ((driver.read(load, 0.5), of_read), (driver.apply(load, order, 0.5), of_apply)):
            began = time.monotonic()
            with pytest.raises(errors):
                await call
            assert time.monotonic() - began < 0.8
    assert truth(facility, load)["pools"] == pools


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrong_password_is_told_without_telling_it(
    facility: Facility, driver: AsicDriver, fleet: Fleet, kind: str
) -> None:
    load = fleet.next(kind)
    # A token from before the change must not hide it.
    assert (await driver.apply(load, command(load, Verb.WAKE), DEADLINE_S)).acked
    facility.set_fault(load.id, "wrong_password")
    with pytest.raises(CredentialsRejected) as caught:
        await driver.apply(load, command(load, Verb.SLEEP), DEADLINE_S)
    assert "admin" not in str(caught.value)
    assert truth(facility, load)["state"] == "hashing"
    facility.set_fault(load.id, "ok")
    assert (await driver.apply(load, command(load, Verb.SLEEP), DEADLINE_S)).acked


async def test_pools_survive_a_configuration_that_cannot_be_read(
    facility: Facility, driver: AsicDriver, fleet: Fleet
) -> None:
    load = fleet.next("am")
    pools = truth(facility, load)["pools"]
    facility.set_fault(load.id, "http500_config")
    for verb in (Verb.SLEEP, Verb.WAKE):
        with pytest.raises((UnsafeWrite, DeviceGarbled)):
            await driver.apply(load, command(load, verb), DEADLINE_S)
    assert truth(facility, load)["pools"] == pools
    assert truth(facility, load)["state"] == "hashing"
    reading = await driver.read(load, DEADLINE_S)
    assert reading.state is None, "without the mode the state is unknown"
    assert reading.th_per_s is not None


@pytest.mark.parametrize("kind", KINDS)
async def test_another_device_is_never_written_to(
    facility: Facility, driver: AsicDriver, fleet: Fleet, kind: str
) -> None:
    load, other = fleet.next(kind), fleet.next(kind)
    pinned = replace(load, identity=(await driver.identify(load, DEADLINE_S)).identity)
    assert (await driver.read(pinned, DEADLINE_S)).identity == pinned.identity
    swapped = replace(pinned, address=other.address)
    for call in (driver.read(swapped, DEADLINE_S), driver.apply(swapped, command(load, Verb.SLEEP), DEADLINE_S)):
        with pytest.raises(IdentityMismatch):
            await call
    async with aclosing(driver.watch([swapped], 0.5)) as readings:
        telemetry = await anext(readings)
    assert telemetry.fault is not None
    assert "IdentityMismatch" in telemetry.fault
    assert truth(facility, other)["state"] == "hashing"


async def test_a_pinned_class_is_verified(facility: Facility, driver: AsicDriver, fleet: Fleet) -> None:
    whatsminer, antminer = fleet.next("wm"), fleet.next("am")
    for load in (replace(antminer, bank="wm"), replace(whatsminer, bank="am")):
        with pytest.raises((IdentityMismatch, DeviceUnreachable)):
            await driver.identify(load, DEADLINE_S)


async def test_a_hanging_miner_delays_no_other(facility: Facility, driver: AsicDriver, fleet: Fleet) -> None:
    sick = [fleet.next("wm"), fleet.next("am")]
    well = [fleet.next("wm"), fleet.next("am")]
    for load in sick:
        facility.set_fault(load.id, "hang")
    before = open_descriptors()
    seen: dict[str, list[Telemetry]] = {load.id: [] for load in (*sick, *well)}
    async with aclosing(driver.watch([*sick, *well], 0.4)) as readings, asyncio.timeout(10.0):
        async for telemetry in readings:
            seen[telemetry.load_id].append(telemetry)
            enough = all(len(seen[load.id]) >= 8 for load in well)
            if enough and all(seen[load.id] for load in sick):
                break
    for load in well:
        assert all(telemetry.fault is None for telemetry in seen[load.id])
        gaps = [b.at - a.at for a, b in zip(seen[load.id], seen[load.id][1:], strict=False)]
        assert max(gaps) < 1.0
    for load in sick:
        for telemetry in seen[load.id]:
            assert telemetry.fault is not None
            assert (telemetry.watts, telemetry.state, telemetry.th_per_s) == (None, None, None)
        facility.set_fault(load.id, "ok")

    async def closed() -> bool:
        return not open_descriptors() - before

    await eventually(closed)


async def test_a_miner_that_comes_back_is_watched_again(facility: Facility, driver: AsicDriver, fleet: Fleet) -> None:
    load = fleet.next("wm")
    facility.set_fault(load.id, "hang")
    async with aclosing(driver.watch([load], 0.3)) as readings, asyncio.timeout(10.0):
        async for telemetry in readings:
            if telemetry.fault is not None:
                facility.set_fault(load.id, "ok")
            else:
                break


async def test_nothing_is_restored_and_nothing_else_can_be_asked(driver: AsicDriver, fleet: Fleet) -> None:
    load = fleet.next("wm")
    with pytest.raises(DeviceRefused):
        await driver.restore_defaults(load, DEADLINE_S)
    with pytest.raises(UnsafeWrite):
        await driver.apply(load, replace(command(load, Verb.SLEEP), verb="reboot"), DEADLINE_S)  # type: ignore[arg-type]
    with pytest.raises(UnsafeWrite):
        await driver.apply(load, replace(command(load, Verb.SLEEP), load_id="wm-099"), DEADLINE_S)


async def test_a_worker_that_dies_or_hangs_is_rebuilt(
    facility: Facility, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mullet_hardware.asic.process.SILENT_BEATS", 2)
    load = fleet.next("wm")
    async with opened(AsicDriver(context())) as driver, aclosing(driver.watch([load], 0.3)) as readings:
        assert (await anext(readings)).fault is None
        first = driver.worker_pids[0]
        facility.set_fault(load.id, "hang")
        pending = asyncio.ensure_future(driver.read(load, 20.0))
        await asyncio.sleep(0.1)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(DeviceUnreachable):
            await asyncio.wait_for(pending, 5.0)
        facility.set_fault(load.id, "ok")
        assert (await driver.read(load, 30.0)).state is LoadState.ACTIVE
        second = driver.worker_pids[0]
        assert second != first
        async with asyncio.timeout(20.0):
            async for telemetry in readings:
                if telemetry.fault is None:
                    break
        os.kill(second, signal.SIGSTOP)
        with pytest.raises(DeviceUnreachable):
            await driver.read(load, 15.0)
        assert (await driver.read(load, 30.0)).state is LoadState.ACTIVE
        assert second not in driver.worker_pids
    assert not any(is_alive(pid) for pid in (first, second))


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_an_unpinned_miner_is_identified_and_remembered(facility: Facility, fleet: Fleet, tmp_path: Path) -> None:
    load = replace(fleet.next("wm"), bank="found")
    file = tmp_path / "identities.json"
    options = {"found": {"identity_cache": str(file), "accept_default_password": True}}
    async with opened(AsicDriver(context(options))) as driver:
        assert driver.capability(load).steering is Steering.MONITOR
        assert (await driver.identify(load, 30.0)).model == "M50S_VH50"
        assert driver.capability(load).steering is Steering.CONTINUOUS
        assert (await driver.apply(load, command(load, Verb.SLEEP), DEADLINE_S)).acked
    assert json.loads(file.read_text())[load.address]["class"] == "whatsminer_v2"
    again = AsicDriver(context(options))
    async with opened(again):
        assert again.capability(load).steering is Steering.CONTINUOUS
        assert (await again.read(load, DEADLINE_S)).fault is None


async def test_credentials_are_named_and_a_default_password_may_be_barred(facility: Facility, fleet: Fleet) -> None:
    barred, named, absent = (replace(fleet.next("am"), bank=bank) for bank in ("barred", "named", "absent"))
    common = {"class": "antminer_modern", "web_port": 8080}
    options = {
        "barred": common,
        "named": {**common, "credential": "antminer", "workers": 2},
        "absent": {**common, "credential": "nowhere"},
    }
    async with opened(AsicDriver(context(options, {"antminer": "root"}))) as driver:
        assert len(driver.worker_pids) == 2
        assert (await driver.apply(named, command(named, Verb.SLEEP), DEADLINE_S)).acked
        assert driver.barred(named) is None
        assert driver.barred(absent) == "credential 'nowhere' is not provided"
        assert "accept_default_password" in str(driver.barred(barred))
        for load in (barred, absent):
            assert (await driver.read(load, DEADLINE_S)).state is LoadState.ACTIVE
            with pytest.raises(CredentialsRejected):
                await driver.apply(load, command(load, Verb.SLEEP), DEADLINE_S)
            assert truth(facility, load)["state"] == "hashing"


async def test_a_worker_ends_with_its_driver(tmp_path: Path) -> None:
    """A killed control process leaves no worker behind."""
    program = tmp_path / "daemon.py"
    program.write_text(DAEMON)
    daemon = await asyncio.create_subprocess_exec(sys.executable, str(program), stdout=asyncio.subprocess.PIPE)
    assert daemon.stdout is not None
    pid = int(await daemon.stdout.readline())
    assert is_alive(pid)
    daemon.kill()
    await daemon.communicate()

    async def ended() -> bool:
        return not is_alive(pid)

    await eventually(ended, 5.0)


async def test_a_black_hole_leaks_no_socket_in_the_worker(driver: AsicDriver, facility: Facility) -> None:
    pid = driver.worker_pids[0]

    def sockets() -> int:
        found = 0
        for name in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found += os.readlink(name).startswith("socket:")
            except FileNotFoundError:
                continue
        return found

    host = f"127.{facility.subnet}.9.1"
    with socket.socket() as hole:
        hole.bind((host, 4028))
        hole.listen(0)
        full = [socket.socket() for _ in range(3)]
        try:
            for filler in full:
                filler.setblocking(False)
                filler.connect_ex((host, 4028))
            load = miner("wm-100", address=host)
            before = sockets()
            for _ in range(10):
                with pytest.raises(DeviceUnreachable):
                    await driver.read(load, 0.1)

            async def closed() -> bool:
                return sockets() <= before

            await eventually(closed, 3.0)
        finally:
            for filler in full:
                filler.close()
