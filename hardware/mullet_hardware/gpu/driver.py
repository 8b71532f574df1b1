"""GPU power limits through NVML (nvidia-ml-py): whole GPUs, limits that the GPU itself enforces.

A limit set here has no lease: it stays until the next one, a reboot or an unloaded driver.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import EllipsisType
from typing import Any, ClassVar, TypeVar

from mullet.domain.command import Command, Receipt, Verb
from mullet.domain.load import Capability, LeaseHolder, Load, Steering
from mullet.domain.telemetry import LoadState, Telemetry
from mullet.ports import DeviceError, DeviceRefused, DeviceUnreachable, DriverContext, Identity, UnsafeWrite
from mullet_hardware.gpu.defaults import DefaultsFile
from mullet_hardware.gpu.device import Applied, GpuDevice
from mullet_hardware.gpu.lane import Alive, Lane
from mullet_hardware.gpu.library import NvmlLibrary

T = TypeVar("T")

FIRST_CONTACT_S = 2.0
SHUTDOWN_S = 3.0
READBACK_S = 1.0
"""How long the enforced limit is watched after a write before what it is by then is reported."""
READBACK_EVERY_S = 0.05
LIMIT_MATCHES_WATTS = 0.5
LEAST_READ_DEADLINE_S = 0.5

CAPABILITY = Capability(
    steering=Steering.CONTINUOUS,
    measures_watts=True,
    enforces_limit=True,
    ramp_down_s=2.0,
    ramp_up_s=2.0,
    lease=LeaseHolder.NONE,
)


class GpuDriver:
    """Serves the GPUs of all banks. Each GPU has a thread of its own, so one that hangs delays no other."""

    options_schema: ClassVar[Mapping[str, tuple[Any, Any | EllipsisType, str]]] = {
        "nvml_library": (str, None, 'stand-in for the NVML library as "name:address"; without it the machine\'s own'),
        "state_file": (str, None, "file in which limits found at first contact are remembered, by UUID"),
        "lock_clocks_mhz": (
            int | dict,
            None,
            "lock GPU clocks with the limit: one number of MHz, or a table from limit in watts to MHz",
        ),
    }

    def __init__(self, context: DriverContext) -> None:
        self._context = context
        self._clock = context.clock
        self._libraries: dict[str | None, NvmlLibrary] = {}
        self._defaults: dict[str | None, DefaultsFile] = {}
        self._gpus: dict[str, tuple[GpuDevice, Lane]] = {}
        self._open = False

    async def open(self, loads: Sequence[Load]) -> None:
        """Start a thread per GPU and greet each GPU; one that is away is no error. Changes no device.

        Raises:
            ValueError: an option names no library that is installed.
        """
        self._open = True
        for load in loads:
            self._gpu(load)
        greetings = [self._greet(*self._gpu(load)) for load in loads]
        outcomes = await asyncio.gather(*greetings, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                await self.close()
                raise outcome

    async def close(self) -> None:
        """End the threads and leave the library. Changes no device."""
        self._open = False
        gpus, self._gpus = self._gpus, {}
        libraries, self._libraries = self._libraries, {}
        self._defaults = {}
        ended = [lane.close() for _, lane in gpus.values()]
        # Leaving may wait for a call that hangs: that is done in a thread too, and given up in the end.
        for library in libraries.values():
            lane, stopped = Lane("NVML shutdown", self._clock), True
            try:
                await lane.call(lambda alive, library=library: library.stop(), SHUTDOWN_S)  # type: ignore[misc]
            except DeviceError:
                stopped = False
            finally:
                ended.append(lane.close())
            if stopped and all(ended):
                library.release()

    @classmethod
    def capability_for(cls, options: Mapping[str, Any]) -> Capability:
        """Return what NVML can do with the GPUs of any bank."""
        return CAPABILITY

    def capability(self, load: Load) -> Capability:
        """Return what NVML can do with any GPU."""
        return CAPABILITY

    def ailments(self) -> Mapping[str, str]:
        """Return what is amiss per load, such as persistence mode being off, in words."""
        return {load_id: "; ".join(gpu.warnings) for load_id, (gpu, _) in self._gpus.items() if gpu.warnings}

    async def identify(self, load: Load, deadline_s: float) -> Identity:
        """Return the GPU's UUID, name and versions."""
        gpu, lane = self._gpu(load)
        return await self._call(gpu, lane, lambda alive: gpu.identify(), deadline_s)

    async def read(self, load: Load, deadline_s: float) -> Telemetry:
        """Return power, the limit in force and temperature."""
        gpu, lane = self._gpu(load)
        sample = await self._call(gpu, lane, lambda alive: gpu.sample(), deadline_s)
        return Telemetry(
            load_id=load.id,
            at=self._clock.now(),
            watts=sample.watts,
            limit_watts=sample.limit_watts,
            state=LoadState.ACTIVE,
            celsius=sample.celsius,
            identity=sample.uuid,
            make=sample.name,
        )

    async def watch(self, loads: Sequence[Load], period_s: float) -> AsyncIterator[Telemetry]:
        """Yield readings of all `loads` until closed; a GPU that cannot be read comes with a fault."""
        arrived: asyncio.Queue[Telemetry] = asyncio.Queue(maxsize=max(1, 2 * len(loads)))
        tasks = [asyncio.create_task(self._poll(load, period_s, arrived), name=f"watch {load.id}") for load in loads]
        try:
            while True:
                yield await arrived.get()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def apply(self, load: Load, command: Command, deadline_s: float) -> Receipt:
        """Set the limit and say in `detail` what the GPU enforces by then.

        The limit is clamped to what the GPU allows and to the load's highest operating point.

        Raises:
            DeviceRefused: for `wake`, which no GPU needs, and whatever the GPU refuses.
            UnsafeWrite: the command is none for this load, is no number, or is outside the allow-list.
        """
        watts = self._asked_watts(load, command)
        high = max(load.highest.watts, load.lowest.watts)
        return await self._write(
            load, command.id, deadline_s, lambda gpu, alive: gpu.set_limit(watts, high, load.identity, alive)
        )

    async def restore_defaults(self, load: Load, deadline_s: float) -> Receipt:
        """Put back the limit found at first contact."""
        return await self._write(
            load, f"restore:{load.id}", deadline_s, lambda gpu, alive: gpu.restore(load.identity, alive)
        )

    # How it is done

    def _gpu(self, load: Load) -> tuple[GpuDevice, Lane]:
        if not self._open:
            raise DeviceUnreachable(f"{load.id}: the GPU driver is closed")
        if load.id not in self._gpus:
            options = self._context.options.get(load.bank, {})
            state_file = options.get("state_file")
            defaults = self._defaults.setdefault(state_file, DefaultsFile(Path(state_file) if state_file else None))
            spec = options.get("nvml_library")
            library = self._libraries.setdefault(spec, NvmlLibrary(spec))
            gpu = GpuDevice(library, load.id, load.address, defaults, options.get("lock_clocks_mhz"))
            self._gpus[load.id] = (gpu, Lane(f"GPU {load.id}", self._clock))
        return self._gpus[load.id]

    async def _call(self, gpu: GpuDevice, lane: Lane, function: Callable[[Alive], T], deadline_s: float) -> T:
        gpu.asked_at = self._clock.now()
        return await lane.call(function, deadline_s)

    async def _greet(self, gpu: GpuDevice, lane: Lane) -> None:
        try:
            await self._call(gpu, lane, lambda alive: gpu.contact(), FIRST_CONTACT_S)
        except DeviceError:
            # Being away is no reason not to start: every later call tries again and says why.
            return

    async def _poll(self, load: Load, period_s: float, arrived: asyncio.Queue[Telemetry]) -> None:
        while True:
            started = self._clock.monotonic()
            try:
                telemetry = await self.read(load, max(period_s, LEAST_READ_DEADLINE_S))
            except DeviceError as error:
                telemetry = Telemetry(load_id=load.id, at=self._clock.now(), fault=str(error))
            await arrived.put(telemetry)
            await self._clock.sleep(max(0.0, period_s - (self._clock.monotonic() - started)))

    def _asked_watts(self, load: Load, command: Command) -> float | None:
        if command.load_id != load.id:
            raise UnsafeWrite(f"{load.id}: the command is for {command.load_id}")
        if command.verb is Verb.POWER:
            return command.watts
        if command.verb is Verb.SLEEP:
            return None
        if command.verb is Verb.WAKE:
            raise DeviceRefused(f"{load.id}: a GPU is never off; give it a limit instead of waking it")
        raise UnsafeWrite(f"{load.id}: {command.verb!r} is nothing that may be asked of a device")

    async def _write(
        self, load: Load, command_id: str, deadline_s: float, write: Callable[[GpuDevice, Alive], Applied]
    ) -> Receipt:
        gpu, lane = self._gpu(load)
        started = self._clock.monotonic()
        applied = await self._call(gpu, lane, lambda alive: write(gpu, alive), deadline_s)
        enforced = applied.enforced_watts
        while enforced is not None and abs(enforced - applied.set_watts) > LIMIT_MATCHES_WATTS:
            spent_s = self._clock.monotonic() - started
            if spent_s + READBACK_EVERY_S >= min(READBACK_S, deadline_s):
                break
            await self._clock.sleep(READBACK_EVERY_S)
            try:
                enforced = await lane.call(lambda alive: gpu.enforced_watts(), max(0.01, deadline_s - spent_s))
            except DeviceError:
                enforced = None
        return Receipt(
            command_id=command_id, load_id=load.id, at=self._clock.now(), acked=True, detail=_told(applied, enforced)
        )


def _told(applied: Applied, enforced_watts: float | None) -> str:
    parts = [f"set {applied.set_watts:g} W"]
    if abs(applied.asked_watts - applied.set_watts) > LIMIT_MATCHES_WATTS:
        parts.append(f"asked {applied.asked_watts:g} W, GPU allows {applied.low_watts:g} to {applied.high_watts:g} W")
    parts.append("limit could not be read back" if enforced_watts is None else f"enforces {enforced_watts:g} W")
    return "; ".join([*parts, *([applied.note] if applied.note else [])])
