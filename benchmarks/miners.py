"""Ten thousand miners on two cores: polling, orders, faults, identification, beside stock pyasic and bare sockets."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.farms import Farms, farms, models_of, set_faults, spread_faults, web_port
from benchmarks.figures import Figure, at_least, at_most
from benchmarks.options import Options
from benchmarks.workers.process import PeerMissing, WorkerError, run_worker
from mullet.domain.load import Steering
from mullet_hardware.asic.driver import AsicDriver

_LIMIT_S = 1_800.0
_PER_POLL = ("whatsminer_v2", "luxos")
"""Firmwares that a bare `summary` over TCP can stand for."""
_POLL_FAULTS = {"dead": 0.017, "black_hole": 0.017, "hang": 0.016}
_SHED_FAULTS = {"dead": 0.02, "ignore": 0.02, "hang": 0.01}
_SHED_SHARE = 0.7
_FAST_S, _FAST_TAIL_S, _SLOW_S = 10.0, 30.0, 75.0
_SILENT_AFTER_S = 15.0


@dataclass(frozen=True, slots=True)
class _Size:
    """How large everything is."""

    full: bool = True
    """Whether the targets hold."""
    miners: int = 10_000
    processes: int = 4
    period_s: float = 9.0
    seconds: float = 60.0
    faulty_s: float = 60.0
    soak_s: float = 600.0
    sample: int = 40
    requests: int = 4_000
    one_firmware: int = 500
    settle_s: float = 10.0
    """Until what is asked once after the start has been asked."""
    shed_miners: int = 1_000
    shed_watched_s: float = 30.0
    shed_settle_s: float = 60.0
    """Until meters know what is normal with the faults: those that have no power have stopped drawing."""
    shed_s: float = 120.0
    shed_faults: Mapping[str, float] = field(default_factory=lambda: dict(_SHED_FAULTS))
    identified: int = 2_000
    identified_by_pyasic: int = 200


_FULL = _Size()
_QUICK = _Size(
    full=False, miners=600, processes=2, period_s=1.0, seconds=2.0, faulty_s=3.0, soak_s=0.0, sample=3, requests=600,
    one_firmware=200, settle_s=2.0, shed_miners=72, shed_watched_s=0.0, shed_settle_s=2.0, shed_s=8.0, identified=36,
    identified_by_pyasic=0,
)  # fmt: skip


def measure(options: Options) -> list[Figure]:
    """Return all figures of the miners' driver; the targets are those of the full size."""
    size = _QUICK if options.quick else _FULL
    if options.soak_s is not None:
        size = replace(size, soak_s=options.soak_s)
    models = models_of(_driven())
    found: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="mullet-miners-") as name:
        folder = Path(name)
        parts: tuple[tuple[str, Callable[[], list[Figure]]], ...] = (
            ("polling", lambda: _polling(size, models, folder)),
            ("cost of a poll", lambda: _per_poll(size, models, folder)),
            ("shedding", lambda: _shedding(size, models, folder)),
            ("identification", lambda: _identification(size, models, folder)),
        )
        for title, part in parts:
            sys.stderr.write(f"{title}\n")
            try:
                found += part()
            except (WorkerError, PeerMissing, OSError) as error:
                found.append(Figure(title, None, "", peer=f"could not run: {error}", failed=True))
    return found


def _driven() -> list[str]:
    """Return the firmware classes that the driver has a device for; pyasic is imported with them."""
    registry = importlib.import_module("mullet_hardware.asic.registry")
    return list(registry.DEVICES)


# Polling


