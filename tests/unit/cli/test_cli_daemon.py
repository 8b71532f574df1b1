"""Commands to a running daemon, over its real HTTP API."""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_kit import Desk, answering, run, running_api, write_note

from mullet.cli.operate import watts_of
from mullet.domain.facility import Mode
from mullet.domain.snapshot import HoldKind
from mullet.domain.units import QuantityError


def test_status_tells_people_what_stands_and_what_is_wrong(desk: Desk) -> None:
    result = run("status")
    assert result.exit_code == 0
    assert "small  observe" in result.stdout
    assert "55 kW (miners 52 kW, GPUs 3 kW)" in result.stdout
    assert "price unknown" in result.stdout
    assert "no: records cannot be written" in result.stdout
    assert "hold hold-1: wm-a-002 off by ann: fan" in result.stdout
    assert "ALARM journal: disk full" in result.stdout


def test_status_tells_programs_all_of_it(desk: Desk) -> None:
    result = run("status", "--json")
    assert json.loads(result.stdout)["headroom_w"] == 20_000.0
    assert result.stderr == ""


def test_loads_and_fleet(desk: Desk) -> None:
    rows = json.loads(run("status", "--loads", "--json").stdout)
    assert [row["id"] for row in rows] == ["wm-a-001", "wm-a-002"]
    banks = json.loads(run("status", "--fleet", "--json").stdout)
    assert banks["wm-a"]["states"] == {"active": 1, "unknown": 1}
    assert (banks["wm-a"]["watts"], banks["wm-a"]["unmeasured"]) == (3_300.0, 1)
    assert "no answer; pending" in run("status", "--loads").stdout
    assert banks["wm-a"]["far"] == {"wm-a-002": "hashes 80.0 TH/s, its group 105.0"}
    (make,) = banks["wm-a"]["makes"]
    assert (make["make"], make["loads"], make["unmeasured"]) == ("M50S / whatsminer_v2", 2, 1)
    assert make["learned"]["points"][0]["watts"] == 3_150.0
    told = run("status", "--fleet").stdout
    assert "1 active, 1 unknown" in told
    row = next(line for line in told.splitlines() if "full" in line)
    make = ["wm-a", "M50S", "/", "whatsminer_v2"]
    assert row.split() == [*make, "full", "3.3", "kW", "3.15", "kW", "3.21", "kW", "105.0", "30.0", "2", "40"]
    assert "wm-a (M50S / whatsminer_v2): ramp down p50 1.8 s, p95 2.9 s of 21; ramp up not measured yet" in told
    assert "planned by what was measured" in told
    assert "far wm-a-002: hashes 80.0 TH/s, its group 105.0" in told
    assert banks["wm-a"]["makes"][0]["ailing"] == {"wm-a-001": "2 of 3 boards work"}
    assert "ailing wm-a-001: 2 of 3 boards work" in told
    assert "not in order: 2 of 3 boards work" in run("status", "--loads").stdout
    assert run("status", "--fleet", "--loads").exit_code == 2


def test_why_tells_unknown_from_none(desk: Desk) -> None:
    result = run("why", "wm-a-001")
    assert result.exit_code == 0
    assert "rule: on: margin 57 USD/MWh" in result.stdout
    assert "watts: unknown" in result.stdout
    assert "fault: none" in result.stdout


def test_why_of_nothing_names_what_is_near(desk: Desk) -> None:
    result = run("why", "wm-a-01")
    assert result.exit_code == 2
    assert (
        result.stderr == "mullet: the daemon refuses: no load or circuit is called 'wm-a-01'; near matches: wm-a-001\n"
    )


def test_orders_reach_the_desk_with_owner_and_unit(desk: Desk) -> None:
    login = getpass.getuser()
    assert run("shed", "2.5").exit_code == 0
    assert run("shed", "500 kW", "--circuit", "pdu-a", "--owner", "ann").exit_code == 0
    assert run("hold", "wm-a-001", "--off", "--reason", "fan swap").exit_code == 0
    assert run("hold", "pdu-a", "--on", "--reason", "test", "--owner", "ann").exit_code == 0
    assert run("release", "hold-1", "--owner", "ann").exit_code == 0
    assert run("mode", "auto").exit_code == 0
    assert desk.asked == [
        ("shed", 2_500_000.0, None, login),
        ("shed", 500_000.0, "pdu-a", "ann"),
        ("hold", "wm-a-001", HoldKind.OFF, login, "fan swap"),
        ("hold", "pdu-a", HoldKind.ON, "ann", "test"),
        ("release", "hold-1", "ann"),
        ("mode", Mode.AUTO, login),
    ]


def test_orders_say_how_to_end_them(desk: Desk) -> None:
    assert "mullet release shed-1" in run("shed", "1").stdout
    assert "mullet release hold-1" in run("hold", "pdu-a", "--on", "--reason", "x").stdout
    assert json.loads(run("shed", "1", "--json").stdout)["id"] == "shed-1"


