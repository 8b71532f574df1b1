import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mullet.adapters.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket, and its address as NOTIFY_SOCKET spells it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if request.param == "path":
        address = str(tmp_path / "notify")
        listener.bind(address)
    else:
        address = f"@mullet-test-{os.getpid()}"
        listener.bind("\0" + address[1:])
    listener.settimeout(2.0)
    yield listener, address
    listener.close()


def test_every_message_arrives(manager: tuple[socket.socket, str]) -> None:
    listener, address = manager
    notifier = Notifier({"NOTIFY_SOCKET": address})
    assert notifier.ready("controlling 200 loads")
    assert listener.recv(4096) == b"READY=1\nSTATUS=controlling 200 loads"
    assert notifier.status("two\nlines")
    assert listener.recv(4096) == b"STATUS=two lines"
    assert notifier.watchdog()
    assert listener.recv(4096) == b"WATCHDOG=1"
    assert notifier.reloading(12.5)
    assert listener.recv(4096) == b"RELOADING=1\nMONOTONIC_USEC=12500000"
    assert notifier.stopping()
    assert listener.recv(4096) == b"STOPPING=1"


def test_nobody_listening_is_no_error(tmp_path: Path) -> None:
    assert not Notifier({}).ready()
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "absent")}).watchdog()


def test_a_manager_that_does_not_read_never_blocks(manager: tuple[socket.socket, str]) -> None:
    _, address = manager
    notifier = Notifier({"NOTIFY_SOCKET": address})
    assert not all(notifier.watchdog() for _ in range(10_000))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_watchdog_period(environment: dict[str, str], expected: float | None) -> None:
    assert Notifier(environment).watchdog_s == expected
