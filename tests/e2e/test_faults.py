"""Bad input and faults on the small facility: reported by name, counted at their worst, and nobody else waits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kit import ANTMINERS, MINERS, Daemon, FullDisk, Site, loads_of, run_mullet, wait_until

from mullet.cli.client import find_daemon
from mullet.control import record

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]

USUAL_PER_MWH, SPIKE_PER_MWH, LONG_S = 38.0, 900.0, 600.0
NOTICED_WITHIN_S = 8.0
GPU_WORST_W = 700.0
ANTMINER_DEADLINE_S = 3.0 * 1.5 + 3.0
WHATSMINER_DEADLINE_S = 4.0 * 1.5 + 3.0
TICK_S = 1.0
FRESH_S = 4.0
"""Devices are polled each second, and a poll may take as long as its deadline."""
METER_OF = {"site": 1, "hall-ai": 2, "hall-b": 3, "pdu-b1": 4}


class Live:
    """A site, the daemon on it, and the disk beneath its state; the tests of this module follow one another."""

    def __init__(self, running: Site, disk: FullDisk) -> None:
        self.site = running
        self.disk = disk
        self.simulator = running.simulator
        running.order_auto()
        self.daemon: Daemon = running.start()

    def decided(self, after: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Commands and outcomes of the decisions since a row."""
        commands: list[dict[str, Any]] = []
        outcomes: list[dict[str, Any]] = []
        for row in self.daemon.rows(record.DECISION, after=after):
            commands += [*row.body["decreases"], *row.body["increases"]]
            outcomes += row.body["outcomes"]
        return commands, outcomes

    def watts(self, circuit: str) -> float:
        """True watts through a circuit."""
        return float(self.simulator.ask(op="truth", circuit=circuit)["watts"])


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("faults")
    disk = FullDisk(folder / "state")
    try:
        running = Site(folder)
        try:
            found = Live(running, disk)
            running.wait_converged(found.daemon, quiet_s=3.0)
            yield found
        finally:
            running.close()
    finally:
        disk.close()


# Price


def check_no_price_is_zero(live: Live, after: int) -> None:
    for row in live.daemon.rows(record.PLAN, after=after):
        for interval in row.body["plan"]["intervals"]:
            price = interval["price_per_mwh"]
            assert math.isfinite(price), row.seq
            assert 0.0 < price <= USUAL_PER_MWH * 2.0, f"row {row.seq} plans with a price of {price}"


@pytest.mark.parametrize(
    ("fault", "words"),
    [("html", ""), ("500", "500"), ("nan", ""), ("x1000", "quarantined"), ("hang", "")],
)
def test_a_price_that_cannot_be_believed_is_left_out(live: Live, fault: str, words: str) -> None:
    after = live.daemon.last_seq()
    asked_at = time.time()
    live.simulator.server_fault("grid", "/price", fault)
    said = live.daemon.wait_alarm("feed/price", NOTICED_WITHIN_S, words)
    assert "price" in said
    assert live.daemon.status()["price_per_mwh"] == USUAL_PER_MWH
    live.simulator.server_fault("grid", "/price", "ok")
    live.daemon.wait_no_alarm("feed/price", NOTICED_WITHIN_S)
    assert live.daemon.status()["price_per_mwh"] == USUAL_PER_MWH
    check_no_price_is_zero(live, after)
    assert not loads_of(live.site.truth.requests(asked_at)) & {*MINERS, *ANTMINERS}, "miners moved for nothing"


