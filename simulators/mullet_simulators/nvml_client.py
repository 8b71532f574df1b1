"""Stands in for the C library behind pynvml: the same function names, answered by a simulated facility.

`pynvml.nvmlLib = SimulatedNvml("127.77.0.2:8702")` and all of pynvml, struct and error mapping included, runs as
it does over the real library. pynvml caches function pointers: whoever swaps one library for another also clears
`pynvml._nvmlGetFunctionPointer_cache`. Call names, arguments and units are those of NVIDIA's nvml.h; the socket
protocol is in docs/wire.md.
"""

# ruff: noqa: N802

from __future__ import annotations

import ctypes
import json
import socket
import threading
from typing import Any

SUCCESS = 0
UNINITIALIZED = 1
INVALID_ARGUMENT = 2
INSUFFICIENT_SIZE = 7
TIMEOUT = 10
FUNCTION_NOT_FOUND = 13
UNKNOWN = 999

ERROR_TEXTS = {
    0: "Success",
    1: "Uninitialized",
    2: "Invalid Argument",
    3: "Not Supported",
    4: "Insufficient Permissions",
    6: "Not Found",
    7: "Insufficient Size",
    10: "Timeout",
    13: "Function Not Found",
    15: "GPU is lost",
    999: "Unknown Error",
}

FACILITY = -1
"""The connection of calls that name no device."""