def _polling(size: _Size, models: Mapping[str, str], folder: Path) -> list[Figure]:
    with farms(list(models.values()), size.miners, size.processes, folder) as fleet:
        asked = {"fleet": fleet.write(folder / "fleet.json"), "period_s": size.period_s, "seconds": size.seconds}
        asked |= {"faulty_seconds": size.faulty_s, "faults": _POLL_FAULTS, "soak_s": size.soak_s}
        peer = run_worker("pyasic_peer", {"fleet": fleet.first(size.sample).write(folder / "s.json"), "what": "data"},
                          _LIMIT_S)  # fmt: skip
        got = run_worker("miner_poll", asked, _LIMIT_S + size.soak_s)
    return [*_steady(size, len(models), got), *_faulty(size, got), *_soaked(got), *_against_pyasic(size, got, peer)]


def _steady(size: _Size, firmwares: int, got: dict[str, Any]) -> list[Figure]:
    full, calm = size.full, got["healthy"]
    name = f"{size.miners:,} miners of {firmwares} firmwares"
    rate = f"{calm['per_s']:.0f} polls/s by {got['workers']} workers; mean {calm['gap_mean_s']:.2f} s"
    within = at_most(10.0) if full else None
    failed = calm["faults"] + got["unread"]
    return [
        Figure(f"{name}: time between two readings, p99", calm["gap_p99_s"], "s", within, rate),
        Figure(f"{name}: age of telemetry, p99", calm["age_p99_s"], "s", at_most(15.0) if full else None,
               f"p50 {calm['age_p50_s']:.2f}, max {calm['age_max_s']:.2f} s"),
        Figure(f"{name}: polls that failed", failed, "", at_most(0), f"of {calm['polls']:,}"),
        Figure(f"{name}: resident memory of driver and workers", calm["rss_mib"], "MiB",
               at_most(600.0) if full else None),
        Figure(f"{name}: CPU of driver and workers", _cpu_s(calm) / calm["seconds"] * 100.0, "% of a core"),
        Figure(f"{name}: first sweep, devices built", got["first_sweep_s"], "s"),
    ]  # fmt: skip


def _cpu_s(phase: Mapping[str, Any]) -> float:
    return float(phase["workers_cpu_s"] + phase["driver_cpu_s"])


def _faulty(size: _Size, got: dict[str, Any]) -> list[Figure]:
    calm, sick = got["healthy"], got["faulty"]
    slower = (sick["gap_mean_s"] / calm["gap_mean_s"] - 1.0) * 100.0
    words = f"p99 {sick['gap_p99_s']:.2f} s, {calm['gap_p99_s']:.2f} before; age p99 {sick['age_p99_s']:.2f} s"
    share = got["faulted"] / size.miners * 100.0
    return [
        Figure(f"{share:.1f} % dead or half-open: cycle of the others, slower by", slower, "%", at_most(10.0), words),
        Figure("the same: CPU per poll", _cpu_s(sick) / sick["polls"] * 1e3, "ms", None, "failed ones included"),
    ]


def _soaked(got: dict[str, Any]) -> list[Figure]:
    if "soak" not in got:
        return []
    soak = got["soak"]
    grown = soak["late"] - soak["early"]
    minutes = soak["seconds"] / 60.0
    memory = (soak["late_mib"] / soak["early_mib"] - 1.0) * 100.0
    words = f"medians of first and last sixth, {soak['early']} and {soak['late']}; most {soak['most']}"
    return [
        Figure(f"descriptors, growth over {minutes:.0f} min with the faults", grown, "", at_most(10), words),
        Figure(f"memory, growth over {minutes:.0f} min with the faults", memory, "%", None,
               f"from {soak['early_mib']:.0f} MiB"),
    ]  # fmt: skip


