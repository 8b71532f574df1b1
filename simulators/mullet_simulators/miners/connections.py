"""What every protocol of a miner shares: its open connections, and answers that leave late."""

from __future__ import annotations

import asyncio

from mullet_simulators.faults import SLOW_S, Fault


class Connections:
    """The open connections of one device, so that a dead one can drop them all."""

    def __init__(self) -> None:
        self._open: set[asyncio.Transport] = set()

    def add(self, transport: asyncio.Transport) -> None:
        """Remember a connection."""
        self._open.add(transport)

    def discard(self, transport: asyncio.Transport | None) -> None:
        """Forget a closed one."""
        if transport is not None:
            self._open.discard(transport)

    def abort(self) -> None:
        """Reset all."""
        for transport in list(self._open):
            transport.abort()


class DelayedWriter:
    """Writes an answer after the latency of network and device; cancelled with the connection."""

    def __init__(self, device_latency_s: float) -> None:
        self._latency_s = device_latency_s
        self._handle: asyncio.TimerHandle | None = None

    def write(self, transport: asyncio.Transport, body: bytes, fault: Fault, after_s: float, *, close: bool) -> None:
        """Send `body` after all delays, then close where asked."""
        after_s += self._latency_s + (SLOW_S if fault is Fault.SLOW else 0.0)
        if after_s <= 0.0:
            self._send(transport, body, close)
        else:
            loop = asyncio.get_running_loop()
            self._handle = loop.call_later(after_s, self._send, transport, body, close)

    def cancel(self) -> None:
        """The connection is gone."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _send(self, transport: asyncio.Transport, body: bytes, close: bool) -> None:
        self._handle = None
        if transport.is_closing():
            return
        transport.write(body)
        if close:
            transport.close()
