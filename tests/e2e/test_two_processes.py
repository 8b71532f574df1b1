"""`mullet simulate` and `mullet run` as two processes over sockets, and the operator's commands against them."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest
from kit import ANTMINERS, MINERS, Daemon, Site, loads_of, run_mullet, site, stays, wait_until

from mullet.control import record

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]

ONE_TICK_S = 1.0
SLACK_S = 1.5
"""For the API, the command line and this test's own look."""
SPIKE_PER_MWH, USUAL_PER_MWH, LONG_S = 900.0, 38.0, 600.0
ALL = [*MINERS, *ANTMINERS]


class Live:
    """A site and the daemon on it; the tests of this module follow one another on them."""

    def __init__(self, running: Site) -> None:
        self.site = running
        self.daemon: Daemon = running.start()
        self.daemon.wait_ready()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with site(tmp_path_factory.mktemp("live")) as running:
        yield Live(running)


def refuse(live: Live, *arguments: str) -> str:
    """Run a command that must be refused; what it said."""
    code, out, errors = run_mullet(*arguments, "--json", "--state", str(live.daemon.state))
    assert code != 0, out
    return errors + out


def test_a_facility_never_started_before_is_only_observed(live: Live) -> None:
    status = live.daemon.cli("status")
    assert status["mode"] == "observe"
    assert status["loads"] == {"miners": 18, "gpus": 4}
    # A price at which no miner should run changes nothing.
    live.site.simulator.price(SPIKE_PER_MWH, LONG_S)
    live.daemon.wait(lambda: live.daemon.status()["price_per_mwh"] == SPIKE_PER_MWH, 10.0, "the price is seen")
    stays(lambda: not live.site.truth.requests(), 3.0, "nothing is sent in mode observe")
    assert live.site.truth.changes(time.time() - 3.0) == []
    assert live.daemon.rows(record.ADVICE) == []


def test_mode_advise_says_what_it_would_do_and_does_nothing(live: Live) -> None:
    assert live.daemon.cli("mode", "advise", "--owner", "ops")["asked"] == "advise"
    rows = live.daemon.wait(lambda: live.daemon.rows(record.ADVICE), 10.0, "an advice is on record")
    advised = {command["load_id"] for row in rows for command in row.body["decreases"]}
    assert set(MINERS) <= advised
    stays(lambda: not live.site.truth.requests(), 2.0, "nothing is sent in mode advise")
    assert live.daemon.status()["mode"] == "advise"
    decided = [row for row in live.daemon.rows(record.DECISION) if row.body["decreases"] or row.body["increases"]]
    assert decided == []


def test_hold_is_honoured_from_the_next_tick_on(live: Live) -> None:
    held = "wm-b-001"
    asked_at = time.time()
    hold = live.daemon.cli("hold", held, "--on", "--reason", "being measured", "--owner", "ann")
    live.daemon.wait(
        lambda: hold["id"] in [item["id"] for item in live.daemon.status()["holds"]],
        ONE_TICK_S + SLACK_S,
        "the hold stands",
    )
    assert held not in loads_of(live.site.truth.requests(asked_at))
    # Mode auto at once, and the price says: everything off. Everything but what is held.
    live.daemon.cli("mode", "auto", "--owner", "ops")
    wait_until(lambda: live.site.simulator.states().get("asleep") == len(ALL) - 1, 40.0, "all others sleep")
    assert held not in loads_of(live.site.truth.requests())
    why = live.daemon.cli("why", held)
    assert why["hold"] == {"kind": "on", "owner": "ann", "reason": "being measured"}
    assert "hold" in why["rule"] or "held" in why["rule"]
    assert "ann" in refuse(live, "release", hold["id"], "--owner", "bob")
    released_at = time.time()
    live.daemon.cli("release", hold["id"], "--owner", "ann")
    wait_until(lambda: held in loads_of(live.site.truth.requests(released_at)), 10.0, "it is told to sleep as well")
    wait_until(lambda: live.site.simulator.states().get("asleep") == len(ALL), 20.0, "every miner sleeps")


def test_why_names_price_and_limit(live: Live) -> None:
    why = live.daemon.cli("why", "wm-ai-001")
    assert why["inputs"]["price_per_mwh"] == SPIKE_PER_MWH
    assert why["setpoint"]["point"] == "off"
    assert "break-even" in why["rule"]
    circuit = live.daemon.cli("why", "hall-b")
    assert circuit["limit_w"] == 42_000.0
    assert "hall-b" in refuse(live, "why", "hall-bb")


