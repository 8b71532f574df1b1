"""The grid connection's market: adders, coincident peaks, demand charges, power bought ahead, negative prices.

A row of power bought stands at minus what was bought ahead, a row of a peak at minus its floor: their duals are the
worth of the data with its sign changed.
"""

from __future__ import annotations

from golden_kit import (
    Case,
    Dual,
    at_least,
    floor_of,
    imported,
    miners,
    peak,
    problem,
    row,
    site_of,
    sold,
    steps,
)

from mullet.planning.commitment.problem import DemandCharge


def adder_counts_on_every_mwh() -> Case:
    """At $90 + 15 the load stays off and 1 MW of fixed draw costs 105; at $80 + 15 it earns 5 and 95 are paid: -195."""
    grid = steps(1, 1)
    return Case(
        problem(grid, [miners(1, grid=grid)], price=[90, 80], site={"adder_per_mwh": 15.0, "fixed_mw": 1.0}),
        -195.0,
        values=((at_least(0, 0, 0), 0.0), (at_least(0, 0, 1), 1.0), (imported(1), 2.0)),
    )


def likely_coincident_peak_stops_mining() -> Case:
    """An hour at $50 whose expected coincident-peak cost is 60 costs 110: off; the hour before earns 50."""
    grid = steps(1, 1)
    return Case(
        problem(grid, [miners(1, grid=grid)], site={"coincident_per_mwh": [0, 60]}),
        50.0,
        values=((at_least(0, 0, 0), 1.0), (at_least(0, 0, 1), 0.0)),
    )


def revenue_changes_by_the_hour() -> Case:
    """$40, then $60 per TH/s and hour at an energy price of 50: off, then 10 a load: 20."""
    grid = steps(1, 1)
    return Case(problem(grid, [miners(2, grid=grid)], site={"earned_per_th_hour": [40, 60]}), 20.0)


def demand_charge_shaves_the_peak() -> Case:
    """Two hours at $50 and $85: a MW above the peak so far, 2 MW, earns 50 + 15 = 65 and costs 70: 2 x 65 = 130.

    A higher floor is worth 65; the rows of both hours share it, 50 and 15.
    """
    grid = steps(1, 1)
    charge = DemandCharge(0, 2, per_mw=70.0, floor_mw=2.0)
    return Case(
        problem(grid, [miners(4, grid=grid)], price=[50, 85], site={"demand_charges": (charge,)}),
        130.0,
        values=((imported(0), 2.0), (imported(1), 2.0), (peak(0), 0.0)),
        duals=(
            Dual(-50.0, row=row("peak", 0, 0), nudge=floor_of(0), by_data=65.0),
            Dual(-15.0, row=row("peak", 0, 1)),
        ),
    )


def demand_charge_is_paid_where_mining_pays_it() -> Case:
    """As above at $60 a MW: all four run, 4 x 65 - 2 x 60 = 140; a higher floor saves 60."""
    grid = steps(1, 1)
    charge = DemandCharge(0, 2, per_mw=60.0, floor_mw=2.0)
    return Case(
        problem(grid, [miners(4, grid=grid)], price=[50, 85], site={"demand_charges": (charge,)}),
        140.0,
        values=((peak(0), 2.0),),
    )


def demand_charge_covers_its_window_only() -> Case:
    """The charge of $80 a MW starts after the first hour: 200 there; then $50 and $150 at the floor of 1: 50: 250."""
    grid = steps(1, 1, 1)
    charge = DemandCharge(1, 3, per_mw=80.0, floor_mw=1.0)
    return Case(
        problem(grid, [miners(4, grid=grid)], price=[50, 50, 150], site={"demand_charges": (charge,)}),
        250.0,
        values=((imported(0), 4.0), (imported(1), 1.0), (imported(2), 0.0)),
        duals=(Dual(-50.0, row=row("peak", 0, 1), nudge=floor_of(0), by_data=50.0),),
    )


def demand_charge_ends_with_its_window() -> Case:
    """The charge of $80 a MW ends after the first hour: at the floor of 1 MW there, 50, then all four, 200: 250."""
    grid = steps(1, 1)
    charge = DemandCharge(0, 1, per_mw=80.0, floor_mw=1.0)
    return Case(
        problem(grid, [miners(4, grid=grid)], site={"demand_charges": (charge,)}),
        250.0,
        values=((imported(0), 1.0), (imported(1), 4.0)),
    )


