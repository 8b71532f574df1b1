from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop
from cli_kit import Desk, running_api, write_note

# The first loop of a process opens a pipe for signals that libuv keeps to the end; here it is no test's leak.
uvloop.new_event_loop().close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state home of the test's own, so that no daemon of this machine is ever found."""
    for name in ("STATE_DIRECTORY", "MULLET_URL", "MULLET_TOKEN_FILE", "MULLET_FACILITY", "MULLET_STATE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("mullet.cli.client.SYSTEM_HOME", tmp_path / "system")
    return tmp_path / "home"


@pytest.fixture
def desk(home: Path) -> Iterator[Desk]:
    """The desk of a daemon that runs and is found."""
    desk = Desk()
    with running_api(desk) as url:
        write_note(home, url)
        yield desk