def test_miners_come_back_and_a_shed_order_takes_them_off_again(live: Live) -> None:
    live.site.simulator.price(USUAL_PER_MWH, LONG_S)
    wait_until(lambda: live.site.simulator.states().get("hashing", 0) >= 15, 60.0, "miners hash again")
    live.site.wait_converged(live.daemon, 60.0, quiet_s=2.0)
    counted_w = live.daemon.status()["circuits"]["site"]["sum_w"]
    asked_at = time.time()
    order = live.daemon.cli("shed", "0.012", "--owner", "ops")
    assert order["asked_w"] == 12_000.0
    assert order["ceiling_w"] < counted_w - 11_000.0

    def is_shed() -> bool:
        return float(live.site.simulator.ask(op="truth", circuit="site")["watts"]) <= float(order["ceiling_w"])

    wait_until(is_shed, 20.0, "the site draws no more than was ordered")
    # GPUs go on following their own demand meanwhile; what the order itself took off is mining alone.
    by_order = {
        command["load_id"]
        for row in live.daemon.rows(record.DECISION)
        for command in row.body["decreases"]
        if command["cause"] == "emergency" and command["issued_at"] >= asked_at
    }
    assert by_order
    assert by_order <= set(ALL), "inference is not shed"
    assert set(order["first_loads"]) & by_order & loads_of(live.site.truth.requests(asked_at))
    stays(is_shed, 3.0, "the site draws no more than was ordered")
    live.daemon.cli("release", order["id"], "--owner", "ops")
    live.daemon.wait(lambda: not live.daemon.status()["curtailments"], 5.0, "the order has ended")


def test_an_invalid_policy_is_refused_whole(live: Live) -> None:
    good = live.site.policy.read_text()
    facility = live.daemon.rows(record.FACILITY)
    live.site.policy.write_text(good.replace("rating: 75 kW", "rating: 75").replace("tick: 1 s", "tock: 1 s"))
    said = refuse(live, "reload")
    assert "rating" in said
    assert "tock" in said
    assert "refused" in live.daemon.wait_alarm("policy", 5.0)
    # By signal as well; the daemon lives and keeps the old one.
    live.daemon.process.send(signal.SIGHUP)
    live.daemon.wait(lambda: live.daemon.process.said().count("policy not reloaded") >= 1, 10.0, "it says why not")
    assert live.daemon.rows(record.FACILITY) == facility
    assert live.daemon.rows(record.RELOAD) == []
    assert live.daemon.status()["circuits"]["site"]["limit_w"] == 60_000.0
    live.site.policy.write_text(good)


def test_a_valid_change_is_adopted_at_once_and_journalled(live: Live) -> None:
    old = live.daemon.rows(record.FACILITY)[-1]
    live.site.write_policy(lambda text: text.replace("rating: 52.5 kW", "rating: 50 kW"))
    live.daemon.process.send(signal.SIGHUP)
    live.daemon.wait(lambda: live.daemon.status()["circuits"]["hall-b"]["limit_w"] == 40_000.0, 15.0, "adopted")
    assert "policy" not in live.daemon.alarms()
    facility = live.daemon.rows(record.FACILITY)[-1]
    reloaded = live.daemon.rows(record.RELOAD)
    assert len(reloaded) == 1
    assert facility.seq == reloaded[0].seq + 1
    assert facility.body["policy_hash"] == reloaded[0].body["policy_hash"] != old.body["policy_hash"]
    assert any("hall-b" in change for change in reloaded[0].body["changes"])


def test_a_removed_bank_is_left_as_it_is(live: Live) -> None:
    def without_antminers(text: str) -> str:
        start = text.index("  - id: am-b\n")
        return text[:start] + text[text.index("  - id: gpu\n") :]

    live.site.wait_converged(live.daemon, 60.0, quiet_s=3.0)
    before_at = time.time()
    live.site.write_policy(without_antminers)
    answer = live.daemon.cli("reload")
    assert answer["reloaded"] is True
    assert any("am-b" in change for change in answer["changes"])
    live.daemon.wait(lambda: live.daemon.status()["loads"]["miners"] == 12, 10.0, "the bank is gone")
    live.daemon.wait(lambda: live.daemon.status()["ready"], 10.0, "control goes on")
    # Even at a price at which every miner is told to sleep.
    live.site.simulator.price(SPIKE_PER_MWH, LONG_S)
    wait_until(lambda: set(MINERS) <= loads_of(live.site.truth.requests(before_at)), 30.0, "the others are told")
    touched = {item["load"] for item in live.site.truth.changes(before_at)} | loads_of(
        live.site.truth.requests(before_at)
    )
    assert not touched & set(ANTMINERS)


def test_record_is_whole_and_the_end_leaves_devices_alone(live: Live) -> None:
    live.site.wait_converged(live.daemon, 60.0, quiet_s=3.0)
    ended_at = time.time()
    assert live.daemon.end() == 0
    stays(lambda: not live.site.truth.requests(ended_at), 1.5, "nothing is asked by ending")
    assert live.site.truth.changes(ended_at) == []
    for check in ("verify", "replay"):
        code, out, errors = run_mullet("journal", check, live.daemon.state, "--json")
        assert code == 0, errors + out
