"""Leases: silence leads to the fail-safe point, and only a heartbeat followed by a setpoint leads out of it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullet.agent.lease import LeaseKeeper, LeaseState
from mullet.testing.builders import command, gpu

LEASE_S = 60.0
LOAD = gpu("gpus-001")
ORDER = command(LOAD, point="700W")


def keeper(*, cold_boot: bool = False) -> LeaseKeeper:
    return LeaseKeeper([LOAD.id], LEASE_S, 0.0, grace_s=0.0 if cold_boot else None)


def test_a_restart_keeps_the_state_for_a_full_lease_and_not_longer() -> None:
    leases = keeper()
    assert leases.expired(59.9) == ()
    assert leases.expired(60.0) == (LOAD.id,)


def test_a_restart_never_lengthens_a_lease() -> None:
    rest = LeaseKeeper([LOAD.id], LEASE_S, 0.0, grace_s=20.0)
    assert rest.expired(19.9) == ()
    assert rest.expired(20.0) == (LOAD.id,)
    assert LeaseKeeper([LOAD.id], LEASE_S, 0.0, grace_s=1e9).expired(LEASE_S) == (LOAD.id,)


def test_a_cold_boot_goes_to_failsafe_at_once() -> None:
    assert keeper(cold_boot=True).expired(0.0) == (LOAD.id,)


def test_heartbeats_keep_a_lease_alive() -> None:
    leases = keeper()
    leases.accept(ORDER, 1.0)
    for now in range(10, 600, 10):
        leases.renew(float(now), LEASE_S)
        assert leases.expired(float(now)) == ()
    assert leases.state(LOAD.id, 649.0) is LeaseState.LIVE
    assert leases.state(LOAD.id, 650.0) is LeaseState.LAPSED


def test_a_heartbeat_alone_does_not_lead_out_of_failsafe() -> None:
    leases = keeper(cold_boot=True)
    leases.renew(1.0)
    assert leases.state(LOAD.id, 1.0) is LeaseState.LAPSED


def test_a_setpoint_alone_does_not_lead_out_of_failsafe() -> None:
    leases = keeper(cold_boot=True)
    assert not leases.accept(ORDER, 1.0)
    assert leases.state(LOAD.id, 1.0) is LeaseState.LAPSED


def test_a_heartbeat_from_before_the_lapse_does_not_count() -> None:
    leases = keeper()
    leases.renew(1.0, lease_s=10.0)
    assert not leases.accept(ORDER, 11.0)


def test_a_heartbeat_that_grew_old_does_not_count() -> None:
    leases = keeper(cold_boot=True)
    leases.renew(1.0, lease_s=10.0)
    assert not leases.accept(ORDER, 11.0)


def test_a_heartbeat_then_a_setpoint_lead_out_of_failsafe() -> None:
    leases = keeper(cold_boot=True)
    leases.renew(1.0)
    assert leases.accept(ORDER, 2.0)
    assert leases.state(LOAD.id, 2.0) is LeaseState.LIVE
    assert leases.expired(61.9) == ()


def test_no_message_is_granted_more_than_the_longest_lease() -> None:
    leases = keeper()
    leases.accept(replace(ORDER, lease_s=1e9), 0.0)
    assert leases.state(LOAD.id, LEASE_S) is LeaseState.LAPSED
    leases.renew(61.0, 1e9)
    assert leases.accept(ORDER, 62.0)
    leases.renew(63.0, 1e9)
    assert leases.state(LOAD.id, 63.0 + LEASE_S) is LeaseState.LAPSED


def test_a_settled_load_is_left_alone_until_it_is_seen_elsewhere() -> None:
    leases = keeper(cold_boot=True)
    leases.settle(LOAD.id)
    assert leases.expired(1.0) == ()
    leases.unsettle(LOAD.id)
    assert leases.expired(2.0) == (LOAD.id,)


def test_attempts_back_off_but_never_end() -> None:
    leases = keeper(cold_boot=True)
    now, attempts = 0.0, []
    while now < 100.0:
        if leases.expired(now):
            attempts.append(now)
            leases.postpone(LOAD.id, now)
        now += 0.5
    assert attempts[:4] == [0.0, 1.0, 3.0, 7.0]
    assert max(b - a for a, b in itertools.pairwise(attempts)) <= 5.0


def test_settling_a_live_load_means_nothing() -> None:
    leases = keeper()
    leases.settle(LOAD.id)
    assert leases.expired(LEASE_S) == (LOAD.id,)


@pytest.mark.parametrize("lease_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_lease_that_is_none_is_refused(lease_s: float) -> None:
    with pytest.raises(ValueError):
        LeaseKeeper([LOAD.id], lease_s, 0.0)


EVENTS = st.lists(
    st.tuples(
        st.floats(0.0, 50.0),
        st.sampled_from(["beat", "order", "settle", "unsettle", "postpone", "look"]),
        st.floats(0.1, 200.0),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(events=EVENTS, cold_boot=st.booleans())
def test_a_lapsed_lease_means_failsafe_until_heartbeat_and_setpoint(
    events: list[tuple[float, str, float]], cold_boot: bool
) -> None:
    """Judged by a model of its own: a load may stand elsewhere only within a lease of the last word that counts."""
    leases = keeper(cold_boot=cold_boot)
    now = 0.0
    lapsed = cold_boot
    until = 0.0 if cold_boot else LEASE_S
    beat_since_lapse_until: float | None = None
    for wait_s, kind, lease_s in events:
        now += wait_s
        if not lapsed and now >= until:
            lapsed, beat_since_lapse_until = True, None
        if kind == "beat":
            leases.renew(now, lease_s)
            if lapsed:
                beat_since_lapse_until = now + min(lease_s, LEASE_S)
            else:
                until = now + min(lease_s, LEASE_S)
        elif kind == "order":
            allowed = not lapsed or (beat_since_lapse_until is not None and now < beat_since_lapse_until)
            assert leases.accept(replace(ORDER, lease_s=lease_s), now) is allowed
            if allowed:
                lapsed, until = False, now + min(lease_s, LEASE_S)
        elif kind == "settle":
            leases.settle(LOAD.id)
        elif kind == "unsettle":
            leases.unsettle(LOAD.id)
        elif kind == "postpone":
            leases.postpone(LOAD.id, now)
        assert (leases.state(LOAD.id, now) is LeaseState.LAPSED) is lapsed
        if not lapsed:
            assert leases.expired(now) == ()
    # Whatever happened: a load that is away from its fail-safe point, and no word after it, is sought again.
    leases.unsettle(LOAD.id)
    assert leases.expired(now + 2.0 * LEASE_S + 10.0) == (LOAD.id,)
