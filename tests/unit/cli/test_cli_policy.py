"""check, schema, diff and plan on the shipped policies and on broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_kit import run

from mullet.app.paths import find_policy

GOLDEN = Path(__file__).parents[2] / "golden" / "policies"
BROKEN = sorted(path.stem for path in GOLDEN.glob("*.yaml"))


@pytest.mark.parametrize("name", BROKEN)
def test_check_prints_every_problem_of_a_broken_policy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    result = run("check", f"{name}.yaml")
    expected = (GOLDEN / f"{name}.expected").read_text().splitlines()
    printed = result.stdout.splitlines()[:-1]
    assert result.exit_code == 1
    # What a driver says of its options is its own affair; where and in which field is not.
    assert [line.split(": ")[:2] for line in printed] == [line.split(": ")[:2] for line in expected]
    assert sum(a == b for a, b in zip(printed, expected, strict=True)) >= len(expected) - 1


def test_check_as_json_has_place_and_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    result = run("check", "units.yaml", "demo", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [policy["ok"] for policy in report["policies"]] == [False, True]
    first = report["policies"][0]["problems"][0]
    assert (first["file"], first["line"], first["column"], first["field"]) == (
        "units.yaml",
        9,
        13,
        "circuits[0].rating",
    )


@pytest.mark.parametrize("name", ["demo", "west-texas", "nordic"])
def test_check_of_a_good_policy_shows_what_follows(name: str) -> None:
    result = run("check", name)
    assert result.exit_code == 0
    assert f"{name}: good" in result.stdout
    report = json.loads(run("check", name, "--json").stdout)["policies"][0]
    assert any(bank["break_even_per_mwh"] for bank in report["banks"].values())
    assert all(circuit["worst_w"] >= circuit["failsafe_w"] > 0.0 for circuit in report["circuits"].values())


def test_check_of_no_file_names_the_shipped_policies() -> None:
    result = run("check", "nowhere.yaml")
    assert result.exit_code == 2
    assert "west-texas" in result.stderr


def test_schema_is_json_with_the_sections() -> None:
    schema = json.loads(run("schema").stdout)
    assert {"facility", "circuits", "banks"} <= schema["properties"].keys()


def test_diff_tells_changes_and_which_raise_a_limit(tmp_path: Path) -> None:
    text = find_policy("demo").read_text()
    changed = tmp_path / "changed.yaml"
    changed.write_text("# a comment is no change\n" + text)
    same = run("diff", "demo", str(changed))
    assert (same.exit_code, same.stdout) == (0, "No difference\n")
    changed.write_text(text.replace("rating: 800 kW", "rating: 900 kW"))
    result = run("diff", "demo", str(changed), "--json")
    assert result.exit_code == 1
    changes = {change["path"]: change for change in json.loads(result.stdout)["changes"]}
    assert changes["circuits[poi].rating"]["after"] == "900 kW"
    assert changes["circuits[poi].limit"]["raises_limit"]


def test_diff_with_a_broken_policy_is_bad_input() -> None:
    result = run("diff", "demo", str(GOLDEN / "units.yaml"))
    assert result.exit_code == 2
    assert "circuits[0].rating" in result.stderr


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.csv"
    hours = [f"2025-07-01T{hour:02d}:00:00Z,{500.0 if 2 <= hour < 4 else 20.0}" for hour in range(24)]
    path.write_text("\n".join(["start,price_usd_mwh", *hours]))
    return path


def test_plan_mines_while_it_pays(prices: Path) -> None:
    result = run("plan", "west-texas", "--prices", str(prices), "--at", "2025-07-01T00:00Z", "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert (answer["price_rung"], answer["problems"], answer["plan"]["rung"]) == ("feed", [], "optimal")
    miners = [group["key"] for group in answer["plan"]["groups"] if group["kind"] == "miner"]
    hours = {
        round((item["start"] - answer["plan"]["made_at"]) / 3600.0, 3): item for item in answer["plan"]["intervals"]
    }
    running = {hour: sum(sum(item["counts"][key][1:]) for key in miners) for hour, item in hours.items()}
    assert running[1.0] > 0
    assert all(count == 0 for hour, count in running.items() if 2.0 <= hour < 4.0)


def test_plan_begins_with_the_files_first_row(prices: Path) -> None:
    result = run("plan", "west-texas", "--prices", str(prices))
    assert result.exit_code == 0
    assert "plan of 2025-07-01T00:00:00Z by optimal" in result.stdout
    assert "500.00" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--at", "noon"), "no instant"),
        (("--at", "2025-07-01T00:00"), "no zone"),
        (("--prices", "/nowhere.csv"), "No such file"),
    ],
)
def test_plan_refuses_bad_input(arguments: tuple[str, ...], word: str) -> None:
    result = run("plan", "west-texas", *arguments)
    assert result.exit_code == 2
    assert word in result.stderr


def test_plan_refuses_another_currency(prices: Path) -> None:
    result = run("plan", "nordic", "--prices", str(prices))
    assert result.exit_code == 2
    assert "EUR" in result.stderr
