"""From what a host said to what it is: the decision table of identification. Pure, no sockets.

Firmwares of others keep the header of the maker's ("Type": "Antminer S19"), so that header alone decides nothing: a
stock Antminer is one only where RPC and web were both heard and neither names another firmware. Every other
firmware names itself somewhere; two names at one host are a contradiction and not a choice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

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
    MONITOR,
    VNISH,
    WHATSMINER_V2,
    WHATSMINER_V3,
)

FIRST_V3 = 20241101
"""Date in the version of the first Whatsminer firmware that speaks V3, as pyasic 0.79 draws the line."""
READS_ASK_PASSWORD = frozenset({ANTMINER_MODERN, ANTMINER_OLD, AURADINE, BRAIINS, MARATHON})
"""Classes whose identity is read with the password: a success shows that it is the right one."""
STOCK = "stock"
"""Looks as its maker's Antminer firmware does, which others copy."""
WHATSMINER = "whatsminer"
BOSMINER = "bosminer"

_NAMES_OVER_RPC: tuple[tuple[str, str], ...] = (
    ("BOSER", BRAIINS),
    ("BOSMINER", BOSMINER),
    ("LUXMINER", LUXOS),
    ("BTMINER", WHATSMINER),
    ("BITMICRO", WHATSMINER),
    ("WHATSMINER", WHATSMINER),
    ("KAONSU", MARATHON),
    ("AVALON", AVALON),
    ("GCMINER", AURADINE),
    ("FLUXOS", AURADINE),
    ("VNISH", VNISH),
    ("ANTHILLOS", VNISH),
    ("HIVEON", MONITOR),
    ("RWGLR", MONITOR),
    ("INTCHAINS_QOMO", MONITOR),
    ("KDAMINER", MONITOR),
    ("BFGMINER", MONITOR),
    ("INNOMINER", MONITOR),
)
_NAMES_ON_PAGE: tuple[tuple[str, str], ...] = (
    ("BRAIINS OS", BRAIINS),
    ("LUXOR FIRMWARE", LUXOS),
    ("LUXOS", LUXOS),
    ("ANTHILLOS", VNISH),
    ("VNISH", VNISH),
    ("AXEOS", AXEOS),
    ("MINER WEB DASHBOARD", EPIC),
    ("MINER UI", AURADINE),
    ("AVALON", AVALON),
    ("HIVEON", MONITOR),
    ("LUCKY MINER", MONITOR),
    ("CLOUD-BOX", MONITOR),
    ("DRAGONMINT", MONITOR),
    ("FLUMINER", MONITOR),
    ("<TITLE>用户界面</TITLE>", MONITOR),
)
_REALMS: tuple[tuple[str, str], ...] = (
    ('REALM="ANTMINER', STOCK),
    ('REALM="BLACKMINER', MONITOR),
    ('REALM="DAOGE', MONITOR),
)
_MODERN_BESIDES = frozenset({"D7", "D9", "E9", "HS3", "K7", "KA3", "KS3", "KS5", "L7", "L9", "Z15"})
"""Antminers other than S and T whose firmware has the interface of the X19."""


class Gap(StrEnum):
    """Why a probe brought nothing."""

    CLOSED = "closed"
    SILENT = "silent"
    GARBLED = "garbled"


@dataclass(frozen=True, slots=True)
class Page:
    """What a web port answered to GET /."""

    status: int
    challenge: str
    location: str
    text: str


@dataclass(slots=True)
class Heard:
    """Everything that one host said, and what it failed to say."""

    rpc: dict[str, str] = field(default_factory=dict)
    """Whole answers of port 4028, errors included, by command."""
    page: Page | None = None
    device_info: Mapping[str, Any] | None = None
    """`get.device.info` of port 4433."""
    capabilities: Mapping[str, Any] | None = None
    """ePIC's, over HTTP on the RPC's port."""
    system_info: Mapping[str, Any] | None = None
    """AxeOS's `/api/system/info`."""
    grpc: bool | None = None
    """Whether Braiins' gRPC port takes connections; a hint only."""
    gaps: dict[str, Gap] = field(default_factory=dict)
    """By probe: what brought nothing."""

    def doubtful(self, *probes: str) -> bool:
        """Return whether one of these probes hit an open port and brought nothing whole."""
        return any(self.gaps.get(probe) in (Gap.SILENT, Gap.GARBLED) for probe in probes)


