"""The one allow-list: what may be said to a miner at all, and the only place where a request can be made.

Every socket of this driver takes an `AllowedRequest`, and `allow` alone makes one. So no path, not even one through
pyasic's own methods, reaches pools, firmware, passwords or network settings. Two writes carry pools because the
devices demand it: stock Antminer's `set_miner_conf` and Marathon's `miner_config` take the whole configuration;
firmware/antminer.py and firmware/marathon.py let it out only with the pool list exactly as it was just read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from mullet.ports import UnsafeWrite
from mullet_hardware.asic.capability import (
    ANTMINER_MODERN,
    ANTMINER_OLD,
    AURADINE,
    AVALON,
    AXEOS,
    BRAIINS,
    EPIC,
    LUXOS,
    MARATHON,
    VNISH,
    WHATSMINER_V2,
    WHATSMINER_V3,
)


class Channel(StrEnum):
    """How a request travels."""

    RPC = "rpc"
    """JSON over TCP, cgminer's way or with a length in front; a command is its name."""
    WEB = "web"
    """HTTP; a command is method and path."""
    GRPC = "grpc"
    """HTTP/2; a command is the path of the method."""


UNKNOWN = "unknown"
"""A device of which nothing is known yet: it may be asked what it is."""


@dataclass(frozen=True, slots=True)
class Commands:
    """What may be sent over one channel to one firmware."""

    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class AllowedRequest:
    """One request that is on the list."""

    firmware: str
    channel: Channel
    command: str
    writes: bool
    payload: bytes


def _commands(reads: str, writes: str = "") -> Commands:
    return Commands(frozenset(reads.split(",")) - {""}, frozenset(writes.split(",")) - {""})


ALLOWED: Mapping[str, Mapping[Channel, Commands]] = MappingProxyType(
    {
        UNKNOWN: {
            Channel.RPC: _commands("version,devdetails,stats,get_version,get.device.info"),
            Channel.WEB: _commands("GET /,GET /capabilities,GET /api/system/info"),
        },
        ANTMINER_MODERN: {
            Channel.RPC: _commands("summary,stats"),
            Channel.WEB: _commands(
                "GET /,GET /cgi-bin/get_miner_conf.cgi,GET /cgi-bin/get_system_info.cgi,GET /cgi-bin/summary.cgi",
                "POST /cgi-bin/set_miner_conf.cgi",
            ),
        },
        ANTMINER_OLD: {
            Channel.RPC: _commands("summary,stats"),
            Channel.WEB: _commands("GET /cgi-bin/get_system_info.cgi"),
        },
        AVALON: {
            # After the colon the option, which decides what the command does.
            Channel.RPC: _commands(
                "version,summary,litestats,estats,stats",
                "ascset:softoff,ascset:softon,ascset:workmode,ascset:worklevel",
            ),
        },
        AXEOS: {
            Channel.WEB: _commands("GET /api/system/info"),
        },
        EPIC: {
            Channel.WEB: _commands("GET /summary,GET /capabilities,GET /network", "POST /miner"),
        },
        MARATHON: {
            Channel.WEB: _commands(
                "GET /kaonsu/v1/brief,GET /kaonsu/v1/overview,GET /kaonsu/v1/miner_config,"
                "GET /kaonsu/v1/hashboards,GET /kaonsu/v1/fans,GET /kaonsu/v1/log?type=miner_config_history",
                "POST /kaonsu/v1/miner_config",
            ),
        },
        VNISH: {
            Channel.WEB: _commands(
                "GET /,GET /api/v1/info,GET /api/v1/status,GET /api/v1/summary,GET /api/v1/perf-summary,"
                "GET /api/v1/settings,GET /api/v1/autotune/presets,POST /api/v1/unlock",
                "POST /api/v1/mining/stop,POST /api/v1/mining/start,POST /api/v1/mining/restart,POST /api/v1/settings",
            ),
        },
        BRAIINS: {
            Channel.RPC: _commands("version,summary,tunerstatus,temps,devs,fans"),
            Channel.GRPC: _commands(
                "/braiins.bos.v1.AuthenticationService/Login,/braiins.bos.v1.MinerService/GetMinerDetails,"
                "/braiins.bos.v1.MinerService/GetMinerStats,/braiins.bos.v1.PerformanceService/GetTunerState",
                "/braiins.bos.v1.ActionsService/PauseMining,/braiins.bos.v1.ActionsService/ResumeMining,"
                "/braiins.bos.v1.PerformanceService/SetPowerTarget",
            ),
        },
        WHATSMINER_V2: {
            Channel.RPC: _commands(
                "summary,status,devs,devdetails,get_version,get_miner_info,get_error_code,get_token",
                "power_off,power_on,set_power_pct",
            ),
        },
        AURADINE: {
            # What may be posted to the mode is bounded in firmware/auradine.py.
            Channel.RPC: _commands("summary,devs"),
            Channel.WEB: _commands("GET /ipreport,GET /mode,GET /psu,GET /fan", "POST /token,POST /mode"),
        },
        LUXOS: {
            # After the colon the argument, where it decides what the command does.
            Channel.RPC: _commands(
                "version,summary,power,config,temps,profiles,atm,session,devs,fans,events",
                "logon,logoff,curtail:sleep,curtail:wakeup,profileset,atmset",
            ),
        },
        WHATSMINER_V3: {
            # After the colon the argument, where it decides what the command does.
            Channel.RPC: _commands(
                "get.device.info,get.miner.status:summary,get.miner.status:summary+edevs",
                "set.miner.service:stop,set.miner.service:start,set.miner.power_percent",
            ),
        },
    }
)


def allow(firmware: str, channel: Channel, command: str, payload: bytes = b"") -> AllowedRequest:
    """Return the request to be sent; `command` may join several reads of the RPC with "+".

    Raises:
        UnsafeWrite: it is not on the list, so that nothing is sent.
    """
    listed = ALLOWED.get(firmware, {}).get(channel, Commands())
    if command in listed.writes:
        return AllowedRequest(firmware, channel, command, True, payload)
    parts = command.split("+") if channel is Channel.RPC and command not in listed.reads else [command]
    if not all(part in listed.reads for part in parts):
        raise UnsafeWrite(f"{command} is not among the commands that may be sent to {firmware}")
    return AllowedRequest(firmware, channel, command, False, payload)