class SimulatedNvml:
    """Every method returns an NVML return code and writes through the pointers it is given, as the C does.

    Each device has a connection of its own, so one that hangs delays no other. Thread-safe.
    """

    def __init__(self, address: str, timeout_s: float = 2.0) -> None:
        """`address` is "host:port". Raises ValueError where it is not."""
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"NVML address must be host:port, got {address!r}")
        self._address = (host, int(port))
        self._timeout_s = timeout_s
        self._lines: dict[int, _Line] = {}
        self._guard = threading.Lock()
        self._users = 0
        self.nvmlErrorString = _ErrorString()

    def close(self) -> None:
        """Close every connection; the next call opens what it needs."""
        with self._guard:
            lines = list(self._lines.values())
            self._lines.clear()
        for line in lines:
            line.close()

    # -- library

    def nvmlInit_v2(self) -> int:
        return self.nvmlInitWithFlags(0)

    def nvmlInitWithFlags(self, flags: Any) -> int:
        ret, _ = self._ask(FACILITY, "nvmlInitWithFlags", [_number(flags)])
        if ret == SUCCESS:
            with self._guard:
                self._users += 1
        return ret

    def nvmlShutdown(self) -> int:
        with self._guard:
            if self._users == 0:
                return UNINITIALIZED
            self._users -= 1
            last = self._users == 0
        if last:
            self.close()
        return SUCCESS

    def nvmlSystemGetDriverVersion(self, text: Any, size: Any) -> int:
        return self._text(FACILITY, "nvmlSystemGetDriverVersion", [], text, size)

    def nvmlSystemGetNVMLVersion(self, text: Any, size: Any) -> int:
        return self._text(FACILITY, "nvmlSystemGetNVMLVersion", [], text, size)

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        return self._numbers(FACILITY, "nvmlDeviceGetCount_v2", [], count)

    # -- handles

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:
        return self._handle("nvmlDeviceGetHandleByIndex_v2", [_number(index)], handle)

    def nvmlDeviceGetHandleByUUID(self, uuid: Any, handle: Any) -> int:
        raw = getattr(uuid, "value", uuid)
        name = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
        return self._handle("nvmlDeviceGetHandleByUUID", [name], handle)

    def nvmlDeviceGetIndex(self, handle: Any, index: Any) -> int:
        return self._device_numbers("nvmlDeviceGetIndex", handle, index)

    # -- identity

    def nvmlDeviceGetUUID(self, handle: Any, text: Any, size: Any) -> int:
        return self._device_text("nvmlDeviceGetUUID", handle, text, size)

    def nvmlDeviceGetName(self, handle: Any, text: Any, size: Any) -> int:
        return self._device_text("nvmlDeviceGetName", handle, text, size)

    def nvmlDeviceGetSerial(self, handle: Any, text: Any, size: Any) -> int:
        return self._device_text("nvmlDeviceGetSerial", handle, text, size)

    # -- power

    def nvmlDeviceGetPowerUsage(self, handle: Any, milliwatts: Any) -> int:
        return self._device_numbers("nvmlDeviceGetPowerUsage", handle, milliwatts)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, millijoules: Any) -> int:
        return self._device_numbers("nvmlDeviceGetTotalEnergyConsumption", handle, millijoules)

    def nvmlDeviceGetPowerManagementMode(self, handle: Any, mode: Any) -> int:
        return self._device_numbers("nvmlDeviceGetPowerManagementMode", handle, mode)

    def nvmlDeviceGetPowerManagementLimit(self, handle: Any, milliwatts: Any) -> int:
        return self._device_numbers("nvmlDeviceGetPowerManagementLimit", handle, milliwatts)

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle: Any, milliwatts: Any) -> int:
        return self._device_numbers("nvmlDeviceGetPowerManagementDefaultLimit", handle, milliwatts)

    def nvmlDeviceGetPowerManagementLimitConstraints(self, handle: Any, low: Any, high: Any) -> int:
        return self._device_numbers("nvmlDeviceGetPowerManagementLimitConstraints", handle, low, high)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any, milliwatts: Any) -> int:
        return self._device_numbers("nvmlDeviceGetEnforcedPowerLimit", handle, milliwatts)

    def nvmlDeviceSetPowerManagementLimit(self, handle: Any, milliwatts: Any) -> int:
        return self._device_call("nvmlDeviceSetPowerManagementLimit", handle, [_number(milliwatts)])

    # -- clocks, temperature, use

    def nvmlDeviceSetGpuLockedClocks(self, handle: Any, low_mhz: Any, high_mhz: Any) -> int:
        return self._device_call("nvmlDeviceSetGpuLockedClocks", handle, [_number(low_mhz), _number(high_mhz)])

    def nvmlDeviceResetGpuLockedClocks(self, handle: Any) -> int:
        return self._device_call("nvmlDeviceResetGpuLockedClocks", handle, [])

    def nvmlDeviceGetClockInfo(self, handle: Any, kind: Any, mhz: Any) -> int:
        return self._device_numbers("nvmlDeviceGetClockInfo", handle, mhz, arguments=[_number(kind)])

    def nvmlDeviceGetMaxClockInfo(self, handle: Any, kind: Any, mhz: Any) -> int:
        return self._device_numbers("nvmlDeviceGetMaxClockInfo", handle, mhz, arguments=[_number(kind)])

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any, reasons: Any) -> int:
        return self._device_numbers("nvmlDeviceGetCurrentClocksEventReasons", handle, reasons)

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: Any, celsius: Any) -> int:
        return self._device_numbers("nvmlDeviceGetTemperature", handle, celsius, arguments=[_number(sensor)])

    def nvmlDeviceGetTemperatureV(self, handle: Any, temperature: Any) -> int:
        struct = _target(temperature)
        sensor = int(struct.sensorType)
        ret, value = self._device_ask("nvmlDeviceGetTemperature", handle, [sensor])
        if ret == SUCCESS:
            struct.temperature = int(value)
        return ret

    def nvmlDeviceGetUtilizationRates(self, handle: Any, rates: Any) -> int:
        ret, value = self._device_ask("nvmlDeviceGetUtilizationRates", handle, [])
        if ret == SUCCESS:
            struct = _target(rates)
            struct.gpu, struct.memory = int(value[0]), int(value[1])
        return ret

    # -- modes

    def nvmlDeviceGetPersistenceMode(self, handle: Any, mode: Any) -> int:
        return self._device_numbers("nvmlDeviceGetPersistenceMode", handle, mode)

    def nvmlDeviceSetPersistenceMode(self, handle: Any, mode: Any) -> int:
        return self._device_call("nvmlDeviceSetPersistenceMode", handle, [_number(mode)])

    def nvmlDeviceGetMigMode(self, handle: Any, current: Any, pending: Any) -> int:
        return self._device_numbers("nvmlDeviceGetMigMode", handle, current, pending)

    # -- how a call is made

    def _ask(self, device: int, call: str, arguments: list[Any]) -> tuple[int, Any]:
        with self._guard:
            line = self._lines.get(device)
            if line is None:
                line = self._lines[device] = _Line(self._address, self._timeout_s)
        return line.ask(call, arguments)

    def _device_ask(self, call: str, handle: Any, arguments: list[Any]) -> tuple[int, Any]:
        if self._users == 0:
            return UNINITIALIZED, None
        index = _index_of(handle)
        if index is None:
            return INVALID_ARGUMENT, None
        return self._ask(index, call, [index, *arguments])

    def _device_call(self, call: str, handle: Any, arguments: list[Any]) -> int:
        return self._device_ask(call, handle, arguments)[0]

    def _device_numbers(self, call: str, handle: Any, *targets: Any, arguments: list[Any] | None = None) -> int:
        ret, value = self._device_ask(call, handle, arguments or [])
        return _write_numbers(ret, value, targets)

    def _numbers(self, device: int, call: str, arguments: list[Any], *targets: Any) -> int:
        if self._users == 0:
            return UNINITIALIZED
        ret, value = self._ask(device, call, arguments)
        return _write_numbers(ret, value, targets)

    def _device_text(self, call: str, handle: Any, text: Any, size: Any) -> int:
        ret, value = self._device_ask(call, handle, [])
        return _write_text(ret, value, text, size)

    def _text(self, device: int, call: str, arguments: list[Any], text: Any, size: Any) -> int:
        if self._users == 0:
            return UNINITIALIZED
        ret, value = self._ask(device, call, arguments)
        return _write_text(ret, value, text, size)

    def _handle(self, call: str, arguments: list[Any], handle: Any) -> int:
        if self._users == 0:
            return UNINITIALIZED
        ret, index = self._ask(FACILITY, call, arguments)
        if ret == SUCCESS:
            # The handle is opaque to callers: a pointer whose value is the index, raised by one so that none is null.
            place = ctypes.cast(handle, ctypes.POINTER(ctypes.c_void_p))
            place[0] = int(index) + 1
        return ret


