"""All simulated miners of a facility and their sockets, one per address and port."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from mullet_simulators.miners.antminer import Antminer
from mullet_simulators.miners.http import HttpProtocol
from mullet_simulators.miners.models import MODELS
from mullet_simulators.miners.rpc import Connections, RpcProtocol
from mullet_simulators.miners.whatsminer_v2 import Whatsminer
from mullet_simulators.plant import Plant
from mullet_simulators.scenario import BankSpec, Scenario, load_id

RPC_PORT = 4028
WEB_PORT = 8080
BACKLOG = 64


class MinerSockets:
    """The listening sockets of one miner; closed while it is away, so that connections are refused."""

    def __init__(self, host: str, device: Whatsminer | Antminer, latency_s: float) -> None:
        self._host = host
        self._device = device
        self._latency_s = latency_s
        self._connections = Connections()
        self._servers: list[asyncio.Server] = []

    async def follow(self) -> None:
        """Listen if and only if the device is reachable. Raises OSError where an address is in use."""
        reachable = self._device.is_reachable(self._device.now())
        if reachable and not self._servers:
            await self._open(RPC_PORT, self._rpc)
            if isinstance(self._device, Antminer):
                await self._open(WEB_PORT, self._web)
        elif not reachable:
            await self.close()

    async def close(self) -> None:
        """Stop listening and reset what is open."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        self._connections.abort()
        for server in servers:
            await server.wait_closed()

    async def _open(self, port: int, factory: Callable[[], asyncio.Protocol]) -> None:
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(factory, self._host, port, backlog=BACKLOG))

    def _rpc(self) -> asyncio.Protocol:
        return RpcProtocol(self._device, self._connections, self._latency_s)

    def _web(self) -> asyncio.Protocol:
        assert isinstance(self._device, Antminer)
        return HttpProtocol(self._device, self._connections, self._latency_s)


class MinerFarm:
    """Component with every miner bank of the scenario, on `127.N.B.K`."""

    def __init__(self, plant: Plant, scenario: Scenario, subnet: int, latency_s: float = 0.0) -> None:
        self._banks = scenario.banks
        self._subnet = subnet
        self._sockets: dict[str, MinerSockets] = {}
        self._changed: asyncio.Queue[str] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        for bank in scenario.banks:
            for index in range(1, bank.count + 1):
                device = _device(plant, bank, load_id(bank.id, index), self._changed.put_nowait)
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
        return {
            "hosts": [self.host(bank.number, index) for index in range(1, bank.count + 1)],
            "rpc_port": RPC_PORT,
            "web_port": WEB_PORT if model.protocol == "antminer" else None,
            "class": model.pyasic_class,
            "model": model.pyasic_key,
            "circuit": bank.circuit,
        }

    async def _follow_changes(self) -> None:
        while True:
            await self._sockets[await self._changed.get()].follow()


def _device(plant: Plant, bank: BankSpec, name: str, changed: Callable[[str], None]) -> Whatsminer | Antminer:
    model = MODELS[bank.model].scaled(bank.ramp_scale)
    kind: type[Whatsminer] | type[Antminer] = Whatsminer if model.protocol == "whatsminer_v2" else Antminer
    device = kind(plant, model, name, bank.id, bank.circuit, bank.password)
    device.on_reachable_changed = lambda: changed(name)
    return device