@pytest.mark.parametrize("fault", ["gap", "stale"])
def test_where_the_feed_ends_the_ladder_goes_on(live: Live, fault: str) -> None:
    """The present interval is missing, or the page has not changed for so long that it tells nothing of the present."""
    after = live.daemon.last_seq()
    live.simulator.server_fault("grid", "/price", fault)

    def left_the_feed() -> bool:
        rungs = [row.body["request"]["forecast"]["price_rung"] for row in live.daemon.rows(record.PLAN, after=after)]
        return "feed/price" in live.daemon.alarms() or any(rung != "feed" for rung in rungs)

    try:
        live.daemon.wait(left_the_feed, 35.0, f"price {fault} is noticed")
        price = live.daemon.status()["price_per_mwh"]
        assert price is None or 0.0 < price <= USUAL_PER_MWH * 2.0
    finally:
        live.simulator.server_fault("grid", "/price", "ok")
    live.daemon.wait_no_alarm("feed/price", NOTICED_WITHIN_S)
    live.daemon.wait(lambda: live.daemon.status()["price_per_mwh"] == USUAL_PER_MWH, 10.0, "the feed is believed again")
    check_no_price_is_zero(live, after)


# GPUs


def test_a_lost_gpu_is_counted_at_its_worst_draw(live: Live) -> None:
    before_w = live.daemon.status()["circuits"]["hall-ai"]["sum_w"]
    live.simulator.fault("gpu-001", "lost")
    assert "gpu-001" in live.daemon.wait_alarm("loads/unread", NOTICED_WITHIN_S)
    row = live.daemon.loads()["gpu-001"]
    assert row["fault"]
    limit_w = max(other["limit_w"] for name, other in live.daemon.loads().items() if name in ("gpu-002", "gpu-003"))

    def counted() -> bool:
        return bool(live.daemon.status()["circuits"]["hall-ai"]["sum_w"] >= before_w + GPU_WORST_W - limit_w - 150.0)

    try:
        # Another load may be shed to make room for it; until then the sum says it.
        live.daemon.wait(lambda: counted() or live.decided(0)[0], 5.0, "it is counted")
        why = live.daemon.cli("why", "gpu-001")
        assert "worst draw" in why["rule"]
    finally:
        live.simulator.fault("gpu-001", "ok")
    live.daemon.wait_no_alarm("loads/unread", NOTICED_WITHIN_S)


def test_a_gpu_that_may_not_be_set_is_reported(live: Live) -> None:
    after = live.daemon.last_seq()
    live.simulator.fault("gpu-002", "no_permission")
    live.simulator.ask(op="event", kind="demand_step", service="code", requests_per_s=16.0)

    def refused() -> dict[str, Any] | None:
        outcomes = live.decided(after)[1]
        return next((o for o in outcomes if o["load_id"] == "gpu-002" and o["kind"] == "refused"), None)

    try:
        outcome = live.daemon.wait(refused, 20.0, "the refusal is an outcome")
        assert outcome is not None
        assert "ermission" in outcome["detail"], outcome
        assert "gpu-002" in live.daemon.wait_alarm("loads/failing", NOTICED_WITHIN_S)
        # The service gets its power from the others.
        live.daemon.wait(
            lambda: any(
                o["kind"] == "applied" and o["load_id"] in ("gpu-003", "gpu-004") for o in live.decided(after)[1]
            ),
            15.0,
            "the others are raised",
        )
    finally:
        live.simulator.fault("gpu-002", "ok")
        live.simulator.ask(op="event", kind="demand_step", service="code", requests_per_s=7.0)
    live.daemon.wait_no_alarm("loads/failing", 45.0)


# Miners


def order_shed(live: Live, watts: float, circuit: str) -> dict[str, Any]:
    """Order a shed by the API itself: faults begun just before are not noticed by a poll yet."""
    daemon = find_daemon(None, None, None, live.daemon.state)
    answer: dict[str, Any] = daemon.ask("POST", "shed", {"watts": watts, "circuit": circuit, "owner": "ops"})
    return answer


