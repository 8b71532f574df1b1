"""Every other miner that pyasic knows: watched through pyasic, never written to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyasic.miners.data import DataOptions

from mullet.domain.telemetry import LoadState
from mullet.ports import DeviceGarbled, DeviceRefused, DeviceUnreachable
from mullet_hardware.asic.capability import MONITOR
from mullet_hardware.asic.device import MOST_TH_PER_S, MOST_WATTS, Access, Answer, Found, IdentityPin, Order, number
from mullet_hardware.asic.protocol import Reading

# Two RPC commands at least: with one alone pyasic 0.79 asks for the same answer once per field.
FAST = [DataOptions.HASHRATE, DataOptions.WATTAGE, DataOptions.WATTAGE_LIMIT, DataOptions.POOLS]
WHO = [DataOptions.MAC, DataOptions.SERIAL_NUMBER, DataOptions.FW_VERSION]


class MonitoredMiner:
    """A miner of a class that this driver has no control of its own for."""

    def __init__(self, miner: Any, access: Access, pinned: str | None, now: Callable[[], float]) -> None:
        self.pin = IdentityPin(pinned, access.host, now)
        self._host = access.host
        self._miner = miner
        if access.password:
            for side in (miner.rpc, miner.web):
                if side is not None:
                    side.pwd = access.password

    async def identify(self) -> Found:
        """Return who answers."""
        data = await self._miner.get_data(include=list(WHO))
        identities = tuple(str(text).upper() for text in (data.mac, data.serial_number) if text)
        self.pin.saw(identities)
        self.pin.check()
        info = self._miner.device_info
        return Found(MONITOR, identities, str(info.make or ""), str(info.model or ""), str(data.fw_ver or ""))

    async def read(self) -> Reading:
        """Return a fresh reading. pyasic tells no failure apart from an absent field: all absent is no answer."""
        await self.pin.ensure(self._who)
        data = await self._miner.get_data(include=list(FAST))
        rate = data.raw_hashrate
        th_per_s = None
        if rate is not None:
            told = {"rate": float(rate.into(rate.unit.TH).rate)}
            th_per_s = number(told, "rate", 1.0, MOST_TH_PER_S, self._host)
        fields = {"watts": data.wattage, "limit": data.wattage_limit}
        watts = number(fields, "watts", 1.0, MOST_WATTS, self._host)
        limit_watts = number(fields, "limit", 1.0, MOST_WATTS, self._host)
        if th_per_s is None and watts is None and limit_watts is None:
            raise DeviceUnreachable(f"{self._host} told nothing")
        # pyasic's own `is_mining` is True where nothing is known, and stays so: only a hashrate is believed.
        state = LoadState.ACTIVE if th_per_s else None
        return Reading(watts=watts, limit_watts=limit_watts, state=state, th_per_s=th_per_s, identity=self.pin.pinned)

    async def poll(self) -> Reading:
        """Return a reading."""
        return await self.read()

    async def apply(self, order: Order) -> Answer:
        """Raise DeviceRefused: this miner is only watched."""
        raise DeviceRefused(f"{self._host}: {self._miner.model} is only watched")

    async def _who(self) -> tuple[str, ...]:
        data = await self._miner.get_data(include=list(WHO))
        found = tuple(str(text).upper() for text in (data.mac, data.serial_number) if text)
        if not found:
            raise DeviceGarbled(f"{self._host} answered without MAC and serial")
        return found
