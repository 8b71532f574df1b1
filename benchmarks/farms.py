"""Simulated miners for a benchmark: which, where, and the processes that serve them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.figures import ROOT
from benchmarks.workers.process import WorkerError
from mullet_simulators.control_port import PORT as CONTROL_PORT
from mullet_simulators.miners.catalogue import DEVICES
from mullet_simulators.miners.models import MODELS
from mullet_simulators.testing import find_subnet

MOST_PER_BANK = 254
PLAIN_WEB_PORT, OTHER_WEB_PORT = 80, 8080
STEP_S = 0.5
"""Physics of a large fleet advance in steps of this, a fifth of the miners in each."""
SERVERS = ("nvml", "inference", "grid", "modbus")
UP_S = 120.0
OWN_CLASS = {"antminer": "antminer_modern"}
"""Protocols whose firmware class has another name."""


@dataclass(frozen=True, slots=True)
class Bank:
    """Miners of one model beside each other on `127.subnet.number.1` and up."""

    id: str
    subnet: int
    number: int
    model: str
    count: int
    web_port: int

    @property
    def firmware(self) -> str:
        """The driver's name for the class of these miners."""
        protocol = MODELS[self.model].protocol
        return OWN_CLASS.get(protocol, protocol)

    @property
    def hosts(self) -> list[str]:
        """Addresses in the order of the miners."""
        return [f"127.{self.subnet}.{self.number}.{index}" for index in range(1, self.count + 1)]

    @property
    def loads(self) -> list[str]:
        """Ids in the order of the miners."""
        return [f"{self.id}-{index:03d}" for index in range(1, self.count + 1)]

    @property
    def options(self) -> dict[str, Any]:
        """What a policy would say of these miners."""
        return {"class": self.firmware, "accept_default_password": True, **self.ports}

    @property
    def ports(self) -> dict[str, Any]:
        """Where the web interface listens, if that is not where the maker has it."""
        moved = self.web_port != PLAIN_WEB_PORT and self.firmware in MOVED_WEB
        return {"web_port": self.web_port} if moved else {}


MOVED_WEB = frozenset({"antminer_modern", "antminer_old", "vnish", "marathon", "axeos"})
"""Firmwares whose web interface is on port 80, and in a simulation without privilege on another."""


def web_port() -> int:
    """Return 80 where this process may listen there, as the makers do, else another."""
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", PLAIN_WEB_PORT))
        except PermissionError:
            return OTHER_WEB_PORT
        except OSError:
            return PLAIN_WEB_PORT
    return PLAIN_WEB_PORT


def models_of(firmwares: Sequence[str]) -> dict[str, str]:
    """Return one model per simulated protocol whose firmware class is among `firmwares`."""
    found: dict[str, str] = {}
    for name, model in MODELS.items():
        firmware = OWN_CLASS.get(model.protocol, model.protocol)
        if model.protocol in DEVICES and firmware in firmwares:
            found.setdefault(firmware, name)
    return found


def shares(total: int, parts: int) -> list[int]:
    """Return `total` in `parts` whole numbers as equal as can be, the larger ones first."""
    each, more = divmod(total, parts)
    return [each + (part < more) for part in range(parts)]


