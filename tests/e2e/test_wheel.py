"""The built wheel in an environment of its own: what it ships is all that the demo needs besides its dependencies."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
UV = os.environ.get("UV") or shutil.which("uv")
PACKAGES = ("mullet", "mullet_hardware", "mullet_simulators")
BUILD_S = 120.0
DEMO_S = 30
IN_PLACE = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel, and an empty folder to work in."""

    home: Path
    work: Path

    def run(self, program: str, *arguments: str, within_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        return finished([str(self.home / "bin" / program), *arguments], self.work, within_s)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("wheel")
    try:
        wheel = built(folder / "dist")
        home = folder / "venv"
        must([sys.executable, "-m", "venv", "--without-pip", str(home)], folder)
        install(wheel, home, folder)
        # The dependencies of the present environment, but not what its own .pth files lead to: those of an
        # editable install are read in the environment's own folder only.
        (own_packages(home) / "present.pth").write_text("\n".join(present_packages()) + "\n")
        work = folder / "work"
        work.mkdir()
        yield Installed(home, work)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_what_is_imported_is_the_wheel(installed: Installed) -> None:
    code = f"import json, {', '.join(PACKAGES)}; print(json.dumps([{', '.join(f'{p}.__file__' for p in PACKAGES)}]))"
    done = installed.run("python", "-c", code)
    assert done.returncode == 0, done.stderr
    own = own_packages(installed.home)
    assert [Path(file) for file in json.loads(done.stdout)] == [own / name / "__init__.py" for name in PACKAGES]


def test_its_help_is_shown(installed: Installed) -> None:
    done = installed.run("mullet", "--help")
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout


def test_its_policies_are_found_and_good(installed: Installed) -> None:
    done = installed.run("mullet", "check", "demo")
    assert done.returncode == 0, done.stderr
    assert "good; facility demo, mode auto" in done.stdout
    found = installed.run("python", "-c", "from mullet.app.paths import find_policy; print(find_policy('demo'))")
    assert Path(found.stdout.strip()).parent == own_packages(installed.home) / "mullet" / "policies"


def test_its_demo_controls_and_is_graded(installed: Installed) -> None:
    arguments = ["demo", "--seconds", str(DEMO_S), "--json", "--port", "0"]
    done = installed.run("mullet", *arguments, within_s=DEMO_S + 120.0)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["cap_violations"] == 0
    assert summary["truth_mismatches"] == 0
    assert summary["commands"] > 0
    assert summary["loads"]["miners"] >= 200
    assert list(installed.work.iterdir()) == []


def built(folder: Path) -> Path:
    """Return the wheel, built without the network where that can be."""
    folder.mkdir()
    if importlib.util.find_spec("hatchling") is not None:
        must([sys.executable, "-c", IN_PLACE, str(folder)], ROOT)
    elif UV is not None:
        command = [UV, "build", "--wheel", "--python", sys.executable, "--out-dir", str(folder), str(ROOT)]
        if finished([*command, "--offline"], ROOT, BUILD_S).returncode != 0:
            must(command, ROOT)
    elif importlib.util.find_spec("pip") is not None:
        must([sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], ROOT)
    else:
        pytest.skip("needs uv, pip or hatchling to build the wheel")
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, home: Path, folder: Path) -> None:
    python = str(home / "bin" / "python")
    if UV is not None:
        must([UV, "pip", "install", "--offline", "--no-deps", "--python", python, str(wheel)], folder)
    elif importlib.util.find_spec("pip") is not None:
        pip = [sys.executable, "-m", "pip", "--python", python, "install"]
        must([*pip, "--no-index", "--no-deps", str(wheel)], folder)
    else:
        pytest.skip("needs uv or pip to install the wheel")


def own_packages(home: Path) -> Path:
    """Where the environment keeps its packages."""
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)}))


def present_packages() -> list[str]:
    """Where the packages of the present environment are."""
    return [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]


def finished(command: Sequence[str], folder: Path, within_s: float) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with nothing of ours in its environment."""
    foreign = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    return subprocess.run(
        command,
        cwd=folder,
        env={**environment, "UV_PYTHON_DOWNLOADS": "never"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )


def must(command: Sequence[str], folder: Path) -> None:
    done = finished(command, folder, BUILD_S)
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
