"""Control port: faults, events and truth over TCP, one JSON object per line each way."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from mullet_simulators.clock import cpu_seconds
from mullet_simulators.plant import Plant
from mullet_simulators.timeline import Timeline

PORT = 8705


class ControlPort:
    """Answers `fault`, `truth`, `event` and `status` on `127.N.0.5`.

    `servers` holds, by name, what begins a fault of one target of a server (a feed, a meter, a service).
    """

    def __init__(
        self,
        plant: Plant,
        timeline: Timeline,
        host: str,
        servers: Mapping[str, Callable[[Any, str], None]] | None = None,
        port: int = PORT,
    ) -> None:
        self._plant = plant
        self._timeline = timeline
        self._host = host
        self._port = port
        self._server_faults = dict(servers or {})
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises OSError where the address is in use."""
        self._server = await asyncio.start_server(self._serve, self._host, self._port)

    async def stop(self) -> None:
        """Close the socket and every conversation."""
        if self._server is None:
            return
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def addresses(self) -> dict[str, Any]:
        """Where it listens."""
        return {"control": f"{self._host}:{self._port}"}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request; what is wrong with it is told under `error`."""
        operations = {
            "fault": self._fault,
            "truth": self._truth,
            "event": self._event,
            "status": self._status,
        }
        operation = operations.get(str(request.get("op")))
        if operation is None:
            return {"error": f"op: none of {', '.join(operations)}"}
        try:
            return operation(request)
        except (KeyError, ValueError, TypeError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def _fault(self, request: dict[str, Any]) -> dict[str, Any]:
        if "server" in request:
            target, fault = request["target"], str(request["fault"])
            self._server_faults[request["server"]](target, fault)
            self._plant.truth.event("fault", server=request["server"], target=target, fault=fault)
            return {"ok": True}
        self._plant.set_fault(request["load"], str(request["fault"]))
        return {"ok": True}

    def _truth(self, request: dict[str, Any]) -> dict[str, Any]:
        if "circuit" in request:
            circuit = str(request["circuit"])
            watts = round(self._plant.circuit_watts(circuit), 1)
            return {"watts": watts, "limit_w": self._plant.limits_w[circuit]}
        return self._plant.loads[request["load"]].truth()

    def _event(self, request: dict[str, Any]) -> dict[str, Any]:
        kind = request.get("kind")
        if kind == "price_spike":
            self._timeline.price_spike(float(request["price_per_mwh"]), float(request["seconds"]))
        elif kind == "demand_step":
            self._timeline.demand_step(str(request["service"]), float(request["requests_per_s"]))
        elif kind == "limit_cut":
            notice = self._timeline.limit_cut(
                str(request["circuit"]),
                float(request["limit_w"]),
                float(request.get("notice_s", 0.0)),
                float(request["seconds"]),
            )
            return {"ok": True, "id": notice}
        else:
            raise ValueError("kind: none of price_spike, demand_step, limit_cut")
        return {"ok": True}

    def _status(self, request: dict[str, Any]) -> dict[str, Any]:
        plant = self._plant
        states: dict[str, int] = {}
        for load in plant.loads.values():
            state = str(load.truth().get("state", load.kind))
            states[state] = states.get(state, 0) + 1
        return {
            "at_s": round(plant.now() - plant.started_at, 2),
            "cpu_s": round(cpu_seconds(), 2),
            "circuits": {
                circuit: {"watts": round(plant.circuit_watts(circuit), 1), "limit_w": limit_w}
                for circuit, limit_w in plant.limits_w.items()
            },
            "states": states,
            "faults": {load.id: str(load.fault) for load in plant.loads.values() if load.fault != "ok"},
            "price_per_mwh": plant.world.price_at(plant.now()),
            "requests_per_s": dict(plant.world.requests_per_s),
            "truth_records": plant.truth.records,
        }

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while line := await reader.readline():
                writer.write(json.dumps(self._answer_line(line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            return  # the peer went away, or sent a line beyond the stream's limit
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _answer_line(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
        except ValueError:
            return {"error": "not JSON"}
        return self.answer(request) if isinstance(request, dict) else {"error": "not an object"}
