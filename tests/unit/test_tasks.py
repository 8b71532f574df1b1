"""Tasks end, whatever a library beneath them does with a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from mullet.tasks import CANCEL_AGAIN_S, end_tasks, honour_cancellation
from mullet.testing.virtual_time import VirtualClock, in_virtual_time


@in_virtual_time
async def test_one_that_swallows_a_cancellation_is_cancelled_again_and_an_orderly_end_is_not_cut_short() -> None:
    clock, said = VirtualClock(), []

    async def stubborn() -> None:
        for _ in range(2):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                said.append(("swallowed", clock.monotonic() - began))
        await asyncio.Event().wait()

    async def orderly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await clock.sleep(CANCEL_AGAIN_S - 0.5)
            said.append(("orderly", clock.monotonic() - began))

    async def failing() -> None:
        raise OSError("gone")

    tasks = [asyncio.create_task(work()) for work in (stubborn, orderly, failing)]
    await clock.sleep(1.0)
    began = clock.monotonic()
    await end_tasks(tasks)
    assert all(task.done() for task in tasks)
    assert [word for word, _ in said] == ["swallowed", "orderly", "swallowed"]
    assert [at for _, at in said] == pytest.approx([0.0, CANCEL_AGAIN_S - 0.5, CANCEL_AGAIN_S], abs=0.01)
    assert clock.monotonic() - began == pytest.approx(2.0 * CANCEL_AGAIN_S, abs=0.01)
    await end_tasks([])


async def test_a_swallowed_cancellation_is_raised_after_all() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    went_on = []

    async def ask() -> None:
        try:
            await future
        except asyncio.CancelledError:
            went_on.append("swallowed")
        honour_cancellation()
        went_on.append("went on")

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert went_on == ["swallowed"]
    honour_cancellation()
