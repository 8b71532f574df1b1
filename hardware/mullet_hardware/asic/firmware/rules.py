"""What may be written to a miner, and what its answers mean: pure rules, without a library or a socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mullet.domain.command import Verb
from mullet.domain.telemetry import LoadState
from mullet.ports import DeviceGarbled, DeviceRefused, UnsafeWrite
from mullet_hardware.asic.device import MOST_TH_PER_S, number, short, text_of

NORMAL, SLEEP, LOW = 0, 1, 3
"""Work modes of a stock Antminer."""
MODES_OF_POINTS = {"low": LOW, "full": NORMAL, "normal": NORMAL}
"""The modes that operating points of these names stand for."""


def merge(conf: Mapping[str, Any], mode: int, who: str) -> dict[str, Any]:
    """Return what to post so that only the mode changes.

    Raises:
        UnsafeWrite: `conf` is not a whole configuration, so that posting it could lose the pools.
    """
    if not has_pools(conf.get("pools")):
        raise UnsafeWrite(f"{who}: its configuration was read without a pool list; nothing is written")
    if "bitmain-work-mode" not in conf:
        raise UnsafeWrite(f"{who}: its configuration was read without a work mode; nothing is written")
    body = {name: conf[name] for name in ("bitmain-fan-ctrl", "bitmain-fan-pwm") if name in conf}
    return {
        **body,
        "freq-level": conf.get("bitmain-freq-level", "100"),
        "miner-mode": mode,
        "pools": conf["pools"],
    }


def has_pools(pools: object) -> bool:
    """Return whether this is a pool list with at least one URL."""
    if not isinstance(pools, list) or not all(isinstance(pool, dict) for pool in pools):
        return False
    return any(isinstance(pool.get("url"), str) and pool["url"].strip() for pool in pools)


def mode_of(conf: Mapping[str, Any], who: str) -> int:
    """Return the work mode of a configuration.

    Raises:
        DeviceGarbled: it holds none, or none that is known.
    """
    told = str(conf.get("bitmain-work-mode", ""))
    if told not in ("0", "1", "3"):
        raise DeviceGarbled(f"{who} (get_miner_conf) answered work mode {told[:80]!r}")
    return int(told)


def mode_to_write(verb: Verb, point: str, now: int, who: str) -> int | None:
    """Return the mode that an order to wake or for power asks for in mode `now`; None where nothing is to be written.

    Raises:
        DeviceRefused: no mode stands for that order, or it is one for a miner that is awake and this one is not.
    """
    wanted = MODES_OF_POINTS.get(point)
    if verb is Verb.WAKE:
        # Whoever wakes it to its low point must not find it at full.
        if wanted == LOW:
            return None if now == LOW else LOW
        # Waking what is awake would restart it.
        return None if now in (NORMAL, LOW) else NORMAL
    if wanted is None:
        raise DeviceRefused(f"{who} has modes by name only, and none for point {short(point)!r}")
    if now == SLEEP:
        raise DeviceRefused(f"{who} sleeps: an order for power does not wake it")
    return None if now == wanted else wanted


def antminer_rate(summary: Mapping[str, Any], who: str) -> float | None:
    """Return the fresh hashrate in TH/s of an Antminer's RPC summary, None where it tells none.

    Raises:
        DeviceGarbled: it is no hashrate.
    """
    for name, scale in (("GHS 5s", 1e-3), ("rate_5s", 1e-3), ("MHS 5s", 1e-6)):
        rate = number(summary, name, scale, MOST_TH_PER_S, who)
        if rate is not None:
            return rate
    return None


def antminer_identities(info: Mapping[str, Any], host: str) -> tuple[str, ...]:
    """Return MAC and serial number of an Antminer's system page.

    Raises:
        DeviceGarbled: it holds neither.
    """
    found = tuple(text for name in ("macaddr", "serinum") if (text := text_of(info, name).upper()))
    if not found:
        raise DeviceGarbled(f"{host} (get_system_info) answered without MAC and serial")
    return found


def state_by_mode(mode: int | None, th_per_s: float | None) -> LoadState | None:
    """Return the state that mode and fresh hashrate tell together; None where one of them is unknown."""
    if mode is None or th_per_s is None:
        return None
    if mode == SLEEP:
        return LoadState.STOPPING if th_per_s > 0.0 else LoadState.ASLEEP
    return LoadState.ACTIVE if th_per_s > 0.0 else LoadState.STARTING


def state_by_switch(off: bool | None, th_per_s: float | None) -> LoadState | None:
    """Return the state that switch and fresh hashrate tell together; None where they do not tell."""
    if off:
        return LoadState.STOPPING if th_per_s else LoadState.ASLEEP
    if th_per_s:
        return LoadState.ACTIVE
    if off is None or th_per_s is None:
        return None
    return LoadState.STARTING
