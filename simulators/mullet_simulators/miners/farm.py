"""All simulated miners of a facility and their sockets, one per address and port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from mullet_simulators.faults import Fault
from mullet_simulators.miners.catalogue import DEVICES
from mullet_simulators.miners.connections import Connections
from mullet_simulators.miners.models import MODELS
from mullet_simulators.miners.physics import SimMiner
from mullet_simulators.miners.rpc import RPC_PORT
from mullet_simulators.plant import Plant
from mullet_simulators.scenario import BankSpec, Scenario, load_id

BACKLOG = 64
FILLERS = 3
"""Connections that fill the queue of a black hole, so that the kernel answers no further one."""


class MinerSockets:
    """The listening sockets of one miner; closed while it is away, so that connections are refused."""

    def __init__(self, host: str, device: SimMiner, latency_s: float) -> None:
        self._host = host
        self._device = device
        self._latency_s = latency_s
        self._connections = Connections()
        self._servers: list[asyncio.Server] = []
        self._holes: list[socket.socket] = []

    async def follow(self) -> None:
        """Listen if and only if the device is reachable. Raises OSError where an address is in use."""
        if self._device.fault == Fault.BLACK_HOLE and self._device.state != "dead":
            if not self._holes:
                await self.close()
                for listener in self._device.listeners():
                    self._dig(listener.port)
            return
        self._fill_up()
        reachable = self._device.is_reachable(self._device.now())
        if reachable and not self._servers:
            loop = asyncio.get_running_loop()
            for listener in self._device.listeners():
                factory = partial(listener.protocol, self._connections, self._latency_s)
                self._servers.append(await loop.create_server(factory, self._host, listener.port, backlog=BACKLOG))
        elif not reachable:
            await self.close()

    async def close(self) -> None:
        """Stop listening and reset what is open."""
        self._fill_up()
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        self._connections.abort()
        for server in servers:
            await server.wait_closed()

    def _dig(self, port: int) -> None:
        """Listen with a full queue and never accept: the kernel drops every further SYN."""
        hole = socket.socket()
        self._holes.append(hole)
        hole.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        hole.bind((self._host, port))
        hole.listen(0)
        for _ in range(FILLERS):
            filler = socket.socket()
            self._holes.append(filler)
            filler.setblocking(False)
            filler.connect_ex((self._host, port))

    def _fill_up(self) -> None:
        holes, self._holes = self._holes, []
        for hole in holes:
            hole.close()


class MinerFarm:
    """Component with every miner bank of the scenario, on `127.N.B.K`."""

    def __init__(self, plant: Plant, scenario: Scenario, subnet: int, latency_s: float = 0.0) -> None:
        self._banks = scenario.banks
        self._subnet = subnet
        self._web_port = scenario.web_port
        self._sockets: dict[str, MinerSockets] = {}
        self._devices: dict[str, SimMiner] = {}
        self._changed: asyncio.Queue[str] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        for bank in scenario.banks:
            for index in range(1, bank.count + 1):
                device = _device(plant, bank, load_id(bank.id, index), scenario.web_port, self._changed.put_nowait)
                self._devices[device.id] = device
                plant.add_load(device)
                if index <= bank.hashing:
                    device.begin_hashing()
                host = self.host(bank.number, index)
                self._sockets[device.id] = MinerSockets(host, device, latency_s)

    def host(self, bank_number: int, index: int) -> str:
        """Address of a miner."""
        return f"127.{self._subnet}.{bank_number}.{index}"

    async def start(self) -> None:
        """Listen on every address. Raises OSError where one is in use."""
        for sockets in self._sockets.values():
            await sockets.follow()
        self._task = asyncio.create_task(self._follow_changes(), name="miner sockets")

    async def stop(self) -> None:
        """Close every socket."""
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for sockets in self._sockets.values():
            await sockets.close()

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The running task, to notice its failure."""
        return self._task

    def addresses(self) -> dict[str, Any]:
        """Hosts, ports and the pyasic class of each bank."""
        return {"miners": {bank.id: self._describe(bank) for bank in self._banks}}

    def _describe(self, bank: BankSpec) -> dict[str, Any]:
        model = MODELS[bank.model]
        ports = [listener.port for listener in self._devices[load_id(bank.id, 1)].listeners()]
        return {
            "hosts": [self.host(bank.number, index) for index in range(1, bank.count + 1)],
            "rpc_port": RPC_PORT if RPC_PORT in ports else None,
            "web_port": self._web_port if self._web_port in ports else None,
            "ports": ports,
            "protocol": model.protocol,
            "class": model.pyasic_class,
            "model": model.pyasic_key,
            "circuit": bank.circuit,
        }

    async def _follow_changes(self) -> None:
        while True:
            await self._sockets[await self._changed.get()].follow()


def _device(plant: Plant, bank: BankSpec, name: str, web_port: int, changed: Callable[[str], None]) -> SimMiner:
    model = MODELS[bank.model].scaled(bank.ramp_scale)
    device = DEVICES[model.protocol](plant, model, name, bank.id, bank.circuit, bank.password, web_port)
    device.on_reachable_changed = lambda: changed(name)
    return device
