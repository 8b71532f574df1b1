"""Leases of an edge agent's loads: who may still stand where it was told, and who must go to its fail-safe point.

After EEBUS LPC: silence leads to the fail-safe point, and only a heartbeat followed by a new setpoint leads out of
it; time alone never does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from mullet.domain.command import Command


class LeaseState(StrEnum):
    """Grace: the agent just started and does not know how old the load's setpoint is. Live: leased. Lapsed: fail-safe.

    A heartbeat renews grace as it renews a live lease: the controller that set the load lives and sees it.
    """

    GRACE = "grace"
    LIVE = "live"
    LAPSED = "lapsed"


@dataclass(slots=True)
class _Lease:
    state: LeaseState
    deadline: float
    setpoint: Command | None = None
    settled: bool = False
    attempts: int = 0
    retry_at: float = -math.inf


class LeaseKeeper:
    """Keeps one lease per load. All instants are monotonic seconds, handed in, and never fall.

    `lease_s` is the longest lease granted, whatever a message asks for. `grace_s` is how long every load keeps its
    state from `now` without a word: what is left of the leases of before a restart, a full lease where that is
    unknown (None), nothing where they lapsed meanwhile or the machine has just started (0: every load begins lapsed).
    """

    def __init__(
        self,
        load_ids: Iterable[str],
        lease_s: float,
        now: float,
        *,
        grace_s: float | None = None,
        retry_first_s: float = 1.0,
        retry_most_s: float = 5.0,
    ) -> None:
        if not (math.isfinite(lease_s) and lease_s > 0.0):
            raise ValueError(f"a lease of {lease_s} s is none")
        self._lease_s = lease_s
        self._retry_first_s = retry_first_s
        self._retry_most_s = retry_most_s
        self._heard_at = -math.inf
        self._heard_until = -math.inf
        grace_s = lease_s if grace_s is None else min(max(grace_s, 0.0), lease_s)
        state = LeaseState.GRACE if grace_s > 0.0 else LeaseState.LAPSED
        self._leases = {load_id: _Lease(state, now + grace_s) for load_id in load_ids}

    def renew(self, now: float, lease_s: float | None = None) -> None:
        """Take a heartbeat: every lease that has not lapsed runs another `lease_s` from `now`."""
        self._lapse(now)
        granted = self._granted(lease_s)
        self._heard_at = now
        self._heard_until = now + granted
        for lease in self._leases.values():
            if lease.state is not LeaseState.LAPSED:
                lease.deadline = now + granted

    def accept(self, command: Command, now: float) -> bool:
        """Take a fresh setpoint and start its lease; False while the load is in fail-safe and no heartbeat came since.

        Raises:
            KeyError: the load is not this agent's.
        """
        self._lapse(now)
        lease = self._leases[command.load_id]
        if lease.state is LeaseState.LAPSED and not (self._heard_at >= lease.deadline and now < self._heard_until):
            return False
        lease.state = LeaseState.LIVE
        lease.deadline = now + self._granted(command.lease_s)
        lease.setpoint = command
        lease.settled = False
        lease.attempts = 0
        lease.retry_at = -math.inf
        return True

    def expired(self, now: float) -> tuple[str, ...]:
        """Return the loads to take to their fail-safe point now: lapsed, not seen there yet, back-off over."""
        self._lapse(now)
        return tuple(
            load_id
            for load_id, lease in self._leases.items()
            if lease.state is LeaseState.LAPSED and not lease.settled and now >= lease.retry_at
        )

    def settle(self, load_id: str) -> None:
        """Note that a lapsed load was read back at its fail-safe point."""
        lease = self._leases[load_id]
        if lease.state is LeaseState.LAPSED:
            lease.settled = True
            lease.attempts = 0

    def unsettle(self, load_id: str) -> None:
        """Note that a load was seen away from its fail-safe point (a reboot wakes miners)."""
        self._leases[load_id].settled = False

    def postpone(self, load_id: str, now: float, least_s: float = 0.0) -> None:
        """Note that an attempt has not yet brought the load to its fail-safe point: try again after a back-off.

        `least_s` is the time a load needs to get there once it said yes.
        """
        lease = self._leases[load_id]
        wait_s = max(least_s, min(self._retry_most_s, self._retry_first_s * 2.0 ** min(lease.attempts, 10)))
        lease.attempts += 1
        lease.retry_at = now + wait_s

    def state(self, load_id: str, now: float) -> LeaseState:
        """Return where the load's lease stands at `now`."""
        self._lapse(now)
        return self._leases[load_id].state

    def settled(self, load_id: str) -> bool:
        """Return whether the load is lapsed and was seen at its fail-safe point."""
        return self._leases[load_id].settled

    def setpoint(self, load_id: str) -> Command | None:
        """Return the last setpoint taken for the load since this agent started."""
        return self._leases[load_id].setpoint

    def last_deadline(self) -> float | None:
        """Return when the last of the leases that run lapses unless it is renewed; None if none runs."""
        running = [lease.deadline for lease in self._leases.values() if lease.state is not LeaseState.LAPSED]
        return max(running, default=None)

    def _granted(self, lease_s: float | None) -> float:
        if lease_s is None:
            return self._lease_s
        return min(self._lease_s, lease_s) if lease_s > 0.0 else 0.0

    def _lapse(self, now: float) -> None:
        for lease in self._leases.values():
            if lease.state is not LeaseState.LAPSED and now >= lease.deadline:
                lease.state = LeaseState.LAPSED
                lease.settled = False
                lease.attempts = 0
                lease.retry_at = -math.inf
