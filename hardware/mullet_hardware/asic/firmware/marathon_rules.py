"""What Marathon's configuration means and what of it may be written: pure rules, without a library or a socket.

A write posts the whole configuration, pools among it. So it is the one that was just read, but for the mode.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from mullet.ports import DeviceGarbled, DeviceRefused, UnsafeWrite
from mullet_hardware.asic.device import MOST_TH_PER_S, MOST_WATTS, number, short
from mullet_hardware.asic.firmware.health_rules import MOST_CHIPS, at_work, entries, hottest, slowest
from mullet_hardware.asic.firmware.rules import has_pools
from mullet_hardware.asic.protocol import Health

AUTO, FIXED, STOCK, SLEEP = "Auto", "Fixed", "Stock", "Sleep"
AWAKE = frozenset({AUTO, FIXED, STOCK})
SELECTOR = "work-mode-selector"
TUNER, TUNED_BY, BY_POWER, TARGET = "concorde", "mode-select", "PowerTarget", "power-target"
TH_PER_S = {"PH/s": 1e3, "TH/s": 1.0, "GH/s": 1e-3, "MH/s": 1e-6}


def selector_of(conf: Mapping[str, Any], who: str) -> str:
    """Return the work mode of a configuration.

    Raises:
        DeviceGarbled: it holds none, or none that is known.
    """
    mode = conf.get("mode")
    told = mode.get(SELECTOR) if isinstance(mode, dict) else None
    if told != SLEEP and told not in AWAKE:
        raise DeviceGarbled(f"{who} (miner_config) answered work mode {short(told)!r}")
    return str(told)


def limit_of(conf: Mapping[str, Any], who: str) -> float | None:
    """Return the watts that it tunes itself to when awake, None where it does not.

    Raises:
        DeviceGarbled: they are no watts.
    """
    mode = conf.get("mode")
    tuner = mode.get(TUNER) if isinstance(mode, dict) else None
    if not isinstance(tuner, dict) or tuner.get(TUNED_BY) != BY_POWER or selector_of(conf, who) not in (AUTO, SLEEP):
        return None
    return number(tuner, TARGET, 1.0, MOST_WATTS, who)


def with_selector(conf: Mapping[str, Any], selector: str, who: str) -> dict[str, Any]:
    """Return what to post so that only the work mode changes.

    Raises:
        UnsafeWrite: `conf` is not a whole configuration, so that posting it could lose the pools.
    """
    body = _copy(conf, who)
    body["mode"][SELECTOR] = selector
    return body


def with_power(conf: Mapping[str, Any], watts: float, who: str) -> dict[str, Any]:
    """Return what to post so that it tunes itself to `watts`; one that sleeps goes on sleeping.

    Raises:
        UnsafeWrite: `conf` is not a whole configuration, so that posting it could lose the pools.
        DeviceRefused: it cannot tune itself, or not to these watts.
    """
    body = _copy(conf, who)
    if not isinstance(body["mode"].get(TUNER), dict):
        raise DeviceRefused(f"{who} has no tuner to be set in watts")
    target = math.floor(watts + 1e-6)
    if target < 1:
        raise DeviceRefused(f"{who} cannot be set to {watts:.0f} W")
    if body["mode"][SELECTOR] != SLEEP:
        body["mode"][SELECTOR] = AUTO
    body["mode"][TUNER] |= {TUNED_BY: BY_POWER, TARGET: target}
    return body


def changes_mode_only(read: Mapping[str, Any], posted: Mapping[str, Any]) -> bool:
    """Return whether `posted` is what was read, but for the work mode and the tuner's power target."""
    return has_pools(read.get("pools")) and _without_mode(read) == _without_mode(posted)


def mode_before_sleep(history: object) -> str | None:
    """Return the work mode that the newest change to sleep came from; None where the history does not tell.

    The history is a list, the oldest first, of objects with lists of changes under their times.
    """
    for entry in reversed(history if isinstance(history, list) else []):
        for changes in reversed(list(entry.values()) if isinstance(entry, dict) else []):
            for change in reversed(changes if isinstance(changes, list) else []):
                if not isinstance(change, dict) or change.get("to") != SLEEP:
                    continue
                if change.get("path") == ["Mode", "WorkModeSelector"] and change.get("from") in AWAKE:
                    return str(change["from"])
    return None


def hashrate_of(brief: Mapping[str, Any], who: str) -> float | None:
    """Return the hashrate in TH/s, which is its unit where none is given; None where it or its unit is unknown.

    Raises:
        DeviceGarbled: it is no hashrate.
    """
    unit = brief.get("hashrate_realtime_unit", brief.get("hashrate_unit", "TH/s"))
    scale = TH_PER_S.get(unit) if isinstance(unit, str) else None
    return None if scale is None else number(brief, "hashrate_realtime", scale, MOST_TH_PER_S, who)


def _copy(conf: Mapping[str, Any], who: str) -> dict[str, Any]:
    if not has_pools(conf.get("pools")):
        raise UnsafeWrite(f"{who}: its configuration was read without a pool list; nothing is written")
    selector_of(conf, who)
    return copy.deepcopy(dict(conf))


def _without_mode(conf: Mapping[str, Any]) -> dict[str, Any]:
    bare = copy.deepcopy(dict(conf))
    mode = bare.get("mode")
    if isinstance(mode, dict):
        mode.pop(SELECTOR, None)
        if isinstance(mode.get(TUNER), dict):
            for name in (TUNED_BY, TARGET):
                mode[TUNER].pop(name, None)
    return bare


def health_of(boards_told: Mapping[str, Any], fans_told: Mapping[str, Any], who: str) -> Health:
    """Return what the pages of boards and of fans tell; a place without a board has no chips.

    Raises:
        DeviceGarbled: they hold no boards or no fans.
    """
    places = entries(boards_told.get("hashboards"), "boards", f"{who} (hashboards)")
    fans = entries(fans_told.get("fans"), "fans", f"{who} (fans)")
    boards = [board for board in places if number(board, "asic_num", 1.0, MOST_CHIPS, who)]
    rates = [number(board, "hashrate_average", 1e-3, MOST_TH_PER_S, who) for board in boards]
    sensors = (board.get(name) for board in boards for name in ("temperature_chip", "temperature_pcb"))
    return Health(
        boards=at_work(rates),
        boards_fitted=len(boards),
        celsius=hottest(celsius for told in sensors if isinstance(told, list) for celsius in told),
        fan_rpm=slowest((fan.get("current_speed") for fan in fans), who),
    )
