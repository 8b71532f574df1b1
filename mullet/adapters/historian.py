"""Where measurements go: the file beside the journal, a time series server, or both."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from mullet.adapters.influx import InfluxHistorian as InfluxHistorian
from mullet.adapters.telemetry_store import TelemetryReader as TelemetryReader
from mullet.adapters.telemetry_store import TelemetryStore as TelemetryStore
from mullet.ports import Historian, HistorianError

logger = logging.getLogger(__name__)


class FanOut:
    """Gives every measurement to several historians; one that fails does not keep the others from theirs."""

    def __init__(self, historians: Sequence[Historian]) -> None:
        self._historians = tuple(historians)

    async def record(self, at: float, series: Mapping[str, Mapping[str, float]]) -> None:
        """Store the fields of one instant everywhere."""
        for historian in self._historians:
            try:
                await historian.record(at, series)
            except HistorianError as error:
                logger.warning("measurements are not stored: %s", error)

    async def close(self) -> None:
        """Close all at once."""
        outcomes = await asyncio.gather(*(historian.close() for historian in self._historians), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                logger.warning("a historian did not close: %s", outcome)
