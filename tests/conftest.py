"""What holds for every test: nothing is left behind, and the machine's own GPU is touched only when asked for."""

from __future__ import annotations

import inspect
import random
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from mullet.testing.leaks import no_leaked_children, no_leaked_descriptors, no_leaked_tasks

SUBNETS = range(100, 250)
PORTS_OF_A_FACILITY = ((1, 8701), (2, 8702), (4, 8704), (5, 8705))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--real-gpu", action="store_true", help="also run the tests that change the power limit of this machine's GPU"
    )
    parser.addoption(
        "--asic-matrix",
        action="store_true",
        help="hold every miner firmware against its whole contract at both latencies",
    )
    parser.addoption(
        "--asic-seed", type=int, default=0, help="which sample of the miners' contract runs without --asic-matrix"
    )
    parser.addoption("--asic-results", metavar="FILE", help="write what came of the miners' contract to FILE, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_gpu: changes the power limit of a real GPU; needs --real-gpu")
    config.addinivalue_line("markers", "leaves_open: leaves descriptors or children open by design; say why")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            # First set up is last torn down: it looks when the other fixtures have closed what they opened.
            item.fixturenames.insert(0, "nothing_left_running")
        if item.get_closest_marker("real_gpu") and not config.getoption("--real-gpu"):
            item.add_marker(pytest.mark.skip(reason="changes a real GPU's power limit: give --real-gpu to run it"))


@pytest.fixture
async def nothing_left_running() -> AsyncIterator[None]:
    """Fail the test if tasks that it started are still running."""
    async with no_leaked_tasks():
        yield


@pytest.fixture(autouse=True)
def nothing_left_open(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test if it leaves sockets, files or child processes."""
    if request.node.get_closest_marker("leaves_open"):
        yield
        return
    with no_leaked_children(), no_leaked_descriptors():
        yield


@pytest.fixture
def free_subnet() -> int:
    """An N whose network 127.N.0.0/16 no facility uses."""
    candidates = list(SUBNETS)
    random.SystemRandom().shuffle(candidates)
    for subnet in candidates:
        if all(_is_free(f"127.{subnet}.0.{octet}", port) for octet, port in PORTS_OF_A_FACILITY):
            return subnet
    raise OSError("no free loopback subnet")


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
