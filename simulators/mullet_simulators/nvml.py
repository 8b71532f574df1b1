"""The NVML service: every GPU of the facility behind the calls of NVIDIA's nvml.h, over one TCP port (docs/wire.md)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from mullet_simulators.gpu import MAX_SM_MHZ, MEMORY_MHZ, MIN_SM_MHZ, Gpu, GpuFault, Work
from mullet_simulators.plant import Plant
from mullet_simulators.scenario import Scenario, ServiceSpec, load_id
from mullet_simulators.sockets import StreamServer

__all__ = ["Gpu", "GpuFault", "NvmlService", "Work", "kind_of_work"]

PORT = 8702
HANG_S = 6.0
"""A hung GPU answers after so long; clients give up sooner."""
MOST_LINE_BYTES = 65536
DRIVER_VERSION = "580.95.05"
NVML_VERSION = "13.580.95.05"
DEVICE_NAME = "NVIDIA H100 80GB HBM3"

SUCCESS = 0
INVALID_ARGUMENT = 2
NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
UNKNOWN = 999

REASON_IDLE = 0x1
REASON_SW_POWER_CAP = 0x4
CLOCK_MEMORY = 2
CLOCK_KINDS = 4
PREFILL_RATIO = 2.0
"""A service with at least so many prompt tokens for each one it writes is bound by prefill."""

Answer = tuple[int, Any]


def kind_of_work(service: ServiceSpec) -> Work:
    """What bounds a service: reading prompts or writing answers."""
    ratio = service.prompt_tokens_per_request / service.output_tokens_per_request
    return Work.PREFILL if ratio >= PREFILL_RATIO else Work.DECODE


class NvmlService:
    """Owns the GPUs and answers for them. Limits outlive the clients that set them, as in the real driver."""

    def __init__(self, plant: Plant, scenario: Scenario, host: str, port: int = PORT) -> None:
        """Registers a Gpu for each of every service, in the scenario's order."""
        self._plant = plant
        self.gpus: list[Gpu] = []
        for service in scenario.services:
            for k in range(1, service.gpus + 1):
                gpu = Gpu(
                    plant,
                    len(self.gpus),
                    load_id(service.bank, k),
                    service.bank,
                    service.circuit,
                    service.id,
                    service.gpu,
                    kind_of_work(service),
                )
                plant.add_load(gpu)
                self.gpus.append(gpu)
        self._server = StreamServer(host, port, self._talk, MOST_LINE_BYTES)
        self._reads: dict[str, Callable[[Gpu, list[int]], Answer]] = {
            "nvmlDeviceGetIndex": lambda gpu, _: (SUCCESS, gpu.index),
            "nvmlDeviceGetUUID": lambda gpu, _: (SUCCESS, gpu.uuid),
            "nvmlDeviceGetName": lambda gpu, _: (SUCCESS, DEVICE_NAME),
            "nvmlDeviceGetSerial": lambda gpu, _: (SUCCESS, gpu.serial),
            "nvmlDeviceGetPowerUsage": lambda gpu, _: (SUCCESS, _milli(gpu.read_watts())),
            "nvmlDeviceGetTotalEnergyConsumption": lambda gpu, _: (SUCCESS, _milli(gpu.energy_j)),
            "nvmlDeviceGetPowerManagementMode": lambda gpu, _: (SUCCESS, 1),
            "nvmlDeviceGetPowerManagementLimit": lambda gpu, _: (SUCCESS, _milli(gpu.requested_w)),
            "nvmlDeviceGetPowerManagementDefaultLimit": lambda gpu, _: (SUCCESS, _milli(gpu.spec.default_cap_w)),
            "nvmlDeviceGetPowerManagementLimitConstraints": lambda gpu, _: (
                SUCCESS,
                [_milli(gpu.spec.min_cap_w), _milli(gpu.spec.max_cap_w)],
            ),
            "nvmlDeviceGetEnforcedPowerLimit": lambda gpu, _: (SUCCESS, _milli(gpu.enforced_w)),
            "nvmlDeviceGetClockInfo": _clock_now,
            "nvmlDeviceGetMaxClockInfo": _clock_most,
            "nvmlDeviceGetTemperature": lambda gpu, _: (SUCCESS, round(gpu.temperature_c)),
            "nvmlDeviceGetUtilizationRates": lambda gpu, _: (
                SUCCESS,
                [round(100 * gpu.duty), round(100 * gpu.duty * (0.9 if gpu.work is Work.DECODE else 0.4))],
            ),
            "nvmlDeviceGetCurrentClocksEventReasons": _reasons,
            "nvmlDeviceGetPersistenceMode": lambda gpu, _: (SUCCESS, int(gpu.persistence)),
            "nvmlDeviceGetMigMode": lambda gpu, _: (NOT_SUPPORTED, None),
        }
        self._writes: dict[str, tuple[str, Callable[[Gpu, list[int]], int]]] = {
            "nvmlDeviceSetPowerManagementLimit": ("set_limit", _set_limit),
            "nvmlDeviceSetGpuLockedClocks": ("lock_clocks", _lock_clocks),
            "nvmlDeviceResetGpuLockedClocks": ("unlock_clocks", _unlock_clocks),
            "nvmlDeviceSetPersistenceMode": ("set_persistence", _set_persistence),
        }

    async def start(self) -> None:
        """Listen. Raises OSError where the address is in use."""
        await self._server.start()

    async def stop(self) -> None:
        """Close every connection and await every task."""
        await self._server.stop()

    def addresses(self) -> dict[str, Any]:
        """Where it answers, and the UUID of each GPU."""
        return {
            "nvml": {
                "address": self._server.address,
                "gpus": [{"load": gpu.id, "index": gpu.index, "uuid": gpu.uuid} for gpu in self.gpus],
            }
        }

    def answer(self, call: str, arguments: list[Any]) -> Answer:
        """Return code and value of one call, as the C function would give them."""
        if call == "nvmlInitWithFlags":
            return SUCCESS, None
        if call == "nvmlSystemGetDriverVersion":
            return SUCCESS, DRIVER_VERSION
        if call == "nvmlSystemGetNVMLVersion":
            return SUCCESS, NVML_VERSION
        if call == "nvmlDeviceGetCount_v2":
            return SUCCESS, len(self.gpus)
        if call == "nvmlDeviceGetHandleByIndex_v2":
            gpu = self._gpu(arguments)
            return self._handle(gpu, INVALID_ARGUMENT)
        if call == "nvmlDeviceGetHandleByUUID":
            return self._handle(next((g for g in self.gpus if [g.uuid] == arguments), None), NOT_FOUND)
        return self._answer_for_device(call, arguments)

    def _handle(self, gpu: Gpu | None, absent: int) -> Answer:
        if gpu is None:
            return absent, None
        return (GPU_IS_LOST, None) if gpu.is_lost else (SUCCESS, gpu.index)

    def _gpu(self, arguments: list[Any]) -> Gpu | None:
        index = arguments[0] if arguments else None
        return self.gpus[index] if isinstance(index, int) and 0 <= index < len(self.gpus) else None

    def _answer_for_device(self, call: str, arguments: list[Any]) -> Answer:
        read, write = self._reads.get(call), self._writes.get(call)
        if read is None and write is None:
            return FUNCTION_NOT_FOUND, None
        gpu = self._gpu(arguments)
        numbers = arguments[1:]
        if gpu is None or not all(isinstance(number, int) for number in numbers):
            return INVALID_ARGUMENT, None
        if gpu.is_lost:
            return GPU_IS_LOST, None
        if read is not None:
            return read(gpu, numbers)
        assert write is not None
        verb, change = write
        ret = NO_PERMISSION if gpu.fault is GpuFault.NO_PERMISSION else change(gpu, numbers)
        heard = "none" if gpu.fault is GpuFault.HANG else "ok" if ret == SUCCESS else "refused"
        self._plant.truth.request(gpu.id, verb, heard)
        return ret, None

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readuntil(b"\n"):
            answer, late_s = self._answer_line(line)
            if late_s:
                await asyncio.sleep(late_s)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()

    def _answer_line(self, line: bytes) -> tuple[dict[str, Any], float]:
        try:
            request = json.loads(line)
            call, arguments = str(request["call"]), list(request.get("args") or [])
        except (ValueError, KeyError, TypeError):
            return {"ret": UNKNOWN, "value": None}, 0.0
        ret, value = self.answer(call, arguments)
        gpu = self._gpu(arguments)
        hangs = gpu is not None and gpu.fault is GpuFault.HANG
        return {"ret": ret, "value": value}, HANG_S if hangs else 0.0