class _ErrorString:
    """nvmlErrorString; an object because pynvml sets `restype` on it."""

    restype: Any = None

    def __call__(self, result: Any) -> bytes:
        return ERROR_TEXTS.get(_number(result), "Unknown Error").encode()


class _Line:
    """One connection, opened when needed; one question at a time."""

    def __init__(self, address: tuple[str, int], timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._rest = b""

    def ask(self, call: str, arguments: list[Any]) -> tuple[int, Any]:
        """Return code and value. A service that is gone is UNINITIALIZED, one that is late TIMEOUT."""
        question = json.dumps({"call": call, "args": arguments}).encode() + b"\n"
        with self._lock:
            kept = self._socket is not None
            try:
                return self._exchange(question)
            except TimeoutError:
                self._drop()
                return TIMEOUT, None
            except (OSError, EOFError):
                self._drop()
            except (ValueError, KeyError, TypeError):
                self._drop()
                return UNKNOWN, None
            if not kept:
                return UNINITIALIZED, None
            # The kept connection was of a service that has restarted: once more on a new one.
            try:
                return self._exchange(question)
            except TimeoutError:
                self._drop()
                return TIMEOUT, None
            except (OSError, EOFError):
                self._drop()
                return UNINITIALIZED, None
            except (ValueError, KeyError, TypeError):
                self._drop()
                return UNKNOWN, None

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _exchange(self, question: bytes) -> tuple[int, Any]:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=self._timeout_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._rest = b""
        self._socket.sendall(question)
        while b"\n" not in self._rest:
            more = self._socket.recv(65536)
            if not more:
                raise EOFError
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        answer = json.loads(line)
        return int(answer["ret"]), answer.get("value")

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._rest = b""


def _number(argument: Any) -> int:
    return int(getattr(argument, "value", argument))


def _target(reference: Any) -> Any:
    """What a byref() or a pointer refers to."""
    inner = getattr(reference, "_obj", None)
    return inner if inner is not None else reference.contents


def _index_of(handle: Any) -> int | None:
    raw = ctypes.cast(handle, ctypes.c_void_p).value
    return None if not raw else int(raw) - 1


def _write_numbers(ret: int, value: Any, targets: tuple[Any, ...]) -> int:
    if ret != SUCCESS:
        return ret
    values = value if isinstance(value, list) else [value]
    if len(values) != len(targets) or not all(isinstance(v, int) for v in values):
        return UNKNOWN
    for target, number in zip(targets, values, strict=True):
        _target(target).value = number
    return SUCCESS


def _write_text(ret: int, value: Any, text: Any, size: Any) -> int:
    if ret != SUCCESS:
        return ret
    encoded = str(value).encode()
    if len(encoded) >= _number(size):
        return INSUFFICIENT_SIZE
    text.value = encoded
    return SUCCESS
