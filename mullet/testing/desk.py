"""A made-up facility behind `ports.Operations`: moving numbers for tests of page, terminal and API."""

from __future__ import annotations

import asyncio
import difflib
import math
from collections.abc import AsyncIterator, Mapping
from typing import Any

from mullet.domain.facility import Mode
from mullet.domain.snapshot import Hold, HoldKind

MAKE = "Antminer S19j Pro / luxos"
MINERS, GPUS = 96, 160
LIMIT_W = 480_000.0
_HALLS = {"hall-a": 48, "hall-b": 48}


class MadeUpDesk:
    """Keeps what it was ordered in `orders`; `tick` moves the made-up day on by one second."""

    def __init__(self, at: float, facility_id: str = "demo") -> None:
        """`at` is the Unix time of the first tick."""
        self.facility_id = facility_id
        self.at = at
        self.ticks = 0
        self.mode = Mode.AUTO
        self.holds: list[Hold] = []
        self.orders: list[tuple[Any, ...]] = []
        self.alarms: dict[str, tuple[str, float]] = {}
        self.subscribers: set[asyncio.Queue[Mapping[str, Any]]] = set()
        self.reload_error: Exception | None = None
        self._recent: list[dict[str, Any]] = []
        self._cap = 1.0

    # What moves

    def tick(self) -> None:
        """Move on by one second and tell whoever listens."""
        self.at += 1.0
        self.ticks += 1
        cap = 0.35 if self.price > 120.0 else 1.0
        if cap != self._cap:
            self._cap = cap
            text = "price above break-even: 62 miners asleep" if cap < 1.0 else "price below break-even: miners wake"
            self.note("decision", text)
        status = self.status()
        for queue in self.subscribers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(status)

    def note(self, kind: str, text: str) -> None:
        """Add to what happened of late."""
        self._recent.insert(0, {"at": self.at, "kind": kind, "text": text})
        del self._recent[50:]

    @property
    def price(self) -> float:
        """Price now: low, with a spike of a minute every four."""
        step = math.floor(self.ticks / 15)
        spike = 190.0 if step % 16 in (9, 10, 11, 12) else 0.0
        return round(38.0 + 9.0 * math.sin(step / 3.0) + 4.0 * math.sin(step * 1.7) + spike, 2)

    def _gpu_watts(self) -> float:
        wave = 0.62 + 0.22 * math.sin(self.ticks / 70.0) + 0.06 * math.sin(self.ticks / 9.0)
        return round(700.0 * max(0.25, min(1.0, wave)), 1)

    def _asleep(self, number: int) -> bool:
        return number >= MINERS * self._cap

    # ports.Operations

    def status(self) -> dict[str, Any]:
        """Return a status as `control.status.facility_status` does."""
        rows = self.loads()
        drawn = {kind: sum(row["watts"] or 0.0 for row in rows if row["kind"] == kind) for kind in ("miner", "gpu")}
        unmanaged = 9_500.0 + 1_200.0 * math.sin(self.ticks / 40.0)
        meter = drawn["miner"] + drawn["gpu"] + unmanaged
        halls = {
            name: sum(row["watts"] or 0.0 for row in rows if row["circuit"] == name) for name in (*_HALLS, "hall-ai")
        }
        return {
            "facility": self.facility_id,
            "at": self.at,
            "mode": self.mode.value,
            "currency": "USD",
            "price_per_mwh": self.price,
            "hashprice_per_ph_day": 46.2,
            "power_w": {**drawn, "total": sum(drawn.values()), "meter": meter},
            "headroom_w": LIMIT_W - 1.04 * meter,
            "plan": {
                "id": f"plan-{self.ticks // 60}",
                "rung": "optimal",
                "valid_until": self.at + 240.0 - self.ticks % 60,
            },
            "pending": 3 if self.ticks % 20 < 4 else 0,
            "loads": {"miners": MINERS, "gpus": GPUS},
            "faults": {row["id"]: row["fault"] for row in rows if row["fault"] is not None},
            "circuits": {
                "grid": _circuit(None, LIMIT_W, 1.04 * meter, meter, 0.4, "economic" if self._cap < 1.0 else None),
                "mining": _circuit("grid", 380_000.0, 1.05 * drawn["miner"], 1.01 * drawn["miner"], 0.6, None),
                "hall-a": _circuit("mining", 185_000.0, 1.05 * halls["hall-a"], halls["hall-a"], 0.7, None),
                "hall-b": _circuit("mining", 185_000.0, 1.05 * halls["hall-b"], None, None, None),
                "hall-ai": _circuit("grid", 118_000.0, 1.02 * halls["hall-ai"], halls["hall-ai"], 0.3, None),
            },
            "services": {
                "chat": _service(0.58 * drawn["gpu"], 66_000.0, 4 + self.ticks % 5, 41, 18_400.0),
                "batch": _service(0.36 * drawn["gpu"], 42_000.0, 120 + self.ticks % 30, 16, 7_900.0),
            },
            "holds": [
                {"id": h.id, "target": h.target, "kind": h.kind.value, "owner": h.owner, "reason": h.reason}
                for h in self.holds
            ],
            "curtailments": [
                {
                    "id": "dr-0711",
                    "circuit": "grid",
                    "limit_w": 250_000.0,
                    "cause": "demand_response",
                    "start": self.at + 1_500.0,
                    "end": self.at + 5_100.0,
                }
            ],
            "alarms": [{"key": key, "text": text, "since": since} for key, (text, since) in self.alarms.items()],
            "ready": True,
            "ticks": self.ticks,
            "in_flight": 0,
        }

    def loads(self) -> list[dict[str, Any]]:
        """Return rows as `control.status.loads_status` does."""
        gpu_watts = self._gpu_watts()
        rows = []
        for number in range(MINERS):
            hall = "hall-a" if number < _HALLS["hall-a"] else "hall-b"
            asleep, silent = self._asleep(number), number == 17
            held = any(hold.target == f"{hall}-{number:03}" for hold in self.holds)
            watts = 20.0 if asleep else 3_400.0 + 40.0 * math.sin(number + self.ticks / 11.0)
            rule = "held by an operator" if held else "economic: sleeps above 112.40 USD/MWh" if asleep else "plan"
            rows.append(
                {
                    "id": f"{hall}-{number:03}",
                    "kind": "miner",
                    "bank": hall,
                    "make": MAKE,
                    "circuit": hall,
                    "state": None if silent else "asleep" if asleep else "active",
                    "watts": None if silent else round(watts, 1),
                    "limit_w": None,
                    "age_s": 31.0 if silent else 1.0 + number % 4,
                    "fault": "no answer within 3 s" if silent else None,
                    "setpoint": None if silent or held else "off" if asleep else "normal",
                    "setpoint_w": None if silent or held else 20.0 if asleep else 3_420.0,
                    "cause": None if silent or held or not asleep else "economic",
                    "rule": None if silent else rule,
                    "pending": False,
                    "failures": 3 if silent else 0,
                    "withheld": None,
                    "far": None,
                }
            )
        for number in range(GPUS):
            watts = gpu_watts * (1.0 + 0.03 * math.sin(number * 2.0))
            rows.append(
                {
                    "id": f"gpu-{number:03}",
                    "kind": "gpu",
                    "bank": "gpus",
                    "make": "NVIDIA H100 80GB HBM3",
                    "circuit": "hall-ai",
                    "state": "active",
                    "watts": round(watts, 1),
                    "limit_w": 700.0,
                    "age_s": 0.6,
                    "fault": None,
                    "setpoint": "700W",
                    "setpoint_w": 700.0,
                    "cause": None,
                    "rule": "service need: chat" if number < 100 else "service need: batch",
                    "pending": False,
                    "failures": 0,
                    "withheld": None,
                    "far": None,
                }
            )
        return rows

    def learned(self) -> dict[str, Any]:
        """Return what `control.learn.Learning.status` does, of one bank of one make."""
        ramp = {"samples": 31, "p50_s": 2.1, "p95_s": 3.4}
        points = [
            _measured("off", 20.0, 0.0, 17.0, None),
            _measured("normal", 3_420.0, 110.0, 3_394.0, 112.5),
        ]
        in_use = {"points": {}, "ramp_down_s": 3.4, "ramp_up_s": 60.0, "learned": True}
        far = {"hall-a-017": "draws 3.9 kW, its group 3.39 kW"}
        make = {"make": MAKE, "points": points, "ramp_down": ramp, "ramp_up": {**ramp, "p95_s": 58.0}, "loads": 48}
        return {"hall-a": {"bank": "hall-a", "far": far, "makes": [{**make, "far": far, "in_use": in_use}]}}

    def recent(self) -> list[dict[str, Any]]:
        """Return what happened of late, newest first."""
        return list(self._recent)

    def why(self, target: str) -> Mapping[str, Any]:
        """Return the row behind a load or circuit. Raises KeyError as the daemon does."""
        self._known(target)
        status = self.status()
        if target in status["circuits"]:
            return {"circuit": target, "at": self.at, **status["circuits"][target]}
        row = next(row for row in self.loads() if row["id"] == target)
        return {
            "load": target,
            "at": self.at,
            "inputs": {"price_per_mwh": self.price, "price_age_s": 12.0, "state": row["state"], "watts": row["watts"]},
            "setpoint": {"point": row["setpoint"], "watts": row["setpoint_w"]},
            "cause": row["cause"],
            "rule": row["rule"],
            "binding": None,
            "circuits": {"grid": status["circuits"]["grid"]},
        }

    async def hold(self, target: str, kind: HoldKind, owner: str, reason: str) -> Hold:
        """Place a hold."""
        self._known(target)
        hold = Hold(f"hold-{len(self.orders) + 1}", target, kind, owner, reason, self.at)
        self.orders.append(("hold", target, kind.value, owner, reason))
        self.holds.append(hold)
        self.note("operator", f"{owner} holds {target} {kind.value}: {reason or 'no reason given'}")
        return hold

    async def release(self, hold_id: str, owner: str) -> None:
        """End a hold."""
        hold = next((item for item in self.holds if item.id == hold_id), None)
        if hold is None:
            raise KeyError(f"no hold or shed order {hold_id!r}; standing: none stands")
        if hold.owner != owner:
            raise PermissionError(f"{hold_id} was placed by {hold.owner}; only its owner releases it")
        self.orders.append(("release", hold_id, owner))
        self.holds.remove(hold)
        self.note("operator", f"{owner} releases {hold.target}")

    async def set_mode(self, mode: Mode, owner: str) -> None:
        """Set the mode."""
        self.orders.append(("mode", mode.value, owner))
        self.mode = mode

    async def shed(self, watts: float, circuit: str | None, owner: str) -> Mapping[str, Any]:
        """Note a shed order."""
        if circuit is not None:
            self._known(circuit)
        self.orders.append(("shed", watts, circuit, owner))
        return {"id": "shed-1", "circuit": circuit or "grid", "ceiling_w": LIMIT_W - watts, "asked_w": watts}

    async def reload(self) -> Mapping[str, Any]:
        """Raise `reload_error`, or tell of no changes."""
        if self.reload_error is not None:
            raise self.reload_error
        self.orders.append(("reload",))
        return {"policy_hash": "0" * 8, "changes": []}

    async def restore(self, target: str, owner: str) -> Mapping[str, Any]:
        """Note a restore."""
        self._known(target)
        self.orders.append(("restore", target, owner))
        return {"load": target, "acked": True, "detail": ""}

    async def events(self) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the status after each tick."""
        queue: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(maxsize=4)
        self.subscribers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self.subscribers.discard(queue)

    def _known(self, target: str) -> None:
        names = [*self.status()["circuits"], *(row["id"] for row in self.loads())]
        if target not in names:
            near = difflib.get_close_matches(target, names, n=3, cutoff=0.5)
            raise KeyError(f"no load or circuit is called {target!r}; near matches: {', '.join(near)}")


def _measured(name: str, watts: float, th_per_s: float, seen: float, rate: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "nameplate_watts": watts,
        "nameplate_th_per_s": th_per_s,
        "samples": 480,
        "loads": 48,
        "watts": seen,
        "watts_p95": 1.02 * seen,
        "most_watts": 1.03 * seen,
        "rates": 480,
        "th_per_s": rate,
        "joules_per_th": seen / rate if rate else None,
    }


def _circuit(
    parent: str | None, limit: float, worst: float, measured: float | None, age_s: float | None, cause: str | None
) -> dict[str, Any]:
    return {
        "parent": parent,
        "limit_w": limit,
        "sum_w": worst,
        "room_w": max(0.0, limit - worst),
        "measured_w": measured,
        "meter": "none" if measured is None else "good",
        "meter_age_s": age_s,
        "meter_detail": "",
        "cause": cause,
        "increases": True,
        "why_not": "",
    }


def _service(need: float | None, limit: float, waiting: int, running: int, tokens: float) -> dict[str, Any]:
    return {"need_w": need, "limit_w": limit, "waiting": waiting, "running": running, "tokens_per_s": tokens}
