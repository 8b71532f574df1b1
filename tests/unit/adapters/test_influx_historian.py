import asyncio
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from adapters_kit import Hands

from mullet.adapters.clock import SystemClock
from mullet.adapters.historian import InfluxHistorian
from mullet.adapters.influx import lines_of
from mullet.ports import Clock

BEGIN = 1_780_000_000.0


class Server:
    """Answers writes as told: a function from the lines to (status, headers)."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.tokens: set[str] = set()
        self.requests = 0
        self.answer: Callable[[list[str]], tuple[int, dict[str, str]]] = lambda lines: (204, {})
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                lines = zlib.decompress(body, 31).decode().splitlines()
                server.tokens.add(self.headers["Authorization"])
                server.requests += 1
                status, headers = server.answer(lines)
                if status == 204:
                    server.taken += lines
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Tests print nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("never happened")


def historian_to(url: str, clock: Clock | None = None, spool_bytes: int = 1_000_000) -> InfluxHistorian:
    return InfluxHistorian(
        url, "t0ken", "org", "bucket", clock or SystemClock(), timeout_s=1.0, spool_bytes=spool_bytes
    )


def test_lines_are_escaped_and_hold_finite_numbers_only() -> None:
    series: dict[str, dict[str, float]] = {
        "load/as ic,1=x": {"watts": 3_000.5, "bad": float("nan"), "worse": float("inf"), "th per,s": 1e16},
        "facility": {"price_per_mwh": -12},
        "circuit/empty": {},
        "circuit/new\nline\\": {"on": True},
    }
    assert lines_of(1.2345, series, "my site").splitlines() == [
        "load,facility=my\\ site,id=as\\ ic\\,1\\=x watts=3000.5,th\\ per\\,s=1e+16 1234",
        "facility,facility=my\\ site price_per_mwh=-12.0 1234",
        "circuit,facility=my\\ site,id=new\\ line/ on=1.0 1234",
    ]


async def test_instants_are_sent_with_the_token(server: Server) -> None:
    historian = historian_to(server.url)
    for second in range(20):
        await historian.record(BEGIN + second, {"facility": {"watts": float(second)}})
    await until(lambda: historian.written == 20)
    await historian.close()
    assert server.taken == [f"facility watts={float(n)!r} {round(BEGIN + n) * 1000}" for n in range(20)]
    assert server.tokens == {"Token t0ken"}
    assert server.requests < 20, "what waited went in one write"


async def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(server: Server) -> None:
    clock = Hands()
    server.answer = lambda lines: (429, {"Retry-After": "30"})
    historian = historian_to(server.url, clock)
    await historian.record(BEGIN, {"facility": {"watts": 1.0}})
    await until(lambda: server.requests == 1)
    await until(lambda: historian.problem is not None)
    clock.at += 29.0
    await historian.record(BEGIN + 1, {"facility": {"watts": 2.0}})
    await asyncio.sleep(0.1)
    assert server.requests == 1
    server.answer = lambda lines: (204, {})
    clock.at += 1.5
    await historian.record(BEGIN + 2, {"facility": {"watts": 3.0}})
    await until(lambda: historian.written == 3)
    assert historian.problem is None
    await historian.close()
    assert [line.split()[1] for line in server.taken] == ["watts=1.0", "watts=2.0", "watts=3.0"]


async def test_one_bad_instant_takes_no_others_with_it(server: Server) -> None:
    busy = True

    def answer(lines: list[str]) -> tuple[int, dict[str, str]]:
        if busy:
            return 503, {}
        return (400, {}) if any("watts=3.0" in line for line in lines) else (204, {})

    server.answer = answer
    clock = Hands()
    historian = historian_to(server.url, clock)
    for second in range(6):
        await historian.record(BEGIN + second, {"facility": {"watts": float(second)}})
    await until(lambda: server.requests >= 1)
    busy = False
    clock.at += 100.0
    await historian.record(BEGIN + 6, {"facility": {"watts": 6.0}})
    await until(lambda: historian.written + historian.dropped == 7)
    await historian.close()
    assert (historian.written, historian.dropped) == (6, 1)
    assert [line.split()[1] for line in server.taken] == [f"watts={n}.0" for n in (0, 1, 2, 4, 5, 6)]


async def test_a_full_spool_drops_the_oldest_and_counts(server: Server) -> None:
    clock = Hands()
    server.answer = lambda lines: (503, {})
    historian = historian_to(server.url, clock, spool_bytes=500)
    for second in range(20):
        await historian.record(BEGIN + second, {"facility": {"watts": float(second)}})
    await until(lambda: historian.dropped > 0)
    server.answer = lambda lines: (204, {})
    clock.at += 100.0
    await historian.record(BEGIN + 20, {"facility": {"watts": 20.0}})
    await until(lambda: historian.written + historian.dropped == 21)
    await historian.close()
    kept = [float(line.split()[1].removeprefix("watts=")) for line in server.taken]
    assert kept == [float(number) for number in range(21 - len(kept), 21)]
    assert 5 <= len(kept) <= 15


async def test_a_server_that_is_away_holds_nobody_up_at_the_end() -> None:
    historian = historian_to("http://127.0.0.1:9")
    await historian.record(BEGIN, {"facility": {"watts": 1.0}})
    await asyncio.wait_for(historian.close(), 4.0)
    assert (historian.written, historian.dropped) == (0, 1)