def test_a_refused_order_is_one_line_and_no(desk: Desk) -> None:
    result = run("release", "hold-1", "--owner", "bob")
    assert result.exit_code == 1
    assert result.stderr == "mullet: the daemon refuses: hold-1 was placed by ann; only its owner releases it\n"
    assert run("restore", "held").exit_code == 1


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "5 USD", "much", "1 h"])
def test_what_is_no_power_is_not_sent(desk: Desk, text: str) -> None:
    assert run("shed", "--", text).exit_code == 2
    assert desk.asked == []


def test_watts_of_a_bare_number_are_megawatts() -> None:
    assert watts_of("2.5") == 2_500_000.0
    assert watts_of("500 kW") == 500_000.0
    with pytest.raises(QuantityError):
        watts_of("0 kW")


@pytest.mark.parametrize(
    "arguments", [("mode", "sleep"), ("hold", "x", "--reason", "y"), ("hold", "x", "--on"), ("nonsense",)]
)
def test_usage_is_code_2(desk: Desk, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
    assert desk.asked == []


def test_reload_tells_what_changed(desk: Desk) -> None:
    result = run("reload")
    assert result.exit_code == 0
    assert "circuits[poi].limit: 80 kW -> 90 kW (raises a limit)" in result.stdout
    assert "Reloaded: 1 change" in result.stdout


def test_a_bad_policy_is_not_reloaded_and_every_problem_is_told(desk: Desk) -> None:
    desk.reload_error = "site.yaml:9:13: circuits[0].rating: no unit\nsite.yaml:14:20: banks[0].worst: too low"
    result = run("reload")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[:2] == desk.reload_error.splitlines()
    assert "the old policy stays" in result.stderr
    told = json.loads(run("reload", "--json").stdout)
    assert told == {"reloaded": False, "problems": desk.reload_error.splitlines()}


@pytest.mark.parametrize(("acked", "code", "word"), [(True, 0, "done"), (False, 1, "refused"), (None, 1, "no answer")])
def test_restore_tells_what_the_device_answered(desk: Desk, acked: bool | None, code: int, word: str) -> None:
    desk.acked = acked
    result = run("restore", "gpu-001")
    assert result.exit_code == code
    assert result.stdout == f"gpu-001: {word}: set 700 W\n"


def test_without_a_daemon_the_places_searched_are_named(home: Path) -> None:
    result = run("status")
    assert result.exit_code == 2
    assert str(home / "mullet") in result.stderr


def test_a_dead_daemons_note_is_not_followed(home: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    write_note(home, "http://127.0.0.1:9", pid=process.pid)
    assert "no running daemon found" in run("status").stderr


def test_several_daemons_must_be_told_apart(desk: Desk, home: Path) -> None:
    write_note(home, "http://127.0.0.1:9", "other")
    result = run("status")
    assert result.exit_code == 2
    assert "--facility other or small" in result.stderr
    assert run("status", "--facility", "small").exit_code == 0
    assert run("status", env={"MULLET_FACILITY": "small"}).exit_code == 0


def test_the_state_folder_may_be_given(desk: Desk, home: Path) -> None:
    assert run("mode", "auto", "--state", str(home / "mullet" / "small")).exit_code == 0
    assert run("mode", "auto", "--state", str(home)).exit_code == 2


def test_a_daemon_by_its_url_reads_without_and_orders_with_a_token(tmp_path: Path) -> None:
    desk = Desk()
    token = tmp_path / "token"
    token.write_text("a-token-that-is-long-enough\n")
    with running_api(desk) as url:
        assert "--facility" in run("status", "--url", url).stderr
        where = ("--url", url, "--facility", "small")
        assert run("status", *where).exit_code == 0
        refused = run("mode", "auto", *where)
        assert refused.exit_code == 2
        assert "--token-file" in refused.stderr
        assert desk.asked == []
        assert run("mode", "auto", *where, "--token-file", str(token)).exit_code == 0
        assert len(desk.asked) == 1
        assert run("mode", "auto", *where, "--token-file", str(tmp_path / "none")).exit_code == 2
        token.write_text("a-wrong-token-of-good-length")
        assert run("mode", "observe", *where, "--token-file", str(token)).exit_code == 2
        assert len(desk.asked) == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [(b"<html>", 200, 2), (b"<html>", 502, 2), (b'{"detail": "control stands still"}', 503, 1), (b"[]", 404, 2)],
)
def test_strange_answers_are_one_line(body: bytes, status: int, code: int) -> None:
    with answering(body, status) as url:
        result = run("status", "--url", url, "--facility", "small")
    assert result.exit_code == code
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.output


def test_nobody_at_the_address_is_one_line() -> None:
    with answering(b"") as url:
        pass
    result = run("status", "--url", url, "--facility", "small")
    assert result.exit_code == 2
    assert "does not answer" in result.stderr