def _against_pyasic(size: _Size, got: dict[str, Any], peer: dict[str, Any]) -> list[Figure]:
    ours_s = _cpu_s(got["healthy"]) / got["healthy"]["polls"]
    known = {name: item for name, item in peer["firmwares"].items() if "missing" not in item}
    theirs_s = sum(item["cpu_s"] for item in known.values()) / len(known)
    failed = sum(item["failed"] for item in known.values())
    words = f"{theirs_s * 1e3:.2f} ms by get_data() of {size.sample} each of {len(known)} firmwares"
    words += f", {failed} without data" if failed else ""
    figures = [
        Figure("CPU per miner and cycle, all firmwares", ours_s * 1e3, "ms", None, words, theirs_s / ours_s),
        Figure("stock pyasic get_data(), times more CPU", theirs_s / ours_s, "x",
               at_least(8.0) if size.full else None),
    ]  # fmt: skip
    for name, item in peer["firmwares"].items():
        value = item["cpu_s"] * 1e3 if "cpu_s" in item else None
        figures.append(Figure(f"stock pyasic get_data(), {name}", value, "ms", None, item.get("missing")))
    return figures


# What one poll costs


def _per_poll(size: _Size, models: Mapping[str, str], folder: Path) -> list[Figure]:
    found: list[Figure] = []
    # One shows that it works; the other costs the same time again.
    for firmware in _PER_POLL if size.full else _PER_POLL[:1]:
        if firmware not in models:
            found.append(Figure(f"CPU per poll, {firmware}", None, "ms", at_most(3.0), "the driver has no such class"))
            continue
        with farms([models[firmware]], size.one_firmware, 1, folder) as fleet:
            file = fleet.write(folder / "one.json")
            floor = run_worker("rpc_floor", {"fleet": file, "requests": size.requests}, _LIMIT_S)
            parts = run_worker("poll_parts", {"fleet": file, "polls": size.requests}, _LIMIT_S)
            asked = {"fleet": file, "period_s": 1.0, "seconds": min(20.0, size.seconds), "settle_s": size.settle_s}
            got = run_worker("miner_poll", asked, _LIMIT_S)
        found += _cost(size, firmware, floor, parts, got["healthy"])
    return found


def _cost(
    size: _Size, firmware: str, floor: Mapping[str, float], parts: Mapping[str, float], phase: Mapping[str, Any]
) -> list[Figure]:
    per_poll_s = _cpu_s(phase) / phase["polls"]
    least_s = min(floor["streams_s"], floor["protocol_s"])
    words = f"{least_s * 1e3:.3f} ms: the lesser of streams {floor['streams_s'] * 1e3:.3f} and "
    words += f"protocol {floor['protocol_s'] * 1e3:.3f}; uvloop {floor['uvloop_protocol_s'] * 1e3:.3f}"
    own_s = parts["whole_s"] - parts["wire_s"] - parts["parse_s"]
    around_s = phase["workers_cpu_s"] / phase["polls"] - parts["whole_s"]
    return [
        Figure(f"{firmware}: CPU per poll over the asyncio floor", per_poll_s / least_s, "x",
               at_most(3.0) if size.full else None, words),
        Figure(f"{firmware}: CPU per poll, worker and driver", per_poll_s * 1e3, "ms", None,
               f"{phase['per_s']:.0f} polls/s", least_s / per_poll_s),
        Figure(f"{firmware}: of it connection and kernel", parts["wire_s"] * 1e3, "ms", None,
               f"{parts['requests']:.2f} requests per poll, as fast as they go"),
        Figure(f"{firmware}: of it parsing JSON", parts["parse_s"] * 1e3, "ms"),
        Figure(f"{firmware}: of it the device's own code", own_s * 1e3, "ms"),
        Figure(f"{firmware}: of it schedule, rows to the driver, waking up", around_s * 1e3, "ms", None,
               "what is left in the worker"),
        Figure(f"{firmware}: of it the driver's process", phase["driver_cpu_s"] / phase["polls"] * 1e3, "ms"),
    ]  # fmt: skip


# Shedding


def _shedding(size: _Size, models: Mapping[str, str], folder: Path) -> list[Figure]:
    controlled = {name: model for name, model in models.items() if _sheds(name)}
    asked = {
        "folder": str(folder), "models": list(controlled.values()), "miners": size.shed_miners,
        "web_port": web_port(), "latency_ms": 150, "faults": dict(size.shed_faults), "share": _SHED_SHARE,
        "watched_s": size.shed_watched_s, "settle_s": size.shed_settle_s, "seconds": size.shed_s, "poll_s": 5.0,
    }  # fmt: skip
    got = run_worker("miner_shed", asked, _LIMIT_S)
    found = [*_proven(size, got), *_by_firmware(got)]
    return found if not size.full else found + _stopped_by_pyasic(size, controlled, got, folder)