class Standing(StrEnum):
    """What a host is to us."""

    MINER = "miner"
    WATCHED = "watched"
    """A miner for which this driver has no class of its own."""
    OTHER = "other"
    UNDECIDED = "undecided"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a host is by what it said; `classes` are to be confirmed in this order by the device's own reads."""

    standing: Standing
    classes: tuple[str, ...] = ()
    model: str = ""
    reason: str = ""


def names_over_rpc(heard: Heard) -> frozenset[str]:
    """Return every firmware that names itself over RPC; STOCK where only the maker's header was seen."""
    text = "\n".join(heard.rpc.values()).upper()
    found = {name for word, name in _NAMES_OVER_RPC if word in text}
    version = _object(heard.rpc.get("get_version", ""))
    if isinstance(version.get("Msg"), dict) and "fw_ver" in version["Msg"]:
        found.add(WHATSMINER)
    if heard.device_info is not None:
        found.add(WHATSMINER)
    if BRAIINS in found:
        found.discard(BOSMINER)
    if not found and ("BMMINER" in text or '"ANTMINER' in text):
        found.add(STOCK)
    return frozenset(found)


def names_on_web(heard: Heard) -> frozenset[str]:
    """Return every firmware that names itself over HTTP; STOCK where only the maker's realm was seen."""
    found: set[str] = set()
    if heard.capabilities is not None:
        found.add(EPIC)
    if heard.system_info is not None:
        found.add(AXEOS if "ASICModel" in heard.system_info else MONITOR)
    if heard.page is not None:
        text, realm = heard.page.text.upper(), heard.page.challenge.upper()
        found |= {name for word, name in _NAMES_ON_PAGE if word in text}
        if not found and heard.page.status == 401:
            found |= {name for word, name in _REALMS if word in realm}
        if (
            not found
            and "/CGI-BIN/LUCI" in text + heard.page.location.upper()
            and "HTTPS" in heard.page.location.upper()
        ):
            found.add(WHATSMINER)
    return frozenset(found)


def decide(heard: Heard) -> Verdict:
    """Return what the host is."""
    over_rpc, on_web = names_over_rpc(heard), names_on_web(heard)
    named = (over_rpc | on_web) - {STOCK}
    if BRAIINS in named:
        named -= {BOSMINER}
    model = model_of(heard)
    if len(named) > 1:
        return Verdict(Standing.UNDECIDED, (), model, f"names itself as {' and as '.join(sorted(named))}")
    if named:
        return _of_named(next(iter(named)), heard, model)
    if STOCK in over_rpc | on_web:
        return _of_stock(heard, over_rpc, on_web, model)
    if heard.doubtful(*heard.gaps):
        unheard = ", ".join(
            f"{probe} {gap.value}" for probe, gap in sorted(heard.gaps.items()) if gap is not Gap.CLOSED
        )
        return Verdict(Standing.UNDECIDED, (), model, f"brought nothing whole: {unheard}")
    if any('"STATUS"' in answer for answer in heard.rpc.values()):
        return Verdict(Standing.WATCHED, (), model, "speaks a miner's RPC and names no firmware known here")
    return Verdict(Standing.OTHER, (), model, "nothing that it said is a miner's")


def _of_named(name: str, heard: Heard, model: str) -> Verdict:
    if name == MONITOR:
        return Verdict(Standing.WATCHED, (), model, "names a firmware that is only watched")
    if name == WHATSMINER:
        return Verdict(Standing.MINER, _whatsminers(heard), model, "names itself")
    if name in (BOSMINER, BRAIINS) and heard.grpc is False:
        return Verdict(Standing.WATCHED, (), model, "a Braiins OS without gRPC")
    if name == BOSMINER:
        # The old daemon's name stays in answers of newer releases; only the open port tells them apart.
        return Verdict(Standing.MINER, (BRAIINS,), model, "names itself, and has gRPC")
    return Verdict(Standing.MINER, (name,), model, "names itself")


