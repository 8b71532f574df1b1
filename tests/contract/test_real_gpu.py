"""The GPU driver over the machine's own NVML and GPU: skipped unless --real-gpu is given.

Needs only pytest, nvidia-ml-py and the source tree; without the project installed:
`PYTHONPATH=.:hardware:simulators python3 -m pytest -c /dev/null --rootdir . --real-gpu FILE`.
The limit that was found is put back whatever happens.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mullet.domain.command import Verb
from mullet.domain.load import Load
from mullet.ports import DriverContext, Identity
from mullet.testing.builders import command, gpu
from mullet.testing.virtual_time import VirtualClock
from mullet_hardware.gpu.driver import GpuDriver

pytestmark = pytest.mark.real_gpu

DEADLINE_S = 10.0
ROOT = Path(__file__).resolve().parents[2]
SOURCES = [str(ROOT), str(ROOT / "hardware"), str(ROOT / "simulators")]

ORDINARY_USER = """
import asyncio, os
from mullet.ports import DriverContext, NoPermission
from mullet.testing.builders import command, gpu
from mullet.testing.virtual_time import VirtualClock
from mullet_hardware.gpu import library
from mullet_hardware.gpu.driver import GpuDriver

# All code is loaded before the privileges go: nobody may be unable to read it. NVML itself is opened after.
loaded = library._copy_of_pynvml()
library._copy_of_pynvml = lambda: loaded
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

async def main():
    load = gpu("card-001", high_watts=2000.0)
    driver = GpuDriver(DriverContext(options={}, secret=lambda name: None, clock=VirtualClock()))
    await driver.open([load])
    try:
        telemetry = await driver.read(load, 10.0)
        print("limit", telemetry.limit_watts)
        # The limit already in force is asked for: even if it were accepted, nothing would change.
        await driver.apply(load, command(load, watts=telemetry.limit_watts), 10.0)
        print("accepted")
    except NoPermission as error:
        print("NoPermission", error)
    finally:
        await driver.close()

asyncio.run(main())
"""


@pytest.fixture
def load() -> Load:
    """The first GPU of this machine; the range is the GPU's own."""
    return gpu("card-001", low_watts=0.0, high_watts=2_000.0)


def context(tmp_path: Path) -> DriverContext:
    return DriverContext(
        options={"card": {"state_file": str(tmp_path / "defaults.json")}},
        secret=lambda name: None,
        clock=VirtualClock(),
    )


def test_the_card_identifies_itself_and_tells_watts_and_limit(load: Load, tmp_path: Path) -> None:
    asyncio.run(identify_and_read(load, tmp_path))


async def identify_and_read(load: Load, tmp_path: Path) -> None:
    driver = GpuDriver(context(tmp_path))
    await driver.open([load])
    try:
        identity = await driver.identify(load, DEADLINE_S)
        telemetry = await driver.read(load, DEADLINE_S)
    finally:
        await driver.close()
    assert isinstance(identity, Identity)
    assert str(identity.identity).startswith("GPU-")
    assert telemetry.identity == identity.identity
    assert telemetry.watts is not None
    assert 5.0 < telemetry.watts < 2_000.0
    assert telemetry.limit_watts is not None
    assert telemetry.celsius is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set a power limit")
def test_root_sets_a_limit_reads_it_back_and_restores_it(load: Load, tmp_path: Path) -> None:
    asyncio.run(set_and_restore(load, tmp_path))


async def set_and_restore(load: Load, tmp_path: Path) -> None:
    driver = GpuDriver(context(tmp_path))
    await driver.open([load])
    try:
        found = (await driver.read(load, DEADLINE_S)).limit_watts
        assert found is not None
        try:
            lowest = await driver.apply(load, command(load, Verb.SLEEP), DEADLINE_S)
            assert lowest.acked is True
            low = (await driver.read(load, DEADLINE_S)).limit_watts
            assert low is not None
            assert low < found
            asked = round((low + found) / 2.0)
            await driver.apply(load, command(load, watts=asked), DEADLINE_S)
            assert (await driver.read(load, DEADLINE_S)).limit_watts == pytest.approx(asked, abs=1.0)
            # Far above the range: the driver clamps to what the card allows.
            await driver.apply(load, command(load, watts=1e6), DEADLINE_S)
            most = (await driver.read(load, DEADLINE_S)).limit_watts
            assert most is not None
            assert asked < most < 2_000.0
        finally:
            await driver.restore_defaults(load, DEADLINE_S)
        assert (await driver.read(load, DEADLINE_S)).limit_watts == pytest.approx(found, abs=1.0)
    finally:
        await driver.close()


def test_an_ordinary_user_is_told_that_permission_is_missing() -> None:
    readable = {**os.environ, "PYTHONPATH": os.pathsep.join([*SOURCES, *[path for path in sys.path if path]])}
    done = subprocess.run(
        [sys.executable, "-c", ORDINARY_USER], env=readable, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "limit" in done.stdout
    assert "NoPermission" in done.stdout
