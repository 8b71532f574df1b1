"""One GPU through NVML: blocking calls, each meant for the thread of the GPU's lane.

Units on NVML's side are mW and MHz (NVIDIA nvml.h); ours are W and MHz.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from mullet.ports import (
    DeviceError,
    DeviceGarbled,
    DeviceRefused,
    DeviceUnreachable,
    Identity,
    IdentityMismatch,
    UnsafeWrite,
)
from mullet_hardware.gpu.defaults import DefaultsFile, FoundDefaults
from mullet_hardware.gpu.lane import Alive
from mullet_hardware.gpu.library import NvmlLibrary, Unsupported

T = TypeVar("T")

MILLI = 1_000.0
BELIEVABLE_WATTS = 20_000.0
"""No GPU draws this much: a larger number is no reading."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a GPU tells of itself; None where it does not tell."""

    watts: float | None
    limit_watts: float | None
    celsius: float | None
    uuid: str
    name: str | None


@dataclass(frozen=True, slots=True)
class Applied:
    """A limit that was written: what was asked, what was written, between which bounds, what is enforced so far."""

    asked_watts: float
    set_watts: float
    low_watts: float
    high_watts: float
    enforced_watts: float | None
    note: str = ""


def clocks_for(watts: float, table: int | Mapping[Any, Any] | None) -> int | None:
    """Return the MHz to which the clocks are locked at a limit of `watts`, or None for unlocked.

    `table` maps limits to MHz; the entry of the smallest limit not below `watts` counts, and above them all the
    clocks are free. One number locks at every limit.
    """
    if table is None:
        return None
    if not isinstance(table, Mapping):
        return int(table)
    steps = sorted((float(limit), int(mhz)) for limit, mhz in table.items())
    return next((mhz for limit, mhz in steps if watts <= limit + 1e-6), None)


