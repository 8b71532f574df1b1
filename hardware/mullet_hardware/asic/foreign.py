"""Miners of makers that this driver has no class for: found and rebuilt through pyasic's factory, then only watched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pyasic import settings
from pyasic.miners.backends.btminer import BTMinerV3
from pyasic.miners.factory import MINER_CLASSES, MinerTypes, miner_factory

from mullet.ports import DeviceUnreachable
from mullet_hardware.asic.device import Access
from mullet_hardware.asic.firmware.monitor import MonitoredMiner

MOST_AT_ONCE = 16
"""pyasic's identification loses miners where more run at once."""
FACTORY_S = 10
V3_VERSION = "20250101"
"""Any version from which pyasic takes its V3 class."""


class Foreigners:
    """Identifies by pyasic what nothing else here knows."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        settings.update("factory_get_timeout", FACTORY_S)
        settings.update("factory_get_retries", 2)

    async def find(
        self, access: Access, pinned: str | None, now: Callable[[], float]
    ) -> tuple[MonitoredMiner, list[Any]]:
        """Return the miner at a host, to be watched, and the name under which `rebuild` finds its class again.

        Raises:
            DeviceUnreachable: pyasic does not know it either.
        """
        async with self._slots:
            miner = await miner_factory.get_miner(access.host)
        if miner is None:
            raise DeviceUnreachable(f"{access.host} was not identified")
        named = _name_of(miner)
        if named is None:
            raise DeviceUnreachable(f"{access.host}: {miner.model} is not a model that pyasic knows")
        return MonitoredMiner(miner, access, pinned, now), named


def rebuild(named: list[Any], access: Access, pinned: str | None, now: Callable[[], float]) -> MonitoredMiner | None:
    """Return the miner that `find` gave this name, without a word to the network; None where pyasic forgot it."""
    kind, model, version = named
    classes = MINER_CLASSES.get(MinerTypes[kind], {}) if kind in MinerTypes.__members__ else {}
    if model not in classes:
        return None
    return MonitoredMiner(classes[model](access.host, version), access, pinned, now)


def _name_of(miner: Any) -> list[Any] | None:
    """Return (type, model, version) from which the same class can be built; None for a model that is not known."""
    version = V3_VERSION if isinstance(miner, BTMinerV3) else None
    name = type(miner).__name__
    for kind, classes in MINER_CLASSES.items():
        for model, candidate in classes.items():
            if model is not None and candidate.__name__ == name:
                return [kind.name, model, version]
    return None