def settle(live: Live, after: int, load: str, within_s: float) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """The first command to a load since a row, and its outcomes, once it has a final one (or it cannot be read)."""

    def look() -> tuple[dict[str, Any] | None, list[dict[str, Any]]] | None:
        commands, outcomes = live.decided(after)
        command = next((item for item in commands if item["load_id"] == load), None)
        if command is None:
            # It was noticed before it could be asked: then it must be reported.
            return (None, []) if live.daemon.loads().get(load, {}).get("fault") else None
        its = [item for item in outcomes if item["command_id"] == command["id"]]
        return (command, its) if any(item["kind"] != "converging" for item in its) else None

    found = live.daemon.wait(look, within_s, f"{load} has come to an outcome")
    assert found is not None
    return found


def check_outcome(live: Live, after: int, load: str, deadline_s: float, kinds: set[str], acked: bool | None) -> None:
    command, outcomes = settle(live, after, load, deadline_s + 10.0)
    if command is None:
        return
    final = outcomes[-1]
    assert final["kind"] in kinds, final
    assert final["at"] - command["issued_at"] <= deadline_s + 2.5 * TICK_S, final
    if acked is not None:
        assert final["acked"] is acked, final


def test_dumb_miners_are_substituted_and_nobody_waits_for_them(live: Live) -> None:
    live.site.wait_converged(live.daemon, 60.0, quiet_s=2.0)
    rows = live.daemon.loads()
    running = [name for name in ANTMINERS if rows[name]["state"] == "active"]
    assert len(running) >= 4
    faults = dict(zip(running, ("hang", "garbage", "wrong_shape", "wrong_password"), strict=False))
    after, asked_at = live.daemon.last_seq(), time.time()
    for load, fault in faults.items():
        live.simulator.fault(load, fault)
    order = order_shed(live, 12_000.0, "hall-b")
    healthy = [name for name in rows if name not in ANTMINERS]
    try:
        stale: dict[str, float] = {}

        def relieved() -> bool:
            ages = {name: row["age_s"] for name, row in live.daemon.loads().items() if name in healthy}
            stale.update({name: age for name, age in ages.items() if age is None or age > FRESH_S})
            return live.watts("hall-b") <= float(order["ceiling_w"])

        live.daemon.wait(relieved, 40.0, "others have taken their place")
        assert not stale, f"waited for somebody else: {stale}"
        told = loads_of(live.site.truth.requests(asked_at))
        assert told & set(MINERS), "whatsminers of hall-b take the antminers' place"
        for load in faults:
            kinds = {"unreachable", "refused"}
            check_outcome(live, after, load, ANTMINER_DEADLINE_S, kinds, None)
        unread = set(live.daemon.status()["faults"])
        dumb = {load for load, fault in faults.items() if fault != "wrong_password"}
        assert dumb <= unread
    finally:
        for load in faults:
            live.simulator.fault(load, "ok")
        live.daemon.cli("release", order["id"], "--owner", "ops")
    live.daemon.wait_no_alarm("loads/unread", 20.0)


def test_refusing_and_lying_miners_are_found_out(live: Live) -> None:
    faults = {"wm-ai-001": ("refuse", False), "wm-ai-002": ("ignore", True), "wm-ai-003": ("wrong_password", None)}
    live.daemon.wait(
        lambda: all(live.daemon.loads()[name]["state"] == "active" for name in faults), 60.0, "they all hash"
    )
    live.site.wait_converged(live.daemon, 60.0, quiet_s=2.0)
    after = live.daemon.last_seq()
    for load, (fault, _) in faults.items():
        live.simulator.fault(load, fault)
    live.simulator.price(SPIKE_PER_MWH, LONG_S)
    try:
        for load, (_, acked) in faults.items():
            check_outcome(live, after, load, WHATSMINER_DEADLINE_S, {"refused", "unreachable"}, acked)
        assert live.daemon.wait_alarm("loads/failing", NOTICED_WITHIN_S)
        # What they still draw is counted.
        hall = live.daemon.status()["circuits"]["hall-ai"]
        assert hall["sum_w"] >= live.watts("hall-ai") * 0.98
        assert live.watts("hall-ai") > 9_000.0
    finally:
        for load in faults:
            live.simulator.fault(load, "ok")
    wait_until(lambda: live.simulator.states().get("asleep") == 18, 60.0, "once they can, they follow")


