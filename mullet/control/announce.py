"""What goes out to those who watch: the state after each tick, and the latest decisions in words."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from mullet.control.decide import Decision
from mullet.control.planning_cycle import Adopted
from mullet.domain.command import Command, OutcomeKind
from mullet.domain.units import format_watts

MOST_QUEUED = 4
MOST_RECENT = 50


class Announcer:
    """Keeps the latest events and hands each new state to every subscriber; a slow one loses the oldest."""

    def __init__(self) -> None:
        self._subscribers: set[asyncio.Queue[Mapping[str, Any]]] = set()
        self._recent: deque[dict[str, Any]] = deque(maxlen=MOST_RECENT)
        self._commands: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()

    @property
    def recent(self) -> list[dict[str, Any]]:
        """The latest events, newest first: {"at", "kind", "text"}."""
        return list(self._recent)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Commands by cause and outcomes by kind since start."""
        return {"commands": dict(self._commands), "outcomes": dict(self._outcomes)}

    def subscribe(self) -> asyncio.Queue[Mapping[str, Any]]:
        """Return a queue that gets the state after each tick."""
        queue: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(maxsize=MOST_QUEUED)
        self._subscribers.add(queue)
        return queue

    def unsubscribe(self, queue: asyncio.Queue[Mapping[str, Any]]) -> None:
        """End a subscription."""
        self._subscribers.discard(queue)

    def publish(self, status: Mapping[str, Any]) -> None:
        """Hand a state to every subscriber."""
        for queue in self._subscribers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(status)

    def note(self, at: float, kind: str, text: str) -> None:
        """Keep one event."""
        self._recent.appendleft({"at": at, "kind": kind, "text": text})

    def note_plan(self, adopted: Adopted) -> None:
        """Keep the adoption of a plan."""
        plan = adopted.plan
        why = f" ({adopted.passed_over[0]})" if adopted.passed_over else ""
        self.note(plan.made_at, "plan", f"{plan.rung.value.replace('_', ' ')} plan{why}")

    def note_decision(self, decision: Decision) -> None:
        """Keep what a tick sent and what it verified or gave up, grouped by cause and kind."""
        at = decision.snapshot.at
        groups: dict[tuple[str, str], list[Command]] = {}
        for command in decision.dispatch.commands:
            self._commands[command.cause.value] += 1
            groups.setdefault((command.verb.value, command.cause.value), []).append(command)
        for (verb, cause), commands in groups.items():
            moved = sum(command.most_after_watts - command.most_before_watts for command in commands)
            first = decision.desired.setpoints[commands[0].load_id].rule
            count = f"{len(commands)} load{'s' if len(commands) > 1 else ''}"
            self.note(at, "command", f"{verb} {count}, {format_watts(moved)}, {cause.replace('_', ' ')}: {first}")
        for kind in OutcomeKind:
            found = [outcome for outcome in decision.outcomes if outcome.kind is kind]
            self._outcomes[kind.value] += len(found)
            if found and kind is not OutcomeKind.CONVERGING:
                count = f"{len(found)} load{'s' if len(found) > 1 else ''}"
                self.note(at, "outcome", f"{kind.value}: {count}, {found[0].load_id}: {found[0].detail}")