def _sheds(firmware: str) -> bool:
    capability = AsicDriver.capability_for({"class": firmware})
    return capability.steering is not Steering.MONITOR and capability.interruptible


def _proven(size: _Size, got: dict[str, Any]) -> list[Figure]:
    fast = [tuple(item) for name in got["fast"] for item in got["verified"].get(name, [])]
    slow = [tuple(item) for name, items in got["verified"].items() if name not in got["fast"] for item in items]
    fast_w = sum(got["healthy_w"].get(name, 0.0) for name in got["fast"])
    slow_w = sum(watts for name, watts in got["healthy_w"].items() if name not in got["fast"])
    asked, live = got["asked_w"], got["live_w"]
    # An order is a ceiling so far below what all may draw; proven met once the most that may be drawn is under it.
    proven = got["ceiling_w"] + asked - got["counted_w"]
    counted = f"{got['counted_w'] / 1e6:.3f} MW counted at the end under a ceiling of {got['ceiling_w'] / 1e6:.3f}"
    words = f"{asked / 1e6:.2f} of {live / 1e6:.2f} MW live, {got['faults']} of {size.shed_miners:,} miners faulty"
    return [
        Figure("shed: power truly gone, of what was ordered", got["shed_w"] / asked * 100.0, "%",
               at_least(100.0) if size.full else None, words),
        Figure("shed: power proven gone, of what was ordered", proven / asked * 100.0, "%",
               at_least(100.0) if size.full else None, counted),
        Figure("shed: wrong claims, by the truth log", got["wrong_claims"], "", at_most(0),
               f"{got['false_acks_caught']} false acknowledgements were seen through"),
        _timed(size, "fast firmwares, 95 % of their MW proven after", _FAST_S, fast, 0.95 * fast_w),
        _timed(size, "fast firmwares, 99 % of their MW proven after", _FAST_TAIL_S, fast, 0.99 * fast_w),
        _timed(size, "slow firmwares, all of their MW proven after", _SLOW_S, slow, slow_w),
        Figure("shed: the whole order proven, substitutes included, after", got["met_s"], "s",
               at_most(_SLOW_S) if size.full else None, None if got["met_s"] is not None else f"never: {counted}"),
        Figure("shed: CPU of daemon and workers", got["daemon_cpu_s"] + got["workers_cpu_s"], "s", None,
               f"over {size.shed_s:.0f} s; {got['rss_mib']:.0f} MiB resident"),
    ]  # fmt: skip


def _timed(size: _Size, title: str, goal_s: float, items: Sequence[tuple[float, float]], watts: float) -> Figure:
    """Return when `watts` were proven; where they never were, how much was and by when."""
    had = sum(each for _, each in items)
    words = f"{len(items)} miners, {had / 1e6:.3f} MW of {watts / 1e6:.3f}"
    if had < watts - 1e-6 or not items:
        last = f", the last after {max(items)[0]:.1f} s" if items else ""
        return Figure(f"shed: {title}", None, "s", at_most(goal_s) if size.full else None, f"never: {words}{last}")
    return Figure(f"shed: {title}", when(items, watts), "s", at_most(goal_s) if size.full else None, words)