def _milli(value: float) -> int:
    return round(value * 1000.0)


def _clock_now(gpu: Gpu, numbers: list[int]) -> Answer:
    if len(numbers) != 1 or not 0 <= numbers[0] < CLOCK_KINDS:
        return INVALID_ARGUMENT, None
    return SUCCESS, MEMORY_MHZ if numbers[0] == CLOCK_MEMORY else gpu.sm_mhz


def _clock_most(gpu: Gpu, numbers: list[int]) -> Answer:
    if len(numbers) != 1 or not 0 <= numbers[0] < CLOCK_KINDS:
        return INVALID_ARGUMENT, None
    return SUCCESS, MEMORY_MHZ if numbers[0] == CLOCK_MEMORY else MAX_SM_MHZ


def _reasons(gpu: Gpu, numbers: list[int]) -> Answer:
    if gpu.duty <= 0.01:
        return SUCCESS, REASON_IDLE
    return SUCCESS, REASON_SW_POWER_CAP if gpu.is_capped else 0


def _set_limit(gpu: Gpu, numbers: list[int]) -> int:
    if len(numbers) != 1 or not gpu.spec.min_cap_w <= numbers[0] / 1000.0 <= gpu.spec.max_cap_w:
        return INVALID_ARGUMENT
    gpu.set_limit(numbers[0] / 1000.0)
    return SUCCESS


def _lock_clocks(gpu: Gpu, numbers: list[int]) -> int:
    if len(numbers) != 2 or not MIN_SM_MHZ <= numbers[0] <= numbers[1]:
        return INVALID_ARGUMENT
    gpu.lock_clocks(numbers[0], numbers[1])
    return SUCCESS


def _unlock_clocks(gpu: Gpu, numbers: list[int]) -> int:
    gpu.unlock_clocks()
    return SUCCESS


def _set_persistence(gpu: Gpu, numbers: list[int]) -> int:
    if len(numbers) != 1 or numbers[0] not in (0, 1):
        return INVALID_ARGUMENT
    gpu.persistence = bool(numbers[0])
    return SUCCESS
