"""Break-even prices, by hand and against what planning uses."""

from __future__ import annotations

import pytest

from mullet.domain.facility import Economics
from mullet.domain.load import Capability, Load, LoadKind, OperatingPoint, Steering
from mullet.planning.merit import Market
from mullet.planning.merit import break_even_per_mwh as planned_break_even
from mullet.programs.economics import break_even_per_mwh, load_break_even, margin_per_mwh, point_economics

POINTS = (
    OperatingPoint("off", 10.0),
    OperatingPoint("low", 2_510.0, th_per_s=150.0),
    OperatingPoint("high", 3_510.0, th_per_s=190.0),
)
MINER = Load(
    "m",
    LoadKind.MINER,
    "b",
    "d",
    "a",
    "c",
    "own",
    POINTS,
    "off",
    4e3,
    0.05,
    Capability(Steering.MODES, True, False, 1, 1),
)
ECONOMICS = Economics(hashprice_per_ph_day=50.0, pool_fee=0.02, energy_adder_per_mwh=3.0)


def test_the_example_of_the_requirements():
    # 17.5 J/TH at 50 per PH and day breaks even at 119 per MWh (R27).
    assert break_even_per_mwh(50.0, 0.0, 100.0, 1_750.0) == pytest.approx(119.0, abs=0.1)
    assert break_even_per_mwh(50.0, 0.0, 100.0, 0.0) == 0.0


def test_points_and_margin():
    low, high = point_economics(MINER, ECONOMICS)
    assert low.break_even_per_mwh == pytest.approx(50.0 * 0.98 * 0.150 / 24.0 / 0.0025)
    assert high.step_break_even_per_mwh == pytest.approx(50.0 * 0.98 * 0.040 / 24.0 / 0.001)
    assert high.step_break_even_per_mwh < high.break_even_per_mwh < low.break_even_per_mwh
    assert load_break_even(MINER, ECONOMICS) == low.break_even_per_mwh
    assert margin_per_mwh(MINER, ECONOMICS, 40.0) == pytest.approx(low.break_even_per_mwh - 43.0)
    assert margin_per_mwh(MINER, ECONOMICS, 40.0, 0.0) == -43.0


def test_planning_and_programs_agree():
    market = Market(0.0, 0.0, 50.0, 0.02, 5.0)
    assert point_economics(MINER, ECONOMICS)[1].step_break_even_per_mwh == pytest.approx(
        planned_break_even(market, POINTS[1], POINTS[2])
    )