def two_demand_charges_add_up() -> Case:
    """A month's charge of 30 above 1 MW and a ratchet of 30 above 2 MW; a MW earns 50: up to 2 MW it pays 30, then 60.

    2 MW: 100 - 30 = 70. The ratchet is worth 50 - 30 = 20 a MW, the month's floor 30.
    """
    grid = steps(1)
    charges = (DemandCharge(0, 1, 30.0, 1.0), DemandCharge(0, 1, 30.0, 2.0))
    return Case(
        problem(grid, [miners(4, grid=grid)], site={"demand_charges": charges}),
        70.0,
        values=((imported(0), 2.0), (peak(0), 1.0), (peak(1), 0.0)),
        duals=(
            Dual(-30.0, row=row("peak", 0, 0), nudge=floor_of(0), by_data=30.0),
            Dual(-20.0, row=row("peak", 1, 0), nudge=floor_of(1), by_data=20.0),
        ),
    )


def power_bought_ahead_is_mined_or_sold() -> Case:
    """3 MW bought ahead, a load worth 115 and four worth 100 $/MWh.

    $120, sold at 110: one mines, two MW are sold, 115 + 220 = 335. $50, sold at 45: all mine, 515 - 100 = 415.
    $130, sold at 90: three mine, 115 + 200 = 315. In all 1065. A MW bought ahead more is worth 110, 50 and 100.
    """
    grid = steps(1, 1, 1)
    groups = [miners(1, grid=grid, key="new", th_per_s=[1.15]), miners(4, grid=grid)]
    market = {"ppa_mw": 3.0, "sell_per_mwh": [110, 45, 90]}
    return Case(
        problem(grid, groups, price=[120, 50, 130], site=market),
        1065.0,
        values=(
            (imported(0), 1.0),
            (sold(0), 2.0),
            (imported(1), 5.0),
            (at_least(1, 0, 2), 2.0),
            (imported(2), 3.0),
            (sold(2), 0.0),
        ),
        duals=tuple(
            Dual(-worth, row=row("bought", step), nudge=site_of("ppa_mw", step), by_data=worth)
            for step, worth in enumerate((110.0, 50.0, 100.0))
        ),
    )


def power_bought_ahead_is_used_before_a_negative_price() -> Case:
    """3 MW bought ahead, two loads, -$10: what is used is not bought once more, so nobody pays: 200."""
    grid = steps(1)
    return Case(
        problem(grid, [miners(2, grid=grid)], price=-10.0, site={"ppa_mw": 3.0}),
        200.0,
    )


def power_bought_ahead_is_lost_where_it_cannot_be_sold() -> Case:
    """3 MW bought ahead, two loads, no resale: both mine, 200, the third MW is lost and worth nothing."""
    grid = steps(1)
    return Case(
        problem(grid, [miners(2, grid=grid)], site={"ppa_mw": 3.0}),
        200.0,
        values=((at_least(0, 0, 0), 2.0), (imported(0), 2.0)),
        duals=(Dual(0.0, nudge=site_of("ppa_mw", 0)),),
    )


def negative_price_runs_all() -> Case:
    """At -$20 a load that earns nothing is paid 20 to run, one that earns 10 gets 30; 1 MW of fixed draw 20: 70."""
    grid = steps(1)
    groups = [miners(1, grid=grid, key="a", th_per_s=[0.1]), miners(1, grid=grid, key="b", th_per_s=[0.0])]
    return Case(
        problem(grid, groups, price=-20.0, site={"fixed_mw": 1.0}),
        70.0,
        values=((at_least(0, 0, 0), 1.0), (at_least(1, 0, 0), 1.0), (imported(0), 3.0)),
    )


MARKET = (
    adder_counts_on_every_mwh,
    likely_coincident_peak_stops_mining,
    revenue_changes_by_the_hour,
    demand_charge_shaves_the_peak,
    demand_charge_is_paid_where_mining_pays_it,
    demand_charge_covers_its_window_only,
    demand_charge_ends_with_its_window,
    two_demand_charges_add_up,
    power_bought_ahead_is_mined_or_sold,
    power_bought_ahead_is_used_before_a_negative_price,
    power_bought_ahead_is_lost_where_it_cannot_be_sold,
    negative_price_runs_all,
)
