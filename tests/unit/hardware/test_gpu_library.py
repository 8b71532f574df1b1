"""Copies of nvidia-ml-py: one per library in use, handed on by one that is left, so that reloads cost no memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from mullet.domain.load import Load
from mullet.ports import DeviceUnreachable, DriverContext
from mullet.testing.builders import gpu
from mullet.testing.virtual_time import ManualClock
from mullet_hardware.gpu import library
from mullet_hardware.gpu.driver import GpuDriver
from mullet_hardware.gpu.library import NvmlLibrary


class StandIn:
    """An NVML whose functions all succeed."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda *arguments: 0


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "find_library", StandIn)


def started(address: str) -> NvmlLibrary:
    one = NvmlLibrary(f"fake:{address}")
    one.start()
    return one


def left(one: NvmlLibrary) -> Any:
    """Stop and release; return the copy that it had."""
    module = one.nvml
    one.stop()
    one.release()
    return module


def test_two_in_use_have_a_copy_each_and_one_that_is_left_is_handed_on() -> None:
    first, second = started("a"), started("b")
    assert first.nvml is not second.nvml
    assert (first.nvml.nvmlLib.address, second.nvml.nvmlLib.address) == ("fake:a", "fake:b")
    copies = {id(left(first)), id(left(second))}
    for _ in range(5):
        third, fourth = started("c"), started("d")
        assert third.nvml.nvmlLib.address == "fake:c"
        assert {id(third.nvml), id(fourth.nvml)} == copies
        assert {id(left(fourth)), id(left(third))} == copies


def test_what_was_not_stopped_is_not_handed_on() -> None:
    first = started("a")
    module = first.nvml
    first.release()
    second = started("b")
    assert second.nvml is not module
    left(second)


LOADS = [gpu("gpus-001", "pdu")]


def driver() -> GpuDriver:
    return GpuDriver(DriverContext({"gpus": {"nvml_library": "fake:x"}}, lambda name: None, ManualClock()))


def copy_of(opened: GpuDriver) -> Any:
    return opened._libraries["fake:x"].nvml


async def test_a_reload_takes_turns_between_two_copies() -> None:
    old = driver()
    await old.open(LOADS)
    copies = []
    for _ in range(6):
        new = driver()
        await new.open(LOADS)
        copies.append(id(copy_of(new)))
        await old.close()
        old = new
    await old.close()
    assert len(set(copies)) == 2


async def test_a_copy_in_which_a_thread_hangs_is_not_handed_on() -> None:
    gate = threading.Event()
    opened = driver()
    try:
        lane = _lane(opened, LOADS[0])
        with pytest.raises(DeviceUnreachable, match="hangs"):
            await lane.call(lambda alive: (started_in(opened), gate.wait()), 0.2)
        module = copy_of(opened)
        await opened.close()
        other = started("y")
        assert other.nvml is not module
        left(other)
    finally:
        gate.set()


def _lane(opened: GpuDriver, load: Load) -> Any:
    opened._open = True
    return opened._gpu(load)[1]


def started_in(opened: GpuDriver) -> None:
    opened._libraries["fake:x"].start()
