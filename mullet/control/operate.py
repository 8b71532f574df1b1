"""What an operator may ask of the running daemon; each order is persisted, recorded and honoured within one tick."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from mullet.control import record
from mullet.control.loop import Controller
from mullet.control.parts import Plant
from mullet.control.reconcile import SEND_DEADLINE_S
from mullet.control.status import explain, loads_status
from mullet.domain.codec import encode
from mullet.domain.command import Command, Verb
from mullet.domain.facility import Mode
from mullet.domain.feeds import Cause, Curtailment
from mullet.domain.snapshot import Hold, HoldKind
from mullet.planning.shed import shed_list
from mullet.ports import Clock, JournalError, MulletError

FOREVER = 4_102_444_800.0
"""Unix seconds of the year 2100: an order without an end stands until it is released."""


class Desk:
    """Implements `ports.Operations` on a running controller."""

    def __init__(
        self,
        controller: Controller,
        clock: Clock,
        reload: Callable[[], Awaitable[tuple[Plant, Mapping[str, Any]]]] | None,
    ) -> None:
        self._controller = controller
        self._clock = clock
        self._reload = reload

    def status(self) -> Mapping[str, Any]:
        """Return the state as plain data."""
        return self._controller.status()

    def loads(self) -> list[dict[str, Any]]:
        """Return one row per load."""
        decision = self._controller.decision
        if decision is None:
            return []
        controller, learning = self._controller, self._controller.learning
        return loads_status(
            controller.facility, decision, learning.far(), controller.barred, learning.makes(), controller.ailments
        )

    def learned(self) -> dict[str, Any]:
        """Return per bank of miners, make by make, what was measured against its nameplate."""
        return self._controller.learning.status(self._controller.facility)

    def recent(self) -> list[dict[str, Any]]:
        """Return the latest decisions and outcomes in words, newest first."""
        return self._controller.announcer.recent

    def why(self, target: str) -> Mapping[str, Any]:
        """Return the inputs, the binding limit and the rule behind the target.

        Raises:
            KeyError: unknown target; the message names near matches.
        """
        decision = self._controller.decision
        if decision is None:
            return {"target": target, "rule": "no tick has been finished yet"}
        self._known(target)
        return explain(self._controller.facility, decision, target)

    async def hold(self, target: str, kind: HoldKind, owner: str, reason: str) -> Hold:
        """Lock a load or circuit.

        Raises:
            KeyError: unknown target. JournalError, OSError: it could not be recorded or kept, so it does not stand.
        """
        self._known(target)
        state, now = self._controller.operator, self._clock.now()
        number = 1 + max((int(hold.id.removeprefix("hold-")) for hold in state.holds), default=0)
        hold = Hold(f"hold-{number}", target, kind, owner, reason, now)
        await self._controller.note(record.OPERATOR, {"order": "hold", "hold": encode(hold)})
        self._controller.announcer.note(now, "operator", f"{owner} holds {target} {kind.value}: {reason}")
        self._controller.set_operator(replace(state, holds=(*state.holds, hold)))
        return hold

    async def release(self, hold_id: str, owner: str) -> None:
        """End a hold or a shed order.

        Raises:
            KeyError: no such hold. PermissionError: somebody else placed it.
        """
        state = self._controller.operator
        hold = next((item for item in state.holds if item.id == hold_id), None)
        order = next((item for item in state.orders if item.id == hold_id), None)
        if hold is None and order is None:
            standing = [*(item.id for item in state.holds), *(item.id for item in state.orders)]
            known = ", ".join(standing) or "none stands"
            raise KeyError(f"no hold or shed order {hold_id!r}; standing: {known}")
        if hold is not None and hold.owner != owner:
            raise PermissionError(f"{hold_id} was placed by {hold.owner}; only its owner releases it")
        await self._controller.note(record.OPERATOR, {"order": "release", "id": hold_id, "owner": owner})
        self._controller.set_operator(
            replace(
                state,
                holds=tuple(item for item in state.holds if item.id != hold_id),
                orders=tuple(item for item in state.orders if item.id != hold_id),
            )
        )

    async def set_mode(self, mode: Mode, owner: str) -> None:
        """Persist the operator's mode; the policy and the command line may restrict it further."""
        await self._controller.note(record.OPERATOR, {"order": "mode", "mode": mode.value, "owner": owner})
        self._controller.set_operator(replace(self._controller.operator, mode=mode))

    async def shed(self, watts: float, circuit: str | None, owner: str) -> Mapping[str, Any]:
        """Drop at least `watts` of mining at once and keep it off until released.

        Raises:
            KeyError: unknown circuit. ValueError: nothing to shed. RuntimeError: control has not begun.
        """
        decision = self._controller.decision
        if decision is None:
            raise RuntimeError("control has not begun: nothing is known of the loads yet")
        facility = self._controller.facility
        target = circuit or facility.root.id
        if target not in facility.circuit_by_id:
            raise KeyError(self._near(target))
        if not watts > 0.0:
            raise ValueError(f"{watts} W: give the power to shed, above 0 W")
        chosen = shed_list(facility, decision.snapshot, decision.accounts).query(target, watts)
        account = decision.accounts[target]
        limit = max(0.0, account.sum_watts - watts)
        state, now = self._controller.operator, self._clock.now()
        number = 1 + max((int(item.id.removeprefix("shed-")) for item in state.orders), default=0)
        order = Curtailment(f"shed-{number}", target, limit, now, FOREVER, Cause.EMERGENCY, now, priority=0)
        await self._controller.note(record.OPERATOR, {"order": "shed", "owner": owner, "ceiling": encode(order)})
        self._controller.set_operator(replace(state, orders=(*state.orders, order)))
        return {"id": order.id, "circuit": target, "ceiling_w": limit, "first_loads": list(chosen), "asked_w": watts}

    async def reload(self) -> Mapping[str, Any]:
        """Read the policy again and swap it in between two ticks.

        Raises:
            ValueError: the policy cannot be read, has problems or cannot be put on record; the old one stays and an
                alarm says why.
        """
        if self._reload is None:
            raise ValueError("this daemon was started without a policy file to reload")
        try:
            plant, changes = await self._reload()
            await self._adopt(plant, changes)
        except (ValueError, OSError, ImportError, MulletError) as error:
            # A file that is gone, a plug-in that is not installed or a full disk refuse it as much as a typing error.
            text = str(error) or type(error).__name__
            self._controller.alarm("policy", f"reload refused, the old policy stays: {text.splitlines()[0]}")
            if isinstance(error, ValueError):
                raise
            raise ValueError(text) from error
        self._controller.alarm("policy", None)
        return changes

    async def _adopt(self, plant: Plant, changes: Mapping[str, Any]) -> None:
        try:
            await self._controller.swap(plant, changes)
        except JournalError:
            if plant.close is not None:
                await plant.close()
            raise

    async def restore(self, target: str, owner: str) -> Mapping[str, Any]:
        """Put remembered defaults back on a load, through the write gate.

        Raises:
            KeyError: unknown load. MulletError: the gate or the device refused.
        """
        facility = self._controller.facility
        if target not in facility.load_by_id:
            raise KeyError(self._near(target))
        load, now = facility.load_by_id[target], self._clock.now()
        await self._controller.note(record.OPERATOR, {"order": "restore", "load": target, "owner": owner})
        command = Command(
            id=f"restore-{target}-{now:.3f}",
            seq=0,
            epoch=0,
            load_id=target,
            verb=Verb.POWER,
            point=load.highest.name,
            watts=load.highest.watts,
            # Defaults may be anything: it counts as a raise, which no load that is held off may get.
            most_before_watts=load.most_at(load.lowest),
            most_after_watts=load.worst_watts,
            cause=Cause.HOLD,
            plan_id="",
            policy_hash=facility.policy_hash,
            issued_at=now,
            not_after=now + SEND_DEADLINE_S,
            lease_s=facility.pacing.lease_s,
        )
        receipt = await self._controller.restore(load, command)
        return {"load": target, "acked": receipt.acked, "detail": receipt.detail}

    async def events(self) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the state after each tick, newest wins."""
        queue = self._controller.announcer.subscribe()
        try:
            while True:
                yield await queue.get()
        finally:
            self._controller.announcer.unsubscribe(queue)

    def _known(self, target: str) -> None:
        facility = self._controller.facility
        if target not in facility.load_by_id and target not in facility.circuit_by_id:
            raise KeyError(self._near(target))

    def _near(self, target: str) -> str:
        facility = self._controller.facility
        near = difflib.get_close_matches(target, [*facility.circuit_by_id, *facility.load_by_id], n=3, cutoff=0.5)
        hint = f"; near matches: {', '.join(near)}" if near else ""
        return f"no load or circuit is called {target!r}{hint}"
