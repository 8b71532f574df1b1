"""NVML as one object: a private copy of nvidia-ml-py, its library, and its errors in our words.

nvidia-ml-py keeps its library in a module global. A copy of the module per library lets the machine's own library
and a simulated one live in one process, and leaves the imported module as it is.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from mullet.ports import DeviceError, DeviceGarbled, DeviceRefused, DeviceUnreachable, NoPermission

ENTRY_POINT_GROUP = "mullet.nvml"
INIT_WAIT_S = 5.0

_AWAY = (
    "UNINITIALIZED",
    "NOT_FOUND",
    "DRIVER_NOT_LOADED",
    "TIMEOUT",
    "IRQ_ISSUE",
    "LIBRARY_NOT_FOUND",
    "GPU_IS_LOST",
    "RESET_REQUIRED",
    "OPERATING_SYSTEM",
    "LIB_RM_VERSION_MISMATCH",
    "IN_USE",
)
_FREE = "free copy of pynvml "
"""In sys.modules no import finds that name."""
_RELOAD = ("UNINITIALIZED", "DRIVER_NOT_LOADED", "GPU_IS_LOST", "RESET_REQUIRED", "UNKNOWN")


class Unsupported(DeviceRefused):
    """This GPU or this driver version has no such function."""


def find_library(spec: str) -> Any:
    """Return the class that stands in for the C library, built with its address ("name:address").

    Raises:
        ValueError: no installed package offers that name.
    """
    name, _, address = spec.partition(":")
    offered = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in offered:
        known = ", ".join(sorted(offered)) or "none"
        raise ValueError(f"nvml_library {spec!r}: no such library {name!r}; installed: {known}")
    return offered[name].load()(address)


class NvmlLibrary:
    """One initialised NVML. Every method blocks and belongs in a lane's thread."""

    def __init__(self, spec: str | None) -> None:
        self.spec = spec
        self._nvml: Any = None
        self._stand_in: Any = None
        self._ready = False
        self._lock = threading.Lock()

    @property
    def nvml(self) -> Any:
        """The module, once `start` has returned."""
        return self._nvml

    def start(self) -> None:
        """Load and initialise the library unless that is done.

        Raises:
            DeviceUnreachable: there is no library or no driver, or another thread hangs in it.
            ValueError: the library's name is unknown.
        """
        if self._ready:
            return
        if not self._lock.acquire(timeout=INIT_WAIT_S):
            raise DeviceUnreachable("NVML: another thread hangs while it initialises the library")
        try:
            if self._ready:
                return
            if self._nvml is None:
                self._nvml = _free_copy() or _copy_of_pynvml()
            with self.errors("NVML"):
                if self.spec is not None:
                    if self._stand_in is None:
                        self._stand_in = find_library(self.spec)
                    self._nvml.nvmlLib = self._stand_in
                self._nvml.nvmlInit()
            self._ready = True
        finally:
            self._lock.release()

    def stop(self) -> None:
        """Shut the library down. Raises DeviceError where it refuses."""
        if not self._ready:
            self._close_stand_in()
            return
        self._ready = False
        try:
            with self.errors("NVML"):
                self._nvml.nvmlShutdown()
        finally:
            self._close_stand_in()

    def release(self) -> None:
        """Hand the copy of the module on to the next library; only once stopped, and with no thread left inside.

        A copy is never freed (ctypes keeps pointer types for ever), so that each reload of a few GPUs cost 1.4 MB.
        """
        nvml, self._nvml = self._nvml, None
        if nvml is not None and not self._ready:
            nvml.nvmlLib = None
            nvml._nvmlGetFunctionPointer_cache.clear()
            sys.modules[f"{_FREE}{id(nvml)}"] = nvml

    def restart_after(self, code: int) -> bool:
        """Whether handles are worthless after this return code; the next `start` then initialises again."""
        if code not in {self._code(name) for name in _RELOAD}:
            return False
        if code in {self._code("UNINITIALIZED"), self._code("DRIVER_NOT_LOADED")}:
            self._ready = False
        return True

    @contextmanager
    def errors(self, who: str) -> Iterator[None]:
        """Turn what NVML raises into a DeviceError with its return code as `nvml_code`."""
        try:
            yield
        except self._nvml.NVMLError as error:
            raise self._translated(who, error) from None
        except (OSError, EOFError) as error:
            raise DeviceUnreachable(f"{who}: the NVML service does not answer: {error}") from None
        except (TypeError, ValueError, KeyError) as error:
            if self._stand_in is None and self.spec is not None:
                raise
            raise DeviceGarbled(f"{who}: not an NVML answer: {error}") from None

    def is_code(self, error: DeviceError, name: str) -> bool:
        """Whether `error` came from the return code NVML_ERROR_<name>."""
        return getattr(error, "nvml_code", None) == self._code(name)

    def _translated(self, who: str, error: Any) -> DeviceError:
        kinds: dict[int, type[DeviceError]] = {self._code(name): DeviceUnreachable for name in _AWAY}
        kinds |= {self._code("NO_PERMISSION"): NoPermission, self._code("UNKNOWN"): DeviceGarbled}
        kinds |= {self._code(name): Unsupported for name in ("NOT_SUPPORTED", "FUNCTION_NOT_FOUND")}
        translated = kinds.get(error.value, DeviceRefused)(f"{who}: {error}")
        translated.nvml_code = error.value  # type: ignore[attr-defined]
        return translated

    def _code(self, name: str) -> int:
        return int(getattr(self._nvml, f"NVML_ERROR_{name}"))

    def _close_stand_in(self) -> None:
        stand_in, self._stand_in = self._stand_in, None
        if self._nvml is not None and stand_in is not None:
            self._nvml.nvmlLib = None
            self._nvml._nvmlGetFunctionPointer_cache.clear()
        close = getattr(stand_in, "close", None)
        if callable(close):
            close()


def _free_copy() -> ModuleType | None:
    # Each is taken by one pop alone, which is atomic: lanes of several drivers may ask at once.
    for name in [name for name in list(sys.modules) if name.startswith(_FREE)]:
        module = sys.modules.pop(name, None)
        if module is not None:
            return module
    return None


def _copy_of_pynvml() -> ModuleType:
    found = importlib.util.find_spec("pynvml")
    if found is None or found.origin is None:
        raise DeviceUnreachable("NVML: the package nvidia-ml-py is not installed")
    name = f"pynvml_{id(found)}"
    spec = importlib.util.spec_from_file_location(name, found.origin)
    if spec is None or spec.loader is None:
        raise DeviceUnreachable("NVML: the package nvidia-ml-py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    # The module looks itself up by name while it is executed, and never again.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module
