"""A daemon's real HTTP API over a desk of our own, and commands run against it in this process."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from mullet.adapters.api_server import ApiServer
from mullet.adapters.clock import SystemClock
from mullet.cli import app
from mullet.domain.facility import Mode
from mullet.domain.snapshot import Hold, HoldKind
from mullet.ports import WriteRefused

TOKEN = "a-token-that-is-long-enough"
LOAD = {
    "id": "wm-a-001", "kind": "miner", "bank": "wm-a", "make": "M50S / whatsminer_v2", "circuit": "pdu-a",
    "state": "active", "watts": 3_300.0, "limit_w": None, "age_s": 0.4, "fault": None,
    "setpoint": "full", "setpoint_w": 3_276.0, "cause": "economic",
    "rule": "on: margin 57 USD/MWh", "pending": False, "failures": 0, "withheld": None, "far": None,
    "ailment": "2 of 3 boards work",
}  # fmt: skip


def run(*arguments: str, env: Mapping[str, str | None] | None = None) -> Any:
    """Run one command; the result has exit_code, stdout and stderr."""
    return CliRunner().invoke(app, list(arguments), env=dict(env or {}), prog_name="mullet")


class Desk:
    """Answers as a running daemon does and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.mode = Mode.OBSERVE
        self.reload_error = ""
        self.acked: bool | None = True

    def status(self) -> dict[str, Any]:
        circuit = {
            "parent": None, "limit_w": 80_000.0, "sum_w": 60_000.0, "room_w": 20_000.0, "measured_w": 55_000.0,
            "meter": "good", "meter_age_s": 0.5, "meter_detail": "", "cause": None, "increases": False,
            "why_not": "records cannot be written",
        }  # fmt: skip
        return {
            "facility": "small", "at": SystemClock().now(), "mode": self.mode.value, "currency": "USD",
            "price_per_mwh": None, "hashprice_per_ph_day": 50.0, "ready": True,
            "power_w": {"miner": 52_000.0, "gpu": 3_000.0, "total": 55_000.0, "meter": 55_000.0},
            "headroom_w": 20_000.0, "plan": {"id": "p", "rung": "optimal", "valid_until": 0.0}, "pending": 2,
            "loads": {"miners": 2, "gpus": 0}, "faults": {"wm-a-002": "DeviceUnreachable: no answer"},
            "circuits": {"poi": circuit}, "services": {}, "curtailments": [],
            "holds": [{"id": "hold-1", "target": "wm-a-002", "kind": "off", "owner": "ann", "reason": "fan"}],
            "alarms": [{"key": "journal", "text": "disk full", "since": 0.0}],
        }  # fmt: skip

    def loads(self) -> list[dict[str, Any]]:
        dead = {**LOAD, "id": "wm-a-002", "state": None, "watts": None, "fault": "no answer", "pending": True}
        dead["ailment"] = None
        return [LOAD, dead]

    def learned(self) -> dict[str, Any]:
        point = {
            "name": "full",
            "nameplate_watts": 3_300.0,
            "nameplate_th_per_s": 110.0,
            "samples": 40,
            "loads": 2,
            "watts": 3_150.0,
            "watts_p95": 3_210.0,
            "most_watts": 3_190.0,
            "rates": 40,
            "th_per_s": 105.0,
            "joules_per_th": 30.0,
        }
        never = {"samples": 0, "p50_s": None, "p95_s": None}
        down = {"samples": 21, "p50_s": 1.8, "p95_s": 2.9}
        far = {"wm-a-002": "hashes 80.0 TH/s, its group 105.0"}
        body = {"points": [point], "ramp_down": down, "ramp_up": never, "in_use": {"learned": True}}
        make = {"make": "M50S / whatsminer_v2", "loads": 2, **body, "far": far}
        return {"wm-a": {"bank": "wm-a", "far": far, "makes": [make]}}

    def why(self, target: str) -> dict[str, Any]:
        if target != "wm-a-001":
            raise KeyError(f"no load or circuit is called {target!r}; near matches: wm-a-001")
        return {"load": target, "inputs": {"watts": None, "fault": None}, "rule": LOAD["rule"]}

    async def hold(self, target: str, kind: HoldKind, owner: str, reason: str) -> Hold:
        self.asked.append(("hold", target, kind, owner, reason))
        return Hold("hold-1", target, kind, owner, reason, 0.0)

    async def release(self, hold_id: str, owner: str) -> None:
        if owner != "ann":
            raise PermissionError(f"{hold_id} was placed by ann; only its owner releases it")
        self.asked.append(("release", hold_id, owner))

    async def set_mode(self, mode: Mode, owner: str) -> None:
        self.mode = mode
        self.asked.append(("mode", mode, owner))

    async def shed(self, watts: float, circuit: str | None, owner: str) -> dict[str, Any]:
        self.asked.append(("shed", watts, circuit, owner))
        return {"id": "shed-1", "circuit": circuit or "poi", "ceiling_w": 1e6, "first_loads": ["a"], "asked_w": watts}

    async def reload(self) -> dict[str, Any]:
        if self.reload_error:
            raise ValueError(self.reload_error)
        return {"policy_hash": "0" * 64, "changes": ["circuits[poi].limit: 80 kW -> 90 kW (raises a limit)"]}

    async def restore(self, target: str, owner: str) -> dict[str, Any]:
        if target == "held":
            raise WriteRefused("held off by ann")
        return {"load": target, "acked": self.acked, "detail": "set 700 W"}

    async def events(self) -> AsyncIterator[Mapping[str, Any]]:
        yield self.status()
        await asyncio.Event().wait()


@contextmanager
def running_api(desk: Desk, facility: str = "small") -> Iterator[str]:
    """Serve the real API from a thread; yields its URL."""
    loop = asyncio.new_event_loop()
    server = ApiServer(facility, desk, TOKEN, None, "127.0.0.1", 0)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(20.0)
        try:
            yield server.url
        finally:
            asyncio.run_coroutine_threadsafe(server.close(), loop).result(20.0)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def answering(body: bytes, status: int = 200) -> Iterator[str]:
    """Serve one fixed answer to everything; yields the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def write_note(home: Path, url: str, facility: str = "small", pid: int | None = None, token: str = TOKEN) -> Path:
    """Write what a daemon writes into its state folder; returns the folder."""
    folder = home / "mullet" / facility
    folder.mkdir(parents=True)
    note = {"url": url, "facility": facility, "pid": os.getpid() if pid is None else pid}
    (folder / "api.json").write_text(json.dumps(note))
    (folder / "api-token").write_text(token + "\n")
    return folder
