"""The daemon itself on a simulated site: how soon an order to shed is carried out and proven, miner by miner.

The order is an operator's; the loop chooses, sends, reads back, asks the meters and finds substitutes as it always
does. What it claimed is then held against the simulator's truth log by the checker.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.farms import Bank, set_faults, spread_faults, truths
from benchmarks.sites import SUBNET, make_site
from benchmarks.workers.process import serve
from benchmarks.workers.processes import children, cpu_s, resident_mib
from mullet.app.claims import write_claims
from mullet.app.daemon import DaemonOptions, Running, run_daemon
from mullet.app.simulation import grade, start_simulation
from mullet.domain.facility import Mode
from mullet_hardware.asic.driver import AsicDriver
from mullet_simulators.miners.models import MODELS

READY_S = 60.0


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options: folder, models, miners, web_port, latency_ms, faults, share, watched_s, settle_s, seconds, poll_s.

    The daemon watches a healthy fleet for watched_s, then the faults begin, and the order comes settle_s later.
    """
    # The policy's default passwords are the simulator's; that they should be changed is no news here.
    logging.getLogger("mullet").setLevel(logging.ERROR)
    return asyncio.run(_measure(options))


async def _measure(options: Mapping[str, Any]) -> dict[str, Any]:
    folder = Path(options["folder"])
    site = make_site(options["models"], options["miners"], options["web_port"], options["poll_s"])
    scenario, policy, truth = folder / "site.json", folder / "policy.json", folder / "truth.jsonl"
    scenario.write_text(json.dumps(site.scenario), encoding="utf-8")
    policy.write_text(json.dumps(site.policy), encoding="utf-8")
    extra = ["--device-latency-ms", str(options["latency_ms"]), "--without", "nvml", "--without", "inference"]
    simulation = await start_simulation(str(scenario), truth, None, 0.0, extra)
    banks = [_moved(bank, simulation.subnet) for bank in site.banks]
    found: dict[str, Any] = {}

    async def beside(running: Running) -> None:
        found.update(await _shed(running, banks, options))

    try:
        moved = f"127.{simulation.subnet}."
        daemon = DaemonOptions(
            policy_path=policy,
            first_mode=Mode.AUTO,
            state=folder / "state",
            api_port=0,
            rewrite=lambda text: text.replace(f"127.{SUBNET}.", moved),
            handle_signals=False,
        )
        await run_daemon(daemon, beside)
    finally:
        await simulation.close()
    claims = folder / "claims.jsonl"
    await asyncio.to_thread(write_claims, folder / "state" / "journal.db", claims)
    report = await grade(truth, claims)
    found["wrong_claims"] = report["truth_mismatches"]
    found["false_acks_caught"] = report["false_acks"]
    found["outcomes"] = report["outcomes"]
    asked, verified = _verified(claims, found["ordered_at"])
    faulty = found.pop("faults")
    found["faults"] = len(faulty)
    found["healthy_w"] = {
        firmware: sum(
            watts_of(bank)
            for bank in banks
            if bank.firmware == firmware
            for load in bank.loads
            if load in asked and load not in faulty
        )
        for firmware in dict.fromkeys(bank.firmware for bank in banks)
    }
    found["verified"] = {
        bank.firmware: sorted(
            [verified[load], watts_of(other)]
            for other in banks
            if other.firmware == bank.firmware
            for load in other.loads
            if load in verified
        )
        for bank in banks
    }
    found["ramp_down_s"] = {bank.firmware: AsicDriver.capability_for(bank.options).ramp_down_s for bank in banks}
    found["fast"] = sorted({bank.firmware for bank in banks if AsicDriver.capability_for(bank.options).fast})
    return found


def _moved(bank: Bank, subnet: int) -> Bank:
    return Bank(bank.id, subnet, bank.number, bank.model, bank.count, bank.web_port)


async def _shed(running: Running, banks: list[Bank], options: Mapping[str, Any]) -> dict[str, Any]:
    controller, began = running.controller, time.monotonic()
    while not (controller.ready and controller.decision is not None):
        if time.monotonic() - began > READY_S:
            raise TimeoutError("the daemon did not begin to control")
        await asyncio.sleep(0.1)
    await asyncio.sleep(options["watched_s"])
    faults = spread_faults([load for bank in banks for load in bank.loads], options["faults"])
    await asyncio.to_thread(set_faults, banks, faults)
    await asyncio.sleep(options["settle_s"])
    live_w = _drawn(await asyncio.to_thread(truths, banks))
    asked_w = options["share"] * live_w
    pids = children(os.getpid())
    worked, cpu = cpu_s(pids), cpu_s(["self"])
    ordered_at = running.clock.now()
    await running.desk.shed(asked_w, None, "benchmark")
    met_s = None
    while (since_s := running.clock.now() - ordered_at) < options["seconds"]:
        await asyncio.sleep(0.1)
        decision = controller.decision
        if met_s is None and decision.snapshot.at > ordered_at:
            root = decision.accounts[controller.facility.root.id]
            if decision.snapshot.curtailments and root.sum_watts <= root.limit_watts:
                met_s = since_s
    left_w = _drawn(await asyncio.to_thread(truths, banks))
    account = controller.decision.accounts[controller.facility.root.id]
    return {
        "counted_w": account.sum_watts,
        "ceiling_w": account.limit_watts,
        "ordered_at": ordered_at,
        "met_s": met_s,
        "live_w": live_w,
        "asked_w": asked_w,
        "shed_w": live_w - left_w,
        "faults": faults,
        "workers_cpu_s": cpu_s(pids) - worked,
        "daemon_cpu_s": cpu_s(["self"]) - cpu,
        "rss_mib": resident_mib(["self", *pids]),
        "ticks_late_max_s": max(controller.jitter_s),
    }


def _drawn(truth: Mapping[str, Mapping[str, Any]]) -> float:
    return sum(float(load["watts"]) for load in truth.values())


def _verified(claims: Path, since: float) -> tuple[set[str], dict[str, float]]:
    """Return the loads told to sleep and, by load, the seconds from the order to the first proof that it is off.

    A meter may credit a load after its command was given up: that outcome names no command.
    """
    asked: set[str] = set()
    found: dict[str, float] = {}
    for line in claims.read_text(encoding="utf-8").splitlines():
        claim = json.loads(line)
        if claim["t"] < since:
            continue
        if claim["type"] == "command" and claim["verb"] == "sleep":
            asked.add(claim["load"])
        elif claim["type"] == "outcome" and claim["kind"] == "applied" and claim["load"] in asked:
            found.setdefault(claim["load"], claim["t"] - since)
    return asked, found


def watts_of(bank: Bank) -> float:
    """Return what one miner of the bank gives up by sleeping."""
    return MODELS[bank.model].watts - MODELS[bank.model].standby_w


if __name__ == "__main__":
    serve(measure)