def _whatsminers(heard: Heard) -> tuple[str, ...]:
    version = _object(heard.rpc.get("get_version", "")).get("Msg")
    told = str(version.get("fw_ver", "")) if isinstance(version, dict) else ""
    if not told and heard.device_info is not None:
        system = heard.device_info.get("system")
        told = str(system.get("fwversion", "")) if isinstance(system, dict) else ""
    if told[:8].isdigit():
        return (WHATSMINER_V3,) if int(told[:8]) >= FIRST_V3 else (WHATSMINER_V2,)
    if heard.device_info is not None:
        return (WHATSMINER_V3, WHATSMINER_V2)
    return (WHATSMINER_V2, WHATSMINER_V3)


def _of_stock(heard: Heard, over_rpc: frozenset[str], on_web: frozenset[str], model: str) -> Verdict:
    """Return the verdict on the maker's header or realm without any other name."""
    if heard.doubtful("version", "stats", "page"):
        return Verdict(Standing.UNDECIDED, (), model, "looks like an Antminer, but one side of it was not heard")
    if STOCK not in on_web:
        # VNish and others answer RPC as the maker does: without the maker's own web interface it is not believed.
        return Verdict(
            Standing.UNDECIDED, (), model, "its RPC is an Antminer's, its web interface is none that is known"
        )
    if STOCK not in over_rpc:
        if heard.rpc:
            return Verdict(Standing.WATCHED, (), model, "has an Antminer's web interface and another miner's RPC")
        # The mining process rests and its RPC with it: only reads with the password tell these apart.
        return Verdict(Standing.MINER, (MARATHON, ANTMINER_MODERN), model, "an Antminer's web interface alone")
    kind = antminer_class(model)
    if kind is None:
        return Verdict(Standing.WATCHED, (), model, f"an Antminer of a kind not known here: {model[:40]!r}")
    return Verdict(Standing.MINER, (kind,), model, "RPC and web agree, and no other firmware is named")


def antminer_class(model: str) -> str | None:
    """Return the class of a stock Antminer by its type ("Antminer S19 Pro"); None for one that is not known."""
    match = re.search(r"ANTMINER\s+([A-Z]+)(\d+)", model.upper())
    if match is None:
        return None
    series, generation = match[1], int(match[2])
    if series in ("S", "T"):
        return ANTMINER_MODERN if generation >= 19 else ANTMINER_OLD
    if f"{series}{generation}" in _MODERN_BESIDES:
        return ANTMINER_MODERN
    return ANTMINER_OLD if series == "L" else None


def model_of(heard: Heard) -> str:
    """Return the model as the host tells it, "" where it does not."""
    for command, section, name in (
        ("version", "VERSION", "Type"),
        ("version", "VERSION", "PROD"),
        ("devdetails", "DEVDETAILS", "Model"),
        ("stats", "STATS", "Type"),
    ):
        entries = _object(heard.rpc.get(command, "")).get(section)
        if isinstance(entries, list) and entries and isinstance(entries[0], dict):
            told = entries[0].get(name)
            if isinstance(told, str) and told.strip():
                return told.strip()
    for fields, name in ((heard.capabilities, "Model"), (heard.system_info, "ASICModel"), (_miner(heard), "type")):
        told = None if fields is None else fields.get(name)
        if isinstance(told, str) and told.strip():
            return told.strip()
    return ""


def _miner(heard: Heard) -> Mapping[str, Any] | None:
    miner = None if heard.device_info is None else heard.device_info.get("miner")
    return miner if isinstance(miner, dict) else None


def _object(text: str) -> dict[str, Any]:
    """Return the JSON object in `text`, empty where it holds none (some firmwares leave commas out)."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
