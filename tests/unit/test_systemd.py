"""The unit files: what systemd says of them, and that they agree with the program, the policies and each other."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNITS = {"mullet.service": 2.0, "mullet-agent.service": 2.5}
"""The most exposure that each may have (R58), as `systemd-analyze security` counts it, from 0 to 10."""

COMMAND_S = 30.0
CREDENTIAL_FIELDS = ("password", "ca", "cert", "key", "signing_key", "token", "credential")

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (Debian package systemd)"
)


def settings(name: str) -> dict[str, list[str]]:
    """Return every key of a unit file with all its values in order."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "systemd" / name).read_text(encoding="utf-8").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", "[")):
            found.setdefault(key, []).append(value)
    return found


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=COMMAND_S, check=False
    )


def runnable_copy(name: str, folder: Path, extra: str = "") -> Path:
    """Return a copy whose programs exist on every machine: `verify` refuses one that is not installed."""
    text = (ROOT / "systemd" / name).read_text(encoding="utf-8")
    text, count = re.subn(r"(?m)^ExecStart=/opt/mullet/bin/mullet ", "ExecStart=/bin/true ", text)
    assert count == 1
    copy = folder / name
    copy.write_text(text.replace("[Service]\n", f"[Service]\n{extra}"), encoding="utf-8")
    return copy


def exposure(path: Path) -> float:
    report = analyze("security", "--offline=true", "--no-pager", str(path))
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", report.stdout)
    assert found is not None, report.stdout + report.stderr
    return float(found[1])


@needs_analyze
@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_nothing_to_say_about_a_unit(name: str, tmp_path: Path) -> None:
    report = analyze("verify", "--man=no", str(runnable_copy(name, tmp_path)))

    # What it does not understand it only warns of, with exit status 0.
    assert (report.returncode, report.stdout, report.stderr) == (0, "", "")


@needs_analyze
def test_a_misspelt_setting_would_be_found(tmp_path: Path) -> None:
    report = analyze("verify", "--man=no", str(runnable_copy("mullet.service", tmp_path, "ProtectHone=yes\n")))

    assert "ProtectHone" in report.stderr


@needs_analyze
@pytest.mark.parametrize(("name", "most"), UNITS.items())
def test_a_unit_exposes_no_more_than_it_may(name: str, most: float) -> None:
    assert exposure(ROOT / "systemd" / name) <= most


@needs_analyze
def test_a_unit_without_its_hardening_would_be_found(tmp_path: Path) -> None:
    naked = tmp_path / "mullet.service"
    naked.write_text("[Service]\nType=notify\nExecStart=/bin/true\n", encoding="utf-8")

    assert exposure(naked) > max(UNITS.values())


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_that_hangs_or_ends_is_started_again(name: str) -> None:
    unit = settings(name)

    assert unit["Type"] == ["notify"]
    assert unit["WatchdogSec"] == ["15"]
    assert unit["Restart"] == ["always"]
    assert unit["StartLimitIntervalSec"] == ["0"]


def test_the_controller_reloads_by_the_signal_that_it_handles() -> None:
    assert settings("mullet.service")["ExecReload"] == ["/bin/kill -HUP $MAINPID"]


def test_only_the_agent_reaches_devices_and_only_with_one_capability() -> None:
    controller, agent = settings("mullet.service"), settings("mullet-agent.service")

    assert controller["DynamicUser"] == ["yes"]
    assert controller["CapabilityBoundingSet"] == [""]
    assert controller["PrivateDevices"] == ["yes"]
    assert "DeviceAllow" not in controller
    assert agent["CapabilityBoundingSet"] == ["CAP_SYS_ADMIN"]
    assert all(rule.startswith("char-nvidia") for rule in agent["DeviceAllow"])
    assert "PrivateDevices" not in agent


def credentials_named_in(policy: str) -> set[str]:
    text = (ROOT / "policies" / policy).read_text(encoding="utf-8")
    fields = "|".join(CREDENTIAL_FIELDS)
    return set(re.findall(rf"(?m)(?:^|[{{,]|\s)\s*(?:{fields}): ([A-Za-z0-9_.-]+)", text))


def credentials_given_by(name: str) -> set[str]:
    return {value.partition(":")[0] for value in settings(name)["LoadCredential"]}


@pytest.mark.parametrize("policy", ["demo.yaml", "west-texas.yaml", "nordic.yaml"])
def test_the_controller_is_given_every_credential_that_a_policy_names(policy: str) -> None:
    named = credentials_named_in(policy)

    assert named | {"api-token"} <= credentials_given_by("mullet.service")


def test_the_agent_is_given_every_credential_that_its_file_names() -> None:
    named = credentials_named_in("agent-gpu-node.yaml")

    assert "mqtt-password" in named
    assert named <= credentials_given_by("mullet-agent.service")


@pytest.mark.parametrize("name", UNITS)
def test_a_missing_credential_stops_no_start(name: str) -> None:
    # An absolute path that is not there would; a name is looked for in the credential stores.
    assert all("/" not in value for value in settings(name)["LoadCredential"])
