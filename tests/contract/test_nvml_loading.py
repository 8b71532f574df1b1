"""The driver loads the machine's library as nvidia-ml-py does: the tests for a real card, over a library built here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
COMPILER = shutil.which("cc") or shutil.which("gcc")


@pytest.fixture
def library_folder() -> Iterator[Path]:
    """A folder that any user may read, with a libnvidia-ml.so.1 of ours."""
    if COMPILER is None:
        pytest.skip("no C compiler on this machine")
    with tempfile.TemporaryDirectory(prefix="mullet-nvml-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        subprocess.run(
            [
                COMPILER,
                "-shared",
                "-fPIC",
                "-Wl,-soname,libnvidia-ml.so.1",
                "-o",
                folder / "libnvidia-ml.so.1",
                HERE / "fake_nvml.c",
            ],
            check=True,
            timeout=60,
        )
        yield folder


def test_the_tests_for_a_real_card_pass_over_a_loaded_library(library_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--real-gpu", HERE / "test_real_gpu.py"],
        env={**os.environ, "LD_LIBRARY_PATH": str(library_folder)},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    expected = "3 passed" if os.geteuid() == 0 else "2 passed, 1 skipped"
    assert expected in done.stdout
