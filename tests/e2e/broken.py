"""`python broken.py none|guard|verify|pools FOLDER`: the small facility under a daemon that is broken on purpose.

What is broken lies outside the checker: it must see it in the truth alone.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from kit import DATA, write_scenario

from mullet.app.daemon import Running
from mullet.app.demo import DemoOptions, run_demo
from mullet.control.verify import verify
from mullet.domain.command import Evidence, Outcome, OutcomeKind
from mullet.domain.facility import Facility
from mullet.domain.plan import Desired, Plan
from mullet.domain.snapshot import Snapshot
from mullet.planning.accounting import CircuitAccount, account
from mullet.planning.allocate import allocate

SECONDS = 32.0
ENDLESS_W = 1e9
WORKER = "mullet_hardware.asic.worker"

start_process = asyncio.create_subprocess_exec

EVENTS: dict[str, Any] = {
    "banks": [
        {"id": "wm-ai", "number": 1, "circuit": "hall-ai", "model": "whatsminer-m50s", "count": 4},
        {"id": "wm-b", "number": 2, "circuit": "pdu-b1", "model": "whatsminer-m50s", "count": 8},
        {
            "id": "am-b",
            "number": 3,
            "circuit": "hall-b",
            "model": "antminer-s19",
            "count": 6,
            "hashing": 4,
            "ramp_scale": 0.2,
        },
    ],
    "services": [
        {
            "id": "code",
            "circuit": "hall-ai",
            "bank": "gpu",
            "gpus": 4,
            "gpu": {"idle_w": 70, "min_cap_w": 200, "max_cap_w": 700, "initial_cap_w": 230},
            "prompt_tokens_per_request": 900,
            "output_tokens_per_request": 300,
            "tokens_per_s_per_gpu": 2500,
            "demand": [{"at_s": 0.0, "requests_per_s": 7}, {"at_s": 5.0, "requests_per_s": 34}],
        }
    ],
    "price": {
        "base_per_mwh": 38.0,
        "interval_s": 12,
        "published_ahead": 2,
        "spikes": [{"start_s": 16.0, "end_s": 30.0, "price_per_mwh": 900.0}],
    },
    "faults": [{"load": "wm-b-003", "fault": "ignore"}, {"load": "am-b-002", "fault": "ignore"}],
}
"""A demand step beyond the room of its hall, then a price at which every miner is told to sleep; two lie.

The miners stop as slowly as real ones, so that power given away before they have stopped shows.
"""


def see_endless_room(facility: Facility, snapshot: Snapshot, advise: bool = False) -> Mapping[str, CircuitAccount]:
    """The cap sum of a daemon that believes every circuit to be endless."""
    return {
        name: replace(
            found,
            limit_watts=ENDLESS_W,
            target_limit_watts=ENDLESS_W,
            room_watts=ENDLESS_W,
            increases_allowed=True,
            why_not="",
        )
        for name, found in account(facility, snapshot, advise).items()
    }


def ignore_the_plan(
    facility: Facility,
    snapshot: Snapshot,
    accounts: Mapping[str, CircuitAccount],
    plan: Plan | None,
    advise: bool = False,
) -> Desired:
    """Place loads by merit in whatever room is believed to be there: the plan keeps to the true limits by itself."""
    return allocate(facility, snapshot, accounts, None, advise)


def believe_every_answer(facility: Facility, snapshot: Snapshot) -> tuple[Outcome, ...]:
    """The verification of a daemon for which an acknowledgement is evidence."""
    believed = []
    for load_id, entry in snapshot.ledger.entries.items():
        command = entry.command
        if not entry.pending or command is None or entry.receipt is None or not entry.receipt.acked:
            continue
        believed.append(
            Outcome(
                command_id=command.id,
                load_id=load_id,
                at=snapshot.at,
                kind=OutcomeKind.APPLIED,
                watts=command.watts,
                most_watts=command.most_after_watts,
                evidence=Evidence.READBACK,
                acked=True,
                detail="it said so",
            )
        )
    known = {outcome.load_id for outcome in believed}
    return (*believed, *(outcome for outcome in verify(facility, snapshot) if outcome.load_id not in known))


async def start_forgetful(*command: str, **options: Any) -> asyncio.subprocess.Process:
    """Start a process, and in the place of the miners' worker one that forgets pools."""
    if WORKER in command:
        command = (sys.executable, "-P", str(Path(__file__).with_name("forgetful_worker.py")), *command[-2:])
    return await start_process(*command, **options)


async def idle(running: Running) -> None:
    """Show nothing."""
    await running.stop.wait()


def main(what: str, folder: Path) -> None:
    """Break it, run it, print the graded summary."""
    broken: dict[str, dict[str, Any]] = {
        "none": {},
        "guard": {"mullet.control.decide.account": see_endless_room, "mullet.control.decide.allocate": ignore_the_plan},
        "verify": {"mullet.control.decide.verify": believe_every_answer},
        "pools": {"asyncio.create_subprocess_exec": start_forgetful},
    }
    scenario = write_scenario(folder / "scenario.yaml", **EVENTS)
    options = DemoOptions(
        seconds=SECONDS, port=0, policy=str(DATA / "policy.yaml"), scenario=str(scenario), keep=folder / "kept"
    )
    with ExitStack() as patches:
        for name, instead in broken[what].items():
            patches.enter_context(patch(name, instead))
        summary = asyncio.run(run_demo(options, idle))
    sys.stdout.write(json.dumps(summary) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
