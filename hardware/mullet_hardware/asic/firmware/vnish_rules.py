"""What VNish's answers mean and what may be written to it: pure rules, without a library or a socket.

Names of fields and states after VNish's API document (firmware 1.2), as published by its users.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mullet.domain.telemetry import LoadState
from mullet.ports import DeviceGarbled, DeviceRefused, UnsafeWrite
from mullet_hardware.asic.device import MOST_TH_PER_S, MOST_WATTS, number, text_of
from mullet_hardware.asic.firmware.health_rules import at_work, entries, errors_of, hottest, slowest
from mullet_hardware.asic.protocol import Health

RUNS = frozenset({"mining", "auto-tuning"})
STARTS = frozenset({"initializing", "starting", "restarting"})
STOPS = "shutting-down"
STOPPED = "stopped"
FAILED = "failure"
WATTS_SLACK = 0.5
_PRETTY = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*watts?\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Preset:
    """An overclocking preset with what it draws at most, in watts."""

    name: str
    watts: float


def state_of(told: str, th_per_s: float | None) -> LoadState | None:
    """Return the state that `miner_state` and fresh hashrate tell together; None where they do not tell.

    A miner that says "failure" is neither at work nor asleep: its firmware starts it again by itself.
    """
    if told == STOPPED:
        return LoadState.STOPPING if th_per_s else LoadState.ASLEEP
    if told == STOPS:
        return LoadState.STOPPING
    if told in STARTS:
        return LoadState.STARTING
    if told not in RUNS or th_per_s is None:
        return None
    return LoadState.ACTIVE if th_per_s > 0.0 else LoadState.STARTING


def preset_watts(preset: Mapping[str, Any]) -> float | None:
    """Return the watts of a preset, the larger where name and description differ; None where neither tells them."""
    told = _PRETTY.match(text_of(preset, "pretty"))
    name = text_of(preset, "name")
    found = [float(told[1])] if told else []
    if name.isascii() and name.isdigit():
        found.append(float(name))
    watts = max(found, default=0.0)
    return watts if 0.0 < watts <= MOST_WATTS else None


def overclock_of(settings: Mapping[str, Any], who: str) -> dict[str, Any]:
    """Return `miner.overclock` of the settings that were read.

    Raises:
        UnsafeWrite: there is none, so that it is not known what a write would change.
    """
    miner = settings.get("miner")
    overclock = miner.get("overclock") if isinstance(miner, dict) else None
    preset = overclock.get("preset") if isinstance(overclock, dict) else None
    # Some releases tell the name as a number.
    if not isinstance(overclock, dict) or isinstance(preset, bool) or not isinstance(preset, str | int):
        raise UnsafeWrite(f"{who}: its settings were read without a preset; nothing is written")
    return {**overclock, "preset": str(preset)}


def choose_preset(presets: Iterable[Any], overclock: Mapping[str, Any], watts: float, who: str) -> Preset:
    """Return the highest preset at or below `watts` that is tuned and that this power supply can carry.

    An untuned one would be tuned first, which takes hours and draws what it likes.

    Raises:
        DeviceRefused: there is none, or the firmware changes presets by itself and may go above it.
        DeviceGarbled: the list is none of presets.
    """
    fitting: list[Preset] = []
    for preset in presets:
        if not isinstance(preset, dict) or not text_of(preset, "name"):
            raise DeviceGarbled(f"{who} answered something else than presets")
        draws = preset_watts(preset)
        if draws is None or draws > watts + WATTS_SLACK or text_of(preset, "status") != "tuned":
            continue
        if preset.get("modded_psu_required") is not False and overclock.get("modded_psu") is not True:
            continue
        fitting.append(Preset(text_of(preset, "name"), draws))
    if not fitting:
        raise DeviceRefused(f"{who} has no tuned preset at or below {watts:.0f} W")
    switcher = overclock.get("preset_switcher")
    if isinstance(switcher, dict) and switcher.get("enabled"):
        top = text_of(switcher, "top_preset")
        highest = preset_watts({"name": top})
        if highest is None or highest > watts + WATTS_SLACK:
            raise DeviceRefused(f"{who} changes presets by itself (preset switcher), up to {top or 'any'}")
    return max(fitting, key=lambda preset: preset.watts)


def preset_body(name: str) -> dict[str, Any]:
    """Return the least that sets a preset: every other setting, pools among them, is left out and so left alone."""
    return {"miner": {"overclock": {"preset": name}}}


def health_of(miner: Mapping[str, Any], who: str) -> Health:
    """Return what the summary's `miner` tells of boards, fans and failures, its `miner_status` being an object.

    Raises:
        DeviceGarbled: boards or fans are something else.
    """
    chains = entries(miner.get("chains", []), "boards", who)
    cooling = miner.get("cooling")
    fans = entries(cooling.get("fans", []), "fans", who) if isinstance(cooling, dict) else []
    fitted = [chain for chain in chains if _state_of_chain(chain) != "disconnected"]
    return Health(
        boards=at_work([_rate_of_chain(chain, who) for chain in fitted]),
        boards_fitted=len(fitted) if chains else None,
        celsius=hottest(each["max"] for each in _ranges(miner, fitted) if "max" in each),
        fan_rpm=slowest((fan.get("rpm") for fan in fans), who),
        errors=errors_of(_failures(miner["miner_status"], chains, fans)),
    )


def _state_of_chain(chain: Mapping[str, Any]) -> str:
    status = chain.get("status")
    return text_of(status, "state") if isinstance(status, dict) else ""


def _rate_of_chain(chain: Mapping[str, Any], who: str) -> float | None:
    told = (number(chain, name, 1e-3, MOST_TH_PER_S, who) for name in ("hashrate_rt", "hr_realtime"))
    return next((rate for rate in told if rate is not None), None)


def _ranges(miner: Mapping[str, Any], chains: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    for each in (miner, *chains):
        if isinstance(found := each.get("chip_temp"), dict):
            yield found


def _failures(
    status: Mapping[str, Any], chains: Iterable[Mapping[str, Any]], fans: Iterable[Mapping[str, Any]]
) -> Iterable[str]:
    if text_of(status, "miner_state") == FAILED:
        yield f"{status.get('failure_code', '')} {text_of(status, 'description') or FAILED}"
    for chain in chains:
        if _state_of_chain(chain) == FAILED:
            yield f"board {chain.get('id', '')}: {text_of(chain['status'], 'description') or FAILED}"
    for fan in fans:
        if text_of(fan, "status") == "lost":
            yield f"fan {fan.get('id', '')}: lost"
