"""From demand to watts: inverted curve, queue, margin, hold-up; unknown stays unknown."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullet.domain.facility import Service
from mullet.domain.feeds import ServiceDemand
from mullet.domain.load import Capability, Load, LoadKind, OperatingPoint, Steering
from mullet.programs.demand import hold_up, needed_watts, offered_tokens_per_s

AT = 1_700_000_000.0
CHAT = Service("chat", 2.0, margin=0.1)
POINTS = (
    OperatingPoint("min", 200.0, tokens_per_s=400.0),
    OperatingPoint("mid", 400.0, tokens_per_s=1_400.0),
    OperatingPoint("max", 700.0, tokens_per_s=2_000.0),
)


def gpu(name):
    capability = Capability(Steering.CONTINUOUS, True, True, 1.0, 1.0)
    return Load(name, LoadKind.GPU, "b", "gpu", name, "c", "own", POINTS, "min", 700.0, 0.0, capability, "chat")


GPUS = [gpu("a"), gpu("b")]


def demand(tokens=None, offered=None, running=None, waiting=None, at=AT):
    return ServiceDemand("chat", at, running, waiting, tokens, offered)


@pytest.mark.parametrize(
    ("offered", "watts"),
    [(0.0, 400.0), (2_800.0, 880.0), (1_800.0, 660.0), (3_400.0, 1_210.0), (9_000.0, 1_400.0)],
)
def test_the_concave_curve_is_inverted(offered, watts):
    assert needed_watts(CHAT, GPUS, demand(offered=offered), AT) == pytest.approx(watts, abs=0.1)


def test_demand_is_held_and_then_unknown():
    old = demand(offered=2_800.0, at=AT - 10.0)
    assert needed_watts(CHAT, GPUS, old, AT) == pytest.approx(880.0, abs=0.1)
    assert needed_watts(CHAT, GPUS, old, AT + 0.1) is None
    assert needed_watts(CHAT, GPUS, None, AT) is None
    assert needed_watts(CHAT, GPUS, demand(), AT) is None
    assert needed_watts(CHAT, [], None, AT) == 0.0


def test_idle_is_known_to_be_idle():
    assert needed_watts(CHAT, GPUS, demand(running=0.0, waiting=0.0), AT) == 400.0


def test_the_queue_asks_for_more():
    assert offered_tokens_per_s(demand(tokens=1_000.0, running=10.0, waiting=0.0)) == 1_000.0
    assert offered_tokens_per_s(demand(tokens=1_000.0, running=10.0, waiting=5.0)) == 1_500.0
    assert offered_tokens_per_s(demand(tokens=1_000.0, offered=1_200.0, running=0.0, waiting=2.0)) == 1_680.0
    assert offered_tokens_per_s(demand(tokens=math.nan, running=1.0)) is None


@given(st.floats(0.0, 5_000.0), st.floats(0.0, 5_000.0))
def test_more_demand_never_needs_less_power(one, other):
    low, high = sorted((one, other))
    first, second = (needed_watts(CHAT, GPUS, demand(offered=x), AT) or 0.0 for x in (low, high))
    assert 400.0 <= first <= second + 1e-6 <= 1_400.0 + 1e-5


def test_need_rises_at_once_and_falls_late():
    held = hold_up(None, 500.0, AT, 30.0)
    held = hold_up(held, 900.0, AT + 1.0, 30.0)
    assert held == (900.0, AT + 1.0)
    held = hold_up(held, 600.0, AT + 20.0, 30.0)
    assert held[0] == 900.0
    held = hold_up(held, 900.0, AT + 25.0, 30.0)
    assert hold_up(held, 600.0, AT + 54.0, 30.0)[0] == 900.0
    assert hold_up(held, 600.0, AT + 55.0, 30.0) == (600.0, AT + 55.0)


def test_rates_over_seconds_move_no_power_but_a_queue_does():
    young = replace(demand(tokens=2_800.0, offered=2_800.0, running=4.0, waiting=0.0), watched_s=3.0)
    assert needed_watts(CHAT, GPUS, young, AT) is None
    assert needed_watts(CHAT, GPUS, replace(young, running=0.0), AT) is None
    assert needed_watts(CHAT, GPUS, replace(young, waiting=1.0), AT) > 880.0
    assert needed_watts(CHAT, GPUS, replace(young, watched_s=10.0), AT) == pytest.approx(880.0, abs=0.1)
