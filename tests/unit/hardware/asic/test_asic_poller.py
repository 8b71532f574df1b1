"""Polling: who hangs is moved aside, who answers is never delayed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mullet.ports import DeviceGarbled
from mullet_hardware.asic import poller as poller_module
from mullet_hardware.asic.poller import Lane, Poller
from mullet_hardware.asic.protocol import Reading, Target


class FakeFleet:
    """Devices by address: silent, garbling, or answering at once."""

    def __init__(self) -> None:
        self.silent: set[str] = set()
        self.garbling: set[str] = set()
        self.polls: dict[str, int] = {}

    def access(self, target: Target) -> Any:
        return SimpleNamespace(rpc_port=1)

    async def device(self, target: Target) -> Any:
        async def poll() -> Reading:
            self.polls[target.address] = self.polls.get(target.address, 0) + 1
            if target.address in self.silent:
                await asyncio.sleep(60.0)
            if target.address in self.garbling:
                raise DeviceGarbled("no JSON")
            return Reading(th_per_s=1.0)

        return SimpleNamespace(poll=poll)


@asynccontextmanager
async def polling(fleet: FakeFleet, count: int, period_s: float, slots: int) -> AsyncIterator[dict[str, list[Any]]]:
    rows: dict[str, list[Any]] = {}
    targets = [Target(f"m-{k}", "b", f"127.0.0.{k}", None, 1.0) for k in range(1, count + 1)]
    fast, slow = Lane(slots, 0.05), Lane(2, None)

    def emit(row: list[Any]) -> None:
        rows.setdefault(row[0], []).append(row)

    run = Poller(cast(Any, fleet), fast, slow, targets, period_s, emit).run()
    task = asyncio.ensure_future(run)
    try:
        yield rows
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Any, within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - rows have no event
            await asyncio.sleep(0.01)


async def test_the_hung_hold_no_slot_and_delay_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "SLOW_DEADLINE_S", 0.3)
    fleet = FakeFleet()
    fleet.silent = {f"127.0.0.{k}" for k in range(1, 9)}
    async with polling(fleet, 12, 0.3, slots=2) as rows:
        well = [f"m-{k}" for k in range(9, 13)]
        await until(lambda: all(len(rows.get(name, [])) >= 6 for name in well))
        for name in well:
            answered = [row[1] for row in rows[name]]
            assert all(row[-1] is None for row in rows[name])
            assert max(b - a for a, b in itertools.pairwise(answered)) < 0.9
        await until(lambda: all(f"m-{k}" in rows for k in range(1, 9)))
        for k in range(1, 9):
            for row in rows[f"m-{k}"]:
                assert "DeviceUnreachable" in row[-1]
                assert row[2:8] == [None] * 6


async def test_who_comes_back_is_read_at_its_period_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "BACKOFF_MOST_S", 0.2)
    fleet = FakeFleet()
    fleet.silent = {"127.0.0.1"}
    async with polling(fleet, 1, 0.1, slots=2) as rows:
        await until(lambda: rows.get("m-1"))
        fleet.silent = set()
        # The slow lane's long deadline is still running for the last try.
        monkeypatch.setattr(poller_module, "SLOW_DEADLINE_S", 0.2)
        await until(lambda: sum(row[-1] is None for row in rows["m-1"]) >= 3, 8.0)


async def test_who_answers_nonsense_is_told_every_period() -> None:
    fleet = FakeFleet()
    fleet.garbling = {"127.0.0.1"}
    async with polling(fleet, 1, 0.1, slots=2) as rows:
        await until(lambda: len(rows.get("m-1", [])) >= 4, 2.0)
        assert all("DeviceGarbled" in row[-1] for row in rows["m-1"])
