"""Contactors over Modbus TCP: a coil that commands, an auxiliary contact that tells what happened."""

from __future__ import annotations

from collections.abc import Mapping
from types import EllipsisType
from typing import Any, ClassVar

from pymodbus.client import AsyncModbusTcpClient

from mullet.ports import DriverContext, SwitchError
from mullet_hardware.meter.gateway import GatewayError, Gateways

AGREES_EVERY_S = 0.1
LEAST_REQUEST_S = 0.05


class ModbusSwitch:
    """Commands all contactors that name it, one connection per gateway."""

    options_schema: ClassVar[Mapping[str, tuple[Any, Any | EllipsisType, str]]] = {
        "host": (str, ..., "address of the gateway"),
        "port": (int, 502, "TCP port of the gateway"),
        "unit": (int, ..., "Modbus unit id of the switch"),
        "coil": (int, 0, "coil that commands the contactor, 1 = closed"),
        "contact": (int, 0, "discrete input of the auxiliary contact, 1 = closed"),
    }

    def __init__(self, context: DriverContext) -> None:
        self._context = context
        self._gateways = Gateways()

    async def open(self) -> None:
        """Do nothing: connections are made by the first call."""

    async def close(self) -> None:
        """Drop all connections. Changes no contactor."""
        self._gateways.close()

    async def closed(self, switch_id: str, deadline_s: float) -> bool:
        """Return whether the auxiliary contact is closed.

        Raises:
            SwitchError: no answer in time, or the switch has no options.
        """
        options = self._options(switch_id)

        async def ask(client: AsyncModbusTcpClient) -> Any:
            return await client.read_discrete_inputs(
                int(options.get("contact", 0)), count=1, device_id=int(options["unit"])
            )

        answer = await self._request(switch_id, options, ask, deadline_s)
        if not answer.bits:
            raise SwitchError(f"switch {switch_id}: an answer without a bit")
        return bool(answer.bits[0])

    async def set_closed(self, switch_id: str, closed: bool, deadline_s: float) -> None:
        """Command the contactor and return once its auxiliary contact agrees.

        Raises:
            SwitchError: no answer, or the contact did not follow within the deadline.
        """
        options = self._options(switch_id)
        clock = self._context.clock
        ends_at = clock.monotonic() + deadline_s

        async def ask(client: AsyncModbusTcpClient) -> Any:
            return await client.write_coil(int(options.get("coil", 0)), closed, device_id=int(options["unit"]))

        await self._request(switch_id, options, ask, deadline_s)
        while (left_s := ends_at - clock.monotonic()) > LEAST_REQUEST_S:
            if await self.closed(switch_id, left_s) == closed:
                return
            await clock.sleep(min(AGREES_EVERY_S, max(0.0, ends_at - clock.monotonic())))
        wanted = "close" if closed else "open"
        raise SwitchError(f"switch {switch_id}: the contact did not {wanted} within {deadline_s:g} s")

    def _options(self, switch_id: str) -> Mapping[str, Any]:
        options = self._context.options.get(switch_id)
        if options is None:
            raise SwitchError(f"switch {switch_id}: no options are given for it")
        return options

    async def _request(self, switch_id: str, options: Mapping[str, Any], ask: Any, deadline_s: float) -> Any:
        try:
            gateway = self._gateways.at(str(options["host"]), int(options.get("port", 502)))
            return await gateway.request(ask, deadline_s)
        except GatewayError as error:
            raise SwitchError(f"switch {switch_id}: {error}") from None