def lay_out(models: Sequence[str], miners: int, processes: int, port: int) -> list[list[Bank]]:
    """Return the banks of each process: `miners` in all, the same number of every model; subnets are still 0."""
    farms: list[list[Bank]] = []
    for place, here in enumerate(shares(miners, processes)):
        banks: list[Bank] = []
        for model, count in zip(models, shares(here, len(models)), strict=True):
            for part in shares(count, max(1, -(-count // MOST_PER_BANK))):
                if part:
                    number = len(banks) + 1
                    banks.append(Bank(f"p{place}b{number}", 0, number, model, part, port))
        farms.append(banks)
    return farms


def scenario(banks: Sequence[Bank], step_s: float = STEP_S, ramp_scale: float = 1.0) -> dict[str, Any]:
    """Return the scenario file of these banks, all on one circuit and all hashing."""
    return {
        "circuits": [{"id": "site", "limit_w": 1e9}],
        "banks": [
            {
                "id": bank.id,
                "number": bank.number,
                "circuit": "site",
                "model": bank.model,
                "count": bank.count,
                "ramp_scale": ramp_scale,
            }
            for bank in banks
        ],
        "price": {"base_per_mwh": 38.0},
        "web_port": banks[0].web_port,
        "step_s": step_s,
    }


@dataclass(frozen=True, slots=True)
class Farms:
    """A fleet that is up."""

    banks: tuple[Bank, ...]
    pids: tuple[int, ...]

    def of(self, firmware: str) -> Farms:
        """Return the miners of one firmware alone."""
        return replace(self, banks=tuple(bank for bank in self.banks if bank.firmware == firmware))

    def first(self, count: int) -> Farms:
        """Return the first `count` miners of every firmware."""
        left: dict[str, int] = {}
        banks = []
        for bank in self.banks:
            taken = min(bank.count, left.setdefault(bank.firmware, count))
            left[bank.firmware] -= taken
            if taken:
                banks.append(replace(bank, count=taken))
        return replace(self, banks=tuple(banks))

    @property
    def firmwares(self) -> list[str]:
        """Firmware classes in the fleet."""
        return list(dict.fromkeys(bank.firmware for bank in self.banks))

    @property
    def size(self) -> int:
        """Miners in all."""
        return sum(bank.count for bank in self.banks)

    def write(self, path: Path) -> str:
        """Write the fleet for a worker and return the path as text."""
        path.write_text(json.dumps([asdict(bank) for bank in self.banks]), encoding="utf-8")
        return str(path)


def read_banks(path: str) -> list[Bank]:
    """Return the banks that `Farms.write` wrote."""
    return [Bank(**bank) for bank in json.loads(Path(path).read_text(encoding="utf-8"))]


@contextmanager
def farms(models: Sequence[str], miners: int, processes: int, folder: Path, latency_ms: float = 0.0) -> Iterator[Farms]:
    """Run simulated miners in processes of their own until the block ends.

    Raises:
        WorkerError: a process did not come up.
    """
    banks: list[Bank] = []
    pids: list[int] = []
    with ExitStack() as stack:
        for place, layout in enumerate(lay_out(models, miners, processes, web_port())):
            file = folder / f"farm-{place}.json"
            # YAML reads JSON as well.
            file.write_text(json.dumps(scenario(layout)), encoding="utf-8")
            subnet = find_subnet()
            pids.append(stack.enter_context(simulator(file, subnet, latency_ms)))
            banks += [replace(bank, subnet=subnet) for bank in layout]
        yield Farms(tuple(banks), tuple(pids))


@contextmanager
def simulator(file: Path, subnet: int, latency_ms: float) -> Iterator[int]:
    """Run one simulator process on `127.subnet.0.0/16`; the value is its process id.

    Raises:
        WorkerError: it did not come up.
    """
    command = [sys.executable, "-m", "mullet_simulators", str(file), "--subnet", str(subnet)]
    command += ["--parent-pid", str(os.getpid()), "--device-latency-ms", str(latency_ms)]
    command += [word for server in SERVERS for word in ("--without", server)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            if process.stdout is None or not process.stdout.readline():
                raise WorkerError("a simulator did not come up")
            yield process.pid
        finally:
            process.terminate()


def ask(subnet: int, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the answers of a simulator's control port.

    Raises:
        OSError: it does not answer.
    """
    with socket.create_connection((f"127.{subnet}.0.5", CONTROL_PORT), timeout=30.0) as connection:
        file = connection.makefile("rwb")
        answers = []
        for request in requests:
            file.write(json.dumps(request).encode() + b"\n")
            file.flush()
            answers.append(json.loads(file.readline()))
    return answers


def set_faults(banks: Sequence[Bank], faults: dict[str, str]) -> None:
    """Begin faults by load id.

    Raises:
        OSError: a simulator does not answer. WorkerError: it refuses one.
    """
    for subnet in dict.fromkeys(bank.subnet for bank in banks):
        here = [load for bank in banks if bank.subnet == subnet for load in bank.loads if load in faults]
        for answer in ask(subnet, [{"op": "fault", "load": load, "fault": faults[load]} for load in here]):
            if "error" in answer:
                raise WorkerError(f"a simulator refused a fault: {answer['error']}")


def truths(banks: Sequence[Bank]) -> dict[str, dict[str, Any]]:
    """Return what is physically true of every miner, by load id.

    Raises:
        OSError: a simulator does not answer.
    """
    found: dict[str, dict[str, Any]] = {}
    for subnet in dict.fromkeys(bank.subnet for bank in banks):
        here = [load for bank in banks if bank.subnet == subnet for load in bank.loads]
        found |= zip(here, ask(subnet, [{"op": "truth", "load": load} for load in here]), strict=True)
    return found


def spread_faults(loads: Sequence[str], shares_of: dict[str, float]) -> dict[str, str]:
    """Return a fault for a share of `loads`, spread evenly over them, never two on one."""
    chosen: dict[str, str] = {}
    free = list(loads)
    for fault, share in shares_of.items():
        many = round(share * len(loads))
        picked = [free[place * len(free) // many] for place in range(many)]
        chosen |= dict.fromkeys(picked, fault)
        free = [load for load in free if load not in chosen]
    return chosen