# Meters


def test_no_increase_beneath_a_meter_that_is_frozen_or_mad(live: Live) -> None:
    live.simulator.price(SPIKE_PER_MWH, LONG_S)
    wait_until(lambda: live.simulator.states().get("asleep") == 18, 40.0, "every miner sleeps")
    live.simulator.server_fault("modbus", METER_OF["pdu-b1"], "frozen")
    live.simulator.server_fault("modbus", METER_OF["hall-ai"], "nan")
    assert "m-pdu-b1" in live.daemon.wait_alarm("meter/m-pdu-b1", 2 * NOTICED_WITHIN_S)
    assert "m-hall-ai" in live.daemon.wait_alarm("meter/m-hall-ai", NOTICED_WITHIN_S)
    asked_at = time.time()
    live.simulator.price(USUAL_PER_MWH, LONG_S)
    for name in ("pdu-b1", "hall-ai"):
        circuit = live.daemon.status()["circuits"][name]
        assert circuit["meter"] == "bad"
        assert circuit["increases"] is False
        assert f"m-{name}" in circuit["why_not"]
        assert circuit["room_w"] <= 0.0
    # Miners that hang right at hall-b, whose meter is good, do wake.
    wait_until(lambda: loads_of(live.site.truth.requests(asked_at)) & set(ANTMINERS), 30.0, "others wake")
    time.sleep(3 * TICK_S)
    assert not loads_of(live.site.truth.requests(asked_at)) & set(MINERS)
    for name in ("pdu-b1", "hall-ai"):
        live.simulator.server_fault("modbus", METER_OF[name], "ok")
        live.daemon.wait_no_alarm(f"meter/m-{name}", NOTICED_WITHIN_S)
    wait_until(lambda: live.simulator.states().get("hashing", 0) >= 16, 60.0, "all miners that fit hash again")
    live.site.wait_converged(live.daemon, 60.0, quiet_s=2.0)


# The record


def test_disk_full_stops_increases_and_takes_miners_to_safety(live: Live) -> None:
    live.simulator.price(USUAL_PER_MWH, LONG_S)
    wait_until(lambda: live.simulator.states().get("hashing", 0) >= 10, 60.0, "miners hash")
    pid = live.daemon.process.pid
    live.disk.fill(pid)
    full_at = time.time()
    try:
        # Something to write: another price, at which every miner would still run.
        live.simulator.price(USUAL_PER_MWH - 3.0, LONG_S)
        said = live.daemon.wait_alarm("journal", 15.0)
        assert "increases stop" in said
        known_at = time.time()
        wait_until(lambda: live.simulator.states().get("asleep") == 18, 45.0, "every miner is at its fail-safe point")
        assert not [r for r in live.site.truth.requests(known_at + TICK_S) if r["verb"] == "wake"]
        for name, circuit in live.daemon.status()["circuits"].items():
            assert circuit["increases"] is False, name
            assert "journal" in circuit["why_not"], name
        assert full_at < known_at
    finally:
        live.disk.free(pid)
    # Something to write must come by: an order is tried at once.
    live.daemon.wait_no_alarm("journal", 15.0)
    back_at = time.time()
    wait_until(
        lambda: any(r["verb"] == "wake" for r in live.site.truth.requests(back_at - 2.0)), 45.0, "miners wake again"
    )


def test_record_is_whole_after_all(live: Live) -> None:
    assert live.daemon.end() == 0
    checks: list[Callable[[], tuple[int, str, str]]] = [
        lambda: run_mullet("journal", "verify", live.daemon.state, "--json"),
        lambda: run_mullet("journal", "replay", live.daemon.state, "--json"),
    ]
    for check in checks:
        code, out, errors = check()
        assert code == 0, errors + out[-2000:]
