"""What README.md says can be typed, copied or followed holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mullet.app.build import known_names
from mullet.cli import app
from mullet.policy import load_policy
from mullet.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "SCOPE.md",
    "docs/design.md",
    "docs/policy.md",
    "docs/wire.md",
    "docs/discovery.md",
]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_test_command_is_the_one_that_ci_calls() -> None:
    command = re.search(r'(?m)^TEST_COMMAND="(.+)"$', read(".ci/run"))

    assert command is not None
    assert command[1] in read("README.md").splitlines()


def test_the_example_policy_is_good_and_only_observes() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", read("README.md"), re.DOTALL)
    assert len(examples) == 1

    loaded = load_policy(examples[0], "README.md", known_names(Registry()))

    assert loaded.warnings == ()
    assert loaded.facility.mode == "observe"
    assert len(loaded.facility.loads) == 100


@pytest.mark.parametrize("page", PAGES)
def test_every_local_link_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", read(page))

    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


@pytest.mark.parametrize(
    "command", ["check", "run", "discover", "status", "journal", "why", "shed", "hold", "release", "mode"]
)
def test_commands_named_in_the_readme_exist(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"])

    assert f"mullet {command}" in read("README.md")
    assert done.exit_code == 0


def test_the_safety_notice_says_what_mullet_is_not() -> None:
    text = read("README.md")

    assert "**not a protective relay**" in text
    assert "**Hardware protection is required**" in text
    assert "No certification is held or claimed" in text