class GpuDevice:
    """One GPU, found by index ("0"), UUID ("GPU-...") or the UUID of a MIG instance on it ("MIG-...")."""

    def __init__(
        self,
        library: NvmlLibrary,
        load_id: str,
        address: str,
        defaults: DefaultsFile,
        clocks_mhz: int | Mapping[Any, Any] | None,
    ) -> None:
        self._library = library
        self._who = f"{load_id} (GPU {address})"
        self._address = address
        self._defaults = defaults
        self._clocks_mhz = clocks_mhz
        self._handle: Any = None
        self._uuid = ""
        self._name: str | None = None
        self.warnings: tuple[str, ...] = ()
        self.asked_at = 0.0
        """When the call under way was asked for, Unix seconds: clocks are read in the event loop, not in threads."""

    def contact(self) -> str:
        """Find the GPU, remember its defaults if they were never seen, note what is amiss; return its UUID.

        Raises:
            DeviceError: it cannot be found.
        """
        uuid = self._found()
        if self._defaults.get(uuid) is None:
            warnings = list(self._persistence_warnings())
            try:
                self._remember(uuid)
            except (DeviceRefused, UnsafeWrite) as error:
                warnings.append(str(error))
            self.warnings = tuple(warnings)
        return uuid

    def identify(self) -> Identity:
        """Return UUID, name, VBIOS and driver version."""
        uuid = self.contact()
        nvml = self._library.nvml
        vbios = self._optional(lambda: str(nvml.nvmlDeviceGetVbiosVersion(self._handle)))
        driver = self._optional(lambda: str(nvml.nvmlSystemGetDriverVersion()))
        return Identity(
            identity=uuid,
            make="NVIDIA",
            model=self._ask(lambda: str(nvml.nvmlDeviceGetName(self._handle))),
            firmware=", ".join([*([f"VBIOS {vbios}"] if vbios else []), *([f"driver {driver}"] if driver else [])]),
        )

    def sample(self) -> Sample:
        """Return a fresh reading."""
        uuid = self.contact()
        nvml = self._library.nvml
        return Sample(
            watts=self._optional(lambda: self._watts(nvml.nvmlDeviceGetPowerUsage(self._handle))),
            limit_watts=self._optional(self.enforced_watts),
            celsius=self._celsius(),
            uuid=uuid,
            name=self._name,
        )

    def enforced_watts(self) -> float:
        """Return the limit in force: the one that was set, or a lower one that the board's controller holds."""
        nvml = self._library.nvml
        return self._ask(lambda: self._watts(nvml.nvmlDeviceGetEnforcedPowerLimit(self._handle)))

    def set_limit(self, watts: float | None, high_watts: float, pinned: str | None, alive: Alive) -> Applied:
        """Write a limit within the GPU's own bounds and below `high_watts`; None asks for the lowest there is.

        Raises:
            UnsafeWrite: the defaults are not safely remembered, or `watts` is no number.
            IdentityMismatch: another GPU than `pinned` answers.
            DeviceUnreachable: nobody waits for the answer any more; nothing was written.
        """
        self._writable(pinned)
        low, high = self._constraints()
        asked = low if watts is None else watts
        if not math.isfinite(asked):
            raise UnsafeWrite(f"{self._who}: a limit of {asked} W is no number")
        target = min(max(asked, low), max(low, min(high, high_watts)))
        if not alive():
            raise DeviceUnreachable(f"{self._who}: the deadline passed before the limit was written")
        nvml = self._library.nvml
        self._ask(lambda: nvml.nvmlDeviceSetPowerManagementLimit(self._handle, round(target * MILLI)))
        note = self._lock_clocks(clocks_for(target, self._clocks_mhz))
        return Applied(asked, target, low, high, self._after_write(), note)

    def restore(self, pinned: str | None, alive: Alive) -> Applied:
        """Put back the limit found at first contact, and free the clocks where this driver locks them."""
        uuid = self._writable(pinned)
        found = self._defaults.get(uuid)
        if found is None:
            raise UnsafeWrite(f"{self._who}: nothing is remembered of it")
        low, high = self._constraints()
        target = min(max(found.limit_watts, low), high)
        if not alive():
            raise DeviceUnreachable(f"{self._who}: the deadline passed before the limit was restored")
        nvml = self._library.nvml
        self._ask(lambda: nvml.nvmlDeviceSetPowerManagementLimit(self._handle, round(target * MILLI)))
        note = self._lock_clocks(None)
        return Applied(found.limit_watts, target, low, high, self._after_write(), note)

    # How it is done

    def _writable(self, pinned: str | None) -> str:
        uuid = self._found()
        if pinned is not None and pinned.casefold() != uuid.casefold() and pinned != self._address:
            raise IdentityMismatch(f"{self._who}: {uuid} answers where {pinned} is pinned")
        self._remember(uuid)
        return uuid

    def _found(self) -> str:
        self._library.start()
        if self._handle is None:
            nvml = self._library.nvml
            try:
                handle = self._ask(self._handle_by_address)
                self._handle = handle
                self._uuid = self._ask(lambda: str(nvml.nvmlDeviceGetUUID(handle)))
            except DeviceRefused as error:
                self._handle = None
                raise DeviceUnreachable(f"no such GPU: {error}") from None
            except DeviceError:
                self._handle = None
                raise
            # A GPU is read and limited also where it does not say what it is.
            with contextlib.suppress(DeviceError):
                self._name = self._ask(lambda: str(nvml.nvmlDeviceGetName(handle)))
        return self._uuid

    def _handle_by_address(self) -> Any:
        nvml = self._library.nvml
        if self._address.isdigit():
            return nvml.nvmlDeviceGetHandleByIndex(int(self._address))
        handle = nvml.nvmlDeviceGetHandleByUUID(self._address)
        # Limits and power belong to the whole GPU: an instance stands for its parent.
        if self._address.startswith("MIG-"):
            return nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
        return handle

    def _remember(self, uuid: str) -> None:
        if self._defaults.get(uuid) is None:
            nvml = self._library.nvml
            limit = self._ask(lambda: self._watts(nvml.nvmlDeviceGetPowerManagementLimit(self._handle)))
            self._defaults.remember(uuid, FoundDefaults(limit_watts=limit, found_at=self.asked_at))

    def _persistence_warnings(self) -> list[str]:
        nvml = self._library.nvml
        mode = self._optional(lambda: int(nvml.nvmlDeviceGetPersistenceMode(self._handle)))
        if mode == 0:
            return [f"{self._who}: persistence mode is off, the limit is lost when the driver unloads"]
        return []

    def _constraints(self) -> tuple[float, float]:
        nvml = self._library.nvml
        low, high = self._ask(lambda: tuple(nvml.nvmlDeviceGetPowerManagementLimitConstraints(self._handle)))
        low_watts, high_watts = self._watts(low), self._watts(high)
        if low_watts > high_watts:
            raise DeviceGarbled(f"{self._who}: limits from {low_watts:g} to {high_watts:g} W")
        return low_watts, high_watts

    def _lock_clocks(self, mhz: int | None) -> str:
        if self._clocks_mhz is None:
            return ""
        nvml = self._library.nvml
        try:
            if mhz is None:
                self._ask(lambda: nvml.nvmlDeviceResetGpuLockedClocks(self._handle))
                return "clocks free"
            self._ask(lambda: nvml.nvmlDeviceSetGpuLockedClocks(self._handle, mhz, mhz))
        except DeviceError as error:
            # The limit is written and bounds the draw by itself: the clocks only make it cheaper to keep.
            return f"clocks unchanged: {error}"
        return f"clocks locked at {mhz} MHz"

    def _after_write(self) -> float | None:
        try:
            return self.enforced_watts()
        except DeviceError:
            # The write happened; that the limit cannot be read back is for verification to judge.
            return None

    def _celsius(self) -> float | None:
        nvml = self._library.nvml
        sensor = nvml.NVML_TEMPERATURE_GPU

        def read() -> float:
            try:
                return float(nvml.nvmlDeviceGetTemperatureV(self._handle, sensor))
            except nvml.NVMLError_FunctionNotFound:
                return float(nvml.nvmlDeviceGetTemperature(self._handle, sensor))

        return self._optional(read)

    def _watts(self, milliwatts: Any) -> float:
        watts = float(milliwatts) / MILLI
        if not 0.0 <= watts <= BELIEVABLE_WATTS:
            raise DeviceGarbled(f"{self._who}: {watts:g} W is no reading")
        return watts

    def _optional(self, question: Callable[[], T]) -> T | None:
        try:
            return self._ask(question)
        except Unsupported:
            return None

    def _ask(self, question: Callable[[], T]) -> T:
        try:
            with self._library.errors(self._who):
                return question()
        except DeviceError as error:
            code = getattr(error, "nvml_code", None)
            if code is not None and self._library.restart_after(code):
                self._handle = None
            raise
