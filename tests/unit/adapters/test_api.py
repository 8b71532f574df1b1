"""The HTTP interface: who may do what, what errors say, that streams follow the newest and end, and nothing is left."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from mullet.adapters.api import build_api
from mullet.adapters.api_loads import LoadFilter, LoadTable
from mullet.adapters.api_server import ApiServer, serve_api
from mullet.adapters.live import to_json
from mullet.adapters.metrics import metrics_text
from mullet.adapters.trail import Trail
from mullet.ports import DeviceUnreachable, HistorianError, JournalError, WriteRefused
from mullet.testing.desk import MadeUpDesk

TOKEN = "a-token-that-is-long-enough"
SIGNED = {"Authorization": f"Bearer {TOKEN}"}
V1 = "/v1/facilities/demo/"
AT = 1_790_000_000.0
HOLD = {"target": "hall-a-003", "kind": "off", "owner": "Ana", "reason": "fan"}


class Client(httpx.AsyncClient):
    """Takes paths beneath the facility, or from the root where they begin with a slash."""

    def build_request(self, method: str, url: Any, **options: Any) -> httpx.Request:
        return super().build_request(method, url if str(url).startswith("/") else f"{V1}{url}", **options)


class StoppedClock:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.at = AT

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def desk() -> MadeUpDesk:
    return MadeUpDesk(AT, "demo")


@pytest.fixture
async def client(desk: MadeUpDesk, clock: StoppedClock) -> AsyncIterator[Client]:
    server = ApiServer("demo", desk, TOKEN, None, "127.0.0.1", 0, clock=clock)
    await server.start()
    async with Client(base_url=server.url, trust_env=False) as http:
        yield http
    await server.close()


def in_process(app: Any, address: str = "127.0.0.1", host: str = "localhost") -> Client:
    transport = httpx.ASGITransport(app, client=(address, 40_000))
    return Client(transport=transport, base_url=f"http://{host}")


# What it tells besides the state


async def test_what_was_learnt_is_told_per_bank(client: Client, desk: MadeUpDesk) -> None:
    assert (await client.get("learned")).json() == desk.learned()


# Who may come in


async def test_reads_from_this_machine_need_no_token_and_writes_do(client: Client, desk: MadeUpDesk) -> None:
    assert (await client.get("status")).json()["facility"] == "demo"
    for method, path, body in (
        ("POST", "holds", HOLD),
        ("DELETE", "holds/hold-1?owner=Ana", None),
        ("PUT", "mode", {"mode": "observe", "owner": "Ana"}),
        ("POST", "shed", {"watts": 5.0, "owner": "Ana"}),
        ("POST", "reload", None),
        ("POST", "restore", {"target": "gpu-001", "owner": "Ana"}),
    ):
        for headers in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": f"Basic {TOKEN}"}):
            answer = await client.request(method, path, json=body, headers=headers)
            assert answer.status_code == 401, (method, path)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"] == "Bearer"
    assert desk.orders == []


@pytest.mark.parametrize(
    ("address", "host", "open_reads", "status"),
    [
        ("127.0.0.1", "localhost", True, 200),
        ("::1", "[::1]:8780", True, 200),
        ("127.0.0.1", "localhost", False, 401),
        ("10.1.2.3", "localhost", True, 401),
        # A foreign name that resolves to this machine is how a web page would get around the same-origin rule.
        ("127.0.0.1", "mullet.attacker.example", True, 401),
        ("127.0.0.1", "127.0.0.1.attacker.example", True, 401),
    ],
)
async def test_reads_are_open_to_this_machine_by_its_own_name_only(
    desk: MadeUpDesk, clock: StoppedClock, address: str, host: str, open_reads: bool, status: int
) -> None:
    app = build_api("demo", desk, TOKEN, clock=clock, open_loopback_reads=open_reads)
    async with in_process(app, address, host) as http:
        for path in ("status", "loads", "/metrics", "/openapi.json", "history"):
            assert (await http.get(path)).status_code == status, path
            assert (await http.get(path, headers=SIGNED)).status_code == 200, path
        assert (await http.get("/healthz")).status_code == 200


async def test_a_wrong_token_is_told_even_where_none_is_needed(client: Client) -> None:
    assert (await client.get("status", headers={"Authorization": "Bearer nonsense"})).status_code == 401


async def test_without_a_token_nothing_can_be_written(desk: MadeUpDesk, clock: StoppedClock) -> None:
    async with in_process(build_api("demo", desk, None, clock=clock)) as http:
        assert (await http.post("holds", json=HOLD)).status_code == 403
        assert (await http.post("holds", json=HOLD, headers={"Authorization": "Bearer "})).status_code == 401
        assert (await http.get("status")).status_code == 200
    assert desk.orders == []


def test_a_short_token_is_refused_at_the_start(desk: MadeUpDesk) -> None:
    with pytest.raises(ValueError, match="16 characters"):
        build_api("demo", desk, "short")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_huge_body_never_reaches_memory(client: Client, desk: MadeUpDesk, chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 8_192

    content = pieces() if chunked else b" " * 200_000
    headers = {**SIGNED, "Content-Type": "application/json"}
    answer = await client.post("holds", content=content, headers=headers)
    assert answer.status_code in (400, 413)
    assert desk.orders == []


async def test_the_page_comes_with_a_strict_policy_and_names_no_other_place(client: Client) -> None:
    page = await client.get("/")
    assert page.status_code == 200
    assert 'content="demo"' in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    names = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert len(names) >= 5
    for name in names:
        found = await client.get(f"/{name}")
        assert found.status_code == 200, name
        assert found.headers["content-security-policy"] == policy
    again = await client.get("/app.js", headers={"If-None-Match": (await client.get("/app.js")).headers["etag"]})
    assert again.status_code == 304


async def test_a_facility_name_cannot_become_markup(clock: StoppedClock) -> None:
    app = build_api('"><script>', MadeUpDesk(AT), TOKEN, clock=clock)
    async with in_process(app) as http:
        assert "<script>" not in (await http.get("/")).text.split("</head>")[0].replace('<script src="', "")


# Orders


async def test_orders_reach_operations(client: Client, desk: MadeUpDesk) -> None:
    client.headers.update(SIGNED)
    held = await client.post("holds", json=HOLD)
    assert held.status_code == 201
    assert held.json()["placed_at"] == AT
    assert (await client.get("status")).json()["holds"][0]["target"] == "hall-a-003"
    assert (await client.delete(f"holds/{held.json()['id']}?owner=Ana")).status_code == 204
    assert (await client.put("mode", json={"mode": "advise", "owner": "Ana"})).json()["mode"] == "advise"
    assert (await client.post("shed", json={"watts": 5e3, "circuit": "mining", "owner": "Ana"})).status_code == 200
    assert (await client.post("restore", json={"target": "gpu-001", "owner": "Ana"})).json()["acked"] is True
    assert (await client.post("reload")).json()["changes"] == []
    assert [order[0] for order in desk.orders] == ["hold", "release", "mode", "shed", "restore", "reload"]
    assert desk.orders[0] == ("hold", "hall-a-003", "off", "Ana", "fan")
    assert desk.orders[3] == ("shed", 5e3, "mining", "Ana")


async def test_every_wrong_field_is_named(client: Client, desk: MadeUpDesk) -> None:
    wrong = {"target": "", "kind": "maybe", "owner": "  ", "colour": "red"}
    answer = await client.post("holds", json=wrong, headers=SIGNED)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert {item["field"] for item in answer.json()["problems"]} == {"target", "kind", "owner", "colour"}
    for watts in (0, -5, "1e400", None, "many"):
        answer = await client.post("shed", json={"watts": watts, "owner": "Ana"}, headers=SIGNED)
        assert [item["field"] for item in answer.json()["problems"]] == ["watts"], watts
    answer = await client.get("loads", params={"limit": 0, "sort": "colour", "state": "odd"})
    assert {item["field"] for item in answer.json()["problems"]} == {"limit", "sort", "state"}
    assert (await client.post("holds", content=b"{", headers=SIGNED)).status_code == 422
    assert desk.orders == []


async def test_an_unknown_target_gets_near_matches(client: Client) -> None:
    for answer in (
        await client.get("why/hall-a-3"),
        await client.post("holds", json={**HOLD, "target": "hall-a-3"}, headers=SIGNED),
    ):
        assert answer.status_code == 404
        assert "near matches: hall-a-0" in answer.json()["detail"]
    assert (await client.get("/v1/facilities/other/status")).status_code == 404
    assert (await client.get("/v1/nothing")).headers["content-type"] == "application/problem+json"


async def test_only_the_owner_releases(client: Client) -> None:
    hold = (await client.post("holds", json=HOLD, headers=SIGNED)).json()
    answer = await client.delete(f"holds/{hold['id']}?owner=Bob", headers=SIGNED)
    assert answer.status_code == 403
    assert "Ana" in answer.json()["detail"]


async def test_a_bad_policy_is_told_problem_by_problem(client: Client, desk: MadeUpDesk) -> None:
    desk.reload_error = ValueError("site.yaml:3:4: facility.mode: odd\nsite.yaml:9:1: banks[0].worst: no unit")
    answer = await client.post("reload", headers=SIGNED)
    assert answer.status_code == 422
    assert [item["field"] for item in answer.json()["problems"]] == ["facility.mode", "banks[0].worst"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (WriteRefused("the gate is closed"), 409),
        (JournalError("disk full"), 503),
        (OSError(28, "no space"), 503),
        (RuntimeError("control has not begun"), 503),
        (DeviceUnreachable("gpu-001 is silent"), 502),
    ],
)
async def test_what_operations_raise_has_its_own_status(
    client: Client, desk: MadeUpDesk, error: Exception, status: int
) -> None:
    desk.reload_error = error
    answer = await client.post("reload", headers=SIGNED)
    assert answer.status_code == status
    assert answer.json()["detail"] == str(error)


async def test_a_bug_is_no_secret_and_no_leak(desk: MadeUpDesk, clock: StoppedClock) -> None:
    desk.reload_error = AssertionError("internal words")
    transport = httpx.ASGITransport(build_api("demo", desk, TOKEN, clock=clock), raise_app_exceptions=False)
    async with Client(transport=transport, base_url="http://localhost") as http:
        answer = await http.post("reload", headers=SIGNED)
    assert answer.status_code == 500
    assert "internal words" not in answer.text


# Reading


async def test_health_follows_the_age_of_the_latest_tick(client: Client, clock: StoppedClock) -> None:
    assert (await client.get("/healthz")).json()["ok"] is True
    clock.at += 11.0
    assert (await client.get("/healthz")).status_code == 503


async def test_loads_are_filtered_sorted_and_paged(client: Client) -> None:
    page = (await client.get("loads", params={"kind": "gpu", "sort": "-watts", "limit": 3, "offset": 1})).json()
    assert (page["total"], page["matched"], len(page["rows"])) == (256, 160, 3)
    watts = [row["watts"] for row in page["rows"]]
    assert watts == sorted(watts, reverse=True)
    assert [row["id"] for row in (await client.get("loads?state=fault")).json()["rows"]] == ["hall-a-017"]
    assert (await client.get("loads?q=GPU-15")).json()["matched"] == 10
    # What is unknown sorts last either way.
    for sort in ("watts", "-watts"):
        rows = (await client.get("loads", params={"sort": sort, "limit": 500})).json()["rows"]
        assert rows[-1]["id"] == "hall-a-017"


def test_load_rows_are_fetched_once_per_tick() -> None:
    fetched, version = [], [1]

    def rows() -> list[dict[str, Any]]:
        fetched.append(version[0])
        return []

    table = LoadTable(rows, lambda: version[0])
    table.page(LoadFilter())
    table.page(LoadFilter(kind="gpu"))
    version[0] = 2
    table.page(LoadFilter())
    assert fetched == [1, 2]


async def test_metrics_tell_what_the_status_tells(client: Client, desk: MadeUpDesk) -> None:
    desk.alarms['feed/"odd"'] = ("late", AT)
    text = (await client.get("/metrics")).text
    status = desk.status()
    assert f"mullet_headroom_watts {status['headroom_w']}" in text
    assert f'mullet_power_watts{{kind="miner"}} {status["power_w"]["miner"]}' in text
    assert 'mullet_circuit_limit_watts{circuit="grid"} 480000.0' in text
    assert 'mullet_mode{mode="auto"} 1.0' in text
    assert 'mullet_alarm{key="feed/\\"odd\\""} 1.0' in text
    assert 'mullet_circuit_measured_watts{circuit="hall-b"}' not in text


def test_metrics_before_the_first_tick_and_with_optional_parts() -> None:
    early = {"facility": "demo", "at": AT, "mode": "observe", "ready": False}
    text = metrics_text(early, AT).decode()
    assert "mullet_ready 0.0" in text
    assert "mullet_headroom_watts" not in text
    more = {**early, "counts": {"commands": {"economic": 7}}, "feeds": {"price": {"age_s": 4.0}}}
    text = metrics_text(more, AT).decode()
    assert 'mullet_commands_total{cause="economic"} 7.0' in text
    assert 'mullet_feed_age_seconds{feed="price"} 4.0' in text


def test_json_never_holds_what_json_cannot() -> None:
    assert json.loads(to_json({"a": [float("inf"), 1.0], "b": float("nan")})) == {"a": [None, 1.0], "b": None}


# The charts


class Stored:
    """A telemetry file with a value every ten seconds before `AT`."""

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken
        self.asked: list[tuple[str, str]] = []

    def series(
        self, key: str, field: str, start: float, end: float, step_s: float | None = None
    ) -> list[tuple[float, float]]:
        self.asked.append((key, field))
        if self.broken:
            raise HistorianError("no file")
        first = int(start // 10.0) * 10
        return [(float(at), 5.0) for at in range(first, int(end), 10) if start <= at < min(end, AT)]


async def test_charts_join_the_file_and_memory_without_overlap() -> None:
    trail, desk = Trail(Stored()), MadeUpDesk(AT)
    for _ in range(30):
        desk.tick()
        trail.take(desk.status())
    columns = await trail.columns(AT - 600.0, AT + 100.0)
    instants = [at for at in columns["at"] if at is not None]
    assert instants == sorted(set(instants))
    assert len(instants) == 60 + 30
    assert columns["miner_w"][0] == 5.0
    assert columns["limit_w"][-1] == 480_000.0
    assert columns["unmanaged_w"][-1] == pytest.approx(
        columns["meter_w"][-1] - columns["miner_w"][-1] - columns["gpu_w"][-1]  # type: ignore[operator]
    )
    assert all(len(column) == len(instants) for column in columns.values())


async def test_charts_have_a_bounded_number_of_points_that_keep_the_mean() -> None:
    trail, desk = Trail(), MadeUpDesk(AT)
    for _ in range(400):
        desk.tick()
        trail.take(desk.status())
    whole = await trail.columns(AT, AT + 401.0, 1_000)
    few = await trail.columns(AT, AT + 401.0, 50)
    assert len(whole["at"]) == 400
    assert len(few["at"]) <= 51

    def mean(values: list[float | None]) -> float:
        known = [value for value in values if value is not None]
        return sum(known) / len(known)

    assert mean(few["miner_w"]) == pytest.approx(mean(whole["miner_w"]), rel=0.02)


async def test_a_broken_telemetry_file_leaves_the_memory() -> None:
    trail, desk = Trail(Stored(broken=True)), MadeUpDesk(AT)
    desk.tick()
    trail.take(desk.status())
    trail.take({"facility": "demo", "at": AT, "mode": "auto", "ready": False})
    assert (await trail.columns(AT - 600.0, AT + 100.0))["at"] == [AT + 1.0]


async def test_history_says_what_is_wrong_with_its_bounds(client: Client) -> None:
    answer = await client.get("history", params={"start": 5, "end": 5})
    assert answer.status_code == 422
    assert answer.json()["problems"][0]["field"] == "start"


# Streams


async def until(true: Any, deadline_s: float = 5.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not true():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.005)


async def statuses(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.aiter_lines():
        if line.startswith("data: {") and len(line) > 20:
            yield json.loads(line.removeprefix("data: "))


async def test_a_stream_gives_each_tick_and_what_happened(client: Client, desk: MadeUpDesk) -> None:
    await until(lambda: desk.subscribers)
    desk.note("decision", "something happened")
    async with client.stream("GET", "events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        found = statuses(answer)
        for expected in (1, 2, 3):
            desk.tick()
            status = await anext(found)
            assert status["ticks"] == expected
            assert status["recent"][0]["text"] == "something happened"
        await found.aclose()
    await until(lambda: len(desk.subscribers) == 1)


async def test_a_slow_reader_skips_to_the_newest(desk: MadeUpDesk, clock: StoppedClock) -> None:
    app = build_api("demo", desk, TOKEN, clock=clock)
    live = app.state.live
    live.start()
    stream = live.stream()
    try:
        await anext(stream)
        await until(lambda: desk.subscribers)
        for expected in range(50):
            desk.tick()
            await until(lambda n=expected: live.version > n)
        assert json.loads((await anext(stream)).split(b"data: ")[1])["ticks"] == 50
    finally:
        await stream.aclose()
        await live.close()
    assert live.watchers == 0
    assert not desk.subscribers


async def test_silence_is_filled_with_heartbeats(desk: MadeUpDesk, clock: StoppedClock) -> None:
    live = build_api("demo", desk, TOKEN, clock=clock, heartbeat_s=0.01).state.live
    stream = live.stream()
    assert (await anext(stream)).startswith(b"retry:")
    assert (await anext(stream)).startswith(b":")
    await stream.aclose()


async def test_events_that_fail_are_followed_again(desk: MadeUpDesk, clock: StoppedClock) -> None:
    class Failing(MadeUpDesk):
        failures = 0

        def events(self) -> Any:
            self.failures += 1
            if self.failures <= 2:
                return self._fail()
            return super().events()

        async def _fail(self) -> AsyncIterator[Any]:
            raise KeyError("gone")
            yield

    failing = Failing(AT)
    live = build_api("demo", failing, TOKEN, clock=clock).state.live
    live.start()
    await until(lambda: failing.subscribers)
    failing.tick()
    await until(lambda: live.version == 1)
    await live.close()


async def test_closing_ends_open_streams_at_once(desk: MadeUpDesk, clock: StoppedClock) -> None:
    server = ApiServer("demo", desk, TOKEN, None, "127.0.0.1", 0, clock=clock)
    await server.start()
    url = f"{server.url}v1/facilities/demo/events"
    async with httpx.AsyncClient(trust_env=False) as http:
        streams = [await http.send(http.build_request("GET", url), stream=True) for _ in range(5)]
        await until(lambda: desk.subscribers)
        began = time.monotonic()
        await server.close()
        assert time.monotonic() - began < 2.0
        for answer in streams:
            assert "event: end" in (await answer.aread()).decode()
            await answer.aclose()
    assert not desk.subscribers


async def test_closing_waits_for_nobody_who_does_not_read(desk: MadeUpDesk, clock: StoppedClock) -> None:
    server = ApiServer("demo", desk, TOKEN, None, "127.0.0.1", 0, clock=clock)
    await server.start()
    port = int(server.url.rstrip("/").rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        deaf.sendall(b"GET /v1/facilities/demo/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: desk.subscribers)
        # A megabyte a tick, many times what the sockets between them can hold.
        desk.note("decision", "x" * 1_000_000)
        for _ in range(20):
            desk.tick()
            await asyncio.sleep(0.01)
        began = time.monotonic()
        await server.close()
        assert time.monotonic() - began < 2.5


async def test_closing_waits_for_no_device(clock: StoppedClock) -> None:
    class Hanging(MadeUpDesk):
        async def reload(self) -> Any:
            self.orders.append(("hangs",))
            await asyncio.Event().wait()

    desk = Hanging(AT)
    server = ApiServer("demo", desk, TOKEN, None, "127.0.0.1", 0, clock=clock)
    await server.start()
    async with Client(base_url=server.url, trust_env=False) as http:
        asked = asyncio.create_task(http.post("reload", headers=SIGNED))
        await until(lambda: desk.orders)
        began = time.monotonic()
        await server.close()
        assert time.monotonic() - began < 2.5
        assert isinstance((await asyncio.gather(asked, return_exceptions=True))[0], httpx.HTTPError)


async def test_a_taken_port_is_told_and_leaves_nothing(desk: MadeUpDesk, clock: StoppedClock) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = ApiServer("demo", desk, TOKEN, None, "127.0.0.1", port, clock=clock)
        with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
            await server.start()
        await server.close()


async def test_the_server_leaves_signals_alone(desk: MadeUpDesk, clock: StoppedClock) -> None:
    import signal

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with serve_api(build_api("demo", desk, TOKEN, clock=clock), "127.0.0.1", 0):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
