"""Killed at any instant and started again: control is back at once, and no device notices (R10)."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from kit import Daemon, Site, run_mullet, services_at, site, stays, wait_until, write_scenario

from mullet.control import record

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    # The stories run side by side, each in a thread; each ends the processes that it started.
    pytest.mark.leaves_open,
]

CONTROL_WITHIN_S = 10.0
QUIET_S = 10.0
CALM_PER_S = 3.0
"""Requests per second that the GPUs serve at their lowest limits, however they happen to bunch."""
SPIKE_PER_MWH = 900.0
KILL_AFTER_S = (0.3, 1.7, 4.0)
"""Seconds from the news of a price spike to the kill: before, while and after commands are on their way."""


def restart(running: Site, daemon: Daemon) -> Daemon:
    """kill -9, start again, and wait for control; all that is left of the old one must go by itself."""
    daemon.process.end(signal.SIGKILL)
    again = running.start()
    took_s = again.wait_ready()
    assert took_s <= CONTROL_WITHIN_S, f"control after {took_s:.1f} s"
    return again


def check_record(daemon: Daemon, starts: int) -> None:
    """The chain is whole, each start is an epoch of its own, numbers go on, and every decision can be replayed."""
    code, out, errors = run_mullet("journal", "verify", daemon.state, "--json")
    assert code == 0, errors
    assert json.loads(out)["ok"] is True
    epochs = [row.body["epoch"] for row in daemon.rows(record.START)]
    assert len(epochs) == starts
    assert epochs == sorted(set(epochs)), f"epochs do not rise: {epochs}"
    commands = [
        (command["epoch"], command["seq"], command["id"])
        for row in daemon.rows(record.DECISION)
        for command in (*row.body["decreases"], *row.body["increases"])
    ]
    numbers = [seq for _, seq, _ in commands]
    assert numbers == sorted(set(numbers)), f"sequence numbers do not go on: {numbers}"
    assert [epoch for epoch, _, _ in commands] == sorted(epoch for epoch, _, _ in commands)
    assert len({name for _, _, name in commands}) == len(commands)
    code, out, errors = run_mullet("journal", "replay", daemon.state, "--json")
    assert code == 0, errors + out


def stay_quiet(running: Site) -> None:
    """Killed and ended while all stands as it should: nothing is asked of any device, before or after."""
    daemon = running.start()
    daemon.wait_ready()
    daemon.wait(lambda: daemon.status()["services"]["code"]["need_w"] is not None, 30.0, "the demand is known")
    running.wait_converged(daemon)
    hold = daemon.cli("hold", "wm-b-002", "--on", "--reason", "kept for a test", "--owner", "ops")
    mode = daemon.status()["mode"]
    running.wait_converged(daemon)

    killed_at = time.time()
    daemon = restart(running, daemon)
    stays(lambda: not running.truth.requests(killed_at), QUIET_S, "no device is asked for anything")
    assert running.truth.changes(killed_at) == []
    assert daemon.status()["mode"] == mode == "auto"
    assert [item["id"] for item in daemon.status()["holds"]] == [hold["id"]]
    assert daemon.loads()["wm-b-002"]["state"] == "active"

    # A graceful end leaves everything as it is as well, and so does the start after it.
    ended_at = time.time()
    assert daemon.end() == 0
    daemon = running.start()
    daemon.wait_ready()
    stays(lambda: not running.truth.requests(ended_at), QUIET_S / 2, "no device is asked for anything")
    assert running.truth.changes(ended_at) == []
    assert [item["id"] for item in daemon.status()["holds"]] == [hold["id"]]
    check_record(daemon, starts=3)


def finish_a_shed(running: Site) -> None:
    """Killed at several instants of a shed; the facility must get there all the same, and never back and forth."""
    daemon = running.start()
    running.wait_converged(daemon)
    began_at = time.time()
    # Until far beyond this test: the facility has one way to go, down, however often the daemon dies.
    running.simulator.price(SPIKE_PER_MWH, 600.0)
    for starts, after_s in enumerate(KILL_AFTER_S, start=2):
        daemon.wait(lambda d=daemon: d.status().get("price_per_mwh") == SPIKE_PER_MWH, 10.0, "the spike is seen")  # type: ignore[misc]
        time.sleep(after_s)
        killed_at = time.time()
        daemon.process.end(signal.SIGKILL)
        # Devices finish what they were told; none of them starts anything by itself.
        told = {item["load"] for item in running.truth.requests(began_at)}
        between = running.truth.changes(killed_at)
        assert {item["load"] for item in between} <= told
        assert not [item for item in between if item.get("state") in ("starting", "hashing")]
        daemon = running.start()
        took_s = daemon.wait_ready()
        assert took_s <= CONTROL_WITHIN_S, f"start {starts}: control after {took_s:.1f} s"
    wait_until(lambda: running.simulator.states().get("asleep") == 18, 60.0, "every miner sleeps")
    running.wait_converged(daemon)
    requests = running.truth.requests(began_at)
    miners = [item for item in requests if item["load"].startswith(("wm-", "am-"))]
    assert not [item for item in running.truth.changes(began_at) if item.get("state") in ("starting", "hashing")]
    # A command may be repeated by a daemon that does not know whether it arrived, once for each time it was killed.
    counts = {load: sum(1 for item in miners if item["load"] == load) for load in {item["load"] for item in miners}}
    assert all(count <= 2 * (1 + len(KILL_AFTER_S)) for count in counts.values()), counts
    check_record(daemon, starts=1 + len(KILL_AFTER_S))


@dataclass(frozen=True)
class Stories:
    """Stories that run side by side, each on a site of its own."""

    quiet: Future[None]
    shed: Future[None]


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stories]:
    def tell(story: Callable[[Site], None]) -> None:
        folder = tmp_path_factory.mktemp(story.__name__)
        with site(folder, write_scenario(folder / "calm.yaml", services=services_at(CALM_PER_S))) as running:
            running.order_auto()
            story(running)

    with ThreadPoolExecutor(2) as pool:
        quiet = pool.submit(tell, stay_quiet)
        # Two simulators look for a free network one after the other.
        time.sleep(1.5)
        yield Stories(quiet, pool.submit(tell, finish_a_shed))


def test_nothing_is_asked_of_any_device_when_all_stands_as_it_should(stories: Stories) -> None:
    stories.quiet.result()


def test_killed_while_commands_are_on_their_way(stories: Stories) -> None:
    stories.shed.result()