def _by_firmware(got: dict[str, Any]) -> list[Figure]:
    figures = []
    for name, items in got["verified"].items():
        pairs = [tuple(item) for item in items]
        ramp = f"ramp {got['ramp_down_s'][name]:g} s in the table"
        if not pairs:
            figures.append(Figure(f"shed: {name}", None, "s", None, f"none was shed; {ramp}"))
            continue
        had = sum(each for _, each in pairs)
        tail = ", ".join(f"p{share:g} {when(pairs, share / 100.0 * had):.1f}" for share in (50, 95, 99))
        healthy = got["healthy_w"][name]
        words = (
            f"{tail}; {len(pairs)} miners, {had / 1e6:.3f} MW of {healthy / 1e6:.3f} ordered of healthy ones; {ramp}"
        )
        figures.append(Figure(f"shed: {name}, last one proven after", max(pairs)[0], "s", None, words))
    return figures


def when(items: Sequence[tuple[float, float]], watts: float) -> float:
    """Return the seconds after which `watts` were reached, from pairs of seconds and watts.

    Raises:
        ValueError: they never were.
    """
    reached = 0.0
    for seconds, each in sorted(items):
        reached += each
        if reached >= watts - 1e-6:
            return seconds
    raise ValueError(f"{reached:.0f} of {watts:.0f} W were reached")


def _stopped_by_pyasic(size: _Size, models: Mapping[str, str], got: dict[str, Any], folder: Path) -> list[Figure]:
    order = sorted(models, key=lambda name: got["ramp_down_s"][name])
    with farms(list(models.values()), size.shed_miners, 1, folder, latency_ms=150.0) as fleet:
        _make_sick(fleet, size.shed_faults)
        asked = {"fleet": fleet.write(folder / "stop.json"), "what": "stop", "watts": got["asked_w"], "order": order}
        peer = run_worker("pyasic_peer", {**asked, "settle_s": _SILENT_AFTER_S}, _LIMIT_S)
    return [
        Figure("stock pyasic stop_mining(): until the last call returned", peer["seconds"], "s", None,
               f"{peer['asked']} miners, {peer['cpu_s']:.1f} s CPU, nothing verified"),
        Figure("stock pyasic stop_mining(): True of a miner that hashes on", peer["false"], "", None,
               f"and {peer['dead_acknowledged']} of dead ones; {peer['acknowledged']} times True in all"),
    ]  # fmt: skip


def _make_sick(fleet: Farms, faults: Mapping[str, float]) -> None:
    loads = [load for bank in fleet.banks for load in bank.loads]
    set_faults(fleet.banks, spread_faults(loads, dict(faults)))


# Identification


def _identification(size: _Size, models: Mapping[str, str], folder: Path) -> list[Figure]:
    full = size.full
    with farms(list(models.values()), size.identified, 1, folder, latency_ms=100.0) as fleet:
        got = run_worker("miner_identify", {"fleet": fleet.write(folder / "id.json")}, _LIMIT_S)
        peer = None
        if size.identified_by_pyasic:
            each = max(1, size.identified_by_pyasic // len(models))
            file = fleet.first(each).write(folder / "id-peer.json")
            peer = run_worker("pyasic_peer", {"fleet": file, "what": "identify"}, _LIMIT_S)
    worst = ", ".join(f"{count} {words}" for words, count in (*got["failures"].items(), *got["confusions"].items()))
    name = f"identification of {got['miners']:,} at 100 ms"
    figures = [
        Figure(f"{name}: right class", got["right"] / got["miners"] * 100.0, "%", at_least(100.0) if full else None,
               worst[:120] or None),
        Figure(f"{name}: lost", got["lost"], "", at_most(0) if full else None),
        Figure(f"{name}: time", got["seconds"], "s", None,
               f"{got['cpu_s'] / got['miners'] * 1e3:.2f} ms CPU each; {got['rss_mib']:.0f} MiB"),
    ]  # fmt: skip
    if peer is not None:
        words = f"{peer['wrong']} wrong, {peer['lost']} lost, in {peer['seconds']:.1f} s, 50 at once"
        figures.append(Figure(f"stock pyasic get_miner(), {peer['miners']} of them: right class",
                              peer["right"] / peer["miners"] * 100.0, "%", None, words))  # fmt: skip
    return figures
